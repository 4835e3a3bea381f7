//! The order of waiting visitors, from a stop to the next start: an upgrade during an event costs no visitor its place.

use std::sync::Arc;

use super::{Queue, TokenKey};
use crate::store::{PlaceRow, StoreError};

impl Queue {
    /// Stores the places of all visitors whose sessions the stop has ended; call it after that. A session that did not
    /// end in time has no reserved place.
    ///
    /// # Errors
    ///
    /// When the database can't be written.
    pub async fn save_places(&self) -> Result<usize, StoreError> {
        let places = self.reserved_places();
        let mut tx = self.inner.store.begin().await?;
        tx.keep_places(&places).await?;
        tx.commit().await?;
        Ok(places.len())
    }

    fn reserved_places(&self) -> Vec<PlaceRow> {
        let state = self.state();
        let conferences = state.conferences.iter();
        conferences
            .flat_map(|(conference, queue)| {
                queue.waiting_tokens().map(|token| PlaceRow {
                    conference: conference.as_ref().clone(),
                    token: token.0,
                })
            })
            .collect()
    }

    /// Reserves the places of the former run for visitors that return within the grace; call it before any visitor can
    /// join.
    ///
    /// # Errors
    ///
    /// When the database can't be used.
    pub async fn restore_places(&self) -> Result<usize, StoreError> {
        let mut tx = self.inner.store.begin().await?;
        let places = tx.take_places().await?;
        tx.commit().await?;
        let count = places.len();
        let grace = self.inner.config.load().reconnect_grace;
        let mut state = self.state();
        for PlaceRow { conference, token } in places {
            let token = TokenKey(token);
            let queue = state.conferences.entry(Arc::new(conference)).or_default();
            queue.restore_place(token, grace);
            state.tokens.restore(token);
        }
        Ok(count)
    }
}
