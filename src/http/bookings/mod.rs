//! The bookings API: `/api/v1/bookings` and `/api/v1/bookings/{id}`.

mod body;
mod fields;

use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{ETAG, LOCATION};
use warp::http::{HeaderValue, Method, StatusCode};

use super::error::{self, ApiError, Response, json, respond};
use super::form::Time;
use super::page::Limit;
use super::precondition::{Precondition, etag, request_key};
use super::request::{READ_CHANGE_END, READ_CREATE, Request, request, service};
use super::{Shared, either, with};
use crate::domain::booking::{Booking, BookingId};
use crate::domain::scope::Scope;
use crate::store::{BookingFilter, Cursor};
use body::BookingBody;
use fields::{BookingFields, draft};

pub(super) use fields::room_and_tenant;

/// `/api/v1/bookings` and `/api/v1/bookings/{id}`.
pub(super) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let service = service(&[Scope::Bookings]);
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

/// `GET` and `POST /api/v1/bookings`.
async fn all(request: Request, shared: &Shared) -> Result<Response, ApiError> {
    if request.method == Method::POST {
        create(request, shared).await
    } else {
        list(request, shared).await
    }
}

/// `POST /api/v1/bookings`. A repetition with the same `Idempotency-Key` gets the booking that the first request made.
async fn create(request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let key = request_key(&request)?;
    let fields = request.json::<BookingFields>()?;
    let domain = &shared.config.xmpp.domain;
    let draft = draft(fields, None, None, (domain, request.now))?;
    let booking = shared
        .reservations
        .book_once(draft, key.as_ref(), request.now);
    let booking = booking.await?;
    let mut response = body(StatusCode::CREATED, &booking, shared);
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/bookings/{}", booking.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

fn body(status: StatusCode, booking: &Booking, shared: &Shared) -> Response {
    let mut response = json(status, &BookingBody::of(booking, shared));
    response.headers_mut().insert(ETAG, etag(booking.version));
    response
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
    let shown = bookings.iter().map(|it| BookingBody::of(it, shared));
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
        .map_err(|_| ApiError::no_such_booking())?;
    let (reservations, now) = (&shared.reservations, request.now);
    let precondition = Precondition::of(&request.headers);
    let booking = match request.method {
        Method::DELETE => {
            let check = |before: &Booking| precondition.check(before.version);
            reservations.cancel_if(id, check, now).await?;
            return Ok(error::no_content());
        }
        Method::PUT | Method::PATCH => {
            let is_whole = request.method == Method::PUT;
            let fields = match is_whole {
                true => request.json()?,
                false => request.merge_patch()?,
            };
            let change = |before: &Booking| -> Result<_, ApiError> {
                precondition.check(before.version)?;
                let base = Some(&before.draft).filter(|_| !is_whole);
                let conference = Some(&before.draft.conference);
                let domain = &shared.config.xmpp.domain;
                Ok(draft(fields, base, conference, (domain, now))?)
            };
            reservations.change(id, change, now).await?
        }
        _ => {
            let booking = reservations.booking(id).await?;
            if precondition.is_unchanged(booking.version) {
                return Ok(error::not_modified(etag(booking.version)));
            }
            booking
        }
    };
    Ok(body(StatusCode::OK, &booking, shared))
}
