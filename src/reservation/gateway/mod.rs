//! The gateway to another reservation system with the same API, the *upstream*: it forwards requests, checks and
//! repairs the responses, and delivers each DELETE until the upstream acknowledges it.
//!
//! Ids are the upstream's own. One request per room is under way at a time, POST or DELETE: an upstream that has not
//! received the DELETE of a room's last conference would return that conference again.

mod audit;
mod circuit_breaker;
mod client;
mod error;
mod health;
mod id;
mod outbox;
mod response;
mod retry;
mod rooms;
mod single_flight;

use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{AllocateResult, GetResult, Request, ReservationError};
use crate::config;
use crate::domain::allocation::{Allocation, AllocationId, EndReason};
use crate::domain::conference::Conference;
use crate::domain::requester::Requester;
use crate::domain::reservation::{Reservation, ReservationId, Source};
use crate::store::{Store, StoreError, UpstreamRow};
use circuit_breaker::CircuitBreaker;
use client::Client;
pub use client::UpstreamError;
pub use error::GatewayError;
use id::UpstreamId;
pub use response::ResponseError;
use response::{Expected, conference, conflict, is_queued, message};
use retry::HttpResponse;
use single_flight::{InFlight, Joined, RoomLocks};

/// Prefix of the ids of conferences that usher allocated while the upstream was unavailable.
const FALLBACK_PREFIX: &str = "usher-";

type Result<T, E = GatewayError> = std::result::Result<T, E>;

/// The room of a request, and the requester if the result is for this user only.
type Key = (Conference, Option<Requester>);

/// The handle to the gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    store: Store,
    config: Arc<config::Reservations>,
    upstream: config::Upstream,
    circuit_breaker: Mutex<CircuitBreaker>,
    /// Wakes the probe loop.
    circuit_opened: Notify,
    /// Wakes the delivery loop.
    outbox_changed: Notify,
    /// Results are kept with the requester of their call.
    in_flight: InFlight<Key, (Requester, Result<AllocateResult>)>,
    room_locks: RoomLocks,
}

impl Gateway {
    /// # Errors
    ///
    /// [`UpstreamError`] if the URL, a header or the file of certificates is invalid.
    pub fn new(store: Store, config: Arc<config::Reservations>) -> Result<Self, UpstreamError> {
        let upstream = config.upstream.clone().ok_or(UpstreamError::NoUrl)?;
        Ok(Self {
            inner: Arc::new(Inner {
                client: Client::new(&upstream)?,
                store,
                config,
                circuit_breaker: Mutex::new(CircuitBreaker::new(upstream.failures_max)),
                upstream,
                circuit_opened: Notify::new(),
                outbox_changed: Notify::new(),
                in_flight: InFlight::default(),
                room_locks: RoomLocks::default(),
            }),
        })
    }

    /// Requests a conference of the upstream and records the result. Simultaneous requests for a room share one call;
    /// only a refusal is for its requester alone, and another requester makes a call of their own then.
    pub(super) async fn allocate(&self, request: &Request) -> Result<AllocateResult> {
        let (requester, result) = match self.join(request, None).await? {
            Joined::Own((_, result)) => return result,
            Joined::Shared(shared) => shared,
        };
        let refused = matches!(
            result,
            Ok(AllocateResult::Queued) | Err(GatewayError::Refused { .. })
        );
        if !refused || requester == request.requester {
            return as_running(result);
        }
        match self.join(request, Some(&request.requester)).await? {
            Joined::Own((_, result)) => result,
            Joined::Shared((_, result)) => as_running(result),
        }
    }

    async fn join(
        &self,
        request: &Request,
        requester: Option<&Requester>,
    ) -> Result<Joined<(Requester, Result<AllocateResult>)>> {
        let key = (request.conference.clone(), requester.cloned());
        let (gateway, request) = (self.clone(), request.clone());
        let call = async move {
            let result = gateway.request_conference(&request).await;
            let result = gateway.record(&request, result).await;
            (request.requester, result)
        };
        self.inner.in_flight.join(key, call).await
    }

    /// Makes the request when the room is free, and stores the conference.
    async fn request_conference(&self, request: &Request) -> Result<AllocateResult> {
        if !self.circuit_breaker().try_acquire() {
            return Err(GatewayError::CircuitOpen);
        }
        let deadline = self.inner.client.deadline();
        let room = self.inner.room_locks.get(&request.conference);
        let result = timeout_at(deadline, async {
            let _lock = room.lock().await;
            self.deliver_deletions_of(&request.conference).await;
            let result = self.post(request, deadline).await?;
            if let AllocateResult::Created(reservation) | AllocateResult::Running(reservation) =
                &result
            {
                self.store_conference(request, reservation).await?;
            }
            Ok(result)
        });
        let result = result.await.unwrap_or(Err(GatewayError::TimedOut));
        self.record_result(result.as_ref().err());
        result
    }

    async fn post(&self, request: &Request, deadline: Instant) -> Result<AllocateResult> {
        let requester = &request.requester;
        let mut fields = vec![
            ("name", request.name.as_str()),
            ("start_time", &request.start_time),
            ("mail_owner", &requester.mail_owner),
        ];
        if self.inner.upstream.forward_identity {
            fields.extend(requester.identity());
        }
        let expected = Expected {
            name: Some(&request.name),
            mail_owner: &requester.mail_owner,
            id: None,
        };
        let call = self.inner.client.post(&fields);
        let response = self.call(&call, deadline).await?;
        let of_room = |reservation| Reservation {
            conference: Some(request.conference.clone()),
            ..reservation
        };
        match response.status {
            200 | 201 => {
                let reservation = conference(&response.body, expected)?;
                Ok(AllocateResult::Created(of_room(reservation)))
            }
            202 if is_queued(&response.body) => Ok(AllocateResult::Queued),
            409 => {
                let id = conflict(&response.body)?;
                let reservation = self.get_conflict(&id, expected, deadline).await?;
                Ok(AllocateResult::Running(of_room(reservation)))
            }
            status @ 400..500 => {
                let message = message(status, &response.body, &request.conference.display_name());
                Err(GatewayError::Refused { status, message })
            }
            status => Err(ResponseError::UnexpectedStatus(status).into()),
        }
    }

    /// The running conference of a 409, which Prosody would request next.
    async fn get_conflict(
        &self,
        id: &UpstreamId,
        expected: Expected<'_>,
        deadline: Instant,
    ) -> Result<Reservation> {
        let call = self.inner.client.get(id);
        let response = self.call(&call, deadline).await?;
        let expected = Expected {
            id: Some(id),
            ..expected
        };
        match response.status {
            200 => Ok(conference(&response.body, expected)?),
            404 | 410 => Err(ResponseError::ConflictNotFound(id.to_string()).into()),
            status => Err(ResponseError::UnexpectedStatus(status).into()),
        }
    }

    /// A call with the configured retries; a status from 500 up is an error.
    async fn call(&self, call: &client::Call, deadline: Instant) -> Result<HttpResponse> {
        match self.inner.client.call(call, deadline).await {
            Ok(response) if response.status >= 500 => {
                Err(GatewayError::ServerError(response.status))
            }
            Ok(response) => Ok(response),
            Err(error) => {
                tracing::warn!(trouble = %error, "no response from the reservation system");
                Err(error.into())
            }
        }
    }

    /// Finds a conference by its id as Prosody writes it into a path.
    pub(super) async fn find(
        &self,
        path: &str,
        now: DateTime<Utc>,
    ) -> Result<GetResult, ReservationError> {
        let Some((id, row)) = self.upstream_id(path).await? else {
            return Ok(match fallback_id(path) {
                Some(id) => self.find_fallback(id, now).await?,
                None => GetResult::NotFound,
            });
        };
        if let Some(ended_at) = row.as_ref().and_then(|row| row.ended_at) {
            return Ok(ended(ended_at));
        }
        Ok(self.get(&id, row.as_ref()).await?)
    }

    async fn get(&self, id: &UpstreamId, row: Option<&UpstreamRow>) -> Result<GetResult> {
        if !self.circuit_breaker().try_acquire() {
            return Err(GatewayError::CircuitOpen);
        }
        let deadline = self.inner.client.deadline();
        let call = self.inner.client.get(id);
        let response = self.call(&call, deadline).await;
        self.record_result(response.as_ref().err());
        let response = response?;
        let expected = Expected {
            name: row.map(|row| row.name.as_str()),
            mail_owner: row.map_or("", |row| &row.mail_owner),
            id: Some(id),
        };
        match response.status {
            200 => {
                let reservation = conference(&response.body, expected)?;
                Ok(GetResult::Running(Box::new(reservation)))
            }
            404 | 410 => Ok(GetResult::NotFound),
            status @ 400..500 => {
                let room = row.map_or_else(String::new, |row| row.conference.display_name());
                let message = message(status, &response.body, &room);
                Err(GatewayError::Refused { status, message })
            }
            status => Err(ResponseError::UnexpectedStatus(status).into()),
        }
    }

    async fn find_fallback(
        &self,
        id: AllocationId,
        now: DateTime<Utc>,
    ) -> Result<GetResult, StoreError> {
        Ok(match self.inner.store.allocation(id).await? {
            None => GetResult::NotFound,
            Some(allocation) if allocation.is_over(now) => {
                ended(allocation.ended_at.unwrap_or(allocation.end))
            }
            Some(allocation) => GetResult::Running(Box::new(Reservation {
                conference: None,
                ..fallback(allocation)
            })),
        })
    }

    /// Ends a conference because its room is gone; its DELETE is delivered until the upstream acknowledges it.
    /// Returns whether the id is valid.
    pub(super) async fn end(&self, path: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let Some((id, row)) = self.upstream_id(path).await? else {
            return match fallback_id(path) {
                Some(id) => self.end_fallback(id, now).await,
                None => Ok(false),
            };
        };
        if row.is_some_and(|row| row.ended_at.is_some()) {
            return Ok(true);
        }
        let id = id.to_string();
        let mut tx = self.inner.store.begin().await?;
        let row = tx.upstream_conference(&id).await?;
        let room = row.as_ref().map(|row| &row.conference);
        let max = self.inner.upstream.outbox_max;
        tx.accept_deletion(&id, room, max, now).await?;
        if let Some(room) = room {
            tx.end_live(&[room]).await?;
        }
        tx.commit().await?;
        tracing::info!(id, "conference ended: its room is gone");
        self.inner.outbox_changed.notify_one();
        Ok(true)
    }

    async fn end_fallback(&self, id: AllocationId, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let mut tx = self.inner.store.begin().await?;
        tx.end_allocation(id, EndReason::Destroyed, now).await?;
        tx.commit().await?;
        Ok(self.inner.store.allocation(id).await?.is_some())
    }

    /// For each of these conferences, whether its visitors must wait, as the upstream reported when it was allocated.
    pub(super) async fn have_queue(
        &self,
        conferences: &[&Conference],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>, StoreError> {
        self.inner.store.upstream_have_queue(conferences, now).await
    }

    /// The upstream's id in a path, and what is stored of it; `None` for the id of a fallback and for what is not
    /// valid as an id.
    async fn upstream_id(
        &self,
        path: &str,
    ) -> Result<Option<(UpstreamId, Option<UpstreamRow>)>, StoreError> {
        let (Some(text), Some(id)) = (UpstreamId::from_text(path), UpstreamId::from_path(path))
        else {
            return Ok(None);
        };
        // A stored id with this spelling comes first: the string 007 is not the number 7.
        let store = &self.inner.store;
        if let Some(row) = store.upstream_conference(path).await? {
            let id = if id.to_string() == path { id } else { text };
            return Ok(Some((id, Some(row))));
        }
        if fallback_id(path).is_some() {
            return Ok(None);
        }
        let row = store.upstream_conference(&id.to_string()).await?;
        Ok(Some((id, row)))
    }

    /// Delivers deletions, and probes an unavailable upstream, until `stop`.
    pub(super) async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.delivery_loop() => {}
            () = self.probe_loop() => {}
        }
    }
}

/// The result for a request that shares another one's call.
fn as_running(result: Result<AllocateResult>) -> Result<AllocateResult> {
    match result {
        Ok(AllocateResult::Created(reservation)) if reservation.source == Source::Upstream => {
            Ok(AllocateResult::Running(reservation))
        }
        other => other,
    }
}

fn ended(at: DateTime<Utc>) -> GetResult {
    let message = "The conference is over.".to_owned();
    GetResult::Ended { at, message }
}

/// A conference that usher allocated while the upstream was unavailable. No upstream may use its id.
fn fallback(allocation: Allocation) -> Reservation {
    Reservation {
        id: ReservationId::Text(format!("{FALLBACK_PREFIX}{}", allocation.id)),
        source: Source::Fallback,
        ..allocation.into()
    }
}

fn fallback_id(path: &str) -> Option<AllocationId> {
    AllocationId::parse_path(path.strip_prefix(FALLBACK_PREFIX)?)
}
