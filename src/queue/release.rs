//! The line of one conference and the pace it is released at (pure): first come, first released.
//!
//! Everybody who arrives draws a ticket; each [`Batch`] takes the lowest ones out of the line. What stands in
//! the line beside a ticket (`T`) is how its bearer is told.

use std::collections::BTreeMap;

/// How long a batch is spread over, in milliseconds: batches follow each other at this distance, so
/// one ends joining where the next begins.
pub const BATCH_MILLIS: u32 = 1000;

/// A place in the line of one conference: lower ones came earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// No other is lower.
    pub const FIRST: Self = Self(0);
}

/// Those who may go in now, in order of arrival.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch<T> {
    /// What stood in the line for each.
    pub released: Vec<T>,
    /// Over how many milliseconds they are to spread their joining.
    pub delay_millis: u32,
}

/// Who waits for one conference, in order of arrival.
#[derive(Debug)]
pub struct Line<T> {
    /// Those who wait and have not been released.
    waiting: BTreeMap<Ticket, T>,
    /// The next ticket to be drawn.
    next: u64,
    /// Tickets below this one are released.
    upto: u64,
    live: bool,
    /// How many more may be released within this second.
    budget: u32,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: 0,
            upto: 0,
            live: false,
            budget: 0,
        }
    }
}

impl<T> Line<T> {
    /// Whether the conference is live.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Somebody comes, perhaps back, with the ticket they had. The second value says whether they may
    /// go in at once; `who` does not stand in the line then.
    pub fn arrive(&mut self, kept: Option<Ticket>, per_second: u32, who: T) -> (Ticket, bool) {
        // A ticket of a former going live is worth nothing in the next waiting.
        let kept = kept.filter(|ticket| self.live || ticket.0 >= self.upto);
        let ticket = kept.unwrap_or_else(|| self.draw());
        if self.live && ticket.0 < self.upto {
            return (ticket, true);
        }
        if self.live && self.waiting.is_empty() && (per_second == 0 || self.budget > 0) {
            self.budget = self.budget.saturating_sub(1);
            self.upto = self.upto.max(ticket.0 + 1);
            return (ticket, true);
        }
        self.waiting.insert(ticket, who);
        (ticket, false)
    }

    /// A ticket for somebody who is expected and does not stand in the line yet.
    pub fn draw(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next - 1)
    }

    /// Whether the bearer of this ticket was let in.
    #[must_use]
    pub fn is_released(&self, ticket: Ticket) -> bool {
        ticket.0 < self.upto
    }

    /// Somebody leaves, released or not.
    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// The conference goes live: the first batch may go in, or everybody if there is no pace.
    pub fn go_live(&mut self, per_second: u32) -> Option<Batch<T>> {
        if self.live {
            return None;
        }
        self.live = true;
        self.tick(per_second)
    }

    /// A second has begun: the next batch may go in.
    pub fn tick(&mut self, per_second: u32) -> Option<Batch<T>> {
        if !self.live {
            return None;
        }
        self.budget = per_second;
        let room = match per_second {
            0 => usize::MAX,
            n => usize::try_from(n).unwrap_or(usize::MAX),
        };
        let batch = if self.waiting.len() <= room {
            std::mem::take(&mut self.waiting)
        } else {
            // The line is cut after the last one who still has room.
            let cut = self.waiting.keys().nth(room).copied()?;
            let rest = self.waiting.split_off(&cut);
            std::mem::replace(&mut self.waiting, rest)
        };
        let last = *batch.last_key_value()?.0;
        let taken = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        self.budget = self.budget.saturating_sub(taken);
        self.upto = self.upto.max(last.0 + 1);
        Some(Batch {
            released: batch.into_values().collect(),
            delay_millis: if per_second == 0 { 0 } else { BATCH_MILLIS },
        })
    }

    /// The conference is over: whoever comes from now on waits again, and whoever still waits goes on
    /// waiting.
    pub fn end_live(&mut self) {
        self.live = false;
        self.budget = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// So many arrive, called by their numbers.
    fn arrivals(line: &mut Line<usize>, count: usize, pace: u32) -> Vec<(Ticket, bool)> {
        (0..count).map(|n| line.arrive(None, pace, n)).collect()
    }

    #[test]
    fn everybody_waits_until_live_and_then_all_go_at_once() {
        let mut line = Line::default();
        let tickets = arrivals(&mut line, 3, 0);
        assert!(tickets.iter().all(|(_, released)| !released));
        assert_eq!(line.waiting(), 3);
        let batch = line.go_live(0).unwrap();
        assert_eq!(batch.delay_millis, 0);
        assert_eq!(batch.released, [0, 1, 2]);
        assert_eq!(line.waiting(), 0);
        assert!(line.arrive(None, 0, 3).1, "late ones go at once");
        assert_eq!(line.go_live(0), None, "going live twice changes nothing");
    }

    #[test]
    fn a_pace_releases_in_order_of_arrival() {
        let mut line = Line::default();
        arrivals(&mut line, 5, 2);
        let mut released = Vec::new();
        let mut batch = line.go_live(2);
        while let Some(now) = batch {
            assert_eq!(now.delay_millis, BATCH_MILLIS);
            released.push(now.released);
            batch = line.tick(2);
        }
        assert_eq!(released, [vec![0, 1], vec![2, 3], vec![4]]);
    }

    #[test]
    fn a_late_one_stands_at_the_end_while_others_wait() {
        let mut line = Line::default();
        arrivals(&mut line, 3, 2);
        line.go_live(2);
        assert!(!line.arrive(None, 2, 3).1);
        assert_eq!(line.tick(2).unwrap().released, [2, 3]);
        // The second's budget is spent.
        assert!(!line.arrive(None, 2, 4).1);
        line.tick(2);
        assert!(line.arrive(None, 2, 5).1);
        assert!(!line.arrive(None, 2, 6).1);
    }

    #[test]
    fn a_place_is_kept_by_its_ticket() {
        let mut line = Line::default();
        let tickets = arrivals(&mut line, 3, 1);
        let (first, _) = tickets[0];
        line.leave(first);
        assert_eq!(line.waiting(), 2);
        assert_eq!(line.arrive(Some(first), 1, 9), (first, false));
        assert_eq!(line.go_live(1).unwrap().released, [9]);
    }

    #[test]
    fn who_was_released_and_comes_back_goes_at_once_while_it_is_live() {
        let mut line = Line::default();
        let tickets = arrivals(&mut line, 3, 1);
        line.go_live(1);
        let (first, _) = tickets[0];
        line.leave(first);
        assert_eq!(line.arrive(Some(first), 1, 9), (first, true));
        line.end_live();
        let (again, released) = line.arrive(Some(first), 1, 9);
        assert!(again > first && !released);
    }

    #[test]
    fn after_the_end_the_next_wait_again() {
        let mut line = Line::default();
        arrivals(&mut line, 2, 0);
        line.go_live(0).unwrap();
        line.end_live();
        assert!(!line.arrive(None, 0, 2).1);
        assert_eq!(line.tick(0), None);
        assert_eq!(line.go_live(0).unwrap().released, [2]);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Arrive,
        Leave(usize),
        Return(usize),
        Live,
        Tick,
        End,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Arrive),
            2 => any::<usize>().prop_map(Event::Leave),
            1 => any::<usize>().prop_map(Event::Return),
            1 => Just(Event::Live),
            3 => Just(Event::Tick),
            1 => Just(Event::End),
        ]
    }

    proptest! {
        /// Nobody is released while it isn't live, no batch is larger than the pace, nobody who waits
        /// is overtaken, and once it is live long enough, nobody is left.
        #[test]
        fn the_line_is_fair_whatever_happens(
            events in prop::collection::vec(event(), 0..200),
            pace in 0u32..4,
        ) {
            let mut line = Line::default();
            // Each by their number in the line and their ticket.
            let mut waiting: Vec<(usize, Ticket)> = Vec::new();
            let mut gone: Vec<Ticket> = Vec::new();
            let mut this_second = 0;
            for (n, event) in events.into_iter().enumerate() {
                let batch = match event {
                    Event::Arrive | Event::Return(_) => {
                        let kept = match event {
                            Event::Return(n) if !gone.is_empty() => Some(gone.swap_remove(n % gone.len())),
                            _ => None,
                        };
                        let (ticket, released) = line.arrive(kept, pace, n);
                        prop_assert!(!released || line.is_live());
                        if released {
                            prop_assert!(waiting.is_empty() || Some(ticket) == kept);
                            this_second += u32::from(Some(ticket) != kept);
                        } else {
                            waiting.push((n, ticket));
                        }
                        None
                    }
                    Event::Leave(n) if !waiting.is_empty() => {
                        let (_, ticket) = waiting.swap_remove(n % waiting.len());
                        line.leave(ticket);
                        gone.push(ticket);
                        None
                    }
                    Event::Leave(_) => None,
                    Event::Live if line.is_live() => line.go_live(pace),
                    Event::Live => { this_second = 0; line.go_live(pace) }
                    Event::Tick => { this_second = 0; line.tick(pace) }
                    Event::End => { line.end_live(); None }
                };
                if let Some(batch) = batch {
                    prop_assert!(line.is_live());
                    let (mut released, left): (Vec<_>, Vec<_>) =
                        waiting.into_iter().partition(|(n, _)| batch.released.contains(n));
                    released.sort_by_key(|(_, ticket)| *ticket);
                    let in_order: Vec<_> = released.iter().map(|(n, _)| *n).collect();
                    prop_assert_eq!(&batch.released, &in_order);
                    this_second += u32::try_from(released.len()).unwrap();
                    let ticket = |(_, ticket): &(usize, Ticket)| *ticket;
                    let (last, first) = (released.iter().map(ticket).max(), left.iter().map(ticket).min());
                    prop_assert!(last.is_none() || first.is_none() || last < first);
                    waiting = left;
                }
                prop_assert!(pace == 0 || this_second <= pace, "{} in a second", this_second);
                prop_assert_eq!(line.waiting(), waiting.len());
            }
            line.go_live(pace);
            for _ in 0..=line.waiting() {
                line.tick(pace);
            }
            prop_assert_eq!(line.waiting(), 0);
        }
    }
}
