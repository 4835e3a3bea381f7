//! The date format of the reservation API: Java's `yyyy-MM-dd'T'HH:mm:ss.SSSX`, read liberally and
//! written in one form.

use chrono::{DateTime, Datelike, NaiveDateTime, SecondsFormat, TimeDelta, Timelike, Utc};
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
    /// The year in UTC is before 1970 or after 9999.
    #[error("the year must be from 1970 to 9999, like 2026-11-21T22:21:26.000Z")]
    Year,
}

/// Reads a time: `yyyy-MM-ddTHH:mm:ss`, a fraction of 1 to 9 digits if any, and a zone: `Z`, `+01`,
/// `+0100` or `+01:00`. `T` and `Z` may be lower-case, `T` may be a blank, the seconds may be left out,
/// and a time without a zone is in UTC.
///
/// # Errors
/// Any [`TimestampError`] but [`TimestampError::MissingZone`].
pub fn parse(text: &str) -> Result<DateTime<Utc>, TimestampError> {
    read(text, Some(0))
}

/// Reads a time as [`parse`] does, but requires a zone: times that people write are local times.
///
/// # Errors
/// Any [`TimestampError`].
pub fn parse_zoned(text: &str) -> Result<DateTime<Utc>, TimestampError> {
    read(text, None)
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

/// `unzoned` is the offset in seconds of a time without a zone.
fn read(text: &str, unzoned: Option<i32>) -> Result<DateTime<Utc>, TimestampError> {
    if text.len() > MAX_BYTES {
        return Err(TimestampError::TooLong);
    }
    let (local, zone) = split_zone(text).ok_or(TimestampError::Form)?;
    let offset = if zone.is_empty() {
        unzoned.ok_or(TimestampError::MissingZone)?
    } else {
        offset(zone).ok_or(TimestampError::Zone)?
    };
    let utc = NaiveDateTime::parse_from_str(&local, "%Y-%m-%dT%H:%M:%S%.f")
        .ok()
        // chrono reads the second 60 as a leap second.
        .filter(|time| time.nanosecond() < 1_000_000_000)
        .ok_or(TimestampError::NoSuchTime)?
        .checked_sub_signed(TimeDelta::seconds(offset.into()))
        .ok_or(TimestampError::Year)?
        .and_utc();
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
