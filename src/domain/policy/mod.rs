//! The decision, pure: whether a room may be opened now, by which user, and until when.
//!
//! Everything it depends on is an argument: the request, the bookings of the room that are not over,
//! the allocation that runs, the rules and the instant.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Deserialize;

use super::allocation::{Allocation, AllocationId, EndReason};
use super::booking::{Booking, BookingId, Options, StartPolicy};
use super::conference::Conference;
use super::requester::Requester;
use super::timestamp::format_local;

/// Whether a conference needs a booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyKind {
    /// `open`: no; a booking only reserves its room for its time.
    Open,
    /// `booked`: yes.
    Booked,
}

/// The duration of an allocation of a booking without an end: the reservation API requires a duration, so it is
/// a year from the opening.
pub const PERMANENT: TimeDelta = TimeDelta::days(365);

/// The part of `[reservations]` that decisions depend on. The decision is pure: it does not read the configuration.
#[derive(Clone, Debug)]
pub struct PolicyRules {
    /// Whether rooms without a booking may run at all.
    pub policy: PolicyKind,
    /// How long an unbooked conference may last.
    pub default_duration: TimeDelta,
    /// How long before its start a booked room can be opened.
    pub early_start: TimeDelta,
    /// Who may open a booked room, unless the booking has its own policy.
    pub start_policy: StartPolicy,
    /// The zone that times in sentences are given in.
    pub time_zone: Tz,
}

/// The decision on a request.
#[derive(Clone, Debug)]
pub enum Decision {
    /// The conference may run.
    Allow(Terms),
    /// It runs already; the requester joins it under its allocation.
    Conflict(AllocationId),
    /// A visitor, and a booking whose visitors wait: nothing is allocated, and the request may go on
    /// to the focus, which sends the visitor to the queue (`contract`: a 403 would show an error
    /// instead of the queue).
    Queue(BookingId),
    /// It may not.
    Refuse(Refusal),
}

/// For how long, and with which options.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The booked start, or the opening where nothing is booked.
    pub start: DateTime<Utc>,
    /// The moment the room must close.
    pub end: DateTime<Utc>,
    /// What Prosody applies.
    pub options: Options,
    /// The booking behind it.
    pub booking: Option<BookingId>,
}

/// The refusal of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs and the decision log.
    pub reason: Reason,
    /// For the user: the room, the time with its zone, and what to do.
    pub sentence: String,
    /// The conflicting booking.
    pub booking: Option<BookingId>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `policy = "booked"`, and the room has no booking.
    NotBooked,
    /// The room is booked, for later.
    TooEarly,
    /// The room is booked, and only its owner may open it.
    NotOwner,
    /// jicofo checks its bridges in this room.
    HealthCheck,
}

impl Reason {
    /// The code in the decision log.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotBooked => "not_booked",
            Self::TooEarly => "too_early",
            Self::NotOwner => "not_owner",
            Self::HealthCheck => "health_check",
        }
    }
}

/// Decides on a request for `conference`.
///
/// `next` is the first booking of this room that is not over at `now`, and `running` its running allocation,
/// if there are any.
#[must_use]
pub fn decide(
    conference: &Conference,
    requester: &Requester,
    next: Option<&Booking>,
    running: Option<&Allocation>,
    rules: &PolicyRules,
    now: DateTime<Utc>,
) -> Decision {
    if let Some(allocation) = running.filter(|allocation| !allocation.is_over(now)) {
        return Decision::Conflict(allocation.id);
    }
    if let Some(booking) = next
        && requester.visitor
        && booking.draft.options.waiting_queue
    {
        return Decision::Queue(booking.id);
    }
    match next {
        Some(booking) if booking.opens_at(rules.early_start) <= now => {
            open_booked(conference, requester, booking, rules, now)
        }
        next => open_unbooked(conference, next, rules, now),
    }
}

/// The refusal of a room in which jicofo checks its bridges, whichever system decides: Prosody's modules never
/// request such a room.
#[must_use]
pub fn refuse_health_check() -> Refusal {
    Refusal {
        reason: Reason::HealthCheck,
        sentence:
            "This is a room of jicofo's health checks, which is never reserved. Open another room."
                .to_owned(),
        booking: None,
    }
}

fn open_booked(
    conference: &Conference,
    requester: &Requester,
    booking: &Booking,
    rules: &PolicyRules,
    now: DateTime<Utc>,
) -> Decision {
    let owner_only = booking.draft.start_policy.unwrap_or(rules.start_policy) == StartPolicy::Owner;
    let owner = booking.draft.owner.as_deref().unwrap_or_default();
    if owner_only && !requester.is(owner) {
        return Decision::Refuse(Refusal {
            reason: Reason::NotOwner,
            sentence: format!(
                "\"{}\" is booked, and only the person who booked it can open it. Wait for them, then try again{}.",
                conference.display_name(),
                until(booking, rules, now),
            ),
            booking: Some(booking.id),
        });
    }
    Decision::Allow(from_booking(booking, now))
}

fn open_unbooked(
    conference: &Conference,
    next: Option<&Booking>,
    rules: &PolicyRules,
    now: DateTime<Utc>,
) -> Decision {
    let start = now.trunc_subsecs(0);
    match (rules.policy, next) {
        (PolicyKind::Open, next) => {
            let booked_from = next.map(|booking| booking.opens_at(rules.early_start));
            let end = start + rules.default_duration;
            let end = booked_from.map_or(end, |limit| end.min(limit));
            Decision::Allow(Terms {
                start,
                end,
                options: Options::default(),
                booking: None,
            })
        }
        (PolicyKind::Booked, Some(booking)) => {
            Decision::Refuse(too_early(conference, booking, rules, now))
        }
        (PolicyKind::Booked, None) => Decision::Refuse(Refusal {
            reason: Reason::NotBooked,
            sentence: format!(
                "\"{}\" is not booked, and only booked rooms can be opened here. Book it, then open it again.",
                conference.display_name()
            ),
            booking: None,
        }),
    }
}

fn too_early(
    conference: &Conference,
    booking: &Booking,
    rules: &PolicyRules,
    now: DateTime<Utc>,
) -> Refusal {
    let opens = booking.opens_at(rules.early_start);
    let from = format_local(booking.draft.start, rules.time_zone, now);
    let can_open = if opens == booking.draft.start {
        "you can open it then".to_owned()
    } else {
        format!(
            "you can open it from {}",
            format_local(opens, rules.time_zone, now)
        )
    };
    Refusal {
        reason: Reason::TooEarly,
        sentence: format!(
            "\"{}\" is booked from {from}; {can_open}.",
            conference.display_name()
        ),
        booking: Some(booking.id),
    }
}

/// What a booking allows at `now`.
fn from_booking(booking: &Booking, now: DateTime<Utc>) -> Terms {
    let (start, end) = match booking.draft.end {
        Some(end) => (booking.draft.start, end),
        None => (now.trunc_subsecs(0), now.trunc_subsecs(0) + PERMANENT),
    };
    Terms {
        start,
        end,
        options: booking.draft.options.clone(),
        booking: Some(booking.id),
    }
}

/// What a running allocation becomes after the room's bookings changed; `None`: it ends now.
///
/// * An allocation of a booking keeps to it, and ends if the booking was cancelled or moved away.
/// * An allocation without a booking ends where the next booking begins, and becomes the allocation of a booking
///   whose time has begun: users can book the room that they are in.
#[must_use]
pub fn revise(
    allocation: &Allocation,
    bookings: &[Booking],
    rules: &PolicyRules,
    now: DateTime<Utc>,
) -> Option<Terms> {
    let mut current = bookings.iter().filter(|booking| !booking.is_over(now));
    if let Some(id) = allocation.booking {
        let booking = current.find(|booking| booking.id == id)?;
        let is_open = booking.opens_at(rules.early_start) <= now;
        return is_open.then(|| revise_booked(allocation, booking, now));
    }
    let whole = allocation.start + rules.default_duration;
    let end = match current.next() {
        Some(booking) if booking.draft.start <= now => return Some(from_booking(booking, now)),
        Some(booking) => {
            let opens = booking.opens_at(rules.early_start);
            whole.min(if opens > now {
                opens
            } else {
                booking.draft.start
            })
        }
        None => whole,
    };
    (end > now).then(|| Terms {
        start: allocation.start,
        end,
        options: Options::default(),
        booking: None,
    })
}

/// Why an allocation is over, for the users in its room.
#[must_use]
pub fn end_message(
    allocation: &Allocation,
    ended_at: DateTime<Utc>,
    rules: &PolicyRules,
    now: DateTime<Utc>,
) -> String {
    let why = match allocation.end_reason.unwrap_or(EndReason::Expired) {
        EndReason::Destroyed | EndReason::Lost => "its room was closed".to_owned(),
        EndReason::Closed => "an operator ended it".to_owned(),
        EndReason::Expired => {
            let end = format_local(ended_at, rules.time_zone, now);
            format!("its time was up at {end}")
        }
        EndReason::Cancelled => "its booking was cancelled, or is for another time now".to_owned(),
    };
    let room = allocation.conference.display_name();
    format!("The conference in \"{room}\" is over: {why}.")
}

fn revise_booked(allocation: &Allocation, booking: &Booking, now: DateTime<Utc>) -> Terms {
    let terms = from_booking(booking, now);
    if booking.draft.end.is_some() {
        return terms;
    }
    // The duration of a permanent booking counts from the opening. A booking that had an end before may have begun
    // more than a year ago: its room stays open.
    let end = allocation.start.max(booking.draft.start) + PERMANENT;
    Terms {
        start: allocation.start,
        end: end.max(allocation.end),
        ..terms
    }
}

fn until(booking: &Booking, rules: &PolicyRules, now: DateTime<Utc>) -> String {
    booking.draft.end.map_or_else(String::new, |end| {
        format!(
            " (the booking ends at {})",
            format_local(end, rules.time_zone, now)
        )
    })
}

#[cfg(test)]
mod tests;
