//! The upstream's conferences by their rooms.

use chrono::{DateTime, Utc};

use super::{Gateway, fallback};
use crate::domain::conference::Conference;
use crate::domain::reservation::{Reservation, ReservationId};
use crate::reservation::{GetResult, ReservationError};
use crate::store::StoreError;

impl Gateway {
    /// The conference that runs in this room, as the upstream has it now.
    pub(in crate::reservation) async fn in_room(
        &self,
        conference: &Conference,
        now: DateTime<Utc>,
    ) -> Result<Option<Reservation>, ReservationError> {
        let Some(row) = self.inner.store.upstream_running(conference, now).await? else {
            let running = self.inner.store.unended(conference).await?;
            let running = running.filter(|running| !running.is_over(now));
            return Ok(running.map(fallback));
        };
        Ok(match self.find(&row.id, now).await? {
            GetResult::Running(found) => Some(Reservation {
                conference: Some(conference.clone()),
                ..*found
            }),
            _ => None,
        })
    }

    /// Ends the conference with this id, else the one that runs in the room. Returns whether there was one.
    pub(in crate::reservation) async fn end_room(
        &self,
        conference: &Conference,
        id: Option<&ReservationId>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        if let Some(id) = id {
            return self.end(&id.to_string(), now).await;
        }
        let store = &self.inner.store;
        let mut known = false;
        if let Some(row) = store.upstream_running(conference, now).await? {
            known = self.end(&row.id, now).await?;
        }
        if let Some(running) = store.unended(conference).await? {
            known |= self.end_fallback(running.id, now).await?;
        }
        Ok(known)
    }
}
