//! Many conferences go live at once, as after the stroke of the hour.

use serde_json::json;

use super::Run;
use super::crowd::Crowd;
use super::http::Caller;
use super::report::{Spread, progress};
use super::server::{Server, ask_live, hear_live};
use super::tokens::{Signer, visitors};

const VISITORS_EACH: usize = 15;
/// Going live is told by so many Prosody servers, each of which is one thread, over so many connections each.
const SERVERS: usize = 4;
const CONNECTIONS: usize = 8;
const ROUNDS: usize = 5;

pub(crate) fn conferences(run: &mut Run) {
    let count = run.visitors / VISITORS_EACH;
    let rooms: Vec<String> = (0..count).map(|n| format!("room{n:04}")).collect();
    let server = Server::start();
    let people = rooms
        .iter()
        .flat_map(|room| visitors(server.address, room, VISITORS_EACH, &Signer::Shared));
    let mut crowd = Crowd::new(people.collect());
    let connections = (0..SERVERS * CONNECTIONS).map(|_| Caller::new(server.address));
    let mut callers: Vec<Caller> = connections.collect();
    let mut runs = Vec::new();
    let mut message_bytes = 0;
    for n in 0..ROUNDS {
        progress(format!(
            "  {count} conferences go live, {} of {ROUNDS}",
            n + 1
        ));
        crowd.come();
        let (spread, bytes) = crowd.told(|| all(&mut callers, &rooms, "golive"));
        runs.push(spread);
        message_bytes = bytes;
        all(&mut callers, &rooms, "endlive");
        crowd.leave();
    }
    let size = crowd.size();
    drop((crowd, callers, server));
    let told = Spread::median(runs);
    let raw = run.limit.of(size, message_bytes);
    let ratio = told.last_ms / raw.last_ms;
    let report = &mut run.report;
    report.row(
        &format!("{count} conferences of {VISITORS_EACH} go live, told by {SERVERS} Prosodys over {CONNECTIONS} connections each, until told: half; 99 %; the last"),
        &told.to_string(),
    );
    report.row("the limit for as many sockets", &raw.to_string());
    report.at_most("the last one told ÷ limit", ratio, 1.5, "");
    report.keep(
        "conferences",
        json!({
            "conferences": count, "told_ms": told.json(), "limit_ms": raw.json(),
            "last_over_limit": ratio,
        }),
    );
}

/// Tells usher about all of them: each server of its share, over all its connections at the same time.
fn all(callers: &mut [Caller], rooms: &[String], what: &str) {
    let share = rooms.len().div_ceil(SERVERS);
    std::thread::scope(|scope| {
        for (callers, rooms) in callers.chunks_mut(CONNECTIONS).zip(rooms.chunks(share)) {
            scope.spawn(move || {
                for rooms in rooms.chunks(CONNECTIONS) {
                    for (caller, room) in callers.iter_mut().zip(rooms) {
                        ask_live(caller, what, room);
                    }
                    callers.iter_mut().take(rooms.len()).for_each(hear_live);
                }
            });
        }
    });
}
