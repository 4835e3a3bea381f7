//! Requests that arrive together share one unit of work, such as a transaction.
//!
//! A commit waits for the disk, and each statement is a round trip to SQLite's thread. On the hour, hundreds of
//! requests arrive within a second: a few statements and one commit for all of them cost little more than for one.
//! A request that arrives while no work runs is not delayed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::oneshot;

/// The task that does the work panicked or was aborted.
#[derive(Debug, Error)]
#[error("the task that does the work ended before its result")]
pub(crate) struct WorkerCrashed;

/// The requests that wait for the next unit of work. The store answers within its time-out, which bounds their
/// number to what callers submit within that time.
#[derive(Debug)]
pub(crate) struct Batcher<Request, Outcome, E>(Mutex<Vec<BatchItem<Request, Outcome, E>>>);

/// A request whose caller waits for the outcome.
#[derive(Debug)]
pub(crate) struct BatchItem<Request, Outcome, E> {
    pub(crate) request: Request,
    outcome: oneshot::Sender<Result<Outcome, Arc<E>>>,
}

impl<Request, Outcome, E: From<WorkerCrashed>> Batcher<Request, Outcome, E> {
    /// Submits a request and waits for its outcome. `work` must [`Batcher::take`] the requests and answer each.
    /// It is spawned for the first request of a batch only. It runs in its own task: dropping a caller must not
    /// cancel the other requests.
    ///
    /// # Errors
    ///
    /// The error of the work, or [`WorkerCrashed`].
    pub(crate) async fn submit(
        &self,
        request: Request,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Outcome, Arc<E>> {
        let (sender, outcome) = oneshot::channel();
        let item = BatchItem {
            request,
            outcome: sender,
        };
        if self.push(item) {
            tokio::spawn(work);
        }
        let crashed = |_| Err(Arc::new(E::from(WorkerCrashed)));
        outcome.await.unwrap_or_else(crashed)
    }

    /// Takes all waiting requests, in the order of their arrival.
    pub(crate) fn take(&self) -> Vec<BatchItem<Request, Outcome, E>> {
        std::mem::take(&mut *self.waiting())
    }

    /// Adds a request; returns whether it is the first of its batch.
    fn push(&self, item: BatchItem<Request, Outcome, E>) -> bool {
        let mut waiting = self.waiting();
        waiting.push(item);
        waiting.len() == 1
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<BatchItem<Request, Outcome, E>>> {
        // No code that holds the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Request, Outcome, E> Default for Batcher<Request, Outcome, E> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Request, Outcome, E> BatchItem<Request, Outcome, E> {
    /// Answers the caller, if it still waits.
    pub(crate) fn answer(self, outcome: Result<Outcome, Arc<E>>) {
        let _ = self.outcome.send(outcome);
    }
}
