use proptest::prelude::*;

use super::*;

/// `count` visitors join; the value of each is its number.
fn arrivals(line: &mut WaitingLine<usize>, count: usize, per_second: u32) -> Vec<(Ticket, bool)> {
    (0..count).map(|n| line.join(None, per_second, n)).collect()
}

fn unreleased(ticket: Ticket) -> Option<Place> {
    Some(Place {
        ticket,
        released: false,
    })
}

/// Goes live, and runs until the first second has passed.
fn first_second(line: &mut WaitingLine<usize>, per_second: u32) -> Option<Batch<usize>> {
    let batch = line.go_live(per_second);
    assert_eq!(line.tick(per_second), None);
    batch
}

#[test]
fn all_visitors_are_released_when_the_conference_goes_live() {
    let mut line = WaitingLine::default();
    let tickets = arrivals(&mut line, 3, 0);
    assert!(tickets.iter().all(|(_, released)| !released));
    assert_eq!(line.waiting(), 3);
    let batch = line.go_live(0).unwrap();
    assert_eq!(batch.delay_millis, 0);
    assert_eq!(batch.released, [0, 1, 2]);
    assert_eq!(line.waiting(), 0);
    assert!(
        line.join(None, 0, 3).1,
        "late visitors are released immediately"
    );
    assert_eq!(line.go_live(0), None, "going live twice has no effect");
}

#[test]
fn release_rate_keeps_order_of_arrival() {
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
fn first_tick_after_going_live_releases_no_batch() {
    let mut line = WaitingLine::default();
    arrivals(&mut line, 4, 2);
    assert_eq!(line.go_live(2).unwrap().released, [0, 1]);
    assert_eq!(line.tick(2), None);
    assert!(!line.join(None, 2, 4).1, "the budget is used up");
    assert_eq!(line.tick(2).unwrap().released, [2, 3]);
}

#[test]
fn late_visitor_waits_behind_waiting_visitors() {
    let mut line = WaitingLine::default();
    arrivals(&mut line, 3, 2);
    first_second(&mut line, 2);
    assert!(!line.join(None, 2, 3).1);
    assert_eq!(line.tick(2).unwrap().released, [2, 3]);
    // The budget of this second is used up.
    assert!(!line.join(None, 2, 4).1);
    line.tick(2);
    assert!(line.join(None, 2, 5).1);
    assert!(!line.join(None, 2, 6).1);
}

#[test]
fn returning_visitor_keeps_its_place() {
    let mut line = WaitingLine::default();
    let tickets = arrivals(&mut line, 3, 1);
    let (first, _) = tickets[0];
    assert!(line.leave(first));
    assert_eq!(line.waiting(), 2);
    assert_eq!(line.join(unreleased(first), 1, 9), (first, false));
    assert_eq!(line.go_live(1).unwrap().released, [9]);
}

#[test]
fn released_visitor_that_returns_is_released_while_live() {
    let mut line = WaitingLine::default();
    let tickets = arrivals(&mut line, 3, 1);
    line.go_live(1);
    let (first, _) = tickets[0];
    assert!(!line.leave(first));
    let released = Some(Place {
        ticket: first,
        released: true,
    });
    assert_eq!(line.join(released, 1, 9), (first, true));
    line.end_live();
    let (again, immediately) = line.join(released, 1, 9);
    assert!(again > first && !immediately);
}

/// As after a restart, or if a connection is broken when its turn comes.
#[test]
fn visitor_whose_turn_passed_while_away_is_next_within_the_rate() {
    let mut line = WaitingLine::default();
    let tickets: Vec<_> = (0..5).map(|_| line.next_ticket()).collect();
    first_second(&mut line, 1);
    // The last visitor returns first and uses the first second.
    assert_eq!(line.join(unreleased(tickets[4]), 1, 4), (tickets[4], true));
    for n in [2, 0, 3, 1] {
        assert_eq!(line.join(unreleased(tickets[n]), 1, n), (tickets[n], false));
    }
    for n in 0..4 {
        assert_eq!(line.tick(1).unwrap().released, [n]);
    }
}

#[test]
fn visitors_wait_again_after_end_live() {
    let mut line = WaitingLine::default();
    arrivals(&mut line, 2, 0);
    line.go_live(0).unwrap();
    line.end_live();
    assert!(!line.join(None, 0, 2).1);
    assert_eq!(line.tick(0), None);
    assert_eq!(line.go_live(0).unwrap().released, [2]);
}

#[test]
fn only_a_waiting_visitor_is_moved() {
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
    /// No visitor is released while the conference isn't live, no second has more releases than the rate (returning
    /// visitors included), no waiting visitor is overtaken, and all are released once it is live for long enough.
    #[test]
    fn line_is_fair_for_any_sequence_of_events(
        events in prop::collection::vec(event(), 0..200),
        per_second in 0u32..4,
    ) {
        let mut line = WaitingLine::default();
        // Number and ticket of each visitor.
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
                    let (ticket, immediately) = line.join(kept, per_second, n);
                    prop_assert!(kept.is_none_or(|kept| kept.ticket == ticket));
                    prop_assert!(!immediately || (line.is_live() && waiting.is_empty()));
                    if immediately {
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
                    line.go_live(per_second)
                }
                Event::Tick => {
                    if line.is_live() && !std::mem::take(&mut just_live) {
                        this_second = 0;
                    }
                    line.tick(per_second)
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
            prop_assert!(per_second == 0 || this_second <= per_second, "{} in a second", this_second);
            prop_assert_eq!(line.waiting(), waiting.len());
        }
        line.go_live(per_second);
        for _ in 0..=line.waiting() + 1 {
            line.tick(per_second);
        }
        prop_assert_eq!(line.waiting(), 0);
    }
}
