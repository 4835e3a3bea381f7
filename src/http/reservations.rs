//! The reservation API that Prosody's `mod_reservations` and our shim call: `POST /conference`,
//! `GET` and `DELETE /conference/{id}`.

use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::json;
use warp::http::{Method, StatusCode};

use super::Call;
use super::error::{self, ApiError, Response};
use super::field::{FieldError, Form};
use crate::domain::allocation::{Allocation, AllocationId};
use crate::domain::booking::Options;
use crate::domain::conference::Conference;
use crate::domain::requester::Requester;
use crate::domain::timestamp;
use crate::queue::Queue;
use crate::reservation::gateway::{Lookup, Upstream, UpstreamConference, UpstreamId, Verdict};
use crate::reservation::{Found, Outcome, Request, Reservations};

/// Longest bare JID: a node and a host of 1023 bytes each, and the @. Other identity fields are cut here.
const JID_MAX: usize = 2047;

/// From how many seconds of difference the operator is told that the clocks disagree.
const CLOCK_SKEW_SECONDS: i64 = 60;

/// Whether Prosody's clock differed from ours when it last asked. The operator is told of a change, and not
/// with every request.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    differ: AtomicBool,
}

impl Clocks {
    fn compare(&self, theirs: DateTime<Utc>, ours: DateTime<Utc>) {
        let seconds = (theirs - ours).num_seconds();
        let differ = seconds.abs() > CLOCK_SKEW_SECONDS;
        if self.differ.swap(differ, Ordering::Relaxed) == differ {
            return;
        }
        if differ {
            tracing::warn!(seconds, "Prosody's clock differs from ours; ours rules");
        } else {
            tracing::info!("Prosody's clock agrees with ours again");
        }
    }
}

/// The conference as the API has it. Unset members are left out: a `null` wedges the room in stock
/// Prosody.
#[derive(Serialize)]
struct ConferenceBody<'a, Id> {
    id: Id,
    name: &'a str,
    mail_owner: &'a str,
    start_time: String,
    duration: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_occupants: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lobby: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    /// Ours: visitors wait until the conference goes live.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    waiting_queue: bool,
    /// Ours: it is live already, so that its room need not be held.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    live: bool,
    /// Ours: when it ends, as people read it, where that isn't in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<String>,
}

/// What only our shim is told of a conference.
#[derive(Clone, Copy)]
struct Aside {
    live: bool,
    time_zone: Tz,
    now: DateTime<Utc>,
}

impl Aside {
    fn of(reservations: &Reservations, live: bool, now: DateTime<Utc>) -> Self {
        let time_zone = reservations.config().time_zone;
        Self {
            live,
            time_zone,
            now,
        }
    }
}

impl<'a> ConferenceBody<'a, i64> {
    fn of(allocation: &'a Allocation, aside: Aside) -> Self {
        Self::with_id(allocation.id.get(), allocation, aside)
    }
}

impl<'a> ConferenceBody<'a, &'a UpstreamId> {
    fn granted(granted: &'a UpstreamConference, aside: Aside) -> Self {
        let window = (granted.start, granted.end);
        let owned = (granted.name.as_str(), granted.mail_owner.as_str());
        Self::new(&granted.id, owned, window, &granted.options, aside)
    }
}

impl<'a> ConferenceBody<'a, String> {
    /// One that runs because the upstream could not be asked: its id must be none of the upstream's.
    fn unasked(allocation: &'a Allocation, aside: Aside) -> Self {
        Self::with_id(Upstream::own_id(allocation.id), allocation, aside)
    }
}

impl<'a, Id> ConferenceBody<'a, Id> {
    fn with_id(id: Id, allocation: &'a Allocation, aside: Aside) -> Self {
        let window = (allocation.start, allocation.end);
        let owned = (allocation.name.as_str(), allocation.mail_owner.as_str());
        Self::new(id, owned, window, &allocation.options, aside)
    }

    fn new(
        id: Id,
        (name, mail_owner): (&'a str, &'a str),
        (start, end): (DateTime<Utc>, DateTime<Utc>),
        options: &'a Options,
        aside: Aside,
    ) -> Self {
        Self {
            id,
            name,
            mail_owner,
            start_time: timestamp::format(start),
            duration: (end - start).num_seconds(),
            max_occupants: options.max_occupants,
            lobby: options.lobby,
            password: options.password.as_ref().map(|password| password.expose()),
            waiting_queue: options.waiting_queue,
            live: aside.live,
            ends: (aside.time_zone != Tz::UTC)
                .then(|| timestamp::format_local(end, aside.time_zone, aside.now)),
        }
    }
}

/// `POST /conference`.
pub(super) async fn create(
    call: Call,
    reservations: Reservations,
    queue: &Queue,
    domain: &str,
    clocks: &Clocks,
) -> Result<Response, ApiError> {
    let form = call.form("application/x-www-form-urlencoded: name, start_time, mail_owner")?;
    let request = read(&form, domain, clocks, call.now)?;
    let aside = Aside::of(&reservations, queue.is_live(&request.conference), call.now);
    if let Some(upstream) = reservations.upstream() {
        return passed_on(upstream.allocate(&request).await, aside);
    }
    Ok(match reservations.allocate(request, call.now).await? {
        Outcome::Allocated(allocation) => {
            error::json(StatusCode::CREATED, &ConferenceBody::of(&allocation, aside))
        }
        Outcome::Conflict(id) => {
            let message = "The conference is running already; conflict_id tells which.";
            let body = json!({ "conflict_id": id.get(), "message": message });
            error::json(StatusCode::CONFLICT, &body)
        }
        Outcome::Queued => queued(),
        Outcome::Refused(refusal) => {
            return Err(ApiError::new(StatusCode::FORBIDDEN, refusal.sentence)
                .with("reason", refusal.reason.code()));
        }
    })
}

fn queued() -> Response {
    let message = "Visitors of this conference wait until it goes live.";
    let body = json!({ "waiting_queue": true, "message": message });
    error::json(StatusCode::ACCEPTED, &body)
}

/// What an upstream made of a `POST /conference`. One that runs already is the answer itself, which spares
/// Prosody the way by its id.
fn passed_on(verdict: Verdict, aside: Aside) -> Result<Response, ApiError> {
    let conference =
        |status, granted| error::json(status, &ConferenceBody::granted(granted, aside));
    Ok(match verdict {
        Verdict::Opened(granted) => conference(StatusCode::CREATED, &granted),
        Verdict::Running(granted) => conference(StatusCode::OK, &granted),
        Verdict::Queued => queued(),
        Verdict::Unasked(allocation) => {
            let body = ConferenceBody::unasked(&allocation, aside);
            error::json(StatusCode::CREATED, &body)
        }
        Verdict::Refused(refused) => return Err(refused.into()),
        Verdict::Failed(failure) => return Err(failure.into()),
    })
}

/// `GET` and `DELETE /conference/{id}` of an upstream's conferences.
async fn one_upstream(
    id: &str,
    call: &Call,
    upstream: &Upstream,
    aside: Aside,
) -> Result<Response, ApiError> {
    if call.method == Method::DELETE {
        return match upstream.end(id, call.now).await? {
            true => Ok(error::nothing()),
            false => Err(unknown()),
        };
    }
    let ok = StatusCode::OK;
    match upstream.find(id, call.now).await? {
        Lookup::Running(granted) => Ok(error::json(ok, &ConferenceBody::granted(&granted, aside))),
        Lookup::Unasked(allocation) => Ok(error::json(
            ok,
            &ConferenceBody::unasked(&allocation, aside),
        )),
        Lookup::Over(ended_at) => Err(over(ended_at, "The conference is over.")),
        Lookup::Unknown => Err(unknown()),
        Lookup::Refused(refused) => Err(refused.into()),
        Lookup::Failed(failure) => Err(failure.into()),
    }
}

fn unknown() -> ApiError {
    ApiError::not_found("There is no conference with this id.")
}

/// `ended_at` is ours: it tells our shim a conference that is over from an id it can't know. The message is
/// for those who are in the room still.
fn over(ended_at: DateTime<Utc>, message: impl Into<String>) -> ApiError {
    ApiError::not_found(message).with("ended_at", timestamp::format(ended_at))
}

/// `GET` and `DELETE /conference/{id}`.
pub(super) async fn one(
    id: String,
    call: Call,
    reservations: Reservations,
    queue: &Queue,
) -> Result<Response, ApiError> {
    // Of an upstream's conference this is said when it is allocated.
    let aside = Aside::of(&reservations, false, call.now);
    if let Some(upstream) = reservations.upstream() {
        return one_upstream(&id, &call, upstream, aside).await;
    }
    let id = AllocationId::parse_path(&id).ok_or_else(unknown)?;
    if call.method == Method::DELETE {
        return if reservations.end(id, call.now).await? {
            Ok(error::nothing())
        } else {
            Err(unknown())
        };
    }
    match reservations.find(id, call.now).await? {
        Found::Running(allocation) => {
            let live = queue.is_live(&allocation.conference);
            let body = ConferenceBody::of(&allocation, Aside { live, ..aside });
            Ok(error::json(StatusCode::OK, &body))
        }
        Found::Over(ended_at, message) => Err(over(ended_at, message)),
        Found::Unknown => Err(unknown()),
    }
}

fn read(
    form: &Form,
    domain: &str,
    clocks: &Clocks,
    now: DateTime<Utc>,
) -> Result<Request, FieldError> {
    let name = form.require("name")?;
    let conference =
        Conference::from_node(name, domain).map_err(|error| FieldError::Conference {
            field: "name",
            error,
        })?;
    let written = form.require("start_time")?;
    let start_time = timestamp::parse(written).map_err(|error| FieldError::Time {
        field: "start_time",
        error,
    })?;
    clocks.compare(start_time, now);
    let mail_owner = form.get("mail_owner")?.unwrap_or_default();
    if mail_owner.len() > JID_MAX {
        return Err(FieldError::TooLong {
            field: "mail_owner",
            max: JID_MAX,
        });
    }
    let identity = |field| Ok::<_, FieldError>(form.get(field)?.map(clean));
    let requester = Requester {
        mail_owner: clean(mail_owner),
        user_id: identity("user_id")?,
        user_email: identity("user_email")?,
        user_name: identity("user_name")?,
        user_group: identity("user_group")?,
        tenant: identity("tenant")?,
        moderator: form.get("moderator")? == Some("true"),
        visitor: form.get("role")? == Some("visitor"),
    };
    Ok(Request {
        conference,
        name: name.to_owned(),
        start_time: written.to_owned(),
        requester,
    })
}

/// An identity field without control characters and of bounded length: a display name may hold
/// anything, and is no reason to refuse its bearer.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if clean.len() + c.len_utf8() > JID_MAX {
            break;
        }
        clean.push(c);
    }
    clean
}
