//! The bookings API: `/api/v1/bookings` and `/api/v1/bookings/{id}`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use warp::http::header::LOCATION;
use warp::http::{HeaderValue, Method, StatusCode};

use super::Call;
use super::error::{self, ApiError, Response};
use super::field::{FieldError, Form, Members};
use crate::domain::booking::StartPolicy;
use crate::domain::booking::{Booking, BookingId, Draft, Options};
use crate::domain::conference::{Conference, ConferenceError, canonical_tenant, room_filter};
use crate::domain::secret::Secret;
use crate::domain::timestamp;
use crate::reservation::Reservations;
use crate::store::{BookingFilter, Cursor};

/// How many bookings or decisions a page holds, where the caller doesn't say.
pub(super) const PAGE: u32 = 100;
/// How many it holds at most.
pub(super) const PAGE_MAX: u32 = 1000;

/// A booking as the API shows it. The password never leaves; whether there is one does.
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

/// `GET` and `POST /api/v1/bookings`.
pub(super) async fn all(
    call: Call,
    reservations: Reservations,
    domain: &str,
) -> Result<Response, ApiError> {
    let start_policy = reservations.config().start_policy;
    if call.method == Method::POST {
        let draft = read(call.members()?, None, domain, call.now)?;
        let booking = reservations.book(draft, call.now).await?;
        let mut response = error::json(
            StatusCode::CREATED,
            &BookingBody::of(&booking, start_policy),
        );
        if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/bookings/{}", booking.id)) {
            response.headers_mut().insert(LOCATION, location);
        }
        return Ok(response);
    }
    let mut filter = filter(&call.query()?)?;
    let limit = filter.limit as usize;
    // One more than asked for tells whether there is a next page.
    filter.limit += 1;
    let mut bookings = reservations.bookings(&filter).await?;
    let more = bookings.len() > limit;
    bookings.truncate(limit);
    let next = bookings.last().filter(|_| more).map(cursor);
    let list: Vec<_> = bookings
        .iter()
        .map(|b| BookingBody::of(b, start_policy))
        .collect();
    let mut body = json!({ "bookings": list });
    if let Some(next) = next {
        body["next"] = next.into();
    }
    Ok(error::json(StatusCode::OK, &body))
}

/// `GET`, `PUT`, `PATCH` and `DELETE /api/v1/bookings/{id}`.
pub(super) async fn one(
    id: String,
    call: Call,
    reservations: Reservations,
    domain: &str,
) -> Result<Response, ApiError> {
    let id = id
        .parse()
        .map(BookingId)
        .map_err(|_| ApiError::not_found("There is no booking with this id."))?;
    let booking = match call.method {
        Method::DELETE => {
            reservations.cancel(id, call.now).await?;
            return Ok(error::nothing());
        }
        Method::PUT | Method::PATCH => {
            let members = call.members()?;
            let whole = call.method == Method::PUT;
            let change = |before: &Draft| -> Result<Draft, ApiError> {
                let base = Some(before).filter(|_| !whole);
                Ok(read(members, base, domain, call.now)?)
            };
            reservations.change(id, change, call.now).await?
        }
        _ => reservations.booking(id).await?,
    };
    let start_policy = reservations.config().start_policy;
    Ok(error::json(
        StatusCode::OK,
        &BookingBody::of(&booking, start_policy),
    ))
}

/// A draft from a JSON body: on top of `base` (PATCH), or whole (POST, PUT).
fn read(
    mut members: Members,
    base: Option<&Draft>,
    domain: &str,
    now: DateTime<Utc>,
) -> Result<Draft, FieldError> {
    let (room, tenant) = (members.text("room")?, members.text("tenant")?);
    let conference = conference(
        room.flatten().as_deref(),
        tenant.as_ref().map(Option::as_deref),
        base.map(|base| &base.conference),
        domain,
    )?;
    let before = base.cloned();
    let options = before
        .as_ref()
        .map(|draft| draft.options.clone())
        .unwrap_or_default();
    let was = |read: fn(&Draft) -> Option<String>| before.as_ref().and_then(read);
    let starters = members.text("starters")?;
    let draft = Draft {
        conference,
        title: members
            .text("title")?
            .unwrap_or_else(|| was(|draft| draft.title.clone())),
        owner: members
            .text("owner")?
            .unwrap_or_else(|| was(|draft| draft.owner.clone())),
        start: match members.time("start")? {
            Some(Some(start)) => start,
            // A permanent room may simply begin now.
            None | Some(None) => before.as_ref().map_or(now, |draft| draft.start),
        },
        end: members
            .time("end")?
            .unwrap_or_else(|| before.as_ref().and_then(|draft| draft.end)),
        options: Options {
            max_occupants: members
                .count("max_occupants", "a whole number from 1 up")?
                .unwrap_or(options.max_occupants),
            lobby: members
                .flag("lobby")?
                .map_or(options.lobby, Option::unwrap_or_default),
            password: match members.text("password")? {
                Some(password) => password.map(Secret::new),
                None => options.password,
            },
            waiting_queue: members
                .flag("waiting_queue")?
                .map_or(options.waiting_queue, Option::unwrap_or_default),
        },
        start_policy: match starters {
            Some(Some(text)) => Some(text.parse().map_err(|_| FieldError::Wrong {
                field: "starters",
                wanted: "\"anyone\" or \"owner\"",
            })?),
            Some(None) => None,
            None => before.as_ref().and_then(|draft| draft.start_policy),
        },
        auto_live: members
            .count("auto_live", "a number of minutes")?
            .unwrap_or_else(|| before.as_ref().and_then(|draft| draft.auto_live)),
    };
    members.nothing_left()?;
    Ok(draft)
}

/// The conference that is meant by a room and a tenant, each given or not; what is not given is as
/// `before`. A tenant that the room's own name says counts as given.
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

/// Tells a bad tenant beside the room from one within the room's name.
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

fn filter(query: &Form) -> Result<BookingFilter, FieldError> {
    query.only(&["room", "tenant", "owner", "from", "to", "after", "limit"])?;
    let (room, tenant) = room_and_tenant(query)?;
    let wrong = FieldError::Wrong {
        field: "after",
        wanted: "the \"next\" of the page before",
    };
    let after = query
        .get("after")?
        .map(|text| position(text).ok_or(wrong))
        .transpose()?;
    Ok(BookingFilter {
        room,
        tenant,
        owner: query.get("owner")?.map(str::to_owned),
        from: query.time("from")?,
        to: query.time("to")?,
        after,
        limit: limit(query)?,
    })
}

/// The room and tenant that a list is filtered by, in any spelling.
pub(super) fn room_and_tenant(
    query: &Form,
) -> Result<(Option<String>, Option<String>), FieldError> {
    let (room, tenant) = (query.get("room")?, query.get("tenant")?);
    check_tenant(tenant)?;
    room_filter(room, tenant).map_err(of_room)
}

/// How many entries a page is to hold.
pub(super) fn limit(query: &Form) -> Result<u32, FieldError> {
    let wanted = "a number from 1 to 1000";
    match query.number("limit", wanted)? {
        None => Ok(PAGE),
        Some(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
        Some(_) => Err(FieldError::Wrong {
            field: "limit",
            wanted,
        }),
    }
}

fn cursor(booking: &Booking) -> String {
    format!("{}.{}", booking.draft.start.timestamp_millis(), booking.id)
}

fn position(cursor: &str) -> Option<Cursor> {
    let (start, id) = cursor.split_once('.')?;
    Some(Cursor {
        start: start.parse().ok()?,
        id: id.parse().ok()?,
    })
}
