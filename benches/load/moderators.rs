//! Moderators subscribe to the number of waiting visitors while visitors connect.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Run;
use super::clients::Clients;
use super::server::{ROOM, Server};
use super::tokens::{Signer, clients_of_kind, visitors};
use super::worker::Kind;

const MODERATORS: usize = 50;

pub(crate) fn moderators(run: &mut Run) {
    let count = run.visitors;
    let server = Server::start_with(&[("", "", "queue.state_interval = \"1s\"")]);
    let mut all = clients_of_kind(
        server.address,
        ROOM,
        MODERATORS,
        &Signer::SharedSecret,
        Kind::Watching,
    );
    all.extend(visitors(server.address, ROOM, count, &Signer::SharedSecret));
    let mut clients = Clients::new(all);
    // The first tenth allocates threads and buffers.
    let from = count / 10;
    clients.connect_up_to(MODERATORS + from);
    let (before, start) = (server.usage(), Instant::now());
    clients.connect_all();
    let (after, elapsed) = (server.usage(), start.elapsed());
    let micros_each = after.micros_each(&before, count - from);
    // The state interval is one second, so all moderators have the final number by then.
    std::thread::sleep(Duration::from_secs(3));
    let updates = clients.updates();
    let expected = format!("\"visitorsWaiting\":{count}");
    let up_to_date = updates
        .iter()
        .filter(|(_, body)| body.contains(&expected))
        .count();
    assert_eq!(
        up_to_date, MODERATORS,
        "some moderators have an old number: {updates:?}"
    );
    let messages = updates.iter().map(|(messages, _)| messages).sum::<usize>() / MODERATORS;
    run.report.row(
        &format!(
            "server CPU per set-up while {MODERATORS} moderators receive updates every second"
        ),
        &format!(
            "{micros_each:.0} µs; {messages} messages each, {:.1} s",
            elapsed.as_secs_f64()
        ),
    );
    run.report.record(
        "moderators",
        json!({ "cpu_us_per_set_up": micros_each, "messages_each": messages }),
    );
}
