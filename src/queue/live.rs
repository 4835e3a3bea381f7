//! Which conferences are live. A change is stored first, then applied to the waiting visitors.
//!
//! Many conferences go live on the hour. Changes that arrive while a transaction runs are batched into the next one, in
//! their order of arrival ([`Batcher`]).
//!
//! [`Batcher`]: crate::batch::Batcher

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::fan_out::{Notification, fan_out};
use super::{Inner, Queue, State, now};
use crate::clock;
use crate::domain::conference::Conference;
use crate::store::{Change, LiveChange, LiveObserver, LiveRow, StoreError, Tx};

/// How often the live conferences are read while changes come in between; then no change is admitted meanwhile.
const OPTIMISTIC_READS: usize = 3;
/// The longest time between two looks at what is due: the wall clock may be set.
const SYNC_INTERVAL: Duration = Duration::from_secs(30);
/// The pause after a failure of the database.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Notifications of the store within this time cause one synchronisation.
const SYNC_DEBOUNCE: Duration = Duration::from_millis(100);

/// A change that a caller waits for.
#[derive(Debug)]
pub(super) struct PendingChange {
    conference: Conference,
    change: Requested,
}

#[derive(Clone, Copy, Debug)]
enum Requested {
    GoLive(DateTime<Utc>),
    EndLive,
}

impl Requested {
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
        self.change(conference, Requested::GoLive(now)).await
    }

    /// Marks `conference` as not live, durably: visitors that join from now on wait. Idempotent.
    ///
    /// # Errors
    ///
    /// When the database can't be written.
    pub async fn end_live(&self, conference: &Conference) -> Result<(), Arc<StoreError>> {
        self.change(conference, Requested::EndLive).await
    }

    async fn change(
        &self,
        conference: &Conference,
        change: Requested,
    ) -> Result<(), Arc<StoreError>> {
        let pending = PendingChange {
            conference: conference.clone(),
            change,
        };
        let queue = self.clone();
        let work = async move { queue.make_changes().await };
        self.inner.changes.submit(pending, work).await
    }

    /// Makes all changes that are pending when the transaction begins; [`LiveObserver::live_changed`] applies them.
    async fn make_changes(&self) {
        let begun = self.inner.store.begin().await;
        let items = self.inner.changes.take();
        let changes: Vec<_> = items.iter().map(|item| &item.request).collect();
        let outcome = match begun {
            Ok(tx) => self.store_changes(tx, &changes).await,
            Err(error) => Err(error),
        };
        let outcome = outcome.map_err(Arc::new);
        for item in items {
            item.answer(outcome.clone());
        }
    }

    async fn store_changes(
        &self,
        mut tx: Tx,
        changes: &[&PendingChange],
    ) -> Result<(), StoreError> {
        let live_ttl = self.inner.config.load().live_ttl;
        for group in changes.chunk_by(|one, next| one.change.has_kind_of(next.change)) {
            let mut conferences: Vec<_> = group.iter().map(|change| &change.conference).collect();
            conferences.sort_unstable();
            conferences.dedup();
            match group[0].change {
                Requested::GoLive(now) => {
                    tx.set_live(&conferences, now, now + live_ttl).await?;
                    tx.went_live(&conferences, now).await?;
                }
                Requested::EndLive => tx.end_live(&conferences).await?,
            }
        }
        tx.commit().await
    }

    /// Makes the changes that are due, and reads the live conferences when another process has changed them, until
    /// `stop`; the first time after `pause`, the result of [`Queue::sync_now`].
    pub(super) async fn sync_loop(&self, mut pause: Duration, stop: &CancellationToken) {
        let store = &self.inner.store;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => pause = self.sync().await,
                () = store.live_due_changed() => pause = self.sync().await,
                () = store.changed_elsewhere() => pause = self.sync_now().await,
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(SYNC_DEBOUNCE) => {}
            }
        }
    }

    /// Makes the changes that are due, and reads the live conferences from the store; returns the time until the next
    /// change. A failure is logged.
    pub async fn sync_now(&self) -> Duration {
        self.state().is_stale = true;
        self.sync().await
    }

    /// Makes the changes that are due, and reads the live conferences if the state may differ from the store.
    async fn sync(&self) -> Duration {
        match self.try_sync().await {
            Ok(next) => clock::pause(next, clock::now(), SYNC_INTERVAL),
            Err(error) => {
                tracing::warn!(%error, "failed to synchronise the live conferences; retrying");
                RETRY_INTERVAL
            }
        }
    }

    async fn try_sync(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.store_due_changes(clock::now()).await?;
        let is_stale = self.state().is_stale;
        if is_stale {
            self.read_live().await?;
        }
        self.inner.store.next_live_change().await
    }

    /// Makes the state match the store, where another process or the former run may have changed it.
    async fn read_live(&self) -> Result<(), StoreError> {
        for _ in 0..OPTIMISTIC_READS {
            let version = self.state().live_version;
            let rows = self.inner.store.live().await?;
            if self.inner.replace_live(&rows, version) {
                return Ok(());
            }
        }
        // While this transaction is open, no change can come between the reading and its result.
        let tx = self.inner.store.begin().await?;
        let version = self.state().live_version;
        let rows = self.inner.store.live().await?;
        self.inner.replace_live(&rows, version);
        drop(tx);
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

impl LiveObserver for Inner {
    fn live_changed(&self, changes: Vec<LiveChange>, begun: Instant) {
        let mut notifications = Vec::new();
        let mut state = self.state();
        state.live_version += 1;
        for change in changes {
            match change {
                LiveChange::Live(LiveRow { conference, since }) => {
                    notifications.extend(self.apply_live(&mut state, &conference, since, begun));
                }
                LiveChange::Ended(conference) => self.apply_end(&mut state, &conference),
            }
        }
        drop(state);
        fan_out(notifications);
    }
}

impl Inner {
    /// Makes the state match `rows`, unless a transaction has changed it since `version`; returns whether it did.
    fn replace_live(&self, rows: &[LiveRow], version: u64) -> bool {
        let begun = Instant::now();
        let mut state = self.state();
        if state.live_version != version {
            return false;
        }
        state.is_stale = false;
        let wanted: HashSet<_> = rows.iter().map(|row| &row.conference).collect();
        let known = state.conferences.iter();
        let ended: Vec<_> = known
            .filter(|(conference, queue)| {
                queue.live_since().is_some() && !wanted.contains(conference.as_ref())
            })
            .map(|(conference, _)| Arc::clone(conference))
            .collect();
        for conference in &ended {
            self.apply_end(&mut state, conference);
        }
        let mut notifications = Vec::new();
        for LiveRow { conference, since } in rows {
            notifications.extend(self.apply_live(&mut state, conference, *since, begun));
        }
        drop(state);
        fan_out(notifications);
        true
    }

    /// The visitors to notify that the conference went live; `since` is the instant of their release.
    fn apply_live(
        &self,
        state: &mut State,
        conference: &Conference,
        live_since: DateTime<Utc>,
        since: Instant,
    ) -> Option<Notification> {
        let (now, rate) = (now(), state.rate(&self.config.load()));
        let key = state.shared_key(conference);
        let queue = state.conferences.entry(Arc::clone(&key)).or_default();
        if queue.live_since().is_some() {
            return None;
        }
        let waiting = queue.waiting();
        let batch = queue.go_live(live_since, rate, now);
        state.settle(&key, rate, now);
        self.store.changed().insert(conference, Change::Live);
        tracing::info!(
            conference = conference.node(),
            waiting,
            "conference is live"
        );
        Some(self.notification(conference, batch?, since))
    }

    fn apply_end(&self, state: &mut State, conference: &Conference) {
        let (now, rate) = (now(), state.rate(&self.config.load()));
        let key = state.shared_key(conference);
        let State {
            conferences,
            tokens,
            ..
        } = state;
        let Some(queue) = conferences.get_mut(&key) else {
            return;
        };
        let was_live = queue.end_live(|token| tokens.remove_reserved(token));
        state.settle(&key, rate, now);
        if was_live {
            self.store.changed().insert(conference, Change::Live);
            tracing::info!(
                conference = conference.node(),
                "conference is no longer live"
            );
        }
    }
}
