//! The rows of the table of behaviours, by values.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::*;
use crate::domain::allocation::AllocationId;
use crate::domain::booking::Options;
use crate::domain::reservation::{ReservationId, Source};
use crate::domain::room_rules::RoomRules;
use crate::domain::secret::Secret;

const JID: &str = "room@conference.meet.example.com";

fn at(time: &str) -> DateTime<Utc> {
    format!("2026-11-26T{time}Z").parse().unwrap()
}

fn reservation(options: Options) -> Reservation {
    Reservation {
        id: ReservationId::Number(AllocationId::new(7).unwrap()),
        source: Source::Local,
        conference: None,
        name: "room".into(),
        mail_owner: String::new(),
        start: at("13:00:00"),
        end: at("14:00:00"),
        options,
        booking: None,
    }
}

fn running(options: Options) -> Known {
    Known::Running(Box::new(reservation(options)))
}

fn with_queue() -> Known {
    running(Options {
        waiting_queue: true,
        ..Options::default()
    })
}

fn occupied() -> Report {
    Report {
        room: JID.into(),
        occupied: true,
        occupants: 1,
        ..Report::default()
    }
}

fn facts<'a>(report: &'a Report, known: &'a Known) -> Facts<'a> {
    Facts {
        jid: JID,
        report,
        known,
        is_live: false,
        options: ShimOptions::default(),
        features: Features {
            reservations: true,
            queue: true,
            metadata: true,
            lobby: true,
        },
        time_zone: Tz::UTC,
        end_known_at: at("13:00:00"),
        is_past_end: false,
    }
}

fn schedule(facts: &Facts<'_>) -> Vec<Entry> {
    facts.directive().unwrap().schedule
}

fn say(entries: &[Entry]) -> Option<&str> {
    entries.iter().find_map(|entry| entry.say.as_deref())
}

#[test]
fn a_room_that_does_not_hold_visitors_is_live() {
    let (report, known) = (occupied(), running(Options::default()));
    let facts = facts(&report, &known);
    assert!(facts.directive().unwrap().live);
    assert_eq!(facts.live_change(), Some(true));
}

#[test]
fn a_room_without_an_occupant_is_not_live_at_usher() {
    let (report, known) = (Report::default(), running(Options::default()));
    let facts = facts(&report, &known);
    assert!(facts.directive().unwrap().live);
    assert_eq!(facts.live_change(), None);
}

#[test]
fn visitors_of_a_booking_with_a_queue_are_held_until_usher_goes_live() {
    let (report, known) = (occupied(), with_queue());
    let held = facts(&report, &known);
    assert!(!held.directive().unwrap().live);
    assert_eq!(held.live_change(), None);
    let live = Facts {
        is_live: true,
        ..held
    };
    assert!(live.directive().unwrap().live);
    assert_eq!(live.live_change(), None);
}

#[test]
fn a_room_at_its_end_goes_live_no_more() {
    let (report, known) = (occupied(), running(Options::default()));
    let facts = Facts {
        is_past_end: true,
        ..facts(&report, &known)
    };
    assert_eq!(facts.live_change(), None);
}

#[test]
fn nothing_is_directed_before_the_conference_is_known() {
    let report = occupied();
    let facts = facts(&report, &Known::Undecided);
    assert_eq!(facts.directive(), None);
    assert_eq!(facts.live_change(), None);
}

#[test]
fn the_decision_of_a_moderator_has_precedence() {
    let known = with_queue();
    for (live, is_live, directed, change) in [
        (Some(true), false, true, Some(true)),
        (Some(true), true, true, None),
        (Some(false), true, false, Some(false)),
        (Some(false), false, false, None),
        // A value that is not a boolean: Jitsi takes it as live.
        (None, false, true, Some(true)),
    ] {
        let report = Report {
            live,
            live_is_ours: false,
            ..occupied()
        };
        let facts = Facts {
            is_live,
            ..facts(&report, &known)
        };
        assert_eq!(
            facts.directive().unwrap().live,
            directed,
            "{live:?} {is_live}"
        );
        assert_eq!(facts.live_change(), change, "{live:?} {is_live}");
    }
}

#[test]
fn a_moderator_goes_live_even_before_the_conference_is_known() {
    let report = Report {
        live: Some(true),
        live_is_ours: false,
        ..occupied()
    };
    let facts = facts(&report, &Known::Undecided);
    assert_eq!(facts.live_change(), Some(true));
}

#[test]
fn the_value_of_the_modules_is_no_decision() {
    let known = with_queue();
    let report = Report {
        live: Some(false),
        ..occupied()
    };
    let live = Facts {
        is_live: true,
        ..facts(&report, &known)
    };
    assert!(live.directive().unwrap().live);
    assert_eq!(live.live_change(), None);
}

#[test]
fn without_the_metadata_component_the_first_moderator_goes_live() {
    let known = with_queue();
    let features = Features {
        metadata: false,
        ..facts(&occupied(), &known).features
    };
    let report = occupied();
    let held = Facts {
        features,
        ..facts(&report, &known)
    };
    assert_eq!(held.live_change(), None);
    let report = Report {
        moderators: 1,
        ..occupied()
    };
    let opened = Facts {
        features,
        ..facts(&report, &known)
    };
    assert!(opened.directive().unwrap().live);
    assert_eq!(opened.live_change(), Some(true));
}

#[test]
fn without_the_queue_module_the_live_state_is_left_alone() {
    let (report, known) = (occupied(), running(Options::default()));
    let facts = facts(&report, &known);
    let features = Features {
        queue: false,
        ..facts.features
    };
    assert_eq!(Facts { features, ..facts }.live_change(), None);
}

#[test]
fn without_the_reservations_module_only_the_live_state_is_directed() {
    let report = occupied();
    for (waiting_queue, live) in [(true, false), (false, true)] {
        let known = Known::Unmanaged { waiting_queue };
        let directive = facts(&report, &known).directive().unwrap();
        assert_eq!((directive.live, directive.schedule.len()), (live, 0));
        assert_eq!(facts(&report, &known).live_change(), live.then_some(true));
    }
}

#[test]
fn the_options_of_the_booking_are_directed() {
    let report = occupied();
    let known = running(Options {
        max_occupants: Some(30),
        lobby: true,
        password: Some(Secret::new("s3cret".into())),
        ..Options::default()
    });
    let directive = facts(&report, &known).directive().unwrap();
    assert_eq!(directive.max_occupants, Some(30));
    assert_eq!(directive.password.as_deref(), Some("s3cret"));
    assert!(directive.lobby);
    assert_eq!(directive.metadata["lobbyEnabled"], true);
}

#[test]
fn the_rules_of_the_booking_are_directed() {
    let report = occupied();
    let rules = RoomRules {
        live_owner: Some("alice@example.com".into()),
        live_from_start: true,
        soft_limit: Some(20),
        moderators: vec!["u-17".into()],
    };
    let known = running(Options {
        rules,
        ..Options::default()
    });
    let directive = facts(&report, &known).directive().unwrap();
    let go_live = GoLive {
        from: Some(at("13:00:00").timestamp()),
        owner: Some("alice@example.com".into()),
    };
    assert_eq!(directive.go_live, Some(go_live));
    assert_eq!(directive.moderators, ["u-17"]);
    assert_eq!(directive.metadata["participantsSoftLimit"], 20);
    let known = running(Options::default());
    assert_eq!(facts(&report, &known).directive().unwrap().go_live, None);
}

#[test]
fn a_lobby_is_not_directed_where_jitsi_has_none() {
    let report = occupied();
    let known = running(Options {
        lobby: true,
        ..Options::default()
    });
    let facts = facts(&report, &known);
    let features = Features {
        lobby: false,
        ..facts.features
    };
    let directive = Facts { features, ..facts }.directive().unwrap();
    assert!(!directive.lobby && directive.metadata.is_empty());
}

#[test]
fn the_schedule_has_the_timer_the_warning_and_the_end() {
    let (report, known) = (occupied(), running(Options::default()));
    let entries = schedule(&facts(&report, &known));
    let (start, end) = (at("13:00:00").timestamp(), at("14:00:00").timestamp());
    let speaking = Entry {
        started_at: Some(start),
        ends_at: Some(end),
        ..Entry::default()
    };
    assert_eq!(
        entries,
        [
            Entry {
                at: start,
                timer: true,
                ..speaking.clone()
            },
            Entry {
                at: end - 300,
                say: Some("This conference ends in 5 minutes, at 14:00 UTC.".into()),
                ..speaking
            },
            Entry {
                at: end,
                close: Some("The time of this conference is over.".into()),
                ..Entry::default()
            },
        ]
    );
}

#[test]
fn a_warning_that_is_late_names_the_time_that_is_left() {
    let (report, known) = (occupied(), running(Options::default()));
    for (known_at, left) in [
        ("13:56:29", "4 minutes"),
        ("13:58:45", "75 seconds"),
        ("13:59:59", "1 second"),
        ("14:00:10", "1 second"),
    ] {
        let facts = Facts {
            end_known_at: at(known_at),
            ..facts(&report, &known)
        };
        let entries = schedule(&facts);
        let expected = format!("This conference ends in {left}, at 14:00 UTC.");
        assert_eq!(say(&entries), Some(&*expected), "{known_at}");
    }
}

#[test]
fn the_modules_options_switch_off_the_warning_and_the_timer() {
    let (report, known) = (occupied(), running(Options::default()));
    let options = ShimOptions {
        warn_before: 0,
        timer: false,
        ..ShimOptions::default()
    };
    let facts = Facts {
        options,
        ..facts(&report, &known)
    };
    let entries = schedule(&facts);
    assert_eq!(entries.len(), 1);
    assert!(entries[0].close.is_some());
}

#[test]
fn a_conference_of_more_than_a_day_has_no_timer() {
    let report = occupied();
    let mut long = reservation(Options::default());
    long.end = long.start + TimeDelta::days(365);
    let known = Known::Running(Box::new(long));
    let entries = schedule(&facts(&report, &known));
    assert!(!entries.iter().any(|entry| entry.timer));
    assert!(say(&entries).is_some());
}

#[test]
fn sentences_name_the_time_zone_of_the_deployment() {
    let (report, known) = (occupied(), running(Options::default()));
    let facts = Facts {
        time_zone: Tz::Europe__Berlin,
        ..facts(&report, &known)
    };
    let entries = schedule(&facts);
    assert_eq!(
        say(&entries),
        Some("This conference ends in 5 minutes, at 15:00 CET.")
    );
}

#[test]
fn a_room_that_waits_for_its_owner_admits_no_other_user() {
    let report = Report::default();
    let known = Known::AwaitOwner("Wait for the owner.".into());
    let directive = facts(&report, &known).directive().unwrap();
    assert_eq!(
        directive.await_owner.as_deref(),
        Some("Wait for the owner.")
    );
    assert_eq!(directive.schedule, []);
}

#[test]
fn a_room_whose_conference_is_over_closes_with_the_reason() {
    let report = occupied();
    let known = Known::Over {
        at: at("13:30:00"),
        message: "Its booking was cancelled.".into(),
    };
    let over = Facts {
        is_live: true,
        ..facts(&report, &known)
    };
    assert_eq!(
        schedule(&over),
        [close(at("13:30:00"), "Its booking was cancelled.")]
    );
    assert_eq!(over.live_change(), None);
}
