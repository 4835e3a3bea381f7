//! What an upstream's answers mean, pure: as strict as the stock module, repaired where that is safe, and
//! refused by the name of the field where it isn't.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use thiserror::Error;

use super::id::UpstreamId;
use crate::domain::booking::Options;
use crate::domain::secret::Secret;
use crate::domain::timestamp::{self, TimestampError};

/// Longest message that is passed on, in characters: it is shown to a person.
const MESSAGE_MAX: usize = 1_000;
/// Longest `mail_owner` and password that are passed on, in bytes: a bare JID's bound.
const TEXT_MAX: usize = 2_047;
/// Longest conference that is believed; Lua's date functions take it.
const DURATION_MAX_SECONDS: i64 = 10 * 366 * 86_400;

/// A conference that an upstream lets run.
#[derive(Clone, Debug)]
pub struct UpstreamConference {
    /// What the upstream calls it.
    pub id: UpstreamId,
    /// The room's node, as Prosody wrote it.
    pub name: String,
    /// Whose it is; may be empty.
    pub mail_owner: String,
    /// When it began, or was to begin.
    pub start: DateTime<Utc>,
    /// The moment the room must close.
    pub end: DateTime<Utc>,
    /// What Prosody applies.
    pub options: Options,
}

/// Why an answer can't be used. Each message names the field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Flaw {
    /// The body is no JSON object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// A field that can't be guessed.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field of the wrong kind.
    #[error("{field} is not {wanted}")]
    Wrong {
        /// Which.
        field: &'static str,
        /// What it has to be.
        wanted: &'static str,
    },
    /// It is about another room; the stock module would reject it.
    #[error("name is another room's")]
    OtherRoom,
    /// The start can't be read.
    #[error("start_time: {0}")]
    Start(TimestampError),
    /// A status that means nothing in the API.
    #[error("its status is {0}, which says neither yes nor no; check reservations.upstream.url")]
    Status(u16),
    /// A 409 whose conference is gone when it is asked for.
    #[error("it says that conference {0} is running, and doesn't know it when asked")]
    Vanished(String),
}

/// What is known already of the conference an answer is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// Its room's node; `None` where only an id was asked for.
    pub(super) name: Option<&'a str>,
    /// Who asked; empty where nobody is known.
    pub(super) mail_owner: &'a str,
    /// The id that was asked for, if one was.
    pub(super) id: Option<&'a UpstreamId>,
}

/// Reads a conference.
pub(super) fn conference(body: &[u8], known: Known<'_>) -> Result<UpstreamConference, Flaw> {
    let members = object(body)?;
    let start_time = members.text("start_time", "a text")?;
    let start_time = start_time.ok_or(Flaw::Missing("start_time"))?;
    let start = timestamp::parse(start_time).map_err(Flaw::Start)?;
    let seconds = members.whole("duration", "a number of seconds from 1 up")?;
    let duration = seconds.ok_or(Flaw::Missing("duration"))?;
    if !(1..=DURATION_MAX_SECONDS).contains(&duration) {
        return Err(Flaw::Wrong {
            field: "duration",
            wanted: "a number of seconds from 1 up to ten years",
        });
    }
    let mail_owner = match members.text("mail_owner", "a text") {
        Ok(Some(owner)) if owner.len() <= TEXT_MAX => clean(owner),
        // Ours is as good: Prosody only wants a text there.
        _ => known.mail_owner.to_owned(),
    };
    Ok(UpstreamConference {
        id: id(&members, known)?,
        name: name(&members, known)?,
        mail_owner,
        start,
        end: start + TimeDelta::seconds(duration),
        options: options(&members)?,
    })
}

/// Reads the id of the conference that is in the way.
pub(super) fn conflict(body: &[u8]) -> Result<UpstreamId, Flaw> {
    let members = object(body)?;
    let value = members
        .get("conflict_id")
        .ok_or(Flaw::Missing("conflict_id"))?;
    UpstreamId::of_json(value).ok_or(Flaw::Wrong {
        field: "conflict_id",
        wanted: "a whole number or a short text that can stand in a path",
    })
}

/// Whether a body is what the API speaks.
pub(super) fn is_object(body: &[u8]) -> bool {
    object(body).is_ok()
}

/// Whether a 202 says that the visitor is to wait: the API has no such answer, ours has.
pub(super) fn is_queued(body: &[u8]) -> bool {
    object(body).is_ok_and(|members| members.get("waiting_queue") == Some(&Value::Bool(true)))
}

/// The message of a refusal, or one of ours where it has none that could be shown.
pub(super) fn message(status: u16, body: &[u8], room: &str) -> String {
    let told = object(body).ok().and_then(|members| {
        let text = clean(members.get("message")?.as_str()?);
        let text: String = text.trim().chars().take(MESSAGE_MAX).collect();
        (!text.is_empty()).then_some(text)
    });
    told.unwrap_or_else(|| match status {
        401 | 407 => "The reservation system doesn't accept usher's credentials. Tell whoever runs this service: reservations.upstream.headers.".to_owned(),
        404 | 405 | 410 => "The reservation system takes no reservations at its address. Tell whoever runs this service: reservations.upstream.url.".to_owned(),
        429 => "The reservation system is asked too often. Try again in a minute.".to_owned(),
        _ => format!("The reservation system refused \"{room}\" without saying why (status {status}). Book the room there, or ask whoever runs it."),
    })
}

struct Members(Map<String, Value>);

fn object(body: &[u8]) -> Result<Members, Flaw> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(Members(members)),
        _ => Err(Flaw::NotAnObject),
    }
}

impl Members {
    /// A member; `null` is none.
    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn text(&self, field: &'static str, wanted: &'static str) -> Result<Option<&str>, Flaw> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Flaw::Wrong { field, wanted }),
        }
    }

    /// A number, or a text of one; what follows its point is cut off.
    fn whole(&self, field: &'static str, wanted: &'static str) -> Result<Option<i64>, Flaw> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number: &f64| number.abs() <= 1e15);
        // Within 10^15 nothing but the fraction is lost.
        number
            .map(|number| Some(number.trunc() as i64))
            .ok_or(Flaw::Wrong { field, wanted })
    }

    fn flag(&self, field: &'static str) -> Result<bool, Flaw> {
        Ok(match self.get(field) {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) if text == "true" || text == "1" => true,
            Some(Value::String(text)) if matches!(text.as_str(), "false" | "0" | "") => false,
            Some(Value::Number(number)) if number.as_u64() == Some(1) => true,
            Some(Value::Number(number)) if number.as_u64() == Some(0) => false,
            Some(_) => {
                let wanted = "true or false";
                return Err(Flaw::Wrong { field, wanted });
            }
        })
    }
}

fn id(members: &Members, known: Known<'_>) -> Result<UpstreamId, Flaw> {
    let Some(value) = members.get("id") else {
        // Whoever asks for an id gets the conference of that id.
        return known.id.cloned().ok_or(Flaw::Missing("id"));
    };
    UpstreamId::of_json(value).ok_or(Flaw::Wrong {
        field: "id",
        wanted: "a whole number or a short text that can stand in a path",
    })
}

/// The stock module wants the room's node, whatever the case of its letters; it gets what it wrote itself.
fn name(members: &Members, known: Known<'_>) -> Result<String, Flaw> {
    let told = members.text("name", "a text")?;
    match (told, known.name) {
        (Some(told), Some(asked)) if !told.eq_ignore_ascii_case(asked) => Err(Flaw::OtherRoom),
        (_, Some(asked)) => Ok(asked.to_owned()),
        (Some(told), None) => Ok(told.to_owned()),
        (None, None) => Err(Flaw::Missing("name")),
    }
}

fn options(members: &Members) -> Result<Options, Flaw> {
    let field = "max_occupants";
    let wanted = "a whole number from 1 up";
    let max_occupants = members.whole(field, wanted)?;
    let max_occupants = max_occupants.map(|number| match u32::try_from(number) {
        Ok(number) if number >= 1 => Ok(number),
        _ => Err(Flaw::Wrong { field, wanted }),
    });
    Ok(Options {
        max_occupants: max_occupants.transpose()?,
        lobby: members.flag("lobby")?,
        password: password(members)?.map(Secret::new),
        waiting_queue: members.flag("waiting_queue")?,
    })
}

fn password(members: &Members) -> Result<Option<String>, Flaw> {
    let (field, wanted) = ("password", "a text");
    let password = match members.get(field) {
        None => return Ok(None),
        Some(Value::String(password)) => password.clone(),
        // A PIN.
        Some(Value::Number(number)) if number.is_u64() => number.to_string(),
        Some(_) => return Err(Flaw::Wrong { field, wanted }),
    };
    let fits = password.len() <= TEXT_MAX && !password.chars().any(char::is_control);
    let wanted = "a short text of printable characters";
    match password.is_empty() {
        true => Ok(None),
        false if fits => Ok(Some(password)),
        false => Err(Flaw::Wrong { field, wanted }),
    }
}

/// Without control characters, most of which no XMPP stanza can carry.
fn clean(text: &str) -> String {
    let blank = |c: char| if c == '\n' || c == '\t' { ' ' } else { c };
    text.chars()
        .map(blank)
        .filter(|c| !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests;
