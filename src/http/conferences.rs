//! What runs now: `/api/v1/conferences`. The same state as `GET {queue.path}/conferences`, with reservations and what
//! Prosody reports.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{Method, StatusCode};

use super::bookings::room_and_tenant;
use super::error::{self, ApiError, Response, respond};
use super::request::{Access, READ, READ_END, Request, request, service};
use super::{Shared, either, with};
use crate::domain::allocation::AllocationId;
use crate::domain::conference::Conference;
use crate::domain::reservation::ReservationId;
use crate::domain::scope::Scope;
use crate::domain::timestamp;
use crate::prosody::{CloseError, RoomStatus};
use crate::queue::ConferenceStatus;
use crate::reservation::RunningConference;
use crate::store::StoreError;

/// `/api/v1/conferences` and `/api/v1/conferences/{id}`.
pub(super) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let list = warp::path!("api" / "v1" / "conferences")
        .and(request(shared, READ, service(&[Scope::Queue])))
        .and(with(shared))
        .then(async |request, shared: Arc<Shared>| respond(list(request, &shared).await));
    let access = Access::ReadOrEnd(&[Scope::Queue], &[Scope::Operate]);
    let one = warp::path!("api" / "v1" / "conferences" / String)
        .and(request(shared, READ_END, access))
        .and(with(shared))
        .then(async |id: String, request, shared: Arc<Shared>| {
            respond(one(&id, request, &shared).await)
        });
    either(list.boxed(), one.boxed())
}

/// A conference that runs, is live, or that visitors wait for.
#[derive(Debug, Default)]
struct Running {
    reservation: Option<RunningConference>,
    queue: Option<ConferenceStatus>,
    room: Option<RoomStatus>,
}

#[derive(Serialize)]
struct ConferenceBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a ReservationId>,
    conference: String,
    room: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mail_owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    booking: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    waiting_queue: bool,
    live: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_since: Option<String>,
    visitors_waiting: usize,
    /// Whether usher's modules report the room; without them nothing below is known, and DELETE is refused.
    reported: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    occupants: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moderators: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    visitors: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meeting_id: Option<&'a str>,
}

impl<'a> ConferenceBody<'a> {
    fn new(conference: &'a Conference, running: &'a Running, muc_prefix: &str) -> Self {
        let (reservation, room) = (running.reservation.as_ref(), running.room.as_ref());
        let live_since = running.queue.as_ref().and_then(|queue| queue.live_since);
        Self {
            id: reservation.map(|it| &it.id),
            conference: conference.jid(muc_prefix),
            room: conference.room(),
            tenant: conference.tenant(),
            title: reservation.and_then(|it| it.title.as_deref()),
            owner: reservation.and_then(|it| it.owner.as_deref()),
            mail_owner: reservation.map(|it| &*it.mail_owner),
            booking: reservation.and_then(|it| it.booking).map(|id| id.0),
            start: reservation.and_then(|it| it.start).map(timestamp::format),
            end: reservation.map(|it| timestamp::format(it.end)),
            waiting_queue: reservation.is_some_and(|it| it.waiting_queue),
            live: live_since.is_some(),
            live_since: live_since.map(timestamp::format),
            visitors_waiting: running.queue.as_ref().map_or(0, |queue| queue.waiting),
            reported: room.is_some(),
            occupants: room.map(|it| it.occupants),
            moderators: room.map(|it| it.moderators),
            visitors: room.and_then(|it| it.visitors),
            meeting_id: room.and_then(|it| it.meeting_id.as_deref()),
        }
    }
}

/// Everything that runs, is live or is waited for.
async fn running(
    shared: &Shared,
    now: DateTime<Utc>,
) -> Result<BTreeMap<Conference, Running>, StoreError> {
    let mut all: BTreeMap<Conference, Running> = BTreeMap::new();
    for reservation in shared.reservations.all_running(now).await? {
        let entry = all.entry(reservation.conference.clone()).or_default();
        entry.reservation = Some(reservation);
    }
    for status in shared.sessions.load().queue.conferences() {
        let entry = all.entry(status.conference.clone()).or_default();
        entry.queue = Some(status);
    }
    for (conference, room) in shared.prosody.rooms() {
        all.entry(conference).or_default().room = Some(room);
    }
    Ok(all)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Query {
    room: Option<String>,
    tenant: Option<String>,
}

/// `GET /api/v1/conferences`, in the order of their names.
async fn list(request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let mut query = request.query::<Query>()?;
    let names = query.check(|it| room_and_tenant(it.room.as_deref(), it.tenant.as_deref()));
    let (_, (room, tenant)) = query.finish_with(names)?;
    let muc_prefix = &shared.config.xmpp.muc_prefix;
    let running = running(shared, request.now).await?;
    let list: Vec<_> = running
        .iter()
        .filter(|(it, _)| room.as_deref().is_none_or(|room| it.room() == room))
        .filter(|(it, _)| tenant.is_none() || it.tenant() == tenant.as_deref())
        .map(|(conference, it)| ConferenceBody::new(conference, it, muc_prefix))
        .collect();
    Ok(error::json(StatusCode::OK, &json!({ "conferences": list })))
}

/// `GET` and `DELETE /api/v1/conferences/{id}`: an id, or the JID of the room.
async fn one(id: &str, request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let running = running(shared, request.now).await?;
    let xmpp = &shared.config.xmpp;
    let by_jid = Conference::from_jid(id, &xmpp.muc_prefix, &xmpp.domain).ok();
    let found = match by_jid {
        Some(conference) => running.get_key_value(&conference),
        None => running
            .iter()
            .find(|(_, it)| it.reservation.as_ref().is_some_and(|it| has_id(&it.id, id))),
    };
    let (conference, found) = found.ok_or_else(|| {
        ApiError::not_found(
            "No conference with this id runs; give an id of the list, or the JID of a room.",
        )
    })?;
    if request.method == Method::DELETE {
        shared.prosody.close(conference, request.now).await?;
        return Ok(error::no_content());
    }
    let body = ConferenceBody::new(conference, found, &xmpp.muc_prefix);
    Ok(error::json(StatusCode::OK, &body))
}

fn has_id(id: &ReservationId, text: &str) -> bool {
    match id {
        ReservationId::Number(number) => AllocationId::parse_path(text) == Some(*number),
        ReservationId::Text(known) => known == text,
    }
}

impl From<CloseError> for ApiError {
    fn from(error: CloseError) -> Self {
        match error {
            CloseError::NotReported => Self::new(StatusCode::CONFLICT, error.to_string()),
            CloseError::Reservation(error) => error.into(),
        }
    }
}
