//! Ids of an upstream: whatever it calls its conferences, in JSON and in paths.
//!
//! An id is passed on in the form it came in, a number or a text. Under Lua 5.4 the stock module writes the
//! number 7 as `7.0` into paths; upstream it is `7` again.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::domain::allocation::AllocationId;

/// The longest id that is taken, in bytes. Prosody writes it into a path.
const ID_MAX: usize = 128;

/// What may stand in a path as it is, and means nothing there: the stock module doesn't escape ids.
const OTHER_CHARACTERS: &[u8] = b"-._~:@+=,";

/// What an upstream calls a conference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamId {
    text: String,
    number: bool,
}

impl UpstreamId {
    /// Reads an `id` or `conflict_id`; `None` for what can't be written into a path.
    ///
    /// A whole number that Lua could not keep (10^14 and more), or that our own paths don't take (below 1),
    /// becomes a text: Prosody hands texts back as they are.
    #[must_use]
    pub fn of_json(value: &Value) -> Option<Self> {
        let number = match value {
            Value::String(text) => return Self::of_text(text),
            Value::Number(number) => number,
            _ => return None,
        };
        // 7.0 is 7: upstreams written in Lua or PHP send it so.
        let text = number.to_string();
        let whole = text.strip_suffix(".0").unwrap_or(&text);
        let id: i64 = whole.parse().ok()?;
        Some(Self {
            number: AllocationId::new(id).is_some(),
            text: whole.to_owned(),
        })
    }

    /// The id that a path's last part means, if none is known that is written exactly so.
    #[must_use]
    pub fn of_path(text: &str) -> Option<Self> {
        match AllocationId::parse_path(text) {
            Some(id) => Some(Self {
                text: id.to_string(),
                number: true,
            }),
            None => Self::of_text(text),
        }
    }

    /// The id that is written exactly so.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || OTHER_CHARACTERS.contains(&byte);
        let dots = matches!(text, "." | "..");
        let length = (1..=ID_MAX).contains(&text.len());
        (length && !dots && text.bytes().all(fits)).then(|| Self {
            text: text.to_owned(),
            number: false,
        })
    }

    /// As it stands in a path, and in the store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for UpstreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.text.parse::<i64>() {
            Ok(number) if self.number => serializer.serialize_i64(number),
            _ => serializer.serialize_str(&self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_keeps_the_form_it_came_in() {
        for (given, passed_on) in [
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
            let id = UpstreamId::of_json(&given).unwrap();
            assert_eq!(serde_json::to_value(&id).unwrap(), passed_on, "{given}");
        }
    }

    #[test]
    fn what_can_not_stand_in_a_path_is_no_id() {
        let long = "7".repeat(ID_MAX + 1);
        for given in [
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
            assert_eq!(UpstreamId::of_json(&given), None, "{given}");
        }
    }

    #[test]
    fn a_number_comes_back_from_lua_and_a_text_as_it_is() {
        for (path, id) in [
            ("7.0", "7"),
            ("3.64758328e+08", "364758328"),
            ("a1b2", "a1b2"),
            ("-7", "-7"),
            ("100000000000001", "100000000000001"),
        ] {
            assert_eq!(UpstreamId::of_path(path).unwrap().as_str(), id);
        }
        assert_eq!(UpstreamId::of_path("a%2fb"), None);
    }
}
