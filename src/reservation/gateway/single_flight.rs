//! One thing at a time for a room: requests that are under way and may be shared, and whose turn it is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::{Failure, Verdict};
use crate::domain::conference::Conference;
use crate::domain::requester::Requester;

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn room(name: &str) -> Conference {
        Conference::from_names(name, None, "meet.example.com").unwrap()
    }

    fn person(id: &str) -> Requester {
        Requester {
            user_id: Some(id.to_owned()),
            ..Requester::default()
        }
    }

    /// A request that is never made before the test waits: tests have one thread.
    fn board(flights: &Flights, name: &str, who: &str, made: &Arc<AtomicUsize>) -> Boarded {
        let made = Arc::clone(made);
        flights.board((room(name), None), person(who), async move {
            made.fetch_add(1, Ordering::Relaxed);
            Verdict::Queued
        })
    }

    #[tokio::test]
    async fn those_who_ask_for_a_room_at_once_share_one_request() {
        let (flights, made) = (Flights::default(), Arc::default());
        let Boarded::Leading(first) = board(&flights, "a", "alice", &made) else {
            panic!("the first leads");
        };
        let Boarded::Same(again) = board(&flights, "a", "alice", &made) else {
            panic!("their own");
        };
        let Boarded::Other(other) = board(&flights, "a", "bob", &made) else {
            panic!("somebody else's");
        };
        assert!(matches!(
            board(&flights, "b", "bob", &made),
            Boarded::Leading(_)
        ));
        for flight in [first, again, other] {
            assert!(matches!(flight.await, Verdict::Queued));
        }
        assert_eq!(made.load(Ordering::Relaxed), 2, "one for each room");
        assert!(matches!(
            board(&flights, "a", "bob", &made),
            Boarded::Leading(_)
        ));
    }

    #[tokio::test]
    async fn there_are_not_too_many_at_once() {
        let (flights, made) = (Flights::default(), Arc::default());
        for n in 0..FLIGHTS_MAX {
            let boarded = board(&flights, &format!("room{n}"), "alice", &made);
            assert!(matches!(boarded, Boarded::Leading(_)));
        }
        assert!(matches!(
            board(&flights, "one more", "alice", &made),
            Boarded::Full
        ));
        assert!(matches!(
            board(&flights, "room0", "alice", &made),
            Boarded::Same(_)
        ));
    }

    #[tokio::test]
    async fn a_room_that_nobody_waits_for_is_forgotten() {
        let turns = Turns::default();
        let turn = turns.of(&room("a"));
        assert!(Arc::ptr_eq(&turn, &turns.of(&room("a"))));
        drop(turn);
        let _other = turns.of(&room("b"));
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
