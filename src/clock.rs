//! The wall clock. Only handlers and loops read it; they pass the instant on, so that all other code is a function of
//! its arguments.

use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};

/// The current time in milliseconds, the precision of the store.
#[must_use]
pub fn now() -> DateTime<Utc> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the only place that reads the clock"
    )]
    Utc::now().trunc_subsecs(3)
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
