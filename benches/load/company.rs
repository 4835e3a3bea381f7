//! Others beside the visitors who wait as they should: moderators who watch, visitors who don't read.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Run;
use super::crowd::Crowd;
use super::report::{Spread, progress};
use super::server::{ROOM, Server};
use super::tokens::{Signer, people, visitors};
use super::waiting::REST;
use super::worker::Kind;

const MODERATORS: usize = 50;
/// One in so many visitors doesn't read.
const DEAF: usize = 100;
const ROUNDS: usize = 5;

pub(crate) fn moderators(run: &mut Run) {
    let count = run.visitors;
    let server = Server::start_with(&[("", "", "queue.state_interval = \"1s\"")]);
    let mut everybody = people(
        server.address,
        ROOM,
        MODERATORS,
        &Signer::Shared,
        Kind::Watches,
    );
    everybody.extend(visitors(server.address, ROOM, count, &Signer::Shared));
    let mut crowd = Crowd::new(everybody);
    // Threads and buffers are paid for by the first tenth.
    let from = count / 10;
    crowd.grow_to(MODERATORS + from);
    let (before, begun) = (server.usage(), Instant::now());
    crowd.come();
    let (after, took) = (server.usage(), begun.elapsed());
    let micros_each = after.micros_each(&before, count - from);
    // A second after the last arrival all of them know.
    std::thread::sleep(Duration::from_secs(3));
    let watched = crowd.watched();
    let right = format!("\"visitorsWaiting\":{count}");
    let informed = watched
        .iter()
        .filter(|(_, body)| body.contains(&right))
        .count();
    assert_eq!(informed, MODERATORS, "not all moderators know: {watched:?}");
    let messages = watched.iter().map(|(messages, _)| messages).sum::<usize>() / MODERATORS;
    run.report.row(
        &format!("server CPU per set-up while {MODERATORS} moderators watch, told every second"),
        &format!(
            "{micros_each:.0} µs; {messages} messages each, {:.1} s",
            took.as_secs_f64()
        ),
    );
    run.report.keep(
        "moderators",
        json!({ "cpu_us_per_set_up": micros_each, "messages_each": messages }),
    );
}

pub(crate) fn slow(run: &mut Run) {
    let deaf = run.visitors / DEAF;
    let without = last_told(run.visitors - deaf, 0);
    let with = last_told(run.visitors - deaf, deaf);
    let ratio = with.last_ms / without.last_ms;
    run.report.row(
        "go-live until the readers are told, all reading: half; 99 %; the last",
        &without.to_string(),
    );
    run.report.row(
        &format!("the same, {deaf} more having asked for more than they read"),
        &with.to_string(),
    );
    run.report
        .row("the last one told, with ÷ without", &format!("{ratio:.2}"));
    run.report.keep(
        "slow",
        json!({
            "deaf": deaf, "without_ms": without.json(), "with_ms": with.json(),
            "last_with_over_without": ratio,
        }),
    );
}

/// Go-lives with so many who read, and so many who don't.
fn last_told(readers: usize, deaf: usize) -> Spread {
    let server = Server::start();
    let mut everybody = people(server.address, ROOM, deaf, &Signer::Shared, Kind::Deaf);
    everybody.extend(visitors(server.address, ROOM, readers, &Signer::Shared));
    let mut crowd = Crowd::new(everybody);
    let runs = (0..ROUNDS).map(|n| {
        progress(format!("  {deaf} don't read, {} of {ROUNDS}", n + 1));
        crowd.come();
        crowd.stuff();
        // What they asked for is answered by then, as far as they take it.
        std::thread::sleep(REST);
        let (spread, _) = crowd.told(|| server.go_live());
        server.end_live();
        crowd.leave();
        spread
    });
    Spread::median(runs.collect())
}
