//! Releases the waiting visitors of live conferences when their turn comes.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::fan_out::fan_out;
use super::{Inner, Queue, State, now};

impl Queue {
    /// Does what is due for each conference, until `stop`.
    pub(super) async fn release_loop(&self, stop: &CancellationToken) {
        let changed = self.inner.state().agenda.changed();
        loop {
            let next = self.inner.state().agenda.first();
            let due = async {
                match next {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = due => self.inner.release_due(now()),
                () = changed.notified() => {}
            }
        }
    }
}

impl Inner {
    /// Releases the batches that are due, and removes the reserved places whose time has passed.
    fn release_due(&self, now: Instant) {
        let config = self.config.load();
        let mut state = self.state();
        let rate = state.rate(&config);
        let mut batches = Vec::new();
        for conference in state.agenda.take_due(now) {
            let State {
                conferences,
                tokens,
                ..
            } = &mut *state;
            if let Some(queue) = conferences.get_mut(&conference) {
                let batch = queue.advance(rate, now, |token| tokens.remove_reserved(token));
                batches.extend(batch.map(|batch| (Arc::clone(&conference), batch)));
            }
            state.settle(&conference, rate, now);
        }
        drop(state);
        let notifications = batches
            .into_iter()
            .map(|(conference, batch)| self.notification(&conference, batch, now.into()));
        fan_out(notifications.collect());
    }
}
