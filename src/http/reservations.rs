//! The reservation API that Prosody's `mod_reservations` and our shim call: `POST /conference`,
//! `GET` and `DELETE /conference/{id}`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{Method, StatusCode};

use super::error::{self, ApiError, Response, respond};
use super::form::{FieldError, Fields};
use super::request::{Access, CREATE, READ_END, Request, request};
use super::{Shared, either, with};
use crate::domain::allocation::{Allocation, AllocationId};
use crate::domain::booking::Options;
use crate::domain::conference::Conference;
use crate::domain::requester::Requester;
use crate::domain::timestamp;
use crate::reservation::gateway::{Lookup, Upstream, UpstreamConference, UpstreamId, Verdict};
use crate::reservation::{self, Found, Outcome, Reservations};

/// Longest bare JID: a node and a host of 1023 bytes each, and the @. Other identity fields are cut here.
const JID_MAX: usize = 2047;

/// From how many seconds of difference the operator is told that the clocks disagree.
const CLOCK_SKEW_SECONDS: i64 = 60;

/// Whether Prosody's clock differed from ours when it last asked. The operator is told of a change, and not
/// with every request.
#[derive(Debug, Default)]
pub(super) struct ClockSkew {
    differ: AtomicBool,
}

impl ClockSkew {
    fn compare(&self, theirs: DateTime<Utc>, ours: DateTime<Utc>) {
        let seconds = (theirs - ours).num_seconds();
        let differ = seconds.abs() > CLOCK_SKEW_SECONDS;
        if self.differ.swap(differ, Ordering::Relaxed) == differ {
            return;
        }
        if differ {
            tracing::warn!(
                seconds,
                "clock skew between Prosody and usher; usher's clock is used"
            );
        } else {
            tracing::info!("no clock skew between Prosody and usher any more");
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

/// `/conference` and `/conference/{id}`.
pub(super) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let service = Access::Service(StatusCode::UNAUTHORIZED);
    let create = warp::path!("conference")
        .and(request(shared, CREATE, service))
        .and(with(shared))
        .then(async |request, shared: Arc<Shared>| respond(create(request, &shared).await));
    let one = warp::path!("conference" / String)
        .and(request(shared, READ_END, service))
        .and(with(shared))
        .then(async |id: String, request, shared: Arc<Shared>| {
            respond(one(id, request, &shared).await)
        });
    either(create.boxed(), one.boxed())
}

/// `POST /conference`.
async fn create(request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let form = request.form("application/x-www-form-urlencoded: name, start_time, mail_owner")?;
    let now = request.now;
    let request = read(form, &shared.config.xmpp.domain, &shared.clock_skew, now)?;
    let reservations = &shared.reservations;
    let live = shared.sessions.load().queue.is_live(&request.conference);
    let aside = Aside::of(reservations, live, now);
    if let Some(upstream) = reservations.upstream() {
        return passed_on(upstream.allocate(&request).await, aside);
    }
    Ok(match reservations.allocate(request, now).await? {
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
                .with_field("reason", refusal.reason.code()));
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
    call: &Request,
    upstream: &Upstream,
    aside: Aside,
) -> Result<Response, ApiError> {
    if call.method == Method::DELETE {
        return match upstream.end(id, call.now).await? {
            true => Ok(error::no_content()),
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
    ApiError::not_found(message).with_field("ended_at", timestamp::format(ended_at))
}

/// `GET` and `DELETE /conference/{id}`.
async fn one(id: String, call: Request, shared: &Shared) -> Result<Response, ApiError> {
    let reservations = &shared.reservations;
    // Of an upstream's conference this is said when it is allocated.
    let aside = Aside::of(reservations, false, call.now);
    if let Some(upstream) = reservations.upstream() {
        return one_upstream(&id, &call, upstream, aside).await;
    }
    let id = AllocationId::parse_path(&id).ok_or_else(unknown)?;
    if call.method == Method::DELETE {
        return if reservations.end(id, call.now).await? {
            Ok(error::no_content())
        } else {
            Err(unknown())
        };
    }
    match reservations.find(id, call.now).await? {
        Found::Running(allocation) => {
            let live = shared.sessions.load().queue.is_live(&allocation.conference);
            let body = ConferenceBody::of(&allocation, Aside { live, ..aside });
            Ok(error::json(StatusCode::OK, &body))
        }
        Found::Over(ended_at, message) => Err(over(ended_at, message)),
        Found::Unknown => Err(unknown()),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConferenceForm {
    name: Option<String>,
    start_time: Option<String>,
    mail_owner: Option<String>,
    user_id: Option<String>,
    user_email: Option<String>,
    user_name: Option<String>,
    user_group: Option<String>,
    tenant: Option<String>,
    moderator: Option<String>,
    role: Option<String>,
}

fn read(
    mut form: Fields<ConferenceForm>,
    domain: &str,
    clock_skew: &ClockSkew,
    now: DateTime<Utc>,
) -> Result<reservation::Request, Vec<FieldError>> {
    let conference = form.check(|form| conference(form, domain));
    let start_time = form.check(start_time);
    form.check(|form| match form.mail_owner.as_ref().map(String::len) {
        Some(length) if length > JID_MAX => Err(FieldError::TooLong {
            field: "mail_owner",
            max: JID_MAX,
        }),
        _ => Ok(()),
    });
    let (form, (conference, start_time)) = form.finish_with(conference.zip(start_time))?;
    clock_skew.compare(start_time, now);
    let clean = |field: Option<String>| field.map(|text| clean(&text));
    Ok(reservation::Request {
        conference,
        name: form.name.unwrap_or_default(),
        start_time: form.start_time.unwrap_or_default(),
        requester: Requester {
            mail_owner: clean(form.mail_owner).unwrap_or_default(),
            user_id: clean(form.user_id),
            user_email: clean(form.user_email),
            user_name: clean(form.user_name),
            user_group: clean(form.user_group),
            tenant: clean(form.tenant),
            moderator: form.moderator.as_deref() == Some("true"),
            visitor: form.role.as_deref() == Some("visitor"),
        },
    })
}

fn conference(form: &ConferenceForm, domain: &str) -> Result<Conference, FieldError> {
    let name = form.name.as_deref().ok_or(FieldError::Missing("name"))?;
    Conference::from_node(name, domain).map_err(|error| FieldError::Conference {
        field: "name",
        error,
    })
}

fn start_time(form: &ConferenceForm) -> Result<DateTime<Utc>, FieldError> {
    let field = "start_time";
    let written = form.start_time.as_deref();
    timestamp::parse(written.ok_or(FieldError::Missing(field))?)
        .map_err(|error| FieldError::Time { field, error })
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
