//! Ids of the upstream, in JSON and in paths.
//!
//! An id keeps its form, a number or a string. Under Lua 5.4 the stock module writes the number 7 as `7.0` into
//! paths; in requests to the upstream it is `7` again.

use std::fmt;

use serde_json::Value;

use crate::domain::allocation::AllocationId;
use crate::domain::reservation::ReservationId;

/// The longest valid id, in bytes. Prosody writes it into a path.
const ID_MAX: usize = 128;

/// Characters without a meaning in a path, beside letters and digits: the stock module doesn't escape ids.
const OTHER_CHARACTERS: &[u8] = b"-._~:@+=,";

/// The id of an upstream's conference. It is valid in a path without escaping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct UpstreamId(ReservationId);

impl UpstreamId {
    /// Reads an `id` or `conflict_id`; `None` for what can't be written into a path.
    ///
    /// A whole number that Lua could not keep (10^14 and more), or that `AllocationId` excludes (below 1), becomes a
    /// string: Prosody returns strings unchanged.
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let number = match value {
            Value::String(text) => return Self::from_text(text),
            Value::Number(number) => number,
            _ => return None,
        };
        // 7.0 is 7: upstreams written in Lua or PHP send it so.
        let text = number.to_string();
        let whole = text.strip_suffix(".0").unwrap_or(&text);
        let id: i64 = whole.parse().ok()?;
        Some(Self(match AllocationId::new(id) {
            Some(id) => ReservationId::Number(id),
            None => ReservationId::Text(whole.to_owned()),
        }))
    }

    /// Reads the last part of a path: a number in any spelling, or a string.
    pub(super) fn from_path(text: &str) -> Option<Self> {
        match AllocationId::parse_path(text) {
            Some(id) => Some(Self(ReservationId::Number(id))),
            None => Self::from_text(text),
        }
    }

    /// The string `text` as an id.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || OTHER_CHARACTERS.contains(&byte);
        let dots = matches!(text, "." | "..");
        let length = (1..=ID_MAX).contains(&text.len());
        (length && !dots && text.bytes().all(valid))
            .then(|| Self(ReservationId::Text(text.to_owned())))
    }
}

impl fmt::Display for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<UpstreamId> for ReservationId {
    fn from(id: UpstreamId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn id_keeps_its_form() {
        for (received, returned) in [
            (json!(7), json!(7)),
            (json!(7.0), json!(7)),
            (json!("7"), json!("7")),
            (json!("a1b2-c3"), json!("a1b2-c3")),
            (json!(99_999_999_999_999_i64), json!(99_999_999_999_999_i64)),
            // Lua would round it.
            (json!(100_000_000_000_001_i64), json!("100000000000001")),
            (json!(0), json!("0")),
            (json!(-7), json!("-7")),
        ] {
            let id = ReservationId::from(UpstreamId::from_json(&received).unwrap());
            assert_eq!(serde_json::to_value(&id).unwrap(), returned, "{received}");
        }
    }

    #[test]
    fn value_that_is_not_valid_in_a_path_is_rejected() {
        let long = "7".repeat(ID_MAX + 1);
        for value in [
            json!(null),
            json!(true),
            json!([7]),
            json!({ "id": 7 }),
            json!(7.5),
            json!(1e300),
            json!(""),
            json!("a b"),
            json!("a/b"),
            json!(".."),
            json!("7?x"),
            json!("7#x"),
            json!("caf\u{e9}"),
            json!("a%2fb"),
            json!("a\nb"),
            json!(long),
        ] {
            assert_eq!(UpstreamId::from_json(&value), None, "{value}");
        }
    }

    #[test]
    fn number_is_recognized_in_lua_spelling_and_string_is_unchanged() {
        for (path, id) in [
            ("7.0", "7"),
            ("3.64758328e+08", "364758328"),
            ("a1b2", "a1b2"),
            ("-7", "-7"),
            ("100000000000001", "100000000000001"),
        ] {
            assert_eq!(UpstreamId::from_path(path).unwrap().to_string(), id);
        }
        assert_eq!(UpstreamId::from_path("a%2fb"), None);
    }
}
