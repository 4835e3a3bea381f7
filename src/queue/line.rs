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

/// What somebody who left had, and may come back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Their ticket.
    pub ticket: Ticket,
    /// Whether they were let in. That is worth something only as long as the conference is live.
    pub released: bool,
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
pub struct WaitingLine<T> {
    /// Those who wait and have not been released.
    waiting: BTreeMap<Ticket, T>,
    /// The next ticket to be drawn.
    next: u64,
    live: bool,
    /// How many more may be released within this second.
    budget: u32,
    /// The second that runs began with going live, somewhere between two ticks: the next tick comes too early
    /// for another batch.
    skip_next_tick: bool,
}

impl<T> Default for WaitingLine<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: 0,
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

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Somebody comes, perhaps back, with the place they had. The second value says whether they may
    /// go in at once; `who` does not stand in the line then.
    pub fn arrive(&mut self, kept: Option<Place>, per_second: u32, who: T) -> (Ticket, bool) {
        let ticket = match kept {
            // They were let in already.
            Some(place) if place.released && self.live => return (place.ticket, true),
            Some(place) if !place.released => place.ticket,
            _ => self.next_ticket(),
        };
        if self.live && self.waiting.is_empty() && (per_second == 0 || self.budget > 0) {
            self.budget = self.budget.saturating_sub(1);
            return (ticket, true);
        }
        self.waiting.insert(ticket, who);
        (ticket, false)
    }

    /// A ticket for somebody who is expected and does not stand in the line yet.
    pub fn next_ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next - 1)
    }

    /// Somebody leaves; says whether they still waited, and had not been released.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// Whoever waits with the ticket `from` takes the place `to`, which nobody has; says whether there was
    /// anybody.
    pub fn move_to(&mut self, from: Ticket, to: Ticket) -> bool {
        let who = self.waiting.remove(&from);
        who.map(|who| self.waiting.insert(to, who)).is_some()
    }

    /// The conference goes live: the first batch may go in, or everybody if there is no pace.
    pub fn go_live(&mut self, per_second: u32) -> Option<Batch<T>> {
        if self.live {
            return None;
        }
        self.live = true;
        self.skip_next_tick = true;
        self.release(per_second)
    }

    /// A second has begun: the next batch may go in.
    pub fn tick(&mut self, per_second: u32) -> Option<Batch<T>> {
        if !self.live || std::mem::take(&mut self.skip_next_tick) {
            return None;
        }
        self.release(per_second)
    }

    fn release(&mut self, per_second: u32) -> Option<Batch<T>> {
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
    fn arrivals(line: &mut WaitingLine<usize>, count: usize, pace: u32) -> Vec<(Ticket, bool)> {
        (0..count).map(|n| line.arrive(None, pace, n)).collect()
    }

    fn unreleased(ticket: Ticket) -> Option<Place> {
        Some(Place {
            ticket,
            released: false,
        })
    }

    /// Goes live, and on to the end of its first second.
    fn first_second(line: &mut WaitingLine<usize>, pace: u32) -> Option<Batch<usize>> {
        let batch = line.go_live(pace);
        assert_eq!(line.tick(pace), None);
        batch
    }

    #[test]
    fn everybody_waits_until_live_and_then_all_go_at_once() {
        let mut line = WaitingLine::default();
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
        let mut line = WaitingLine::default();
        arrivals(&mut line, 5, 2);
        let mut released = Vec::new();
        let mut batch = first_second(&mut line, 2);
        while let Some(now) = batch {
            assert_eq!(now.delay_millis, BATCH_MILLIS);
            released.push(now.released);
            batch = line.tick(2);
        }
        assert_eq!(released, [vec![0, 1], vec![2, 3], vec![4]]);
    }

    #[test]
    fn a_tick_right_after_going_live_brings_no_second_batch() {
        let mut line = WaitingLine::default();
        arrivals(&mut line, 4, 2);
        assert_eq!(line.go_live(2).unwrap().released, [0, 1]);
        assert_eq!(line.tick(2), None);
        assert!(!line.arrive(None, 2, 4).1, "the budget is spent");
        assert_eq!(line.tick(2).unwrap().released, [2, 3]);
    }

    #[test]
    fn a_late_one_stands_at_the_end_while_others_wait() {
        let mut line = WaitingLine::default();
        arrivals(&mut line, 3, 2);
        first_second(&mut line, 2);
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
        let mut line = WaitingLine::default();
        let tickets = arrivals(&mut line, 3, 1);
        let (first, _) = tickets[0];
        assert!(line.leave(first));
        assert_eq!(line.waiting(), 2);
        assert_eq!(line.arrive(unreleased(first), 1, 9), (first, false));
        assert_eq!(line.go_live(1).unwrap().released, [9]);
    }

    #[test]
    fn who_was_released_and_comes_back_goes_at_once_while_it_is_live() {
        let mut line = WaitingLine::default();
        let tickets = arrivals(&mut line, 3, 1);
        line.go_live(1);
        let (first, _) = tickets[0];
        assert!(!line.leave(first));
        let released = Some(Place {
            ticket: first,
            released: true,
        });
        assert_eq!(line.arrive(released, 1, 9), (first, true));
        line.end_live();
        let (again, at_once) = line.arrive(released, 1, 9);
        assert!(again > first && !at_once);
    }

    /// As after a restart, or where a connection is away while its turn passes.
    #[test]
    fn who_was_passed_over_while_away_is_next_but_within_the_pace() {
        let mut line = WaitingLine::default();
        let tickets: Vec<_> = (0..5).map(|_| line.next_ticket()).collect();
        first_second(&mut line, 1);
        // The last one is quicker than all others, and the first second is theirs.
        assert_eq!(
            line.arrive(unreleased(tickets[4]), 1, 4),
            (tickets[4], true)
        );
        for n in [2, 0, 3, 1] {
            assert_eq!(
                line.arrive(unreleased(tickets[n]), 1, n),
                (tickets[n], false)
            );
        }
        for n in 0..4 {
            assert_eq!(line.tick(1).unwrap().released, [n]);
        }
    }

    #[test]
    fn after_the_end_the_next_wait_again() {
        let mut line = WaitingLine::default();
        arrivals(&mut line, 2, 0);
        line.go_live(0).unwrap();
        line.end_live();
        assert!(!line.arrive(None, 0, 2).1);
        assert_eq!(line.tick(0), None);
        assert_eq!(line.go_live(0).unwrap().released, [2]);
    }

    #[test]
    fn places_are_changed_only_with_somebody_who_waits() {
        let mut line = WaitingLine::default();
        let tickets = arrivals(&mut line, 3, 0);
        let [first, second, third] = [0, 1, 2].map(|n| tickets[n].0);
        line.leave(first);
        assert!(line.move_to(third, first));
        assert!(!line.move_to(third, first));
        assert!(line.leave(second));
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
            2 => any::<usize>().prop_map(Event::Return),
            1 => Just(Event::Live),
            3 => Just(Event::Tick),
            1 => Just(Event::End),
        ]
    }

    proptest! {
        /// Nobody is released while it isn't live, no second has more releases than the pace, those who come
        /// back among them, nobody who waits is overtaken, and once it is live long enough, nobody is left.
        #[test]
        fn the_line_is_fair_whatever_happens(
            events in prop::collection::vec(event(), 0..200),
            pace in 0u32..4,
        ) {
            let mut line = WaitingLine::default();
            // Each by their number in the line and their ticket.
            let mut waiting: Vec<(usize, Ticket)> = Vec::new();
            let mut gone: Vec<Ticket> = Vec::new();
            let (mut this_second, mut just_live) = (0, false);
            for (n, event) in events.into_iter().enumerate() {
                let batch = match event {
                    Event::Arrive | Event::Return(_) => {
                        let kept = match event {
                            Event::Return(n) if !gone.is_empty() => unreleased(gone.swap_remove(n % gone.len())),
                            _ => None,
                        };
                        let (ticket, at_once) = line.arrive(kept, pace, n);
                        prop_assert!(kept.is_none_or(|kept| kept.ticket == ticket));
                        prop_assert!(!at_once || (line.is_live() && waiting.is_empty()));
                        if at_once {
                            this_second += 1;
                        } else {
                            waiting.push((n, ticket));
                        }
                        None
                    }
                    Event::Leave(n) if !waiting.is_empty() => {
                        let (_, ticket) = waiting.swap_remove(n % waiting.len());
                        prop_assert!(line.leave(ticket));
                        gone.push(ticket);
                        None
                    }
                    Event::Leave(_) => None,
                    Event::Live => {
                        if !line.is_live() {
                            (this_second, just_live) = (0, true);
                        }
                        line.go_live(pace)
                    }
                    Event::Tick => {
                        if line.is_live() && !std::mem::take(&mut just_live) {
                            this_second = 0;
                        }
                        line.tick(pace)
                    }
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
            for _ in 0..=line.waiting() + 1 {
                line.tick(pace);
            }
            prop_assert_eq!(line.waiting(), 0);
        }
    }
}
