//! Bookings are made, changed and cancelled; a conference that runs under one follows.

use chrono::{DateTime, TimeDelta, Utc};
use thiserror::Error;

use super::{Backend, Reservations};
use crate::domain::allocation::EndReason;
use crate::domain::booking::{Booking, BookingId, Draft, DraftError};
use crate::domain::conference::Conference;
use crate::domain::{policy, timestamp};
pub use crate::store::RequestKey;
use crate::store::{BookingFilter, StoreError, Tx};

/// How long the key of a request is kept.
pub(super) const REQUEST_KEY_TTL: TimeDelta = TimeDelta::days(1);

/// Why a booking was not made or changed.
#[derive(Debug, Error)]
pub enum BookingError {
    /// The draft breaks a rule.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// Another booking of the room overlaps: this one.
    #[error("{}", .0.conflict_message())]
    Overlap(Box<Booking>),
    /// No booking has this id.
    #[error("There is no booking {0}.")]
    Unknown(BookingId),
    /// The booking is over, and the change would leave it so.
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
    /// The key of the request belongs to another one.
    #[error(
        "This Idempotency-Key was sent with another request within the last day; use a new key for each new request."
    )]
    KeyReused,
    /// The booking that a request with this key made is cancelled.
    #[error(
        "This Idempotency-Key made booking {0}, which was cancelled since; use a new key for a new booking."
    )]
    KeyUsed(BookingId),
    /// The upstream keeps the bookings.
    #[error(
        "Bookings are kept by the reservation system that usher asks (reservations.backend = \"upstream\"); make them there."
    )]
    Elsewhere,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BookingError {
    /// The kind of the error, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Draft(error) => error.code(),
            Self::Overlap(_) => "overlap",
            Self::Unknown(_) => "no_such_booking",
            Self::Over { .. } => "booking_over",
            Self::KeyReused => "idempotency_key_reused",
            Self::KeyUsed(_) => "idempotency_key_used",
            Self::Elsewhere => "bookings_elsewhere",
            Self::Store(_) => "store_unavailable",
        }
    }
}

impl Reservations {
    /// Makes a booking.
    ///
    /// # Errors
    ///
    /// [`BookingError::Draft`] for an invalid draft, [`BookingError::Overlap`] if the room is booked already.
    pub async fn book(&self, draft: Draft, now: DateTime<Utc>) -> Result<Booking, BookingError> {
        self.book_once(draft, None, now).await
    }

    /// Makes a booking for a request that may be repeated: a repetition within `REQUEST_KEY_TTL` gets the booking
    /// of the first one, as it is now. A request without success may be repeated with the same key.
    ///
    /// # Errors
    ///
    /// Those of [`Reservations::book`]; [`BookingError::KeyReused`] and [`BookingError::KeyUsed`].
    pub async fn book_once(
        &self,
        draft: Draft,
        key: Option<&RequestKey>,
        now: DateTime<Utc>,
    ) -> Result<Booking, BookingError> {
        self.require_local()?;
        let mut tx = self.inner.store.begin().await?;
        if let Some(key) = key
            && let Some(made) = made_before(&mut tx, key, now).await?
        {
            return Ok(made);
        }
        let draft = draft.checked(self.inner.rules.start_policy, now)?;
        let booking = match tx.insert_booking(draft.clone(), now).await {
            Err(StoreError::Overlap) => {
                drop(tx);
                return Err(self.overlap(&draft, None).await);
            }
            other => other?,
        };
        if let Some(key) = key {
            tx.keep_request(key, booking.id, now).await?;
        }
        self.revise(&mut tx, &[&booking.draft.conference], None, now)
            .await?;
        tx.commit().await?;
        self.inner.ends_changed.notify_one();
        Ok(booking)
    }

    /// Changes a booking: `change` makes the new draft from the old booking. A conference that runs under
    /// it follows.
    ///
    /// # Errors
    ///
    /// The error of `change`, and those of [`Reservations::book`]; [`BookingError::Unknown`] if there is no
    /// such booking.
    pub async fn change<E: From<BookingError>>(
        &self,
        id: BookingId,
        change: impl FnOnce(&Booking) -> Result<Draft, E>,
        now: DateTime<Utc>,
    ) -> Result<Booking, E> {
        self.require_local()?;
        let store = |error: StoreError| E::from(BookingError::Store(error));
        let mut tx = self.inner.store.begin().await.map_err(store)?;
        let before = tx
            .booking(id)
            .await
            .map_err(store)?
            .ok_or(BookingError::Unknown(id))?;
        let draft = change(&before)?
            .checked(self.inner.rules.start_policy, now)
            .map_err(|error| match (error, before.draft.end) {
                (DraftError::EndInThePast, Some(end)) if before.is_over(now) => {
                    BookingError::Over { id, end }
                }
                (error, _) => BookingError::Draft(error),
            })?;
        let booking = match tx.update_booking(&before, draft.clone(), now).await {
            Err(StoreError::Overlap) => {
                drop(tx);
                return Err(E::from(self.overlap(&draft, Some(id)).await));
            }
            other => other.map_err(store)?,
        };
        let rooms = [&before.draft.conference, &booking.draft.conference];
        self.revise(&mut tx, &rooms, Some(&before), now)
            .await
            .map_err(store)?;
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
        self.cancel_if(id, |_| Ok(()), now).await
    }

    /// Cancels a booking if `check` permits it. A conference that runs under it ends.
    ///
    /// # Errors
    ///
    /// The error of `check`, and those of [`Reservations::cancel`].
    pub async fn cancel_if<E: From<BookingError>>(
        &self,
        id: BookingId,
        check: impl FnOnce(&Booking) -> Result<(), E>,
        now: DateTime<Utc>,
    ) -> Result<(), E> {
        let tx = self.inner.store.begin().await;
        let mut tx = tx.map_err(BookingError::Store)?;
        let before = tx.booking(id).await.map_err(BookingError::Store)?;
        let before = before.ok_or(BookingError::Unknown(id))?;
        check(&before)?;
        Ok(self.cancel_in(tx, &before, now).await?)
    }

    async fn cancel_in(
        &self,
        mut tx: Tx,
        before: &Booking,
        now: DateTime<Utc>,
    ) -> Result<(), BookingError> {
        tx.delete_booking(before.id).await?;
        self.revise(&mut tx, &[&before.draft.conference], Some(before), now)
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
        let booking = self.inner.store.booking(id).await?;
        booking.ok_or(BookingError::Unknown(id))
    }

    /// Lists bookings, in order of their start.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn bookings(&self, filter: &BookingFilter) -> Result<Vec<Booking>, StoreError> {
        self.inner.store.bookings(filter).await
    }

    /// Applies the bookings of these rooms to their running allocations; `before` is the booking that was changed or
    /// cancelled, as it was.
    async fn revise(
        &self,
        tx: &mut Tx,
        rooms: &[&Conference],
        before: Option<&Booking>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        for room in rooms {
            let bookings = tx.bookings_ahead(room, now).await?;
            let running = tx.unended(room).await?;
            let Some(running) = running.filter(|running| !running.is_over(now)) else {
                // A conference can be live before its room is opened.
                let was_open =
                    before.is_some_and(|it| it.draft.conference == **room && self.is_open(it, now));
                if was_open && !bookings.iter().any(|it| self.is_open(it, now)) {
                    tx.end_live(&[room]).await?;
                }
                continue;
            };
            tx.touch(room);
            match policy::revise(&running, &bookings, &self.inner.rules, now) {
                Some(terms) => tx.revise_allocation(running.id, &terms).await?,
                None => {
                    tx.end_allocation(running.id, EndReason::Cancelled, now)
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Whether the room can be opened under this booking.
    fn is_open(&self, booking: &Booking, now: DateTime<Utc>) -> bool {
        booking.opens_at(self.inner.rules.early_start) <= now && !booking.is_over(now)
    }

    /// Refuses bookings where an upstream decides: they would have no effect.
    fn require_local(&self) -> Result<(), BookingError> {
        match self.backend {
            Backend::Gateway(_) => Err(BookingError::Elsewhere),
            Backend::Local => Ok(()),
        }
    }

    /// Names the booking that overlaps a draft.
    async fn overlap(&self, draft: &Draft, except: Option<BookingId>) -> BookingError {
        match self.inner.store.overlapping_booking(draft, except).await {
            Ok(Some(booking)) => BookingError::Overlap(Box::new(booking)),
            // It was cancelled at the same time; the caller may try again.
            Ok(None) => BookingError::Store(StoreError::Overlap),
            Err(error) => BookingError::Store(error),
        }
    }
}

/// The booking that an earlier request with this key made, if there was one.
async fn made_before(
    tx: &mut Tx,
    key: &RequestKey,
    now: DateTime<Utc>,
) -> Result<Option<Booking>, BookingError> {
    let Some((digest, id)) = tx.request(&key.key, now - REQUEST_KEY_TTL).await? else {
        return Ok(None);
    };
    if digest != key.digest {
        return Err(BookingError::KeyReused);
    }
    let booking = tx.booking(id).await?;
    booking.ok_or(BookingError::KeyUsed(id)).map(Some)
}
