//! How many places each token has.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use thiserror::Error;

/// Identifies the bearer of a token without keeping the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey(pub [u8; 16]);

/// A visitor can't join because too many visitors wait with its token. The message fits an ERROR frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "too many visitors wait with this token already; use a token for each visitor, or raise queue.max_per_token"
)]
pub struct LimitReached;

/// The places of all tokens. A tree: unlike a hash map, it frees the memory of a past crowd.
#[derive(Debug, Default)]
pub(super) struct TokenLimits(BTreeMap<TokenKey, TokenUsage>);

/// The places of one token. `queue.max_per_token` bounds either number.
#[derive(Debug, Default)]
struct TokenUsage {
    /// Visitors that are connected.
    active: u32,
    /// Places that are reserved for visitors whose connection broke.
    reserved: u32,
}

impl TokenLimits {
    /// The number of connected visitors with this token.
    pub(super) fn active(&self, token: TokenKey) -> u32 {
        self.0.get(&token).map_or(0, |usage| usage.active)
    }

    /// Counts a visitor that connected, which freed this number of reserved places.
    pub(super) fn join(&mut self, token: TokenKey, freed: u32) {
        let usage = self.0.entry(token).or_default();
        usage.active += 1;
        usage.reserved = usage.reserved.saturating_sub(freed);
    }

    /// Counts a visitor that left. Counts a reserved place if `wants_place`, and if fewer than `max` are reserved;
    /// returns whether it did.
    pub(super) fn leave(&mut self, token: TokenKey, wants_place: bool, max: u32) -> bool {
        let mut is_reserved = false;
        self.update(token, |usage| {
            usage.active = usage.active.saturating_sub(1);
            is_reserved = wants_place && usage.reserved < max;
            usage.reserved += u32::from(is_reserved);
        });
        is_reserved
    }

    /// Counts a place that is reserved whatever the limit is: the former run reserved it.
    pub(super) fn restore(&mut self, token: TokenKey) {
        self.0.entry(token).or_default().reserved += 1;
    }

    /// A place of this token is not reserved any more.
    pub(super) fn remove_reserved(&mut self, token: TokenKey) {
        self.update(token, |usage| {
            usage.reserved = usage.reserved.saturating_sub(1);
        });
    }

    fn update(&mut self, token: TokenKey, change: impl FnOnce(&mut TokenUsage)) {
        if let Entry::Occupied(mut entry) = self.0.entry(token) {
            let usage = entry.get_mut();
            change(usage);
            if usage.active == 0 && usage.reserved == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: TokenKey = TokenKey([1; 16]);

    #[test]
    fn active_and_reserved_places_are_counted_apart_and_removed_at_zero() {
        let mut limits = TokenLimits::default();
        limits.join(TOKEN, 0);
        limits.join(TOKEN, 0);
        assert_eq!(limits.active(TOKEN), 2);
        assert!(limits.leave(TOKEN, true, 1));
        assert!(!limits.leave(TOKEN, true, 1), "one place is the limit");
        limits.join(TOKEN, 1);
        assert!(!limits.leave(TOKEN, false, 1));
        assert!(limits.0.is_empty());
        limits.restore(TOKEN);
        limits.remove_reserved(TOKEN);
        limits.remove_reserved(TOKEN);
        assert!(limits.0.is_empty());
    }
}
