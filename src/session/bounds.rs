//! The bounds that clients meet: each time is counted, and the log has a line from time to time.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics;

/// The shortest time between two lines of one bound. A flood must not fill the log.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// A bound on what clients may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `server.max_per_address`: connections of an address that are not WebSockets.
    RequestsOfAddress,
    /// Connections of all clients that are not WebSockets.
    Requests,
    /// `queue.max_per_address`: WebSockets and waiting visitors of an address.
    SessionsOfAddress,
    /// `server.max_connections`, less the reserve for requests.
    Sessions,
    /// The time for the head of a request.
    Head,
    /// The time for which a client may leave an answer unread.
    Write,
    /// The frames of a session: before CONNECT, and per second.
    Frames,
    /// The bytes of unfinished frames of all sessions.
    Unfinished,
}

const ALL: usize = 8;

impl Bound {
    /// The label `bound` of `usher_bounds_met_total`.
    fn code(self) -> &'static str {
        metrics::BOUNDS[self as usize]
    }

    /// What usher did.
    fn effect(self) -> &'static str {
        match self {
            Self::RequestsOfAddress => {
                "refused a connection: too many of this address that are no WebSockets (server.max_per_address)"
            }
            Self::Requests => {
                "closed the connection that was idle or silent for the longest time: too many are no WebSockets (an eighth of server.max_connections)"
            }
            Self::SessionsOfAddress => {
                "refused a WebSocket or a wait: too many of this address (queue.max_per_address)"
            }
            Self::Sessions => "refused a WebSocket: too many are open (server.max_connections)",
            Self::Head => "closed a connection: the head of its request did not arrive in time",
            Self::Write => "closed a connection: its client does not read",
            Self::Frames => "closed a session: its client sent too many frames",
            Self::Unfinished => "closed a session: too many bytes of unfinished frames",
        }
    }
}

/// When the last line of a bound was logged, and how often the bound was met since.
#[derive(Clone, Copy)]
struct Line {
    at: Option<Instant>,
    since: u64,
}

static LINES: Mutex<[Line; ALL]> = Mutex::new([Line { at: None, since: 0 }; ALL]);

/// A client met a bound.
pub fn met(bound: Bound, address: Option<IpAddr>) {
    metrics::bound_met(bound.code());
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let line = &mut lines[bound as usize];
    line.since += 1;
    if line.at.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
        return;
    }
    let count = std::mem::take(&mut line.since);
    line.at = Some(Instant::now());
    drop(lines);
    let address = address.map(|it| it.to_string()).unwrap_or_default();
    tracing::warn!(bound = bound.code(), count, address, "{}", bound.effect());
}
