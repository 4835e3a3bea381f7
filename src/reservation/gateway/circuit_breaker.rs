//! The circuit breaker, pure: after several failures in a row no request is made until a probe succeeds.

/// Which requests may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// All; with the number of failures since the last success.
    Closed(u32),
    /// None.
    Open,
    /// One, as a test: the upstream responds to the probe, but with an error, as some systems do for an unknown id.
    HalfOpen,
}

/// The result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeResult {
    /// A status below 500.
    Ok,
    /// A status from 500 up.
    Error,
    /// No response.
    Unreachable,
}

/// Counts failures in a row.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    failures_max: u32,
    state: State,
}

impl CircuitBreaker {
    /// Opens after `failures_max` failures in a row, from 1 up.
    pub(super) fn new(failures_max: u32) -> Self {
        Self {
            failures_max,
            state: State::Closed(0),
        }
    }

    /// Whether a request may be made. In the half-open state, only the first caller may.
    pub(super) fn try_acquire(&mut self) -> bool {
        match self.state {
            State::Closed(_) => true,
            State::Open => false,
            State::HalfOpen => {
                self.state = State::Open;
                true
            }
        }
    }

    /// Whether requests are refused.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed(_))
    }

    /// A request succeeded. Returns whether that closed the breaker.
    pub(super) fn record_success(&mut self) -> bool {
        let was_open = self.is_open();
        self.state = State::Closed(0);
        was_open
    }

    /// A request failed. Returns whether that opened the breaker.
    pub(super) fn record_failure(&mut self) -> bool {
        let State::Closed(failures) = self.state else {
            return false;
        };
        let failures = failures.saturating_add(1);
        let opens = failures >= self.failures_max;
        self.state = if opens {
            State::Open
        } else {
            State::Closed(failures)
        };
        opens
    }

    /// A probe ended. Returns whether that closed the breaker.
    pub(super) fn record_probe(&mut self, result: ProbeResult) -> bool {
        if !self.is_open() {
            return false;
        }
        self.state = match result {
            ProbeResult::Ok => State::Closed(0),
            ProbeResult::Error => State::HalfOpen,
            ProbeResult::Unreachable => State::Open,
        };
        !self.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> CircuitBreaker {
        let mut breaker = CircuitBreaker::new(2);
        assert!(!breaker.record_failure() && breaker.try_acquire());
        assert!(breaker.record_failure(), "the second failure opens it");
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let mut breaker = CircuitBreaker::new(2);
        for _ in 0..3 {
            assert!(!breaker.record_failure());
            assert!(!breaker.record_success());
        }
        assert!(breaker.try_acquire());
        assert!(!opened().try_acquire());
    }

    #[test]
    fn failure_of_an_earlier_request_leaves_it_open() {
        let mut breaker = opened();
        assert!(!breaker.record_failure());
        assert!(!breaker.try_acquire());
    }

    #[test]
    fn successful_probe_closes_it() {
        let mut breaker = opened();
        assert!(!breaker.record_probe(ProbeResult::Unreachable));
        assert!(!breaker.try_acquire());
        assert!(breaker.record_probe(ProbeResult::Ok));
        assert!(breaker.try_acquire() && !breaker.record_failure());
        assert!(!breaker.record_probe(ProbeResult::Ok), "closed already");
    }

    #[test]
    fn probe_with_an_error_permits_one_request() {
        let mut breaker = opened();
        assert!(!breaker.record_probe(ProbeResult::Error));
        assert!(breaker.try_acquire());
        assert!(!breaker.try_acquire(), "only one");
        assert!(!breaker.record_failure());
        assert!(!breaker.try_acquire());
        breaker.record_probe(ProbeResult::Error);
        assert!(breaker.try_acquire());
        assert!(breaker.record_success());
        assert!(breaker.try_acquire() && breaker.try_acquire());
    }
}
