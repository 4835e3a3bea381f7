//! When each conference has something to do next: a release, or a removal.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::domain::conference::Conference;

/// The conferences with something to do, in order of time. Its cost does not depend on how many others there are.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    entries: BTreeSet<(Instant, Arc<Conference>)>,
    /// Notified when there is a new first entry.
    changed: Arc<Notify>,
}

impl Agenda {
    /// Moves the entry of a conference.
    pub(super) fn move_entry(
        &mut self,
        conference: &Arc<Conference>,
        from: Option<Instant>,
        to: Option<Instant>,
    ) {
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.entries.remove(&(from, Arc::clone(conference)));
        }
        if let Some(to) = to {
            if self.first().is_none_or(|first| to < first) {
                self.changed.notify_one();
            }
            self.entries.insert((to, Arc::clone(conference)));
        }
    }

    /// The time of the first entry.
    pub(super) fn first(&self) -> Option<Instant> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Notifies when there is a new first entry.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Takes the entries that are due at `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Arc<Conference>> {
        let mut due = Vec::new();
        while self.first().is_some_and(|at| at <= now) {
            due.extend(self.entries.pop_first().map(|(_, conference)| conference));
        }
        due
    }
}
