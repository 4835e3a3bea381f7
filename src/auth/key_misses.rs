//! Which key ids no server had, and since when.
//!
//! The ids come from tokens that are not verified, so anyone can invent them: their number is bounded. An id that is
//! forgotten counts as new, which costs its client one more attempt.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::key_cache::{ABSENT_TTL, CacheKey};

/// The most ids that are remembered.
const MAX_MISSES: usize = 256;
/// How long an id without further tokens is remembered.
const FORGET_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct KeyMisses(Mutex<HashMap<CacheKey, Miss>>);

#[derive(Debug)]
struct Miss {
    first: Instant,
    last: Instant,
}

impl KeyMisses {
    /// Records that no server has this key. Returns whether the servers were asked at least twice for it: what they
    /// answered is at most [`ABSENT_TTL`] old.
    pub(super) fn are_confirmed(&self, key: CacheKey, now: Instant) -> bool {
        let mut misses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if misses.len() >= MAX_MISSES {
            misses.retain(|_, miss| now < miss.last + FORGET_AFTER);
        }
        let oldest = misses.iter().min_by_key(|(_, miss)| miss.last);
        let oldest = oldest.map(|(key, _)| *key);
        if let Some(oldest) = oldest.filter(|_| misses.len() >= MAX_MISSES) {
            misses.remove(&oldest);
        }
        let new = || Miss {
            first: now,
            last: now,
        };
        let miss = misses.entry(key).or_insert_with(new);
        if now >= miss.last + FORGET_AFTER {
            *miss = new();
        }
        miss.last = now;
        now >= miss.first + ABSENT_TTL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: u16) -> CacheKey {
        let mut key = CacheKey::default();
        key[..2].copy_from_slice(&name.to_be_bytes());
        key
    }

    #[test]
    fn a_miss_is_confirmed_by_a_second_look_and_forgotten_after_a_pause() {
        let misses = KeyMisses::default();
        let start = Instant::now();
        assert!(!misses.are_confirmed(key(1), start));
        let second = start + ABSENT_TTL;
        assert!(!misses.are_confirmed(key(1), second - Duration::from_millis(1)));
        assert!(!misses.are_confirmed(key(2), second));
        assert!(misses.are_confirmed(key(1), second));
        assert!(!misses.are_confirmed(key(1), second + FORGET_AFTER));
    }

    #[test]
    fn invented_ids_do_not_fill_memory() {
        let misses = KeyMisses::default();
        let start = Instant::now();
        for name in 0..1000 {
            misses.are_confirmed(key(name), start + Duration::from_millis(name.into()));
        }
        assert_eq!(misses.0.lock().unwrap().len(), MAX_MISSES);
    }
}
