//! The date format of the reservation API: Java's `yyyy-MM-dd'T'HH:mm:ss.SSSX`, read liberally and
//! written in one form.

use chrono::{
    DateTime, Datelike, FixedOffset, MappedLocalTime, NaiveDateTime, Offset, SecondsFormat,
    TimeDelta, TimeZone, Timelike, Utc,
};
use chrono_tz::Tz;

/// Longer texts are rejected unread, in bytes.
const MAX_BYTES: usize = 64;

/// The largest zone offset, in hours (Java's own bound).
const MAX_OFFSET_HOURS: i32 = 18;

/// Why a text is not a time. Each message shows the form to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// The text is longer than any time.
    #[error("that is too long for a time; write it like 2026-11-21T22:21:26.000Z")]
    TooLong,
    /// The text isn't in the form of a date and a time.
    #[error("not a date and time; write it like 2026-11-21T22:21:26.000Z")]
    Form,
    /// The form is right, but there is no such day or time of day.
    #[error("there is no such day or time; write a real one like 2026-11-21T22:21:26.000Z")]
    NoSuchTime,
    /// What follows the time of day isn't a zone.
    #[error(
        "the time zone is not one of Z, +01, +0100 or +01:00; write it like 2026-11-21T22:21:26+01:00"
    )]
    Zone,
    /// The zone is missing where it is needed.
    #[error("the time has no zone; add Z or an offset, like 2026-11-21T22:21:26+01:00")]
    MissingZone,
    /// The zone's clocks were set back over this local time.
    #[error(
        "that local time comes twice in {zone}, as clocks are set back; write {} or {}",
        .first.to_rfc3339(), .second.to_rfc3339()
    )]
    Ambiguous {
        /// The time zone.
        zone: Tz,
        /// The earlier reading.
        first: DateTime<FixedOffset>,
        /// The later reading.
        second: DateTime<FixedOffset>,
    },
    /// The zone's clocks were set forward over this local time.
    #[error(
        "there is no such local time in {zone}, as clocks are set forward; write {} or {}",
        .first.to_rfc3339(), .second.to_rfc3339()
    )]
    Skipped {
        /// The time zone.
        zone: Tz,
        /// The reading by the offset after the change.
        first: DateTime<FixedOffset>,
        /// The reading by the offset before the change.
        second: DateTime<FixedOffset>,
    },
    /// The year in UTC is before 1970 or after 9999.
    #[error("the year must be from 1970 to 9999, like 2026-11-21T22:21:26.000Z")]
    Year,
}

/// A time as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// With a zone.
    Instant(DateTime<Utc>),
    /// A local time.
    Local(NaiveDateTime),
}

impl Written {
    /// The instant; a local time is one of `zone`.
    ///
    /// # Errors
    /// [`TimestampError::MissingZone`] for a local time without a zone, [`TimestampError::Ambiguous`] or
    /// [`TimestampError::Skipped`] where the clocks of the zone are changed, and [`TimestampError::Year`].
    pub fn in_zone(self, zone: Option<Tz>) -> Result<DateTime<Utc>, TimestampError> {
        match self {
            Self::Instant(instant) => Ok(instant),
            Self::Local(local) => {
                let zone = zone.ok_or(TimestampError::MissingZone)?;
                in_range(local_time(local, zone)?.to_utc())
            }
        }
    }
}

/// The instant of a local time.
fn local_time(local: NaiveDateTime, zone: Tz) -> Result<DateTime<FixedOffset>, TimestampError> {
    match zone.from_local_datetime(&local) {
        MappedLocalTime::Single(time) => Ok(time.fixed_offset()),
        MappedLocalTime::Ambiguous(first, second) => Err(TimestampError::Ambiguous {
            zone,
            first: first.fixed_offset(),
            second: second.fixed_offset(),
        }),
        MappedLocalTime::None => {
            let day = TimeDelta::days(2);
            let reading = |around: Option<NaiveDateTime>| {
                let offset = zone.offset_from_utc_datetime(&around?).fix();
                let instant = local.checked_sub_offset(offset)?.and_utc();
                Some(instant.with_timezone(&zone).fixed_offset())
            };
            let after = reading(local.checked_add_signed(day));
            let before = reading(local.checked_sub_signed(day));
            let (first, second) = after.zip(before).ok_or(TimestampError::Year)?;
            Err(TimestampError::Skipped {
                zone,
                first,
                second,
            })
        }
    }
}

/// Reads a time as [`parse_zoned`] does; one without a zone is a local time.
///
/// # Errors
/// Any [`TimestampError`] about the text alone.
pub fn parse_written(text: &str) -> Result<Written, TimestampError> {
    let (local, offset) = read(text)?;
    match offset {
        Some(offset) => instant(local, offset).map(Written::Instant),
        None => Ok(Written::Local(local)),
    }
}

/// Reads a time: `yyyy-MM-ddTHH:mm:ss`, a fraction of 1 to 9 digits if any, and a zone: `Z`, `+01`,
/// `+0100` or `+01:00`. `T` and `Z` may be lower-case, `T` may be a blank, the seconds may be left out,
/// and a time without a zone is in UTC. The second 60, a leap second, is the one after it.
///
/// # Errors
/// Any [`TimestampError`] but [`TimestampError::MissingZone`].
pub fn parse(text: &str) -> Result<DateTime<Utc>, TimestampError> {
    let (local, offset) = read(text)?;
    instant(local, offset.unwrap_or(0))
}

/// Reads a time as [`parse`] does, but requires a zone: times that people write are local times.
///
/// # Errors
/// Any [`TimestampError`].
pub fn parse_zoned(text: &str) -> Result<DateTime<Utc>, TimestampError> {
    let (local, offset) = read(text)?;
    instant(local, offset.ok_or(TimestampError::MissingZone)?)
}

/// Writes a time as the reservation API's documents show it: UTC, milliseconds (the rest is cut off),
/// `Z`.
pub fn format(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Writes a time for people: with its zone, and the day if that is not today.
#[must_use]
pub fn format_local(time: DateTime<Utc>, zone: Tz, now: DateTime<Utc>) -> String {
    let (local, today) = (time.with_timezone(&zone), now.with_timezone(&zone));
    let seconds = if local.second() == 0 { "" } else { ":%S" };
    let day = if local.date_naive() == today.date_naive() {
        ""
    } else {
        " on %A, %-d %B %Y"
    };
    local.format(&format!("%H:%M{seconds} %Z{day}")).to_string()
}

/// The local time of a text, and the offset in seconds of its zone, if it has one.
fn read(text: &str) -> Result<(NaiveDateTime, Option<i32>), TimestampError> {
    if text.len() > MAX_BYTES {
        return Err(TimestampError::TooLong);
    }
    let (local, zone) = split_zone(text).ok_or(TimestampError::Form)?;
    let offset = match zone {
        "" => None,
        zone => Some(offset(zone).ok_or(TimestampError::Zone)?),
    };
    let local = NaiveDateTime::parse_from_str(&local, "%Y-%m-%dT%H:%M:%S%.f")
        .ok()
        .and_then(without_leap_second)
        .ok_or(TimestampError::NoSuchTime)?;
    Ok((local, offset))
}

/// chrono has the second 60 as the second 59 with more than a second of nanoseconds.
fn without_leap_second(time: NaiveDateTime) -> Option<NaiveDateTime> {
    match time.nanosecond().checked_sub(1_000_000_000) {
        Some(nanoseconds) => time
            .with_nanosecond(nanoseconds)?
            .checked_add_signed(TimeDelta::seconds(1)),
        None => Some(time),
    }
}

fn instant(local: NaiveDateTime, offset: i32) -> Result<DateTime<Utc>, TimestampError> {
    let utc = local.checked_sub_signed(TimeDelta::seconds(offset.into()));
    in_range(utc.ok_or(TimestampError::Year)?.and_utc())
}

fn in_range(utc: DateTime<Utc>) -> Result<DateTime<Utc>, TimestampError> {
    if (1970..=9999).contains(&utc.year()) {
        Ok(utc)
    } else {
        Err(TimestampError::Year)
    }
}

/// The date and time, as `yyyy-MM-ddTHH:mm:ss` and a fraction, and the zone. chrono alone accepts more: signs,
/// blanks, and numbers with fewer digits.
fn split_zone(text: &str) -> Option<(String, &str)> {
    let (date, rest) = split_form(text, "0000-00-00")?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (minute, rest) = split_form(rest, "00:00")?;
    // People often leave the seconds out.
    let (second, rest) = match rest.starts_with(':') {
        true => split_form(rest, ":00")?,
        false => (":00", rest),
    };
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(digits) => {
            let digits = digits.bytes().take(9).take_while(u8::is_ascii_digit);
            let count = Some(digits.count()).filter(|count| *count > 0)?;
            rest.split_at_checked(1 + count)?
        }
        None => ("", rest),
    };
    Some((format!("{date}T{minute}{second}{fraction}"), zone))
}

/// Splits off the beginning of a text, which must have this form; `0` in the form is any digit.
fn split_form<'a>(text: &'a str, form: &str) -> Option<(&'a str, &'a str)> {
    let (head, rest) = text.split_at_checked(form.len())?;
    let fits = |(byte, wanted): (u8, u8)| match wanted {
        b'0' => byte.is_ascii_digit(),
        _ => byte == wanted,
    };
    head.bytes()
        .zip(form.bytes())
        .all(fits)
        .then_some((head, rest))
}

/// The zone's offset in seconds east of UTC.
fn offset(zone: &str) -> Option<i32> {
    let (sign, zone) = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => return Some(0),
        // A + that was not escaped in a form arrives as a blank.
        ("+" | " ", zone) => (1, zone),
        ("-", zone) => (-1, zone),
        _ => return None,
    };
    let is_form = |form| split_form(zone, form).is_some_and(|(_, rest)| rest.is_empty());
    if !["00", "0000", "00:00"].into_iter().any(is_form) {
        return None;
    }
    let hours: i32 = zone.get(..2)?.parse().ok()?;
    let minutes: i32 = match zone.len() {
        2 => 0,
        length => zone.get(length - 2..)?.parse().ok()?,
    };
    (hours <= MAX_OFFSET_HOURS && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60)
}

#[cfg(test)]
mod tests;
