//! The queue: who waits, and who is live, per conference. One handle that all sessions share.
//!
//! Who is live is in the store, so that it survives whatever happens to the process; who waits is in
//! memory only, since those who wait come back by themselves. In the line stands how each visitor is told
//! ([`SubscriberRef`]).

mod conference;
mod fan_out;
pub mod line;
mod live;
pub mod message;
mod places;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use thiserror::Error;
use tokio::sync::Mutex as TurnMutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::batch::Batcher;
use crate::clock;
use crate::domain::conference::Conference;
use crate::metrics::{self, VISITOR_STATES};
use crate::store::{Store, StoreError};
use arc_swap::ArcSwap;
use conference::ConferenceQueue;
use fan_out::{Notification, fan_out};
use line::{BATCH_MILLIS, Batch, Ticket};
use live::Change;

/// How often what nobody needs any more is forgotten, and the store looked at without a hint.
const HOUSEKEEPING: Duration = Duration::from_secs(30);
/// How long the loop waits after the database failed it.
const RETRY: Duration = Duration::from_secs(2);
/// Hints to look at the store that come closer together are one look.
const SYNC_DEBOUNCE: Duration = Duration::from_millis(100);

/// What the operator decided, from `[queue]`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many are released a second; 0: all at once.
    pub release_per_second: u32,
    /// How long a conference is live if nobody says that it ended.
    pub live_ttl: TimeDelta,
    /// For how long a visitor whose connection broke keeps their place.
    pub reconnect_grace: Duration,
    /// How many may wait with one token.
    pub max_per_token: u32,
    /// How many may wait from one address.
    pub max_per_address: u32,
    /// `xmpp.muc_prefix`: messages name conferences by their JIDs.
    pub muc_prefix: String,
}

/// What tells the bearer of a token from others without keeping the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey(pub [u8; 16]);

/// A session that visitors wait in.
pub trait Subscriber: fmt::Debug + Send + Sync {
    /// Lets the visitor in this seat in: `body` is the message that says so. Must not wait, nor use the queue
    /// in the same breath.
    fn notify(&self, subscription: u32, body: &[u8]);
}

/// Where a waiting visitor is told. The session may be gone by then.
#[derive(Clone, Debug)]
pub struct SubscriberRef {
    /// The session.
    pub subscriber: Weak<dyn Subscriber>,
    /// Which of its visitors.
    pub subscription: u32,
}

/// Who wants to wait.
#[derive(Clone, Copy, Debug)]
pub struct Visitor {
    /// Their token; `None` for service tokens, which are not counted and keep no place.
    pub token: Option<TokenKey>,
    /// Their address; `None` for the loopback, which is not counted.
    pub address: Option<IpAddr>,
}

/// Why somebody can't wait. Each message fits an ERROR frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LimitReached {
    /// Too many wait with this token.
    #[error(
        "too many wait with this token already; use a token for each visitor, or raise queue.max_per_token"
    )]
    Token,
    /// Too many wait from this address.
    #[error(
        "too many wait from this address already; try again later, or raise queue.max_per_address"
    )]
    Address,
}

/// What is known of a conference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which one.
    pub conference: Conference,
    /// Since when it is live, if it is.
    pub live_since: Option<DateTime<Utc>>,
    /// How many wait and have not been released.
    pub waiting: usize,
}

/// The handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Arc<ArcSwap<Settings>>,
    store: Store,
    /// Held from a look at the store, or a change in it, until the state says the same: so an older look
    /// never undoes a newer change.
    turn: TurnMutex<()>,
    /// Changes whose turn has not come.
    changes: Batcher<Change, (), StoreError>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rooms: HashMap<Arc<Conference>, ConferenceQueue>,
    /// A tree, as it gives back what a crowd took that came and went.
    by_token: BTreeMap<TokenKey, TokenUsage>,
    by_address: BTreeMap<IpAddr, u32>,
}

/// How many wait with a token, and how many of its places are kept. Either is bounded.
#[derive(Debug, Default)]
struct TokenUsage {
    active: u32,
    reserved: u32,
}

/// Somebody's place in a line. Dropping it is leaving.
#[derive(Debug)]
pub struct QueueTicket {
    queue: Queue,
    conference: Arc<Conference>,
    visitor: Visitor,
    ticket: Ticket,
    at_once: Option<u32>,
    /// Whether the place is kept for a while after this.
    keep: bool,
}

impl Queue {
    /// The queue over `store`.
    #[must_use]
    pub fn new(store: Store, settings: Settings) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings: Arc::new(ArcSwap::from_pointee(settings)),
                store,
                turn: TurnMutex::default(),
                changes: Batcher::default(),
                state: Mutex::default(),
            }),
        }
    }

    /// What the operator decided now.
    pub fn reload(&self, settings: Settings) {
        self.inner.settings.store(Arc::new(settings));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock panics; if it did, the state is still the best there is.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place in the line of `conference`; `subscriber` is notified when it is its turn. Who may go in at once
    /// ([`QueueTicket::immediate_release`]) is not told.
    ///
    /// # Errors
    ///
    /// [`LimitReached`] where too many wait already.
    pub fn join(
        &self,
        conference: Conference,
        visitor: Visitor,
        subscriber: SubscriberRef,
    ) -> Result<QueueTicket, LimitReached> {
        let settings = self.inner.settings.load_full();
        let mut state = self.state();
        let State {
            rooms,
            by_token,
            by_address,
        } = &mut *state;
        let here = |usage: &TokenUsage| usage.active;
        let others = visitor.token.and_then(|token| by_token.get(&token));
        let others = others.map_or(0, here);
        if visitor.token.is_some() && others >= settings.max_per_token {
            return Err(LimitReached::Token);
        }
        if let Some(address) = visitor.address {
            let count = by_address.entry(address).or_default();
            if *count >= settings.max_per_address {
                return Err(LimitReached::Address);
            }
            *count += 1;
        }
        // One name for all who wait for it.
        let known = rooms.get_key_value(&conference);
        let conference = known.map_or_else(|| Arc::new(conference), |(known, _)| Arc::clone(known));
        let room = rooms.entry(Arc::clone(&conference)).or_default();
        let per_second = settings.release_per_second;
        let arrival = room.join(visitor.token, others > 0, per_second, subscriber);
        if let Some(token) = visitor.token {
            let usage = by_token.entry(token).or_default();
            usage.active += 1;
            usage.reserved -= arrival.freed.min(usage.reserved);
        }
        drop(state);
        metrics::visitors_released(usize::from(arrival.at_once.is_some()));
        Ok(QueueTicket {
            queue: self.clone(),
            conference,
            visitor,
            ticket: arrival.ticket,
            at_once: arrival.at_once,
            keep: true,
        })
    }

    fn leave(&self, waiting: &QueueTicket) {
        let settings = self.inner.settings.load_full();
        let mut state = self.state();
        let State {
            rooms,
            by_token,
            by_address,
        } = &mut *state;
        let Visitor { token, address } = waiting.visitor;
        if let Some(address) = address
            && let Entry::Occupied(mut count) = by_address.entry(address)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        let Some(room) = rooms.get_mut(&waiting.conference) else {
            return;
        };
        let place = room.leave(token, waiting.ticket);
        if let Some(token) = token
            && let Entry::Occupied(mut entry) = by_token.entry(token)
        {
            let usage = entry.get_mut();
            usage.active -= 1;
            if let Some(place) = place
                && waiting.keep
                && !settings.reconnect_grace.is_zero()
                && usage.reserved < settings.max_per_token
            {
                usage.reserved += 1;
                room.keep(token, place, waiting.at_once, settings.reconnect_grace);
            }
            if usage.is_empty() {
                entry.remove();
            }
        }
        if room.is_idle() {
            rooms.remove(&waiting.conference);
        }
    }

    /// How many wait for `conference`.
    #[must_use]
    pub fn waiting(&self, conference: &Conference) -> usize {
        self.state()
            .rooms
            .get(conference)
            .map_or(0, ConferenceQueue::waiting)
    }

    /// What is known of `conference`.
    #[must_use]
    pub fn status(&self, conference: &Conference) -> Status {
        let state = self.state();
        let room = state.rooms.get(conference);
        Status {
            conference: conference.clone(),
            live_since: room.and_then(ConferenceQueue::live_since),
            waiting: room.map_or(0, ConferenceQueue::waiting),
        }
    }

    /// Whether `conference` is live.
    #[must_use]
    pub fn is_live(&self, conference: &Conference) -> bool {
        let state = self.state();
        let room = state.rooms.get(conference);
        room.and_then(ConferenceQueue::live_since).is_some()
    }

    /// Every conference that is live or waited for, by name.
    #[must_use]
    pub fn conferences(&self) -> Vec<Status> {
        let state = self.state();
        let mut all: Vec<_> = state
            .rooms
            .iter()
            .map(|(conference, room)| Status {
                conference: Conference::clone(conference),
                live_since: room.live_since(),
                waiting: room.waiting(),
            })
            .filter(|status| status.live_since.is_some() || status.waiting > 0)
            .collect();
        drop(state);
        all.sort_by(|a, b| a.conference.cmp(&b.conference));
        all
    }

    /// How many visitors are in each of [`VISITOR_STATES`], and how many conferences are live.
    #[must_use]
    pub fn count(&self) -> ([usize; VISITOR_STATES.len()], usize) {
        let (mut visitors, mut live) = ([0; VISITOR_STATES.len()], 0);
        for room in self.state().rooms.values() {
            visitors[usize::from(room.is_live())] += room.waiting();
            visitors[2] += room.released();
            visitors[3] += room.away();
            live += usize::from(room.live_since().is_some());
        }
        (visitors, live)
    }

    /// Who is to be told that it went live; `asked` is since when they are owed the news.
    fn apply_live(
        &self,
        conference: &Conference,
        since: DateTime<Utc>,
        asked: Instant,
    ) -> Option<Notification> {
        let settings = self.inner.settings.load_full();
        let mut state = self.state();
        let room = state.rooms.entry(Arc::new(conference.clone())).or_default();
        if room.live_since().is_some() {
            return None;
        }
        let waiting = room.waiting();
        let batch = room.go_live(since, settings.release_per_second);
        drop(state);
        tracing::info!(conference = conference.node(), waiting, "live");
        Some(self.news(conference, batch?, asked))
    }

    fn news(
        &self,
        conference: &Conference,
        batch: Batch<SubscriberRef>,
        since: Instant,
    ) -> Notification {
        let jid = conference.jid(&self.inner.settings.load_full().muc_prefix);
        Notification {
            seats: batch.released,
            body: message::live(&jid, batch.delay_millis).into(),
            since,
        }
    }

    fn apply_end(&self, conference: &Conference) {
        let mut state = self.state();
        let State {
            rooms, by_token, ..
        } = &mut *state;
        let Some(room) = rooms.get_mut(conference) else {
            return;
        };
        let was_live = room.end_live(|token| TokenUsage::forget(by_token, token));
        if room.is_idle() {
            rooms.remove(conference);
        }
        drop(state);
        if was_live {
            tracing::info!(conference = conference.node(), "not live any more");
        }
    }

    /// Makes the state say what the store says: what has expired is ended, what is to go live by itself
    /// does, and what others changed is taken over.
    ///
    /// # Errors
    ///
    /// When the database can't be used.
    async fn sync(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let _turn = self.inner.turn.lock().await;
        let asked = Instant::now();
        let store = &self.inner.store;
        if store
            .next_live_change()
            .await?
            .is_some_and(|next| next <= now)
        {
            let mut tx = store.begin().await?;
            tx.end_live_expired(now).await?;
            let due = tx.take_auto_live(now).await?;
            for conference in &due {
                tracing::info!(conference = conference.node(), "goes live by itself");
            }
            let until = now + self.inner.settings.load_full().live_ttl;
            tx.set_live(&due.iter().collect::<Vec<_>>(), now, until)
                .await?;
            tx.commit().await?;
        }
        let live: HashMap<_, _> = store
            .live()
            .await?
            .into_iter()
            .map(|row| (row.conference, row.since))
            .collect();
        let over: Vec<Arc<Conference>> = {
            let state = self.state();
            let live_here = state
                .rooms
                .iter()
                .filter(|(_, room)| room.live_since().is_some());
            live_here
                .map(|(conference, _)| conference)
                .filter(|c| !live.contains_key(c.as_ref()))
                .cloned()
                .collect()
        };
        for conference in &over {
            self.apply_end(conference);
        }
        let live = live.iter();
        fan_out(
            live.filter_map(|(conference, since)| self.apply_live(conference, *since, asked))
                .collect(),
        );
        Ok(())
    }

    /// Keeps the state and the store together, and the pace, until `stop`; begins after `pause`, which is what
    /// [`Queue::sync_now`] said.
    pub async fn run(&self, pause: Duration, stop: CancellationToken) {
        tokio::join!(self.sync_loop(pause, &stop), self.release_loop(&stop));
    }

    /// Makes the state say what the store says, if that can be had; says after what time to look again.
    pub async fn sync_now(&self) -> Duration {
        match self.sync(clock::now()).await {
            Ok(()) => self.until_next_change(clock::now()).await,
            Err(error) => {
                tracing::warn!(%error, "could not look which conferences are live; trying again");
                RETRY
            }
        }
    }

    async fn sync_loop(&self, mut pause: Duration, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                () = self.inner.store.live_changed() => {}
            }
            pause = self.sync_now().await;
            self.forget_idle();
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(SYNC_DEBOUNCE) => {}
            }
        }
    }

    async fn until_next_change(&self, now: DateTime<Utc>) -> Duration {
        match self.inner.store.next_live_change().await {
            Ok(next) => clock::pause(next, now, HOUSEKEEPING),
            Err(_) => RETRY,
        }
    }

    /// Releases a batch a second, of each conference that is live and has somebody waiting.
    async fn release_loop(&self, stop: &CancellationToken) {
        let mut second = interval(Duration::from_millis(u64::from(BATCH_MILLIS)));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = second.tick() => {}
            }
            let per_second = self.inner.settings.load_full().release_per_second;
            let batches: Vec<_> = {
                let mut state = self.state();
                let rooms = state.rooms.iter_mut();
                rooms
                    .filter_map(|(conference, room)| {
                        Some((Arc::clone(conference), room.tick(per_second)?))
                    })
                    .collect()
            };
            let turn = Instant::now();
            let batches = batches.into_iter();
            fan_out(
                batches
                    .map(|(conference, batch)| self.news(&conference, batch, turn))
                    .collect(),
            );
        }
    }

    /// Forgets places that nobody came back to, and conferences that nobody waits for.
    fn forget_idle(&self) {
        let mut state = self.state();
        let State {
            rooms, by_token, ..
        } = &mut *state;
        rooms.retain(|_, room| {
            room.forget(|token| TokenUsage::forget(by_token, token));
            !room.is_idle()
        });
    }
}

impl TokenUsage {
    fn is_empty(&self) -> bool {
        self.active == 0 && self.reserved == 0
    }

    /// A place of this token is not kept any more.
    fn forget(by_token: &mut BTreeMap<TokenKey, Self>, token: TokenKey) {
        if let Entry::Occupied(mut entry) = by_token.entry(token) {
            let usage = entry.get_mut();
            usage.reserved = usage.reserved.saturating_sub(1);
            if usage.is_empty() {
                entry.remove();
            }
        }
    }
}

impl QueueTicket {
    /// What this visitor waits for.
    #[must_use]
    pub fn conference(&self) -> &Conference {
        &self.conference
    }

    /// Whether this visitor does not have to wait, and over how many milliseconds they are to spread their
    /// joining then.
    #[must_use]
    pub fn immediate_release(&self) -> Option<u32> {
        self.at_once
    }

    /// Leaves for good: the place is kept for nobody.
    pub fn leave_permanently(mut self) {
        self.keep = false;
    }
}

impl Drop for QueueTicket {
    fn drop(&mut self) {
        self.queue.leave(self);
    }
}
