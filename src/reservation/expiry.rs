//! The expiry loop: ends allocations that are past their end, and purges old records.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Reservations, whole_seconds};
use crate::clock;
use crate::store::StoreError;

/// The longest pause between two runs: also how often old records are purged.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest pause between two runs, even if the wall clock jumps.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The pause after the database failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

impl Reservations {
    /// Runs the background tasks until `stop`: the expiry loop, and those of the upstream.
    ///
    /// No answer depends on the expiry loop: an allocation past its end counts as over whether or not the loop
    /// has run.
    pub async fn run(&self, stop: CancellationToken) {
        let upstream = async {
            if let Some(upstream) = &self.upstream {
                upstream.keep_house(stop.clone()).await;
            }
        };
        tokio::join!(self.expire_loop(stop.clone()), upstream);
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
        let config = &self.inner.config;
        let oldest = now - whole_seconds(config.decision_retention);
        let mut tx = self.inner.store.begin().await?;
        let ended = tx.end_expired(now).await?;
        tx.purge_allocations(oldest).await?;
        tx.purge_decisions(oldest, config.decisions_max).await?;
        tx.commit().await?;
        if ended > 0 {
            tracing::info!(allocations = ended, "conferences ended: their time is up");
        }
        Ok(())
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
