//! The conferences that changed since they were last taken, for one waiter.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::conference::Conference;

/// How many conferences are kept. The waiter also reads everything periodically, so further ones are dropped.
const CHANGED_MAX: usize = 20_000;

/// What changed of a conference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Whether it is live.
    Live,
    /// Its allocation: the window, the options or the end.
    Allocation,
}

/// The set of changed conferences.
#[derive(Debug, Default)]
pub(crate) struct ChangedConferences {
    set: Mutex<HashMap<Conference, Change>>,
    notify: Notify,
}

impl ChangedConferences {
    pub(crate) fn insert(&self, conference: &Conference, change: Change) {
        let mut set = self.set();
        if let Some(known) = set.get_mut(conference) {
            *known = change.max(*known);
        } else if set.len() < CHANGED_MAX {
            set.insert(conference.clone(), change);
        }
        drop(set);
        self.notify.notify_one();
    }

    /// Waits until a conference has changed; takes all that have.
    pub(crate) async fn take(&self) -> HashMap<Conference, Change> {
        loop {
            let taken = std::mem::take(&mut *self.set());
            if !taken.is_empty() {
                return taken;
            }
            self.notify.notified().await;
        }
    }

    fn set(&self) -> MutexGuard<'_, HashMap<Conference, Change>> {
        // No code that holds the lock panics.
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
