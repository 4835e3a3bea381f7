//! One conference as the queue sees it (pure except for the clock of reserved places): its line, whether it is live,
//! and the reserved places of visitors whose connection broke.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::budget::Rate;
use super::line::{Batch, Place, Ticket, WaitingLine};
use super::{SubscriberRef, TokenKey};

/// jicofo sends a released visitor back to the queue while the conference isn't live in Prosody or has no room there.
/// A crowd that is released immediately each time would only reconnect in a loop. A returning visitor spreads its
/// joining over this many milliseconds, twice as many each further time.
const REJOIN_SPREAD: u32 = 10_000;
/// The upper bound of [`REJOIN_SPREAD`].
const REJOIN_SPREAD_MAX: u32 = 60_000;

/// The interval at which reserved places whose time has passed are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

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
    /// When reserved places are removed next.
    sweep_at: Option<Instant>,
    /// Its entry in the agenda.
    scheduled: Option<Instant>,
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
    /// Whether the visitor is released immediately.
    pub(super) is_released: bool,
    /// The time over which it spreads its joining then, in milliseconds. It is 0 unless the visitor was released before.
    pub(super) spread_millis: u32,
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
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        self.has_no_visitors() && self.line.is_unused(now)
    }

    fn has_no_visitors(&self) -> bool {
        self.live_since.is_none() && self.sessions == 0 && self.reserved.is_empty()
    }

    /// Sets when it has something to do next; returns the former value and the new one.
    pub(super) fn schedule(
        &mut self,
        rate: Rate,
        now: Instant,
    ) -> (Option<Instant>, Option<Instant>) {
        let unused_at = match self.has_no_visitors() {
            true => self.line.unused_at(),
            false => None,
        };
        let next = [self.line.release_at(rate, now), self.sweep_at, unused_at];
        let next = next.into_iter().flatten().min();
        (std::mem::replace(&mut self.scheduled, next), next)
    }

    /// Does what is due: returns the next batch, and removes the reserved places whose time has passed; `on_removed`
    /// receives the token of each.
    pub(super) fn advance(
        &mut self,
        rate: Rate,
        now: Instant,
        on_removed: impl FnMut(TokenKey),
    ) -> Option<Batch<SubscriberRef>> {
        self.scheduled = None;
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.retain(|place| place.until > now, on_removed);
            self.sweep_at = (!self.reserved.is_empty()).then(|| now + SWEEP_INTERVAL);
        }
        self.line.release(rate, now)
    }

    /// Adds a visitor. `is_duplicate`: another visitor with this token is connected.
    pub(super) fn join(
        &mut self,
        token: Option<TokenKey>,
        is_duplicate: bool,
        rate: Rate,
        now: Instant,
        subscriber: SubscriberRef,
    ) -> Arrival {
        let (reserved, freed) = token.map_or((None, 0), |token| self.take_reserved(token, now));
        let rejoined = reserved.filter(|(place, _)| place.released && self.is_live());
        let spread_millis = rejoined.map_or(0, |(_, millis)| millis);
        // A visitor that is sent back again and again must not use the rate of those that wait.
        let keeps_place = rate.per_second == 0 || spread_millis <= REJOIN_SPREAD;
        let place = reserved.map(|(place, _)| place).filter(|_| keeps_place);
        let (ticket, is_released) = self.line.join(place, rate, now, subscriber);
        if let Some(token) = token.filter(|_| is_duplicate && !is_released) {
            self.duplicates.insert((token, ticket), ticket);
        }
        self.sessions += 1;
        Arrival {
            ticket,
            is_released,
            spread_millis,
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

    /// Reserves a place for `duration`, for a visitor that spreads its joining over `spread_millis` when it is released
    /// again.
    pub(super) fn reserve(
        &mut self,
        token: TokenKey,
        place: Place,
        spread_millis: u32,
        now: Instant,
        duration: Duration,
    ) {
        let reserved = ReservedPlace {
            until: now + duration,
            released: place.released,
            rejoin_spread_millis: spread_millis.clamp(REJOIN_SPREAD, REJOIN_SPREAD_MAX),
        };
        self.reserved.insert((token, place.ticket), reserved);
        self.sweep_at.get_or_insert(now + SWEEP_INTERVAL);
    }

    /// Reserves a place at the end of the line for a visitor of the former run, for `grace`. Releases wait for the
    /// visitor for `wait`.
    pub(super) fn restore_place(
        &mut self,
        token: TokenKey,
        now: Instant,
        wait: Duration,
        grace: Duration,
    ) {
        let place = Place {
            ticket: self.line.await_owner(now + wait),
            released: false,
        };
        self.reserve(token, place, 0, now, grace.max(wait));
    }

    /// The earliest valid place that is reserved for this token, with the time over which to spread the joining, and
    /// the number of places that were removed to find it.
    fn take_reserved(&mut self, token: TokenKey, now: Instant) -> (Option<(Place, u32)>, u32) {
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

    /// The tokens of visitors that are away at this instant and were not released, in the order of their places.
    pub(super) fn waiting_tokens(&self, at: Instant) -> impl Iterator<Item = TokenKey> {
        let mut tokens: Vec<_> = self
            .reserved
            .iter()
            .filter(|(_, place)| place.until > at && !place.released)
            .map(|(&(token, ticket), _)| (ticket, token))
            .collect();
        tokens.sort_unstable_by_key(|(ticket, _)| *ticket);
        tokens.into_iter().map(|(_, token)| token)
    }

    /// The conference goes live, and was not live before; returns the first batch.
    pub(super) fn go_live(
        &mut self,
        since: DateTime<Utc>,
        rate: Rate,
        now: Instant,
    ) -> Option<Batch<SubscriberRef>> {
        self.live_since = Some(since);
        self.line.go_live(rate, now)
    }

    /// The conference is no longer live; returns whether it was. Reserved places of released visitors are
    /// removed: `on_removed` receives the token of each.
    pub(super) fn end_live(&mut self, on_removed: impl FnMut(TokenKey)) -> bool {
        self.line.end_live();
        self.retain(|place| !place.released, on_removed);
        self.live_since.take().is_some()
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
