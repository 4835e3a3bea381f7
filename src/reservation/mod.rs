//! Reservations: the handle that decides, allocates, finds and ends, and the bookings behind it.
//!
//! A *booking* is made ahead; an *allocation* is a running conference, made by `POST /conference`.
//! Each change is one transaction: what the decision read still holds when its outcome is written.

mod allocate;
pub mod gateway;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use thiserror::Error;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batch::Batcher;
use crate::clock;
use crate::domain::allocation::{Allocation, AllocationId, EndReason};
use crate::domain::booking::{Booking, BookingId, Draft, DraftError};
use crate::domain::conference::Conference;
use crate::domain::policy::{self, Refusal, Settings};
use crate::domain::requester::Requester;
use crate::domain::timestamp;
use crate::store::{BookingFilter, DecisionFilter, DecisionRow, Deletion, Store, StoreError, Tx};
use allocate::Undecided;
use gateway::Upstream;

/// The expiry loop comes by so often at least: also how often the logs are purged.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// And leaves at least so long between two rounds, whatever the clock does.
const BREATH: Duration = Duration::from_millis(100);
/// How long the expiry loop waits after the database failed it.
const RETRY: Duration = Duration::from_secs(5);

/// How long, and how much, is remembered of what is over.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Decisions and ended allocations older than this are forgotten.
    pub kept: TimeDelta,
    /// At most so many decisions.
    pub decisions_max: u64,
}

/// The handle to reservations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reservations {
    inner: Arc<Inner>,
    upstream: Option<Upstream>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    settings: Settings,
    retention: Retention,
    /// Requests that are not decided yet, and whose turn it is to decide them.
    undecided: Batcher<Undecided, Outcome, StoreError>,
    deciding: Mutex<()>,
    /// Wakes the expiry loop: an end may have come nearer.
    ends_changed: Notify,
}

/// A request for a conference.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which one.
    pub conference: Conference,
    /// The room's node as Prosody wrote it.
    pub name: String,
    /// When it is to begin, as Prosody wrote it: only an upstream believes it.
    pub start_time: String,
    /// Who asks.
    pub requester: Requester,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A new allocation.
    Allocated(Allocation),
    /// The room has one already.
    Conflict(AllocationId),
    /// A visitor who is to wait in the queue; nothing was allocated.
    Queued,
    /// No.
    Refused(Refusal),
}

/// What is known of an allocation id.
#[derive(Clone, Debug)]
pub enum Found {
    /// It runs.
    Running(Box<Allocation>),
    /// It ended at this instant; and what to tell those who are in its room still.
    Over(DateTime<Utc>, String),
    /// It was never issued, or is long forgotten.
    Unknown,
}

/// Why a booking was not made or changed.
#[derive(Debug, Error)]
pub enum BookingError {
    /// The draft breaks a rule.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// The room is taken; the booking in the way.
    #[error("{}", .0.conflict_message())]
    Overlap(Box<Booking>),
    /// No booking has this id.
    #[error("There is no booking {0}.")]
    Unknown(BookingId),
    /// The booking is over, and the change leaves it so.
    #[error(
        "Booking {id} has been over since {}; make a new one, or give this one an end that is still to come.",
        timestamp::format(*.end)
    )]
    Over {
        /// The booking.
        id: BookingId,
        /// Its end.
        end: DateTime<Utc>,
    },
    /// Bookings are the upstream's.
    #[error(
        "Bookings are kept by the reservation system that usher asks (reservations.backend = \"upstream\"); make them there."
    )]
    Elsewhere,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Reservations {
    /// Reservations over `store`, decided by `settings`.
    #[must_use]
    pub fn new(store: Store, settings: Settings, retention: Retention) -> Self {
        let ends_changed = Notify::new();
        Self {
            inner: Arc::new(Inner {
                store,
                settings,
                retention,
                undecided: Batcher::default(),
                deciding: Mutex::default(),
                ends_changed,
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

    /// What the operator decided.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Looks an allocation up.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn find(&self, id: AllocationId, now: DateTime<Utc>) -> Result<Found, StoreError> {
        Ok(match self.inner.store.allocation(id).await? {
            None => Found::Unknown,
            Some(allocation) if allocation.is_over(now) => {
                let ended_at = allocation.ended_at.unwrap_or(allocation.end);
                let settings = &self.inner.settings;
                let message = policy::end_message(&allocation, ended_at, settings, now);
                Found::Over(ended_at, message)
            }
            Some(allocation) => Found::Running(Box::new(allocation)),
        })
    }

    /// Ends an allocation because its room is gone; the booking stays, and the room can be opened
    /// again. Tells whether the id was ever issued; ending what is over changes nothing.
    ///
    /// # Errors
    ///
    /// When the database can't take it.
    pub async fn end(&self, id: AllocationId, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let mut tx = self.inner.store.begin().await?;
        let ended = tx.end_allocation(id, EndReason::Destroyed, now).await?;
        // If another ended it just now, that is to be on disk before this is answered.
        tx.commit().await?;
        if ended {
            tracing::info!(allocation = id.get(), "ended: the room is gone");
            return Ok(true);
        }
        Ok(self.inner.store.allocation(id).await?.is_some())
    }

    /// Whether visitors of this conference are to wait: as its running allocation says, or else the
    /// booking that it can be opened under.
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
        if let Some(running) = store
            .unended(conference)
            .await?
            .filter(|it| !it.is_over(now))
        {
            return Ok(running.options.waiting_queue);
        }
        let early = self.inner.settings.early_start;
        let bookings = store.bookings_ahead(conference, now).await?;
        let nearest = bookings
            .first()
            .filter(|booking| booking.opens_at(early) <= now);
        Ok(nearest.is_some_and(|booking| booking.draft.options.waiting_queue))
    }

    /// Makes a booking.
    ///
    /// # Errors
    ///
    /// [`BookingError::Draft`] or [`BookingError::Overlap`] if it can't be had.
    pub async fn book(&self, draft: Draft, now: DateTime<Utc>) -> Result<Booking, BookingError> {
        self.books_here()?;
        let draft = draft.checked(self.inner.settings.start_policy, now)?;
        let mut tx = self.inner.store.begin().await?;
        let booking = match tx.insert_booking(draft.clone(), now).await {
            Err(StoreError::Overlap) => {
                tx.commit().await?;
                return Err(self.overlap(&draft, None).await);
            }
            other => other?,
        };
        self.revise(&mut tx, &[&booking.draft.conference], now)
            .await?;
        tx.commit().await?;
        self.inner.ends_changed.notify_one();
        Ok(booking)
    }

    /// Changes a booking: `change` makes the new draft from the old one. A conference that runs under
    /// it follows.
    ///
    /// # Errors
    ///
    /// Whatever `change` fails with, and as for [`Reservations::book`]; [`BookingError::Unknown`] if
    /// there is none.
    pub async fn change<E: From<BookingError>>(
        &self,
        id: BookingId,
        change: impl FnOnce(&Draft) -> Result<Draft, E>,
        now: DateTime<Utc>,
    ) -> Result<Booking, E> {
        self.books_here()?;
        let store = |error: StoreError| E::from(BookingError::Store(error));
        let mut tx = self.inner.store.begin().await.map_err(store)?;
        let before = tx
            .booking(id)
            .await
            .map_err(store)?
            .ok_or(BookingError::Unknown(id))?;
        let draft = change(&before.draft)?
            .checked(self.inner.settings.start_policy, now)
            .map_err(|error| match (error, before.draft.end) {
                (DraftError::EndInThePast, Some(end)) if before.is_over(now) => {
                    BookingError::Over { id, end }
                }
                (error, _) => BookingError::Draft(error),
            })?;
        let booking = match tx.update_booking(&before, draft.clone(), now).await {
            Err(StoreError::Overlap) => {
                tx.commit().await.map_err(store)?;
                return Err(E::from(self.overlap(&draft, Some(id)).await));
            }
            other => other.map_err(store)?,
        };
        let rooms = [&before.draft.conference, &booking.draft.conference];
        self.revise(&mut tx, &rooms, now).await.map_err(store)?;
        tx.commit().await.map_err(store)?;
        self.inner.ends_changed.notify_one();
        Ok(booking)
    }

    /// Cancels a booking. A conference that runs under it ends.
    ///
    /// # Errors
    ///
    /// [`BookingError::Unknown`] if there is none.
    pub async fn cancel(&self, id: BookingId, now: DateTime<Utc>) -> Result<(), BookingError> {
        let mut tx = self.inner.store.begin().await?;
        let before = tx.booking(id).await?.ok_or(BookingError::Unknown(id))?;
        tx.delete_booking(id).await?;
        self.revise(&mut tx, &[&before.draft.conference], now)
            .await?;
        tx.commit().await?;
        self.inner.ends_changed.notify_one();
        Ok(())
    }

    /// The booking with this id.
    ///
    /// # Errors
    ///
    /// [`BookingError::Unknown`] if there is none.
    pub async fn booking(&self, id: BookingId) -> Result<Booking, BookingError> {
        self.inner
            .store
            .booking(id)
            .await?
            .ok_or(BookingError::Unknown(id))
    }

    /// Lists bookings, in order of their start.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn bookings(&self, filter: &BookingFilter) -> Result<Vec<Booking>, StoreError> {
        self.inner.store.bookings(filter).await
    }

    /// Lists decisions, the newest first.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn decisions(&self, filter: &DecisionFilter) -> Result<Vec<DecisionRow>, StoreError> {
        self.inner.store.decisions(filter).await
    }

    /// Deletions that the upstream has not heard yet, in order, those after the deletion `after`, at most
    /// `limit`; and how many there are in all.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn outbox(&self, after: i64, limit: u32) -> Result<(Vec<Deletion>, u64), StoreError> {
        let store = &self.inner.store;
        Ok((
            store.outbox(after, limit).await?,
            store.outbox_pending().await?,
        ))
    }

    /// Whether the store takes a write.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn probe(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.inner.store.probe(now).await
    }

    /// Closes the database; what was answered stays.
    pub async fn close(&self) {
        self.inner.store.close().await;
    }

    /// Ends allocations on our own clock, and forgets what is old, until `stop`.
    ///
    /// Nothing that is asked depends on this loop: an allocation past its end counts as over whether
    /// or not the loop has come by.
    pub async fn keep_house(&self, stop: CancellationToken) {
        let upstream = async {
            if let Some(upstream) = &self.upstream {
                upstream.keep_house(stop.clone()).await;
            }
        };
        tokio::join!(self.keep_ends(stop.clone()), upstream);
    }

    async fn keep_ends(&self, stop: CancellationToken) {
        // Instants, not spans: whatever happens meanwhile doesn't put the next round off.
        let (mut earliest, mut latest) = (Instant::now(), Instant::now());
        let mut due = latest;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => {
                    let (least, most) = match self.expire(clock::now()).await {
                        Ok(()) => (BREATH, HOUSEKEEPING),
                        Err(error) => {
                            tracing::warn!(%error, "could not end what is over; trying again");
                            (RETRY, RETRY)
                        }
                    };
                    let now = Instant::now();
                    (earliest, latest) = (now + least, now + most);
                }
                () = self.inner.ends_changed.notified() => {}
            }
            let left = self.until_next_end(clock::now()).await;
            due = (Instant::now() + left).clamp(earliest, latest);
        }
    }

    async fn expire(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let retention = self.inner.retention;
        let mut tx = self.inner.store.begin().await?;
        let ended = tx.end_expired(now).await?;
        tx.purge_allocations(now - retention.kept).await?;
        tx.purge_decisions(now - retention.kept, retention.decisions_max)
            .await?;
        tx.commit().await?;
        if ended > 0 {
            tracing::info!(allocations = ended, "ended: their time is up");
        }
        Ok(())
    }

    /// How long it is until an allocation is over by itself; no longer than the loop may sleep.
    async fn until_next_end(&self, now: DateTime<Utc>) -> Duration {
        match self.inner.store.next_end().await {
            Ok(None) => HOUSEKEEPING,
            Ok(Some(end)) => (end - now).to_std().unwrap_or_default().min(HOUSEKEEPING),
            Err(_) => RETRY,
        }
    }

    /// Brings the running allocations of these rooms in line with their bookings.
    async fn revise(
        &self,
        tx: &mut Tx,
        rooms: &[&Conference],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        for room in rooms {
            let Some(running) = tx
                .unended(room)
                .await?
                .filter(|running| !running.is_over(now))
            else {
                continue;
            };
            let bookings = tx.bookings_ahead(room, now).await?;
            match policy::revise(&running, &bookings, &self.inner.settings, now) {
                Some(allowance) => tx.revise_allocation(running.id, &allowance).await?,
                None => {
                    tx.end_allocation(running.id, EndReason::Cancelled, now)
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// An upstream wouldn't know of bookings made here, and nobody of their having no effect.
    fn books_here(&self) -> Result<(), BookingError> {
        match self.upstream {
            Some(_) => Err(BookingError::Elsewhere),
            None => Ok(()),
        }
    }

    /// Names the booking that the database refused a draft for.
    async fn overlap(&self, draft: &Draft, except: Option<BookingId>) -> BookingError {
        match self.inner.store.booking_in_the_way(draft, except).await {
            Ok(Some(booking)) => BookingError::Overlap(Box::new(booking)),
            // It was cancelled in this very moment; the caller may try again.
            Ok(None) => BookingError::Store(StoreError::Overlap),
            Err(error) => BookingError::Store(error),
        }
    }
}

#[cfg(test)]
mod tests;
