//! Many conferences go live at the same time, as they do at a full hour.

use serde_json::json;

use super::Run;
use super::clients::Clients;
use super::http::HttpClient;
use super::report::{Latencies, progress};
use super::server::{Server, expect_ok, send_live_request};
use super::tokens::{Signer, visitors};

pub(crate) const VISITORS_EACH: usize = 15;
/// Number of simulated Prosody servers (one thread each) that send go-live requests.
pub(crate) const SERVERS: usize = 4;
/// Connections of each Prosody server.
pub(crate) const CONNECTIONS: usize = 8;
pub(crate) const ROUNDS: usize = 5;

pub(crate) fn conferences(run: &mut Run) {
    let server = Server::start();
    let (rooms, mut clients) = rooms_with_visitors(run, &server);
    let count = rooms.len();
    let mut connections: Vec<HttpClient> = (0..SERVERS * CONNECTIONS)
        .map(|_| HttpClient::new(server.address))
        .collect();
    let mut runs = Vec::new();
    let mut message_bytes = 0;
    for n in 0..ROUNDS {
        progress(format!(
            "  {count} conferences go live, {} of {ROUNDS}",
            n + 1
        ));
        clients.connect_all();
        let (latencies, bytes) =
            clients.measure_delivery(|| send_all(&mut connections, &rooms, "golive"));
        runs.push(latencies);
        message_bytes = bytes;
        send_all(&mut connections, &rooms, "endlive");
        clients.disconnect_all();
    }
    let size = clients.size();
    drop((clients, connections, server));
    let delivery = Latencies::median(runs);
    let raw = run.limit.of(size, message_bytes);
    let ratio = delivery.max_ms / raw.max_ms;
    let report = &mut run.report;
    report.row(
        &format!("{count} conferences of {VISITORS_EACH} go live, requested by {SERVERS} Prosody servers over {CONNECTIONS} connections each: delivery median; 99 %; last"),
        &delivery.to_string(),
    );
    report.row("limit: the same number of plain sockets", &raw.to_string());
    report.at_most("last delivery ÷ limit", ratio, 1.5, "");
    report.record(
        "conferences",
        json!({
            "conferences": count, "told_ms": delivery.json(), "limit_ms": raw.json(),
            "last_over_limit": ratio,
        }),
    );
}

/// The names of the conferences, and the visitors of all of them.
pub(crate) fn rooms_with_visitors(run: &Run, server: &Server) -> (Vec<String>, Clients) {
    let count = run.visitors / VISITORS_EACH;
    let rooms: Vec<String> = (0..count).map(|n| format!("room{n:04}")).collect();
    let visitors = rooms
        .iter()
        .flat_map(|room| visitors(server.address, room, VISITORS_EACH, &Signer::SharedSecret));
    let clients = Clients::new(visitors.collect());
    (rooms, clients)
}

/// Sends a request per conference. Each server sends its share over all its connections at the same time.
pub(crate) fn send_all(connections: &mut [HttpClient], rooms: &[String], action: &str) {
    let share = rooms.len().div_ceil(SERVERS);
    std::thread::scope(|scope| {
        for (connections, rooms) in connections.chunks_mut(CONNECTIONS).zip(rooms.chunks(share)) {
            scope.spawn(move || {
                for rooms in rooms.chunks(CONNECTIONS) {
                    for (connection, room) in connections.iter_mut().zip(rooms) {
                        send_live_request(connection, action, room);
                    }
                    connections.iter_mut().take(rooms.len()).for_each(expect_ok);
                }
            });
        }
    });
}
