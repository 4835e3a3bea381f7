//! One conference as the queue sees it (pure except for the clock of reserved places): its line, whether it is live,
//! and the reserved places of visitors whose connection broke.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::line::{Batch, Place, Ticket, WaitingLine};
use super::{SubscriberRef, TokenKey};

/// jicofo sends a released visitor back to the queue while the conference isn't live in Prosody or has no room there.
/// A crowd that is released immediately each time would only reconnect in a loop. A returning visitor spreads its
/// joining over this many milliseconds, twice as many each further time.
const REJOIN_SPREAD: u32 = 10_000;
/// The upper bound of [`REJOIN_SPREAD`].
const REJOIN_SPREAD_MAX: u32 = 60_000;

/// A conference that is live, or that visitors wait for.
#[derive(Debug, Default)]
pub(super) struct ConferenceQueue {
    line: WaitingLine<SubscriberRef>,
    live_since: Option<DateTime<Utc>>,
    /// The number of visitors, with those that were released and are still connected.
    sessions: usize,
    /// The places of visitors whose connection broke. A tree: unlike a hash map, it frees the memory of a past crowd.
    reserved: BTreeMap<(TokenKey, Ticket), ReservedPlace>,
    /// The places, by token, of visitors that came while another visitor with their token was connected. Mostly that
    /// is the same person, whose former connection is dead and not closed yet. The value is the ticket that the session
    /// received.
    duplicates: BTreeMap<(TokenKey, Ticket), Ticket>,
    /// The current place of each visitor that inherited one, by the ticket that its session received.
    reassigned: BTreeMap<Ticket, Ticket>,
}

#[derive(Clone, Copy, Debug)]
struct ReservedPlace {
    until: Instant,
    released: bool,
    /// The time over which the visitor spreads its joining if it returns and was released.
    rejoin_spread_millis: u32,
}

/// The result of [`ConferenceQueue::join`].
pub(super) struct Arrival {
    pub(super) ticket: Ticket,
    /// If the visitor is released immediately: the time over which it spreads its joining, in milliseconds.
    pub(super) immediate_release: Option<u32>,
    /// The number of places of this token that are not reserved any more.
    pub(super) freed: u32,
}

impl ConferenceQueue {
    pub(super) fn live_since(&self) -> Option<DateTime<Utc>> {
        self.live_since
    }

    pub(super) fn is_live(&self) -> bool {
        self.line.is_live()
    }

    pub(super) fn waiting(&self) -> usize {
        self.line.waiting()
    }

    /// The number of visitors that were released and are still connected.
    pub(super) fn released(&self) -> usize {
        self.sessions.saturating_sub(self.line.waiting())
    }

    /// The number of visitors that are away and were not released.
    pub(super) fn away(&self) -> usize {
        self.reserved
            .values()
            .filter(|place| !place.released)
            .count()
    }

    /// Whether it can be dropped.
    pub(super) fn is_idle(&self) -> bool {
        self.live_since.is_none() && self.sessions == 0 && self.reserved.is_empty()
    }

    /// Adds a visitor. `is_duplicate`: another visitor with this token is connected.
    pub(super) fn join(
        &mut self,
        token: Option<TokenKey>,
        is_duplicate: bool,
        per_second: u32,
        subscriber: SubscriberRef,
    ) -> Arrival {
        let (reserved, freed) = token.map_or((None, 0), |token| self.take_reserved(token));
        let place = reserved.map(|(place, _)| place);
        let (ticket, is_released) = self.line.join(place, per_second, subscriber);
        let rejoined = reserved.filter(|(place, _)| place.released);
        let immediate_release = is_released.then(|| rejoined.map_or(0, |(_, millis)| millis));
        if let Some(token) = token.filter(|_| is_duplicate && !is_released) {
            self.duplicates.insert((token, ticket), ticket);
        }
        self.sessions += 1;
        Arrival {
            ticket,
            immediate_release,
            freed,
        }
    }

    /// Removes the visitor that received `ticket`. The earliest place of a token belongs to the remaining visitor with
    /// that token. Returns the place that is free now, if it is worth reserving.
    pub(super) fn leave(&mut self, token: Option<TokenKey>, ticket: Ticket) -> Option<Place> {
        self.sessions -= 1;
        let mut ticket = self.reassigned.remove(&ticket).unwrap_or(ticket);
        let waited = self.line.leave(ticket);
        if let Some(token) = token {
            let was_duplicate = self.duplicates.remove(&(token, ticket)).is_some();
            if waited && let Some(freed) = self.inherit_place(token, ticket, was_duplicate) {
                ticket = freed;
            }
        }
        let place = Place {
            ticket,
            released: !waited,
        };
        // A released visitor stays released while the conference is live.
        (waited || self.is_live()).then_some(place)
    }

    /// Moves the next visitor of this token to the place `to`; returns the place that it had.
    fn inherit_place(
        &mut self,
        token: TokenKey,
        to: Ticket,
        was_duplicate: bool,
    ) -> Option<Ticket> {
        let (&(next, from), &received) = self.duplicates.range((token, to)..).next()?;
        if next != token || !self.line.move_to(from, to) {
            return None;
        }
        self.duplicates.remove(&(token, from));
        if was_duplicate {
            self.duplicates.insert((token, to), received);
        }
        self.reassigned.insert(received, to);
        Some(from)
    }

    /// Reserves a place for `grace`, and for the time over which the visitor was to spread its joining, if it was
    /// released immediately.
    pub(super) fn reserve(
        &mut self,
        token: TokenKey,
        place: Place,
        immediate_release: Option<u32>,
        grace: Duration,
    ) {
        let joining = Duration::from_millis(immediate_release.unwrap_or(0).into());
        let spread = immediate_release.map_or(REJOIN_SPREAD, |millis| millis.saturating_mul(2));
        let reserved = ReservedPlace {
            until: Instant::now() + joining + grace,
            released: place.released,
            rejoin_spread_millis: spread.clamp(REJOIN_SPREAD, REJOIN_SPREAD_MAX),
        };
        self.reserved.insert((token, place.ticket), reserved);
    }

    /// Reserves a place at the end of the line for a visitor of the former run.
    pub(super) fn restore_place(&mut self, token: TokenKey, grace: Duration) {
        let place = Place {
            ticket: self.line.next_ticket(),
            released: false,
        };
        self.reserve(token, place, None, grace);
    }

    /// The earliest valid place that is reserved for this token, with the time over which to spread the joining, and
    /// the number of places that were removed to find it.
    fn take_reserved(&mut self, token: TokenKey) -> (Option<(Place, u32)>, u32) {
        let now = Instant::now();
        let mut taken = 0;
        while let Some((&(next, ticket), &reserved)) =
            self.reserved.range((token, Ticket::FIRST)..).next()
        {
            if next != token {
                break;
            }
            self.reserved.remove(&(next, ticket));
            taken += 1;
            if reserved.until > now {
                let released = reserved.released;
                let place = Place { ticket, released };
                return (Some((place, reserved.rejoin_spread_millis)), taken);
            }
        }
        (None, taken)
    }

    /// The tokens of visitors that are away and were not released, in the order of their places.
    pub(super) fn waiting_tokens(&self) -> impl Iterator<Item = TokenKey> {
        let now = Instant::now();
        let mut tokens: Vec<_> = self
            .reserved
            .iter()
            .filter(|(_, place)| place.until > now && !place.released)
            .map(|(&(token, ticket), _)| (ticket, token))
            .collect();
        tokens.sort_unstable_by_key(|(ticket, _)| *ticket);
        tokens.into_iter().map(|(_, token)| token)
    }

    /// The conference goes live, and was not live before; returns the first batch.
    pub(super) fn go_live(
        &mut self,
        since: DateTime<Utc>,
        per_second: u32,
    ) -> Option<Batch<SubscriberRef>> {
        self.live_since = Some(since);
        self.line.go_live(per_second)
    }

    /// A second has begun.
    pub(super) fn tick(&mut self, per_second: u32) -> Option<Batch<SubscriberRef>> {
        self.line.tick(per_second)
    }

    /// The conference is no longer live; returns whether it was. Reserved places of released visitors are
    /// removed: `on_removed` receives the token of each.
    pub(super) fn end_live(&mut self, on_removed: impl FnMut(TokenKey)) -> bool {
        self.line.end_live();
        self.retain(|place| !place.released, on_removed);
        self.live_since.take().is_some()
    }

    /// Removes the reserved places whose time has passed; `on_removed` receives the token of each.
    pub(super) fn remove_expired(&mut self, on_removed: impl FnMut(TokenKey)) {
        let now = Instant::now();
        self.retain(|place| place.until > now, on_removed);
    }

    fn retain(
        &mut self,
        keep: impl Fn(&ReservedPlace) -> bool,
        mut on_removed: impl FnMut(TokenKey),
    ) {
        self.reserved
            .extract_if(.., |_, place| !keep(place))
            .for_each(|((token, _), _)| on_removed(token));
    }
}
