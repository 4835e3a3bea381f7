//! What is asked of the store while it is busy, done in one go when it is free again.
//!
//! To commit is to wait for the disk, and each statement is a way to SQLite's thread and back. When a lesson
//! begins, hundreds ask within the same second: a few statements and one commit for all of them cost little
//! more than those for one. Who is alone is not kept waiting for company.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::StoreError;

/// What was asked for and is not done yet. The store answers within [`super::writer::TURN_TIMEOUT`] whatever
/// happens, so this is no more than what callers ask for within that.
#[derive(Debug)]
pub(crate) struct Pending<What, Outcome>(Mutex<Vec<Asked<What, Outcome>>>);

/// Something that somebody waits for.
#[derive(Debug)]
pub(crate) struct Asked<What, Outcome> {
    pub(crate) what: What,
    done: oneshot::Sender<Result<Outcome, Arc<StoreError>>>,
}

impl<What, Outcome> Pending<What, Outcome> {
    /// Asks for `what`, and waits until it is done. `work` must [`Pending::take`] what is to be done, and do it.
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
    ) -> Result<Outcome, Arc<StoreError>> {
        let (done, outcome) = oneshot::channel();
        if self.push(Asked { what, done }) {
            tokio::spawn(work);
        }
        let broken = |_| Err(Arc::new(StoreError::broken_off()));
        outcome.await.unwrap_or_else(broken)
    }

    /// Takes what is to be done now, in the order in which it was asked for.
    pub(crate) fn take(&self) -> Vec<Asked<What, Outcome>> {
        std::mem::take(&mut *self.asked())
    }

    /// Whether it is the only one.
    fn push(&self, one: Asked<What, Outcome>) -> bool {
        let mut asked = self.asked();
        asked.push(one);
        asked.len() == 1
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Asked<What, Outcome>>> {
        // Nothing that holds the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<What, Outcome> Default for Pending<What, Outcome> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<What, Outcome> Asked<What, Outcome> {
    /// Tells whoever asked, if they still wait.
    pub(crate) fn answer(self, outcome: Result<Outcome, Arc<StoreError>>) {
        let _ = self.done.send(outcome);
    }
}
