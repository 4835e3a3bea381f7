//! All visitors wait for one conference: memory, set-ups, go-lives.

use std::time::{Duration, Instant};

use serde_json::json;

use super::clients::Clients;
use super::report::{Latencies, mib, progress};
use super::server::{ROOM, Server};
use super::tokens::{Signer, visitors};
use super::{GO_LIVES, Run};

/// Share of the visitors (2,000 of 15,000) that is connected before memory per visitor is measured. The process
/// has allocated its fixed memory by then.
const SLOPE_FROM: f64 = 2.0 / 15.0;
/// Steps of the mode `flat` as shares of the visitors: 1,000, 5,000, 10,000, 19,000 by default.
const STEPS: [f64; 4] = [1.0 / 15.0, 5.0 / 15.0, 10.0 / 15.0, 19.0 / 15.0];

/// Pause before a measurement of memory, so that the server is idle.
pub(crate) const REST: Duration = Duration::from_secs(3);

fn share_of(count: usize, share: f64) -> usize {
    (count as f64 * share).round() as usize
}

pub(crate) fn one_conference(run: &mut Run) {
    let count = run.visitors;
    let server = Server::start();
    let mut clients = Clients::new(visitors(server.address, ROOM, count, &Signer::SharedSecret));
    let at_start = server.usage();

    let from = share_of(count, SLOPE_FROM);
    clients.connect_up_to(from);
    let at_slope = server.usage();
    let start = Instant::now();
    clients.connect_all();
    let per_second = (count - from) as f64 / start.elapsed().as_secs_f64();
    let full = server.usage();
    let bytes_each = full.bytes_each(&at_slope, count - from);
    let micros_each = full.micros_each(&at_slope, count - from);

    let mut runs = Vec::new();
    let mut message_bytes = 0;
    for n in 0..GO_LIVES {
        progress(format!("  going live, {} of {GO_LIVES}", n + 1));
        let (latencies, bytes) = clients.measure_delivery(|| server.go_live());
        runs.push(latencies);
        message_bytes = bytes;
        server.end_live();
        // Browsers reconnect with the same token.
        clients.disconnect_all();
        clients.connect_all();
    }
    std::thread::sleep(REST);
    let after = server.usage();
    clients.disconnect_all();
    std::thread::sleep(REST);
    let emptied = server.usage();
    drop((clients, server));

    let delivery = Latencies::median(runs);
    let raw = run.limit.of(count, message_bytes);
    let ratio = delivery.max_ms / raw.max_ms;
    let growth = 100.0 * (after.rss_bytes as f64 / full.rss_bytes as f64 - 1.0);

    let report = &mut run.report;
    report.at_most(
        &format!("{count} visitors, one conference: memory per waiting visitor"),
        bytes_each,
        1_500.0,
        "bytes",
    );
    report.row(
        &format!("memory at start; with all visitors; after {GO_LIVES} go-lives and reconnects"),
        &format!(
            "{}; {}; {} MiB",
            mib(at_start.rss_bytes),
            mib(full.rss_bytes),
            mib(after.rss_bytes)
        ),
    );
    report.at_most("memory growth after these go-lives", growth, 5.0, "%");
    report.at_most(
        "memory after all visitors have left",
        emptied.rss_bytes as f64 / 1e6,
        100.0,
        "MB",
    );
    report.at_most(
        "server CPU per set-up, HS256 token verified",
        micros_each,
        100.0,
        "µs",
    );
    report.row(
        "set-ups per second, clients on the same cores",
        &format!("{per_second:.0}"),
    );
    report.row(
        "go-live until delivery: median; 99 %; last",
        &delivery.to_string(),
    );
    report.row(
        "limit: the same bytes to the same number of plain sockets",
        &raw.to_string(),
    );
    report.at_most("last delivery ÷ limit", ratio, 1.2, "");
    report.record(
        "crowd",
        json!({
            "bytes_per_visitor": bytes_each, "message_bytes": message_bytes,
            "rss_start": at_start.rss_bytes, "rss_full": full.rss_bytes,
            "rss_after_go_lives": after.rss_bytes, "rss_emptied": emptied.rss_bytes,
            "cpu_us_per_set_up": micros_each, "set_ups_per_second": per_second,
            "told_ms": delivery.json(), "limit_ms": raw.json(), "last_over_limit": ratio,
        }),
    );
}

pub(crate) fn rs256(run: &mut Run) {
    let count = run.visitors;
    let signer = Signer::rsa();
    let files: Vec<_> = signer.file().into_iter().collect();
    let server = Server::start_with(&files);
    progress(format!("  signing {count} tokens"));
    let mut clients = Clients::new(visitors(server.address, ROOM, count, &signer));
    // The first visitors allocate threads and buffers.
    let from = share_of(count, SLOPE_FROM);
    clients.connect_up_to(from);
    let before = server.usage();
    clients.connect_all();
    let micros_each = server.usage().micros_each(&before, count - from);
    run.report.at_most(
        "server CPU per set-up, RS256 token verified",
        micros_each,
        160.0,
        "µs",
    );
    run.report
        .record("rs256", json!({ "cpu_us_per_set_up": micros_each }));
}

pub(crate) fn flat(run: &mut Run) {
    let steps = STEPS.map(|share| share_of(run.visitors, share));
    let [first, .., last] = steps;
    let server = Server::start();
    let mut clients = Clients::new(visitors(server.address, ROOM, last, &Signer::SharedSecret));
    clients.connect_up_to(first);
    let mut before = server.usage();
    let initial = before;
    let mut slopes = Vec::new();
    for pair in steps.windows(2) {
        let &[from, to] = pair else { continue };
        progress(format!("  {from} to {to}"));
        clients.connect_up_to(to);
        let now = server.usage();
        let (bytes, micros) = (
            now.bytes_each(&before, to - from),
            now.micros_each(&before, to - from),
        );
        slopes.push((from, to, bytes, micros));
        before = now;
    }
    // Compared with the average because a single step may or may not contain the growth of a hash table.
    let average = before.bytes_each(&initial, last - first);
    let max = slopes
        .iter()
        .map(|(_, _, bytes, _)| *bytes)
        .fold(0.0, f64::max);
    let list: Vec<_> = slopes
        .iter()
        .map(|(from, to, bytes, micros)| format!("{from}–{to}: {bytes:.0} bytes, {micros:.0} µs"))
        .collect();
    let report = &mut run.report;
    report.row("memory and CPU per additional visitor", &list.join("; "));
    report.at_most(
        &format!("most expensive step ÷ average of {first} to {last}"),
        max / average,
        1.1,
        "",
    );
    let slopes: Vec<_> = slopes
        .iter()
        .map(|(from, to, bytes, micros)| {
            json!({ "from": from, "to": to, "bytes_per_visitor": bytes, "cpu_us_per_set_up": micros })
        })
        .collect();
    report.record(
        "flat",
        json!({ "steps": slopes, "bytes_per_visitor": average, "dearest_over_average": max / average }),
    );
}
