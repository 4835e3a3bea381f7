//! The reservation API for Prosody's `mod_reservations` and the shim `mod_usher_reservations`: `POST /conference`,
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
use super::request::{CREATE, READ_END, Request, request, service};
use super::{Shared, either, with};
use crate::domain::conference::Conference;
use crate::domain::requester::Requester;
use crate::domain::reservation::{Reservation, ReservationId};
use crate::domain::scope::Scope;
use crate::domain::timestamp;
use crate::reservation::{self, AllocateResult, GetResult};
use crate::text::without_controls;

/// The longest bare JID: a node and a host of 1023 bytes each, and the @. Other identity fields are truncated to it.
const JID_MAX: usize = 2047;

/// The difference of the clocks, in seconds, above which a warning is logged.
const CLOCK_SKEW_SECONDS: i64 = 60;

/// Whether Prosody's clock differed from usher's at the last request. Only a change is logged.
#[derive(Debug, Default)]
pub(super) struct ClockSkew {
    is_skewed: AtomicBool,
}

impl ClockSkew {
    fn compare(&self, prosody: DateTime<Utc>, usher: DateTime<Utc>) {
        let seconds = (prosody - usher).num_seconds();
        let is_skewed = seconds.abs() > CLOCK_SKEW_SECONDS;
        if self.is_skewed.swap(is_skewed, Ordering::Relaxed) == is_skewed {
            return;
        }
        if is_skewed {
            tracing::warn!(
                seconds,
                "clock skew between Prosody and usher; usher's clock is used"
            );
        } else {
            tracing::info!("no clock skew between Prosody and usher any more");
        }
    }
}

/// The conference as the API has it. Unset members are left out: a `null` wedges the room in stock Prosody.
#[derive(Serialize)]
struct ConferenceBody<'a> {
    id: &'a ReservationId,
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
    /// An extension for the shim: visitors wait until the conference goes live.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    waiting_queue: bool,
    /// An extension for the shim: the conference is live already, and its visitors need not wait.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    live: bool,
    /// An extension for the shim: the end in the time zone of the deployment, unless that is UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<String>,
}

/// A response with a running conference.
fn running(
    status: StatusCode,
    reservation: &Reservation,
    shared: &Shared,
    now: DateTime<Utc>,
) -> Response {
    let Reservation {
        start,
        end,
        options,
        ..
    } = reservation;
    let live = reservation.conference.as_ref().is_some_and(|conference| {
        let sessions = shared.sessions.load();
        sessions.queue.is_live(conference)
    });
    let time_zone = shared.reservations.config().time_zone;
    let body = ConferenceBody {
        id: &reservation.id,
        name: &reservation.name,
        mail_owner: &reservation.mail_owner,
        start_time: timestamp::format(*start),
        duration: (*end - *start).num_seconds(),
        max_occupants: options.max_occupants,
        lobby: options.lobby,
        password: options.password.as_ref().map(|password| password.expose()),
        waiting_queue: options.waiting_queue,
        live,
        ends: (time_zone != Tz::UTC).then(|| timestamp::format_local(*end, time_zone, now)),
    };
    error::json(status, &body)
}

/// `/conference` and `/conference/{id}`.
pub(super) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let service = service(&[Scope::Prosody]);
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
    let form = request
        .form("application/x-www-form-urlencoded: name, start_time, mail_owner")?
        .ignore_unknown_duplicates(ConferenceForm::FIELDS);
    let now = request.now;
    let request = read(form, &shared.config.xmpp.domain, &shared.clock_skew, now)?;
    Ok(match shared.reservations.allocate(request, now).await? {
        AllocateResult::Created(it) => running(StatusCode::CREATED, &it, shared, now),
        // Prosody need not look the conference up by its id, as after a 409.
        AllocateResult::Running(it) => running(StatusCode::OK, &it, shared, now),
        AllocateResult::Conflict(id) => {
            let message = "The conference is running already; its id is conflict_id.";
            let body = json!({ "conflict_id": id.get(), "message": message, "code": "running" });
            error::json(StatusCode::CONFLICT, &body)
        }
        AllocateResult::Queued => {
            let message = "Visitors of this conference wait until it goes live.";
            let body = json!({ "waiting_queue": true, "message": message });
            error::json(StatusCode::ACCEPTED, &body)
        }
        AllocateResult::Refused(refusal) => {
            return Err(ApiError::new(StatusCode::FORBIDDEN, refusal.sentence)
                .with_code(refusal.reason.code())
                .with_field("reason", refusal.reason.code()));
        }
    })
}

/// `GET` and `DELETE /conference/{id}`.
async fn one(id: String, request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let (reservations, now) = (&shared.reservations, request.now);
    let not_found = || ApiError::not_found("There is no conference with this id.");
    if request.method == Method::DELETE {
        return match reservations.end(&id, now).await? {
            true => Ok(error::no_content()),
            false => Err(not_found()),
        };
    }
    match reservations.find(&id, now).await? {
        GetResult::Running(it) => Ok(running(StatusCode::OK, &it, shared, now)),
        // `ended_at` is an extension: by it the shim distinguishes an ended conference from an unknown id.
        GetResult::Ended { at, message } => Err(ApiError::not_found(message)
            .with_code("ended")
            .with_field("ended_at", timestamp::format(at))),
        GetResult::NotFound => Err(not_found()),
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

impl ConferenceForm {
    const FIELDS: &[&str] = &[
        "name",
        "start_time",
        "mail_owner",
        "user_id",
        "user_email",
        "user_name",
        "user_group",
        "tenant",
        "moderator",
        "role",
    ];
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
    let clean = |field: Option<String>| field.map(|text| without_controls(&text, JID_MAX));
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
