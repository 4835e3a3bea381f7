//! Prosody's rooms: what the modules report of each, and what each should be. docs/prosody-protocol.md has the protocol.
//!
//! Reports and directives are whole states, so no message must arrive: `events` applies what is reported, `room`
//! derives what should be, and `poll` delivers what changed otherwise. `maintain` ends what is reported no longer.

mod decide;
mod events;
mod list;
mod load;
mod maintain;
mod poll;
mod room;
mod state;
pub mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config;
use crate::domain::conference::{Conference, ConferenceError};
use crate::queue::Queue;
use crate::reservation::Reservations;
pub use events::EventsError;
pub use list::{CloseError, InstanceStatus, RoomStatus};
pub use poll::UnknownInstance;
use state::{Ending, State};

/// How many conferences of an external reservation system are requested at a time without a waiting request.
const RESOLVING_MAX: usize = 16;

/// The handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prosody {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    reservations: Reservations,
    queue: Queue,
    config: config::Prosody,
    xmpp: config::Xmpp,
    resolving: Semaphore,
    state: Mutex<State>,
}

impl Prosody {
    /// The rooms of the deployment `xmpp`, whose conferences are in `reservations` and `queue`.
    #[must_use]
    pub fn new(
        reservations: Reservations,
        queue: Queue,
        config: config::Prosody,
        xmpp: config::Xmpp,
        now: DateTime<Utc>,
    ) -> Self {
        let state = State {
            revision: u64::try_from(now.timestamp_millis()).unwrap_or_default(),
            ..State::default()
        };
        Self {
            inner: Arc::new(Inner {
                reservations,
                queue,
                config,
                xmpp,
                resolving: Semaphore::new(RESOLVING_MAX),
                state: Mutex::new(state),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if one did, this state is still the best available.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn conference(&self, jid: &str) -> Result<Conference, ConferenceError> {
        let xmpp = &self.inner.xmpp;
        Conference::from_jid(jid, &xmpp.muc_prefix, &xmpp.domain)
    }

    /// Updates the directives of rooms, and makes the changes of their live state that follow. With `notify`, a long poll
    /// delivers directives that changed.
    async fn follow(&self, conferences: &[Conference], notify: bool, now: DateTime<Utc>) {
        let Inner {
            queue,
            reservations,
            ..
        } = &*self.inner;
        let time_zone = reservations.config().time_zone;
        let changes: Vec<_> = {
            let mut state = self.state();
            let changes = conferences.iter().map(|conference| {
                let change = state.refresh(conference, queue, time_zone, notify, now);
                (conference, change)
            });
            changes.collect()
        };
        let changes = changes.into_iter().map(async |(conference, change)| {
            let outcome = match change {
                Some(true) => queue.go_live(conference, now).await,
                Some(false) => queue.end_live(conference).await,
                None => Ok(()),
            };
            if let Err(error) = outcome {
                let conference = conference.node();
                tracing::warn!(conference, %error, "the live state of a room can't be stored; trying again");
            }
        });
        join_all(changes).await;
    }

    /// Ends conferences whose rooms are gone. What can't be stored is tried again by [`Prosody::run`].
    async fn end(&self, endings: Vec<Ending>, now: DateTime<Utc>) {
        let ended = endings.iter().map(async |ending| {
            let done = self.end_one(ending, now).await;
            done.then_some(&ending.conference)
        });
        let ended = join_all(ended).await;
        let mut state = self.state();
        for conference in ended.into_iter().flatten() {
            state.finish_end(conference, Instant::now());
        }
    }

    async fn end_one(&self, ending: &Ending, now: DateTime<Utc>) -> bool {
        let Ending {
            conference,
            id,
            reason,
            only_live,
        } = ending;
        let Inner {
            queue,
            reservations,
            ..
        } = &*self.inner;
        // First: the queue would learn of the end from the store only a little later, and the room may be opened again
        // at once.
        let live_ended = match queue.is_live(conference) {
            true => queue
                .end_live(conference)
                .await
                .map_err(|it| it.to_string()),
            false => Ok(()),
        };
        let ended = match only_live {
            true => Ok(false),
            false => {
                let ended = reservations.end_room(conference, id.as_ref(), *reason, now);
                ended.await.map_err(|it| it.to_string())
            }
        };
        match live_ended.and(ended) {
            Ok(_) => true,
            Err(error) => {
                let conference = conference.node();
                tracing::warn!(
                    conference,
                    error,
                    "the end of a conference can't be stored; trying again"
                );
                false
            }
        }
    }
}
