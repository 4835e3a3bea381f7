//! The instances of the modules and their rooms, in memory. Prosody reports everything again after a restart of usher;
//! only the names of the rooms are in the store.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use tokio::sync::watch;
use tokio::time::Instant;

use super::room::{Facts, Features, Known};
use super::wire::{Decision, Directive, Report, ShimOptions};
use crate::domain::allocation::EndReason;
use crate::domain::conference::Conference;
use crate::domain::requester::Requester;
use crate::domain::reservation::ReservationId;
use crate::queue::Queue;

/// How many decisions wait for a long poll; then the oldest are dropped.
const LATE_MAX: usize = 1000;
/// How long a room that is gone is remembered: an earlier report of it may arrive later.
const GONE_MEMORY: Duration = Duration::from_secs(120);
/// The pause before a conference whose end could not be stored is ended again.
const END_RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct State {
    /// Grows with each change of a directive. It begins at the time of the start, so that it also grows over a restart.
    pub(super) revision: u64,
    pub(super) instances: HashMap<Arc<str>, Instance>,
    pub(super) rooms: HashMap<Conference, Room>,
    /// When a visitor was last sent to the queue of a room.
    pub(super) visited: HashMap<Conference, Instant>,
    /// Rooms to add to the store (`true`), or to remove from it.
    pub(super) unsaved: HashMap<Conference, bool>,
}

/// One load of the modules in one Prosody.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) shim: String,
    pub(super) options: ShimOptions,
    pub(super) features: Features,
    pub(super) last_seen: Instant,
    /// The number of open long polls.
    pub(super) polls: usize,
    /// The revision of the last change that a long poll delivers.
    pub(super) changed: watch::Sender<u64>,
    pub(super) late: VecDeque<(u64, Decision)>,
    pub(super) pending: HashMap<String, PendingRequest>,
    /// Held while the reports of a POST are applied: their effects are stored in order.
    pub(super) order: Arc<tokio::sync::Mutex<()>>,
}

/// A request that is not decided yet.
#[derive(Debug)]
pub(super) struct PendingRequest {
    /// The number of POSTs that wait for the decision. Without one, a long poll delivers it.
    pub(super) waiting: usize,
    pub(super) decision: watch::Sender<Option<Decision>>,
}

/// Where a room is in its life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Phase {
    /// A request for it was made, and it was not reported yet.
    Expected { until: Instant },
    /// Prosody reports it.
    Present,
    /// Known from the store, or from an instance that is gone; not reported since.
    Orphan { until: Instant },
    /// It is gone, and its conference must end.
    Ending { next: Instant, reason: EndReason },
    /// It is gone, and its conference ended.
    Gone { until: Instant },
}

#[derive(Debug)]
pub(super) struct Room {
    /// The instance that reports it.
    pub(super) instance: Option<Arc<str>>,
    /// The room's JID as Prosody wrote it last.
    pub(super) jid: String,
    /// Of the POST that named it last.
    pub(super) seq: u64,
    pub(super) phase: Phase,
    pub(super) report: Report,
    pub(super) known: Known,
    /// The user of the last request, for a conference that must be requested again.
    pub(super) requester: Option<Requester>,
    /// Whether the conference was opened or reported over this protocol.
    pub(super) owned: bool,
    /// The number of requests that are not decided yet.
    pub(super) requests: usize,
    /// When usher requests or reads the conference again.
    pub(super) retry_at: Instant,
    /// When a room that waits for its owner is closed.
    pub(super) await_until: Option<Instant>,
    /// The end, and since when it is known.
    pub(super) end: Option<(DateTime<Utc>, DateTime<Utc>)>,
    pub(super) directive: Option<Directive>,
    /// The revision at which a long poll delivers the directive.
    pub(super) poll_revision: u64,
}

impl Room {
    pub(super) fn new(jid: &str, phase: Phase) -> Self {
        Self {
            instance: None,
            jid: jid.to_owned(),
            seq: 0,
            phase,
            report: Report::default(),
            known: Known::Undecided,
            requester: None,
            owned: false,
            requests: 0,
            retry_at: Instant::now(),
            await_until: None,
            end: None,
            directive: None,
            poll_revision: 0,
        }
    }

    /// Whether it is, or may be, in Prosody.
    pub(super) fn is_there(&self) -> bool {
        matches!(self.phase, Phase::Expected { .. } | Phase::Present)
    }

    pub(super) fn reservation_id(&self) -> Option<&ReservationId> {
        match &self.known {
            Known::Running(reservation) => Some(&reservation.id),
            _ => None,
        }
    }
}

/// The end of a conference that must be stored.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) conference: Conference,
    pub(super) id: Option<ReservationId>,
    pub(super) reason: EndReason,
    /// Another module reserves conferences in this Prosody.
    pub(super) only_live: bool,
}

impl State {
    /// The room of a conference; a new one, or one that was gone, begins in `phase`.
    pub(super) fn room(&mut self, conference: &Conference, jid: &str, phase: Phase) -> &mut Room {
        let room = self
            .rooms
            .entry(conference.clone())
            .or_insert_with(|| Room::new(jid, phase));
        if matches!(room.phase, Phase::Gone { .. }) {
            *room = Room {
                seq: room.seq,
                ..Room::new(jid, phase)
            };
        }
        room
    }

    /// Notes that the room is gone. Returns what must be stored, if its conference was opened or reported here.
    pub(super) fn begin_end(
        &mut self,
        conference: &Conference,
        reason: EndReason,
        now: Instant,
    ) -> Option<Ending> {
        let room = self.rooms.get_mut(conference)?;
        if matches!(room.phase, Phase::Gone { .. }) {
            return None;
        }
        let id = room.reservation_id().cloned();
        let was_there = room.phase == Phase::Present;
        if !room.owned && !was_there {
            room.phase = Phase::Gone {
                until: now + GONE_MEMORY,
            };
            return None;
        }
        let only_live = !room.owned;
        let next = now + END_RETRY;
        room.phase = Phase::Ending { next, reason };
        Some(Ending {
            conference: conference.clone(),
            id,
            reason,
            only_live,
        })
    }

    /// Notes that the end of a conference is stored.
    pub(super) fn finish_end(&mut self, conference: &Conference, now: Instant) {
        if let Some(room) = self.rooms.get_mut(conference)
            && matches!(room.phase, Phase::Ending { .. })
        {
            *room = Room {
                instance: room.instance.clone(),
                seq: room.seq,
                ..Room::new(
                    &room.jid,
                    Phase::Gone {
                        until: now + GONE_MEMORY,
                    },
                )
            };
            self.unsaved.insert(conference.clone(), false);
        }
    }

    /// Whether usher decides about conferences in the Prosody that reports this room.
    pub(super) fn manages(&self, conference: &Conference) -> bool {
        let room = self.rooms.get(conference);
        let instance = room.and_then(|room| room.instance.as_ref());
        instance
            .and_then(|name| self.instances.get(name))
            .is_some_and(|it| it.features.reservations)
    }

    /// Notes that the conference was opened or reported over this protocol.
    pub(super) fn own(&mut self, conference: &Conference) {
        if let Some(room) = self.rooms.get_mut(conference)
            && !room.owned
        {
            room.owned = true;
            self.unsaved.insert(conference.clone(), true);
        }
    }

    /// Updates the room's directive from what it depends on; with `notify`, a long poll delivers it. Returns
    /// whether the conference goes live or is live no longer.
    pub(super) fn refresh(
        &mut self,
        conference: &Conference,
        queue: &Queue,
        time_zone: Tz,
        notify: bool,
        now: DateTime<Utc>,
    ) -> Option<bool> {
        let room = self.rooms.get_mut(conference)?;
        let name = room.instance.clone()?;
        let instance = self.instances.get(&name)?;
        if !room.is_there() {
            return None;
        }
        room.end = match &room.known {
            Known::Running(it) => match room.end {
                Some((end, since)) if end == it.end => Some((end, since)),
                _ => Some((it.end, now)),
            },
            _ => None,
        };
        let facts = Facts {
            jid: &room.jid,
            report: &room.report,
            known: &room.known,
            is_live: queue.is_live(conference),
            options: instance.options,
            features: instance.features,
            time_zone,
            end_known_at: room.end.map_or(now, |(_, since)| since),
            is_past_end: room.end.is_some_and(|(end, _)| end <= now),
        };
        let (live_change, directive) = (facts.live_change(), facts.directive());
        if let Some(directive) = directive
            && !room
                .directive
                .as_ref()
                .is_some_and(|it| is_same(it, &directive))
        {
            self.revision += 1;
            room.directive = Some(Directive {
                revision: self.revision,
                ..directive
            });
            if notify {
                room.poll_revision = self.revision;
                instance.changed.send_replace(self.revision);
            }
        }
        live_change
    }

    /// Delivers a decision to the POSTs that wait for it, else in a long poll.
    pub(super) fn decided(&mut self, instance: &str, conference: &Conference, decision: Decision) {
        let Some(instance) = self.instances.get_mut(instance) else {
            return;
        };
        let Some(pending) = instance.pending.remove(&decision.id) else {
            return;
        };
        if pending.waiting > 0 {
            pending.decision.send_replace(Some(decision));
            return;
        }
        self.revision += 1;
        if instance.late.len() == LATE_MAX {
            instance.late.pop_front();
        }
        instance.late.push_back((self.revision, decision));
        if let Some(room) = self.rooms.get_mut(conference) {
            room.poll_revision = self.revision;
        }
        instance.changed.send_replace(self.revision);
    }
}

/// Whether two directives differ in nothing but their revisions.
fn is_same(one: &Directive, other: &Directive) -> bool {
    let same_revision = Directive {
        revision: one.revision,
        ..other.clone()
    };
    *one == same_revision
}
