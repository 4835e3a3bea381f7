//! Fields of JSON bodies, forms and queries: read into structs by serde, with all wrong fields named at once.

use std::fmt;

use chrono::{DateTime, Utc};
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
    #[error("The body is not JSON: {0}")]
    NotJson(String),
    #[error("The body must be a JSON object: {{\"room\": …}}")]
    NotAnObject,
}

impl FieldError {
    /// The name of the field, if the error concerns one.
    pub(super) fn field(&self) -> Option<&str> {
        match self {
            Self::Missing(field)
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
        let number = Value::deserialize(value)?.as_u64();
        let number = number.ok_or_else(|| D::Error::custom("must be a whole number"))?;
        Ok(Self(u32::try_from(number).unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        name: Option<String>,
        mail_owner: Option<String>,
        empty: Option<String>,
        room: Option<String>,
        #[serde(deserialize_with = "nullable")]
        title: Option<Option<String>>,
        #[serde(deserialize_with = "nullable")]
        owner: Option<Option<String>>,
        lobby: Option<bool>,
        max_occupants: Option<Count>,
        start: Option<Time>,
    }

    fn json(body: &str) -> Result<Sample, Vec<FieldError>> {
        Fields::from_json(body.as_bytes())?.finish()
    }

    fn form(raw: &str) -> Result<Sample, Vec<FieldError>> {
        Fields::from_form(raw.as_bytes())?.finish()
    }

    fn invalid(field: &str, message: &str) -> FieldError {
        FieldError::Invalid {
            field: field.into(),
            message: message.into(),
        }
    }

    #[test]
    fn a_form_is_decoded_and_an_empty_value_is_absent() {
        let form = form("name=caf%25c3%25a9+x&mail_owner=a%40b&empty=").unwrap();
        assert_eq!(form.name.as_deref(), Some("caf%c3%a9 x"));
        assert_eq!(form.mail_owner.as_deref(), Some("a@b"));
        assert_eq!(form.empty, None);
        assert_eq!(form.room, None);
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
            let errors = form(&format!("room=b&{raw}")).unwrap_err();
            assert_eq!(errors, [FieldError::Escape("name".into())], "{raw}");
        }
    }

    #[test]
    fn a_duplicate_field_of_a_form_is_refused_by_name() {
        let errors = form("name=a&name=a").unwrap_err();
        assert_eq!(errors, [FieldError::Duplicate("name".into())]);
        let errors = form("name=&name=a").unwrap_err();
        assert_eq!(errors, [FieldError::Duplicate("name".into())]);
        let fields = Fields::<Sample>::from_form(b"name=a&name=a").unwrap();
        assert!(fields.ignore_unknown_duplicates(&["room"]).finish().is_ok());
    }

    #[test]
    fn a_duplicate_member_is_refused_by_name() {
        for (body, name) in [
            (r#"{"room": "a", "room": "b"}"#, "room"),
            (r#"{"room": "a", "title": null, "title": null}"#, "title"),
            (r#"{"room": "a", "title": "x", "title": 7}"#, "title"),
        ] {
            let errors = json(body).unwrap_err();
            assert_eq!(errors, [FieldError::Duplicate(name.into())], "{body}");
        }
    }

    #[test]
    fn a_duplicate_is_refused_whatever_else_is_wrong() {
        for (body, count) in [
            (r#"{"lobby": "x", "lobby": true}"#, 1),
            (
                r#"{"lobby": "x", "lobby": true, "room": "a", "room": "b"}"#,
                2,
            ),
            (r#"{"strat": 1, "strat": 2}"#, 1),
        ] {
            assert_eq!(json(body).unwrap_err().len(), count, "{body}");
        }
        assert_eq!(form("lobby=x&lobby=true").unwrap_err().len(), 1);
    }

    #[test]
    fn an_empty_unknown_field_is_refused() {
        for raw in ["strat=", "strat", "strat=&name=a"] {
            let errors = form(raw).unwrap_err();
            assert_eq!(errors, [FieldError::Unknown("strat".into())], "{raw}");
        }
    }

    #[test]
    fn a_limited_number_of_errors_is_named() {
        let members: Vec<_> = (0..5000).map(|n| format!("\"unknown{n}\": 1")).collect();
        let errors = json(&format!("{{{}}}", members.join(","))).unwrap_err();
        assert_eq!(errors.len(), ERRORS_MAX);
    }

    #[test]
    fn numbers_beyond_the_range_saturate() {
        let sample = json(r#"{"max_occupants": 5000000000}"#).unwrap();
        assert_eq!(sample.max_occupants.unwrap().0, u32::MAX);
    }

    #[test]
    fn null_clears_and_absence_leaves() {
        let sample = json(r#"{"title": null}"#).unwrap();
        assert_eq!((sample.title, sample.owner), (Some(None), None));
    }

    #[test]
    fn all_wrong_members_are_named_at_once() {
        let body = r#"{"lobby": "yes", "max_occupants": 1.5, "title": 3, "start": "noon", "strat": 1, "a\n": 2, "room": "x"}"#;
        let mut errors = json(body).unwrap_err();
        errors.sort_by_key(|error| error.field().map(str::to_owned));
        let time = timestamp::parse_zoned("noon").unwrap_err().to_string();
        let expected = [
            FieldError::Unknown("a\\n".into()),
            invalid("lobby", "must be true or false"),
            invalid("max_occupants", "must be a whole number"),
            invalid("start", &time),
            FieldError::Unknown("strat".into()),
            invalid("title", "must be a string"),
        ];
        assert_eq!(errors, expected);
    }

    #[test]
    fn a_check_adds_to_the_errors_of_other_fields_but_not_of_its_own() {
        let mut fields = Fields::<Sample>::from_json(br#"{"room": 7, "lobby": 7}"#).unwrap();
        let missing = fields.check(|it| it.room.clone().ok_or(FieldError::Missing("room")));
        assert_eq!(missing, None);
        let missing = fields.check(|it| it.name.clone().ok_or(FieldError::Missing("name")));
        assert_eq!(missing, None);
        let errors = fields.finish().unwrap_err();
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(errors.contains(&FieldError::Missing("name")));
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        for body in ["[1]", "[]", "[\"a\"]", "7", "null", "\"room\""] {
            assert_eq!(json(body).unwrap_err(), [FieldError::NotAnObject], "{body}");
        }
        for body in ["{} {}", "{", "{\"room\": 1"] {
            let errors = json(body).unwrap_err();
            assert!(matches!(errors[..], [FieldError::NotJson(_)]), "{body}");
        }
    }
}
