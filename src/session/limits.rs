//! How many there are of each: connections from an address, watchers with a token.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::queue::TokenKey;

/// What is counted beside those who wait, whom the queue counts. Cheap to clone; every clone is the same.
#[derive(Clone, Debug, Default)]
pub struct ConnectionLimits {
    /// Open connections, by the address of their client.
    pub connections: LimitCounter<IpAddr>,
    /// Those who watch how many wait, by their token.
    pub watchers: LimitCounter<TokenKey>,
}

/// How many there are of each `K`. A tree, as it gives back what a crowd took that came and went.
#[derive(Debug)]
pub struct LimitCounter<K: Copy + Ord>(Arc<Mutex<BTreeMap<K, u32>>>);

/// One that is counted until this is dropped.
#[derive(Debug)]
pub struct LimitGuard<K: Copy + Ord> {
    key: K,
    tally: LimitCounter<K>,
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
        let tally = self.clone();
        Some(LimitGuard { key, tally })
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<K, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Ord> LimitGuard<K> {
    /// What it is one of.
    pub fn key(&self) -> K {
        self.key
    }
}

impl<K: Copy + Ord> Drop for LimitGuard<K> {
    fn drop(&mut self) {
        let mut counts = self.tally.counts();
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
    fn each_counts_to_its_own_limit_and_who_leaves_makes_room() {
        let tally = LimitCounter::default();
        let first = tally.add(1, 2).unwrap();
        let second = tally.clone().add(1, 2).unwrap();
        assert!(tally.add(1, 2).is_none());
        assert_eq!(tally.add(2, 2).unwrap().key(), 2);
        drop(first);
        let third = tally.add(1, 2).unwrap();
        assert!(tally.add(1, 2).is_none());
        drop((second, third));
        assert!(
            tally.counts().is_empty(),
            "nothing is kept of those who left"
        );
    }
}
