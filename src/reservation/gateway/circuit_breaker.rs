//! The circuit breaker, pure: whether the upstream is asked at all, after it has failed a few times in a row.

/// What the breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything; so many requests have failed since the last that didn't.
    Closed(u32),
    /// Nothing.
    Open,
    /// The next request, to see: the upstream answers the probe, with errors, as some do to every id that
    /// they don't know.
    Trial,
}

/// What is known of an upstream by a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probed {
    /// It answers as it should.
    Well,
    /// It answers, with an error of its own.
    Ill,
    /// It doesn't answer.
    Away,
}

/// Remembers failures in a row.
#[derive(Debug)]
pub(super) struct Breaker {
    failures_max: u32,
    state: State,
}

impl Breaker {
    /// One that opens after so many failures in a row, from 1 up.
    pub(super) fn new(failures_max: u32) -> Self {
        Self {
            failures_max,
            state: State::Closed(0),
        }
    }

    /// Whether a request may be made; the one of a trial is given out once.
    pub(super) fn admits(&mut self) -> bool {
        match self.state {
            State::Closed(_) => true,
            State::Open => false,
            State::Trial => {
                self.state = State::Open;
                true
            }
        }
    }

    /// Whether requests are being refused.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed(_))
    }

    /// A request was answered; tells whether that closed the breaker.
    pub(super) fn succeeded(&mut self) -> bool {
        let was_open = self.is_open();
        self.state = State::Closed(0);
        was_open
    }

    /// A request failed; tells whether that opened the breaker.
    pub(super) fn failed(&mut self) -> bool {
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

    /// A probe came back while the breaker was open; tells whether that closed it.
    pub(super) fn probed(&mut self, probed: Probed) -> bool {
        if !self.is_open() {
            return false;
        }
        self.state = match probed {
            Probed::Well => State::Closed(0),
            Probed::Ill => State::Trial,
            Probed::Away => State::Open,
        };
        !self.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(2);
        assert!(!breaker.failed() && breaker.admits());
        assert!(breaker.failed(), "the second opens it");
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let mut breaker = Breaker::new(2);
        for _ in 0..3 {
            assert!(!breaker.failed());
            assert!(!breaker.succeeded());
        }
        assert!(breaker.admits());
        assert!(!opened().admits());
    }

    #[test]
    fn what_was_under_way_when_it_opened_changes_nothing_by_failing() {
        let mut breaker = opened();
        assert!(!breaker.failed());
        assert!(!breaker.admits());
    }

    #[test]
    fn a_good_probe_closes_it() {
        let mut breaker = opened();
        assert!(!breaker.probed(Probed::Away));
        assert!(!breaker.admits());
        assert!(breaker.probed(Probed::Well));
        assert!(breaker.admits() && !breaker.failed());
        assert!(!breaker.probed(Probed::Well), "it is closed already");
    }

    #[test]
    fn a_probe_answered_with_an_error_lets_one_request_try() {
        let mut breaker = opened();
        assert!(!breaker.probed(Probed::Ill));
        assert!(breaker.admits());
        assert!(!breaker.admits(), "one only");
        assert!(!breaker.failed());
        assert!(!breaker.admits());
        breaker.probed(Probed::Ill);
        assert!(breaker.admits());
        assert!(breaker.succeeded());
        assert!(breaker.admits() && breaker.admits());
    }
}
