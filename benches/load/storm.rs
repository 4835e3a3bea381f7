//! Everybody is gone at once, and comes back: a proxy restarts, a cable is pulled.

use std::time::Instant;

use serde_json::json;

use super::Run;
use super::crowd::Crowd;
use super::report::mib;
use super::server::{ROOM, Server};
use super::tokens::{Signer, visitors};
use super::waiting::REST;

pub(crate) fn storm(run: &mut Run) {
    let count = run.visitors;
    let server = Server::start();
    let mut crowd = Crowd::new(visitors(server.address, ROOM, count, &Signer::Shared));
    let begun = Instant::now();
    crowd.come();
    let first_time = begun.elapsed();
    std::thread::sleep(REST);
    let before = server.usage();
    let mut found = Vec::new();
    for (how, reset) in [("reset", true), ("closed", false)] {
        let begun = Instant::now();
        // Nobody waits until the server has seen that they are gone.
        crowd.leave_some(1, 0, reset);
        crowd.come();
        assert!(server.counts(count), "not all wait again");
        let back = begun.elapsed();
        std::thread::sleep(REST);
        let memory = server.usage().rss_bytes as f64 / before.rss_bytes as f64;
        run.report.row(
            &format!("all {count} connections {how}, and back: until all wait; memory ÷ before"),
            &format!("{:.1} s; {memory:.2}", back.as_secs_f64()),
        );
        found.push(
            json!({ "how": how, "back_s": back.as_secs_f64(), "memory_over_before": memory }),
        );
    }
    run.report.row(
        "the same clients' first arrival; memory with all",
        &format!(
            "{:.1} s; {} MiB",
            first_time.as_secs_f64(),
            mib(before.rss_bytes)
        ),
    );
    run.report.keep(
        "storm",
        json!({ "first_arrival_s": first_time.as_secs_f64(), "storms": found }),
    );
}
