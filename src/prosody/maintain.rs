//! What happens without a message of Prosody: changed bookings are followed, and what no Prosody reports any longer ends.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Prosody;
use super::room::Known;
use super::state::{Ending, Phase, Room};
use crate::clock;
use crate::domain::allocation::EndReason;
use crate::domain::conference::Conference;
use crate::domain::reservation::Reservation;
use crate::reservation::GetResult;
use crate::store::Change;

const TICK: Duration = Duration::from_secs(1);
/// How often everything is read again: what another process changed (`usher bookings`) is noticed then.
const READ_ALL: Duration = Duration::from_secs(15);
/// How often a conference of an external reservation system is read again.
const REFRESH: Duration = Duration::from_secs(30);
/// How long it is remembered that a visitor was sent to the queue.
const VISITED_MEMORY: Duration = Duration::from_secs(10);

/// What is due.
#[derive(Default)]
struct Due {
    endings: Vec<Ending>,
    changed: Vec<Conference>,
    undecided: Vec<Conference>,
    refresh: Vec<Conference>,
}

impl Prosody {
    /// Loads the rooms of the former run: they end unless a Prosody reports them within `prosody.absent_after`.
    pub async fn restore(&self) {
        let rooms = match self.inner.reservations.prosody_rooms().await {
            Ok(rooms) => rooms,
            Err(error) => {
                tracing::warn!(%error, "failed to load the rooms of Prosody's modules");
                return;
            }
        };
        let until = Instant::now() + self.inner.config.absent_after;
        let muc_prefix = &self.inner.xmpp.muc_prefix;
        let mut state = self.state();
        for conference in rooms {
            let jid = conference.jid(muc_prefix);
            let room = state.room(&conference, &jid, Phase::Orphan { until });
            room.owned = true;
        }
    }

    /// Follows changes until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut read_all = Instant::now() + READ_ALL;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.inner.reservations.changed().take() => self.on_changed(changed).await,
                _ = tick.tick() => {
                    self.maintain(clock::now()).await;
                    if read_all <= Instant::now() {
                        read_all = Instant::now() + READ_ALL;
                        self.read_all().await;
                    }
                }
            }
        }
        self.save().await;
    }

    async fn on_changed(&self, changed: HashMap<Conference, Change>) {
        let (now, is_upstream) = (clock::now(), self.inner.reservations.asks_upstream());
        let known: Vec<_> = {
            let state = self.state();
            let changed = changed.into_iter();
            changed
                .filter(|(conference, _)| state.rooms.get(conference).is_some_and(Room::is_there))
                .collect()
        };
        // Where a conference ended, its live state ended with it: it must not go live again.
        let allocations = known.iter().filter(|_| !is_upstream);
        self.read_local(allocations.map(|(it, _)| it.clone()).collect(), now)
            .await;
        let unmanaged = known
            .iter()
            .filter(|(_, change)| *change == Change::Allocation);
        self.read_unmanaged(unmanaged.map(|(it, _)| it), now).await;
        let conferences: Vec<_> = known
            .into_iter()
            .map(|(conference, _)| conference)
            .collect();
        self.follow(&conferences, true, now).await;
    }

    async fn read_all(&self) {
        let now = clock::now();
        let there: Vec<_> = {
            let state = self.state();
            let there = state.rooms.iter().filter(|(_, room)| room.is_there());
            there.map(|(conference, _)| conference.clone()).collect()
        };
        if !self.inner.reservations.asks_upstream() {
            self.read_local(there.clone(), now).await;
        }
        self.read_unmanaged(there.iter(), now).await;
        self.follow(&there, true, now).await;
    }

    /// Reads the bookings of those of the rooms whose conferences another module reserves.
    async fn read_unmanaged(&self, rooms: impl Iterator<Item = &Conference>, now: DateTime<Utc>) {
        let unmanaged: Vec<_> = {
            let state = self.state();
            let unmanaged = rooms.filter(|conference| {
                let room = state.rooms.get(conference);
                room.is_some_and(|room| matches!(room.known, Known::Unmanaged { .. }))
            });
            unmanaged.cloned().collect()
        };
        self.load_unmanaged(&unmanaged, now).await;
    }

    /// Reads the conferences of these rooms from the store.
    async fn read_local(&self, conferences: Vec<Conference>, now: DateTime<Utc>) {
        let rooms: Vec<_> = conferences.iter().collect();
        let running = match self.inner.reservations.running(&rooms, now).await {
            Ok(running) => running,
            Err(error) => {
                tracing::warn!(%error, "the conferences of Prosody's rooms can't be read; trying again");
                return;
            }
        };
        let ended: Vec<_> = {
            let mut state = self.state();
            let ended = conferences.into_iter().filter_map(|conference| {
                let room = state.rooms.get_mut(&conference)?;
                let Known::Running(former) = &room.known else {
                    return None;
                };
                match running.get(&conference) {
                    Some(running) => {
                        room.run(running.clone());
                        None
                    }
                    None => Some((conference, former.clone())),
                }
            });
            ended.collect()
        };
        for (conference, former) in ended {
            self.find_again(&conference, &former, now).await;
        }
    }

    /// Reads a conference by its id: it may be over, or another one runs in its room.
    async fn find_again(&self, conference: &Conference, former: &Reservation, now: DateTime<Utc>) {
        let found = match self.inner.reservations.find_again(former, now).await {
            Ok(found) => found,
            Err(error) => {
                let conference = conference.node();
                tracing::debug!(conference, %error, "a running conference can't be read");
                return;
            }
        };
        let mut state = self.state();
        let Some(room) = state.rooms.get_mut(conference) else {
            return;
        };
        // Another conference of the room may have been opened meanwhile.
        if room.reservation_id() != Some(&former.id) {
            return;
        }
        match found {
            GetResult::Running(found) => room.run(*found),
            GetResult::Ended { at, message } => room.known = Known::Over { at, message },
            GetResult::NotFound => {
                room.known = Known::Undecided;
                room.retry_at = Instant::now();
            }
        }
    }

    async fn maintain(&self, now: DateTime<Utc>) {
        self.forget_absent();
        let due = self.due(now);
        self.end(due.endings, now).await;
        self.load(&due.undecided, now).await;
        let mut changed = due.changed;
        changed.extend(due.undecided);
        self.follow(&changed, true, now).await;
        for conference in due.refresh {
            let prosody = self.clone();
            tokio::spawn(async move { prosody.refresh_upstream(conference).await });
        }
        self.save().await;
    }

    /// Removes instances that were absent for too long; their rooms end unless another instance reports them.
    fn forget_absent(&self) {
        let (now, mut state) = (Instant::now(), self.state());
        let absent_after = self.inner.config.absent_after;
        let absent: Vec<_> = state
            .instances
            .iter()
            .filter(|(_, it)| it.polls == 0 && now - it.last_seen >= absent_after)
            .map(|(name, _)| name.clone())
            .collect();
        for name in absent {
            tracing::info!(instance = &*name, "Prosody's modules are absent");
            state.instances.remove(&name);
            for room in state.rooms.values_mut() {
                if room.instance.as_ref() == Some(&name) && room.is_there() {
                    room.instance = None;
                    room.phase = Phase::Orphan { until: now };
                }
            }
        }
        state.visited.retain(|_, at| now - *at < VISITED_MEMORY);
    }

    fn due(&self, at: DateTime<Utc>) -> Due {
        let is_upstream = self.inner.reservations.asks_upstream();
        let (now, mut state) = (Instant::now(), self.state());
        let mut due = Due::default();
        let mut ending = Vec::new();
        state
            .rooms
            .retain(|_, room| !matches!(room.phase, Phase::Gone { until } if until <= now));
        for (conference, room) in &mut state.rooms {
            match room.phase {
                Phase::Expected { until } if until <= now && room.requests == 0 => {
                    ending.push((conference.clone(), EndReason::Destroyed));
                }
                Phase::Orphan { until } if until <= now => {
                    ending.push((conference.clone(), EndReason::Lost));
                }
                Phase::Ending { next, reason } if next <= now => {
                    ending.push((conference.clone(), reason));
                }
                Phase::Present => due.check_present(conference, room, is_upstream, at),
                _ => {}
            }
        }
        for (conference, reason) in ending {
            due.endings
                .extend(state.begin_end(&conference, reason, now));
        }
        due
    }

    /// Reads a conference of an external reservation system again.
    async fn refresh_upstream(&self, conference: Conference) {
        let Ok(_permit) = self.inner.resolving.acquire().await else {
            return;
        };
        let former = match self.state().rooms.get(&conference).map(|room| &room.known) {
            Some(Known::Running(former)) => former.clone(),
            _ => return,
        };
        let now = clock::now();
        self.find_again(&conference, &former, now).await;
        self.follow(&[conference], true, now).await;
    }

    /// Stores which rooms were opened or reported, and which have ended.
    async fn save(&self) {
        let unsaved = std::mem::take(&mut self.state().unsaved);
        let of_kind = |kind: bool| {
            let rooms = unsaved.iter().filter(move |(_, added)| **added == kind);
            rooms.map(|(room, _)| room).collect::<Vec<_>>()
        };
        let (added, removed) = (of_kind(true), of_kind(false));
        let reservations = &self.inner.reservations;
        if let Err(error) = reservations.store_prosody_rooms(&added, &removed).await {
            tracing::warn!(%error, "the rooms of Prosody's modules can't be stored; trying again");
            let mut state = self.state();
            for (room, added) in unsaved {
                state.unsaved.entry(room).or_insert(added);
            }
        }
    }
}

impl Due {
    fn check_present(
        &mut self,
        conference: &Conference,
        room: &mut Room,
        is_upstream: bool,
        at: DateTime<Utc>,
    ) {
        let now = Instant::now();
        match &room.known {
            Known::Undecided if room.retry_at <= now => self.undecided.push(conference.clone()),
            Known::AwaitOwner(text) if room.await_until.is_some_and(|until| until <= now) => {
                let message = text.clone();
                room.known = Known::Over { at, message };
                self.changed.push(conference.clone());
            }
            Known::Running(_) if is_upstream && room.retry_at <= now => {
                room.retry_at = now + REFRESH;
                self.refresh.push(conference.clone());
            }
            _ => {}
        }
    }
}
