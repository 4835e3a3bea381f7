//! The wall clock. Only handlers and loops read it; they pass the instant on, so that all other code is a function of
//! its arguments.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, SubsecRound, Utc};

/// Whether the clock is after the beginning of 1970. The HTTP library can't write an earlier date.
#[must_use]
pub fn is_set() -> bool {
    SystemTime::now() > SystemTime::UNIX_EPOCH
}

/// The current time in milliseconds, the precision of the store. A clock before 1970, as machines without a battery
/// have until it is set, reads as the beginning of 1970.
#[must_use]
pub fn now() -> DateTime<Utc> {
    // Not chrono's own reading, which panics before 1970.
    let now = DateTime::<Utc>::from(SystemTime::now());
    now.trunc_subsecs(3).max(DateTime::UNIX_EPOCH)
}

/// The time that a loop may sleep: until `next`, if there is one, and at most `max`. Never so short that the loop is
/// busy, even if the clock is set back.
#[must_use]
pub fn pause(next: Option<DateTime<Utc>>, now: DateTime<Utc>, max: Duration) -> Duration {
    next.map_or(max, |next| {
        let left = (next - now).to_std().unwrap_or_default();
        left.clamp(Duration::from_millis(100), max)
    })
}
