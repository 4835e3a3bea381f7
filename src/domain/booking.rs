//! A booking: a room reserved in advance for a window of time, with an owner and options.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::conference::Conference;
use super::room_rules::{RoomRules, RoomRulesError};
use super::secret::Secret;
use super::timestamp;

/// Who may open a booked conference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartPolicy {
    /// `anyone`.
    Anyone,
    /// `owner`: the booking's owner.
    Owner,
}

impl StartPolicy {
    /// How each is written.
    pub const NAMES: [(&'static str, Self); 2] = [("anyone", Self::Anyone), ("owner", Self::Owner)];
}

impl fmt::Display for StartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anyone => "anyone",
            Self::Owner => "owner",
        })
    }
}

/// The text is no [`StartPolicy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("starters are \"anyone\" or \"owner\"")]
pub struct UnknownStartPolicy;

impl FromStr for StartPolicy {
    type Err = UnknownStartPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownStartPolicy> {
        let mut names = Self::NAMES.iter();
        let named = names.find(|(name, _)| *name == text);
        named.map(|(_, kind)| *kind).ok_or(UnknownStartPolicy)
    }
}

/// Longest title, in characters.
pub const TITLE_MAX: usize = 200;
/// Longest owner, in characters: a JID's bare form has at most 2047 bytes, an e-mail address 254.
pub const OWNER_MAX: usize = 2047;
/// Longest window: a hundred years. Prosody receives its length, and accepts at most ten digits of seconds. A
/// booking without an end is permanent.
pub const WINDOW_MAX: TimeDelta = TimeDelta::days(36_525);
/// Longest password, in characters.
pub const PASSWORD_MAX: usize = 128;
/// The largest `max_occupants`: far above the capacity of a bridge, and within the integers of all peers.
pub const OCCUPANTS_MAX: u32 = 100_000;

/// The id of a booking, which is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BookingId(pub i64);

impl fmt::Display for BookingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The options of a room: the optional fields of the reservation API, and usher's own.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Most occupants at a time, the focus not counted (enforced by `mod_muc_max_occupants`).
    pub max_occupants: Option<u32>,
    /// Whether the room has a lobby.
    pub lobby: bool,
    /// The room's password. Only Prosody receives it; it is neither listed nor logged.
    pub password: Option<Secret>,
    /// Whether visitors wait until the conference goes live.
    pub waiting_queue: bool,
    /// What Jitsi applies beyond the reservation API.
    pub rules: RoomRules,
}

/// The largest `auto_live`, in minutes: a day.
pub const AUTO_LIVE_MAX: u32 = 24 * 60;

/// A requested booking, before it is checked and stored.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The room.
    pub conference: Conference,
    /// The title for people.
    pub title: Option<String>,
    /// The owner: an e-mail address, user id or bare JID, or `name:` and a display name.
    pub owner: Option<String>,
    /// The start of the window.
    pub start: DateTime<Utc>,
    /// The end of the window (exclusive); `None` is permanent.
    pub end: Option<DateTime<Utc>>,
    /// The time zone of the user who made the booking, if it was given.
    pub time_zone: Option<Tz>,
    /// The options of the room.
    pub options: Options,
    /// Who may open the room; `None` follows `reservations.start_policy`.
    pub start_policy: Option<StartPolicy>,
    /// The number of minutes after its start at which the conference goes live automatically; `None`: never.
    pub auto_live: Option<u32>,
}

/// A stored booking.
#[derive(Clone, Debug)]
pub struct Booking {
    /// The id.
    pub id: BookingId,
    /// What was booked.
    pub draft: Draft,
    /// The time of its creation.
    pub created_at: DateTime<Utc>,
    /// The time of its last change.
    pub changed_at: DateTime<Utc>,
    /// Increases with each change.
    pub version: i64,
}

/// Why a draft is rejected. Each message names the field and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DraftError {
    /// The window is empty or runs backwards.
    #[error("end: is not after start; give a later end, or none for a permanent booking")]
    EndBeforeStart,
    /// The window is longer than [`WINDOW_MAX`].
    #[error(
        "end: is more than a hundred years after start; give an earlier end, or none for a permanent booking"
    )]
    EndTooLate,
    /// The window is over already.
    #[error("end: is in the past; give a time that is still to come")]
    EndInThePast,
    /// A text is longer than it may be.
    #[error("{field}: is longer than {max} characters; shorten it")]
    TooLong {
        /// The name of the field.
        field: &'static str,
        /// The bound, in characters.
        max: usize,
    },
    /// A text is blank, or holds control characters.
    #[error("{0}: is blank or holds control characters; give a plain text, or leave it out")]
    NotPlain(&'static str),
    /// Not a number of people.
    #[error("max_occupants: must be from 1 to {OCCUPANTS_MAX}; leave it out for no limit")]
    Occupants,
    /// `auto_live` without a queue, or too late.
    #[error(
        "auto_live: must be at most {AUTO_LIVE_MAX} minutes after the start, and requires waiting_queue; set waiting_queue to true, or leave auto_live out"
    )]
    AutoLive,
    /// The conference would go live when the booking is over.
    #[error(
        "auto_live: {0} minutes after the start the booking is over; give fewer minutes, or a later end"
    )]
    AutoLiveTooLate(u32),
    /// jicofo checks its bridges in this room.
    #[error(
        "room: is a room of jicofo's health checks, which can't be booked; choose another name"
    )]
    HealthCheck,
    /// A rule for the room is invalid.
    #[error(transparent)]
    Rules(#[from] RoomRulesError),
    /// Only the owner may start, and there is none.
    #[error(
        "owner: is required, since only the owner may open this room; name the owner, or set starters to \"anyone\""
    )]
    OwnerMissing,
}

impl DraftError {
    /// The kind of the error, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::EndBeforeStart => "end_before_start",
            Self::EndTooLate => "end_too_late",
            Self::EndInThePast => "end_in_the_past",
            Self::TooLong { .. } => "too_long",
            Self::NotPlain(_) => "not_plain",
            Self::Occupants => "invalid_max_occupants",
            Self::AutoLive | Self::AutoLiveTooLate(_) => "invalid_auto_live",
            Self::HealthCheck => "health_check",
            Self::Rules(error) => error.code(),
            Self::OwnerMissing => "owner_missing",
        }
    }
}

impl Draft {
    /// Checks the draft and brings it to whole seconds, as the wire counts them.
    ///
    /// # Errors
    ///
    /// The first rule that the draft breaks.
    pub fn checked(
        mut self,
        start_policy: StartPolicy,
        now: DateTime<Utc>,
    ) -> Result<Self, DraftError> {
        self.start = self.start.trunc_subsecs(0);
        self.end = self.end.map(|end| end.trunc_subsecs(0));
        match self.end {
            Some(end) if end <= self.start => return Err(DraftError::EndBeforeStart),
            Some(end) if end - self.start > WINDOW_MAX => return Err(DraftError::EndTooLate),
            Some(end) if end <= now => return Err(DraftError::EndInThePast),
            _ => {}
        }
        plain("title", self.title.as_deref(), TITLE_MAX)?;
        plain("owner", self.owner.as_deref(), OWNER_MAX)?;
        let password = self.options.password.as_ref().map(Secret::expose);
        plain("password", password, PASSWORD_MAX)?;
        if matches!(self.options.max_occupants, Some(n) if n == 0 || n > OCCUPANTS_MAX) {
            return Err(DraftError::Occupants);
        }
        if let Some(minutes) = self.auto_live
            && (minutes > AUTO_LIVE_MAX || !self.options.waiting_queue)
        {
            return Err(DraftError::AutoLive);
        }
        if let (Some(minutes), Some(end)) = (self.auto_live, self.end)
            && self.start + TimeDelta::minutes(minutes.into()) >= end
        {
            return Err(DraftError::AutoLiveTooLate(minutes));
        }
        if self.conference.is_health_check() {
            return Err(DraftError::HealthCheck);
        }
        if self.start_policy.unwrap_or(start_policy) == StartPolicy::Owner && self.owner.is_none() {
            return Err(DraftError::OwnerMissing);
        }
        self.options.rules = self.options.rules.checked(self.owner.as_deref())?;
        Ok(self)
    }
}

fn plain(field: &'static str, text: Option<&str>, max: usize) -> Result<(), DraftError> {
    let Some(text) = text else { return Ok(()) };
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err(DraftError::NotPlain(field));
    }
    if text.chars().count() > max {
        return Err(DraftError::TooLong { field, max });
    }
    Ok(())
}

impl Booking {
    /// From when the room can be opened: `early_start` before the booking begins.
    #[must_use]
    pub fn opens_at(&self, early_start: TimeDelta) -> DateTime<Utc> {
        self.draft.start - early_start
    }

    /// The message for a user whose booking overlaps with this one.
    #[must_use]
    pub fn conflict_message(&self) -> String {
        let Draft {
            conference,
            title,
            start,
            end,
            ..
        } = &self.draft;
        let title = title
            .as_deref()
            .map_or_else(String::new, |title| format!(" (\"{title}\")"));
        let until = end.map_or_else(
            || "without an end".to_owned(),
            |end| format!("until {}", timestamp::format(end)),
        );
        format!(
            "\"{}\" is booked from {} {until}: it overlaps with booking {}{title}. Choose another time or room, or change that booking.",
            conference.display_name(),
            timestamp::format(*start),
            self.id,
        )
    }

    /// Whether the booking is over at `now`.
    #[must_use]
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.draft.end.is_some_and(|end| end <= now)
    }
}

#[cfg(test)]
mod tests;
