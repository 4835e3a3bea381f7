//! Types of values that several sections use. The error of their `Deserialize` is the message of the issue.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::input::Invalid;

// Milliseconds, for the bounds of `Time`.
pub(super) const MILLISECOND: u64 = 1;
pub(super) const SECOND: u64 = 1_000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// A text that is not empty.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Text(String);

impl TryFrom<String> for Text {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        if text.trim().is_empty() {
            return Err(Invalid::new("is empty", "Give it a value, or remove it."));
        }
        Ok(Self(text))
    }
}

impl From<Text> for String {
    fn from(Text(text): Text) -> Self {
        text
    }
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
        let duration = deserializer.deserialize_str(DurationVisitor)?;
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
    humantime::parse_duration(text).map_err(|_| {
        format!(
            "\"{text}\" is not a duration; write a number and a unit: \"90s\", \"15m\", \"1h30m\""
        )
    })
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration")
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Duration, E> {
        Err(E::custom(without_unit(number)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(E::custom(without_unit(text)));
        }
        humantime::parse_duration(text).map_err(|_| {
            E::custom(Invalid::new(
                format!("{text:?} is not a duration"),
                "Write whole numbers with the units ms, s, m, h or d: \"15s\" or \"1h30m\".",
            ))
        })
    }
}

fn without_unit(number: impl fmt::Display) -> Invalid {
    Invalid::new(
        format!("{number} has no unit"),
        format!("Write a unit: \"{number}s\"."),
    )
}

/// An `http:` or `https:` URL as it was given.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Text")]
pub(super) struct WebUrl(String);

impl TryFrom<Text> for WebUrl {
    type Error = Invalid;

    /// No issue repeats the URL: it may contain a password.
    fn try_from(Text(url): Text) -> Result<Self, Invalid> {
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
                Ok(Self(url))
            }
            _ => Err(Invalid::new(
                "is not the URL of a web server",
                "Write it like \"https://keys.example.com/asap\".",
            )),
        }
    }
}

impl From<WebUrl> for String {
    fn from(WebUrl(url): WebUrl) -> Self {
        url
    }
}

/// A URL that a path is appended to: without query, fragment and slashes at its end.
#[derive(Debug, Deserialize)]
#[serde(try_from = "WebUrl")]
pub(super) struct BaseUrl(String);

impl TryFrom<WebUrl> for BaseUrl {
    type Error = Invalid;

    fn try_from(WebUrl(url): WebUrl) -> Result<Self, Invalid> {
        if url.contains(['?', '#']) {
            return Err(Invalid::new(
                "contains a \"?\" or a \"#\", but usher appends a path to it",
                "Remove that character and the rest.",
            ));
        }
        Ok(Self(url.trim_end_matches('/').to_owned()))
    }
}

impl From<BaseUrl> for String {
    fn from(BaseUrl(url): BaseUrl) -> Self {
        url
    }
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

#[cfg(test)]
pub(super) mod tests {
    use serde::de::DeserializeOwned;
    use toml::de::DeValue;

    use super::super::input::Input;
    use super::*;

    /// The result for a value as the file writes it.
    pub(in super::super) fn decoded<T: DeserializeOwned>(toml: &str) -> Result<T, Invalid> {
        let value = DeValue::parse(toml).unwrap().into_inner();
        Input::Toml(value).decode()
    }

    /// Each value is rejected; the message and the hint contain these words.
    #[track_caller]
    pub(in super::super) fn rejects<T: DeserializeOwned>(cases: &[(&str, &str, &str)]) {
        for (toml, message, hint) in cases {
            let Err(invalid) = decoded::<T>(toml) else {
                panic!("{toml} was accepted");
            };
            assert!(invalid.message.contains(message), "{toml}: {invalid}");
            assert!(invalid.hint.contains(hint), "{toml}: {invalid}");
        }
    }

    #[test]
    fn text_is_not_empty() {
        rejects::<Text>(&[
            ("''", "is empty", "Give it a value"),
            ("' '", "is empty", "Give it a value"),
            ("5", "type integer, but a string", "quotes"),
        ]);
    }

    #[test]
    fn number_is_within_its_range() {
        assert_eq!(decoded::<Number<1, 9>>("9"), Ok(Number(9)));
        assert_eq!(decoded::<Number<0, 9_000>>("1_000"), Ok(Number(1_000)));
        assert_eq!(decoded::<Number<0, 99>>("0x10"), Ok(Number(16)));
        rejects::<Number<1, 9>>(&[
            ("0", "0 is out of range", "from 1 to 9"),
            ("10", "10 is out of range", "from 1 to 9"),
            ("-1", "-1 is out of range", "from 1 to 9"),
            (
                "99999999999999999999",
                "99999999999999999999 is out",
                "to 9",
            ),
            ("'9'", "type string, but a whole number", "without quotes"),
            ("1.5", "type float, but a whole number", "digits"),
        ]);
    }

    #[test]
    fn duration_has_units_that_add_up() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("15s", 15_000),
            ("10m", 600_000),
            ("6h", 21_600_000),
            ("30d", 2_592_000_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
        ] {
            let time = decoded::<Time<0, { 30 * DAY }>>(&format!("{text:?}"));
            assert_eq!(
                time,
                Ok(Time(Duration::from_millis(milliseconds))),
                "{text}"
            );
        }
    }

    #[test]
    fn value_that_is_no_duration_gets_the_units_suggested() {
        rejects::<Time<0, DAY>>(&[
            ("15", "15 has no unit", "Write a unit: \"15s\"."),
            ("'15'", "15 has no unit", "Write a unit: \"15s\"."),
            ("'0'", "0 has no unit", "\"0s\""),
            ("true", "boolean, but a duration", "\"15s\""),
            (
                "'15 parsecs'",
                "\"15 parsecs\" is not a duration",
                "ms, s, m, h or d: \"15s\"",
            ),
        ]);
        for text in [
            "",
            "s",
            "-5s",
            "1h30",
            "15S",
            "99999999999999999999s",
            "18446744073709551615d",
            "１５s",
        ] {
            rejects::<Time<0, DAY>>(&[(&format!("{text:?}"), "is not a duration", "units")]);
        }
    }

    #[test]
    fn duration_is_within_its_range() {
        rejects::<Time<MILLISECOND, HOUR>>(&[
            ("'0s'", "\"0s\" is out of range", "from \"1ms\" to \"1h\""),
            (
                "'61m'",
                "\"1h 1m\" is out of range",
                "from \"1ms\" to \"1h\"",
            ),
        ]);
        rejects::<Time<SECOND, { 3_650 * DAY }>>(&[(
            "'999ms'",
            "999ms",
            "from \"1s\" to \"3650d\"",
        )]);
        rejects::<Time<0, { 10 * MINUTE }>>(&[("'11m'", "11m", "from \"0s\" to \"10m\"")]);
        rejects::<Time<1_500, DAY>>(&[("'0s'", "out of range", "from \"1500ms\" to \"1d\"")]);
    }

    #[test]
    fn url_is_one_of_a_web_server_without_a_password() {
        let cases = [
            ("'keys.example.com'", "not the URL", "https://"),
            ("'file:///etc/passwd'", "not the URL", "https://"),
            ("'https://'", "not the URL", "https://"),
            ("'https://a b'", "not the URL", "https://"),
            ("'https://[::'", "not the URL", "https://"),
            (
                "'https://a:8675309@c'",
                "contains a user name or a password",
                "Remove it",
            ),
            ("''", "is empty", "Give it a value"),
        ];
        rejects::<WebUrl>(&cases);
        rejects::<BaseUrl>(&cases);
        rejects::<BaseUrl>(&[(
            "'https://a/b?c='",
            "contains a \"?\"",
            "Remove that character",
        )]);
        for (toml, ..) in cases {
            let invalid = decoded::<WebUrl>(toml).unwrap_err();
            assert!(!invalid.to_string().contains("8675309"), "{invalid}");
        }
        let url = decoded::<WebUrl>("'https://login.example.com/keys/?tenant=7'").unwrap();
        assert_eq!(url.0, "https://login.example.com/keys/?tenant=7");
        let url = decoded::<BaseUrl>("'https://keys.example.com/asap/'").unwrap();
        assert_eq!(url.0, "https://keys.example.com/asap");
    }

    #[test]
    fn only_http_to_other_machines_is_plaintext_remote() {
        for (url, expected) in [
            ("http://keys.example.com/", true),
            ("http://10.0.0.1/asap", true),
            ("http://localhost.example.com", true),
            ("https://keys.example.com", false),
            ("http://127.0.0.1:8000/asap", false),
            ("http://[::1]:8000", false),
            ("http://localhost", false),
        ] {
            assert_eq!(is_plaintext_remote(url), expected, "{url}");
        }
    }
}
