//! Which conferences are live. A change is stored first, then applied to the waiting visitors.
//!
//! Many conferences go live on the hour. Changes that arrive while a transaction runs are batched into the next one, in
//! their order of arrival ([`Batcher`]).
//!
//! [`Batcher`]: crate::batch::Batcher

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::fan_out::{Notification, fan_out};
use super::{Queue, State};
use crate::clock;
use crate::domain::conference::Conference;
use crate::store::StoreError;

/// The longest time between two synchronisations with the store, and between two removals of expired places.
const SYNC_INTERVAL: Duration = Duration::from_secs(30);
/// The pause after a failure of the database.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Change notifications of the store within this time cause one synchronisation.
const SYNC_DEBOUNCE: Duration = Duration::from_millis(100);

/// A change that a caller waits for.
#[derive(Debug)]
pub(super) struct PendingChange {
    conference: Conference,
    change: LiveChange,
    requested_at: Instant,
}

#[derive(Clone, Copy, Debug)]
enum LiveChange {
    GoLive(DateTime<Utc>),
    EndLive,
}

impl LiveChange {
    fn has_kind_of(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

impl Queue {
    /// Marks `conference` as live, durably, and releases its waiting visitors. Idempotent.
    ///
    /// # Errors
    ///
    /// When the database can't be written; no visitor was released then.
    pub async fn go_live(
        &self,
        conference: &Conference,
        now: DateTime<Utc>,
    ) -> Result<(), Arc<StoreError>> {
        self.change(conference, LiveChange::GoLive(now)).await
    }

    /// Marks `conference` as not live, durably: visitors that join from now on wait. Idempotent.
    ///
    /// # Errors
    ///
    /// When the database can't be written.
    pub async fn end_live(&self, conference: &Conference) -> Result<(), Arc<StoreError>> {
        self.change(conference, LiveChange::EndLive).await
    }

    async fn change(
        &self,
        conference: &Conference,
        change: LiveChange,
    ) -> Result<(), Arc<StoreError>> {
        let pending = PendingChange {
            conference: conference.clone(),
            change,
            requested_at: Instant::now(),
        };
        let queue = self.clone();
        let work = async move { queue.make_changes().await };
        self.inner.changes.submit(pending, work).await
    }

    /// Makes all changes that are pending when the lock is free.
    async fn make_changes(&self) {
        let _lock = self.inner.sync_lock.lock().await;
        let items = self.inner.changes.take();
        let changes: Vec<_> = items.iter().map(|item| &item.request).collect();
        let outcome = self.store_changes(&changes).await.map_err(Arc::new);
        if outcome.is_ok() {
            let mut notifications = Vec::new();
            for pending in changes {
                let conference = &pending.conference;
                match pending.change {
                    LiveChange::GoLive(since) => {
                        notifications.extend(self.apply_live(
                            conference,
                            since,
                            pending.requested_at,
                        ));
                    }
                    LiveChange::EndLive => self.apply_end(conference),
                }
            }
            fan_out(notifications);
        }
        for item in items {
            item.answer(outcome.clone());
        }
    }

    async fn store_changes(&self, changes: &[&PendingChange]) -> Result<(), StoreError> {
        let live_ttl = self.inner.config.load().live_ttl;
        let mut tx = self.inner.store.begin().await?;
        for group in changes.chunk_by(|one, next| one.change.has_kind_of(next.change)) {
            let mut conferences: Vec<_> = group.iter().map(|change| &change.conference).collect();
            conferences.sort_unstable();
            conferences.dedup();
            match group[0].change {
                LiveChange::GoLive(now) => {
                    tx.set_live(&conferences, now, now + live_ttl).await?;
                    tx.went_live(&conferences, now).await?;
                }
                LiveChange::EndLive => tx.end_live(&conferences).await?,
            }
        }
        tx.commit().await
    }

    /// The visitors to notify that the conference went live; `since` is the instant of their release.
    fn apply_live(
        &self,
        conference: &Conference,
        live_since: DateTime<Utc>,
        since: Instant,
    ) -> Option<Notification> {
        let per_second = self.inner.config.load().release_per_second;
        let mut state = self.state();
        let conferences = &mut state.conferences;
        let queue = conferences.entry(Arc::new(conference.clone())).or_default();
        if queue.live_since().is_some() {
            return None;
        }
        let waiting = queue.waiting();
        let batch = queue.go_live(live_since, per_second);
        drop(state);
        tracing::info!(
            conference = conference.node(),
            waiting,
            "conference is live"
        );
        Some(self.notification(conference, batch?, since))
    }

    fn apply_end(&self, conference: &Conference) {
        let mut state = self.state();
        let State {
            conferences,
            tokens,
        } = &mut *state;
        let Some(queue) = conferences.get_mut(conference) else {
            return;
        };
        let was_live = queue.end_live(|token| tokens.remove_reserved(token));
        if queue.is_idle() {
            conferences.remove(conference);
        }
        drop(state);
        if was_live {
            tracing::info!(
                conference = conference.node(),
                "conference is no longer live"
            );
        }
    }

    /// Synchronises with the store when it reports a change, when a change is due, and every [`SYNC_INTERVAL`], until
    /// `stop`; the first time after `pause`, the result of [`Queue::sync_now`].
    pub(super) async fn sync_loop(&self, mut pause: Duration, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                () = self.inner.store.live_changed() => {}
            }
            pause = self.sync_now().await;
            self.state().remove_expired();
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(SYNC_DEBOUNCE) => {}
            }
        }
    }

    /// Loads the live conferences from the store; returns the time until the next synchronisation. A failure is logged.
    pub async fn sync_now(&self) -> Duration {
        let next = match self.sync(clock::now()).await {
            Ok(()) => self.inner.store.next_live_change().await,
            Err(error) => Err(error),
        };
        match next {
            Ok(next) => clock::pause(next, clock::now(), SYNC_INTERVAL),
            Err(error) => {
                tracing::warn!(%error, "failed to load live conferences; retrying");
                RETRY_INTERVAL
            }
        }
    }

    /// Makes the state match the store: stores the changes that are due, then applies what is different there.
    async fn sync(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let _lock = self.inner.sync_lock.lock().await;
        let since = Instant::now();
        self.store_due_changes(now).await?;
        let rows = self.inner.store.live().await?;
        let live: HashMap<_, _> = rows
            .into_iter()
            .map(|row| (row.conference, row.since))
            .collect();
        let ended: Vec<_> = {
            let state = self.state();
            let conferences = state.conferences.iter();
            conferences
                .filter(|(conference, queue)| {
                    queue.live_since().is_some() && !live.contains_key(conference.as_ref())
                })
                .map(|(conference, _)| Arc::clone(conference))
                .collect()
        };
        for conference in &ended {
            self.apply_end(conference);
        }
        let live = live.iter();
        fan_out(
            live.filter_map(|(conference, live_since)| {
                self.apply_live(conference, *live_since, since)
            })
            .collect(),
        );
        Ok(())
    }

    /// Ends the conferences whose live time has expired, and marks those live whose booking says so.
    async fn store_due_changes(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let store = &self.inner.store;
        let next = store.next_live_change().await?;
        if next.is_none_or(|next| next > now) {
            return Ok(());
        }
        let mut tx = store.begin().await?;
        tx.end_live_expired(now).await?;
        let due = tx.take_auto_live(now).await?;
        for conference in &due {
            tracing::info!(
                conference = conference.node(),
                "conference goes live automatically"
            );
        }
        let until = now + self.inner.config.load().live_ttl;
        tx.set_live(&due.iter().collect::<Vec<_>>(), now, until)
            .await?;
        tx.commit().await
    }
}
