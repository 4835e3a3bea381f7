//! Reservations: decides on requests, finds and ends conferences, and keeps bookings.
//!
//! A *booking* is made in advance; an *allocation* is a running conference, made by `POST /conference`.
//! Each change is one transaction, so the data that a decision reads can't change before its outcome is written.

mod allocate;
mod bookings;
mod expiry;
pub mod gateway;
mod result;
mod rooms;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;

use crate::batch::Batcher;
use crate::config;
use crate::domain::allocation::{AllocationId, EndReason};
use crate::domain::conference::Conference;
use crate::domain::policy::{self, PolicyRules};
use crate::domain::requester::Requester;
use crate::store::{DecisionFilter, DecisionRow, Forgotten, OutboxEntry, Store, StoreError};
use allocate::PendingRequest;
pub use bookings::{BookingError, RequestKey};
use expiry::EndRequest;
use gateway::{Gateway, UpstreamError};
pub use result::{AllocateResult, GetResult, ReservationError};
pub use rooms::RunningConference;

/// The handle to reservations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reservations {
    inner: Arc<Inner>,
    backend: Backend,
}

/// The system that decides on requests.
#[derive(Clone, Debug)]
enum Backend {
    Local,
    Gateway(Gateway),
}

#[derive(Debug)]
struct Inner {
    store: Store,
    config: Arc<config::Reservations>,
    rules: PolicyRules,
    pending: Batcher<PendingRequest, AllocateResult, StoreError>,
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

/// A duration in whole seconds, the unit of the wire.
fn whole_seconds(duration: Duration) -> TimeDelta {
    let seconds = i64::try_from(duration.as_secs())
        .ok()
        .and_then(TimeDelta::try_seconds);
    seconds.unwrap_or(TimeDelta::MAX)
}

impl Reservations {
    /// Reservations in `store`, decided by the backend that `config` names.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`] if the section of the upstream is invalid.
    pub fn new(store: Store, config: Arc<config::Reservations>) -> Result<Self, UpstreamError> {
        let rules = PolicyRules {
            policy: config.policy,
            default_duration: whole_seconds(config.default_duration),
            early_start: whole_seconds(config.early_start),
            start_policy: config.start_policy,
            time_zone: config.time_zone,
        };
        let backend = match config.backend {
            config::Backend::Local => Backend::Local,
            config::Backend::Upstream => {
                Backend::Gateway(Gateway::new(store.clone(), Arc::clone(&config))?)
            }
        };
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                config,
                rules,
                pending: Batcher::default(),
                ending: Batcher::default(),
                ends_changed: Notify::new(),
            }),
            backend,
        })
    }

    /// The section `[reservations]` of the configuration.
    #[must_use]
    pub fn config(&self) -> &config::Reservations {
        &self.inner.config
    }

    /// Finds a conference by its id as Prosody writes it into a path.
    ///
    /// # Errors
    ///
    /// When the database can't be read, or the upstream does not answer as it should.
    pub async fn find(&self, id: &str, now: DateTime<Utc>) -> Result<GetResult, ReservationError> {
        if let Backend::Gateway(gateway) = &self.backend {
            return gateway.find(id, now).await;
        }
        let Some(id) = AllocationId::parse_path(id) else {
            return Ok(GetResult::NotFound);
        };
        Ok(match self.inner.store.allocation(id).await? {
            None => GetResult::NotFound,
            Some(allocation) if allocation.is_over(now) => {
                let at = allocation.ended_at.unwrap_or(allocation.end);
                let message = policy::end_message(&allocation, at, &self.inner.rules, now);
                GetResult::Ended { at, message }
            }
            Some(allocation) => GetResult::Running(Box::new(allocation.into())),
        })
    }

    /// Ends a conference whose room is gone. Its booking stays, so the room can be opened again.
    /// Returns whether the id was ever issued; a repetition changes nothing.
    ///
    /// # Errors
    ///
    /// When the database can't be written, or the outbox is full.
    pub async fn end(&self, id: &str, now: DateTime<Utc>) -> Result<bool, ReservationError> {
        if let Backend::Gateway(gateway) = &self.backend {
            return Ok(gateway.end(id, now).await?);
        }
        match AllocationId::parse_path(id) {
            Some(id) => Ok(self.end_allocation(id, EndReason::Destroyed, now).await?),
            None => Ok(false),
        }
    }

    /// For each of these conferences, whether its visitors wait in the queue: an option of its running allocation, or
    /// else of the booking under which it can be opened.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn have_queue(
        &self,
        conferences: &[&Conference],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>, StoreError> {
        if let Backend::Gateway(gateway) = &self.backend {
            return gateway.have_queue(conferences, now).await;
        }
        let starts_by = now + self.inner.rules.early_start;
        let store = &self.inner.store;
        store.have_queue(conferences, now, starts_by).await
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

    /// Erases what is stored of one person: an address, an id or a JID, or `name:` and a display name.
    ///
    /// # Errors
    ///
    /// When the database can't be read or written. Some of it may be erased then.
    pub async fn forget(&self, person: &str, now: DateTime<Utc>) -> Result<Forgotten, StoreError> {
        self.inner.store.forget(person, now).await
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
