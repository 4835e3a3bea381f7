//! `POST /api/v1/prosody/events`: reports are applied, then requests are decided.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Prosody;
use super::room::{Features, Known};
use super::state::{Ending, Instance, PendingRequest, Phase, State};
use super::wire::{self, Action, Answer, Decision, Events, PROTOCOL, Rejected};
use crate::clock;
use crate::domain::allocation::EndReason;
use crate::domain::conference::Conference;
use crate::text::escape_for_message;

/// More instances are refused: each restart of a Prosody is one, until it counts as absent.
const INSTANCES_MAX: usize = 64;
/// More rooms are rejected.
const ROOMS_MAX: usize = 100_000;
/// How many requests of an instance may be undecided; further ones fail.
const PENDING_MAX: usize = 1000;
/// The longest name of an instance.
const NAME_MAX: usize = 64;
/// Once one request of a POST is decided, how long the POST waits for the others.
const OTHERS_WAIT: Duration = Duration::from_millis(250);
/// The shortest wait for a decision.
const WAIT_MIN: Duration = Duration::from_millis(200);

/// Why a POST is not applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EventsError {
    /// The modules are of another version.
    #[error(
        "protocol: this usher supports version {PROTOCOL}, not {0}; install the modules of this version and restart Prosody"
    )]
    Protocol(u32),
    /// The name is missing, too long or has other characters.
    #[error("instance: must have 1 to {NAME_MAX} characters of A-Z a-z 0-9 . _ -")]
    Instance,
    /// `INSTANCES_MAX`.
    #[error(
        "instance: {INSTANCES_MAX} instances are connected already; restart usher if that is not so"
    )]
    TooManyInstances,
}

/// What a POST names, with its rooms read.
#[derive(Default)]
struct Named {
    rooms: Vec<(Conference, wire::Report)>,
    gone: Vec<(Conference, u64)>,
    requests: Vec<(Conference, wire::Request)>,
    rejected: Vec<Rejected>,
    decisions: Vec<Decision>,
}

/// The instance of a POST.
struct Begun {
    instance: Arc<str>,
    /// Held while reports are applied.
    order: Arc<tokio::sync::Mutex<()>>,
    /// Whether it must report everything.
    send_all: bool,
}

/// A request that this POST waits for.
struct Wait {
    id: String,
    decision: watch::Receiver<Option<Decision>>,
}

pub(super) fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(fits)
}

impl Prosody {
    /// Applies the reports of a POST, and decides on its requests.
    ///
    /// # Errors
    ///
    /// [`EventsError`]; nothing is applied then.
    pub async fn events(&self, events: Events, now: DateTime<Utc>) -> Result<Answer, EventsError> {
        let Begun {
            instance,
            order,
            send_all,
        } = self.begin(&events)?;
        let (seq, all, timeout) = (events.seq, events.all, events.options.timeout);
        let named = self.read(events);
        let rooms: Vec<_> = named.rooms.iter().map(|(room, _)| room.clone()).collect();
        {
            let _in_order = order.lock().await;
            let gone = self.apply(&instance, seq, all, &named);
            self.end(gone, now).await;
            self.load(&rooms, now).await;
            self.follow(&rooms, false, now).await;
        }
        let mut answered = rooms;
        answered.extend(named.requests.iter().map(|(room, _)| room.clone()));
        let mut decisions = named.decisions;
        let waits = self.begin_requests(&instance, seq, named.requests, &mut decisions);
        let pending = self.wait(&instance, waits, timeout, &mut decisions).await;
        Ok(Answer {
            now: seconds(clock::now()),
            rooms: self.directives(answered),
            decisions,
            pending,
            rejected: named.rejected,
            send_all,
            revision: None,
        })
    }

    /// Registers the instance.
    fn begin(&self, events: &Events) -> Result<Begun, EventsError> {
        if events.protocol != PROTOCOL {
            return Err(EventsError::Protocol(events.protocol));
        }
        if !is_name(&events.instance) {
            return Err(EventsError::Instance);
        }
        let has = |feature: &str| events.features.iter().any(|it| it == feature);
        let features = Features {
            reservations: has("reservations"),
            queue: has("queue"),
            metadata: has("metadata"),
            lobby: has("lobby"),
        };
        let mut state = self.state();
        let is_full = state.instances.len() >= INSTANCES_MAX;
        let known = state.instances.get_key_value(&*events.instance);
        let name: Arc<str> = match known {
            Some((name, _)) => Arc::clone(name),
            None if is_full => return Err(EventsError::TooManyInstances),
            None => events.instance.as_str().into(),
        };
        let is_new = known.is_none();
        let instance = state
            .instances
            .entry(Arc::clone(&name))
            .or_insert_with(|| Instance {
                shim: String::new(),
                options: events.options,
                features,
                last_seen: Instant::now(),
                polls: 0,
                changed: watch::Sender::new(0),
                late: Default::default(),
                pending: Default::default(),
                order: Arc::default(),
            });
        if is_new {
            let (shim, instance) = (escape_for_message(&events.shim), &*name);
            tracing::info!(instance, shim, "Prosody's modules are connected");
        }
        instance.shim = events.shim.chars().take(NAME_MAX).collect();
        instance.options = events.options;
        instance.features = features;
        instance.last_seen = Instant::now();
        Ok(Begun {
            order: Arc::clone(&instance.order),
            instance: name,
            send_all: is_new && !events.all,
        })
    }

    /// Reads the rooms of a POST; what can't be a room is rejected alone. Rooms for jicofo's health checks are ignored.
    fn read(&self, events: Events) -> Named {
        let mut named = Named::default();
        let mut seen = HashSet::new();
        let read = |rejected: &mut Vec<Rejected>, jid: &str| match self.conference(jid) {
            Ok(conference) if conference.is_health_check() => None,
            Ok(conference) => Some(conference),
            Err(error) => {
                rejected.push(Rejected {
                    room: escape_for_message(jid),
                    message: error.to_string(),
                });
                None
            }
        };
        for report in events.rooms {
            let conference = read(&mut named.rejected, &report.room);
            if let Some(conference) = conference.filter(|it| seen.insert(it.clone())) {
                named.rooms.push((conference, report));
            }
        }
        for gone in events.gone {
            // A room that can't be was rejected when it was reported.
            if let Some(conference) = read(&mut Vec::new(), &gone.room) {
                named.gone.push((conference, gone.seq.min(events.seq)));
            }
        }
        for request in events.requests {
            match self.conference(&request.room) {
                Ok(conference) if conference.is_health_check() => {
                    named
                        .decisions
                        .push(Decision::new(request.id, Action::Allow));
                }
                Ok(conference) => named.requests.push((conference, request)),
                Err(error) => {
                    let decision = Decision::new(request.id, Action::Refuse);
                    named.decisions.push(decision.with(403, error.to_string()));
                }
            }
        }
        named
    }

    /// Applies the reports to the state. Returns the conferences that ended.
    fn apply(&self, instance: &Arc<str>, seq: u64, all: bool, named: &Named) -> Vec<Ending> {
        let (now, mut state) = (Instant::now(), self.state());
        let mut ended = Vec::new();
        for (conference, gone_seq) in &named.gone {
            let room = state.rooms.get(conference);
            let is_this = room.is_some_and(|it| match it.phase {
                // After a restart of usher, no instance has reported it yet.
                Phase::Orphan { .. } => true,
                _ => it.instance.as_ref() == Some(instance) && it.seq < *gone_seq && it.is_there(),
            });
            if is_this {
                if let Some(room) = state.rooms.get_mut(conference) {
                    room.seq = *gone_seq;
                }
                ended.extend(state.begin_end(conference, EndReason::Destroyed, now));
            }
        }
        let listed: HashSet<_> = named.rooms.iter().map(|(room, _)| room).collect();
        if all {
            let missing: Vec<_> = state
                .rooms
                .iter()
                .filter(|(conference, room)| {
                    room.instance.as_ref() == Some(instance)
                        && room.phase == Phase::Present
                        && room.seq < seq
                        && !listed.contains(conference)
                })
                .map(|(conference, _)| conference.clone())
                .collect();
            for conference in &missing {
                if let Some(room) = state.rooms.get_mut(conference) {
                    room.seq = seq;
                }
                ended.extend(state.begin_end(conference, EndReason::Destroyed, now));
            }
        }
        for (conference, report) in &named.rooms {
            report_room(&mut state, instance, seq, conference, report);
        }
        for conference in &listed {
            if state.manages(conference) {
                state.own(conference);
            }
        }
        ended
    }

    /// Begins to decide on requests; one that is in progress already is joined.
    fn begin_requests(
        &self,
        instance: &Arc<str>,
        seq: u64,
        requests: Vec<(Conference, wire::Request)>,
        decisions: &mut Vec<Decision>,
    ) -> Vec<Wait> {
        let mut waits = Vec::new();
        for (conference, request) in requests {
            let id = request.id.clone();
            let mut state = self.state();
            let Some(known) = state.instances.get_mut(instance) else {
                continue;
            };
            if let Some(pending) = known.pending.get_mut(&id) {
                pending.waiting += 1;
                let decision = pending.decision.subscribe();
                waits.push(Wait { id, decision });
                continue;
            }
            if known.pending.len() >= PENDING_MAX {
                let text = format!("{PENDING_MAX} requests of this Prosody wait for a decision.");
                decisions.push(Decision::new(id, Action::Fail).with(503, text));
                continue;
            }
            let (sender, decision) = watch::channel(None);
            known.pending.insert(
                id.clone(),
                PendingRequest {
                    waiting: 1,
                    decision: sender,
                },
            );
            expect_room(&mut state, instance, seq, &conference, &request.room);
            drop(state);
            waits.push(Wait { id, decision });
            let (prosody, instance) = (self.clone(), Arc::clone(instance));
            tokio::spawn(async move { prosody.decide(&instance, &conference, request).await });
        }
        waits
    }

    /// Waits for decisions, for less than `timeout` seconds. Returns the requests whose decisions a long poll delivers.
    async fn wait(
        &self,
        instance: &str,
        mut waits: Vec<Wait>,
        timeout: u32,
        decisions: &mut Vec<Decision>,
    ) -> Vec<String> {
        let wait = Duration::from_millis(u64::from(timeout) * 800).max(WAIT_MIN);
        let mut deadline = Instant::now() + wait;
        let mut open: FuturesUnordered<_> = waits
            .iter_mut()
            .map(|wait| async {
                let _ = wait.decision.wait_for(Option::is_some).await;
            })
            .collect();
        loop {
            tokio::select! {
                next = open.next() => match next {
                    Some(()) => deadline = deadline.min(Instant::now() + OTHERS_WAIT),
                    None => break,
                },
                () = sleep_until(deadline) => break,
            }
        }
        drop(open);
        let mut state = self.state();
        let mut pending = Vec::new();
        for wait in waits {
            let decided = wait.decision.borrow().clone();
            if let Some(decision) = decided {
                decisions.push(decision);
                continue;
            }
            let known = state.instances.get_mut(instance);
            if let Some(request) = known.and_then(|it| it.pending.get_mut(&wait.id)) {
                request.waiting = request.waiting.saturating_sub(1);
            }
            pending.push(wait.id);
        }
        pending
    }

    /// The directives of these rooms, each once.
    fn directives(&self, conferences: Vec<Conference>) -> Vec<wire::Directive> {
        let state = self.state();
        let mut seen = HashSet::new();
        conferences
            .iter()
            .filter(|conference| seen.insert(*conference))
            .filter_map(|conference| state.rooms.get(conference))
            .filter(|room| room.is_there())
            .filter_map(|room| room.directive.clone())
            .collect()
    }
}

/// usher's clock in an answer.
pub(super) fn seconds(now: DateTime<Utc>) -> f64 {
    // Milliseconds since 1970 are exact in an f64.
    now.timestamp_millis() as f64 / 1000.0
}

/// Applies one report, unless a later one was applied already.
fn report_room(
    state: &mut State,
    instance: &Arc<str>,
    seq: u64,
    conference: &Conference,
    report: &wire::Report,
) {
    let is_outdated = state
        .rooms
        .get(conference)
        .is_some_and(|room| room.instance.as_ref() == Some(instance) && seq < room.seq);
    if is_outdated || (state.rooms.len() >= ROOMS_MAX && !state.rooms.contains_key(conference)) {
        return;
    }
    let room = state.room(conference, &report.room, Phase::Present);
    room.phase = Phase::Present;
    if room.instance.as_ref() != Some(instance) {
        room.instance = Some(Arc::clone(instance));
        room.directive = None;
    }
    room.seq = seq;
    room.jid.clone_from(&report.room);
    // The first occupant stays noted while the room exists.
    let occupied = room.report.occupied || report.occupied || report.occupants > 0;
    room.report = wire::Report {
        occupied,
        ..report.clone()
    };
}

/// Notes that a request names this room.
fn expect_room(
    state: &mut State,
    instance: &Arc<str>,
    seq: u64,
    conference: &Conference,
    jid: &str,
) {
    let create_timeout = state
        .instances
        .get(instance)
        .map_or(0, |it| it.options.create_timeout);
    let until = Instant::now() + Duration::from_secs(create_timeout.into());
    let phase = Phase::Expected { until };
    let room = state.room(conference, jid, phase);
    room.requests += 1;
    room.seq = room.seq.max(seq);
    match room.phase {
        Phase::Present => {}
        Phase::Expected { .. } | Phase::Orphan { .. } | Phase::Gone { .. } => {
            room.phase = phase;
            room.instance = Some(Arc::clone(instance));
        }
        Phase::Ending { .. } => room.instance = Some(Arc::clone(instance)),
    }
    if room.instance.is_none() {
        room.instance = Some(Arc::clone(instance));
    }
    if matches!(room.known, Known::Undecided) {
        jid.clone_into(&mut room.jid);
    }
}

impl Decision {
    pub(super) fn new(id: String, action: Action) -> Self {
        Self {
            id,
            action,
            text: None,
            code: None,
        }
    }

    pub(super) fn with(self, code: u16, text: String) -> Self {
        Self {
            code: Some(code),
            text: Some(text),
            ..self
        }
    }
}
