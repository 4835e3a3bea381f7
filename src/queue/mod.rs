//! The waiting queue: which visitors wait for each conference, and which conferences are live. All sessions share one
//! handle.
//!
//! Live conferences are in the store, so they survive a restart. Waiting visitors are in memory only: their clients
//! reconnect, and a stop saves the order of their places. Each entry of a line holds a reference to the session to
//! notify ([`SubscriberRef`]).

mod agenda;
pub mod budget;
mod conference;
mod fan_out;
mod limits;
pub mod line;
mod live;
pub mod message;
mod pace;
mod places;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batch::Batcher;
use crate::config;
use crate::domain::conference::Conference;
use crate::metrics::{self, VISITOR_STATES};
use crate::store::{Store, StoreError};
use agenda::Agenda;
use budget::Rate;
use conference::{Arrival, ConferenceQueue};
use fan_out::Notification;
use limits::TokenLimits;
pub use limits::{LimitReached, TokenKey};
use line::{Batch, Ticket};
use live::PendingChange;

/// A session with waiting visitors.
pub trait Subscriber: fmt::Debug + Send + Sync {
    /// Sends `body`, the message of a release, to the visitor of this subscription. Must neither block nor call the
    /// queue.
    fn notify(&self, subscription: u32, body: &[u8]);
}

/// The session to notify, which may have ended since, and its subscription.
#[derive(Clone, Debug)]
pub struct SubscriberRef {
    /// The session.
    pub subscriber: Weak<dyn Subscriber>,
    /// The number of the subscription within the session.
    pub subscription: u32,
}

/// The state of a conference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConferenceStatus {
    /// Its key.
    pub conference: Conference,
    /// When it went live, if it is live.
    pub live_since: Option<DateTime<Utc>>,
    /// The number of visitors that wait and were not released.
    pub waiting: usize,
}

/// The handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ArcSwap<config::Queue>,
    /// `xmpp.muc_prefix`: messages name conferences by their JIDs.
    muc_prefix: String,
    store: Store,
    changes: Batcher<PendingChange, (), StoreError>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    conferences: HashMap<Arc<Conference>, ConferenceQueue>,
    tokens: TokenLimits,
    /// Grows with each transaction that changes which conferences are live.
    live_version: u64,
    /// Whether the live conferences may differ from those in the store.
    is_stale: bool,
    agenda: Agenda,
    /// See [`Rate::not_before`].
    not_before: Option<std::time::Instant>,
}

/// A visitor's place in the queue. Dropping it leaves the queue; the place stays reserved for
/// `queue.reconnect_grace`.
#[derive(Debug)]
pub struct QueueTicket {
    queue: Queue,
    conference: Arc<Conference>,
    token: Option<TokenKey>,
    ticket: Ticket,
    spread_millis: u32,
    is_released: bool,
    reserve_place: bool,
}

/// The current instant of tokio's clock, which tests can pause.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Queue {
    /// The queue over `store`; `muc_prefix` is `xmpp.muc_prefix`.
    #[must_use]
    pub fn new(store: Store, config: config::Queue, muc_prefix: &str) -> Self {
        let inner = Arc::new(Inner {
            config: ArcSwap::from_pointee(config),
            muc_prefix: muc_prefix.to_owned(),
            store,
            changes: Batcher::default(),
            state: Mutex::default(),
        });
        let observer: Weak<Inner> = Arc::downgrade(&inner);
        inner.store.observe_live(observer);
        Self { inner }
    }

    /// Replaces the configuration.
    pub fn reload(&self, config: config::Queue) {
        let mut state = self.state();
        let rate = state.rate(&config);
        self.inner.config.store(Arc::new(config));
        let all: Vec<_> = state.conferences.keys().map(Arc::clone).collect();
        for conference in all {
            state.settle(&conference, rate, now());
        }
    }

    /// Synchronises with the store and releases visitors, until `stop`; the first synchronisation comes after
    /// `next_sync`, the result of [`Queue::sync_now`].
    pub async fn run(&self, next_sync: Duration, stop: CancellationToken) {
        tokio::join!(self.sync_loop(next_sync, &stop), self.release_loop(&stop));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state()
    }

    /// Adds a visitor to the line of `conference`; `subscriber` is notified when the visitor is released, unless that is
    /// immediately ([`QueueTicket::immediate_release`]). A visitor without `token` is not counted, and its place is not
    /// reserved: that is for service tokens.
    ///
    /// # Errors
    ///
    /// [`LimitReached`] when too many visitors wait with this token.
    pub fn join(
        &self,
        conference: Conference,
        token: Option<TokenKey>,
        subscriber: SubscriberRef,
    ) -> Result<QueueTicket, LimitReached> {
        let config = self.inner.config.load();
        let joined = self.state().join(conference, token, subscriber, &config);
        let (conference, arrival) = joined?;
        metrics::visitors_released(usize::from(arrival.is_released));
        Ok(QueueTicket {
            queue: self.clone(),
            conference,
            token,
            ticket: arrival.ticket,
            spread_millis: arrival.spread_millis,
            is_released: arrival.is_released,
            reserve_place: true,
        })
    }

    /// The number of visitors that wait for `conference`.
    #[must_use]
    pub fn waiting(&self, conference: &Conference) -> usize {
        let state = self.state();
        let queue = state.conferences.get(conference);
        queue.map_or(0, ConferenceQueue::waiting)
    }

    /// The state of `conference`.
    #[must_use]
    pub fn status(&self, conference: &Conference) -> ConferenceStatus {
        let state = self.state();
        let queue = state.conferences.get(conference);
        ConferenceStatus {
            conference: conference.clone(),
            live_since: queue.and_then(ConferenceQueue::live_since),
            waiting: queue.map_or(0, ConferenceQueue::waiting),
        }
    }

    /// Whether `conference` is live.
    #[must_use]
    pub fn is_live(&self, conference: &Conference) -> bool {
        let state = self.state();
        let queue = state.conferences.get(conference);
        queue.and_then(ConferenceQueue::live_since).is_some()
    }

    /// All conferences that are live or have waiting visitors, sorted by name.
    #[must_use]
    pub fn conferences(&self) -> Vec<ConferenceStatus> {
        let state = self.state();
        let mut all: Vec<_> = state
            .conferences
            .iter()
            .map(|(conference, queue)| ConferenceStatus {
                conference: Conference::clone(conference),
                live_since: queue.live_since(),
                waiting: queue.waiting(),
            })
            .filter(|status| status.live_since.is_some() || status.waiting > 0)
            .collect();
        drop(state);
        all.sort_by(|a, b| a.conference.cmp(&b.conference));
        all
    }

    /// The number of visitors in each of [`VISITOR_STATES`], and the number of live conferences.
    #[must_use]
    pub fn count(&self) -> ([usize; VISITOR_STATES.len()], usize) {
        let (mut visitors, mut live) = ([0; VISITOR_STATES.len()], 0);
        for queue in self.state().conferences.values() {
            visitors[usize::from(queue.is_live())] += queue.waiting();
            visitors[2] += queue.released();
            visitors[3] += queue.away();
            live += usize::from(queue.live_since().is_some());
        }
        (visitors, live)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if one did, this state is still the best available.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notification(
        &self,
        conference: &Conference,
        batch: Batch<SubscriberRef>,
        since: Instant,
    ) -> Notification {
        let jid = conference.jid(&self.muc_prefix);
        Notification {
            subscribers: batch.released,
            body: message::live(&jid, batch.delay_millis).into(),
            since,
        }
    }
}

impl State {
    fn join(
        &mut self,
        conference: Conference,
        token: Option<TokenKey>,
        subscriber: SubscriberRef,
        config: &config::Queue,
    ) -> Result<(Arc<Conference>, Arrival), LimitReached> {
        let others = token.map_or(0, |token| self.tokens.active(token));
        if token.is_some() && others >= config.max_per_token {
            return Err(LimitReached);
        }
        let (now, rate) = (now(), self.rate(config));
        let conference = self.shared_key(&conference);
        let queue = self.conferences.entry(Arc::clone(&conference)).or_default();
        let arrival = queue.join(token, others > 0, rate, now, subscriber);
        if let Some(token) = token {
            self.tokens.join(token, arrival.freed);
        }
        self.settle(&conference, rate, now);
        Ok((conference, arrival))
    }

    fn leave(&mut self, ticket: &QueueTicket, config: &config::Queue) {
        let Some(queue) = self.conferences.get_mut(&ticket.conference) else {
            return;
        };
        let (now, grace) = (now(), config.reconnect_grace);
        let place = queue.leave(ticket.token, ticket.ticket);
        if let Some(token) = ticket.token {
            let place = place.filter(|_| ticket.reserve_place && !grace.is_zero());
            let is_reserved = self
                .tokens
                .leave(token, place.is_some(), config.max_per_token);
            if let Some(place) = place.filter(|_| is_reserved) {
                let joining = ticket.immediate_release().unwrap_or(0);
                let duration = grace + Duration::from_millis(joining.into());
                let spread = ticket.spread_millis.saturating_mul(2);
                queue.reserve(token, place, spread, now, duration);
            }
        }
        let rate = self.rate(config);
        self.settle(&ticket.conference, rate, now);
    }

    fn rate(&self, config: &config::Queue) -> Rate {
        Rate {
            per_second: config.release_per_second,
            not_before: self.not_before,
        }
    }

    /// The key that all visitors of a conference share.
    fn shared_key(&self, conference: &Conference) -> Arc<Conference> {
        match self.conferences.get_key_value(conference) {
            Some((shared, _)) => Arc::clone(shared),
            None => Arc::new(conference.clone()),
        }
    }

    /// Drops a conference that is idle, or puts it into the agenda; call it after each change of the conference.
    fn settle(&mut self, conference: &Arc<Conference>, rate: Rate, now: std::time::Instant) {
        let Some(queue) = self.conferences.get_mut(conference) else {
            return;
        };
        let (from, to) = queue.schedule(rate, now);
        if queue.is_idle(now) {
            self.agenda.move_entry(conference, from, None);
            self.conferences.remove(conference);
        } else {
            self.agenda.move_entry(conference, from, to);
        }
    }
}

impl QueueTicket {
    /// The conference that the visitor waits for.
    #[must_use]
    pub fn conference(&self) -> &Conference {
        &self.conference
    }

    /// If the visitor does not have to wait: the time over which it spreads its joining, in milliseconds.
    #[must_use]
    pub fn immediate_release(&self) -> Option<u32> {
        self.is_released.then_some(self.spread_millis)
    }

    /// Leaves the queue without a reserved place.
    pub fn leave_permanently(mut self) {
        self.reserve_place = false;
    }
}

impl Drop for QueueTicket {
    fn drop(&mut self) {
        let config = self.queue.inner.config.load();
        self.queue.state().leave(self, &config);
    }
}
