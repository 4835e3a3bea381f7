//! Requests that arrive together share one unit of work.
//!
//! A commit waits for the disk, and each statement is a way to SQLite's thread and back. On the hour, hundreds of
//! requests arrive within a second: a few statements and one commit for all of them cost little more than for one.
//! A request that arrives while no work runs is not delayed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::oneshot;

/// The task that did the work panicked or was aborted.
#[derive(Debug, Error)]
#[error("the task that does the work ended before its result")]
pub(crate) struct WorkerCrashed;

/// What was asked for and is not done yet. The store answers within its time-out whatever
/// happens, so this is no more than what callers ask for within that.
#[derive(Debug)]
pub(crate) struct Batcher<What, Outcome, E>(Mutex<Vec<BatchItem<What, Outcome, E>>>);

/// Something that somebody waits for.
#[derive(Debug)]
pub(crate) struct BatchItem<What, Outcome, E> {
    pub(crate) what: What,
    done: oneshot::Sender<Result<Outcome, Arc<E>>>,
}

impl<What, Outcome, E: From<WorkerCrashed>> Batcher<What, Outcome, E> {
    /// Asks for `what`, and waits until it is done. `work` must [`Batcher::take`] what is to be done, and do it.
    /// It runs in a task of its own, as it may be others' as well, and whoever asks may go away; and only if
    /// there is none already that is still to take.
    ///
    /// # Errors
    ///
    /// What the work ended with, or that it broke off.
    pub(crate) async fn ask(
        &self,
        what: What,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Outcome, Arc<E>> {
        let (done, outcome) = oneshot::channel();
        if self.push(BatchItem { what, done }) {
            tokio::spawn(work);
        }
        let broken = |_| Err(Arc::new(E::from(WorkerCrashed)));
        outcome.await.unwrap_or_else(broken)
    }

    /// Takes what is to be done now, in the order in which it was asked for.
    pub(crate) fn take(&self) -> Vec<BatchItem<What, Outcome, E>> {
        std::mem::take(&mut *self.asked())
    }

    /// Whether it is the only one.
    fn push(&self, one: BatchItem<What, Outcome, E>) -> bool {
        let mut asked = self.asked();
        asked.push(one);
        asked.len() == 1
    }

    fn asked(&self) -> MutexGuard<'_, Vec<BatchItem<What, Outcome, E>>> {
        // Nothing that holds the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<What, Outcome, E> Default for Batcher<What, Outcome, E> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<What, Outcome, E> BatchItem<What, Outcome, E> {
    /// Tells whoever asked, if they still wait.
    pub(crate) fn answer(self, outcome: Result<Outcome, Arc<E>>) {
        let _ = self.done.send(outcome);
    }
}
