use chrono::{FixedOffset, TimeZone};
use proptest::prelude::*;

use super::*;

#[test]
fn the_form_of_prosody_is_read_and_written() {
    let time = parse("2026-11-21T22:21:26.000Z").unwrap();
    assert_eq!(
        time,
        Utc.with_ymd_and_hms(2026, 11, 21, 22, 21, 26).unwrap()
    );
    assert_eq!(format(time), "2026-11-21T22:21:26.000Z");
}

#[test]
fn all_spellings_of_a_time_are_equal() {
    let time = parse("2026-11-21T22:21:26.5Z").unwrap();
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
        assert_eq!(parse(spelling), Ok(time), "{spelling}");
    }
}

#[test]
fn seconds_are_optional_and_a_blank_counts_as_plus() {
    let time = parse("2026-11-21T22:21:00Z");
    for spelling in [
        "2026-11-21T22:21Z",
        "2026-11-21T23:21+01:00",
        "2026-11-21T23:21 01:00",
    ] {
        assert_eq!(parse_zoned(spelling), time, "{spelling}");
    }
}

#[test]
fn a_time_without_zone_is_utc_for_peers_and_rejected_for_people() {
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
fn each_error_names_the_reason() {
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
        ("2026-11-21T23:59:61Z", TimestampError::NoSuchTime),
        ("2026-11-21T23:60:00Z", TimestampError::NoSuchTime),
        ("9999-12-31T23:59:60Z", TimestampError::Year),
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
fn a_leap_second_is_the_second_after_it() {
    for (leap, next) in [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.250Z", "2017-01-01T00:00:00.250Z"),
        ("2026-11-21T22:21:60+01:00", "2026-11-21T22:22:00+01:00"),
    ] {
        assert_eq!(parse(leap).unwrap(), parse(next).unwrap(), "{leap}");
    }
}

#[test]
fn a_local_time_is_one_of_its_zone() {
    let berlin = Some(Tz::Europe__Berlin);
    let read = |text: &str, zone| parse_written(text).unwrap().in_zone(zone);
    for (local, instant) in [
        ("2026-12-01T14:00", "2026-12-01T13:00:00Z"),
        ("2026-07-01 14:00", "2026-07-01T12:00:00Z"),
        ("2026-12-01T14:00Z", "2026-12-01T14:00:00Z"),
        ("2026-12-01T14:00+05:00", "2026-12-01T09:00:00Z"),
    ] {
        assert_eq!(read(local, berlin), parse(instant), "{local}");
    }
    let local = "2026-12-01T14:00";
    assert_eq!(read(local, None), Err(TimestampError::MissingZone));
    assert_eq!(read("1970-01-01T00:30", berlin), Err(TimestampError::Year));
}

#[test]
fn a_local_time_at_a_change_of_clocks_is_refused_with_both_readings() {
    for (local, zone, words, first, second) in [
        (
            "2026-10-25T02:30",
            Tz::Europe__Berlin,
            "comes twice in Europe/Berlin",
            "2026-10-25T02:30:00+02:00",
            "2026-10-25T02:30:00+01:00",
        ),
        (
            "2026-03-29T02:30",
            Tz::Europe__Berlin,
            "no such local time in Europe/Berlin",
            "2026-03-29T01:30:00+01:00",
            "2026-03-29T03:30:00+02:00",
        ),
        // This island skipped a whole day.
        (
            "2011-12-30T12:00",
            Tz::Pacific__Apia,
            "no such local time",
            "2011-12-29T12:00:00-10:00",
            "2011-12-31T12:00:00+14:00",
        ),
    ] {
        let error = parse_written(local)
            .unwrap()
            .in_zone(Some(zone))
            .unwrap_err();
        let message = error.to_string();
        assert!(message.contains(words), "{message}");
        let (one, other) = (message.find(first), message.find(second));
        assert!(one < other && one.is_some(), "{message}");
        assert!(parse_zoned(first).unwrap() < parse_zoned(second).unwrap());
    }
}

#[test]
fn the_first_and_the_last_time_are_accepted() {
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
fn times() -> impl Strategy<Value = DateTime<Utc>> {
    (0..253_402_300_800_000_i64).prop_map(|ms| DateTime::from_timestamp_millis(ms).unwrap())
}

proptest! {
    #[test]
    fn written_times_are_read_back(time in times()) {
        prop_assert_eq!(parse(&format(time)), Ok(time));
        prop_assert_eq!(parse_zoned(&format(time)), Ok(time));
    }

    #[test]
    fn the_offset_does_not_change_the_time(
        time in times(),
        minutes in -18 * 60..=18 * 60,
        form in prop::sample::select(vec!["%z", "%:z"]),
    ) {
        let local = time.with_timezone(&FixedOffset::east_opt(minutes * 60).unwrap());
        prop_assume!((1970..=9999).contains(&local.year()));
        let text = local.format(&format!("%Y-%m-%dT%H:%M:%S%.3f{form}")).to_string();
        prop_assert_eq!(parse_zoned(&text), Ok(time));
    }

    #[test]
    fn the_parser_never_panics(
        text in any::<String>(),
        near in "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,10})?([zZ]|[-+][0-9:]{0,5})?\\PC?",
    ) {
        let _ = parse(&text);
        if let Ok(time) = parse(&near) {
            prop_assert!((1970..=9999).contains(&time.year()));
        }
    }
}
