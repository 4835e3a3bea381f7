//! Backoff between attempts: they grow, and vary so that many who failed together don't come back
//! together. The only place that knows the crate of that name, which nobody maintains any more.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// By how much a pause grows each time, and varies to either side.
const GROWTH: f64 = 2.0;
const VARIATION: f64 = 0.5;

/// Endless pauses; whoever takes them says how many.
#[derive(Debug)]
pub(crate) struct Backoff(ExponentialBackoff);

impl Backoff {
    /// Backoff of about `first`, growing to about `longest`.
    pub(crate) fn exponential(first: Duration, longest: Duration) -> Self {
        Self(ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            max_interval: longest,
            multiplier: GROWTH,
            randomization_factor: VARIATION,
            // Its own deadline goes by a clock that tests can't pause.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next_backoff()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_vary_and_stay_below_a_limit() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<_> = Backoff::exponential(first, longest).take(50).collect();
        assert_eq!(pauses.len(), 50);
        let around = |pause: Duration, middle: Duration| {
            (middle / 2..=middle * 3 / 2 + Duration::from_millis(1)).contains(&pause)
        };
        assert!(around(pauses[0], first), "{:?}", pauses[0]);
        assert!(around(pauses[1], first * 2), "{:?}", pauses[1]);
        assert!(pauses[5..].iter().all(|pause| around(*pause, longest)));
        assert!(pauses[5..].windows(2).any(|two| two[0] != two[1]));
    }
}
