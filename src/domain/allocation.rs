//! Allocations: running conferences, as `POST /conference` makes them.

use std::fmt;

use chrono::{DateTime, Utc};

use super::booking::{BookingId, Options};
use super::conference::Conference;

/// Ids are below this: Prosody 0.12 puts them into URLs by Lua's `%.14g`, which has 14 digits.
const ID_LIMIT: i64 = 100_000_000_000_000;

/// The longest spelling that is read, in bytes; Lua writes shorter ones.
const MAX_PATH_BYTES: usize = 32;

/// The id of an allocation: the `id` and `conflict_id` on the wire. From 1 to below 10^14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(i64);

impl AllocationId {
    /// The id of this number; `None` outside 1 to 10^14 - 1.
    pub fn new(id: i64) -> Option<Self> {
        (1..ID_LIMIT).contains(&id).then_some(Self(id))
    }

    /// The number, for JSON and the store.
    pub fn get(self) -> i64 {
        self.0
    }

    /// Reads the id from a path, as the stock module writes it: under Lua 5.4 JSON numbers are floats, so `7`
    /// becomes `7.0` and `10000000000000` becomes `1e+13`. `None` for what is not a whole number in range.
    pub fn parse_path(text: &str) -> Option<Self> {
        let is_numeric = |byte: u8| byte.is_ascii_digit() || b"eE.+-".contains(&byte);
        // Rust also reads `+7`, `.7` and `7.`, which Lua never writes.
        let mut parts = text.split('.');
        let has_digits = parts.all(|part| part.starts_with(|c: char| c.is_ascii_digit()));
        if text.len() > MAX_PATH_BYTES || !text.bytes().all(is_numeric) || !has_digits {
            return None;
        }
        // All ids are whole numbers below 2^53, so exact in an f64.
        let id: f64 = text.parse().ok()?;
        (id.fract() == 0.0 && id < ID_LIMIT as f64)
            .then_some(id as i64)
            .and_then(Self::new)
    }
}

impl fmt::Display for AllocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A running or past conference.
#[derive(Clone, Debug)]
pub struct Allocation {
    /// The id on the wire.
    pub id: AllocationId,
    /// The conference.
    pub conference: Conference,
    /// The room's node as in Prosody's request: stock Prosody requires it in the response.
    pub name: String,
    /// The user that opened it, as in Prosody's request; may be empty.
    pub mail_owner: String,
    /// Its booking, if any.
    pub booking: Option<BookingId>,
    /// What the wire calls `start_time`: the booked start, or the opening.
    pub start: DateTime<Utc>,
    /// The moment the room must close.
    pub end: DateTime<Utc>,
    /// What Prosody applies.
    pub options: Options,
    /// When it was ended, if it was ended before its end.
    pub ended_at: Option<DateTime<Utc>>,
    /// Why it was ended.
    pub end_reason: Option<EndReason>,
}

impl Allocation {
    /// Whether it was ended, or its end is past at `now`.
    #[must_use]
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.ended_at.is_some() || self.end <= now
    }
}

/// Why an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its room was destroyed (DELETE).
    Destroyed,
    /// Its time was up.
    Expired,
    /// Its booking was cancelled or moved away.
    Cancelled,
    /// An operator ended it.
    Closed,
    /// Its Prosody was restarted or is gone, and no Prosody reported the room since.
    Lost,
}

impl EndReason {
    /// The word in the store.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Destroyed => "destroyed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Closed => "closed",
            Self::Lost => "lost",
        }
    }

    /// The reason with this word.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        let all = [
            Self::Destroyed,
            Self::Expired,
            Self::Cancelled,
            Self::Closed,
            Self::Lost,
        ];
        all.into_iter().find(|reason| reason.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_spellings_of_an_id_in_lua_are_read() {
        for (text, id) in [
            ("7", 7),
            ("7.0", 7),
            ("007", 7),
            ("7.000", 7),
            ("70e-1", 7),
            ("0.7e1", 7),
            ("364758328", 364_758_328),
            ("364758328.0", 364_758_328),
            ("3.64758328e+08", 364_758_328),
            ("3.64758328E8", 364_758_328),
            ("1e+13", 10_000_000_000_000),
            ("99999999999999", 99_999_999_999_999),
            ("9.9999999999999e+13", 99_999_999_999_999),
            ("99999999999999.0", 99_999_999_999_999),
        ] {
            assert_eq!(
                AllocationId::parse_path(text).map(AllocationId::get),
                Some(id),
                "{text}"
            );
        }
    }

    #[test]
    fn other_texts_are_not_ids() {
        let long = "7".repeat(400);
        for text in [
            "",
            "0",
            "0.0",
            "-0",
            "7.5",
            "abc",
            "-1",
            "+7",
            "0x7",
            "0x1p3",
            "inf",
            "nan",
            "-nan",
            " 7",
            "7 ",
            "1e400",
            "1e999",
            "0e999",
            "1e9999999999999999999",
            "7.",
            ".7",
            ".",
            "e",
            "1e",
            "1e+",
            "1e+-1",
            "e5",
            "7.0.0",
            "7e1e1",
            "7e1.0",
            "1e14",
            "100000000000000",
            "99999999999999.5",
            "9.99999999999995e13",
            "7e-1",
            "1_000",
            "1,0",
            "７",
            "7%2e0",
            "7/",
            "NULL",
            &long,
        ] {
            assert_eq!(AllocationId::parse_path(text), None, "{text}");
        }
    }

    #[test]
    fn ids_have_a_range() {
        assert_eq!(AllocationId::new(0), None);
        assert_eq!(AllocationId::new(-7), None);
        assert_eq!(AllocationId::new(ID_LIMIT), None);
        assert_eq!(
            AllocationId::new(ID_LIMIT - 1).unwrap().to_string(),
            "99999999999999"
        );
    }

    /// C's `%.14g` of a whole number below 10^14, which has at most 14 digits.
    fn lua_float(id: i64) -> String {
        format!("{id}.0")
    }

    /// The same with an exponent, as `%.{n}g` writes it when digits run out.
    fn with_exponent(id: i64, mark: char) -> String {
        let digits = id.to_string();
        let (first, rest) = digits.split_at(1);
        let rest = rest.trim_end_matches('0');
        let point = if rest.is_empty() { "" } else { "." };
        format!("{first}{point}{rest}{mark}+{:02}", digits.len() - 1)
    }

    proptest! {
        #[test]
        fn ids_written_by_lua_are_read_back(id in 1..ID_LIMIT, short in 1..1_000_000_i64) {
            for id in [id, short, short * 100_000_000 % ID_LIMIT] {
                prop_assume!(id > 0);
                let expected = AllocationId::new(id);
                prop_assert_eq!(AllocationId::parse_path(&id.to_string()), expected);
                prop_assert_eq!(AllocationId::parse_path(&lua_float(id)), expected);
                prop_assert_eq!(AllocationId::parse_path(&with_exponent(id, 'e')), expected);
                prop_assert_eq!(AllocationId::parse_path(&with_exponent(id, 'E')), expected);
            }
        }

        #[test]
        fn the_id_equals_the_number_in_the_text(text in "[0-9]{1,5}(\\.[0-9]{1,5})?([eE][-+]?[0-9]{1,2})?") {
            if let Some(id) = AllocationId::parse_path(&text) {
                let number: f64 = text.parse().unwrap();
                let read = id.get() as f64;
                prop_assert!((number - read).abs() <= read * 1e-12, "{} {}", number, read);
            }
        }

        #[test]
        fn the_parser_never_panics(text in any::<String>(), near in "[0-9.eE+-]{0,40}") {
            let _ = AllocationId::parse_path(&text);
            let _ = AllocationId::parse_path(&near);
        }
    }
}
