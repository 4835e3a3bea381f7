//! Many conferences go live at once, as after the stroke of the hour.

use serde_json::json;

use super::Run;
use super::crowd::Crowd;
use super::http::Caller;
use super::report::{Spread, progress};
use super::server::{Server, set_live};
use super::tokens::{Signer, visitors};

const VISITORS_EACH: usize = 15;
/// Connections over which going live is told: those of a few Prosody servers.
const CALLERS: usize = 32;
const ROUNDS: usize = 5;

pub(crate) fn conferences(run: &mut Run) {
    let count = run.visitors / VISITORS_EACH;
    let rooms: Vec<String> = (0..count).map(|n| format!("room{n:04}")).collect();
    let server = Server::start();
    let people = rooms
        .iter()
        .flat_map(|room| visitors(server.address, room, VISITORS_EACH, &Signer::Shared));
    let mut crowd = Crowd::new(people.collect());
    let mut callers: Vec<Caller> = (0..CALLERS).map(|_| Caller::new(server.address)).collect();
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
        &format!("{count} conferences of {VISITORS_EACH} go live over {CALLERS} connections, until told: half; 99 %; the last"),
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

/// Tells usher about all of them, over all connections at the same time.
fn all(callers: &mut [Caller], rooms: &[String], what: &str) {
    let share = rooms.len().div_ceil(callers.len());
    std::thread::scope(|scope| {
        for (caller, rooms) in callers.iter_mut().zip(rooms.chunks(share)) {
            scope.spawn(move || {
                for room in rooms {
                    set_live(caller, what, room);
                }
            });
        }
    });
}
