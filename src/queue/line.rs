//! The line of one conference and its release rate (pure): first come, first released.
//!
//! Each visitor receives a ticket. Each [`Batch`] takes the lowest tickets out of the line. The value beside a ticket
//! (`T`) is how to notify its visitor.

use std::collections::BTreeMap;

/// The time over which the visitors of a batch spread their joining, in milliseconds. It is also the interval between
/// batches, so one batch has joined when the next begins.
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
    /// How many more visitors may be released within this second.
    budget: u32,
    /// The current second began with going live, between two ticks: the next tick comes too early for another batch.
    skip_next_tick: bool,
}

impl<T> Default for WaitingLine<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next_ticket: 0,
            live: false,
            budget: 0,
            skip_next_tick: false,
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
    pub fn join(&mut self, reserved: Option<Place>, per_second: u32, visitor: T) -> (Ticket, bool) {
        let ticket = match reserved {
            Some(place) if place.released && self.live => return (place.ticket, true),
            Some(place) if !place.released => place.ticket,
            _ => self.next_ticket(),
        };
        if self.live && self.waiting.is_empty() && (per_second == 0 || self.budget > 0) {
            self.budget = self.budget.saturating_sub(1);
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

    /// The conference goes live: releases the first batch, or all visitors if `per_second` is 0.
    pub fn go_live(&mut self, per_second: u32) -> Option<Batch<T>> {
        if self.live {
            return None;
        }
        self.live = true;
        self.skip_next_tick = true;
        self.release(per_second)
    }

    /// A second has begun: releases the next batch.
    pub fn tick(&mut self, per_second: u32) -> Option<Batch<T>> {
        if !self.live || std::mem::take(&mut self.skip_next_tick) {
            return None;
        }
        self.release(per_second)
    }

    fn release(&mut self, per_second: u32) -> Option<Batch<T>> {
        self.budget = per_second;
        let max = match per_second {
            0 => usize::MAX,
            n => usize::try_from(n).unwrap_or(usize::MAX),
        };
        let batch = if self.waiting.len() <= max {
            std::mem::take(&mut self.waiting)
        } else {
            let first_left = self.waiting.keys().nth(max).copied()?;
            let left = self.waiting.split_off(&first_left);
            std::mem::replace(&mut self.waiting, left)
        };
        if batch.is_empty() {
            return None;
        }
        let taken = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        self.budget = self.budget.saturating_sub(taken);
        Some(Batch {
            released: batch.into_values().collect(),
            delay_millis: if per_second == 0 { 0 } else { BATCH_MILLIS },
        })
    }

    /// The conference is no longer live. Waiting visitors stay in the line.
    pub fn end_live(&mut self) {
        self.live = false;
        self.budget = 0;
    }
}

#[cfg(test)]
mod tests;
