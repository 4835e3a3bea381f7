//! Requests are decided.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::Prosody;
use super::room::Known;
use super::state::{Ending, Phase, Room};
use super::wire::{Action, Decision, Request, RequestKind};
use crate::clock;
use crate::config::WithoutLobby;
use crate::domain::allocation::EndReason;
use crate::domain::conference::Conference;
use crate::domain::policy::Reason;
use crate::domain::requester::Requester;
use crate::domain::reservation::Reservation;
use crate::domain::timestamp;
use crate::reservation::gateway::GatewayError;
use crate::reservation::{self, AllocateResult, ReservationError};

/// How long after a visitor was sent to the queue a room that jicofo makes counts as the visitor's.
const VISITOR_MEMORY: Duration = Duration::from_secs(5);
/// How many visitors' rooms are remembered.
const VISITED_MAX: usize = 1000;
/// The pause before a conference is requested again.
pub(super) const RETRY: Duration = Duration::from_secs(5);
/// How long a request of a conference may take before it is repeated.
pub(super) const RESOLVE_MAX: Duration = Duration::from_secs(30);

/// What a visitor of a conference with a queue receives where the request can't go on to the focus.
pub(super) const VISITORS_WAIT: &str = "Visitors of this conference wait until it goes live.";

/// The result of a request for a conference.
pub(super) enum Outcome {
    Running {
        reservation: Box<Reservation>,
        created: bool,
    },
    Queued,
    Refused {
        text: String,
        only_owner: bool,
    },
    Failed(String),
}

impl Prosody {
    /// Decides on a request and delivers the decision.
    pub(super) async fn decide(
        &self,
        instance: &Arc<str>,
        conference: &Conference,
        request: Request,
    ) {
        let now = clock::now();
        let manages = self.state().manages(conference);
        let decision = match manages {
            true => {
                self.decide_managed(instance, conference, request, now)
                    .await
            }
            false => Decision::new(request.id, Action::Allow),
        };
        self.follow(slice::from_ref(conference), false, now).await;
        let mut state = self.state();
        if let Some(room) = state.rooms.get_mut(conference) {
            room.requests = room.requests.saturating_sub(1);
            let is_open = matches!(decision.action, Action::AwaitOwner | Action::Fail);
            if !is_open && room.is_unused() {
                state.rooms.remove(conference);
            }
        }
        state.decided(instance, conference, decision);
    }

    async fn decide_managed(
        &self,
        instance: &Arc<str>,
        conference: &Conference,
        request: Request,
        now: DateTime<Utc>,
    ) -> Decision {
        let requester = requester(&request, conference);
        let outcome = match self.finish_former(conference, now).await {
            true => {
                self.allocate(conference, &request.room, &requester, now)
                    .await
            }
            false => {
                Outcome::Failed("The end of the former conference can't be stored.".to_owned())
            }
        };
        let lobbies = self
            .state()
            .instances
            .get(instance)
            .map(|it| it.features.lobby);
        let outcome = self.without_lobby(conference, outcome, lobbies, now).await;
        self.conclude(conference, &request, requester, outcome)
    }

    /// Ends the former conference of the room, if its end could not be stored yet.
    async fn finish_former(&self, conference: &Conference, now: DateTime<Utc>) -> bool {
        let ending = {
            let state = self.state();
            state
                .rooms
                .get(conference)
                .and_then(|room| match room.phase {
                    Phase::Ending { reason, .. } => Some(Ending {
                        conference: conference.clone(),
                        id: room.reservation_id().cloned(),
                        reason,
                        only_live: !room.owned,
                    }),
                    _ => None,
                })
        };
        let Some(ending) = ending else { return true };
        if !self.end_one(&ending, now).await {
            return false;
        }
        let mut state = self.state();
        if let Some(room) = state.rooms.get_mut(conference) {
            let until = Instant::now() + RESOLVE_MAX;
            *room = Room {
                instance: room.instance.clone(),
                seq: room.seq,
                requests: room.requests,
                ..Room::new(&room.jid, Phase::Expected { until })
            };
        }
        true
    }

    /// Notes the outcome in the room; returns the decision.
    fn conclude(
        &self,
        conference: &Conference,
        request: &Request,
        requester: Requester,
        outcome: Outcome,
    ) -> Decision {
        let decision = |action| Decision::new(request.id.clone(), action);
        let (now, mut state) = (Instant::now(), self.state());
        let visited = state.visited.get(conference);
        let is_visitors = visited.is_some_and(|at| now - *at < VISITOR_MEMORY);
        let is_focus = request.kind == RequestKind::Create && request.from.is_empty();
        match outcome {
            Outcome::Running {
                reservation,
                created,
            } => {
                if let Some(room) = state.rooms.get_mut(conference) {
                    room.run(*reservation);
                    room.requester = Some(requester);
                }
                if created {
                    state.own(conference);
                }
                decision(Action::Allow)
            }
            Outcome::Queued if request.kind == RequestKind::Iq => {
                if state.visited.len() < VISITED_MAX {
                    state.visited.insert(conference.clone(), now);
                }
                Decision {
                    text: Some(VISITORS_WAIT.to_owned()),
                    ..decision(Action::Queue)
                }
            }
            Outcome::Queued => decision(Action::Refuse).with(403, VISITORS_WAIT.to_owned()),
            // jicofo makes the room for a user that it does not name. The owner may be that user.
            Outcome::Refused { text, only_owner } if only_owner && is_focus && !is_visitors => {
                if let Some(room) = state.rooms.get_mut(conference) {
                    room.await_owner(text.clone());
                }
                Decision {
                    text: Some(text),
                    ..decision(Action::AwaitOwner)
                }
            }
            Outcome::Refused { text, .. } => decision(Action::Refuse).with(403, text),
            Outcome::Failed(text) => {
                // The modules may let the user in: usher_on_failure = "allow".
                if let Some(room) = state.rooms.get_mut(conference) {
                    room.requester = Some(requester);
                }
                decision(Action::Fail).with(503, text)
            }
        }
    }

    /// Refuses a conference with a lobby where Jitsi has none, if that is configured.
    async fn without_lobby(
        &self,
        conference: &Conference,
        outcome: Outcome,
        lobbies: Option<bool>,
        now: DateTime<Utc>,
    ) -> Outcome {
        let (reservation, created) = match outcome {
            Outcome::Running {
                reservation,
                created,
            } if lobbies == Some(false) && reservation.options.lobby => (reservation, created),
            other => return other,
        };
        tracing::warn!(
            conference = conference.node(),
            "a booking has a lobby, but Prosody has none: load persistent_lobby on the main host"
        );
        if self.inner.config.without_lobby == WithoutLobby::Open {
            return Outcome::Running {
                reservation,
                created,
            };
        }
        if created {
            let ending = Ending {
                conference: conference.clone(),
                id: Some(reservation.id),
                reason: EndReason::Destroyed,
                only_live: false,
            };
            self.end_one(&ending, now).await;
        }
        Outcome::Refused {
            text: format!(
                "\"{}\" is booked with a lobby, and this server has no lobbies. Ask its operator, or book it without one.",
                conference.display_name()
            ),
            only_owner: false,
        }
    }

    pub(super) async fn allocate(
        &self,
        conference: &Conference,
        jid: &str,
        requester: &Requester,
        now: DateTime<Utc>,
    ) -> Outcome {
        let reservations = &self.inner.reservations;
        let request = reservation::Request {
            conference: conference.clone(),
            name: node(jid, conference),
            start_time: timestamp::format(now),
            requester: requester.clone(),
        };
        // A conference that was in the way may be over by the time it is read.
        for _ in 0..2 {
            let result = match reservations.allocate(request.clone(), now).await {
                Ok(result) => result,
                Err(error) => return failed(error),
            };
            let (reservation, created) = match result {
                AllocateResult::Created(reservation) => (Some(reservation), true),
                AllocateResult::Running(reservation) => (Some(reservation), true),
                AllocateResult::Conflict(_) => match reservations.in_room(conference, now).await {
                    Ok(running) => (running, false),
                    Err(error) => return failed(error),
                },
                AllocateResult::Queued => return Outcome::Queued,
                AllocateResult::Refused(refusal) => {
                    return Outcome::Refused {
                        only_owner: refusal.reason == Reason::NotOwner,
                        text: refusal.sentence,
                    };
                }
            };
            if let Some(reservation) = reservation {
                let reservation = Box::new(reservation);
                return Outcome::Running {
                    reservation,
                    created,
                };
            }
        }
        Outcome::Failed("The conference ended at the same time; try again.".to_owned())
    }
}

impl Room {
    /// Notes that the conference of the room runs.
    pub(super) fn run(&mut self, reservation: Reservation) {
        self.known = Known::Running(Box::new(reservation));
        self.await_until = None;
    }

    /// Notes that only the owner may open the room. If the owner doesn't come, it is closed.
    pub(super) fn await_owner(&mut self, text: String) {
        self.await_until = match self.phase {
            Phase::Expected { until } => Some(until),
            _ => Some(Instant::now() + RESOLVE_MAX),
        };
        self.known = Known::AwaitOwner(text);
    }

    /// Whether only refused requests have named the room.
    fn is_unused(&self) -> bool {
        let is_expected = matches!(self.phase, Phase::Expected { .. });
        is_expected && self.requests == 0 && !self.owned && matches!(self.known, Known::Undecided)
    }
}

pub(super) fn failed(error: ReservationError) -> Outcome {
    match error {
        ReservationError::Gateway(GatewayError::Refused { message, .. }) => Outcome::Refused {
            text: message,
            only_owner: false,
        },
        error => Outcome::Failed(error.to_string()),
    }
}

fn requester(request: &Request, conference: &Conference) -> Requester {
    let user = request.user.clone();
    Requester {
        mail_owner: request.from.clone(),
        user_id: user.id,
        user_email: user.email,
        user_name: user.name,
        user_group: user.group,
        tenant: conference
            .tenant()
            .map(str::to_owned)
            .or_else(|| request.tenant.clone()),
        moderator: user.moderator.as_deref() == Some("true"),
        visitor: user.role.as_deref() == Some("visitor"),
    }
}

/// The node of the real room as Prosody writes it: of a tenant's virtual address, `[tenant]room`.
fn node(jid: &str, conference: &Conference) -> String {
    let node = jid.split('@').next().unwrap_or_default();
    match conference.tenant() {
        Some(tenant) if !node.starts_with('[') => format!("[{tenant}]{node}"),
        _ => node.to_owned(),
    }
}
