//! `[reservations.upstream]`: the gateway to an external reservation system.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::input::Invalid;
use super::reader::Reader;
use super::value::{BaseUrl, DAY, MILLISECOND, MINUTE, Number, SECOND, Time, is_plaintext_remote};
use crate::domain::secret::Secret;

/// `[reservations.upstream]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The URL that `/conference` is appended to; no default.
    pub url: String,
    /// How long to wait for a response. A call that timed out is not retried.
    pub timeout: Duration,
    /// How long all attempts of one request may take together, with their pauses and the GET after a 409.
    /// Prosody's own time-out is 20 s; a later response is lost.
    pub deadline: Duration,
    /// The number of retries: at most 100.
    pub retry_count: u32,
    /// The pause before a retry.
    pub retry_delay: Duration,
    /// The statuses that are retried, in ascending order.
    pub retry_status: Vec<u16>,
    /// Headers of every call, such as `Authorization`.
    pub headers: BTreeMap<String, Secret>,
    /// Whether to forward what usher's Prosody module knows about the user: id, e-mail, name, group.
    pub forward_identity: bool,
    /// PEM certificates that are trusted in addition to the system's; none by default.
    pub ca_file: Option<PathBuf>,
    /// What happens while the system is unavailable.
    pub on_failure: OnFailure,
    /// The number of failures in a row that open the circuit breaker.
    pub failures_max: u32,
    /// The interval of probes while it is open.
    pub probe_interval: Duration,
    /// How long the delivery of a DELETE is retried.
    pub outbox_retention: Duration,
    /// How many DELETEs may wait for delivery.
    pub outbox_max: u32,
}

/// What happens while the external system is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// `deny`: conferences are refused with a message that asks the user to try again.
    Deny,
    /// `allow`: conferences run for `reservations.default_duration`.
    Allow,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: String::new(),
            timeout: Duration::from_secs(20),
            // Two seconds less than Prosody waits.
            deadline: Duration::from_secs(18),
            retry_count: 3,
            retry_delay: Duration::from_secs(3),
            retry_status: (500..=599).collect(),
            headers: BTreeMap::new(),
            forward_identity: false,
            ca_file: None,
            on_failure: OnFailure::Deny,
            failures_max: 3,
            probe_interval: Duration::from_secs(10),
            outbox_retention: Duration::from_hours(7 * 24),
            outbox_max: 10_000,
        }
    }
}

type Pause = Time<MILLISECOND, { 10 * MINUTE }>;

impl Upstream {
    /// Reads the whole section even without a URL, so that its mistakes are found.
    pub(super) fn read(read: &mut Reader<'_>) -> Option<Self> {
        read.alias(
            "reservations.upstream.outbox_retention",
            "reservations.upstream.outbox_kept",
        );
        let mut it = Self {
            headers: headers(read),
            ca_file: ca_file(read),
            ..Self::default()
        };
        let url = read.get::<BaseUrl>("reservations.upstream.url");
        read.set::<Pause, _>("reservations.upstream.timeout", &mut it.timeout);
        read.set::<Pause, _>("reservations.upstream.deadline", &mut it.deadline);
        read.set::<Number<0, 100>, _>("reservations.upstream.retry_count", &mut it.retry_count);
        read.set::<Pause, _>("reservations.upstream.retry_delay", &mut it.retry_delay);
        retry_status(read, &mut it.retry_status);
        read.set::<bool, _>(
            "reservations.upstream.forward_identity",
            &mut it.forward_identity,
        );
        read.set::<OnFailure, _>("reservations.upstream.on_failure", &mut it.on_failure);
        read.set::<Number<1, 1_000>, _>("reservations.upstream.failures_max", &mut it.failures_max);
        read.set::<Pause, _>(
            "reservations.upstream.probe_interval",
            &mut it.probe_interval,
        );
        read.set::<Time<SECOND, { 365 * DAY }>, _>(
            "reservations.upstream.outbox_retention",
            &mut it.outbox_retention,
        );
        read.set::<Number<1, 10_000_000>, _>(
            "reservations.upstream.outbox_max",
            &mut it.outbox_max,
        );
        it.url = url?.value.into();
        Some(it)
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if is_plaintext_remote(&self.url) {
            warnings.push(
                "reservations.upstream.url: names, room passwords and headers are sent unencrypted: use https"
                    .to_owned(),
            );
        }
        if self.deadline > Self::default().deadline {
            warnings.push(
                "reservations.upstream.deadline: Prosody's time-out is 20 s unless you raise it, and later \
                 responses are lost: stay below it"
                    .to_owned(),
            );
        }
        warnings
    }
}

fn ca_file(read: &mut Reader<'_>) -> Option<PathBuf> {
    let found = read.get_path("reservations.upstream.ca_file")?;
    read.readable_path(&found)
}

fn retry_status(read: &mut Reader<'_>, statuses: &mut Vec<u16>) {
    let key = "reservations.upstream.retry_status";
    let Some(list) = read.list_or_one::<StatusRange>(key) else {
        return;
    };
    if list.value.is_empty() && !read.has_issue(key) {
        let hint = "Write a status, or retry_count = 0 to disable retries.";
        read.report(&list.origin, Invalid::new("is empty", hint));
    }
    *statuses = list.value.into_iter().flat_map(|it| it.value.0).collect();
    statuses.sort_unstable();
    statuses.dedup();
}

/// `502`, `"502"`, or `"500..599"` with both ends.
#[derive(Debug)]
struct StatusRange(RangeInclusive<u16>);

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusVisitor)
    }
}

struct StatusVisitor;

impl Visitor<'_> for StatusVisitor {
    type Value = StatusRange;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status or a range of statuses")
    }

    fn visit_i128<E: de::Error>(self, status: i128) -> Result<StatusRange, E> {
        self.visit_str(&status.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<StatusRange, E> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if 400 <= first && first <= last && last <= 599 => {
                Ok(StatusRange(first..=last))
            }
            _ => Err(E::custom(Invalid::new(
                "contains an entry that is neither a status nor a range of statuses from 400 to 599",
                "Write \"500..599\" or [500, 502, \"520..530\"].",
            ))),
        }
    }
}

fn headers(read: &mut Reader<'_>) -> BTreeMap<String, Secret> {
    let mut headers = BTreeMap::new();
    for (name, found) in read.table::<String>("reservations.upstream.headers") {
        match check_header(&name, &found.value) {
            Ok(()) => {
                headers.insert(name, Secret::new(found.value));
            }
            Err(invalid) => read.report(&found.origin, invalid),
        }
    }
    headers
}

/// No issue repeats the value.
fn check_header(name: &str, value: &str) -> Result<(), Invalid> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let wrong = if name.is_empty() || !name.bytes().all(is_token) {
        "name"
    } else if value.is_empty() || !value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        "value"
    } else {
        return Ok(());
    };
    Err(Invalid::new(
        format!("its {wrong} is empty or has characters that an HTTP header cannot carry"),
        "Write it like { Authorization = \"Bearer …\" }, in ASCII and on one line.",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::value::tests::{decoded, rejects};
    use super::*;

    #[test]
    fn status_is_a_number_or_a_range_from_400_to_599() {
        for (toml, range) in [
            ("503", 503..=503),
            ("'503'", 503..=503),
            ("'500..599'", 500..=599),
            ("' 400 .. 410 '", 400..=410),
        ] {
            assert_eq!(decoded::<StatusRange>(toml).unwrap().0, range);
        }
        for toml in ["200", "600", "'599..500'", "'399..500'", "'x'", "-1"] {
            rejects::<StatusRange>(&[(toml, "neither a status", "\"500..599\"")]);
        }
        rejects::<StatusRange>(&[("true", "boolean, but a status", "")]);
    }

    #[test]
    fn header_fits_into_a_request() {
        assert_eq!(check_header("X-Key", "Bearer abc"), Ok(()));
        for (name, value, wrong) in [
            ("", "c", "its name"),
            ("a b", "c", "its name"),
            ("a", "", "its value"),
            ("a", "b\n", "its value"),
            ("a", "café", "its value"),
        ] {
            let invalid = check_header(name, value).unwrap_err();
            assert!(invalid.message.contains(wrong), "{invalid}");
        }
    }

    #[test]
    fn value_of_on_failure_that_is_no_choice_gets_the_choices_listed() {
        rejects::<OnFailure>(&[("'shrug'", "\"shrug\"", "\"deny\" or \"allow\"")]);
    }
}
