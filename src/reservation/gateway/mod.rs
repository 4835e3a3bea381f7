//! In front of another reservation system that speaks the same API: its answers are asked for, checked,
//! repaired and passed on, and that a conference is over is told until it is heard.
//!
//! The ids are the upstream's own. One request at a time is under way for a room, be it a POST or a DELETE
//! from the outbox: an upstream that is asked for a room whose end it hasn't heard would hand out the old
//! conference.

mod audit;
mod circuit_breaker;
mod client;
mod health;
mod id;
mod outbox;
mod outcome;
mod response;
mod retry;
mod single_flight;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{Request, Requester, whole_seconds};
use crate::config::{self, OnFailure};
use crate::domain::allocation::{AllocationId, EndReason};
use crate::domain::conference::Conference;
use crate::store::{Store, StoreError, UpstreamRow};
use circuit_breaker::Breaker;
use client::Client;
pub use client::UpstreamError;
pub use id::UpstreamId;
pub use outcome::{Failure, Lookup, Refused, Verdict};
pub use response::{Flaw, UpstreamConference};
use response::{Known, conference, conflict, is_queued, message};
use retry::Reply;
use single_flight::{Boarded, Flights, Turns};

/// Precedes the ids of conferences that usher let run by itself (`on_failure = "allow"`).
const OWN_PREFIX: &str = "usher-";

/// The handle to the upstream. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Upstream {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    store: Store,
    settings: Settings,
    breaker: Mutex<Breaker>,
    /// Wakes the loop that probes.
    opened: Notify,
    /// Wakes the loop that delivers.
    outbox_changed: Notify,
    flights: Flights,
    turns: Turns,
}

/// What the operator decided, as far as it isn't the client's.
#[derive(Debug)]
struct Settings {
    retry_delay: Duration,
    forward_identity: bool,
    on_failure: OnFailure,
    default_duration: TimeDelta,
    time_zone: Tz,
    probe_interval: Duration,
    outbox_retention: TimeDelta,
    outbox_max: u32,
    retention: TimeDelta,
}

/// What an id in a path means.
enum Named {
    Own(AllocationId),
    Theirs(UpstreamId, Option<UpstreamRow>),
    Nothing,
}

impl Upstream {
    /// The upstream that `settings` describe, over `store`.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`] if it can't be asked: a wrong URL, header or file of certificates.
    pub fn new(store: Store, settings: &config::Reservations) -> Result<Self, UpstreamError> {
        let upstream = settings.upstream.as_ref().ok_or(UpstreamError::NoUrl)?;
        Ok(Self {
            inner: Arc::new(Inner {
                client: Client::new(upstream)?,
                store,
                settings: Settings {
                    retry_delay: upstream.retry_delay,
                    forward_identity: upstream.forward_identity,
                    on_failure: upstream.on_failure,
                    default_duration: whole_seconds(settings.default_duration),
                    time_zone: settings.time_zone,
                    probe_interval: upstream.probe_interval,
                    outbox_retention: TimeDelta::from_std(upstream.outbox_retention)
                        .unwrap_or(TimeDelta::MAX),
                    outbox_max: upstream.outbox_max,
                    retention: whole_seconds(settings.decision_retention),
                },
                breaker: Mutex::new(Breaker::new(upstream.failures_max)),
                opened: Notify::new(),
                outbox_changed: Notify::new(),
                flights: Flights::default(),
                turns: Turns::default(),
            }),
        })
    }

    /// Asks for a conference and records the answer. Those who ask for a room at the same time share one
    /// call; a refusal alone is for the one who asked, and others have theirs made then.
    pub async fn allocate(&self, request: &Request) -> Verdict {
        let room = &request.conference;
        let verdict = match self.board(room, None, request) {
            Boarded::Leading(flight) => return flight.await,
            Boarded::Same(flight) => return shared(flight.await),
            Boarded::Other(flight) => shared(flight.await),
            Boarded::Full => return Verdict::Failed(Failure::Busy),
        };
        if !matches!(verdict, Verdict::Refused(_) | Verdict::Queued) {
            return verdict;
        }
        match self.board(room, Some(&request.requester), request) {
            Boarded::Leading(flight) => flight.await,
            Boarded::Same(flight) | Boarded::Other(flight) => shared(flight.await),
            Boarded::Full => Verdict::Failed(Failure::Busy),
        }
    }

    fn board(&self, room: &Conference, of: Option<&Requester>, request: &Request) -> Boarded {
        let (upstream, request) = (self.clone(), request.clone());
        let asker = request.requester.clone();
        self.inner
            .flights
            .board((room.clone(), of.cloned()), asker, async move {
                let asked = upstream.ask(&request).await;
                upstream.conclude(&request, asked).await
            })
    }

    /// One request upstream, in the room's turn.
    async fn ask(&self, request: &Request) -> Result<Verdict, Failure> {
        if !self.breaker().admits() {
            return Err(Failure::Resting);
        }
        let deadline = self.inner.client.deadline();
        let turn = self.inner.turns.of(&request.conference);
        let asked = timeout_at(deadline, async {
            let _turn = turn.lock().await;
            self.deliver_before(&request.conference).await;
            let asked = self.post(request, deadline).await;
            if let Ok(Verdict::Opened(granted) | Verdict::Running(granted)) = &asked {
                self.remember(request, granted).await?;
            }
            asked
        });
        let asked = asked.await.unwrap_or(Err(Failure::TooSlow));
        self.heard(asked.as_ref().err());
        asked
    }

    async fn post(&self, request: &Request, deadline: Instant) -> Result<Verdict, Failure> {
        let Request {
            name, requester, ..
        } = request;
        let mut fields = vec![
            ("name", name.as_str()),
            ("start_time", &request.start_time),
            ("mail_owner", &requester.mail_owner),
        ];
        if self.inner.settings.forward_identity {
            fields.extend(requester.identity());
        }
        let known = Known {
            name: Some(name),
            mail_owner: &requester.mail_owner,
            id: None,
        };
        let call = self.inner.client.post(&fields);
        let reply = self.call(&call, deadline).await?;
        match reply.status {
            200 | 201 => {
                let granted = conference(&reply.body, known).map_err(Failure::Unusable)?;
                Ok(Verdict::Opened(granted))
            }
            202 if is_queued(&reply.body) => Ok(Verdict::Queued),
            409 => {
                let id = conflict(&reply.body).map_err(Failure::Unusable)?;
                self.running(&id, known, deadline).await
            }
            status @ 400..500 => {
                let message = message(status, &reply.body, &request.conference.display_name());
                Ok(Verdict::Refused(Refused { status, message }))
            }
            status => Err(Failure::Unusable(Flaw::Status(status))),
        }
    }

    /// The conference that is in the way: what Prosody would ask for after a 409.
    async fn running(
        &self,
        id: &UpstreamId,
        known: Known<'_>,
        deadline: Instant,
    ) -> Result<Verdict, Failure> {
        let call = self.inner.client.get(id.as_str());
        let reply = self.call(&call, deadline).await?;
        let known = Known {
            id: Some(id),
            ..known
        };
        match reply.status {
            200 => {
                let granted = conference(&reply.body, known).map_err(Failure::Unusable)?;
                Ok(Verdict::Running(granted))
            }
            404 | 410 => Err(Failure::Unusable(Flaw::Vanished(id.to_string()))),
            status => Err(Failure::Unusable(Flaw::Status(status))),
        }
    }

    /// A call under the configuration's rules; a status from 500 up is a failure.
    async fn call(&self, call: &client::Call, deadline: Instant) -> Result<Reply, Failure> {
        match self.inner.client.call(call, deadline).await {
            Ok(reply) if reply.status >= 500 => Err(Failure::Failing(reply.status)),
            Ok(reply) => Ok(reply),
            Err(trouble) => {
                tracing::warn!(%trouble, "the reservation system gives no answer");
                Err(trouble.into())
            }
        }
    }

    /// Looks a conference up, by its id as Prosody writes it into a path.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn find(&self, id: &str, now: DateTime<Utc>) -> Result<Lookup, StoreError> {
        let (id, row) = match self.named(id).await? {
            Named::Nothing => return Ok(Lookup::Unknown),
            Named::Own(id) => return self.find_own(id, now).await,
            Named::Theirs(id, row) => (id, row),
        };
        if let Some(ended_at) = row.as_ref().and_then(|row| row.ended_at) {
            return Ok(Lookup::Over(ended_at));
        }
        if !self.breaker().admits() {
            return Ok(Lookup::Failed(Failure::Resting));
        }
        let known = Known {
            name: row.as_ref().map(|row| row.name.as_str()),
            mail_owner: row.as_ref().map_or("", |row| &row.mail_owner),
            id: Some(&id),
        };
        let deadline = self.inner.client.deadline();
        let call = self.inner.client.get(id.as_str());
        let reply = self.call(&call, deadline).await;
        self.heard(reply.as_ref().err());
        Ok(match reply {
            Err(failure) => Lookup::Failed(failure),
            Ok(reply) => match reply.status {
                200 => match conference(&reply.body, known) {
                    Ok(granted) => Lookup::Running(granted),
                    Err(flaw) => Lookup::Failed(Failure::Unusable(flaw)),
                },
                404 | 410 => Lookup::Unknown,
                status @ 400..500 => {
                    let room = row.map_or_else(String::new, |row| row.conference.display_name());
                    let message = message(status, &reply.body, &room);
                    Lookup::Refused(Refused { status, message })
                }
                status => Lookup::Failed(Failure::Unusable(Flaw::Status(status))),
            },
        })
    }

    async fn find_own(&self, id: AllocationId, now: DateTime<Utc>) -> Result<Lookup, StoreError> {
        Ok(match self.inner.store.allocation(id).await? {
            None => Lookup::Unknown,
            Some(allocation) if allocation.is_over(now) => {
                Lookup::Over(allocation.ended_at.unwrap_or(allocation.end))
            }
            Some(allocation) => Lookup::Unasked(allocation),
        })
    }

    /// Accepts that a conference is over because its room is gone; the upstream is told until it has heard.
    /// Tells whether the id can be one at all.
    ///
    /// # Errors
    ///
    /// When the database can't take it, or the outbox is full.
    pub async fn end(&self, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let (id, row) = match self.named(id).await? {
            Named::Nothing => return Ok(false),
            Named::Own(id) => {
                let mut tx = self.inner.store.begin().await?;
                tx.end_allocation(id, EndReason::Destroyed, now).await?;
                tx.commit().await?;
                return Ok(self.inner.store.allocation(id).await?.is_some());
            }
            Named::Theirs(id, row) => (id, row),
        };
        if row.is_some_and(|row| row.ended_at.is_some()) {
            return Ok(true);
        }
        let mut tx = self.inner.store.begin().await?;
        let row = tx.upstream_conference(id.as_str()).await?;
        let room = row.as_ref().map(|row| &row.conference);
        let max = self.inner.settings.outbox_max;
        tx.accept_deletion(id.as_str(), room, max, now).await?;
        if let Some(room) = room {
            tx.end_live(&[room]).await?;
        }
        tx.commit().await?;
        tracing::info!(id = id.as_str(), "ended: the room is gone");
        self.inner.outbox_changed.notify_one();
        Ok(true)
    }

    /// Whether visitors of this conference are to wait, as the upstream said when it was opened.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn has_queue(
        &self,
        conference: &Conference,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let running = self.inner.store.upstream_running(conference, now).await?;
        Ok(running.is_some_and(|row| row.waiting_queue))
    }

    async fn named(&self, path: &str) -> Result<Named, StoreError> {
        // An id that was given out exactly so comes first: the text 007 is not the number 7.
        if let Some(id) = UpstreamId::of_text(path)
            && let Some(row) = self.inner.store.upstream_conference(path).await?
        {
            let id = UpstreamId::of_path(path)
                .filter(|number| number.as_str() == path)
                .unwrap_or(id);
            return Ok(Named::Theirs(id, Some(row)));
        }
        if let Some(own) = path
            .strip_prefix(OWN_PREFIX)
            .and_then(AllocationId::parse_path)
        {
            return Ok(Named::Own(own));
        }
        let Some(id) = UpstreamId::of_path(path) else {
            return Ok(Named::Nothing);
        };
        let row = self.inner.store.upstream_conference(id.as_str()).await?;
        Ok(Named::Theirs(id, row))
    }

    /// The id on the wire of a conference that usher let run by itself.
    #[must_use]
    pub fn own_id(id: AllocationId) -> String {
        format!("{OWN_PREFIX}{id}")
    }

    /// Delivers deletions, and looks whether an upstream that failed is back, until `stop`.
    pub(super) async fn keep_house(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_outbox() => {}
            () = self.keep_watch() => {}
        }
    }
}

/// To those who share an answer the conference runs already.
fn shared(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Opened(granted) => Verdict::Running(granted),
        other => other,
    }
}
