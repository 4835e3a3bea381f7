//! The line of one conference and its release rate (pure): first come, first released.
//!
//! Each visitor receives a ticket. Each [`Batch`] takes the lowest tickets out of the line. The value beside a ticket
//! (`T`) is how to notify its visitor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::budget::{Budget, Rate};

/// The time over which the visitors of a batch spread their joining, in milliseconds. While visitors wait, the next
/// batch is not released within this time, so one batch has joined when the next begins.
pub const BATCH_MILLIS: u32 = 1000;

/// A place in the line of one conference: lower ones came earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// The lowest ticket.
    pub const FIRST: Self = Self(0);
}

/// The place of a visitor that left, and may return to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The visitor's ticket.
    pub ticket: Ticket,
    /// Whether the visitor was released. That counts only while the conference is live.
    pub released: bool,
}

/// The visitors that are released together, in order of arrival.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch<T> {
    /// The value of each visitor.
    pub released: Vec<T>,
    /// The time over which they spread their joining, in milliseconds.
    pub delay_millis: u32,
}

/// The visitors that wait for one conference, in order of arrival.
#[derive(Debug)]
pub struct WaitingLine<T> {
    /// The visitors that were not released yet.
    waiting: BTreeMap<Ticket, T>,
    next_ticket: u64,
    live: bool,
    budget: Budget,
    /// The places of the former run whose owners have not returned. No visitor behind the first of them is released
    /// until `awaited_until`.
    awaited: BTreeSet<Ticket>,
    awaited_until: Option<Instant>,
}

impl<T> Default for WaitingLine<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next_ticket: 0,
            live: false,
            budget: Budget::default(),
            awaited: BTreeSet::new(),
            awaited_until: None,
        }
    }
}

impl<T> WaitingLine<T> {
    /// Whether the conference is live.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// The number of waiting visitors.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a visitor, at the reserved place if there is one. The second value of the result says whether the visitor is
    /// released immediately; `visitor` is not in the line then.
    pub fn join(
        &mut self,
        reserved: Option<Place>,
        rate: Rate,
        now: Instant,
        visitor: T,
    ) -> (Ticket, bool) {
        let ticket = match reserved {
            // Its message was sent, but its connection may have broken before it arrived: it is next again.
            Some(place) if place.released && self.live => place.ticket,
            Some(place) if !place.released => place.ticket,
            _ => self.next_ticket(),
        };
        self.awaited.remove(&ticket);
        let is_next = rate.per_second == 0 || self.waiting.is_empty();
        if self.live
            && is_next
            && self.first_awaited(now).is_none_or(|first| ticket < first)
            && self.budget.available(rate, now) > 0
        {
            self.budget.spend(1, rate, now);
            return (ticket, true);
        }
        self.waiting.insert(ticket, visitor);
        (ticket, false)
    }

    /// A ticket at the end of the line, without a visitor yet.
    pub fn next_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket - 1)
    }

    /// A ticket at the end of the line for a visitor of the former run, whom the visitors behind it await until `until`.
    pub fn await_owner(&mut self, until: Instant) -> Ticket {
        let ticket = self.next_ticket();
        self.awaited.insert(ticket);
        self.awaited_until = Some(until);
        ticket
    }

    /// Removes a visitor; returns whether it was still waiting.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// Moves the visitor with the ticket `from` to the free place `to`; returns whether there was one.
    pub fn move_to(&mut self, from: Ticket, to: Ticket) -> bool {
        let visitor = self.waiting.remove(&from);
        visitor
            .map(|visitor| self.waiting.insert(to, visitor))
            .is_some()
    }

    /// The conference goes live: releases the visitors whose turn it is, all of them without a rate.
    pub fn go_live(&mut self, rate: Rate, now: Instant) -> Option<Batch<T>> {
        self.live = true;
        self.release(rate, now)
    }

    /// Releases the next batch, if it is due at `now`.
    pub fn release(&mut self, rate: Rate, now: Instant) -> Option<Batch<T>> {
        let is_due = self.release_at(rate, now).is_some_and(|at| at <= now);
        if !is_due {
            return None;
        }
        let max = usize::try_from(self.budget.available(rate, now)).unwrap_or(usize::MAX);
        let first_awaited = self.first_awaited(now);
        let batch = self.take(max, first_awaited);
        if batch.is_empty() {
            return None;
        }
        let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        self.budget.spend(count, rate, now);
        Some(Batch {
            released: batch.into_values().collect(),
            delay_millis: match rate.per_second {
                0 => 0,
                _ => BATCH_MILLIS,
            },
        })
    }

    /// The instant at which the next batch is due, if the conference is live and visitors wait: as soon as the budget
    /// suffices for all of them, or for a whole second.
    pub fn release_at(&mut self, rate: Rate, now: Instant) -> Option<Instant> {
        let (&next, _) = self.waiting.first_key_value().filter(|_| self.live)?;
        let first_awaited = self.first_awaited(now);
        let earliest = match self.awaited_until {
            Some(until) if first_awaited.is_some_and(|first| first < next) => until,
            _ => now,
        };
        let count = match first_awaited {
            // Those before the first awaited place are not counted here.
            Some(_) => 1,
            None => u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
        };
        let available = self.budget.available_at(count, rate, now);
        Some(earliest.max(available))
    }

    /// The lowest tickets, at most `max` of them, and none from `end` on.
    fn take(&mut self, max: usize, end: Option<Ticket>) -> BTreeMap<Ticket, T> {
        let first_left = match self.waiting.len() > max {
            true => self.waiting.keys().nth(max).copied(),
            false => None,
        };
        let end = match (first_left, end) {
            (Some(left), Some(end)) => Some(left.min(end)),
            (left, end) => left.or(end),
        };
        match end {
            None => std::mem::take(&mut self.waiting),
            Some(end) => {
                let left = self.waiting.split_off(&end);
                std::mem::replace(&mut self.waiting, left)
            }
        }
    }

    /// The first place whose owner is awaited.
    fn first_awaited(&mut self, now: Instant) -> Option<Ticket> {
        if self.awaited_until.is_some_and(|until| until <= now) {
            (self.awaited, self.awaited_until) = (BTreeSet::new(), None);
        }
        self.awaited.first().copied()
    }

    /// The conference is no longer live. Waiting visitors stay in the line.
    pub fn end_live(&mut self) {
        self.live = false;
    }

    /// Whether the line of a conference without visitors can be dropped: no later release has to count what it counts.
    pub fn is_unused(&mut self, now: Instant) -> bool {
        self.waiting.is_empty() && self.budget.is_unused(now)
    }

    /// The instant from which [`WaitingLine::is_unused`], if no visitor joins.
    #[must_use]
    pub fn unused_at(&self) -> Option<Instant> {
        self.budget.unused_at()
    }
}

#[cfg(test)]
mod tests;
