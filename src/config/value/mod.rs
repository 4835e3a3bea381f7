//! Types of values that several sections use. The error of their `Deserialize` is the message of the issue.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::input::Invalid;

#[cfg(test)]
pub(super) mod tests;

// Milliseconds, for the bounds of `Time`.
pub(super) const MILLISECOND: u64 = 1;
pub(super) const SECOND: u64 = 1_000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// Declares the type of a value that is written as a text, with the function that reads it.
macro_rules! text_value {
    ($(#[$doc:meta])* $name:ident($plain:ty), $read:path) => {
        $(#[$doc])*
        #[derive(Debug, serde::Deserialize)]
        #[serde(try_from = "String")]
        pub(super) struct $name(pub(super) $plain);

        impl TryFrom<String> for $name {
            type Error = $crate::config::input::Invalid;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                $crate::config::value::text(text).and_then($read).map(Self)
            }
        }

        impl From<$name> for $plain {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}
pub(super) use text_value;

text_value!(
    /// A text that is not empty.
    Text(String),
    text
);

pub(super) fn text(text: String) -> Result<String, Invalid> {
    if text.trim().is_empty() {
        return Err(Invalid::new("is empty", "Give it a value, or remove it."));
    }
    Ok(text)
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(try_from = "i128")]
pub(super) struct Number<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> TryFrom<i128> for Number<MIN, MAX> {
    type Error = Invalid;

    fn try_from(number: i128) -> Result<Self, Invalid> {
        let within = u32::try_from(number).ok();
        let within = within.filter(|number| (MIN..=MAX).contains(number));
        within.map(Self).ok_or_else(|| {
            Invalid::new(
                format!("{number} is out of range"),
                format!("Choose from {MIN} to {MAX}."),
            )
        })
    }
}

impl<const MIN: u32, const MAX: u32> From<Number<MIN, MAX>> for u32 {
    fn from(number: Number<MIN, MAX>) -> Self {
        number.0
    }
}

impl<const MIN: u32, const MAX: u32> From<Number<MIN, MAX>> for u64 {
    fn from(number: Number<MIN, MAX>) -> Self {
        number.0.into()
    }
}

impl<const MIN: u32, const MAX: u32> From<Number<MIN, MAX>> for usize {
    fn from(number: Number<MIN, MAX>) -> Self {
        Self::try_from(number.0).unwrap_or(Self::MAX)
    }
}

/// A duration from `MIN` to `MAX` milliseconds.
#[derive(Debug, PartialEq)]
pub(super) struct Time<const MIN: u64, const MAX: u64>(Duration);

impl<const MIN: u64, const MAX: u64> From<Time<MIN, MAX>> for Duration {
    fn from(time: Time<MIN, MAX>) -> Self {
        time.0
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Time<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let duration = deserializer.deserialize_str(DurationVisitor { min: MIN, max: MAX })?;
        if (Duration::from_millis(MIN)..=Duration::from_millis(MAX)).contains(&duration) {
            return Ok(Self(duration));
        }
        Err(de::Error::custom(Invalid::new(
            format!(
                "\"{}\" is out of range",
                humantime::format_duration(duration)
            ),
            format!(
                "Choose from \"{}\" to \"{}\".",
                in_one_unit(MIN),
                in_one_unit(MAX)
            ),
        )))
    }
}

/// Milliseconds in the largest unit that measures them. (`humantime` writes 3650 days in years and months.)
fn in_one_unit(milliseconds: u64) -> String {
    let units = [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)];
    let mut fitting = units
        .iter()
        .filter(|(_, unit)| milliseconds.is_multiple_of(*unit));
    match fitting.next() {
        _ if milliseconds == 0 => "0s".to_owned(),
        Some((name, unit)) => format!("{}{name}", milliseconds / unit),
        None => format!("{milliseconds}ms"),
    }
}

/// Reads a duration as the configuration writes it: `"90s"`, `"1h30m"`.
///
/// # Errors
///
/// What is wrong with it, and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    read_duration(text).ok_or_else(|| {
        format!(
            "\"{text}\" is not a duration; write a number and a unit: \"90s\", \"15m\", \"1h30m\""
        )
    })
}

/// `humantime` knows more units; "5M" would be five months.
fn read_duration(text: &str) -> Option<Duration> {
    let mut units = text.split(|c: char| !c.is_ascii_alphabetic());
    let is_known = |unit: &str| matches!(unit, "" | "ms" | "s" | "m" | "h" | "d");
    units.all(is_known).then_some(())?;
    humantime::parse_duration(text).ok()
}

/// Reads a duration; the range in milliseconds is for the hints.
struct DurationVisitor {
    min: u64,
    max: u64,
}

impl DurationVisitor {
    /// A number alone may be meant in any unit.
    fn without_unit(&self, number: impl fmt::Display) -> Invalid {
        let text = number.to_string();
        let fits = |unit: &u64| {
            let milliseconds = text.parse().ok().and_then(|n: u64| n.checked_mul(*unit));
            milliseconds.is_some_and(|it| (self.min..=self.max).contains(&it))
        };
        let units = [
            ("ms", MILLISECOND),
            ("s", SECOND),
            ("m", MINUTE),
            ("h", HOUR),
            ("d", DAY),
        ];
        let fitting = units.iter().filter(|(_, unit)| fits(unit));
        let choices: Vec<_> = fitting
            .map(|(name, _)| format!("\"{text}{name}\""))
            .collect();
        let hint = match choices.as_slice() {
            // Zero is the same in every unit.
            _ if text == "0" && self.min == 0 => "Write \"0s\".".to_owned(),
            [] => UNITS.to_owned(),
            choices => format!("Write a unit: {}.", choices.join(" or ")),
        };
        Invalid::new(format!("{text} has no unit"), hint)
    }
}

const UNITS: &str = "Write whole numbers with the units ms, s, m, h or d: \"15s\" or \"1h30m\".";

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration")
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Duration, E> {
        Err(E::custom(self.without_unit(number)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(E::custom(self.without_unit(text)));
        }
        read_duration(text)
            .ok_or_else(|| E::custom(Invalid::new(format!("{text:?} is not a duration"), UNITS)))
    }
}

text_value!(
    /// An `http:` or `https:` URL as it was given.
    WebUrl(String),
    web_url
);

/// No issue repeats the URL: it may contain a password.
fn web_url(url: String) -> Result<String, Invalid> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    match authority {
        Some(authority) if authority.contains('@') => Err(Invalid::new(
            "contains a user name or a password",
            "Remove it: logs and error messages show URLs.",
        )),
        Some(authority)
            if !authority.is_empty()
                && url.bytes().all(|byte| byte.is_ascii_graphic())
                && reqwest::Url::parse(&url).is_ok() =>
        {
            Ok(url)
        }
        _ => Err(Invalid::new(
            "is not the URL of a web server",
            "Write it like \"https://keys.example.com/asap\".",
        )),
    }
}

text_value!(
    /// A URL that a path is appended to: without query, fragment and slashes at its end.
    BaseUrl(String),
    base_url
);

fn base_url(url: String) -> Result<String, Invalid> {
    let url = web_url(url)?;
    if url.contains(['?', '#']) {
        return Err(Invalid::new(
            "contains a \"?\" or a \"#\", but usher appends a path to it",
            "Remove that character and the rest.",
        ));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// Whether requests to a URL cross a network without encryption.
pub(super) fn is_plaintext_remote(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let local = address.map_or(host == "localhost", |ip| ip.to_canonical().is_loopback());
    url.scheme() == "http" && !local
}
