//! Limits on connections from an address, on moderators with a token, and on the bytes of unfinished frames.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::queue::TokenKey;

/// The counters beside the queue's own. Cheap to clone; the clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct ConnectionLimits {
    /// Open connections, by client address. A session counts once more for the second and each further conference that
    /// it waits for.
    pub connections: LimitCounter<ClientAddress>,
    /// Moderators that watch the queue, by token.
    pub watchers: LimitCounter<TokenKey>,
    /// Bytes of unfinished frames, of all sessions.
    pub unfinished: ByteLimit,
}

/// A client's address as every limit counts it. An IPv6 subscriber has a whole /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientAddress {
    /// IPv4, also where it is written as IPv6.
    V4(Ipv4Addr),
    /// The first 64 bits of IPv6.
    V6([u8; 8]),
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let mut prefix = [0; 8];
                prefix.copy_from_slice(&address.octets()[..8]);
                Self::V6(prefix)
            }
        }
    }
}

/// Most bytes of unfinished frames of all sessions together: a thousand of the largest.
const UNFINISHED_MAX: usize = 16 * 1024 * 1024;

/// Counts bytes of many sessions, within `UNFINISHED_MAX`.
#[derive(Clone, Debug, Default)]
pub struct ByteLimit(Arc<AtomicUsize>);

/// Counts the bytes of one session until it is dropped.
#[derive(Debug)]
pub struct ByteGuard {
    limit: ByteLimit,
    bytes: usize,
}

impl ByteLimit {
    /// A guard without bytes.
    #[must_use]
    pub fn guard(&self) -> ByteGuard {
        let limit = self.clone();
        ByteGuard { limit, bytes: 0 }
    }
}

impl ByteGuard {
    /// Changes the number of bytes. Returns false, and changes nothing, if there would be too many of all sessions.
    pub fn set(&mut self, bytes: usize) -> bool {
        let others = |total: usize| total - self.bytes + bytes;
        let is_within = |total: usize| bytes <= self.bytes || others(total) <= UNFINISHED_MAX;
        let update = |total| is_within(total).then(|| others(total));
        let all = &self.limit.0;
        let changed = all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        if changed.is_ok() {
            self.bytes = bytes;
        }
        changed.is_ok()
    }
}

impl Drop for ByteGuard {
    fn drop(&mut self) {
        self.limit.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
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
    fn ipv6_counts_by_its_first_64_bits_and_mapped_ipv4_as_ipv4() {
        let address = |text: &str| ClientAddress::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(address("2001:db8:0:1::1"), address("2001:db8:0:1:ffff::9"));
        assert_ne!(address("2001:db8:0:1::1"), address("2001:db8:0:2::1"));
        assert_eq!(address("::ffff:203.0.113.9"), address("203.0.113.9"));
        assert_ne!(address("203.0.113.8"), address("203.0.113.9"));
    }

    #[test]
    fn unfinished_bytes_of_all_sessions_have_one_bound() {
        let limit = ByteLimit::default();
        let (mut one, mut two) = (limit.guard(), limit.guard());
        assert!(one.set(UNFINISHED_MAX - 10) && two.set(10));
        assert!(!two.set(11), "the bound is met");
        assert!(one.set(5) && two.set(11));
        drop((one, two));
        assert_eq!(limit.0.load(Ordering::Relaxed), 0);
    }

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
