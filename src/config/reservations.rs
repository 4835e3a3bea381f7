//! Reads `[reservations]` and `[reservations.upstream]`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::{TZ_VARIANTS, Tz};
use toml::de::DeValue;

use super::auth::is_open_to_others;
use super::files;
use super::mistake::nearest;
use super::reader::{Found, Reader};
use super::sections::{DAY, MINUTE, NONZERO, SECOND, web_address};
use super::{Backend, OnFailure, Reservations, Upstream, defaults};
use crate::domain::booking::StartPolicy;
use crate::domain::policy::PolicyKind;
use crate::domain::secret::Secret;

const DECISIONS_MAX_MAX: u64 = 100_000_000;
const RETRY_COUNT_MAX: u32 = 100;
/// More failures than these before it is left alone is as good as never.
const FAILURES_MAX_MAX: u32 = 1_000;
/// Some hundred bytes each.
const OUTBOX_MAX_MAX: u32 = 10_000_000;

pub(super) fn reservations(read: &mut Reader<'_>) -> Reservations {
    Reservations {
        backend: backend(read),
        policy: read.choice(
            "reservations.policy",
            defaults::POLICY,
            &[("open", PolicyKind::Open), ("booked", PolicyKind::Booked)],
        ),
        default_duration: read.duration(
            "reservations.default_duration",
            defaults::DURATION,
            SECOND..=30 * DAY,
        ),
        early_start: read.duration(
            "reservations.early_start",
            defaults::EARLY_START,
            Duration::ZERO..=DAY,
        ),
        start_policy: read.choice(
            "reservations.starters",
            defaults::STARTERS,
            &StartPolicy::NAMES,
        ),
        time_zone: time_zone(read),
        decision_retention: read.duration(
            "reservations.decisions_kept",
            defaults::DECISIONS_KEPT,
            SECOND..=3_650 * DAY,
        ),
        decisions_max: read.number(
            "reservations.decisions_max",
            defaults::DECISIONS_MAX,
            1..=DECISIONS_MAX_MAX,
        ),
        upstream: upstream(read),
    }
}

fn backend(read: &mut Reader<'_>) -> Backend {
    let backend = read.choice(
        "reservations.backend",
        defaults::BACKEND,
        &[("local", Backend::Local), ("upstream", Backend::Upstream)],
    );
    let url = "reservations.upstream.url";
    if let (Backend::Upstream, None, Some(place)) =
        (backend, read.place(url), read.place("reservations.backend"))
    {
        read.mistake(
            &place,
            format!("is \"upstream\", but {url} is not set"),
            "Set it to the reservation system's URL, or write \"local\".",
        );
    }
    backend
}

fn time_zone(read: &mut Reader<'_>) -> Tz {
    let Some(Found { value, place }) = read.filled_text("reservations.time_zone") else {
        return defaults::TIME_ZONE;
    };
    value.parse().unwrap_or_else(|_| {
        // "Berlin" or "europe/berlin" rather than a slip of the finger, so that comes first.
        let ending = format!("/{}", value.to_lowercase());
        let names = || TZ_VARIANTS.iter().map(|zone| zone.name());
        let near = names()
            .find(|name| format!("/{}", name.to_lowercase()).ends_with(&ending))
            .or_else(|| nearest(&value, names()));
        read.mistake(
            &place,
            format!("{value:?} is not the name of a time zone"),
            match near {
                Some(zone) => format!("Did you mean \"{zone}\"?"),
                None => "Write its IANA name, as \"Europe/Berlin\" or \"UTC\".".to_owned(),
            },
        );
        defaults::TIME_ZONE
    })
}

/// The whole section is read even without a URL, so that its mistakes are found.
fn upstream(read: &mut Reader<'_>) -> Option<Upstream> {
    let url = web_address(read, "reservations.upstream.url");
    let timeout = read.duration(
        "reservations.upstream.timeout",
        defaults::UPSTREAM_TIMEOUT,
        NONZERO..=10 * MINUTE,
    );
    let retry_count = read.number(
        "reservations.upstream.retry_count",
        defaults::RETRY_COUNT,
        0..=RETRY_COUNT_MAX,
    );
    let retry_delay = read.duration(
        "reservations.upstream.retry_delay",
        defaults::RETRY_DELAY,
        NONZERO..=10 * MINUTE,
    );
    let deadline = read.duration(
        "reservations.upstream.deadline",
        defaults::UPSTREAM_DEADLINE,
        NONZERO..=10 * MINUTE,
    );
    let retry_status = retry_status(read);
    let headers = headers(read);
    let forward_identity = read.flag(
        "reservations.upstream.forward_identity",
        defaults::FORWARD_IDENTITY,
    );
    let ca_file = ca_file(read);
    let on_failure = read.choice(
        "reservations.upstream.on_failure",
        defaults::ON_FAILURE,
        &[("deny", OnFailure::Deny), ("allow", OnFailure::Allow)],
    );
    let failures_max = read.number(
        "reservations.upstream.failures_max",
        defaults::FAILURES_MAX,
        1..=FAILURES_MAX_MAX,
    );
    let probe_interval = read.duration(
        "reservations.upstream.probe_interval",
        defaults::PROBE_INTERVAL,
        NONZERO..=10 * MINUTE,
    );
    let outbox_retention = read.duration(
        "reservations.upstream.outbox_kept",
        defaults::OUTBOX_KEPT,
        SECOND..=365 * DAY,
    );
    let outbox_max = read.number(
        "reservations.upstream.outbox_max",
        defaults::OUTBOX_MAX,
        1..=OUTBOX_MAX_MAX,
    );
    Some(Upstream {
        url: url?,
        timeout,
        deadline,
        retry_count,
        retry_delay,
        retry_status,
        headers,
        forward_identity,
        ca_file,
        on_failure,
        failures_max,
        probe_interval,
        outbox_retention,
        outbox_max,
    })
}

fn ca_file(read: &mut Reader<'_>) -> Option<PathBuf> {
    let Found { value, place } = read.filled_text("reservations.upstream.ca_file")?;
    let path = read.path(&value);
    match files::check_readable(&path) {
        Ok(()) => Some(path),
        Err(error) => {
            read.unreadable(&place, &path, &error);
            None
        }
    }
}

fn retry_status(read: &mut Reader<'_>) -> Vec<u16> {
    let key = "reservations.upstream.retry_status";
    // The one key that takes a text or a list: a range alone needs no brackets.
    let Some(Found { value, place }) = read.list_or_one(key) else {
        return defaults::RETRY_STATUS.collect();
    };
    let mut statuses = Vec::new();
    for entry in value {
        let text = match &entry.value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            _ => String::new(),
        };
        match statuses_of(&text) {
            Some(some) => statuses.extend(some),
            None => read.mistake(
                &entry.place,
                "has an entry that is neither a status nor a range of them, from 400 to 599",
                "Write \"500..599\", or [500, 502, \"520..530\"].",
            ),
        }
    }
    if statuses.is_empty() && !read.has_mistakes_at(key) {
        read.mistake(
            &place,
            "is empty",
            "Name a status, or set retry_count = 0 to have no retries.",
        );
    }
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

/// `"502"`, or `"500..599"` with both ends.
fn statuses_of(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (400 <= first && first <= last && last <= 599).then_some(first..=last)
}

fn headers(read: &mut Reader<'_>) -> BTreeMap<String, Secret> {
    let mut headers = BTreeMap::new();
    for (name, Found { value, place }) in read.table("reservations.upstream.headers") {
        let name_fits = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        let value_fits =
            !value.is_empty() && value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        if name_fits && value_fits {
            headers.insert(name, Secret::new(value));
            continue;
        }
        let what = if name_fits { "value" } else { "name" };
        read.mistake(
            &place,
            format!("its {what} is empty or has characters that an HTTP header can't carry"),
            "Write it like { Authorization = \"Bearer …\" }, in ASCII and on one line.",
        );
    }
    headers
}

/// What is set but has no effect, and secrets that cross a network in the clear.
pub(super) fn notices(reservations: &Reservations) -> Vec<String> {
    let Some(upstream) = &reservations.upstream else {
        return Vec::new();
    };
    if reservations.backend == Backend::Local {
        return vec![
            "reservations.upstream does nothing while reservations.backend is \"local\"".to_owned(),
        ];
    }
    let mut notices = Vec::new();
    if is_open_to_others(&upstream.url) {
        notices.push(
            "reservations.upstream.url: names, passwords of rooms and the headers go there in the \
             clear: use https"
                .to_owned(),
        );
    }
    if upstream.deadline > defaults::UPSTREAM_DEADLINE {
        notices.push(
            "reservations.upstream.deadline: Prosody's time-out is 20 s unless it is raised, and \
             answers after it are lost: stay below it"
                .to_owned(),
        );
    }
    notices
}
