//! Durations as people write them: `"250ms"`, `"15s"`, `"1h30m"`, `"30d"`.

use std::time::Duration;

/// The units, from the longest to the shortest, in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Why a text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadDuration {
    /// A bare number: fifteen of what?
    NoUnit,
    /// Anything else.
    Unreadable,
}

/// Reads numbers with units, longest unit first, each unit at most once, nothing in between.
pub(super) fn parse(text: &str) -> Result<Duration, BadDuration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadDuration::NoUnit);
    }
    read(text)
        .map(Duration::from_millis)
        .ok_or(BadDuration::Unreadable)
}

fn read(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        let (_, milliseconds) = units.find(|(name, _)| *name == unit)?;
        let part = number.parse::<u64>().ok()?.checked_mul(*milliseconds)?;
        total = total.checked_add(part)?;
        rest = after;
    }
    Some(total)
}

/// Writes a duration the way [`parse`] reads it; what is below a millisecond is left out.
pub(super) fn write(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, milliseconds) in UNITS {
        if rest >= milliseconds {
            text.push_str(&format!("{}{unit}", rest / milliseconds));
            rest %= milliseconds;
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_unit_is_read_and_units_add_up() {
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
            assert_eq!(
                parse(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn bare_number_lacks_its_unit() {
        assert_eq!(parse("15"), Err(BadDuration::NoUnit));
        assert_eq!(parse("0"), Err(BadDuration::NoUnit));
    }

    #[test]
    fn anything_else_is_unreadable() {
        for text in [
            "",
            "s",
            "15 parsecs",
            "15 s",
            "-5s",
            "1.5h",
            "30m1h",
            "1h1h",
            "1h30",
            "15S",
            "15µs",
            "99999999999999999999s",
            "18446744073709551615d",
            "213503982334d24h",
            " 15s",
            "１５s",
        ] {
            assert_eq!(parse(text), Err(BadDuration::Unreadable), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(milliseconds in 0..4_000_000_000_000u64) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&write(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_the_parser_fall_over(text in ".*") {
            let _ = parse(&text);
        }
    }
}
