//! A minute in which nothing happens but heart-beats, every ten seconds in both directions.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Run;
use super::crowd::Crowd;
use super::server::{ROOM, Server, Usage};
use super::tokens::{Signer, visitors};

const MEASURED: Duration = Duration::from_secs(60);
/// After the last arrival, and before the measure.
const SETTLE: Duration = Duration::from_secs(5);

/// Seconds of CPU a minute that a server takes while nothing happens.
pub(crate) fn minute(usage: impl Fn() -> Usage) -> f64 {
    std::thread::sleep(SETTLE);
    let (before, begun) = (usage(), Instant::now());
    std::thread::sleep(MEASURED);
    let cpu = usage().cpu - before.cpu;
    60.0 * cpu.as_secs_f64() / begun.elapsed().as_secs_f64()
}

pub(crate) fn idle(run: &mut Run) {
    let server = Server::start();
    let mut crowd = Crowd::new(visitors(
        server.address,
        ROOM,
        run.visitors,
        &Signer::Shared,
    ));
    crowd.come();
    let seconds = minute(|| server.usage());
    // Nobody was lost on the way, or this fails.
    assert!(server.counts(crowd.size()), "somebody was lost");
    run.report.at_most(
        "idle CPU, heart-beats every 10 s both ways",
        seconds,
        2.5,
        "s a minute",
    );
    run.report
        .keep("idle", json!({ "cpu_s_per_minute": seconds }));
}
