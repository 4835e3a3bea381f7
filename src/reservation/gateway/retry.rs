//! The time limit of a call and its retries. The call is an argument, so that tests can pause time.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// A response of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpResponse {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TransportError {
    /// No connection, or one that broke; with the cause.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// No response within the time limit.
    #[error("it did not answer in time")]
    TimedOut,
    /// A response above the size limit.
    #[error("its response is too long")]
    ResponseTooLong,
}

/// When a call is repeated.
#[derive(Clone, Debug)]
pub(super) struct RetryPolicy {
    /// The time limit of one attempt.
    pub(super) timeout: Duration,
    /// How often a call is repeated.
    pub(super) retry_count: u32,
    /// The pause before each repetition.
    pub(super) retry_delay: Duration,
    /// The statuses to repeat a call for, sorted.
    pub(super) retry_status: Vec<u16>,
}

impl RetryPolicy {
    /// Whether another attempt may succeed. The upstream may have received a call that timed out: a second one would
    /// only make Prosody wait longer.
    fn is_retryable(&self, result: &Result<HttpResponse, TransportError>) -> bool {
        match result {
            Ok(response) => self.retry_status.binary_search(&response.status).is_ok(),
            Err(TransportError::Unreachable(_)) => true,
            Err(TransportError::TimedOut | TransportError::ResponseTooLong) => false,
        }
    }

    /// Makes a call, and repeats it where that may help, until `deadline`. Returns the last result: a pause that would
    /// end after the deadline is not begun.
    pub(super) async fn run<F: Future<Output = Result<HttpResponse, TransportError>>>(
        &self,
        deadline: Instant,
        attempt: impl Fn() -> F,
    ) -> Result<HttpResponse, TransportError> {
        let mut retries = self.retry_count;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = self.timeout.min(left);
            let result = match timeout(limit, attempt()).await {
                Ok(result) => result,
                Err(_) => Err(TransportError::TimedOut),
            };
            let next = Instant::now() + self.retry_delay;
            if retries == 0 || !self.is_retryable(&result) || next >= deadline {
                return result;
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

    fn policy() -> RetryPolicy {
        RetryPolicy {
            timeout: 20 * SECOND,
            retry_count: 3,
            retry_delay: 3 * SECOND,
            retry_status: (500..=599).collect(),
        }
    }

    fn status(status: u16) -> Result<HttpResponse, TransportError> {
        let body = Vec::new();
        Ok(HttpResponse { status, body })
    }

    fn unreachable() -> Result<HttpResponse, TransportError> {
        Err(TransportError::Unreachable("refused".into()))
    }

    /// The result, the number of attempts, and the time they took.
    async fn run(
        policy: &RetryPolicy,
        deadline: Duration,
        results: impl IntoIterator<Item = Option<Result<HttpResponse, TransportError>>>,
    ) -> (Result<HttpResponse, TransportError>, usize, Duration) {
        let results = RefCell::new(results.into_iter());
        let attempts = Cell::new(0);
        let start = Instant::now();
        let result = policy
            .run(start + deadline, || async {
                attempts.set(attempts.get() + 1);
                let next = results.borrow_mut().next();
                match next.expect("no more attempts") {
                    Some(result) => result,
                    None => std::future::pending().await,
                }
            })
            .await;
        (result, attempts.get(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn successful_call_is_not_repeated() {
        for good in [200, 201, 404, 409, 403] {
            let (result, attempts, took) = run(&policy(), 18 * SECOND, [Some(status(good))]).await;
            assert_eq!((result, attempts, took), (status(good), 1, Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failed_call_is_repeated_after_the_delay() {
        let results = [status(500), unreachable(), status(599), status(201)].map(Some);
        let (result, attempts, took) = run(&policy(), 18 * SECOND, results).await;
        assert_eq!((result, attempts), (status(201), 4));
        assert_eq!(took, 9 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn last_failure_is_returned() {
        let results = [status(500), status(501), status(502), status(503)].map(Some);
        let (result, attempts, _) = run(&policy(), 18 * SECOND, results).await;
        assert_eq!((result, attempts), (status(503), 4));
        let never = RetryPolicy {
            retry_count: 0,
            ..policy()
        };
        let (result, attempts, _) = run(&never, 18 * SECOND, [Some(unreachable())]).await;
        assert_eq!((result, attempts), (unreachable(), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn call_that_timed_out_is_not_repeated() {
        let short = RetryPolicy {
            timeout: 5 * SECOND,
            ..policy()
        };
        let (result, attempts, took) = run(&short, 18 * SECOND, [None]).await;
        assert_eq!((result, attempts), (Err(TransportError::TimedOut), 1));
        assert!((5 * SECOND..6 * SECOND).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_configured_statuses_are_repeated() {
        let two_statuses = RetryPolicy {
            retry_status: vec![429, 503],
            ..policy()
        };
        let (result, attempts, _) = run(&two_statuses, 18 * SECOND, [Some(status(500))]).await;
        assert_eq!((result, attempts), (status(500), 1));
        let results = [status(429), status(503), status(201)].map(Some);
        let (result, attempts, _) = run(&two_statuses, 18 * SECOND, results).await;
        assert_eq!((result, attempts), (status(201), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_runs_beyond_the_deadline() {
        let many = RetryPolicy {
            retry_count: 100,
            ..policy()
        };
        let (result, attempts, took) = run(
            &many,
            18 * SECOND,
            std::iter::repeat_n(Some(unreachable()), 100),
        )
        .await;
        assert_eq!(result, unreachable());
        assert_eq!(attempts, 6, "at 0, 3, 6, 9, 12 and 15 s");
        assert!(took < 18 * SECOND, "{took:?}");
        // An attempt without a response is aborted at the deadline.
        let (result, attempts, took) = run(&many, 7 * SECOND, [Some(status(500)), None]).await;
        assert_eq!((result, attempts), (Err(TransportError::TimedOut), 2));
        assert!((7 * SECOND..8 * SECOND).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn call_with_a_too_long_response_is_not_repeated() {
        let too_long = Err(TransportError::ResponseTooLong);
        let (result, attempts, _) = run(&policy(), 18 * SECOND, [Some(too_long.clone())]).await;
        assert_eq!((result, attempts), (too_long, 1));
    }
}
