//! What is known of instances and rooms, for lists; and the end of a conference by an operator.

use std::collections::HashMap;
use std::slice;

use chrono::{DateTime, Utc};
use thiserror::Error;
use tokio::time::Instant;

use super::Prosody;
use super::room::Known;
use super::state::{Phase, Room};
use crate::domain::allocation::EndReason;
use crate::domain::conference::Conference;
use crate::domain::reservation::ReservationId;
use crate::reservation::ReservationError;

/// What Prosody reports of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomStatus {
    /// The number of occupants, the focus not counted.
    pub occupants: u32,
    /// The number of moderators among them.
    pub moderators: u32,
    /// The number of visitors, if Prosody knows it.
    pub visitors: Option<u32>,
    /// The meeting id of the room.
    pub meeting_id: Option<String>,
}

/// The modules in one Prosody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceStatus {
    /// Its name.
    pub instance: String,
    /// The version of the modules.
    pub shim: String,
    /// The number of rooms.
    pub rooms: usize,
    /// The number of seconds since its last message; 0 while a long poll is open.
    pub seconds_absent: u64,
}

/// Why a conference was not ended.
#[derive(Debug, Error)]
pub enum CloseError {
    /// Prosody can't be told to close the room.
    #[error(
        "The room was opened by Prosody's stock module or by modules of usher 0.1, which can't be told to close it. Close it in Prosody, or install usher's modules."
    )]
    NotReported,
    /// The end can't be stored.
    #[error(transparent)]
    Reservation(#[from] ReservationError),
}

impl Prosody {
    /// The rooms that Prosody reports.
    #[must_use]
    pub fn rooms(&self) -> HashMap<Conference, RoomStatus> {
        let state = self.state();
        let present = state
            .rooms
            .iter()
            .filter(|(_, room)| room.phase == Phase::Present);
        present
            .map(|(conference, room)| (conference.clone(), status(room)))
            .collect()
    }

    /// The connected instances, in the order of their names.
    #[must_use]
    pub fn instances(&self) -> Vec<InstanceStatus> {
        let (now, state) = (Instant::now(), self.state());
        let mut all: Vec<_> = state
            .instances
            .iter()
            .map(|(name, instance)| InstanceStatus {
                instance: name.to_string(),
                shim: instance.shim.clone(),
                rooms: state
                    .rooms
                    .values()
                    .filter(|room| {
                        room.instance.as_ref() == Some(name) && room.phase == Phase::Present
                    })
                    .count(),
                seconds_absent: match instance.polls {
                    0 => (now - instance.last_seen).as_secs(),
                    _ => 0,
                },
            })
            .collect();
        all.sort_by(|a, b| a.instance.cmp(&b.instance));
        all
    }

    /// Ends a conference: Prosody closes its room.
    ///
    /// # Errors
    ///
    /// [`CloseError`].
    pub async fn close(
        &self,
        conference: &Conference,
        now: DateTime<Utc>,
    ) -> Result<(), CloseError> {
        let room_name = conference.display_name();
        let message = format!("The conference in \"{room_name}\" is over: an operator ended it.");
        // First: a running conference would go live again as soon as its live state ends.
        let (id, former) = {
            let mut state = self.state();
            let room = state.rooms.get_mut(conference);
            let room = room.filter(|room| room.is_there());
            let room = room.ok_or(CloseError::NotReported)?;
            let id = room.reservation_id().cloned();
            let over = Known::Over { at: now, message };
            (id, std::mem::replace(&mut room.known, over))
        };
        let ended = self.end_closed(conference, id.as_ref(), now).await;
        if ended.is_err()
            && let Some(room) = self.state().rooms.get_mut(conference)
        {
            room.known = former;
        }
        self.follow(slice::from_ref(conference), true, now).await;
        Ok(ended?)
    }

    async fn end_closed(
        &self,
        conference: &Conference,
        id: Option<&ReservationId>,
        now: DateTime<Utc>,
    ) -> Result<(), ReservationError> {
        let (queue, reservations) = (&self.inner.queue, &self.inner.reservations);
        if queue.is_live(conference) {
            queue.end_live(conference).await?;
        }
        reservations
            .end_room(conference, id, EndReason::Closed, now)
            .await?;
        Ok(())
    }
}

fn status(room: &Room) -> RoomStatus {
    RoomStatus {
        occupants: room.report.occupants,
        moderators: room.report.moderators,
        visitors: room.report.visitors,
        meeting_id: room.report.meeting_id.clone(),
    }
}
