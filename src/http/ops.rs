//! For operators: health, readiness, version, and the decision log.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warp::Reply;
use warp::http::StatusCode;
use warp::http::header::CONTENT_TYPE;

use super::Call;
use super::Door;
use super::bookings::{limit, room_and_tenant};
use super::error::{self, ApiError, Response};
use crate::domain::conference::Conference;
use crate::domain::timestamp;
use crate::http::health::AcceptLoopHealth;
use crate::metrics::{self, Snapshot};
use crate::reservation::Reservations;
use crate::store::{DecisionFilter, DecisionRow, OutboxEntry};

/// How long a readiness answer holds. Anyone may ask, and each look costs a write to the disk.
const READY_HOLDS: Duration = Duration::from_secs(1);

/// What `/ready` looks at, and what it last found.
#[derive(Debug)]
pub(super) struct Readiness {
    reservations: Reservations,
    pulse: AcceptLoopHealth,
    stop: CancellationToken,
    store: Mutex<Option<(Instant, bool)>>,
}

impl Readiness {
    pub(super) fn new(
        reservations: Reservations,
        pulse: AcceptLoopHealth,
        stop: CancellationToken,
    ) -> Self {
        Self {
            reservations,
            pulse,
            stop,
            store: Mutex::default(),
        }
    }

    async fn store_takes_writes(&self, wall: DateTime<Utc>) -> bool {
        let now = Instant::now();
        let known = self.store.lock().ok().and_then(|last| *last);
        if let Some((at, writable)) = known
            && now.duration_since(at) < READY_HOLDS
        {
            return writable;
        }
        let probed = self.reservations.probe(wall).await;
        if let Err(error) = &probed {
            tracing::warn!(%error, "not ready");
        }
        if let Ok(mut last) = self.store.lock() {
            *last = Some((now, probed.is_ok()));
        }
        probed.is_ok()
    }
}

/// `GET /health`: the process is alive. Not authenticated: it tells nothing.
pub(super) fn health() -> Response {
    error::status(StatusCode::OK, "ok")
}

/// `GET /about/version`, as Jitsi's own services have it. Not authenticated: load balancers ask it.
pub(super) fn version() -> Response {
    let body = json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") });
    error::json(StatusCode::OK, &body)
}

/// `GET /ready`, and `/about/health`, where Jitsi's services have it: whether it can do its work (write down
/// an answer, take connections, and is not about to stop), and if not, why not. Not authenticated: it tells
/// no more than that.
pub(super) async fn ready(call: Call, readiness: &Readiness) -> Response {
    let mut reasons = Vec::new();
    if readiness.stop.is_cancelled() {
        reasons.push((
            "draining",
            "usher stops, and comes back in a moment.".to_owned(),
        ));
    }
    if let Err(trouble) = readiness.pulse.check() {
        reasons.push(("listener", trouble));
    }
    if !readiness.store_takes_writes(call.now).await {
        let message = "The database takes no writes; see the log, and free or repair its disk.";
        reasons.push(("store", message.to_owned()));
    }
    let list: Vec<_> = reasons
        .iter()
        .map(|(check, message)| json!({ "check": check, "message": message }))
        .collect();
    let Some((_, message)) = reasons.first() else {
        let body = json!({ "status": "ready", "reasons": list });
        return error::json(StatusCode::OK, &body);
    };
    let body = json!({ "status": "not ready", "message": message, "reasons": list });
    error::json(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// `GET /metrics`.
pub(super) async fn metrics(
    reservations: Reservations,
    door: &Door,
    connections_max: usize,
) -> Response {
    // Only the number is wanted. While it can't be told, the last one stands.
    if let Ok((_, pending)) = reservations.outbox(0, 0).await {
        metrics::set_outbox_pending(pending);
    }
    let (visitors, live) = door.gate.load_full().queue.count();
    let text = metrics::render(Snapshot {
        visitors,
        live,
        connections: door.sessions.len(),
        connections_max,
    });
    warp::reply::with_header(text, CONTENT_TYPE, metrics::CONTENT_TYPE).into_response()
}

#[derive(Serialize)]
struct DecisionBody<'a> {
    id: i64,
    at: String,
    room: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    outcome: &'a str,
    reason: &'a str,
    sentence: &'a str,
    mail_owner: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conference: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    booking: Option<i64>,
}

impl<'a> DecisionBody<'a> {
    fn of(row: &'a DecisionRow) -> Self {
        Self {
            id: row.id,
            at: timestamp::format(row.at),
            room: row.conference.room(),
            tenant: row.conference.tenant(),
            outcome: &row.outcome,
            reason: &row.reason,
            sentence: &row.sentence,
            mail_owner: &row.requester.mail_owner,
            user_id: row.requester.user_id.as_deref(),
            user_email: row.requester.user_email.as_deref(),
            user_name: row.requester.user_name.as_deref(),
            conference: row.allocation.map(|id| id.get()),
            booking: row.booking.map(|id| id.0),
        }
    }
}

#[derive(Serialize)]
struct DeletionBody<'a> {
    conference: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    accepted_at: String,
    attempts: u32,
    next_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'a str>,
}

impl<'a> DeletionBody<'a> {
    fn of(deletion: &'a OutboxEntry) -> Self {
        let conference = deletion.conference.as_ref();
        Self {
            conference: &deletion.conference_id,
            room: conference.map(Conference::room),
            tenant: conference.and_then(Conference::tenant),
            accepted_at: timestamp::format(deletion.accepted_at),
            attempts: deletion.attempts,
            next_at: timestamp::format(deletion.next_at),
            trouble: deletion.last_error.as_deref(),
        }
    }
}

/// `GET /api/v1/outbox`: deletions that the upstream has not heard yet, the oldest first.
pub(super) async fn outbox(call: Call, reservations: Reservations) -> Result<Response, ApiError> {
    let query = call.query()?;
    query.only(&["after", "limit"])?;
    let after = query.number("after", "the \"next\" of the page before")?;
    let limit = limit(&query)?;
    let (mut rows, pending) = reservations
        .outbox(after.unwrap_or_default(), limit + 1)
        .await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let list: Vec<_> = rows.iter().map(DeletionBody::of).collect();
    let mut body = json!({ "pending": pending, "deletions": list });
    if let Some(last) = rows.last().filter(|_| more) {
        body["next"] = last.id.into();
    }
    Ok(error::json(StatusCode::OK, &body))
}

/// `GET /api/v1/decisions`: the newest first.
pub(super) async fn decisions(
    call: Call,
    reservations: Reservations,
) -> Result<Response, ApiError> {
    let query = call.query()?;
    query.only(&["room", "tenant", "before", "limit"])?;
    let (room, tenant) = room_and_tenant(&query)?;
    let before = query.number("before", "the \"next\" of the page before")?;
    let limit = limit(&query)?;
    let filter = DecisionFilter {
        room,
        tenant,
        before,
        limit: limit + 1,
    };
    let mut rows = reservations.decisions(&filter).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let list: Vec<_> = rows.iter().map(DecisionBody::of).collect();
    let mut body = json!({ "decisions": list });
    if let Some(last) = rows.last().filter(|_| more) {
        body["next"] = last.id.into();
    }
    Ok(error::json(StatusCode::OK, &body))
}
