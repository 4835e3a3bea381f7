//! `[reservations]`: which conferences may start, when, and for how long.

use std::time::Duration;

use chrono_tz::{TZ_VARIANTS, Tz};
use serde::Deserialize;

use super::gateway::Upstream;
use super::input::Invalid;
use super::reader::Reader;
use super::reload::Fixed;
use super::unknown::nearest;
use super::value::{DAY, Number, SECOND, Time, text_value};
use crate::domain::booking::StartPolicy;
use crate::domain::policy::PolicyKind;

/// `[reservations]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservations {
    /// Which system decides.
    pub backend: Backend,
    /// Whether a conference needs a booking.
    pub policy: PolicyKind,
    /// The maximum duration of a conference without a booking, from `1s` to `30d`. Then Prosody closes the room.
    pub default_duration: Duration,
    /// How long before the start of its booking a conference may be opened: at most `24h`.
    pub early_start: Duration,
    /// Which users may open a booked conference if the booking does not specify it.
    pub start_policy: StartPolicy,
    /// The IANA time zone of times in messages for people. Programs always get UTC.
    pub time_zone: Tz,
    /// How long the record of a decision is kept, from `1s` to `3650d`. It contains names: keep it no longer
    /// than you need it.
    pub decision_retention: Duration,
    /// How many decisions are kept; the oldest are deleted first. 100000 are some tens of MB.
    pub decisions_max: u64,
    /// `[reservations.upstream]`, if its URL is set.
    pub upstream: Option<Upstream>,
}

/// Which system decides whether a conference may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// `local`: usher, from its own bookings.
    Local,
    /// `upstream`: an external reservation system.
    Upstream,
}

impl Default for Reservations {
    fn default() -> Self {
        Self {
            backend: Backend::Local,
            policy: PolicyKind::Open,
            default_duration: Duration::from_hours(6),
            early_start: Duration::from_mins(10),
            start_policy: StartPolicy::Anyone,
            time_zone: Tz::UTC,
            decision_retention: Duration::from_hours(30 * 24),
            decisions_max: 100_000,
            upstream: None,
        }
    }
}

impl Reservations {
    pub(super) fn read(read: &mut Reader<'_>) -> Self {
        read.alias("reservations.start_policy", "reservations.starters");
        read.alias(
            "reservations.decision_retention",
            "reservations.decisions_kept",
        );
        let mut it = Self {
            upstream: Upstream::read(read),
            ..Self::default()
        };
        read.set::<Backend, _>("reservations.backend", &mut it.backend);
        read.set::<PolicyKind, _>("reservations.policy", &mut it.policy);
        read.set::<Time<SECOND, { 30 * DAY }>, _>(
            "reservations.default_duration",
            &mut it.default_duration,
        );
        read.set::<Time<0, DAY>, _>("reservations.early_start", &mut it.early_start);
        read.set::<StartPolicy, _>("reservations.start_policy", &mut it.start_policy);
        read.set::<TimeZone, _>("reservations.time_zone", &mut it.time_zone);
        read.set::<Time<SECOND, { 3_650 * DAY }>, _>(
            "reservations.decision_retention",
            &mut it.decision_retention,
        );
        read.set::<Number<1, 100_000_000>, _>("reservations.decisions_max", &mut it.decisions_max);
        it.check_upstream_has_a_url(read);
        it
    }

    fn check_upstream_has_a_url(&self, read: &mut Reader<'_>) {
        let url = "reservations.upstream.url";
        if self.backend == Backend::Upstream
            && read.origin(url).is_none()
            && let Some(origin) = read.origin("reservations.backend")
        {
            let invalid = Invalid::new(
                format!("is \"upstream\", but {url} is not set"),
                "Set it to the reservation system's URL, or write \"local\".",
            );
            read.report(&origin, invalid);
        }
    }

    /// A reload applies no key of `[reservations]` and `[reservations.upstream]`.
    pub(super) fn keep_fixed(&self, new: &mut Self, fixed: &mut Fixed) {
        fixed.keep("reservations", self, new);
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::from_iter(reversed_sign(self.time_zone));
        warnings.extend(self.upstream_warnings());
        warnings
    }

    fn upstream_warnings(&self) -> Vec<String> {
        match (&self.upstream, self.backend) {
            (None, _) => Vec::new(),
            (Some(_), Backend::Local) => vec![
                "reservations.upstream has no effect while reservations.backend is \"local\""
                    .to_owned(),
            ],
            (Some(upstream), Backend::Upstream) => upstream.warnings(),
        }
    }
}

text_value!(TimeZone(Tz), time_zone);

fn time_zone(name: String) -> Result<Tz, Invalid> {
    name.parse().map_err(|_| {
        let hint = match (offset(&name), similar_zone(&name)) {
            (Some(hours), _) => offset_hint(hours),
            (None, Some(zone)) => format!("Did you mean \"{zone}\"?"),
            (None, None) => "Write its IANA name, such as \"Europe/Berlin\" or \"UTC\".".to_owned(),
        };
        Invalid::new(format!("{name:?} is not the name of a time zone"), hint)
    })
}

/// "Berlin" and "europe/berlin" are more probable than a misspelled name. An abbreviation is not compared by its
/// letters: "IST" would become "EST".
fn similar_zone(name: &str) -> Option<&'static str> {
    let ending = format!("/{}", name.to_lowercase());
    let names = || TZ_VARIANTS.iter().map(|zone| zone.name());
    names()
        .find(|zone| format!("/{}", zone.to_lowercase()).ends_with(&ending))
        .or_else(|| nearest(name, names().filter(|_| name.contains('/'))))
}

/// The whole hours of a name such as "GMT+2", "UTC-05:00" or "+02:00"; none in it for other offsets.
fn offset(name: &str) -> Option<Option<i32>> {
    let name = name.to_ascii_uppercase();
    let rest = name
        .trim_start_matches("UTC")
        .trim_start_matches("GMT")
        .trim();
    let (sign, digits) = match rest.strip_prefix('+') {
        Some(digits) => (1, digits),
        None => (-1, rest.strip_prefix(['-', '\u{2212}'])?),
    };
    let digits = digits.trim_end_matches(":00");
    let hours = digits.parse::<i32>().ok();
    digits
        .starts_with(|c: char| c.is_ascii_digit())
        .then_some(())?;
    Some(hours.filter(|hours| *hours <= 12).map(|hours| sign * hours))
}

fn offset_hint(hours: Option<i32>) -> String {
    let general = "An offset is no time zone: it has no summer time. Write the zone's IANA name, such as \"Europe/Berlin\"";
    match hours {
        Some(0) => "Write \"UTC\".".to_owned(),
        Some(hours) => format!(
            "{general}; for {hours:+} hours all year write \"Etc/GMT{:+}\", whose sign is the opposite.",
            -hours
        ),
        None => format!("{general}."),
    }
}

/// `Etc/GMT+2` is two hours behind UTC, which surprises its readers.
fn reversed_sign(zone: Tz) -> Option<String> {
    let hours: i32 = zone.name().strip_prefix("Etc/GMT")?.parse().ok()?;
    (hours != 0).then(|| {
        format!(
            "reservations.time_zone: \"{zone}\" is UTC{:+}, since the sign of these names is the opposite",
            -hours
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::value::tests::rejects;
    use super::*;

    #[test]
    fn time_zone_has_an_iana_name() {
        rejects::<TimeZone>(&[
            (
                "'Berlin'",
                "\"Berlin\" is not",
                "Did you mean \"Europe/Berlin\"?",
            ),
            ("'europe/berlin'", "is not", "\"Europe/Berlin\""),
            ("'Europe/Berln'", "is not", "\"Europe/Berlin\""),
            (
                "'two hours ahead'",
                "is not",
                "IANA name, such as \"Europe/Berlin\"",
            ),
        ]);
    }

    #[test]
    fn offset_is_no_time_zone_and_its_zone_has_the_opposite_sign() {
        for (name, zone) in [
            ("GMT+2", "\"Etc/GMT-2\""),
            ("utc-5", "\"Etc/GMT+5\""),
            ("UTC+02:00", "\"Etc/GMT-2\""),
            ("-05:00", "\"Etc/GMT+5\""),
            ("UTC+0", "\"UTC\""),
        ] {
            rejects::<TimeZone>(&[(&format!("'{name}'"), "is not", zone)]);
        }
        for name in ["UTC+05:30", "+99", "IST", "CEST"] {
            let Err(invalid) =
                super::super::value::tests::decoded::<TimeZone>(&format!("'{name}'"))
            else {
                panic!("{name} was accepted");
            };
            assert!(invalid.hint.contains("Europe/Berlin"), "{invalid}");
            assert!(!invalid.hint.contains("Did you mean"), "{invalid}");
        }
        let warning = reversed_sign(Tz::Etc__GMTPlus2).unwrap();
        assert!(warning.contains("UTC-2"), "{warning}");
        assert!(reversed_sign(Tz::UTC).is_none());
    }

    #[test]
    fn value_that_is_no_choice_gets_the_choices_listed() {
        rejects::<Backend>(&[("'cloud'", "\"cloud\"", "\"local\" or \"upstream\"")]);
        rejects::<PolicyKind>(&[("'shut'", "\"shut\"", "\"open\" or \"booked\"")]);
        rejects::<StartPolicy>(&[("'me'", "\"me\"", "\"anyone\" or \"owner\"")]);
    }
}
