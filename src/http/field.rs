//! Fields of forms, queries and JSON bodies: taken by name, and refused by name.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::domain::conference::ConferenceError;
use crate::domain::timestamp::TimestampError;
use crate::text::percent_decode;

/// What is wrong with a field: its name, the fault and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum FieldError {
    #[error("{0}: is missing; it is required")]
    Missing(&'static str),
    #[error("{0}: is given more than once; give it once")]
    Doubled(String),
    #[error("{field}: is longer than {max} bytes; shorten it")]
    TooLong { field: &'static str, max: usize },
    #[error(
        "{0}: holds a % that no two hex digits follow, or bytes that are not UTF-8; percent-encode it as UTF-8"
    )]
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
    #[error("{field}: must be {wanted}")]
    Wrong {
        field: &'static str,
        wanted: &'static str,
    },
    #[error("{0}: is not a field that is known here; it may be misspelt")]
    Unknown(String),
    #[error("The body is not JSON: {0}")]
    NotJson(String),
    #[error("The body must be a JSON object: {{\"room\": …}}")]
    NotAnObject,
}

/// `application/x-www-form-urlencoded` data: a body or a query.
#[derive(Debug)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Decodes a form strictly: the usual decoders pass broken escapes through, and a room would be
    /// kept under a name that nobody can ask for.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, FieldError> {
        for pair in raw.split(|byte| *byte == b'&') {
            if percent_decode(pair).is_none() {
                let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
                let name: String = String::from_utf8_lossy(name).chars().take(40).collect();
                return Err(FieldError::Escape(name.escape_default().to_string()));
            }
        }
        let pairs =
            serde_urlencoded::from_bytes(raw).map_err(|_| FieldError::Escape("The body".into()))?;
        Ok(Self(pairs))
    }

    /// The value of a field; an empty one counts as absent.
    pub(super) fn get(&self, field: &'static str) -> Result<Option<&str>, FieldError> {
        let mut values = self
            .0
            .iter()
            .filter(|(name, _)| name == field)
            .map(|(_, value)| value);
        let first = values.next();
        if values.next().is_some() {
            return Err(FieldError::Doubled(field.to_owned()));
        }
        Ok(first.map(String::as_str).filter(|value| !value.is_empty()))
    }

    /// The value of a field that must be there.
    pub(super) fn require(&self, field: &'static str) -> Result<&str, FieldError> {
        self.get(field)?.ok_or(FieldError::Missing(field))
    }

    /// The number in a field.
    pub(super) fn number<T: std::str::FromStr>(
        &self,
        field: &'static str,
        wanted: &'static str,
    ) -> Result<Option<T>, FieldError> {
        let wrong = |_| FieldError::Wrong { field, wanted };
        self.get(field)?
            .map(|text| text.parse().map_err(wrong))
            .transpose()
    }

    /// The instant in a field.
    pub(super) fn time(&self, field: &'static str) -> Result<Option<DateTime<Utc>>, FieldError> {
        self.get(field)?.map(|text| time(field, text)).transpose()
    }

    /// Refuses what is not in `known`, so that a misspelt filter doesn't list everything.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), FieldError> {
        match self
            .0
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            Some((name, _)) => Err(unknown(name)),
            None => Ok(()),
        }
    }
}

fn unknown(name: &str) -> FieldError {
    FieldError::Unknown(shown(name))
}

/// A name that the caller chose, fit for a message.
fn shown(name: &str) -> String {
    let name: String = name.chars().take(40).collect();
    name.escape_default().to_string()
}

fn time(field: &'static str, text: &str) -> Result<DateTime<Utc>, FieldError> {
    crate::domain::timestamp::parse_zoned(text).map_err(|error| FieldError::Time { field, error })
}

/// An object as it was written: of a member that is there twice, JSON's usual readers keep the last one
/// without a word.
#[derive(Debug, Default)]
struct Object {
    members: Map<String, Value>,
    doubled: Option<String>,
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
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if self.members.contains_key(&name) {
                self.doubled.get_or_insert(name);
            } else {
                self.members.insert(name, value);
            }
        }
        Ok(self)
    }
}

/// The members of a JSON object, taken one by one. What is left is unknown.
#[derive(Debug)]
pub(super) struct Members(Map<String, Value>);

impl Members {
    pub(super) fn parse(body: &[u8]) -> Result<Self, FieldError> {
        match serde_json::from_slice(body) {
            Ok(Object {
                doubled: Some(name),
                ..
            }) => Err(FieldError::Doubled(shown(&name))),
            Ok(Object { members, .. }) => Ok(Self(members)),
            Err(error) if error.is_data() => Err(FieldError::NotAnObject),
            Err(error) => Err(FieldError::NotJson(error.to_string())),
        }
    }

    /// `None`: not mentioned. `Some(None)`: `null`, that is, cleared.
    fn take<T>(
        &mut self,
        field: &'static str,
        wanted: &'static str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<Option<T>>, FieldError> {
        match self.0.remove(field) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(Some(value))),
                None => Err(FieldError::Wrong { field, wanted }),
            },
        }
    }

    /// A string.
    pub(super) fn text(
        &mut self,
        field: &'static str,
    ) -> Result<Option<Option<String>>, FieldError> {
        self.take(field, "a string", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<Option<Option<bool>>, FieldError> {
        self.take(field, "true or false", |value| value.as_bool())
    }

    /// A whole number. One that is too large for us is the largest there is: above whatever bound its field
    /// has, and refused with it.
    pub(super) fn count(
        &mut self,
        field: &'static str,
        wanted: &'static str,
    ) -> Result<Option<Option<u32>>, FieldError> {
        self.take(field, wanted, |value| {
            let number = value.as_u64()?;
            Some(u32::try_from(number).unwrap_or(u32::MAX))
        })
    }

    /// An instant.
    pub(super) fn time(
        &mut self,
        field: &'static str,
    ) -> Result<Option<Option<DateTime<Utc>>>, FieldError> {
        match self.text(field)? {
            Some(Some(text)) => Ok(Some(Some(time(field, &text)?))),
            Some(None) => Ok(Some(None)),
            None => Ok(None),
        }
    }

    /// Refuses what was not taken.
    pub(super) fn nothing_left(self) -> Result<(), FieldError> {
        match self.0.keys().next() {
            Some(name) => Err(unknown(name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_decoded() {
        let form = Form::parse(b"name=caf%25c3%25a9+x&mail_owner=a%40b&empty=").unwrap();
        assert_eq!(form.get("name"), Ok(Some("caf%c3%a9 x")));
        assert_eq!(form.get("mail_owner"), Ok(Some("a@b")));
        assert_eq!(form.get("empty"), Ok(None));
        assert_eq!(form.get("absent"), Ok(None));
        assert_eq!(form.require("empty"), Err(FieldError::Missing("empty")));
    }

    #[test]
    fn a_broken_escape_names_its_field() {
        for raw in [
            "name=%",
            "name=%4",
            "name=%zz",
            "name=%c3",
            "name=%ff",
            "name=a%c3%28",
        ] {
            let error = Form::parse(format!("a=b&{raw}").as_bytes()).unwrap_err();
            assert_eq!(error, FieldError::Escape("name".into()), "{raw}");
        }
    }

    #[test]
    fn a_doubled_field_is_refused_by_name() {
        let form = Form::parse(b"name=a&name=a&other=1&other=2").unwrap();
        assert_eq!(form.get("name"), Err(FieldError::Doubled("name".into())));
    }

    #[test]
    fn a_doubled_member_is_refused_by_name() {
        for (body, name) in [
            (r#"{"room": "a", "room": "b"}"#, "room"),
            (r#"{"room": "a", "title": null, "title": null}"#, "title"),
            (r#"{"a\n": 1, "a\u000a": 1, "b": 1, "b": 1}"#, "a\\n"),
        ] {
            let error = Members::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error, FieldError::Doubled(name.into()), "{body}");
        }
    }

    #[test]
    fn a_number_too_large_for_us_is_a_large_number() {
        let mut members = Members::parse(br#"{"max_occupants": 5000000000}"#).unwrap();
        let count = members.count("max_occupants", "a whole number from 1 up");
        assert_eq!(count, Ok(Some(Some(u32::MAX))));
    }

    #[test]
    fn a_misspelt_member_is_named() {
        let mut members = Members::parse(br#"{"room": "a", "strat": "x"}"#).unwrap();
        assert_eq!(members.text("room"), Ok(Some(Some("a".into()))));
        assert_eq!(
            members.nothing_left(),
            Err(FieldError::Unknown("strat".into()))
        );
    }

    #[test]
    fn null_clears_and_absence_leaves() {
        let mut members = Members::parse(br#"{"title": null}"#).unwrap();
        assert_eq!(members.text("title"), Ok(Some(None)));
        assert_eq!(members.text("owner"), Ok(None));
    }

    #[test]
    fn a_member_of_the_wrong_type_is_named() {
        let mut members =
            Members::parse(br#"{"lobby": "yes", "max_occupants": 1.5, "title": 3}"#).unwrap();
        let wrong = |field, wanted| FieldError::Wrong { field, wanted };
        assert_eq!(members.flag("lobby"), Err(wrong("lobby", "true or false")));
        assert_eq!(
            members.count("max_occupants", "a whole number from 1 up"),
            Err(wrong("max_occupants", "a whole number from 1 up"))
        );
        assert_eq!(members.text("title"), Err(wrong("title", "a string")));
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        for body in ["[1]", "7", "null", "\"room\""] {
            let error = Members::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error, FieldError::NotAnObject, "{body}");
        }
        assert!(matches!(
            Members::parse(b"{} {}"),
            Err(FieldError::NotJson(_))
        ));
        assert!(matches!(Members::parse(b"{"), Err(FieldError::NotJson(_))));
    }
}
