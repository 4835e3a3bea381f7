//! The queue's own routes: a conference goes live or ends, and which conferences have visitors waiting.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::http::StatusCode;

use super::Call;
use super::error::{self, ApiError, Response};
use super::field::FieldError;
use crate::domain::conference::{Conference, ConferenceError};
use crate::domain::timestamp;
use crate::queue::{Queue, Status};
use crate::reservation::Reservations;
use crate::session::SessionContext;
use arc_swap::ArcSwap;

/// The connection a request came on.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// The other end of the TCP connection.
    pub(super) peer: SocketAddr,
    /// Its place among the connections there may be; an upgraded one keeps it.
    pub(super) place: Arc<OwnedSemaphorePermit>,
}

impl Connection {
    /// How many more there may be.
    pub(super) fn places_left(&self) -> usize {
        self.place.semaphore().available_permits()
    }
}

/// What the queue's routes work with.
#[derive(Clone, Debug)]
pub struct Door {
    /// What sessions share.
    pub gate: Arc<ArcSwap<SessionContext>>,
    /// Where sessions are counted, to wait for them in the end.
    pub sessions: TaskTracker,
    /// Ends all sessions.
    pub stop: CancellationToken,
    /// How many places among the connections are for requests alone.
    pub kept_places: usize,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[IpAddr]>,
}

/// `POST {path}/golive` and `POST {path}/endlive`.
pub(super) async fn set_live(call: Call, door: &Door, live: bool) -> Result<Response, ApiError> {
    let mut members = call.members()?;
    let jid = members
        .text("conference")?
        .flatten()
        .ok_or(FieldError::Missing("conference"))?;
    let gate = door.gate.load_full();
    let conference = conference(&jid, &gate)?;
    if live {
        gate.queue.go_live(&conference, call.now).await?;
    } else {
        gate.queue.end_live(&conference).await?;
    }
    let body = json!({ "conference": conference.jid(&gate.muc_prefix), "live": live });
    Ok(error::json(StatusCode::OK, &body))
}

/// `GET {path}/conferences`: who waits and who is live; with `?conference=`, of that one alone.
pub(super) async fn conferences(
    call: Call,
    door: &Door,
    reservations: &Reservations,
) -> Result<Response, ApiError> {
    let query = call.query()?;
    query.only(&["conference"])?;
    let gate = door.gate.load_full();
    let queue: &Queue = &gate.queue;
    let wanted = match query.get("conference")? {
        Some(jid) => vec![queue.status(&conference(jid, &gate)?)],
        None => queue.conferences(),
    };
    let mut list = Vec::with_capacity(wanted.len());
    for status in wanted {
        let waiting_queue = reservations.has_queue(&status.conference, call.now).await?;
        list.push(body(&status, waiting_queue, &gate.muc_prefix));
    }
    Ok(error::json(StatusCode::OK, &json!({ "conferences": list })))
}

fn body(status: &Status, waiting_queue: bool, muc_prefix: &str) -> Value {
    let mut body = json!({
        "conference": status.conference.jid(muc_prefix),
        "live": status.live_since.is_some(),
        "visitorsWaiting": status.waiting,
        "waitingQueue": waiting_queue,
    });
    if let Some(since) = status.live_since {
        body["liveSince"] = timestamp::format(since).into();
    }
    body
}

fn conference(jid: &str, gate: &SessionContext) -> Result<Conference, ApiError> {
    Conference::from_jid(jid, &gate.muc_prefix, &gate.rules.domain).map_err(|error| {
        let status = match error {
            ConferenceError::Foreign { .. } => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        };
        ApiError::new(status, format!("conference: {error}"))
    })
}
