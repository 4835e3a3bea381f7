//! The order of waiting visitors, from a stop to the next start: an upgrade during an event costs no visitor its place.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::budget::WINDOW;
use super::{Queue, TokenKey, now};
use crate::store::{PlaceRow, StoreError};

/// After a restart, releases wait for the owners of the kept places, at most for this time: clients of Jitsi Meet
/// reconnect after five seconds. The places are kept for at least as long.
const OWNER_WAIT: Duration = Duration::from_secs(10);

impl Queue {
    /// Stores the places of all visitors whose sessions the stop, which began at `stopped_at`, has ended; call it after
    /// that. A session that did not end in time has no reserved place.
    ///
    /// # Errors
    ///
    /// When the database can't be written.
    pub async fn save_places(&self, stopped_at: Instant) -> Result<usize, StoreError> {
        let places = self.reserved_places(stopped_at);
        let mut tx = self.inner.store.begin().await?;
        tx.keep_places(&places).await?;
        tx.commit().await?;
        Ok(places.len())
    }

    fn reserved_places(&self, at: Instant) -> Vec<PlaceRow> {
        let (at, state) = (at.into_std(), self.state());
        let conferences = state.conferences.iter();
        conferences
            .flat_map(|(conference, queue)| {
                queue.waiting_tokens(at).map(|token| PlaceRow {
                    conference: conference.as_ref().clone(),
                    token: token.0,
                })
            })
            .collect()
    }

    /// Reserves the places of the former run for visitors that return, and continues its pace; call it before any
    /// visitor can join.
    ///
    /// # Errors
    ///
    /// When the database can't be used.
    pub async fn restore_places(&self) -> Result<usize, StoreError> {
        let store = &self.inner.store;
        let has_live = store.next_live_change().await?.is_some();
        let mut tx = store.begin().await?;
        let places = tx.take_places().await?;
        tx.commit().await?;
        let count = places.len();
        let config = self.inner.config.load();
        let now = now();
        let mut state = self.state();
        if has_live || count > 0 {
            state.not_before = Some(now + WINDOW);
        }
        let rate = state.rate(&config);
        for PlaceRow { conference, token } in places {
            let token = TokenKey(token);
            let key = state.shared_key(&conference);
            let queue = state.conferences.entry(Arc::clone(&key)).or_default();
            queue.restore_place(token, now, OWNER_WAIT, config.reconnect_grace);
            state.tokens.restore(token);
            state.settle(&key, rate, now);
        }
        Ok(count)
    }
}
