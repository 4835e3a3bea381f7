//! Conferences by their rooms: for the protocol of usher's modules for Prosody, which names no ids.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::{Backend, GetResult, ReservationError, Reservations};
use crate::domain::allocation::EndReason;
use crate::domain::booking::BookingId;
use crate::domain::conference::Conference;
use crate::domain::reservation::{Reservation, ReservationId};
use crate::store::{ChangedConferences, RunningRow, StoreError, UpstreamRow};

/// A running conference, for a list.
#[derive(Clone, Debug)]
pub struct RunningConference {
    /// Its id on the wire.
    pub id: ReservationId,
    /// The conference.
    pub conference: Conference,
    /// The booking behind it.
    pub booking: Option<BookingId>,
    /// The title of the booking.
    pub title: Option<String>,
    /// The owner of the booking.
    pub owner: Option<String>,
    /// The user that opened it, as Prosody wrote it; may be empty.
    pub mail_owner: String,
    /// The booked start, or the moment it was opened; `None` where only the upstream has it.
    pub start: Option<DateTime<Utc>>,
    /// The moment the room must close.
    pub end: DateTime<Utc>,
    /// Whether its visitors wait until it goes live.
    pub waiting_queue: bool,
}

impl From<RunningRow> for RunningConference {
    fn from(row: RunningRow) -> Self {
        let allocation = row.allocation;
        Self {
            id: ReservationId::Number(allocation.id),
            conference: allocation.conference,
            booking: allocation.booking,
            title: row.title,
            owner: row.owner,
            mail_owner: allocation.mail_owner,
            start: Some(allocation.start),
            end: allocation.end,
            waiting_queue: allocation.options.waiting_queue,
        }
    }
}

impl From<UpstreamRow> for RunningConference {
    fn from(row: UpstreamRow) -> Self {
        Self {
            id: ReservationId::Text(row.id),
            conference: row.conference,
            booking: None,
            title: None,
            owner: None,
            mail_owner: row.mail_owner,
            start: None,
            end: row.end,
            waiting_queue: row.waiting_queue,
        }
    }
}

impl Reservations {
    /// Whether an external reservation system decides: its conferences are read one by one, over HTTP.
    pub(crate) fn asks_upstream(&self) -> bool {
        matches!(self.backend, Backend::Gateway(_))
    }

    /// The conferences that changed by another way than a request of Prosody.
    pub(crate) fn changed(&self) -> &ChangedConferences {
        self.inner.store.changed()
    }

    /// The conferences that run in these rooms. Empty where an external system decides: see
    /// [`Reservations::in_room`].
    pub(crate) async fn running(
        &self,
        rooms: &[&Conference],
        now: DateTime<Utc>,
    ) -> Result<HashMap<Conference, Reservation>, StoreError> {
        if self.asks_upstream() || rooms.is_empty() {
            return Ok(HashMap::new());
        }
        let unended = self.inner.store.unended_of(rooms).await?.into_iter();
        let running = unended.filter(|(_, allocation)| !allocation.is_over(now));
        Ok(running.map(|(room, it)| (room, it.into())).collect())
    }

    /// The conference that runs in this room.
    pub(crate) async fn in_room(
        &self,
        conference: &Conference,
        now: DateTime<Utc>,
    ) -> Result<Option<Reservation>, ReservationError> {
        match &self.backend {
            Backend::Gateway(gateway) => gateway.in_room(conference, now).await,
            Backend::Local => Ok(self.running(&[conference], now).await?.remove(conference)),
        }
    }

    /// What became of a conference that Prosody still has.
    pub(crate) async fn find_again(
        &self,
        reservation: &Reservation,
        now: DateTime<Utc>,
    ) -> Result<GetResult, ReservationError> {
        let found = self.find(&reservation.id.to_string(), now).await?;
        Ok(match found {
            GetResult::Running(found) => GetResult::Running(Box::new(Reservation {
                conference: reservation.conference.clone(),
                source: reservation.source,
                ..*found
            })),
            other => other,
        })
    }

    /// Ends the conference of a room: the one with this id, else the one that runs there. Returns whether there was
    /// one.
    pub(crate) async fn end_room(
        &self,
        conference: &Conference,
        id: Option<&ReservationId>,
        reason: EndReason,
        now: DateTime<Utc>,
    ) -> Result<bool, ReservationError> {
        if let Backend::Gateway(gateway) = &self.backend {
            return Ok(gateway.end_room(conference, id, now).await?);
        }
        let id = match id {
            Some(ReservationId::Number(id)) => Some(*id),
            _ => {
                let running = self.inner.store.unended(conference).await?;
                running.map(|running| running.id)
            }
        };
        match id {
            Some(id) => Ok(self.end_allocation(id, reason, now).await?),
            None => Ok(false),
        }
    }

    /// Every running conference, in the order of their names.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn all_running(
        &self,
        now: DateTime<Utc>,
    ) -> Result<Vec<RunningConference>, StoreError> {
        let store = &self.inner.store;
        let rows = store.running(now).await?;
        let mut all: Vec<_> = rows.into_iter().map(RunningConference::from).collect();
        if self.asks_upstream() {
            let rows = store.all_upstream_running(now).await?;
            all.extend(rows.into_iter().map(RunningConference::from));
        }
        all.sort_by(|a, b| a.conference.cmp(&b.conference));
        Ok(all)
    }

    /// The rooms whose conferences were opened or reported by usher's modules, and have not ended.
    pub(crate) async fn prosody_rooms(&self) -> Result<Vec<Conference>, StoreError> {
        self.inner.store.prosody_rooms().await
    }

    /// Stores which rooms usher's modules opened or reported, and which have ended.
    pub(crate) async fn store_prosody_rooms(
        &self,
        added: &[&Conference],
        removed: &[&Conference],
    ) -> Result<(), StoreError> {
        if added.is_empty() && removed.is_empty() {
            return Ok(());
        }
        let mut tx = self.inner.store.begin().await?;
        tx.remove_prosody_rooms(removed).await?;
        tx.add_prosody_rooms(added).await?;
        tx.commit().await
    }
}
