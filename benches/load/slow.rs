//! Go-lives while some clients request much and do not read.

use serde_json::json;

use super::Run;
use super::clients::Clients;
use super::report::{Latencies, progress};
use super::server::{ROOM, Server};
use super::tokens::{Signer, clients_of_kind, visitors};
use super::waiting::REST;
use super::worker::Kind;

/// One visitor in this number does not read.
const NOT_READING_SHARE: usize = 100;
const ROUNDS: usize = 5;

pub(crate) fn slow(run: &mut Run) {
    let slow = run.visitors / NOT_READING_SHARE;
    let without = measure(run.visitors - slow, 0);
    let with = measure(run.visitors - slow, slow);
    let ratio = with.max_ms / without.max_ms;
    run.report.row(
        "go-live until delivery, all clients read: median; 99 %; last",
        &without.to_string(),
    );
    run.report.row(
        &format!("the same with {slow} additional clients that request much and do not read"),
        &with.to_string(),
    );
    run.report.row(
        "last delivery, with ÷ without slow clients",
        &format!("{ratio:.2}"),
    );
    run.report.record(
        "slow",
        json!({
            "deaf": slow, "without_ms": without.json(), "with_ms": with.json(),
            "last_with_over_without": ratio,
        }),
    );
}

/// Delivery latencies of the clients that read.
fn measure(reading: usize, not_reading: usize) -> Latencies {
    let server = Server::start();
    let signer = Signer::SharedSecret;
    let mut all = clients_of_kind(server.address, ROOM, not_reading, &signer, Kind::NotReading);
    all.extend(visitors(server.address, ROOM, reading, &signer));
    let mut clients = Clients::new(all);
    let runs = (0..ROUNDS).map(|n| {
        progress(format!(
            "  {not_reading} clients do not read, {} of {ROUNDS}",
            n + 1
        ));
        clients.connect_all();
        clients.flood();
        // By then the server has written as many responses as the buffers hold.
        std::thread::sleep(REST);
        let (latencies, _) = clients.measure_delivery(|| server.go_live());
        server.end_live();
        clients.disconnect_all();
        latencies
    });
    Latencies::median(runs.collect())
}
