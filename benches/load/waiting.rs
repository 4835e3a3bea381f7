//! One conference and its crowd: memory, set-ups, go-lives.

use std::time::{Duration, Instant};

use serde_json::json;

use super::crowd::Crowd;
use super::report::{Spread, mib, progress};
use super::server::{ROOM, Server};
use super::tokens::{Signer, visitors};
use super::{GO_LIVES, Run};

/// Where the slope of memory per visitor begins, as a part of the crowd: what the process needs by itself is
/// paid by then. 2,000 of 15,000.
const SLOPE_FROM: f64 = 2.0 / 15.0;
/// The steps in which the crowd grows in `flat`, as parts of the usual one: 1,000, 5,000, 10,000, 19,000.
const STEPS: [f64; 4] = [1.0 / 15.0, 5.0 / 15.0, 10.0 / 15.0, 19.0 / 15.0];

/// How long the server has to come to rest before it is looked at.
pub(crate) const REST: Duration = Duration::from_secs(3);

pub(crate) fn part(of: usize, share: f64) -> usize {
    (of as f64 * share).round() as usize
}

pub(crate) fn crowd(run: &mut Run) {
    let count = run.visitors;
    let server = Server::start();
    let mut crowd = Crowd::new(visitors(server.address, ROOM, count, &Signer::Shared));
    let at_start = server.usage();

    let from = part(count, SLOPE_FROM);
    crowd.grow_to(from);
    let at_slope = server.usage();
    let begun = Instant::now();
    crowd.come();
    let a_second = (count - from) as f64 / begun.elapsed().as_secs_f64();
    let full = server.usage();
    let bytes_each = full.bytes_each(&at_slope, count - from);
    let micros_each = full.micros_each(&at_slope, count - from);

    let mut runs = Vec::new();
    let mut message_bytes = 0;
    for n in 0..GO_LIVES {
        progress(format!("  going live, {} of {GO_LIVES}", n + 1));
        let (spread, bytes) = crowd.told(|| server.go_live());
        runs.push(spread);
        message_bytes = bytes;
        server.end_live();
        // Each comes back, as browsers would, with the same token.
        crowd.leave();
        crowd.come();
    }
    std::thread::sleep(REST);
    let after = server.usage();
    crowd.leave();
    std::thread::sleep(REST);
    let emptied = server.usage();
    drop((crowd, server));

    let told = Spread::median(runs);
    let raw = run.limit.of(count, message_bytes);
    let ratio = told.last_ms / raw.last_ms;
    let growth = 100.0 * (after.rss_bytes as f64 / full.rss_bytes as f64 - 1.0);

    let report = &mut run.report;
    report.at_most(
        &format!("{count} visitors, one conference: memory per waiting visitor"),
        bytes_each,
        1_500.0,
        "bytes",
    );
    report.row(
        &format!("memory at the start; with all; after {GO_LIVES} go-lives and returns"),
        &format!(
            "{}; {}; {} MiB",
            mib(at_start.rss_bytes),
            mib(full.rss_bytes),
            mib(after.rss_bytes)
        ),
    );
    report.at_most("growth after them", growth, 5.0, "%");
    report.at_most(
        "memory after all have left",
        emptied.rss_bytes as f64 / 1e6,
        100.0,
        "MB",
    );
    report.at_most(
        "server CPU per set-up, HS256 token checked",
        micros_each,
        100.0,
        "µs",
    );
    report.row(
        "set-ups a second, clients on the same cores",
        &format!("{a_second:.0}"),
    );
    report.row(
        "go-live until told: half; 99 %; the last",
        &told.to_string(),
    );
    report.row(
        "the limit: the same bytes to as many plain sockets",
        &raw.to_string(),
    );
    report.at_most("the last one told ÷ limit", ratio, 1.2, "");
    report.keep(
        "crowd",
        json!({
            "bytes_per_visitor": bytes_each, "message_bytes": message_bytes,
            "rss_start": at_start.rss_bytes, "rss_full": full.rss_bytes,
            "rss_after_go_lives": after.rss_bytes, "rss_emptied": emptied.rss_bytes,
            "cpu_us_per_set_up": micros_each, "set_ups_per_second": a_second,
            "told_ms": told.json(), "limit_ms": raw.json(), "last_over_limit": ratio,
        }),
    );
}

pub(crate) fn rs256(run: &mut Run) {
    let count = run.visitors;
    let signer = Signer::pair();
    let files: Vec<_> = signer.file().into_iter().collect();
    let server = Server::start_with(&files);
    progress(format!("  signing {count} tokens"));
    let mut crowd = Crowd::new(visitors(server.address, ROOM, count, &signer));
    // The first ones pay for threads and buffers.
    let from = part(count, SLOPE_FROM);
    crowd.grow_to(from);
    let before = server.usage();
    crowd.come();
    let micros_each = server.usage().micros_each(&before, count - from);
    run.report.at_most(
        "server CPU per set-up, RS256 token checked",
        micros_each,
        160.0,
        "µs",
    );
    run.report
        .keep("rs256", json!({ "cpu_us_per_set_up": micros_each }));
}

pub(crate) fn flat(run: &mut Run) {
    let steps = STEPS.map(|share| part(run.visitors, share));
    let [first, .., last] = steps;
    let server = Server::start();
    let mut crowd = Crowd::new(visitors(server.address, ROOM, last, &Signer::Shared));
    crowd.grow_to(first);
    let mut before = server.usage();
    let begin = before;
    let mut slopes = Vec::new();
    for pair in steps.windows(2) {
        let &[from, to] = pair else { continue };
        progress(format!("  {from} to {to}"));
        crowd.grow_to(to);
        let now = server.usage();
        let (bytes, micros) = (
            now.bytes_each(&before, to - from),
            now.micros_each(&before, to - from),
        );
        slopes.push((from, to, bytes, micros));
        before = now;
    }
    // Against the whole: a step's own slope has the growth of a table in it, or hasn't.
    let average = before.bytes_each(&begin, last - first);
    let most = slopes
        .iter()
        .map(|(_, _, bytes, _)| *bytes)
        .fold(0.0, f64::max);
    let list: Vec<_> = slopes
        .iter()
        .map(|(from, to, bytes, micros)| format!("{from}–{to}: {bytes:.0} bytes, {micros:.0} µs"))
        .collect();
    let report = &mut run.report;
    report.row("memory and CPU per further visitor", &list.join("; "));
    report.at_most(
        &format!("the dearest step ÷ the average of {first} to {last}"),
        most / average,
        1.1,
        "",
    );
    let slopes: Vec<_> = slopes
        .iter()
        .map(|(from, to, bytes, micros)| {
            json!({ "from": from, "to": to, "bytes_per_visitor": bytes, "cpu_us_per_set_up": micros })
        })
        .collect();
    report.keep(
        "flat",
        json!({ "steps": slopes, "bytes_per_visitor": average, "dearest_over_average": most / average }),
    );
}
