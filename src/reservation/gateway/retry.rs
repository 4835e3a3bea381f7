//! How a call is made: how long it may take, whether it is tried again, and when it is given up. The call
//! itself is an argument, so that time can be paused where this is tested.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// What an upstream answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// The status.
    pub(super) status: u16,
    /// The body, as long as it may be.
    pub(super) body: Vec<u8>,
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// No connection, or one that broke; what the network said.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It didn't answer in time.
    #[error("it took too long to answer")]
    TooSlow,
    /// More than is read.
    #[error("its answer is too long")]
    TooLong,
}

/// When to try again.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// How long one attempt may take.
    pub(super) timeout: Duration,
    /// How often to try again.
    pub(super) retry_count: u32,
    /// After what pause.
    pub(super) retry_delay: Duration,
    /// After which statuses, in order.
    pub(super) retry_status: Vec<u16>,
}

impl Rules {
    /// Whether the next attempt may go better. A call that took too long may have been heard: a second one
    /// would only make Prosody wait longer.
    fn may_pass(&self, outcome: &Result<Reply, Trouble>) -> bool {
        match outcome {
            Ok(reply) => self.retry_status.binary_search(&reply.status).is_ok(),
            Err(Trouble::Unreachable(_)) => true,
            Err(Trouble::TooSlow | Trouble::TooLong) => false,
        }
    }

    /// Makes a call, again where that may help, until `deadline`. What comes back is the last outcome: a pause
    /// that would end after the deadline isn't begun.
    pub(super) async fn follow<F: Future<Output = Result<Reply, Trouble>>>(
        &self,
        deadline: Instant,
        attempt: impl Fn() -> F,
    ) -> Result<Reply, Trouble> {
        let mut retries = self.retry_count;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = self.timeout.min(left);
            let outcome = match timeout(limit, attempt()).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Trouble::TooSlow),
            };
            let next = Instant::now() + self.retry_delay;
            if retries == 0 || !self.may_pass(&outcome) || next >= deadline {
                return outcome;
            }
            retries -= 1;
            sleep(self.retry_delay).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> Rules {
        Rules {
            timeout: 20 * SECOND,
            retry_count: 3,
            retry_delay: 3 * SECOND,
            retry_status: (500..=599).collect(),
        }
    }

    fn status(status: u16) -> Result<Reply, Trouble> {
        let body = Vec::new();
        Ok(Reply { status, body })
    }

    fn refused() -> Result<Reply, Trouble> {
        Err(Trouble::Unreachable("refused".into()))
    }

    /// The outcome, how many attempts it took, and how long.
    async fn follow(
        rules: &Rules,
        deadline: Duration,
        outcomes: impl IntoIterator<Item = Option<Result<Reply, Trouble>>>,
    ) -> (Result<Reply, Trouble>, usize, Duration) {
        let outcomes = RefCell::new(outcomes.into_iter());
        let attempts = Cell::new(0);
        let start = Instant::now();
        let outcome = rules
            .follow(start + deadline, || async {
                attempts.set(attempts.get() + 1);
                let next = outcomes.borrow_mut().next();
                match next.expect("no more attempts") {
                    Some(outcome) => outcome,
                    None => std::future::pending().await,
                }
            })
            .await;
        (outcome, attempts.get(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_answer_is_asked_for_once() {
        for good in [200, 201, 404, 409, 403] {
            let (outcome, attempts, took) =
                follow(&rules(), 18 * SECOND, [Some(status(good))]).await;
            assert_eq!((outcome, attempts, took), (status(good), 1, Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_three_seconds_apart() {
        let outcomes = [status(500), refused(), status(599), status(201)].map(Some);
        let (outcome, attempts, took) = follow(&rules(), 18 * SECOND, outcomes).await;
        assert_eq!((outcome, attempts), (status(201), 4));
        assert_eq!(took, 9 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_failure_is_the_outcome() {
        let outcomes = [status(500), status(501), status(502), status(503)].map(Some);
        let (outcome, attempts, _) = follow(&rules(), 18 * SECOND, outcomes).await;
        assert_eq!((outcome, attempts), (status(503), 4));
        let never = Rules {
            retry_count: 0,
            ..rules()
        };
        let (outcome, attempts, _) = follow(&never, 18 * SECOND, [Some(refused())]).await;
        assert_eq!((outcome, attempts), (refused(), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_out_is_never_tried_again() {
        let short = Rules {
            timeout: 5 * SECOND,
            ..rules()
        };
        let (outcome, attempts, took) = follow(&short, 18 * SECOND, [None]).await;
        assert_eq!((outcome, attempts), (Err(Trouble::TooSlow), 1));
        assert!((5 * SECOND..6 * SECOND).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_statuses_of_the_configuration_are_tried_again() {
        let picky = Rules {
            retry_status: vec![429, 503],
            ..rules()
        };
        let (outcome, attempts, _) = follow(&picky, 18 * SECOND, [Some(status(500))]).await;
        assert_eq!((outcome, attempts), (status(500), 1));
        let outcomes = [status(429), status(503), status(201)].map(Some);
        let (outcome, attempts, _) = follow(&picky, 18 * SECOND, outcomes).await;
        assert_eq!((outcome, attempts), (status(201), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn everything_ends_before_the_deadline() {
        let patient = Rules {
            retry_count: 100,
            ..rules()
        };
        let (outcome, attempts, took) = follow(
            &patient,
            18 * SECOND,
            std::iter::repeat_n(Some(refused()), 100),
        )
        .await;
        assert_eq!(outcome, refused());
        assert_eq!(attempts, 6, "at 0, 3, 6, 9, 12 and 15 s");
        assert!(took < 18 * SECOND, "{took:?}");
        // An attempt that hangs is cut off there, however long it might take.
        let (outcome, attempts, took) =
            follow(&patient, 7 * SECOND, [Some(status(500)), None]).await;
        assert_eq!((outcome, attempts), (Err(Trouble::TooSlow), 2));
        assert!((7 * SECOND..8 * SECOND).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_too_long_is_not_asked_for_again() {
        let too_long = Err(Trouble::TooLong);
        let (outcome, attempts, _) = follow(&rules(), 18 * SECOND, [Some(too_long.clone())]).await;
        assert_eq!((outcome, attempts), (too_long, 1));
    }
}
