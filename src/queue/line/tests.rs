use std::time::Duration;

use proptest::prelude::*;

use super::super::budget::WINDOW;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// `count` visitors join at `now`; the value of each is its number.
fn arrivals(
    line: &mut WaitingLine<usize>,
    count: usize,
    per_second: u32,
    now: Instant,
) -> Vec<(Ticket, bool)> {
    let rate = Rate::new(per_second);
    (0..count).map(|n| line.join(None, rate, now, n)).collect()
}

fn unreleased(ticket: Ticket) -> Option<Place> {
    Some(Place {
        ticket,
        released: false,
    })
}

fn released(batch: Option<Batch<usize>>) -> Vec<usize> {
    batch.map_or_else(Vec::new, |batch| batch.released)
}

#[test]
fn all_visitors_are_released_when_the_conference_goes_live() {
    let (mut line, now, all) = (WaitingLine::default(), Instant::now(), Rate::new(0));
    let tickets = arrivals(&mut line, 3, 0, now);
    assert!(tickets.iter().all(|(_, released)| !released));
    assert_eq!(line.waiting(), 3);
    let batch = line.go_live(all, now).unwrap();
    assert_eq!(batch.delay_millis, 0);
    assert_eq!(batch.released, [0, 1, 2]);
    assert_eq!(line.waiting(), 0);
    assert!(
        line.join(None, all, now, 3).1,
        "late visitors are released immediately"
    );
    assert_eq!(
        line.go_live(all, now),
        None,
        "going live twice has no effect"
    );
}

#[test]
fn release_rate_keeps_order_of_arrival() {
    let (mut line, mut now, rate) = (WaitingLine::default(), Instant::now(), Rate::new(2));
    arrivals(&mut line, 5, 2, now);
    let mut batches = Vec::new();
    let mut batch = line.go_live(rate, now);
    while let Some(done) = batch {
        assert_eq!(done.delay_millis, BATCH_MILLIS);
        batches.push(done.released);
        assert_eq!(line.release(rate, now + SECOND), None);
        now += WINDOW;
        batch = line.release(rate, now);
    }
    assert_eq!(batches, [vec![0, 1], vec![2, 3], vec![4]]);
}

#[test]
fn live_state_that_ends_and_begins_again_has_no_other_budget() {
    let (mut line, now, rate) = (WaitingLine::default(), Instant::now(), Rate::new(2));
    arrivals(&mut line, 10, 2, now);
    let mut count = 0;
    for _ in 0..10 {
        count += released(line.go_live(rate, now)).len();
        line.end_live();
    }
    assert_eq!(count, 2);
    assert_eq!(line.go_live(rate, now + SECOND), None);
    assert_eq!(line.release_at(rate, now), Some(now + WINDOW));
    assert_eq!(released(line.release(rate, now + WINDOW)), [2, 3]);
}

#[test]
fn late_visitor_counts_and_waits_behind_waiting_visitors() {
    let (mut line, mut now, rate) = (WaitingLine::default(), Instant::now(), Rate::new(2));
    line.go_live(rate, now);
    assert!(line.join(None, rate, now, 0).1);
    now += SECOND / 2;
    assert!(line.join(None, rate, now, 1).1);
    assert!(!line.join(None, rate, now, 2).1, "the budget is used up");
    // One is waiting: the release of the first is counted no more.
    now += SECOND / 2;
    assert_eq!(line.release(rate, now), None);
    now += WINDOW - SECOND;
    assert!(!line.join(None, rate, now, 3).1, "a visitor waits");
    // For two, both are counted no more.
    assert_eq!(line.release(rate, now), None);
    now += SECOND / 2;
    assert_eq!(released(line.release(rate, now)), [2, 3]);
}

#[test]
fn no_visitor_is_released_at_a_rate_until_the_former_run_counts_no_more() {
    let (mut line, now) = (WaitingLine::default(), Instant::now());
    let rate = Rate {
        not_before: Some(now + SECOND),
        ..Rate::new(1)
    };
    line.go_live(rate, now);
    assert!(!line.join(None, rate, now, 0).1);
    assert_eq!(line.release_at(rate, now), Some(now + SECOND));
    assert_eq!(released(line.release(rate, now + SECOND)), [0]);
}

#[test]
fn returning_visitor_keeps_its_place() {
    let (mut line, now, rate) = (WaitingLine::default(), Instant::now(), Rate::new(1));
    let tickets = arrivals(&mut line, 3, 1, now);
    let (first, _) = tickets[0];
    assert!(line.leave(first));
    assert_eq!(line.waiting(), 2);
    let back = line.join(unreleased(first), rate, now, 9);
    assert_eq!(back, (first, false));
    assert_eq!(released(line.go_live(rate, now)), [9]);
}

#[test]
fn released_visitor_that_returns_is_next_within_the_rate_while_live() {
    let (mut line, now, rate) = (WaitingLine::default(), Instant::now(), Rate::new(1));
    let tickets = arrivals(&mut line, 3, 1, now);
    line.go_live(rate, now);
    let (first, _) = tickets[0];
    assert!(!line.leave(first));
    let place = Some(Place {
        ticket: first,
        released: true,
    });
    assert_eq!(line.join(place, rate, now, 9), (first, false));
    assert_eq!(released(line.release(rate, now + WINDOW)), [9]);
    line.end_live();
    let (again, immediately) = line.join(place, rate, now + WINDOW, 9);
    assert!(again > first && !immediately);
}

/// As if a connection is broken when its turn comes.
#[test]
fn visitor_whose_turn_passed_while_away_is_next_within_the_rate() {
    let (mut line, mut now, rate) = (WaitingLine::default(), Instant::now(), Rate::new(1));
    let tickets: Vec<_> = (0..5).map(|_| line.next_ticket()).collect();
    line.go_live(rate, now);
    // The last visitor returns first and uses the first second.
    let back = line.join(unreleased(tickets[4]), rate, now, 4);
    assert_eq!(back, (tickets[4], true));
    for n in [2, 0, 3, 1] {
        let back = line.join(unreleased(tickets[n]), rate, now, n);
        assert_eq!(back, (tickets[n], false));
    }
    for n in 0..4 {
        now += WINDOW;
        assert_eq!(released(line.release(rate, now)), [n]);
    }
}

#[test]
fn visitors_behind_an_awaited_owner_are_released_when_it_returns_or_after_the_wait() {
    for per_second in [0, 10] {
        let (mut line, now, rate) = (
            WaitingLine::default(),
            Instant::now(),
            Rate::new(per_second),
        );
        let until = now + SECOND * 10;
        let tickets: Vec<_> = (0..4).map(|_| line.await_owner(until)).collect();
        line.go_live(rate, now);
        let back = |line: &mut WaitingLine<usize>, n: usize, now| {
            line.join(unreleased(tickets[n]), rate, now, n).1
        };
        assert!(!line.join(None, rate, now, 9).1, "a new visitor is behind");
        assert!(!back(&mut line, 1, now));
        assert!(!back(&mut line, 3, now));
        assert_eq!(line.release(rate, now), None);
        assert_eq!(line.release_at(rate, now), Some(until));
        let is_released = back(&mut line, 0, now);
        let next = released(line.release(rate, now));
        assert_eq!(
            (is_released, next),
            if per_second == 0 {
                (true, vec![1])
            } else {
                (false, vec![0, 1])
            }
        );
        // The third does not return in time; later it is at the front.
        assert_eq!(line.release_at(rate, now), Some(until));
        let almost = until - Duration::from_millis(1);
        assert_eq!(line.release(rate, almost), None);
        assert_eq!(released(line.release(rate, until)), [3, 9]);
    }
}

#[test]
fn owner_that_returns_after_the_wait_is_at_the_front() {
    let (mut line, now, rate) = (WaitingLine::default(), Instant::now(), Rate::new(1));
    let until = now + SECOND * 10;
    let first = line.await_owner(until);
    line.go_live(rate, now);
    for n in 0..3 {
        assert!(!line.join(None, rate, now, n).1);
    }
    assert_eq!(released(line.release(rate, until)), [0]);
    let back = line.join(unreleased(first), rate, until, 9);
    assert_eq!(back, (first, false));
    assert_eq!(released(line.release(rate, until + WINDOW)), [9]);
}

#[test]
fn visitors_wait_again_after_end_live() {
    let (mut line, now, all) = (WaitingLine::default(), Instant::now(), Rate::new(0));
    arrivals(&mut line, 2, 0, now);
    line.go_live(all, now).unwrap();
    line.end_live();
    assert!(!line.join(None, all, now, 2).1);
    assert_eq!(line.release(all, now), None);
    assert_eq!(released(line.go_live(all, now)), [2]);
}

#[test]
fn only_a_waiting_visitor_is_moved() {
    let (mut line, now) = (WaitingLine::default(), Instant::now());
    let tickets = arrivals(&mut line, 3, 0, now);
    let [first, second, third] = [0, 1, 2].map(|n| tickets[n].0);
    line.leave(first);
    assert!(line.move_to(third, first));
    assert!(!line.move_to(third, first));
    assert!(line.leave(second));
    assert_eq!(released(line.go_live(Rate::new(0), now)), [2]);
}

#[derive(Clone, Debug)]
enum Event {
    Arrive,
    Leave(usize),
    Return(usize),
    Live,
    Pass(u64),
    End,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Arrive),
        2 => any::<usize>().prop_map(Event::Leave),
        2 => any::<usize>().prop_map(Event::Return),
        2 => Just(Event::Live),
        4 => (0u64..700).prop_map(Event::Pass),
        1 => Just(Event::End),
    ]
}

proptest! {
    /// No visitor is released while the conference isn't live, no second has more releases than the rate (returning
    /// visitors and those after another go-live included), no waiting visitor is overtaken, and all are released once
    /// it is live for long enough.
    #[test]
    fn line_is_fair_for_any_sequence_of_events(
        events in prop::collection::vec(event(), 0..300),
        per_second in 0u32..4,
    ) {
        let (mut line, mut now, rate) = (WaitingLine::default(), Instant::now(), Rate::new(per_second));
        // Number and ticket of each visitor.
        let mut waiting: Vec<(usize, Ticket)> = Vec::new();
        let mut gone: Vec<Ticket> = Vec::new();
        let mut releases: Vec<Instant> = Vec::new();
        for (n, event) in events.into_iter().enumerate() {
            let batch = match event {
                Event::Arrive | Event::Return(_) => {
                    let kept = match event {
                        Event::Return(n) if !gone.is_empty() => unreleased(gone.swap_remove(n % gone.len())),
                        _ => None,
                    };
                    let (ticket, immediately) = line.join(kept, rate, now, n);
                    prop_assert!(kept.is_none_or(|kept| kept.ticket == ticket));
                    prop_assert!(!immediately || (line.is_live() && waiting.is_empty()));
                    if immediately {
                        releases.push(now);
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
                Event::Live => line.go_live(rate, now),
                Event::Pass(millis) => {
                    now += Duration::from_millis(millis);
                    line.release(rate, now)
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
                releases.extend(released.iter().map(|_| now));
                let ticket = |(_, ticket): &(usize, Ticket)| *ticket;
                let (last, first) = (released.iter().map(ticket).max(), left.iter().map(ticket).min());
                prop_assert!(last.is_none() || first.is_none() || last < first);
                waiting = left;
            }
            let this_second = releases.iter().rev().take_while(|at| **at + SECOND > now).count();
            prop_assert!(per_second == 0 || this_second <= per_second as usize, "{} in a second", this_second);
            prop_assert_eq!(line.waiting(), waiting.len());
        }
        line.go_live(rate, now);
        for _ in 0..=line.waiting() + 1 {
            now += WINDOW;
            line.release(rate, now);
        }
        prop_assert_eq!(line.waiting(), 0);
    }
}
