//! Reads `[reservations]` and `[reservations.upstream]`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use chrono_tz::{TZ_VARIANTS, Tz};
use toml::de::DeValue;

use super::mistake::nearest;
use super::reader::{Found, Reader};
use super::sections::{DAY, MINUTE, NONZERO, SECOND, web_address};
use super::{Backend, PolicyKind, Reservations, Secret, Starters, Upstream, defaults};

const DECISIONS_MAX_MAX: u64 = 100_000_000;
const RETRY_COUNT_MAX: u32 = 100;

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
        starters: read.choice(
            "reservations.starters",
            defaults::STARTERS,
            &Starters::NAMES,
        ),
        time_zone: time_zone(read),
        decisions_kept: read.duration(
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
    if let (Backend::Upstream, Some(place)) = (backend, read.place("reservations.backend")) {
        read.mistake(
            &place,
            "\"upstream\" is planned, but this version only has \"local\"",
            "Write \"local\", or remove the key.",
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
    let retry_status = retry_status(read);
    let headers = headers(read);
    Some(Upstream {
        url: url?,
        timeout,
        retry_count,
        retry_delay,
        retry_status,
        headers,
    })
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

/// Keys that do nothing yet.
pub(super) fn notices(reservations: &Reservations) -> Vec<String> {
    let upstream = reservations.upstream.as_ref().map(|_| {
        "reservations.upstream does nothing while reservations.backend is \"local\"".to_owned()
    });
    upstream.into_iter().collect()
}
