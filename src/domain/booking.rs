//! A booking: a room kept in advance for a window of time, with an owner and options.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use thiserror::Error;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::conference::Conference;
use super::secret::Secret;
use super::timestamp;

/// Who may open a booked conference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartPolicy {
    /// `anyone`: the first who comes.
    Anyone,
    /// `owner`: only the booking's owner.
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

/// The text names no kind of [`StartPolicy`].
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
/// Longest window: a hundred years. Prosody is told how long it is, and takes no number of seconds with more
/// than ten digits; who wants the room for longer wants it for good.
pub const WINDOW_MAX: TimeDelta = TimeDelta::days(36_525);
/// Longest password, in characters.
pub const PASSWORD_MAX: usize = 128;
/// Most occupants a booking may ask for; far above what a bridge carries, low enough for any peer's
/// integer.
pub const OCCUPANTS_MAX: u32 = 100_000;

/// What identifies a booking. Never used for two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BookingId(pub i64);

impl std::fmt::Display for BookingId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What Prosody is told to do with a room: the optional fields of the reservation API, and ours.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Most occupants at a time, the focus not counted (enforced by `mod_muc_max_occupants`).
    pub max_occupants: Option<u32>,
    /// Whether newcomers knock (Jitsi's lobby).
    pub lobby: bool,
    /// The room's password. Given to Prosody alone; never listed, never logged.
    pub password: Option<Secret>,
    /// Whether visitors wait until the conference goes live.
    pub waiting_queue: bool,
}

/// Latest that a conference may go live by itself after its start, in minutes: a day.
pub const AUTO_LIVE_MAX: u32 = 24 * 60;

/// A booking as somebody wants it, before it is checked and kept.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Which room.
    pub conference: Conference,
    /// What people call it.
    pub title: Option<String>,
    /// Whose it is: e-mail address, user id, user name or bare JID.
    pub owner: Option<String>,
    /// When it begins.
    pub start: DateTime<Utc>,
    /// When it ends (exclusive); `None` is permanent.
    pub end: Option<DateTime<Utc>>,
    /// What Prosody is told.
    pub options: Options,
    /// Who may open the room; `None` follows `reservations.start_policy`.
    pub start_policy: Option<StartPolicy>,
    /// So many minutes after its start the conference goes live by itself, if nobody did; `None`:
    /// never.
    pub auto_live: Option<u32>,
}

/// A booking that is kept.
#[derive(Clone, Debug)]
pub struct Booking {
    /// Its id.
    pub id: BookingId,
    /// What was booked.
    pub draft: Draft,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub changed_at: DateTime<Utc>,
}

/// Why a draft can't be kept. Each message names the field and the remedy.
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
        /// Which field.
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
    /// Goes live by itself, but nobody waits for it, or too late.
    #[error(
        "auto_live: takes minutes after the start, at most {AUTO_LIVE_MAX}, of a booking with waiting_queue; set waiting_queue to true, or leave auto_live out"
    )]
    AutoLive,
    /// Only the owner may start, and there is none.
    #[error(
        "owner: is needed, since only the owner may open this room; name the owner, or set starters to \"anyone\""
    )]
    OwnerMissing,
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
        if self.start_policy.unwrap_or(start_policy) == StartPolicy::Owner && self.owner.is_none() {
            return Err(DraftError::OwnerMissing);
        }
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

    /// A sentence for somebody whose booking this one is in the way of.
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
            "\"{}\" is booked from {} {until}: booking {}{title} is in the way. Choose another time or room, or change that booking.",
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
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn draft() -> Draft {
        Draft {
            conference: Conference::from_names("room", None, "meet.example.com").unwrap(),
            title: Some("Weekly".into()),
            owner: Some("alice@example.com".into()),
            start: at("2026-12-01T13:00:00.789Z"),
            end: Some(at("2026-12-01T14:00:00.123Z")),
            options: Options::default(),
            start_policy: None,
            auto_live: None,
        }
    }

    fn error(change: impl FnOnce(&mut Draft)) -> DraftError {
        let mut draft = draft();
        change(&mut draft);
        draft
            .checked(StartPolicy::Anyone, at("2026-12-01T12:00:00Z"))
            .unwrap_err()
    }

    #[test]
    fn a_good_draft_is_brought_to_whole_seconds() {
        let kept = draft()
            .checked(StartPolicy::Owner, at("2026-12-01T12:00:00Z"))
            .unwrap();
        assert_eq!(kept.start, at("2026-12-01T13:00:00Z"));
        assert_eq!(kept.end, Some(at("2026-12-01T14:00:00Z")));
    }

    #[test]
    fn a_window_must_run_forward_and_reach_into_the_future() {
        assert_eq!(error(|d| d.end = Some(d.start)), DraftError::EndBeforeStart);
        let past = |d: &mut Draft| {
            d.start = at("2026-11-01T13:00:00Z");
            d.end = Some(at("2026-11-01T14:00:00Z"));
        };
        assert_eq!(error(past), DraftError::EndInThePast);
    }

    #[test]
    fn a_window_of_more_than_a_hundred_years_is_refused() {
        let century = |d: &mut Draft| d.end = Some(d.start + WINDOW_MAX);
        let longer = |d: &mut Draft| d.end = Some(d.start + WINDOW_MAX + TimeDelta::seconds(1));
        assert_eq!(error(longer), DraftError::EndTooLate);
        let mut draft = draft();
        century(&mut draft);
        let kept = draft.checked(StartPolicy::Anyone, at("2026-12-01T12:00:00Z"));
        assert!(
            (kept.unwrap().end.unwrap() - at("2026-12-01T13:00:00Z")).num_seconds()
                < 10_i64.pow(10)
        );
    }

    #[test]
    fn texts_are_plain_and_bounded() {
        assert_eq!(
            error(|d| d.title = Some(" ".into())),
            DraftError::NotPlain("title")
        );
        assert_eq!(
            error(|d| d.owner = Some("a\nb".into())),
            DraftError::NotPlain("owner")
        );
        let long =
            |d: &mut Draft| d.options.password = Some(Secret::new("é".repeat(PASSWORD_MAX + 1)));
        assert_eq!(
            error(long),
            DraftError::TooLong {
                field: "password",
                max: PASSWORD_MAX
            }
        );
    }

    #[test]
    fn occupants_are_counted_from_one() {
        for n in [0, OCCUPANTS_MAX + 1] {
            assert_eq!(
                error(|d| d.options.max_occupants = Some(n)),
                DraftError::Occupants
            );
        }
    }

    #[test]
    fn only_what_somebody_waits_for_goes_live_by_itself() {
        assert_eq!(error(|d| d.auto_live = Some(0)), DraftError::AutoLive);
        let late = |d: &mut Draft| {
            d.options.waiting_queue = true;
            d.auto_live = Some(AUTO_LIVE_MAX + 1);
        };
        assert_eq!(error(late), DraftError::AutoLive);
    }

    #[test]
    fn an_owner_is_needed_where_only_the_owner_may_start() {
        let orphan = |d: &mut Draft| {
            d.owner = None;
            d.start_policy = Some(StartPolicy::Owner);
        };
        assert_eq!(error(orphan), DraftError::OwnerMissing);
    }

    #[test]
    fn a_password_is_not_printed() {
        let mut draft = draft();
        draft.options.password = Some(Secret::new("hunter2".into()));
        assert!(!format!("{draft:?}").contains("hunter2"));
    }
}
