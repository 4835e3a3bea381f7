//! Exponential backoff with jitter, so that clients that failed together don't retry together. The only user of the
//! crate of that name, which is no longer maintained.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// The factor from one pause to the next.
const MULTIPLIER: f64 = 2.0;
/// The jitter, as a fraction of the pause in each direction.
const JITTER: f64 = 0.5;

/// The pauses between attempts: an endless iterator; the caller bounds their number.
#[derive(Debug)]
pub(crate) struct Backoff(ExponentialBackoff);

impl Backoff {
    /// Pauses from `first` to `max`, before jitter.
    pub(crate) fn exponential(first: Duration, max: Duration) -> Self {
        Self(ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            max_interval: max,
            multiplier: MULTIPLIER,
            randomization_factor: JITTER,
            // The crate's deadline uses a clock that tests can't pause.
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
    fn pauses_grow_with_jitter_up_to_the_maximum() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<_> = Backoff::exponential(first, max).take(50).collect();
        assert_eq!(pauses.len(), 50);
        let around = |pause: Duration, middle: Duration| {
            (middle / 2..=middle * 3 / 2 + Duration::from_millis(1)).contains(&pause)
        };
        assert!(around(pauses[0], first), "{:?}", pauses[0]);
        assert!(around(pauses[1], first * 2), "{:?}", pauses[1]);
        assert!(pauses[5..].iter().all(|pause| around(*pause, max)));
        assert!(pauses[5..].windows(2).any(|two| two[0] != two[1]));
    }
}
