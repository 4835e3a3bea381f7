//! Delivers deletions: each until the upstream acknowledges it, in order for each room, across restarts.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::sleep;

use super::Gateway;
use crate::backoff::Backoff;
use crate::clock;
use crate::domain::conference::Conference;
use crate::store::{OutboxEntry, StoreError};

/// The longest sleep of the loop, and so the interval at which old deletions are discarded.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// The pause of the loop after an error of the database.
const RETRY: Duration = Duration::from_secs(5);
/// The longest pause between two attempts at a deletion, plus or minus half.
const PAUSE_MAX: Duration = Duration::from_secs(10 * 60);
/// After this number of attempts the pauses no longer grow.
const GROWING_ATTEMPTS: u32 = 16;

impl Gateway {
    /// Delivers deletions when they are due.
    pub(super) async fn delivery_loop(&self) {
        // usher may have been restarted because the upstream was unreachable.
        let mut was_unavailable = true;
        loop {
            let pause = match self.deliver_due(was_unavailable).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "deletions can't be delivered; retrying");
                    RETRY
                }
            };
            was_unavailable = self.circuit_breaker().is_open();
            tokio::select! {
                () = sleep(pause) => {}
                () = self.inner.outbox_changed.notified() => {}
            }
        }
    }

    /// Delivers all deletions that are due. Returns how long to wait until the next one is.
    async fn deliver_due(&self, was_unavailable: bool) -> Result<Duration, StoreError> {
        let store = &self.inner.store;
        self.purge(was_unavailable, clock::now()).await?;
        // While the circuit breaker is open nothing is delivered; its closing wakes the loop.
        while !self.circuit_breaker().is_open() {
            let Some(due) = store.outbox_due(clock::now()).await? else {
                let next = store.outbox_next().await?;
                return Ok(clock::pause(next, clock::now(), HOUSEKEEPING));
            };
            match &due.conference {
                Some(room) => {
                    let room = self.inner.room_locks.get(room);
                    let _lock = room.lock().await;
                    // Meanwhile it may have been delivered or discarded.
                    let first = store.outbox(due.id - 1, 1).await?;
                    if first.first().is_some_and(|first| first.id == due.id) {
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

    /// Discards deletions that are too old. `retry_now`: all other deletions become due.
    async fn purge(&self, retry_now: bool, now: DateTime<Utc>) -> Result<(), StoreError> {
        let outbox_retention = TimeDelta::from_std(self.inner.upstream.outbox_retention);
        let mut tx = self.inner.store.begin().await?;
        let expired = tx
            .give_up_deletions(now - outbox_retention.unwrap_or(TimeDelta::MAX))
            .await?;
        if retry_now {
            tx.retry_now(now).await?;
        }
        tx.commit().await?;
        for id in expired {
            tracing::error!(
                id,
                "deletion discarded: not delivered within reservations.upstream.outbox_retention"
            );
        }
        Ok(())
    }

    /// Delivers the deletions of a room before it is requested again, with one attempt each: an upstream that has not
    /// received them would return the old conference. If one fails, the request is made anyway.
    pub(super) async fn deliver_deletions_of(&self, room: &Conference) {
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

    /// One attempt, while the room is locked. Returns whether the upstream acknowledged it.
    async fn deliver(&self, deletion: &OutboxEntry) -> Result<bool, StoreError> {
        let id = deletion.conference_id.as_str();
        let call = self.inner.client.delete(id);
        let error = match self.inner.client.call_once(&call).await {
            // An unknown conference counts as deleted.
            Ok(response) if matches!(response.status, 200..300 | 404 | 410) => None,
            Ok(response) if matches!(response.status, 405 | 501) => {
                tracing::warn!(
                    id,
                    status = response.status,
                    "the reservation system does not support DELETE; the deletion is discarded"
                );
                None
            }
            Ok(response) => Some(format!("it answers with status {}", response.status)),
            Err(error) => Some(error.to_string()),
        };
        let mut tx = self.inner.store.begin().await?;
        match &error {
            None => tx.delete_outbox_entry(deletion.id).await?,
            Some(error) => {
                let until = clock::now() + self.pause_after(deletion.attempts);
                tracing::warn!(
                    id,
                    trouble = error,
                    "a deletion was not delivered; it stays in the outbox"
                );
                tx.defer_deletion(deletion.id, until, error).await?;
            }
        }
        tx.commit().await?;
        Ok(error.is_none())
    }

    fn pause_after(&self, attempts: u32) -> TimeDelta {
        let first = self.inner.upstream.retry_delay.min(PAUSE_MAX);
        let mut pauses = Backoff::exponential(first, PAUSE_MAX);
        let nth = usize::try_from(attempts.min(GROWING_ATTEMPTS)).unwrap_or_default();
        let pause = pauses.nth(nth).unwrap_or(PAUSE_MAX);
        TimeDelta::from_std(pause).unwrap_or_default()
    }
}
