//! All clients lose their connections at the same time and reconnect, as after a restart of a proxy or a network failure.

use std::time::Instant;

use serde_json::json;

use super::Run;
use super::clients::Clients;
use super::report::mib;
use super::server::{ROOM, Server};
use super::tokens::{Signer, visitors};
use super::waiting::REST;

pub(crate) fn storm(run: &mut Run) {
    let count = run.visitors;
    let server = Server::start();
    let mut clients = Clients::new(visitors(server.address, ROOM, count, &Signer::SharedSecret));
    let start = Instant::now();
    clients.connect_all();
    let first_connection = start.elapsed();
    std::thread::sleep(REST);
    let before = server.usage();
    let mut results = Vec::new();
    for (how, reset) in [("reset", true), ("closed", false)] {
        let start = Instant::now();
        clients.disconnect_some(1, 0, reset);
        clients.connect_all();
        assert!(
            server.wait_for_waiting(count),
            "not all visitors wait again"
        );
        let reconnected = start.elapsed();
        std::thread::sleep(REST);
        let memory = server.usage().rss_bytes as f64 / before.rss_bytes as f64;
        run.report.row(
            &format!("all {count} connections {how}, then reconnected: time until all wait; memory ÷ before"),
            &format!("{:.1} s; {memory:.2}", reconnected.as_secs_f64()),
        );
        results.push(
            json!({ "how": how, "back_s": reconnected.as_secs_f64(), "memory_over_before": memory }),
        );
    }
    run.report.row(
        "first connection of the same clients; memory with all",
        &format!(
            "{:.1} s; {} MiB",
            first_connection.as_secs_f64(),
            mib(before.rss_bytes)
        ),
    );
    run.report.record(
        "storm",
        json!({ "first_arrival_s": first_connection.as_secs_f64(), "storms": results }),
    );
}
