//! Conferences end: by request, or in the expiry loop when their time is up. Another loop purges old records.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::bookings::REQUEST_KEY_TTL;
use super::{Backend, Reservations, whole_seconds};
use crate::batch::BatchItem;
use crate::clock;
use crate::domain::allocation::{AllocationId, EndReason};
use crate::store::{StoreError, Tx};

/// The longest pause between two runs: the wall clock may be set.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// How often old records are purged.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest pause between two runs, even if the wall clock jumps.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The pause after the database failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// A request to end an allocation.
#[derive(Debug)]
pub(super) struct EndRequest {
    id: AllocationId,
    reason: EndReason,
    received_at: DateTime<Utc>,
}

/// Ends the allocations of a batch; returns which of them were running.
async fn end_all(
    mut tx: Tx,
    batch: &[BatchItem<EndRequest, bool, StoreError>],
) -> Result<HashSet<AllocationId>, StoreError> {
    let Some(now) = batch.iter().map(|item| item.request.received_at).max() else {
        return Ok(HashSet::new());
    };
    let mut ended = HashSet::new();
    for reason in [EndReason::Destroyed, EndReason::Closed, EndReason::Lost] {
        let of_reason = batch.iter().filter(|item| item.request.reason == reason);
        let ids: Vec<_> = of_reason.map(|item| item.request.id).collect();
        if !ids.is_empty() {
            ended.extend(tx.end_allocations(&ids, reason, now).await?);
        }
    }
    tx.commit().await?;
    let requests = batch.iter().map(|item| &item.request);
    for EndRequest { id, reason, .. } in requests.filter(|it| ended.contains(&it.id)) {
        tracing::info!(
            allocation = id.get(),
            reason = reason.code(),
            "conference ended"
        );
    }
    Ok(ended)
}

impl Reservations {
    /// Ends an allocation. Returns whether its id was ever issued; a repetition changes nothing.
    pub(super) async fn end_allocation(
        &self,
        id: AllocationId,
        reason: EndReason,
        now: DateTime<Utc>,
    ) -> Result<bool, Arc<StoreError>> {
        let reservations = self.clone();
        let work = async move { reservations.end_pending().await };
        let request = EndRequest {
            id,
            reason,
            received_at: now,
        };
        if self.inner.ending.submit(request, work).await? {
            return Ok(true);
        }
        Ok(self.inner.store.allocation(id).await?.is_some())
    }

    /// Ends all allocations whose ends are pending when the transaction begins: after a lesson, hundreds of
    /// rooms close within a second.
    async fn end_pending(&self) {
        let begun = self.inner.store.begin().await;
        let batch = self.inner.ending.take();
        let ended = match begun {
            Ok(tx) => end_all(tx, &batch).await,
            Err(error) => Err(error),
        };
        let ended = ended.map_err(Arc::new);
        for item in batch {
            let result = ended.as_ref().map(|ids| ids.contains(&item.request.id));
            item.answer(result.map_err(Arc::clone));
        }
    }

    /// Runs the background tasks until `stop`: the expiry and purge loops, and those of the gateway.
    ///
    /// No answer depends on the expiry loop: an allocation past its end counts as over whether or not the loop
    /// has run.
    pub async fn run(&self, stop: CancellationToken) {
        let backend = async {
            if let Backend::Gateway(gateway) = &self.backend {
                gateway.run(stop.clone()).await;
            }
        };
        tokio::join!(
            self.expire_loop(stop.clone()),
            self.purge_loop(stop.clone()),
            backend
        );
    }

    async fn expire_loop(&self, stop: CancellationToken) {
        // Instants, not pauses: a notification in between must not postpone the next run.
        let (mut earliest, mut latest) = (Instant::now(), Instant::now());
        let mut due = latest;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => {
                    let (min, max) = match self.expire(clock::now()).await {
                        Ok(()) => (MIN_INTERVAL, MAX_INTERVAL),
                        Err(error) => {
                            tracing::warn!(%error, "failed to end expired conferences; retrying");
                            (RETRY_INTERVAL, RETRY_INTERVAL)
                        }
                    };
                    let now = Instant::now();
                    (earliest, latest) = (now + min, now + max);
                }
                () = self.inner.ends_changed.notified() => {}
            }
            let pause = self.until_next_end(clock::now()).await;
            due = (Instant::now() + pause).clamp(earliest, latest);
        }
    }

    async fn expire(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let mut tx = self.inner.store.begin().await?;
        let ended = tx.end_expired(now).await?;
        tx.commit().await?;
        if ended > 0 {
            tracing::info!(allocations = ended, "conferences ended: their time is up");
        }
        Ok(())
    }

    /// Purges old records now and then, until `stop`.
    async fn purge_loop(&self, stop: CancellationToken) {
        let mut every = interval(PURGE_INTERVAL);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = every.tick() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                purged = self.purge(clock::now()) => if let Err(error) = purged {
                    tracing::warn!(%error, "failed to purge old records; retrying");
                }
            }
        }
    }

    /// Deletes records that are older than the configuration wants, in portions that other transactions come between.
    async fn purge(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let config = &self.inner.config;
        let oldest = now - whole_seconds(config.decision_retention);
        loop {
            let begun = Instant::now();
            let mut tx = self.inner.store.begin().await?;
            let mut more = tx.purge_allocations(oldest).await?;
            more |= tx.purge_decisions(oldest, config.decisions_max).await?;
            more |= tx.purge_upstream(oldest).await?;
            more |= tx.purge_requests(now - REQUEST_KEY_TTL).await?;
            tx.commit().await?;
            if !more {
                return Ok(());
            }
            // Half of the disk's time is for others.
            sleep(begun.elapsed()).await;
        }
    }

    /// How long it is until the next allocation expires; at most [`MAX_INTERVAL`].
    async fn until_next_end(&self, now: DateTime<Utc>) -> Duration {
        match self.inner.store.next_end().await {
            Ok(None) => MAX_INTERVAL,
            Ok(Some(end)) => (end - now).to_std().unwrap_or_default().min(MAX_INTERVAL),
            Err(_) => RETRY_INTERVAL,
        }
    }
}
