//! One conference as the queue sees it (pure but for the clock of kept places): its line, whether it is live,
//! and the places of those who are away for a moment.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::line::{Batch, Place, Ticket, WaitingLine};
use super::{SubscriberRef, TokenKey};

/// Who was let in and is back within their grace was sent here again: jicofo does that as long as the conference
/// isn't live in Prosody, or has no room there. A crowd that is told at once, again and again, would do nothing
/// but come and go. So the first time they are spread over so many milliseconds, and each time over twice as
/// many.
const REJOIN_SPREAD: u32 = 10_000;
/// No more than this.
const REJOIN_SPREAD_MAX: u32 = 60_000;

/// A conference that somebody waits for, or that is live.
#[derive(Debug, Default)]
pub(super) struct ConferenceQueue {
    line: WaitingLine<SubscriberRef>,
    live_since: Option<DateTime<Utc>>,
    /// How many sessions wait, those released but not gone included.
    sessions: usize,
    /// Places of those whose connection broke. A tree, as it gives back what a crowd took that came and went.
    kept: BTreeMap<(TokenKey, Ticket), Reservation>,
    /// Places, by token, of those who came while another of their token was there: mostly one and the same
    /// person, whose former connection is dead and doesn't know it yet. With each the ticket that its session
    /// was given.
    seconds: BTreeMap<(TokenKey, Ticket), Ticket>,
    /// Places, by the tickets that the sessions were given, of those who took over another's.
    moved: BTreeMap<Ticket, Ticket>,
}

#[derive(Clone, Copy, Debug)]
struct Reservation {
    until: Instant,
    released: bool,
    /// Over how many milliseconds they are spread if they come back and were released.
    back_millis: u32,
}

/// What became of a place that was asked for.
pub(super) struct Arrival {
    /// The ticket, for [`ConferenceQueue::leave`].
    pub(super) ticket: Ticket,
    /// Whether its bearer may go in at once, and within how many milliseconds.
    pub(super) at_once: Option<u32>,
    /// How many places of this token are not kept any more.
    pub(super) freed: u32,
}

impl ConferenceQueue {
    pub(super) fn live_since(&self) -> Option<DateTime<Utc>> {
        self.live_since
    }

    pub(super) fn is_live(&self) -> bool {
        self.line.is_live()
    }

    /// How many wait and have not been released.
    pub(super) fn waiting(&self) -> usize {
        self.line.waiting()
    }

    /// How many were released, and are still connected.
    pub(super) fn released(&self) -> usize {
        self.sessions.saturating_sub(self.line.waiting())
    }

    /// How many are away, and have not been released.
    pub(super) fn away(&self) -> usize {
        self.kept.values().filter(|kept| !kept.released).count()
    }

    /// Whether nobody needs it.
    pub(super) fn is_idle(&self) -> bool {
        self.live_since.is_none() && self.sessions == 0 && self.kept.is_empty()
    }

    /// Somebody comes. `is_second`: another with this token is there.
    pub(super) fn join(
        &mut self,
        token: Option<TokenKey>,
        is_second: bool,
        per_second: u32,
        subscriber: SubscriberRef,
    ) -> Arrival {
        let (kept, freed) = token.map_or((None, 0), |token| self.take_kept(token));
        let place = kept.map(|(place, _)| place);
        let (ticket, at_once) = self.line.arrive(place, per_second, subscriber);
        let back = kept.filter(|(place, _)| place.released);
        let at_once = at_once.then(|| back.map_or(0, |(_, millis)| millis));
        if let Some(token) = token.filter(|_| is_second && at_once.is_none()) {
            self.seconds.insert((token, ticket), ticket);
        }
        self.sessions += 1;
        Arrival {
            ticket,
            at_once,
            freed,
        }
    }

    /// Somebody leaves who was given `ticket`. The earliest place of a token is for whoever of it remains.
    /// Gives the place that is free now, if it is worth keeping.
    pub(super) fn leave(&mut self, token: Option<TokenKey>, ticket: Ticket) -> Option<Place> {
        self.sessions -= 1;
        let mut ticket = self.moved.remove(&ticket).unwrap_or(ticket);
        let waited = self.line.leave(ticket);
        if let Some(token) = token {
            let was_second = self.seconds.remove(&(token, ticket)).is_some();
            if waited && let Some(later) = self.take_over(token, ticket, was_second) {
                ticket = later;
            }
        }
        let place = Place {
            ticket,
            released: !waited,
        };
        // Who was let in goes on being let in while it is live.
        (waited || self.is_live()).then_some(place)
    }

    /// The next of this token takes the place `to`; gives the one that they had.
    fn take_over(&mut self, token: TokenKey, to: Ticket, was_second: bool) -> Option<Ticket> {
        let (&(next, from), &given) = self.seconds.range((token, to)..).next()?;
        if next != token || !self.line.move_to(from, to) {
            return None;
        }
        self.seconds.remove(&(token, from));
        if was_second {
            self.seconds.insert((token, to), given);
        }
        self.moved.insert(given, to);
        Some(from)
    }

    /// Keeps a place for so long, after which whoever was released has had time to come back. `at_once`: over
    /// how many milliseconds they were to spread their joining, if they did not have to wait.
    pub(super) fn keep(
        &mut self,
        token: TokenKey,
        place: Place,
        at_once: Option<u32>,
        grace: Duration,
    ) {
        let joining = Duration::from_millis(at_once.unwrap_or(0).into());
        let back_millis = at_once.map_or(REJOIN_SPREAD, |millis| millis.saturating_mul(2));
        let kept = Reservation {
            until: Instant::now() + joining + grace,
            released: place.released,
            back_millis: back_millis.clamp(REJOIN_SPREAD, REJOIN_SPREAD_MAX),
        };
        self.kept.insert((token, place.ticket), kept);
    }

    /// Keeps a place at the end of the line for somebody who is expected.
    pub(super) fn expect(&mut self, token: TokenKey, grace: Duration) {
        let place = Place {
            ticket: self.line.next_ticket(),
            released: false,
        };
        self.keep(token, place, None, grace);
    }

    /// The earliest place that is kept for this token, with the time for coming back to it, and how many were
    /// taken out to find it.
    fn take_kept(&mut self, token: TokenKey) -> (Option<(Place, u32)>, u32) {
        let now = Instant::now();
        let mut taken = 0;
        while let Some((&(next, ticket), &kept)) = self.kept.range((token, Ticket::FIRST)..).next()
        {
            if next != token {
                break;
            }
            self.kept.remove(&(next, ticket));
            taken += 1;
            if kept.until > now {
                let released = kept.released;
                return (Some((Place { ticket, released }, kept.back_millis)), taken);
            }
        }
        (None, taken)
    }

    /// The tokens of those who are away and have not been released, in the order of their places.
    pub(super) fn in_order(&self) -> impl Iterator<Item = TokenKey> {
        let now = Instant::now();
        let away = self.kept.iter();
        let mut here: Vec<_> = away
            .filter(|(_, kept)| kept.until > now && !kept.released)
            .map(|(&(token, ticket), _)| (ticket, token))
            .collect();
        here.sort_unstable_by_key(|(ticket, _)| *ticket);
        here.into_iter().map(|(_, token)| token)
    }

    /// It goes live, which it was not: the first batch may go in.
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

    /// It is over; says whether it was live. `forget` is told of each place that is not kept any more: having
    /// been let in is worth nothing now.
    pub(super) fn end_live(&mut self, forget: impl FnMut(TokenKey)) -> bool {
        self.line.end_live();
        self.keep_on(|kept| !kept.released, forget);
        self.live_since.take().is_some()
    }

    /// Forgets the places that nobody came back to; `forget` is told of each.
    pub(super) fn forget(&mut self, forget: impl FnMut(TokenKey)) {
        let now = Instant::now();
        self.keep_on(|kept| kept.until > now, forget);
    }

    /// Keeps on those places that are worth it; `forget` is told of each of the others.
    fn keep_on(
        &mut self,
        is_worth_it: impl Fn(&Reservation) -> bool,
        mut forget: impl FnMut(TokenKey),
    ) {
        self.kept
            .extract_if(.., |_, kept| !is_worth_it(kept))
            .for_each(|((token, _), _)| forget(token));
    }
}
