//! The bookings API: `/api/v1/bookings` and `/api/v1/bookings/{id}`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::LOCATION;
use warp::http::{HeaderValue, Method, StatusCode};

use super::error::{self, ApiError, Response, json, respond};
use super::form::{Count, FieldError, Fields, Time, nullable};
use super::page::Limit;
use super::request::{Access, READ_CHANGE_END, READ_CREATE, Request, request};
use super::{Shared, either, with};
use crate::domain::booking::{Booking, BookingId, Draft, Options, StartPolicy};
use crate::domain::conference::{Conference, ConferenceError, canonical_tenant, room_filter};
use crate::domain::secret::Secret;
use crate::domain::timestamp;
use crate::store::{BookingFilter, Cursor};

/// `/api/v1/bookings` and `/api/v1/bookings/{id}`.
pub(super) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let service = Access::Service(StatusCode::UNAUTHORIZED);
    let all = warp::path!("api" / "v1" / "bookings")
        .and(request(shared, READ_CREATE, service))
        .and(with(shared))
        .then(async |request, shared: Arc<Shared>| respond(all(request, &shared).await));
    let one = warp::path!("api" / "v1" / "bookings" / String)
        .and(request(shared, READ_CHANGE_END, service))
        .and(with(shared))
        .then(async |id: String, request, shared: Arc<Shared>| {
            respond(one(&id, request, &shared).await)
        });
    either(all.boxed(), one.boxed())
}

/// A booking as the API shows it. The password is never returned, only whether one is set.
#[derive(Serialize)]
struct BookingBody<'a> {
    id: i64,
    room: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_occupants: Option<u32>,
    lobby: bool,
    password_set: bool,
    waiting_queue: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    auto_live: Option<u32>,
    starters: StartPolicy,
    created_at: String,
    changed_at: String,
}

impl<'a> BookingBody<'a> {
    fn of(booking: &'a Booking, default_policy: StartPolicy) -> Self {
        let Draft {
            conference,
            title,
            owner,
            start,
            end,
            options,
            start_policy,
            auto_live,
        } = &booking.draft;
        Self {
            id: booking.id.0,
            room: conference.room(),
            tenant: conference.tenant(),
            title: title.as_deref(),
            owner: owner.as_deref(),
            start: timestamp::format(*start),
            end: end.map(timestamp::format),
            max_occupants: options.max_occupants,
            lobby: options.lobby,
            password_set: options.password.is_some(),
            waiting_queue: options.waiting_queue,
            auto_live: *auto_live,
            starters: start_policy.unwrap_or(default_policy),
            created_at: timestamp::format(booking.created_at),
            changed_at: timestamp::format(booking.changed_at),
        }
    }
}

/// The fields of a booking in a request. Absent: unchanged; `null`: cleared.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BookingFields {
    #[serde(deserialize_with = "nullable")]
    room: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    tenant: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    title: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    owner: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    start: Option<Option<Time>>,
    #[serde(deserialize_with = "nullable")]
    end: Option<Option<Time>>,
    #[serde(deserialize_with = "nullable")]
    max_occupants: Option<Option<Count>>,
    #[serde(deserialize_with = "nullable")]
    lobby: Option<Option<bool>>,
    #[serde(deserialize_with = "nullable")]
    password: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    waiting_queue: Option<Option<bool>>,
    #[serde(deserialize_with = "nullable")]
    starters: Option<Option<Starters>>,
    #[serde(deserialize_with = "nullable")]
    auto_live: Option<Option<Count>>,
}

/// The member `starters`: a string. Serde's own reader of enums accepts an object, too.
#[derive(Debug)]
struct Starters(StartPolicy);

impl<'de> Deserialize<'de> for Starters {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        let refused = |_| D::Error::custom("must be \"anyone\" or \"owner\"");
        text.parse().map(Self).map_err(refused)
    }
}

impl BookingFields {
    /// Changes a draft. A flag that is cleared is off; a booking always has a start.
    fn apply(self, draft: &mut Draft) {
        fn set<T>(field: &mut T, change: Option<T>) {
            if let Some(value) = change {
                *field = value;
            }
        }
        set(&mut draft.title, self.title);
        set(&mut draft.owner, self.owner);
        set(&mut draft.start, self.start.flatten().map(|time| time.0));
        set(&mut draft.end, self.end.map(|end| end.map(|time| time.0)));
        let start_policy = self.starters.map(|it| it.map(|starters| starters.0));
        set(&mut draft.start_policy, start_policy);
        let count = |count: Option<Count>| count.map(|it| it.0);
        set(&mut draft.auto_live, self.auto_live.map(count));
        let options = &mut draft.options;
        set(&mut options.max_occupants, self.max_occupants.map(count));
        set(
            &mut options.lobby,
            self.lobby.map(Option::unwrap_or_default),
        );
        let password = self.password.map(|password| password.map(Secret::new));
        set(&mut options.password, password);
        let waiting_queue = self.waiting_queue.map(Option::unwrap_or_default);
        set(&mut options.waiting_queue, waiting_queue);
    }
}

/// `GET` and `POST /api/v1/bookings`.
async fn all(request: Request, shared: &Shared) -> Result<Response, ApiError> {
    if request.method == Method::POST {
        create(request, shared).await
    } else {
        list(request, shared).await
    }
}

async fn create(request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let draft = draft(
        request.json()?,
        None,
        &shared.config.xmpp.domain,
        request.now,
    )?;
    let booking = shared.reservations.book(draft, request.now).await?;
    let mut response = body(StatusCode::CREATED, &booking, shared);
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/bookings/{}", booking.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

fn body(status: StatusCode, booking: &Booking, shared: &Shared) -> Response {
    let default = shared.reservations.config().start_policy;
    json(status, &BookingBody::of(booking, default))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Query {
    room: Option<String>,
    tenant: Option<String>,
    owner: Option<String>,
    from: Option<Time>,
    to: Option<Time>,
    after: Option<After>,
    limit: Limit,
}

/// The `next` of the page before.
#[derive(Debug)]
struct After(Cursor);

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        let position = || {
            let (start, id) = text.split_once('.')?;
            Some(Cursor {
                start: start.parse().ok()?,
                id: id.parse().ok()?,
            })
        };
        let refused = || D::Error::custom("must be the \"next\" of the page before");
        position().map(Self).ok_or_else(refused)
    }
}

async fn list(request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let mut query = request.query::<Query>()?;
    let names = query.check(|it| room_and_tenant(it.room.as_deref(), it.tenant.as_deref()));
    let (query, (room, tenant)) = query.finish_with(names)?;
    let filter = BookingFilter {
        room,
        tenant,
        owner: query.owner,
        from: query.from.map(|time| time.0),
        to: query.to.map(|time| time.0),
        after: query.after.map(|after| after.0),
        limit: query.limit.rows(),
    };
    let mut bookings = shared.reservations.bookings(&filter).await?;
    let next = query.limit.cut(&mut bookings, |last| {
        format!("{}.{}", last.draft.start.timestamp_millis(), last.id).into()
    });
    let default = shared.reservations.config().start_policy;
    let shown = bookings.iter().map(|it| BookingBody::of(it, default));
    let mut body = json!({ "bookings": shown.collect::<Vec<_>>() });
    if let Some(next) = next {
        body["next"] = next;
    }
    Ok(json(StatusCode::OK, &body))
}

/// `GET`, `PUT`, `PATCH` and `DELETE /api/v1/bookings/{id}`.
async fn one(id: &str, request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let id = id
        .parse()
        .map(BookingId)
        .map_err(|_| ApiError::not_found("There is no booking with this id."))?;
    let reservations = &shared.reservations;
    let booking = match request.method {
        Method::DELETE => {
            reservations.cancel(id, request.now).await?;
            return Ok(error::no_content());
        }
        Method::PUT | Method::PATCH => {
            let fields = request.json()?;
            let is_whole = request.method == Method::PUT;
            let change = |before: &Draft| -> Result<Draft, ApiError> {
                let base = Some(before).filter(|_| !is_whole);
                Ok(draft(
                    fields,
                    base,
                    &shared.config.xmpp.domain,
                    request.now,
                )?)
            };
            reservations.change(id, change, request.now).await?
        }
        _ => reservations.booking(id).await?,
    };
    Ok(body(StatusCode::OK, &booking, shared))
}

/// A draft from a JSON body: on top of `base` (PATCH), or whole (POST, PUT). Without a start it begins now: a
/// permanent room.
fn draft(
    mut fields: Fields<BookingFields>,
    base: Option<&Draft>,
    domain: &str,
    now: DateTime<Utc>,
) -> Result<Draft, Vec<FieldError>> {
    let conference = fields.check(|fields| {
        let room = fields.room.as_ref().and_then(Option::as_deref);
        let tenant = fields.tenant.as_ref().map(Option::as_deref);
        conference(room, tenant, base.map(|base| &base.conference), domain)
    });
    let (fields, conference) = fields.finish_with(conference)?;
    let mut draft = match base {
        Some(base) => Draft {
            conference,
            ..base.clone()
        },
        None => Draft {
            conference,
            title: None,
            owner: None,
            start: now,
            end: None,
            options: Options::default(),
            start_policy: None,
            auto_live: None,
        },
    };
    fields.apply(&mut draft);
    Ok(draft)
}

/// The conference of a room and a tenant, each given or not; a missing one is as `before`. A tenant within the
/// room's name counts as given.
fn conference(
    room: Option<&str>,
    tenant: Option<Option<&str>>,
    before: Option<&Conference>,
    domain: &str,
) -> Result<Conference, FieldError> {
    let given = tenant.flatten();
    check_tenant(given)?;
    let named = |room: &str, tenant| Conference::from_names(room, tenant, domain).map_err(of_room);
    match (room, before) {
        (None, None) => Err(FieldError::Missing("room")),
        (None, Some(before)) if tenant.is_none() => Ok(before.clone()),
        (None, Some(before)) => named(before.room(), given),
        (Some(room), before) => {
            let conference = named(room, given)?;
            match before.and_then(Conference::tenant) {
                Some(before) if tenant.is_none() && conference.tenant().is_none() => {
                    named(room, Some(before))
                }
                _ => Ok(conference),
            }
        }
    }
}

/// Distinguishes a bad tenant beside the room from one within the room's name.
fn check_tenant(tenant: Option<&str>) -> Result<(), FieldError> {
    let wrong = |error| FieldError::Conference {
        field: "tenant",
        error,
    };
    match tenant.filter(|tenant| !tenant.is_empty()) {
        Some(tenant) => canonical_tenant(tenant).map(drop).map_err(wrong),
        None => Ok(()),
    }
}

fn of_room(error: ConferenceError) -> FieldError {
    FieldError::Conference {
        field: "room",
        error,
    }
}

/// The room and tenant that a list is filtered by, in any spelling.
pub(super) fn room_and_tenant(
    room: Option<&str>,
    tenant: Option<&str>,
) -> Result<(Option<String>, Option<String>), FieldError> {
    check_tenant(tenant)?;
    room_filter(room, tenant).map_err(of_room)
}
