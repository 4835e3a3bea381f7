//! The reservation API that Prosody's `mod_reservations` and our shim call: `POST /conference`,
//! `GET` and `DELETE /conference/{id}`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use warp::http::{Method, StatusCode};

use super::Call;
use super::field::{FieldError, Form};
use super::reply::{self, Problem, Response};
use crate::conference::Conference;
use crate::reservation::allocation::{Allocation, AllocationId};
use crate::reservation::requester::Requester;
use crate::reservation::{Found, Outcome, Request, Reservations, timestamp};

/// Longest bare JID: a node and a host of 1023 bytes each, and the @. Other identity fields are cut here.
const JID_MAX: usize = 2047;

/// From how many seconds of difference the operator is told that the clocks disagree.
const CLOCK_SKEW_SECONDS: i64 = 60;

/// The conference as the API has it. Unset members are left out: a `null` wedges the room in stock
/// Prosody.
#[derive(Serialize)]
struct ConferenceBody<'a> {
    id: i64,
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
}

impl<'a> ConferenceBody<'a> {
    fn of(allocation: &'a Allocation) -> Self {
        let options = &allocation.options;
        Self {
            id: allocation.id.get(),
            name: &allocation.name,
            mail_owner: &allocation.mail_owner,
            start_time: timestamp::format(allocation.start),
            duration: (allocation.end - allocation.start).num_seconds(),
            max_occupants: options.max_occupants,
            lobby: options.lobby,
            password: options.password.as_ref().map(|password| password.expose()),
            waiting_queue: options.waiting_queue,
        }
    }
}

/// `POST /conference`.
pub(super) async fn create(
    call: Call,
    reservations: Reservations,
    domain: &str,
) -> Result<Response, Problem> {
    let form = call.form("application/x-www-form-urlencoded: name, start_time, mail_owner")?;
    let request = read(&form, domain, call.now)?;
    Ok(match reservations.allocate(&request, call.now).await? {
        Outcome::Allocated(allocation) => {
            reply::json(StatusCode::CREATED, &ConferenceBody::of(&allocation))
        }
        Outcome::Conflict(id) => {
            let message = "The conference is running already; conflict_id tells which.";
            let body = json!({ "conflict_id": id.get(), "message": message });
            reply::json(StatusCode::CONFLICT, &body)
        }
        Outcome::Queued => {
            let message = "Visitors of this conference wait until it goes live.";
            let body = json!({ "waiting_queue": true, "message": message });
            reply::json(StatusCode::ACCEPTED, &body)
        }
        Outcome::Refused(refusal) => {
            return Err(Problem::new(StatusCode::FORBIDDEN, refusal.sentence)
                .with("reason", refusal.reason.code()));
        }
    })
}

/// `GET` and `DELETE /conference/{id}`.
pub(super) async fn one(
    id: String,
    call: Call,
    reservations: Reservations,
) -> Result<Response, Problem> {
    let unknown = || Problem::not_found("There is no conference with this id.");
    let id = AllocationId::parse_path(&id).ok_or_else(unknown)?;
    if call.method == Method::DELETE {
        return if reservations.end(id, call.now).await? {
            Ok(reply::nothing())
        } else {
            Err(unknown())
        };
    }
    match reservations.find(id, call.now).await? {
        Found::Running(allocation) => Ok(reply::json(
            StatusCode::OK,
            &ConferenceBody::of(&allocation),
        )),
        // `ended_at` is ours: it tells our shim a conference that is over from an id it can't know.
        Found::Over(ended_at) => Err(Problem::not_found("The conference is over.")
            .with("ended_at", timestamp::format(ended_at))),
        Found::Unknown => Err(unknown()),
    }
}

fn read(form: &Form, domain: &str, now: DateTime<Utc>) -> Result<Request, FieldError> {
    let name = form.require("name")?;
    let conference =
        Conference::from_node(name, domain).map_err(|error| FieldError::Conference {
            field: "name",
            error,
        })?;
    let start_time = form.require("start_time")?;
    let start_time = timestamp::parse(start_time).map_err(|error| FieldError::Time {
        field: "start_time",
        error,
    })?;
    let skew = (start_time - now).num_seconds();
    if skew.abs() > CLOCK_SKEW_SECONDS {
        tracing::warn!(
            seconds = skew,
            "Prosody's clock differs from ours; ours rules"
        );
    }
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
