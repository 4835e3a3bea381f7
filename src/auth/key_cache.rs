//! A cache of fetched documents: positive and negative caching, one request in flight per document, and a rate
//! limit on unknown documents.
//!
//! A document is named by a token that is not verified yet, so anyone can invent names. Documents that were found
//! before are fetched again without a limit, since their number is bounded. All other names share a small
//! [`RateLimit`]: an attacker can exhaust it, and then a document that was never fetched has to wait, but no
//! cached one.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The most documents in the cache. The oldest is evicted.
const MAX_ENTRIES: usize = 256;
/// How long an absent document is remembered: a client that reconnects every few seconds meets the next request.
pub(super) const ABSENT_TTL: Duration = Duration::from_secs(10);
/// The pause between two requests for a current document, see [`KeyCache::recheck`].
const RECHECK_PAUSE: Duration = Duration::from_secs(10);
/// How many of these requests there may be in a burst, of all documents together; then one per second.
const RECHECK_BURST: u32 = 8;
/// The pause between a failure and the next request for the same document.
const FAILURE_TTL: Duration = Duration::from_secs(5);
/// The limits on requests for unknown documents: at once, in a burst, and per second. Together with [`ABSENT_TTL`]
/// they also bound the number of negative entries, to about fifty.
const MAX_UNKNOWN_IN_FLIGHT: usize = 8;
const UNKNOWN_BURST: u32 = 32;
const REQUESTS_PER_SECOND: u32 = 1;

/// The SHA-256 of a document's name, which may be of any length.
pub(super) type CacheKey = [u8; 32];

/// The result of a request.
#[derive(Debug, Clone)]
pub(super) enum Fetched<T> {
    Found(T),
    /// The server has no such document.
    Absent,
    Failed,
}

/// What is known about a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lookup<T> {
    pub(super) value: Option<T>,
    /// Whether the server said so. Otherwise the document is stale, or it is unknown whether it exists.
    pub(super) definitive: bool,
}

impl<T> Lookup<T> {
    const UNKNOWN: Self = Self {
        value: None,
        definitive: false,
    };

    fn definitive(value: Option<T>) -> Self {
        Self {
            value,
            definitive: true,
        }
    }
}

/// The cache. Held by [`Arc`], since a request outlives the caller that started it.
#[derive(Debug)]
pub(super) struct KeyCache<T> {
    /// How long a document is current. While the server fails, it is used for one more such period.
    ttl: Duration,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    entries: HashMap<CacheKey, CacheEntry<T>>,
    negative: HashMap<CacheKey, NegativeEntry>,
    in_flight: HashMap<CacheKey, InFlight<T>>,
    limit: RateLimit,
    rechecks: RateLimit,
}

#[derive(Debug)]
struct CacheEntry<T> {
    value: T,
    fetched_at: Instant,
    failed_at: Option<Instant>,
    rechecked_at: Option<Instant>,
}

#[derive(Debug)]
struct NegativeEntry {
    /// Absent; otherwise the request failed.
    absent: bool,
    until: Instant,
}

#[derive(Debug)]
struct InFlight<T> {
    unknown: bool,
    result: watch::Receiver<Option<Lookup<T>>>,
}

/// What a call of [`KeyCache::get`] does.
enum Action<T> {
    Return(Lookup<T>),
    Wait(watch::Receiver<Option<Lookup<T>>>),
    /// Fetch, and return a stale document meanwhile, if there is one.
    Fetch(watch::Sender<Option<Lookup<T>>>, Option<Lookup<T>>),
}

impl<T: Clone + Send + Sync + 'static> KeyCache<T> {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            state: Mutex::new(State {
                entries: HashMap::new(),
                negative: HashMap::new(),
                in_flight: HashMap::new(),
                limit: RateLimit::new(UNKNOWN_BURST, Instant::now()),
                rechecks: RateLimit::new(RECHECK_BURST, Instant::now()),
            }),
        }
    }

    /// The document, if it is cached and current.
    pub(super) fn get_cached(&self, key: &CacheKey) -> Option<T> {
        let now = Instant::now();
        let state = self.state();
        let entry = state.entries.get(key)?;
        (now < entry.fetched_at + self.ttl).then(|| entry.value.clone())
    }

    /// The document: from the cache if it is no older than `max_age`, else fetched.
    pub(super) async fn get<F>(
        self: &Arc<Self>,
        key: CacheKey,
        max_age: Duration,
        fetch: impl FnOnce() -> F,
    ) -> Lookup<T>
    where
        F: Future<Output = Fetched<T>> + Send + 'static,
    {
        let max_age = max_age.min(self.ttl);
        let action = self
            .state()
            .next_action(key, max_age, self.ttl, Instant::now());
        self.perform(key, action, fetch).await
    }

    /// Fetches a document again although the cached one is current: a signature does not match its key, which its
    /// owner may have replaced. Anyone can send wrong signatures, so there is a pause between two such requests for
    /// a document and a limit for all. `None` if there is no request now.
    pub(super) async fn recheck<F>(
        self: &Arc<Self>,
        key: CacheKey,
        fetch: impl FnOnce() -> F,
    ) -> Option<Lookup<T>>
    where
        F: Future<Output = Fetched<T>> + Send + 'static,
    {
        let action = self.state().recheck_action(key, Instant::now())?;
        Some(self.perform(key, action, fetch).await)
    }

    async fn perform<F>(
        self: &Arc<Self>,
        key: CacheKey,
        action: Action<T>,
        fetch: impl FnOnce() -> F,
    ) -> Lookup<T>
    where
        F: Future<Output = Fetched<T>> + Send + 'static,
    {
        let mut result = match action {
            Action::Return(lookup) => return lookup,
            Action::Wait(result) => result,
            Action::Fetch(sender, stale) => {
                let result = sender.subscribe();
                let (cache, fetch) = (Arc::clone(self), fetch());
                tokio::spawn(async move {
                    let fetched = fetch.await;
                    let now = Instant::now();
                    let lookup = cache.state().complete(key, fetched, cache.ttl, now);
                    sender.send_replace(Some(lookup));
                });
                if let Some(lookup) = stale {
                    return lookup;
                }
                result
            }
        };
        let result = result.wait_for(Option::is_some).await;
        let lookup = result.ok().and_then(|lookup| lookup.clone());
        lookup.unwrap_or(Lookup::UNKNOWN)
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // No change of the state can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> State<T> {
    fn next_action(
        &mut self,
        key: CacheKey,
        max_age: Duration,
        ttl: Duration,
        now: Instant,
    ) -> Action<T> {
        let entry = self.entries.get(&key);
        let mut stale = None;
        if let Some(entry) = entry {
            if now < entry.fetched_at + max_age {
                return Action::Return(Lookup::definitive(Some(entry.value.clone())));
            }
            if let Some(failed_at) = entry.failed_at {
                let lookup = entry.after_failure(ttl, now);
                if now < failed_at + FAILURE_TTL {
                    return Action::Return(lookup);
                }
                // The last request failed, so no caller waits for the next one.
                stale = lookup.value.is_some().then_some(lookup);
            }
        }
        let unknown = entry.is_none();
        if let Some(result) = self.in_flight(&key) {
            return stale.map_or(Action::Wait(result), Action::Return);
        }
        if unknown && let Some(lookup) = self.without_request(&key, now) {
            return Action::Return(lookup);
        }
        let (sender, result) = watch::channel(None);
        self.in_flight.insert(key, InFlight { unknown, result });
        Action::Fetch(sender, stale)
    }

    fn recheck_action(&mut self, key: CacheKey, now: Instant) -> Option<Action<T>> {
        if let Some(result) = self.in_flight(&key) {
            return Some(Action::Wait(result));
        }
        let entry = self.entries.get_mut(&key)?;
        let waits = |at: Instant| now < at + RECHECK_PAUSE;
        if entry.rechecked_at.is_some_and(waits) || !self.rechecks.allow(now) {
            return None;
        }
        entry.rechecked_at = Some(now);
        let (sender, result) = watch::channel(None);
        let unknown = false;
        self.in_flight.insert(key, InFlight { unknown, result });
        Some(Action::Fetch(sender, None))
    }

    /// The result of the request in flight for this document. A request that panicked is removed.
    fn in_flight(&mut self, key: &CacheKey) -> Option<watch::Receiver<Option<Lookup<T>>>> {
        let result = self.in_flight.get(key)?.result.clone();
        if result.has_changed().is_err() {
            self.in_flight.remove(key);
            return None;
        }
        Some(result)
    }

    /// The answer for an unknown document that must not be requested now.
    fn without_request(&mut self, key: &CacheKey, now: Instant) -> Option<Lookup<T>> {
        if let Some(entry) = self.negative.get(key).filter(|entry| now < entry.until) {
            return Some(Lookup {
                value: None,
                definitive: entry.absent,
            });
        }
        let unknown = self.in_flight.values().filter(|request| request.unknown);
        let limited = unknown.count() >= MAX_UNKNOWN_IN_FLIGHT || !self.limit.allow(now);
        limited.then_some(Lookup::UNKNOWN)
    }

    fn complete(
        &mut self,
        key: CacheKey,
        fetched: Fetched<T>,
        ttl: Duration,
        now: Instant,
    ) -> Lookup<T> {
        self.in_flight.remove(&key);
        match fetched {
            Fetched::Found(value) => {
                self.negative.remove(&key);
                self.evict_for(&key);
                let entry = CacheEntry {
                    value: value.clone(),
                    fetched_at: now,
                    failed_at: None,
                    rechecked_at: self.entries.get(&key).and_then(|it| it.rechecked_at),
                };
                self.entries.insert(key, entry);
                Lookup::definitive(Some(value))
            }
            Fetched::Absent => {
                self.entries.remove(&key);
                self.insert_negative(key, true, now);
                Lookup::definitive(None)
            }
            Fetched::Failed => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.failed_at = Some(now);
                    return entry.after_failure(ttl, now);
                }
                self.insert_negative(key, false, now);
                Lookup::UNKNOWN
            }
        }
    }

    fn evict_for(&mut self, key: &CacheKey) {
        if self.entries.len() < MAX_ENTRIES || self.entries.contains_key(key) {
            return;
        }
        let oldest = self
            .entries
            .iter()
            .min_by_key(|(_, entry)| entry.fetched_at);
        if let Some(oldest) = oldest.map(|(key, _)| *key) {
            self.entries.remove(&oldest);
        }
    }

    fn insert_negative(&mut self, key: CacheKey, absent: bool, now: Instant) {
        self.negative.retain(|_, entry| now < entry.until);
        let until = now + if absent { ABSENT_TTL } else { FAILURE_TTL };
        self.negative.insert(key, NegativeEntry { absent, until });
    }
}

impl<T: Clone> CacheEntry<T> {
    fn after_failure(&self, ttl: Duration, now: Instant) -> Lookup<T> {
        let usable = now < self.fetched_at + ttl.saturating_mul(2);
        Lookup {
            value: usable.then(|| self.value.clone()),
            definitive: false,
        }
    }
}

/// A token bucket for requests that anyone can cause.
#[derive(Debug)]
struct RateLimit {
    burst: f64,
    available: f64,
    updated_at: Instant,
}

impl RateLimit {
    fn new(burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self {
            burst,
            available: burst,
            updated_at: now,
        }
    }

    fn allow(&mut self, now: Instant) -> bool {
        let elapsed = now.duration_since(self.updated_at).as_secs_f64();
        let refilled = self.available + elapsed * f64::from(REQUESTS_PER_SECOND);
        self.available = refilled.min(self.burst);
        self.updated_at = now;
        let allowed = self.available >= 1.0;
        if allowed {
            self.available -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests;
