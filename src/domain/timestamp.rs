//! The date format of the reservation API: Java's `yyyy-MM-dd'T'HH:mm:ss.SSSX`, read liberally and
//! written in one form.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveTime, SecondsFormat, Timelike, Utc};
use chrono_tz::Tz;

/// Longer texts are refused unread, in bytes.
const MAX_BYTES: usize = 64;

/// The zone offset furthest from UTC that is taken, in hours (Java's own bound).
const MAX_OFFSET_HOURS: u32 = 18;

/// Why a text is no time. Each message shows the form to use.
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
    #[error(
        "the time has no zone, so it could mean any of many moments; add Z or an offset, like 2026-11-21T22:21:26+01:00"
    )]
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

/// Reads a time as [`parse`] does, but one that says its zone: people who book a room mean their own.
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

/// `unzoned` is the offset in seconds of a time that names none.
fn read(text: &str, unzoned: Option<i32>) -> Result<DateTime<Utc>, TimestampError> {
    if text.len() > MAX_BYTES {
        return Err(TimestampError::TooLong);
    }
    let mut rest = Scanner(text.as_bytes());
    let form = TimestampError::Form;
    let year = rest.number(4).ok_or(form)?;
    rest.one_of(b"-").ok_or(form)?;
    let month = rest.number(2).ok_or(form)?;
    rest.one_of(b"-").ok_or(form)?;
    let day = rest.number(2).ok_or(form)?;
    rest.one_of(b"Tt ").ok_or(form)?;
    let hour = rest.number(2).ok_or(form)?;
    rest.one_of(b":").ok_or(form)?;
    let minute = rest.number(2).ok_or(form)?;
    // Where people write times themselves, they leave the seconds out.
    let second = match rest.one_of(b":") {
        Some(_) => rest.number(2).ok_or(form)?,
        None => 0,
    };
    let nanosecond = match rest.one_of(b".") {
        Some(_) => rest.fraction().ok_or(form)?,
        None => 0,
    };
    let offset = if rest.0.is_empty() {
        unzoned.ok_or(TimestampError::MissingZone)?
    } else {
        rest.offset().ok_or(TimestampError::Zone)?
    };

    let year = i32::try_from(year).map_err(|_| form)?;
    let time = NaiveDate::from_ymd_opt(year, month, day)
        .zip(NaiveTime::from_hms_nano_opt(
            hour, minute, second, nanosecond,
        ))
        .map(|(day, time)| day.and_time(time))
        .ok_or(TimestampError::NoSuchTime)?;
    let zone = FixedOffset::east_opt(offset).ok_or(TimestampError::Zone)?;
    let utc = time
        .checked_sub_offset(zone)
        .ok_or(TimestampError::Year)?
        .and_utc();
    if (1970..=9999).contains(&utc.year()) {
        Ok(utc)
    } else {
        Err(TimestampError::Year)
    }
}

/// What is left to read.
struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    fn one_of(&mut self, expected: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        expected.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    /// Exactly so many digits.
    fn number(&mut self, digits: usize) -> Option<u32> {
        (0..digits).try_fold(0, |number, _| {
            let digit = self.one_of(b"0123456789")?;
            Some(number * 10 + u32::from(digit - b'0'))
        })
    }

    /// One to nine digits, in nanoseconds.
    fn fraction(&mut self) -> Option<u32> {
        let mut nanoseconds = 0;
        let mut unit = 100_000_000;
        for place in 0..9 {
            let Some(digit) = self.number(1) else {
                return (place > 0).then_some(nanoseconds);
            };
            nanoseconds += digit * unit;
            unit /= 10;
        }
        Some(nanoseconds)
    }

    /// The zone to the end of the text, in seconds east of UTC.
    fn offset(&mut self) -> Option<i32> {
        // A + that was not escaped in a form arrives as a blank.
        let sign = match self.one_of(b"Zz+- ")? {
            b'+' | b' ' => 1,
            b'-' => -1,
            _ => return self.0.is_empty().then_some(0),
        };
        let hours = self.number(2).filter(|hours| *hours <= MAX_OFFSET_HOURS)?;
        let minutes = if self.0.is_empty() {
            0
        } else {
            let _ = self.one_of(b":");
            self.number(2).filter(|minutes| *minutes < 60)?
        };
        let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
        self.0.is_empty().then_some(sign * seconds)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_prosody_sends_is_read_and_written_back() {
        let time = parse("2026-11-21T22:21:26.000Z").unwrap();
        assert_eq!(
            time,
            Utc.with_ymd_and_hms(2026, 11, 21, 22, 21, 26).unwrap()
        );
        assert_eq!(format(time), "2026-11-21T22:21:26.000Z");
    }

    #[test]
    fn every_spelling_of_a_moment_is_that_moment() {
        let moment = parse("2026-11-21T22:21:26.5Z").unwrap();
        for spelling in [
            "2026-11-21T22:21:26.500Z",
            "2026-11-21t22:21:26.500000000z",
            "2026-11-21 22:21:26.50",
            "2026-11-21T22:21:26.5+00",
            "2026-11-21T22:21:26.5-00:00",
            "2026-11-21T23:21:26.5+01",
            "2026-11-21T23:21:26.5+0100",
            "2026-11-21T23:21:26.5+01:00",
            "2026-11-22T03:51:26.5+05:30",
            "2026-11-21T18:51:26.5-03:30",
            "2026-11-21T14:21:26.5-08",
        ] {
            assert_eq!(parse(spelling), Ok(moment), "{spelling}");
        }
    }

    #[test]
    fn seconds_may_be_left_out_and_a_plus_may_have_become_a_blank() {
        let moment = parse("2026-11-21T22:21:00Z");
        for spelling in [
            "2026-11-21T22:21Z",
            "2026-11-21T23:21+01:00",
            "2026-11-21T23:21 01:00",
        ] {
            assert_eq!(parse_zoned(spelling), moment, "{spelling}");
        }
    }

    #[test]
    fn a_time_without_zone_is_utc_for_peers_and_refused_for_people() {
        let text = "2026-11-21T22:21:26";
        assert_eq!(parse(text), parse("2026-11-21T22:21:26Z"));
        assert_eq!(parse_zoned(text), Err(TimestampError::MissingZone));
        assert!(
            TimestampError::MissingZone
                .to_string()
                .contains("add Z or an offset")
        );
        assert_eq!(
            parse_zoned("2026-11-21T22:21:26+01"),
            parse("2026-11-21T21:21:26Z")
        );
    }

    #[test]
    fn what_is_no_time_says_why() {
        for (text, error) in [
            ("", TimestampError::Form),
            ("tomorrow", TimestampError::Form),
            ("2026-11-21", TimestampError::Form),
            ("2026-11-21T22Z", TimestampError::Form),
            ("2026-11-21T22:2Z", TimestampError::Form),
            ("2026-11-21T22:21:26.Z", TimestampError::Form),
            ("26-11-21T22:21:26Z", TimestampError::Form),
            ("+2026-11-21T22:21:26Z", TimestampError::Form),
            (" 2026-11-21T22:21:26Z", TimestampError::Form),
            ("２026-11-21T22:21:26Z", TimestampError::Form),
            ("2026-11-21T22:21:26.0000000000Z", TimestampError::Zone),
            ("2026-11-21T22:21:26Zulu", TimestampError::Zone),
            ("2026-11-21T22:21:26 CET", TimestampError::Zone),
            ("2026-11-21T22:21:26+1", TimestampError::Zone),
            ("2026-11-21T22:21:26+01:", TimestampError::Zone),
            ("2026-11-21T22:21:26+01:60", TimestampError::Zone),
            ("2026-11-21T22:21:26+19", TimestampError::Zone),
            ("2026-11-21T22:21:26+01:00:00", TimestampError::Zone),
            ("2026-02-29T22:21:26Z", TimestampError::NoSuchTime),
            ("2026-13-01T22:21:26Z", TimestampError::NoSuchTime),
            ("2026-11-21T24:00:00Z", TimestampError::NoSuchTime),
            ("2026-11-21T23:59:60Z", TimestampError::NoSuchTime),
            ("1969-12-31T23:59:59Z", TimestampError::Year),
            ("1970-01-01T00:00:00+01", TimestampError::Year),
            ("9999-12-31T23:59:59-01", TimestampError::Year),
            ("0000-01-01T00:00:00Z", TimestampError::Year),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
            assert!(error.to_string().contains("like 2026-11-21T22:21:26"));
        }
        assert_eq!(parse(&"2".repeat(65)), Err(TimestampError::TooLong));
        assert!(TimestampError::TooLong.to_string().contains("like 2026"));
    }

    #[test]
    fn the_first_and_the_last_moment_are_times() {
        assert_eq!(
            format(parse("1970-01-01T00:00:00Z").unwrap()),
            "1970-01-01T00:00:00.000Z"
        );
        assert_eq!(
            format(parse("9999-12-31T23:59:59.999Z").unwrap()),
            "9999-12-31T23:59:59.999Z"
        );
    }

    /// Every millisecond from 1970 to 9999.
    fn moments() -> impl Strategy<Value = DateTime<Utc>> {
        (0..253_402_300_800_000_i64).prop_map(|ms| DateTime::from_timestamp_millis(ms).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(time in moments()) {
            prop_assert_eq!(parse(&format(time)), Ok(time));
            prop_assert_eq!(parse_zoned(&format(time)), Ok(time));
        }

        #[test]
        fn the_offset_does_not_change_the_moment(
            time in moments(),
            minutes in -18 * 60..=18 * 60,
            form in prop::sample::select(vec!["%z", "%:z"]),
        ) {
            let local = time.with_timezone(&FixedOffset::east_opt(minutes * 60).unwrap());
            prop_assume!((1970..=9999).contains(&local.year()));
            let text = local.format(&format!("%Y-%m-%dT%H:%M:%S%.3f{form}")).to_string();
            prop_assert_eq!(parse_zoned(&text), Ok(time));
        }

        #[test]
        fn nothing_makes_it_panic(
            text in any::<String>(),
            near in "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,10})?([zZ]|[-+][0-9:]{0,5})?\\PC?",
        ) {
            let _ = parse(&text);
            if let Ok(time) = parse(&near) {
                prop_assert!((1970..=9999).contains(&time.year()));
            }
        }
    }
}
