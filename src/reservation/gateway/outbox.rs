//! Delivers deletions: each until the upstream has heard it, in order for each room, across restarts.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::sleep;

use super::Upstream;
use crate::backoff::Backoff;
use crate::clock;
use crate::domain::conference::Conference;
use crate::store::{OutboxEntry, StoreError};

/// Longest sleep of the loop: also how often what is old is forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How long the loop waits after the database failed it.
const RETRY: Duration = Duration::from_secs(5);
/// The longest pause between two attempts at a deletion, give or take half.
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);
/// After so many attempts the pauses grow no longer.
const GROWING: u32 = 16;

impl Upstream {
    /// Delivers what is due, for ever.
    pub(super) async fn keep_outbox(&self) {
        // The upstream, or the way there, may be what usher was restarted for.
        let mut was_away = true;
        loop {
            let pause = match self.deliver_due(was_away).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "deletions can't be delivered; trying again");
                    RETRY
                }
            };
            was_away = self.breaker().is_open();
            tokio::select! {
                () = sleep(pause) => {}
                () = self.inner.outbox_changed.notified() => {}
            }
        }
    }

    /// One round; tells how long to wait until the next.
    async fn deliver_due(&self, was_away: bool) -> Result<Duration, StoreError> {
        let store = &self.inner.store;
        self.tidy(was_away, clock::now()).await?;
        // While it is left alone, nothing is delivered either; its return wakes the loop.
        while !self.breaker().is_open() {
            let Some(due) = store.outbox_due(clock::now()).await? else {
                let next = store.outbox_next().await?;
                return Ok(clock::pause(next, clock::now(), HOUSEKEEPING));
            };
            match &due.conference {
                Some(room) => {
                    let turn = self.inner.turns.of(room);
                    let _turn = turn.lock().await;
                    // While it waited for its turn, it may have been delivered or overtaken.
                    let there = store.outbox(due.id - 1, 1).await?;
                    if there.first().is_some_and(|first| first.id == due.id) {
                        self.deliver(&due).await?;
                    }
                }
                None => {
                    self.deliver(&due).await?;
                }
            }
        }
        Ok(HOUSEKEEPING)
    }

    /// Gives up and forgets what is too old, and makes everything due where there is reason to.
    async fn tidy(&self, hasten: bool, now: DateTime<Utc>) -> Result<(), StoreError> {
        let settings = &self.inner.settings;
        let mut tx = self.inner.store.begin().await?;
        let given_up = tx
            .give_up_deletions(now - settings.outbox_retention)
            .await?;
        tx.purge_upstream(now - settings.retention).await?;
        if hasten {
            tx.retry_now(now).await?;
        }
        tx.commit().await?;
        for id in given_up {
            tracing::error!(
                id,
                "the reservation system did not take this deletion in reservations.upstream.outbox_retention; given up"
            );
        }
        Ok(())
    }

    /// Delivers the deletions of a room before it is asked for anew, each tried once: an upstream that hasn't
    /// heard them would hand out the old conference. If it takes none, asking is still better than not.
    pub(super) async fn deliver_before(&self, room: &Conference) {
        let pending = match self.inner.store.outbox_of(room).await {
            Ok(pending) => pending,
            Err(error) => return tracing::warn!(%error, "the outbox can't be read"),
        };
        for deletion in pending {
            match self.deliver(&deletion).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return tracing::warn!(%error, "the outbox can't be written"),
            }
        }
    }

    /// One attempt, in the room's turn; tells whether the upstream has heard it.
    async fn deliver(&self, deletion: &OutboxEntry) -> Result<bool, StoreError> {
        let id = deletion.conference_id.as_str();
        let call = self.inner.client.delete(id);
        let trouble = match self.inner.client.call_once(&call).await {
            // What it doesn't know is as good as deleted.
            Ok(reply) if matches!(reply.status, 200..300 | 404 | 410) => None,
            Ok(reply) if matches!(reply.status, 405 | 501) => {
                tracing::warn!(
                    id,
                    status = reply.status,
                    "the reservation system deletes nothing; not asked again"
                );
                None
            }
            Ok(reply) => Some(format!("it answers with status {}", reply.status)),
            Err(trouble) => Some(trouble.to_string()),
        };
        let mut tx = self.inner.store.begin().await?;
        match &trouble {
            None => tx.delete_outbox_entry(deletion.id).await?,
            Some(trouble) => {
                let until = clock::now() + self.pause_after(deletion.attempts);
                tracing::warn!(
                    id,
                    trouble,
                    "a deletion was not delivered; it stays in the outbox"
                );
                tx.defer_deletion(deletion.id, until, trouble).await?;
            }
        }
        tx.commit().await?;
        Ok(trouble.is_none())
    }

    fn pause_after(&self, attempts: u32) -> TimeDelta {
        let first = self.inner.settings.retry_delay.min(LONGEST_PAUSE);
        let mut pauses = Backoff::exponential(first, LONGEST_PAUSE);
        let nth = usize::try_from(attempts.min(GROWING)).unwrap_or_default();
        let pause = pauses.nth(nth).unwrap_or(LONGEST_PAUSE);
        TimeDelta::from_std(pause).unwrap_or_default()
    }
}
