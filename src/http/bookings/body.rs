//! A booking as the API shows it.

use serde::Serialize;

use crate::domain::booking::{Booking, Draft, StartPolicy};
use crate::domain::timestamp;
use crate::http::Shared;

/// A booking. The password is never returned, only whether one is set.
#[derive(Serialize)]
pub(super) struct BookingBody<'a> {
    id: i64,
    /// As Jitsi Meet asks for it.
    room: &'a str,
    /// The same for people.
    room_name: String,
    /// The address of the meeting.
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    /// Whether it has no end.
    permanent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_occupants: Option<u32>,
    lobby: bool,
    password_set: bool,
    waiting_queue: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    auto_live: Option<u32>,
    starters: StartPolicy,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_starters: Option<StartPolicy>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    live_from_start: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    soft_limit: Option<u32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    moderators: &'a [String],
    created_at: String,
    changed_at: String,
}

impl<'a> BookingBody<'a> {
    pub(super) fn of(booking: &'a Booking, shared: &Shared) -> Self {
        let Draft {
            conference,
            title,
            owner,
            start,
            end,
            time_zone,
            options,
            start_policy,
            auto_live,
        } = &booking.draft;
        Self {
            id: booking.id.0,
            room: conference.room(),
            room_name: conference.display_name(),
            url: shared.config.xmpp.meeting_url(conference),
            tenant: conference.tenant(),
            title: title.as_deref(),
            owner: owner.as_deref(),
            start: timestamp::format(*start),
            end: end.map(timestamp::format),
            permanent: end.is_none(),
            time_zone: time_zone.map(|zone| zone.name()),
            max_occupants: options.max_occupants,
            lobby: options.lobby,
            password_set: options.password.is_some(),
            waiting_queue: options.waiting_queue,
            auto_live: *auto_live,
            starters: start_policy.unwrap_or(shared.reservations.config().start_policy),
            live_starters: options
                .rules
                .live_owner
                .as_ref()
                .map(|_| StartPolicy::Owner),
            live_from_start: options.rules.live_from_start,
            soft_limit: options.rules.soft_limit,
            moderators: &options.rules.moderators,
            created_at: timestamp::format(booking.created_at),
            changed_at: timestamp::format(booking.changed_at),
        }
    }
}
