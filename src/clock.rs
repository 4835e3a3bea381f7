//! The wall clock, read at the rim only: handlers and loops take the instant here and hand it on,
//! so that everything below them is a function of its arguments.

use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};

/// The present instant, to the millisecond (what the store keeps).
#[must_use]
pub fn now() -> DateTime<Utc> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    Utc::now().trunc_subsecs(3)
}

/// How long a loop may sleep until `next`, if there is one, and at `most` anyway. Never so short that it
/// becomes a busy loop, whatever the clock does.
#[must_use]
pub fn pause(next: Option<DateTime<Utc>>, now: DateTime<Utc>, most: Duration) -> Duration {
    next.map_or(most, |next| {
        let left = (next - now).to_std().unwrap_or_default();
        left.clamp(Duration::from_millis(100), most)
    })
}
