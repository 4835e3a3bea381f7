//! Limits on connections from an address and on moderators with a token.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::queue::TokenKey;

/// The counters beside the queue's own. Cheap to clone; the clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct ConnectionLimits {
    /// Open connections, by client address. A session counts once more for the second and each further conference that
    /// it waits for.
    pub connections: LimitCounter<IpAddr>,
    /// Moderators that watch the queue, by token.
    pub watchers: LimitCounter<TokenKey>,
}

/// A number for each `K`. A tree, because it frees its memory after a crowd has left.
#[derive(Debug)]
pub struct LimitCounter<K: Copy + Ord>(Arc<Mutex<BTreeMap<K, u32>>>);

/// Counts one until it is dropped.
#[derive(Debug)]
pub struct LimitGuard<K: Copy + Ord> {
    key: K,
    counter: LimitCounter<K>,
}

impl<K: Copy + Ord> LimitCounter<K> {
    /// Counts one more of `key`, unless there are `max` already.
    pub fn add(&self, key: K, max: u32) -> Option<LimitGuard<K>> {
        let mut counts = self.counts();
        let count = counts.get(&key).copied().unwrap_or(0);
        if count >= max {
            return None;
        }
        counts.insert(key, count + 1);
        let counter = self.clone();
        Some(LimitGuard { key, counter })
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<K, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Ord> LimitGuard<K> {
    /// The key that it counts for.
    pub fn key(&self) -> K {
        self.key
    }
}

impl<K: Copy + Ord> Drop for LimitGuard<K> {
    fn drop(&mut self) {
        let mut counts = self.counter.counts();
        match counts.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.key)),
        }
    }
}

impl<K: Copy + Ord> Clone for LimitCounter<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Copy + Ord> Default for LimitCounter<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_limit_and_a_dropped_guard_frees_it() {
        let counter = LimitCounter::default();
        let first = counter.add(1, 2).unwrap();
        let second = counter.clone().add(1, 2).unwrap();
        assert!(counter.add(1, 2).is_none());
        assert_eq!(counter.add(2, 2).unwrap().key(), 2);
        drop(first);
        let third = counter.add(1, 2).unwrap();
        assert!(counter.add(1, 2).is_none());
        drop((second, third));
        assert!(
            counter.counts().is_empty(),
            "a key without guards uses no memory"
        );
    }
}
