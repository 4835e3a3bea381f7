//! The order of those who wait, from a stop to the next start: an upgrade in the middle of an event costs
//! nobody their place.

use std::sync::Arc;

use super::{Queue, TokenKey};
use crate::store::{PlaceRow, StoreError};

impl Queue {
    /// Writes down the places of all whose sessions the stop has ended; to be called after that. A session
    /// that didn't end in time has none.
    ///
    /// # Errors
    ///
    /// When the database can't take it.
    pub async fn save_places(&self) -> Result<usize, StoreError> {
        let places = self.places();
        let mut tx = self.inner.store.begin().await?;
        tx.keep_places(&places).await?;
        tx.commit().await?;
        Ok(places.len())
    }

    fn places(&self) -> Vec<PlaceRow> {
        let state = self.state();
        let rooms = state.rooms.iter();
        rooms
            .flat_map(|(conference, room)| {
                room.in_order().map(|token| PlaceRow {
                    conference: conference.as_ref().clone(),
                    token: token.0,
                })
            })
            .collect()
    }

    /// Keeps the places of a former run for those who come back within the grace; to be called before anybody
    /// comes.
    ///
    /// # Errors
    ///
    /// When the database can't be used.
    pub async fn restore_places(&self) -> Result<usize, StoreError> {
        let mut tx = self.inner.store.begin().await?;
        let places = tx.take_places().await?;
        tx.commit().await?;
        let count = places.len();
        let grace = self.inner.settings.load_full().reconnect_grace;
        let mut state = self.state();
        for PlaceRow { conference, token } in places {
            let token = TokenKey(token);
            let room = state.rooms.entry(Arc::new(conference)).or_default();
            room.expect(token, grace);
            state.by_token.entry(token).or_default().reserved += 1;
        }
        Ok(count)
    }
}
