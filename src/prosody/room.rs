//! One room: from what is reported of it and what usher knows of it to what it should be. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::Map;

use super::wire::{Directive, Entry, GoLive, Report, ShimOptions};
use crate::domain::reservation::Reservation;
use crate::domain::timestamp::format_local;

/// A longer conference has no meeting timer: a booking without an end counts as one of a year.
const TIMER_MAX: TimeDelta = TimeDelta::days(1);

/// What occupants receive when the room closes at its end.
const TIME_IS_OVER: &str = "The time of this conference is over.";

/// What usher knows of a room's conference.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// Nothing yet.
    Undecided,
    /// It runs.
    Running(Box<Reservation>),
    /// Another module reserves conferences in this Prosody: only the live state is usher's.
    Unmanaged {
        /// Whether visitors wait until it goes live.
        waiting_queue: bool,
    },
    /// Only the owner of its booking may open it; the text is for other users.
    AwaitOwner(String),
    /// It is over: the room must close.
    Over {
        /// Since when.
        at: DateTime<Utc>,
        /// For its occupants.
        message: String,
    },
}

/// What Jitsi has loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    /// `mod_usher_reservations`: usher decides about conferences.
    pub(super) reservations: bool,
    /// `mod_usher_queue`: usher decides about the live state.
    pub(super) queue: bool,
    /// `room_metadata_component`: a moderator's client can set the room live.
    pub(super) metadata: bool,
    /// Lobbies can be created.
    pub(super) lobby: bool,
}

/// Everything that a directive depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) jid: &'a str,
    pub(super) report: &'a Report,
    pub(super) known: &'a Known,
    /// Whether the queue has the conference as live.
    pub(super) is_live: bool,
    pub(super) options: ShimOptions,
    pub(super) features: Features,
    pub(super) time_zone: Tz,
    /// Since when the present end is known: a warning that was due before names the time that was left then.
    pub(super) end_known_at: DateTime<Utc>,
    /// Whether the end of the conference is past: Prosody closes the room at this moment.
    pub(super) is_past_end: bool,
}

impl Facts<'_> {
    /// What a moderator decided. The decision has precedence over usher's. Jitsi takes a value that is not a boolean as
    /// live.
    fn decided(&self) -> Option<bool> {
        (!self.report.live_is_ours).then_some(self.report.live.unwrap_or(true))
    }

    /// Whether visitors wait although the conference runs. Without the metadata component no client can set the room
    /// live, so it goes live with its first moderator.
    fn is_held(&self, waiting_queue: bool) -> bool {
        let opened = !self.features.metadata && self.report.moderators > 0;
        waiting_queue && !self.is_live && !opened
    }

    /// What `visitors.live` of the room should be.
    fn live(&self) -> bool {
        let by_usher = match self.known {
            Known::Running(reservation) => !self.is_held(reservation.options.waiting_queue),
            Known::Unmanaged { waiting_queue } => !self.is_held(*waiting_queue),
            Known::Undecided | Known::AwaitOwner(_) | Known::Over { .. } => self.is_live,
        };
        self.decided().unwrap_or(by_usher)
    }

    /// Whether the conference goes live (`true`) or is live no longer (`false`) at usher. A conference is live from the
    /// first occupant on, unless its visitors wait.
    pub(super) fn live_change(&self) -> Option<bool> {
        if !self.features.queue || self.is_past_end {
            return None;
        }
        match (self.known, self.decided()) {
            (Known::Over { .. }, _) => None,
            (_, Some(false)) => self.is_live.then_some(false),
            _ => (self.report.occupied && self.live() && !self.is_live).then_some(true),
        }
    }

    /// What the room should be, without a revision; `None` while nothing is known.
    pub(super) fn directive(&self) -> Option<Directive> {
        let directive = Directive {
            room: self.jid.to_owned(),
            live: self.live(),
            ..Directive::default()
        };
        Some(match self.known {
            Known::Undecided => return None,
            Known::Unmanaged { .. } => directive,
            Known::AwaitOwner(text) => Directive {
                await_owner: Some(text.clone()),
                ..directive
            },
            Known::Over { at, message } => Directive {
                schedule: vec![close(*at, message)],
                ..directive
            },
            Known::Running(reservation) => self.running(reservation, directive),
        })
    }

    fn running(&self, reservation: &Reservation, directive: Directive) -> Directive {
        let options = &reservation.options;
        let lobby = options.lobby && self.features.lobby;
        let mut metadata = Map::new();
        if lobby && self.features.metadata {
            metadata.insert("lobbyEnabled".to_owned(), true.into());
        }
        let rules = &options.rules;
        if let Some(limit) = rules.soft_limit.filter(|_| self.features.metadata) {
            metadata.insert("participantsSoftLimit".to_owned(), limit.into());
        }
        let from = rules.live_from_start.then(|| reservation.start.timestamp());
        let owner = rules.live_owner.clone();
        Directive {
            go_live: (from.is_some() || owner.is_some()).then_some(GoLive { from, owner }),
            moderators: rules.moderators.clone(),
            password: options.password.as_ref().map(|it| it.expose().to_owned()),
            max_occupants: options.max_occupants,
            lobby,
            metadata,
            schedule: self.schedule(reservation.start, reservation.end),
            ..directive
        }
    }

    fn schedule(&self, start: DateTime<Utc>, end: DateTime<Utc>) -> Vec<Entry> {
        let speaking = |at: DateTime<Utc>| Entry {
            at: at.timestamp(),
            started_at: Some(start.timestamp()),
            ends_at: Some(end.timestamp()),
            ..Entry::default()
        };
        let mut schedule = Vec::new();
        if self.options.timer && end - start <= TIMER_MAX {
            schedule.push(Entry {
                timer: true,
                ..speaking(start)
            });
        }
        let before = TimeDelta::seconds(self.options.warn_before.into());
        if !before.is_zero() && start < end {
            let at = end - before;
            let left = end - at.max(self.end_known_at);
            let time = format_local(end, self.time_zone, end);
            schedule.push(Entry {
                say: Some(format!(
                    "This conference ends in {}, at {time}.",
                    duration(left)
                )),
                ..speaking(at)
            });
        }
        schedule.push(close(end, TIME_IS_OVER));
        schedule
    }
}

fn close(at: DateTime<Utc>, reason: &str) -> Entry {
    Entry {
        at: at.timestamp(),
        close: Some(reason.to_owned()),
        ..Entry::default()
    }
}

/// A duration for people: in minutes from two minutes on, else in seconds.
fn duration(left: TimeDelta) -> String {
    let seconds = left.num_seconds().max(1);
    let minutes = (seconds + 30) / 60;
    match (minutes, seconds) {
        (2.., _) => format!("{minutes} minutes"),
        (_, 1) => "1 second".to_owned(),
        _ => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests;
