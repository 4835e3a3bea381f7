//! Responses of the upstream, pure: as strict as the stock module, repaired where that is safe, and else rejected with
//! the name of the field.

use chrono::TimeDelta;
use serde_json::{Map, Value};
use thiserror::Error;

use super::id::UpstreamId;
use crate::domain::booking::Options;
use crate::domain::reservation::{Reservation, Source};
use crate::domain::room_rules::RoomRules;
use crate::domain::secret::Secret;
use crate::domain::timestamp::{self, TimestampError};

/// The longest message for a user, in characters.
const MESSAGE_MAX: usize = 1_000;
/// The longest `mail_owner` and password, in bytes: the length of a bare JID.
const TEXT_MAX: usize = 2_047;
/// The longest conference, which Lua's date functions support.
const DURATION_MAX_SECONDS: i64 = 10 * 366 * 86_400;

/// Why a response can't be used. Each message names the field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResponseError {
    /// The body is not a JSON object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// A required field is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has the wrong type.
    #[error("{field} is not {expected}")]
    InvalidType {
        /// The field.
        field: &'static str,
        /// Its type.
        expected: &'static str,
    },
    /// The conference is of another room; the stock module would reject it.
    #[error("name is another room's")]
    OtherRoom,
    /// The start is not a timestamp.
    #[error("start_time: {0}")]
    StartTime(TimestampError),
    /// A status that has no meaning in the API.
    #[error("its status is {0}, which is not part of the API; check reservations.upstream.url")]
    UnexpectedStatus(u16),
    /// A 409 with the id of a conference that the upstream does not find.
    #[error("it reports that conference {0} is running, but does not find it by that id")]
    ConflictNotFound(String),
}

/// The values of a request that its response must have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    /// The room's node; `None` where only the id is known.
    pub(super) name: Option<&'a str>,
    /// The requester; may be empty.
    pub(super) mail_owner: &'a str,
    /// The id in the request.
    pub(super) id: Option<&'a UpstreamId>,
}

/// Reads a conference.
pub(super) fn conference(
    body: &[u8],
    expected: Expected<'_>,
) -> Result<Reservation, ResponseError> {
    let members = object(body)?;
    let start_time = members.text("start_time", "a string")?;
    let start_time = start_time.ok_or(ResponseError::Missing("start_time"))?;
    let start = timestamp::parse(start_time).map_err(ResponseError::StartTime)?;
    let seconds = members.whole("duration", "a number of seconds from 1 up")?;
    let duration = seconds.ok_or(ResponseError::Missing("duration"))?;
    if !(1..=DURATION_MAX_SECONDS).contains(&duration) {
        return Err(ResponseError::InvalidType {
            field: "duration",
            expected: "a number of seconds from 1 up to ten years",
        });
    }
    let mail_owner = match members.text("mail_owner", "a string") {
        Ok(Some(owner)) if owner.len() <= TEXT_MAX => clean(owner),
        // Prosody requires a string, and any will do.
        _ => expected.mail_owner.to_owned(),
    };
    Ok(Reservation {
        id: id(&members, expected)?.into(),
        source: Source::Upstream,
        conference: None,
        name: name(&members, expected)?,
        mail_owner,
        start,
        end: start + TimeDelta::seconds(duration),
        options: options(&members)?,
        booking: None,
    })
}

/// Reads the id of the running conference in a 409.
pub(super) fn conflict(body: &[u8]) -> Result<UpstreamId, ResponseError> {
    let members = object(body)?;
    let value = members
        .get("conflict_id")
        .ok_or(ResponseError::Missing("conflict_id"))?;
    UpstreamId::from_json(value).ok_or(ResponseError::InvalidType {
        field: "conflict_id",
        expected: "a whole number or a short string that is valid in a path",
    })
}

/// Whether a body has the form of the API.
pub(super) fn is_object(body: &[u8]) -> bool {
    object(body).is_ok()
}

/// Whether a 202 means that the visitor must wait: an extension of usher to the API.
pub(super) fn is_queued(body: &[u8]) -> bool {
    object(body).is_ok_and(|members| members.get("waiting_queue") == Some(&Value::Bool(true)))
}

/// The message of a refusal, or one of usher where it has none that can be displayed.
pub(super) fn message(status: u16, body: &[u8], room: &str) -> String {
    let received = object(body).ok().and_then(|members| {
        let text = clean(members.get("message")?.as_str()?);
        let text: String = text.trim().chars().take(MESSAGE_MAX).collect();
        (!text.is_empty()).then_some(text)
    });
    received.unwrap_or_else(|| match status {
        401 | 407 => "The reservation system rejects usher's credentials. Contact the administrator of this service: reservations.upstream.headers.".to_owned(),
        404 | 405 | 410 => "There is no reservation system at its configured address. Contact the administrator of this service: reservations.upstream.url.".to_owned(),
        429 => "The reservation system receives too many requests. Try again in a minute.".to_owned(),
        _ => format!("The reservation system refused \"{room}\" without a reason (status {status}). Book the room there, or contact its administrator."),
    })
}

struct JsonObject(Map<String, Value>);

fn object(body: &[u8]) -> Result<JsonObject, ResponseError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(JsonObject(members)),
        _ => Err(ResponseError::NotAnObject),
    }
}

impl JsonObject {
    /// A member that is not `null`.
    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn text(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<&str>, ResponseError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ResponseError::InvalidType { field, expected }),
        }
    }

    /// A number, or a string of one, without its fraction.
    fn whole(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<i64>, ResponseError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number: &f64| number.abs() <= 1e15);
        // Up to 10^15 only the fraction is lost.
        number
            .map(|number| Some(number.trunc() as i64))
            .ok_or(ResponseError::InvalidType { field, expected })
    }

    fn flag(&self, field: &'static str) -> Result<bool, ResponseError> {
        Ok(match self.get(field) {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) if text == "true" || text == "1" => true,
            Some(Value::String(text)) if matches!(text.as_str(), "false" | "0" | "") => false,
            Some(Value::Number(number)) if number.as_f64() == Some(1.0) => true,
            Some(Value::Number(number)) if number.as_f64() == Some(0.0) => false,
            Some(_) => {
                let expected = "true or false";
                return Err(ResponseError::InvalidType { field, expected });
            }
        })
    }
}

fn id(members: &JsonObject, expected: Expected<'_>) -> Result<UpstreamId, ResponseError> {
    let Some(value) = members.get("id") else {
        // The response to a request with an id is the conference of that id.
        return expected.id.cloned().ok_or(ResponseError::Missing("id"));
    };
    UpstreamId::from_json(value).ok_or(ResponseError::InvalidType {
        field: "id",
        expected: "a whole number or a short string that is valid in a path",
    })
}

/// The stock module requires the room's node, in any case; it receives what it wrote itself.
fn name(members: &JsonObject, expected: Expected<'_>) -> Result<String, ResponseError> {
    let received = members.text("name", "a string")?;
    match (received, expected.name) {
        (Some(received), Some(sent)) if !received.eq_ignore_ascii_case(sent) => {
            Err(ResponseError::OtherRoom)
        }
        (_, Some(sent)) => Ok(sent.to_owned()),
        (Some(received), None) => Ok(received.to_owned()),
        (None, None) => Err(ResponseError::Missing("name")),
    }
}

fn options(members: &JsonObject) -> Result<Options, ResponseError> {
    let field = "max_occupants";
    let expected = "a whole number from 1 up";
    let max_occupants = members.whole(field, expected)?;
    let max_occupants = max_occupants.map(|number| match u32::try_from(number) {
        Ok(number) if number >= 1 => Ok(number),
        _ => Err(ResponseError::InvalidType { field, expected }),
    });
    Ok(Options {
        max_occupants: max_occupants.transpose()?,
        lobby: members.flag("lobby")?,
        password: password(members)?.map(Secret::new),
        waiting_queue: members.flag("waiting_queue")?,
        rules: RoomRules::default(),
    })
}

fn password(members: &JsonObject) -> Result<Option<String>, ResponseError> {
    let (field, expected) = ("password", "a string");
    let password = match members.get(field) {
        None => return Ok(None),
        Some(Value::String(password)) => password.clone(),
        // A PIN; 1234.0 is the same number.
        Some(Value::Number(number)) if number.is_u64() => number.to_string(),
        Some(Value::Number(number)) if is_pin(number.as_f64()) => {
            format!("{:.0}", number.as_f64().unwrap_or_default())
        }
        Some(_) => return Err(ResponseError::InvalidType { field, expected }),
    };
    let valid = password.len() <= TEXT_MAX && !password.chars().any(char::is_control);
    let expected = "a short string of printable characters";
    match password.is_empty() {
        true => Ok(None),
        false if valid => Ok(Some(password)),
        false => Err(ResponseError::InvalidType { field, expected }),
    }
}

/// Whether a number that is written with a fraction is a whole one of at most fifteen digits.
fn is_pin(number: Option<f64>) -> bool {
    number.is_some_and(|number| number.fract() == 0.0 && (0.0..1e15).contains(&number))
}

/// Removes control characters, most of which are not valid in an XMPP stanza.
fn clean(text: &str) -> String {
    let blank = |c: char| if c == '\n' || c == '\t' { ' ' } else { c };
    text.chars()
        .map(blank)
        .filter(|c| !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests;
