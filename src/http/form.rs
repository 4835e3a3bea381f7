//! Fields of JSON bodies, forms and queries: read into structs by serde, with all wrong fields named at once.

use std::fmt;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::domain::conference::ConferenceError;
use crate::domain::timestamp::{self, TimestampError};
use crate::text::percent_decode;

/// How many characters of a name that the caller chose are repeated.
const MAX_NAME_CHARS: usize = 40;

/// How many wrong fields are named at once.
const ERRORS_MAX: usize = 20;

/// What is wrong with a field: its name, the fault and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum FieldError {
    #[error("{0}: is missing; it is required")]
    Missing(&'static str),
    #[error("{0}: is given more than once; give it once")]
    Duplicate(String),
    #[error("{field}: is longer than {max} bytes; shorten it")]
    TooLong { field: &'static str, max: usize },
    #[error("{0}: invalid percent-encoding or invalid UTF-8; percent-encode it as UTF-8")]
    Escape(String),
    #[error("{field}: {error}")]
    Time {
        field: &'static str,
        error: TimestampError,
    },
    #[error("{field}: {error}")]
    Conference {
        field: &'static str,
        error: ConferenceError,
    },
    #[error("{field}: {message}")]
    Invalid { field: String, message: String },
    #[error("{0}: is not a known field; check its spelling")]
    Unknown(String),
    #[error("{0}: can't be cleared; give a value, or leave it out")]
    NotClearable(&'static str),
    #[error("The body is not JSON: {0}")]
    NotJson(String),
    #[error("The body must be a JSON object: {{\"room\": …}}")]
    NotAnObject,
}

impl FieldError {
    /// The kind of the error, for programs.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Duplicate(_) => "duplicate",
            Self::TooLong { .. } => "too_long",
            Self::Escape(_) => "invalid_encoding",
            Self::Time { .. } => "invalid_time",
            Self::Conference { .. } => "invalid_name",
            Self::Invalid { .. } => "invalid",
            Self::Unknown(_) => "unknown",
            Self::NotClearable(_) => "not_clearable",
            Self::NotJson(_) => "not_json",
            Self::NotAnObject => "not_an_object",
        }
    }

    /// The name of the field, if the error concerns one.
    pub(super) fn field(&self) -> Option<&str> {
        match self {
            Self::Missing(field)
            | Self::NotClearable(field)
            | Self::TooLong { field, .. }
            | Self::Time { field, .. }
            | Self::Conference { field, .. } => Some(field),
            Self::Duplicate(field)
            | Self::Escape(field)
            | Self::Invalid { field, .. }
            | Self::Unknown(field) => Some(field),
            Self::NotJson(_) | Self::NotAnObject => None,
        }
    }
}

/// The members of an object or form as they were written. Of two members of the same name, the usual readers keep
/// the last without an error; here the first stays, and the name is kept as a duplicate.
#[derive(Debug, Default)]
struct Object {
    members: Map<String, Value>,
    duplicates: Vec<String>,
}

impl Object {
    fn insert(&mut self, name: String, value: Value) {
        if !self.members.contains_key(&name) {
            self.members.insert(name, value);
        } else if self.duplicates.len() < ERRORS_MAX && !self.duplicates.contains(&name) {
            self.duplicates.push(name);
        }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(Self::default())
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((name, value)) = map.next_entry()? {
            self.insert(name, value);
        }
        Ok(self)
    }
}

/// Fields as far as they could be read, and what is wrong with the others. A wrong field is read as absent.
#[derive(Debug)]
pub(super) struct Fields<T> {
    pub(super) values: T,
    errors: Vec<FieldError>,
}

impl<T: DeserializeOwned> Fields<T> {
    /// Reads a JSON object.
    ///
    /// # Errors
    ///
    /// When the body is not a JSON object. Wrong fields of an object are kept for [`Fields::finish`].
    pub(super) fn from_json(body: &[u8]) -> Result<Self, Vec<FieldError>> {
        match serde_json::from_slice::<Object>(body) {
            Ok(object) => Self::collect(object.members, object.duplicates),
            Err(error) if error.is_data() => Err(vec![FieldError::NotAnObject]),
            Err(error) => Err(vec![FieldError::NotJson(error.to_string())]),
        }
    }

    /// Reads `application/x-www-form-urlencoded` data: a body or a query. An empty value counts as absent. The usual
    /// decoders pass broken escapes through, and a room would be kept under a name that no client can ask for.
    ///
    /// # Errors
    ///
    /// [`FieldError::Escape`] for data that can't be decoded.
    pub(super) fn from_form(raw: &[u8]) -> Result<Self, Vec<FieldError>> {
        for pair in raw.split(|byte| *byte == b'&') {
            if percent_decode(pair).is_none() {
                let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
                let name = shorten(&String::from_utf8_lossy(name));
                return Err(vec![FieldError::Escape(name)]);
            }
        }
        let pairs: Vec<(String, String)> = serde_urlencoded::from_bytes(raw)
            .map_err(|_| vec![FieldError::Escape("The body".into())])?;
        let mut object = Object::default();
        for (name, value) in pairs {
            // Not left out: an unknown field is refused even if it is empty.
            let value = Some(value).filter(|value| !value.is_empty());
            object.insert(name, value.into());
        }
        Self::collect(object.members, object.duplicates)
    }

    /// Without the duplicates of fields that are none of `known`: a later Prosody may send more fields.
    pub(super) fn ignore_unknown_duplicates(mut self, known: &[&str]) -> Self {
        self.errors.retain(|error| match error {
            FieldError::Duplicate(name) => known.contains(&name.as_str()),
            _ => true,
        });
        self
    }

    /// Reads `members`, leaving out one wrong field after another.
    fn collect(
        members: Map<String, Value>,
        mut duplicates: Vec<String>,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut members = Value::Object(members);
        loop {
            let error = match serde_path_to_error::deserialize(&members) {
                Ok(values) => {
                    let duplicates = duplicates.iter().map(|name| shorten(name));
                    errors.extend(duplicates.map(FieldError::Duplicate));
                    errors.truncate(ERRORS_MAX);
                    return Ok(Self { values, errors });
                }
                Err(error) => error,
            };
            let message = error.inner().to_string();
            let unknown = quoted(&message, "unknown field `");
            let path = error.path().to_string();
            let name = unknown.unwrap_or_else(|| path.split(['.', '[']).next().unwrap_or(&path));
            let shown = shorten(name);
            errors.push(match unknown {
                Some(_) => FieldError::Unknown(shown),
                None => FieldError::Invalid {
                    field: shown,
                    message: expectation(&message),
                },
            });
            // Reported already.
            duplicates.retain(|it| it != name);
            let removed = members.as_object_mut().and_then(|all| all.remove(name));
            if removed.is_none() || errors.len() == ERRORS_MAX {
                return Err(errors);
            }
        }
    }
}

impl<T> Fields<T> {
    /// The result of a further check, or `None` if it fails; its error is kept for [`Fields::finish`], unless the
    /// field has one already.
    pub(super) fn check<U>(
        &mut self,
        check: impl FnOnce(&T) -> Result<U, FieldError>,
    ) -> Option<U> {
        match check(&self.values) {
            Ok(value) => Some(value),
            Err(error) => {
                let known = self.errors.iter().any(|it| it.field() == error.field());
                if !known {
                    self.errors.push(error);
                }
                None
            }
        }
    }

    /// The values, if no field is wrong.
    ///
    /// # Errors
    ///
    /// All wrong fields.
    pub(super) fn finish(self) -> Result<T, Vec<FieldError>> {
        if self.errors.is_empty() {
            Ok(self.values)
        } else {
            Err(self.errors)
        }
    }

    /// The values and the result of checks, if no field is wrong.
    ///
    /// # Errors
    ///
    /// All wrong fields.
    pub(super) fn finish_with<U>(self, checked: Option<U>) -> Result<(T, U), Vec<FieldError>> {
        match checked {
            Some(checked) if self.errors.is_empty() => Ok((self.values, checked)),
            _ => Err(self.errors),
        }
    }
}

fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    message.strip_prefix(before)?.split('`').next()
}

/// What serde expected, as a sentence for people. A message of our own stays.
fn expectation(message: &str) -> String {
    match message.split_once(", expected ") {
        Some((_, "a boolean")) => "must be true or false".into(),
        Some((_, expected)) => format!("must be {}", expected.replace('`', "\"")),
        None => message.to_owned(),
    }
}

/// A name that the caller chose, safe for a message.
fn shorten(name: &str) -> String {
    let name: String = name.chars().take(MAX_NAME_CHARS).collect();
    name.escape_default().to_string()
}

/// For a member of a JSON object: `None` if absent, `Some(None)` for `null`, which clears the field.
pub(super) fn nullable<'de, D, T>(json: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(json).map(Some)
}

/// A time as it was written, with its zone or without one.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrittenTime(pub(super) timestamp::Written);

impl<'de> Deserialize<'de> for WrittenTime {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        timestamp::parse_written(&text)
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// The IANA name of a time zone.
#[derive(Debug, Clone, Copy)]
pub(super) struct ZoneName(pub(super) Tz);

impl<'de> Deserialize<'de> for ZoneName {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        let refused =
            |_| D::Error::custom("must be the IANA name of a time zone, like \"Europe/Berlin\"");
        text.parse().map(Self).map_err(refused)
    }
}

/// A time with its zone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub(super) DateTime<Utc>);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        timestamp::parse_zoned(&text)
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// A whole number. Larger numbers saturate, and then fail the range check of their field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count(pub(super) u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(value)?;
        // JSON has one kind of number: `25.0` and `2.5e1` are 25. The cast saturates.
        let whole = value.as_f64().filter(|it| it.fract() == 0.0 && *it >= 0.0);
        let whole = whole.map(|whole| whole as u32);
        whole
            .map(Self)
            .ok_or_else(|| D::Error::custom("must be a whole number"))
    }
}

#[cfg(test)]
mod tests;
