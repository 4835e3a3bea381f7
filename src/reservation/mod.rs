//! Reservations: decides on requests, finds and ends conferences, and keeps bookings.
//!
//! A *booking* is made in advance; an *allocation* is a running conference, made by `POST /conference`.
//! Each change is one transaction: what a decision read still holds when its outcome is written.

mod allocate;
mod bookings;
mod expiry;
pub mod gateway;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;

use crate::batch::Batcher;
use crate::config;
use crate::domain::allocation::{Allocation, AllocationId};
use crate::domain::conference::Conference;
use crate::domain::policy::{self, PolicyRules, Refusal};
use crate::domain::requester::Requester;
use crate::store::{DecisionFilter, DecisionRow, OutboxEntry, Store, StoreError};
use allocate::PendingRequest;
pub use bookings::BookingError;
use expiry::EndRequest;
use gateway::Upstream;

/// The handle to reservations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reservations {
    inner: Arc<Inner>,
    upstream: Option<Upstream>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    config: Arc<config::Reservations>,
    rules: PolicyRules,
    pending: Batcher<PendingRequest, Outcome, StoreError>,
    ending: Batcher<EndRequest, bool, StoreError>,
    /// Wakes the expiry loop: the next end may be earlier now.
    ends_changed: Notify,
}

/// A request for a conference.
#[derive(Clone, Debug)]
pub struct Request {
    /// The conference.
    pub conference: Conference,
    /// The room's node as Prosody wrote it.
    pub name: String,
    /// The start as Prosody wrote it. Only an upstream uses it.
    pub start_time: String,
    /// The user that Prosody names.
    pub requester: Requester,
}

/// The result of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A new allocation.
    Allocated(Allocation),
    /// The room has a running allocation.
    Conflict(AllocationId),
    /// A visitor that waits in the queue; nothing was allocated.
    Queued,
    /// The conference may not run.
    Refused(Refusal),
}

/// The state of an allocation id.
#[derive(Clone, Debug)]
pub enum Found {
    /// The conference runs.
    Running(Box<Allocation>),
    /// The conference ended at this instant; with a message for users who are still in its room.
    Over(DateTime<Utc>, String),
    /// The id was never issued, or its record was purged.
    Unknown,
}

/// A duration in whole seconds, the unit of the wire.
fn whole_seconds(duration: Duration) -> TimeDelta {
    let seconds = i64::try_from(duration.as_secs())
        .ok()
        .and_then(TimeDelta::try_seconds);
    seconds.unwrap_or(TimeDelta::MAX)
}

impl Reservations {
    /// Reservations in `store`, decided by the rules of `config`.
    #[must_use]
    pub fn new(store: Store, config: Arc<config::Reservations>) -> Self {
        let rules = PolicyRules {
            policy: config.policy,
            default_duration: whole_seconds(config.default_duration),
            early_start: whole_seconds(config.early_start),
            start_policy: config.start_policy,
            time_zone: config.time_zone,
        };
        Self {
            inner: Arc::new(Inner {
                store,
                config,
                rules,
                pending: Batcher::default(),
                ending: Batcher::default(),
                ends_changed: Notify::new(),
            }),
            upstream: None,
        }
    }

    /// The same, where an upstream decides.
    #[must_use]
    pub fn with_upstream(self, upstream: Upstream) -> Self {
        let upstream = Some(upstream);
        Self { upstream, ..self }
    }

    /// The upstream that decides, if there is one.
    #[must_use]
    pub fn upstream(&self) -> Option<&Upstream> {
        self.upstream.as_ref()
    }

    /// The section `[reservations]` of the configuration.
    #[must_use]
    pub fn config(&self) -> &config::Reservations {
        &self.inner.config
    }

    /// Finds an allocation.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn find(&self, id: AllocationId, now: DateTime<Utc>) -> Result<Found, StoreError> {
        Ok(match self.inner.store.allocation(id).await? {
            None => Found::Unknown,
            Some(allocation) if allocation.is_over(now) => {
                let ended_at = allocation.ended_at.unwrap_or(allocation.end);
                let message = policy::end_message(&allocation, ended_at, &self.inner.rules, now);
                Found::Over(ended_at, message)
            }
            Some(allocation) => Found::Running(Box::new(allocation)),
        })
    }

    /// Whether visitors of this conference wait in the queue: an option of its running allocation, or else of
    /// the booking under which it can be opened.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn has_queue(
        &self,
        conference: &Conference,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        if let Some(upstream) = &self.upstream {
            return upstream.has_queue(conference, now).await;
        }
        let store = &self.inner.store;
        let running = store.unended(conference).await?;
        if let Some(running) = running.filter(|running| !running.is_over(now)) {
            return Ok(running.options.waiting_queue);
        }
        let bookings = store.bookings_ahead(conference, now).await?;
        let early_start = self.inner.rules.early_start;
        let next = bookings
            .first()
            .filter(|booking| booking.opens_at(early_start) <= now);
        Ok(next.is_some_and(|booking| booking.draft.options.waiting_queue))
    }

    /// Lists decisions, newest first.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn decisions(&self, filter: &DecisionFilter) -> Result<Vec<DecisionRow>, StoreError> {
        self.inner.store.decisions(filter).await
    }

    /// The deletions that the upstream has not acknowledged yet, in order, from the one after `after`, at
    /// most `limit`; and the number of all of them.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn outbox(
        &self,
        after: i64,
        limit: u32,
    ) -> Result<(Vec<OutboxEntry>, u64), StoreError> {
        let store = &self.inner.store;
        Ok((
            store.outbox(after, limit).await?,
            store.outbox_pending().await?,
        ))
    }

    /// Checks that the database can be written.
    ///
    /// # Errors
    ///
    /// The reason why not.
    pub async fn probe(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.inner.store.probe(now).await
    }

    /// Closes the database. What was answered is on disk.
    pub async fn close(&self) {
        self.inner.store.close().await;
    }
}

#[cfg(test)]
mod tests;
