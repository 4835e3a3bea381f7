//! One thing at a time for a room: requests that are under way and may be shared, and whose turn it is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::{Failure, Verdict};
use crate::conference::Conference;
use crate::reservation::requester::Requester;

/// So many requests may be under way at once; what comes beyond is told to try again.
const FLIGHTS_MAX: usize = 256;

/// A room, and who asks where the answer is for them alone.
type Key = (Conference, Option<Requester>);

/// A request under way. It goes on when nobody waits for it any more: the upstream has heard it.
pub(super) type Flight = Shared<BoxFuture<'static, Verdict>>;

/// The requests under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Key, (Requester, Flight)>>>);

/// What somebody who asks is given.
pub(super) enum Boarded {
    /// Their own request.
    Leading(Flight),
    /// One that they made themselves already.
    Same(Flight),
    /// Somebody else's.
    Other(Flight),
    /// Nothing: there are too many.
    Full,
}

impl Flights {
    /// Joins the request of this key, or makes it.
    pub(super) fn board(
        &self,
        key: Key,
        asker: Requester,
        request: impl Future<Output = Verdict> + Send + 'static,
    ) -> Boarded {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = flights.len() >= FLIGHTS_MAX;
        match flights.entry(key) {
            Entry::Occupied(entry) => match entry.get() {
                (other, flight) if *other == asker => Boarded::Same(flight.clone()),
                (_, flight) => Boarded::Other(flight.clone()),
            },
            Entry::Vacant(_) if full => Boarded::Full,
            Entry::Vacant(entry) => {
                let landing = Landing(self.clone(), entry.key().clone());
                let task = tokio::spawn(async move {
                    let _landing = landing;
                    request.await
                });
                let ended = Verdict::Failed(Failure::NotWritten);
                let flight = task
                    .map(|verdict| verdict.unwrap_or(ended))
                    .boxed()
                    .shared();
                entry.insert((asker, flight.clone()));
                Boarded::Leading(flight)
            }
        }
    }
}

/// Takes a request off the list when it is over, whatever way.
struct Landing(Flights, Key);

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.1);
    }
}

/// Whose turn it is with a room.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Conference, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// What to lock while something is under way for this room. Rooms that nobody waits for are forgotten.
    pub(super) fn of(&self, room: &Conference) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(room).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(room.clone(), Arc::downgrade(&turn));
        turn
    }
}
