//! The decision, case by case. The morning of 1 December 2026 in Berlin: booking 1 is from 13:00 to
//! 14:00 UTC, that is, 14:00 to 15:00 CET.

use proptest::prelude::*;

use super::*;
use crate::domain::booking::Draft;
use crate::domain::secret::Secret;

const MINUTE: TimeDelta = TimeDelta::minutes(1);

fn at(time: &str) -> DateTime<Utc> {
    format!("2026-12-01T{time}Z").parse().unwrap()
}

fn room() -> Conference {
    Conference::from_names("Café", None, "meet.example.com").unwrap()
}

fn rules(policy: PolicyKind) -> PolicyRules {
    PolicyRules {
        policy,
        default_duration: TimeDelta::hours(6),
        early_start: TimeDelta::minutes(10),
        start_policy: StartPolicy::Anyone,
        time_zone: Tz::Europe__Berlin,
    }
}

fn booking(id: i64, start: &str, end: Option<&str>) -> Booking {
    let created = at("00:00:00");
    Booking {
        version: 1,
        id: BookingId(id),
        draft: Draft {
            conference: room(),
            title: None,
            owner: Some("alice@example.com".into()),
            start: at(start),
            end: end.map(at),
            time_zone: None,
            options: Options {
                max_occupants: Some(5),
                password: Some(Secret::new("pw".into())),
                ..Options::default()
            },
            start_policy: None,
            auto_live: None,
        },
        created_at: created,
        changed_at: created,
    }
}

fn lunch() -> Booking {
    booking(1, "13:00:00", Some("14:00:00"))
}

fn owned(mut booking: Booking) -> Booking {
    booking.draft.start_policy = Some(StartPolicy::Owner);
    booking
}

fn queued(mut booking: Booking) -> Booking {
    booking.draft.options.waiting_queue = true;
    booking
}

fn alice() -> Requester {
    Requester {
        user_email: Some("alice@example.com".into()),
        ..Requester::default()
    }
}

fn visitor() -> Requester {
    Requester {
        visitor: true,
        ..Requester::default()
    }
}

fn running(start: &str, end: &str, booking: Option<i64>) -> Allocation {
    Allocation {
        id: AllocationId::new(7).unwrap(),
        conference: room(),
        name: "caf%c3%a9".into(),
        mail_owner: String::new(),
        booking: booking.map(BookingId),
        start: at(start),
        end: at(end),
        options: Options::default(),
        ended_at: None,
        end_reason: None,
    }
}

/// Decides as the store has it: by the first booking that is not over.
fn decide(
    conference: &Conference,
    requester: &Requester,
    bookings: &[Booking],
    running: Option<&Allocation>,
    rules: &PolicyRules,
    now: DateTime<Utc>,
) -> Decision {
    let next = bookings.iter().find(|booking| !booking.is_over(now));
    super::decide(conference, requester, next, running, rules, now)
}

fn request(policy: PolicyKind, requester: &Requester, bookings: &[Booking], now: &str) -> Decision {
    decide(&room(), requester, bookings, None, &rules(policy), at(now))
}

#[track_caller]
fn allowed(decision: Decision) -> Terms {
    match decision {
        Decision::Allow(terms) => terms,
        other => panic!("not allowed: {other:?}"),
    }
}

#[track_caller]
fn refused(decision: Decision) -> Refusal {
    match decision {
        Decision::Refuse(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn an_unbooked_room_runs_for_the_default_duration() {
    let terms = allowed(request(
        PolicyKind::Open,
        &Requester::default(),
        &[],
        "08:00:00.250",
    ));
    assert_eq!((terms.start, terms.end), (at("08:00:00"), at("14:00:00")));
    assert_eq!(terms.booking, None);
}

#[test]
fn an_unbooked_conference_ends_when_the_booked_room_can_be_opened() {
    let terms = allowed(request(
        PolicyKind::Open,
        &Requester::default(),
        &[lunch()],
        "12:00:00",
    ));
    assert_eq!(terms.end, at("12:50:00"));
    assert_eq!(terms.options.max_occupants, None);
}

#[test]
fn an_unbooked_conference_may_run_until_the_booked_room_can_be_opened() {
    let terms = allowed(request(
        PolicyKind::Open,
        &Requester::default(),
        &[lunch()],
        "12:49:59.999",
    ));
    assert_eq!((terms.start, terms.end), (at("12:49:59"), at("12:50:00")));
}

#[test]
fn a_booked_room_follows_its_booking_under_either_policy() {
    for policy in [PolicyKind::Open, PolicyKind::Booked] {
        for now in ["12:50:00", "13:00:00", "13:59:59"] {
            let terms = allowed(request(policy, &Requester::default(), &[lunch()], now));
            assert_eq!((terms.start, terms.end), (at("13:00:00"), at("14:00:00")));
            assert_eq!(terms.booking, Some(BookingId(1)));
            assert_eq!(terms.options.max_occupants, Some(5));
        }
    }
}

#[test]
fn an_early_request_is_refused_with_the_time_in_the_configured_zone() {
    let refusal = refused(request(
        PolicyKind::Booked,
        &alice(),
        &[lunch()],
        "12:49:59",
    ));
    assert_eq!(refusal.reason, Reason::TooEarly);
    assert_eq!(
        refusal.sentence,
        "\"café\" is booked from 14:00 CET; you can open it from 13:50 CET."
    );
}

#[test]
fn a_time_on_another_day_has_its_date() {
    let eve = "2026-11-29T09:00:00Z".parse().unwrap();
    let decision = decide(
        &room(),
        &alice(),
        &[lunch()],
        None,
        &rules(PolicyKind::Booked),
        eve,
    );
    assert_eq!(
        refused(decision).sentence,
        "\"café\" is booked from 14:00 CET on Tuesday, 1 December 2026; you can open it from 13:50 CET on Tuesday, 1 December 2026."
    );
}

#[test]
fn an_unbooked_room_is_refused_where_only_booked_rooms_run() {
    for bookings in [vec![], vec![lunch()]] {
        let refusal = refused(request(PolicyKind::Booked, &alice(), &bookings, "14:00:00"));
        assert_eq!(refusal.reason, Reason::NotBooked);
        assert!(
            refusal.sentence.starts_with("\"café\" is not booked"),
            "{}",
            refusal.sentence
        );
    }
}

#[test]
fn only_the_owner_opens_a_room_with_start_policy_owner() {
    let bookings = [owned(lunch())];
    assert_eq!(
        refused(request(
            PolicyKind::Open,
            &Requester::default(),
            &bookings,
            "13:00:00"
        ))
        .reason,
        Reason::NotOwner
    );
    allowed(request(PolicyKind::Open, &alice(), &bookings, "13:00:00"));
}

#[test]
fn the_configured_start_policy_applies_to_bookings_without_one() {
    let mut rules = rules(PolicyKind::Open);
    rules.start_policy = StartPolicy::Owner;
    let request = |bookings: &[Booking]| {
        decide(
            &room(),
            &Requester::default(),
            bookings,
            None,
            &rules,
            at("13:00:00"),
        )
    };
    assert_eq!(refused(request(&[lunch()])).reason, Reason::NotOwner);
    let mut for_all = lunch();
    for_all.draft.start_policy = Some(StartPolicy::Anyone);
    allowed(request(&[for_all]));
}

#[test]
fn the_current_booking_precedes_one_that_can_be_opened_early() {
    let next = booking(2, "14:00:00", Some("15:00:00"));
    let bookings = [lunch(), next];
    let terms = allowed(request(PolicyKind::Open, &alice(), &bookings, "13:55:00"));
    assert_eq!(terms.booking, Some(BookingId(1)));
    let terms = allowed(request(PolicyKind::Open, &alice(), &bookings, "14:00:00"));
    assert_eq!(terms.booking, Some(BookingId(2)));
}

#[test]
fn a_permanent_booking_allocates_a_year() {
    let forever = booking(3, "08:00:00", None);
    let terms = allowed(request(
        PolicyKind::Booked,
        &alice(),
        &[forever],
        "13:00:00.5",
    ));
    assert_eq!(
        (terms.start, terms.end),
        (at("13:00:00"), at("13:00:00") + PERMANENT)
    );
}

#[test]
fn a_running_conference_is_a_conflict() {
    let allocation = running("13:00:00", "14:00:00", Some(1));
    let request = |now| {
        decide(
            &room(),
            &visitor(),
            &[owned(lunch())],
            Some(&allocation),
            &rules(PolicyKind::Booked),
            at(now),
        )
    };
    assert!(
        matches!(request("13:30:00"), Decision::Conflict(id) if id == AllocationId::new(7).unwrap())
    );
    assert!(!matches!(request("14:00:00"), Decision::Conflict(_)));
}

#[test]
fn a_visitor_of_a_booking_with_a_queue_is_queued_at_any_time() {
    for now in ["02:00:00", "12:55:00", "13:30:00"] {
        let decision = request(
            PolicyKind::Booked,
            &visitor(),
            &[queued(owned(lunch()))],
            now,
        );
        assert!(
            matches!(decision, Decision::Queue(BookingId(1))),
            "{now}: {decision:?}"
        );
    }
    let decision = request(PolicyKind::Booked, &visitor(), &[lunch()], "02:00:00");
    assert_eq!(refused(decision).reason, Reason::TooEarly);
    let decision = request(PolicyKind::Booked, &alice(), &[queued(lunch())], "13:00:00");
    allowed(decision);
}

#[test]
fn a_lengthened_or_shortened_booking_moves_the_end() {
    let allocation = running("13:00:00", "14:00:00", Some(1));
    for end in ["14:30:00", "13:40:00"] {
        let changed = booking(1, "13:00:00", Some(end));
        let revised = revise(
            &allocation,
            &[changed],
            &rules(PolicyKind::Open),
            at("13:30:00"),
        )
        .unwrap();
        assert_eq!(revised.end, at(end));
        assert_eq!(revised.options.max_occupants, Some(5));
    }
}

#[test]
fn a_cancelled_or_moved_booking_ends_its_conference() {
    let allocation = running("13:00:00", "14:00:00", Some(1));
    let tomorrow = booking(1, "20:00:00", Some("21:00:00"));
    let past = booking(1, "13:00:00", Some("13:20:00"));
    for bookings in [
        vec![],
        vec![tomorrow],
        vec![past],
        vec![booking(2, "13:00:00", None)],
    ] {
        let revised = revise(
            &allocation,
            &bookings,
            &rules(PolicyKind::Open),
            at("13:30:00"),
        );
        assert!(revised.is_none(), "{bookings:?}");
    }
}

#[test]
fn an_unbooked_conference_ends_where_a_new_booking_begins() {
    let allocation = running("12:00:00", "18:00:00", None);
    let end = |bookings: &[Booking], now| {
        revise(&allocation, bookings, &rules(PolicyKind::Open), at(now))
            .unwrap()
            .end
    };
    assert_eq!(end(&[lunch()], "12:30:00"), at("12:50:00"));
    // The early window has begun: those inside stay until the booked time itself.
    assert_eq!(end(&[lunch()], "12:55:00"), at("13:00:00"));
    // The booking went away again.
    assert_eq!(end(&[], "12:30:00"), at("18:00:00"));
}

#[test]
fn a_running_conference_follows_a_booking_that_begins_now() {
    let allocation = running("12:00:00", "18:00:00", None);
    let revised = revise(
        &allocation,
        &[lunch()],
        &rules(PolicyKind::Open),
        at("13:00:00"),
    )
    .unwrap();
    assert_eq!(
        (revised.booking, revised.end),
        (Some(BookingId(1)), at("14:00:00"))
    );
}

#[test]
fn the_duration_of_a_permanent_booking_counts_from_the_opening() {
    let allocation = running("12:00:00", "13:00:00", Some(3));
    let forever = booking(3, "08:00:00", None);
    let revised = revise(
        &allocation,
        &[forever],
        &rules(PolicyKind::Open),
        at("12:30:00"),
    )
    .unwrap();
    assert_eq!(revised.end, at("12:00:00") + PERMANENT);
}

#[test]
fn a_booking_that_becomes_permanent_keeps_its_room_open() {
    let mut allocation = running("12:00:00", "13:00:00", Some(3));
    allocation.start -= PERMANENT * 2;
    let mut forever = booking(3, "08:00:00", None);
    forever.draft.start = allocation.start;
    let rules = rules(PolicyKind::Open);
    let revised = revise(&allocation, &[forever], &rules, at("12:30:00")).unwrap();
    assert_eq!(revised.end, at("13:00:00"));
}

#[test]
fn the_end_message_names_the_reason() {
    let mut allocation = running("12:00:00", "13:00:00", None);
    let rules = rules(PolicyKind::Open);
    let mut message = |reason| {
        allocation.end_reason = reason;
        end_message(&allocation, at("13:00:00"), &rules, at("13:00:05"))
    };
    let over = |why| format!("The conference in \"café\" is over: {why}.");
    assert_eq!(message(None), over("its time was up at 14:00 CET"));
    assert_eq!(message(Some(EndReason::Expired)), message(None));
    assert_eq!(
        message(Some(EndReason::Destroyed)),
        over("its room was closed")
    );
    let cancelled = "its booking was cancelled, or is for another time now";
    assert_eq!(message(Some(EndReason::Cancelled)), over(cancelled));
}

fn some_bookings() -> impl Strategy<Value = Vec<Booking>> {
    // Gaps and lengths in minutes, so that the bookings are in order and don't overlap.
    prop::collection::vec((0i64..90, 1i64..120, any::<bool>()), 0..5).prop_map(|spans| {
        let mut cursor = at("00:00:00");
        let mut bookings = Vec::new();
        for (id, (gap, length, owner_only)) in (1..).zip(spans) {
            let mut next = booking(id, "00:00:00", None);
            next.draft.start = cursor + MINUTE * i32::try_from(gap).unwrap();
            let end = next.draft.start + MINUTE * i32::try_from(length).unwrap();
            next.draft.end = Some(end);
            cursor = end;
            bookings.push(if owner_only { owned(next) } else { next });
        }
        bookings
    })
}

proptest! {
    #[test]
    fn allocations_end_in_the_future_and_before_other_bookings(
        bookings in some_bookings(),
        millis in 0i64..36_000_000,
        open in any::<bool>(),
        owner in any::<bool>(),
    ) {
        let now = at("00:00:00") + TimeDelta::milliseconds(millis);
        let policy = if open { PolicyKind::Open } else { PolicyKind::Booked };
        let requester = if owner { alice() } else { Requester::default() };
        let ahead: Vec<_> = bookings.into_iter().filter(|b| !b.is_over(now)).collect();
        match decide(&room(), &requester, &ahead, None, &rules(policy), now) {
            Decision::Allow(terms) => {
                prop_assert!(terms.end > now);
                prop_assert!(open || terms.booking.is_some());
                for other in ahead.iter().filter(|b| Some(b.id) != terms.booking) {
                    prop_assert!(terms.end <= other.draft.start || now >= other.draft.start);
                }
            }
            Decision::Refuse(refusal) => {
                prop_assert!(refusal.sentence.contains("café"));
                prop_assert!(owner || refusal.reason != Reason::NotBooked || !open);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
