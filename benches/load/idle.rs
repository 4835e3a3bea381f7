//! CPU of a minute with heart-beats every ten seconds in both directions and no other traffic.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Run;
use super::clients::Clients;
use super::server::{ROOM, Server, Usage};
use super::tokens::{Signer, visitors};

const MEASURED: Duration = Duration::from_secs(60);
/// Pause between the last connection and the measurement.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// Seconds of CPU per minute that an idle server uses.
pub(crate) fn cpu_seconds_per_minute(usage: impl Fn() -> Usage) -> f64 {
    std::thread::sleep(SETTLE_TIME);
    let (before, start) = (usage(), Instant::now());
    std::thread::sleep(MEASURED);
    let cpu = usage().cpu - before.cpu;
    60.0 * cpu.as_secs_f64() / start.elapsed().as_secs_f64()
}

pub(crate) fn idle(run: &mut Run) {
    let server = Server::start();
    let mut clients = Clients::new(visitors(
        server.address,
        ROOM,
        run.visitors,
        &Signer::SharedSecret,
    ));
    clients.connect_all();
    let seconds = cpu_seconds_per_minute(|| server.usage());
    assert!(
        server.wait_for_waiting(clients.size()),
        "some visitors lost their connection"
    );
    run.report.at_most(
        "idle CPU, heart-beats every 10 s in both directions",
        seconds,
        2.5,
        "s per minute",
    );
    run.report
        .record("idle", json!({ "cpu_s_per_minute": seconds }));
}
