//! The conferences of rooms that are there already are found, or allocated.

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::Prosody;
use super::decide::{Outcome, RESOLVE_MAX, RETRY, VISITORS_WAIT, failed};
use super::room::Known;
use super::state::Phase;
use crate::clock;
use crate::domain::conference::Conference;

impl Prosody {
    /// Finds the conferences of rooms that were reported and are not decided, or requests them: rooms from before a
    /// restart of usher, and rooms that were opened while usher was unreachable.
    pub(super) async fn load(&self, conferences: &[Conference], now: DateTime<Utc>) {
        let (undecided, unmanaged) = self.take_undecided(conferences);
        self.load_unmanaged(&unmanaged, now).await;
        if undecided.is_empty() {
            return;
        }
        if self.inner.reservations.asks_upstream() {
            for conference in undecided {
                let prosody = self.clone();
                tokio::spawn(async move {
                    let Ok(_permit) = prosody.inner.resolving.acquire().await else {
                        return;
                    };
                    prosody.resolve(&conference, clock::now()).await;
                    prosody.follow(&[conference], true, clock::now()).await;
                });
            }
            return;
        }
        let rooms: Vec<_> = undecided.iter().collect();
        let running = match self.inner.reservations.running(&rooms, now).await {
            Ok(running) => running,
            Err(error) => {
                tracing::warn!(%error, "the conferences of reported rooms can't be read; trying again");
                self.retry(&undecided);
                return;
            }
        };
        let missing: Vec<_> = {
            let mut state = self.state();
            let missing = undecided.iter().filter(|conference| {
                let Some(found) = running.get(conference) else {
                    return true;
                };
                if let Some(room) = state.rooms.get_mut(conference) {
                    room.run(found.clone());
                }
                false
            });
            missing.collect()
        };
        join_all(missing.into_iter().map(|room| self.resolve(room, now))).await;
    }

    /// Finds whether the visitors of conferences wait that another module reserves.
    pub(super) async fn load_unmanaged(&self, conferences: &[Conference], now: DateTime<Utc>) {
        if conferences.is_empty() {
            return;
        }
        let rooms: Vec<_> = conferences.iter().collect();
        let found = match self.inner.reservations.have_queue(&rooms, now).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the bookings of reported rooms can't be read; trying again");
                self.retry(conferences);
                return;
            }
        };
        let mut state = self.state();
        for (conference, waiting_queue) in conferences.iter().zip(found) {
            if let Some(room) = state.rooms.get_mut(conference) {
                room.known = Known::Unmanaged { waiting_queue };
            }
        }
    }

    /// Those of the rooms that are there and not decided, and are not requested at the moment; and apart from them the
    /// rooms whose conferences another module reserves.
    fn take_undecided(&self, conferences: &[Conference]) -> (Vec<Conference>, Vec<Conference>) {
        let (now, mut state) = (Instant::now(), self.state());
        let undecided = conferences.iter().filter(|conference| {
            let Some(room) = state.rooms.get_mut(conference) else {
                return false;
            };
            let is_due = matches!(room.known, Known::Undecided)
                && room.phase == Phase::Present
                && room.requests == 0
                && room.retry_at <= now;
            if is_due {
                room.retry_at = now + RESOLVE_MAX;
            }
            is_due
        });
        let undecided: Vec<_> = undecided.cloned().collect();
        undecided.into_iter().partition(|it| state.manages(it))
    }

    fn retry(&self, conferences: &[Conference]) {
        let mut state = self.state();
        for conference in conferences {
            if let Some(room) = state.rooms.get_mut(conference) {
                room.retry_at = Instant::now() + RETRY;
            }
        }
    }

    /// Finds the conference of a room that is there, or requests it.
    pub(super) async fn resolve(&self, conference: &Conference, now: DateTime<Utc>) {
        let Some((jid, requester)) = self.state().rooms.get(conference).map(|room| {
            let requester = room.requester.clone().unwrap_or_default();
            (room.jid.clone(), requester)
        }) else {
            return;
        };
        let outcome = match self.inner.reservations.in_room(conference, now).await {
            Ok(Some(reservation)) => Outcome::Running {
                reservation: Box::new(reservation),
                created: false,
            },
            Ok(None) => self.allocate(conference, &jid, &requester, now).await,
            Err(error) => failed(error),
        };
        let mut state = self.state();
        let Some(room) = state.rooms.get_mut(conference) else {
            return;
        };
        match outcome {
            Outcome::Running { reservation, .. } => room.run(*reservation),
            Outcome::Refused { text, only_owner } if only_owner && !room.report.occupied => {
                room.await_owner(text);
            }
            Outcome::Refused { text, .. } => {
                room.known = Known::Over {
                    at: now,
                    message: text,
                }
            }
            Outcome::Queued => {
                let message = VISITORS_WAIT.to_owned();
                room.known = Known::Over { at: now, message };
            }
            Outcome::Failed(error) => {
                let conference = conference.node();
                tracing::warn!(
                    conference,
                    error,
                    "the conference of a room can't be requested; trying again"
                );
                room.retry_at = Instant::now() + RETRY;
            }
        }
    }
}
