//! Records the results of the upstream: the decision, and the conference that is running.

use chrono::{DateTime, SubsecRound, Utc};

use super::{Gateway, GatewayError, Result, fallback};
use crate::clock;
use crate::config::OnFailure;
use crate::domain::allocation::Allocation;
use crate::domain::booking::Options;
use crate::domain::policy::Terms;
use crate::domain::reservation::Reservation;
use crate::domain::timestamp;
use crate::metrics;
use crate::reservation::{AllocateResult, Request, whole_seconds};
use crate::store::{DecisionLogEntry, NewAllocation, StoreError, Tx, UpstreamRow};

impl Gateway {
    /// Stores a running conference, and discards a deletion of it in the outbox.
    pub(super) async fn store_conference(
        &self,
        request: &Request,
        reservation: &Reservation,
    ) -> Result<()> {
        let row = UpstreamRow {
            id: reservation.id.to_string(),
            conference: request.conference.clone(),
            name: reservation.name.clone(),
            mail_owner: reservation.mail_owner.clone(),
            waiting_queue: reservation.options.waiting_queue,
            end: reservation.end,
            ended_at: None,
        };
        let stored = async {
            let mut tx = self.inner.store.begin().await?;
            let deletion_discarded = tx.upstream_runs(&row, clock::now()).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(deletion_discarded)
        };
        if stored.await.map_err(|error| store_failed(&error))? {
            tracing::info!(
                id = row.id,
                "deletion discarded: the conference is running again"
            );
        }
        Ok(())
    }

    /// Records the result of a request. Returns the one to answer with: a fallback where `on_failure` permits one,
    /// and a failure if the result can't be stored.
    pub(super) async fn record(
        &self,
        request: &Request,
        result: Result<AllocateResult>,
    ) -> Result<AllocateResult> {
        let now = clock::now();
        let result = self.refuse_ended(request, result, now);
        match self.record_decision(request, &result, now).await {
            Ok(Some(allocation)) => Ok(AllocateResult::Created(fallback(allocation))),
            Ok(None) => result,
            Err(error) => Err(store_failed(&error)),
        }
    }

    fn refuse_ended(
        &self,
        request: &Request,
        result: Result<AllocateResult>,
        now: DateTime<Utc>,
    ) -> Result<AllocateResult> {
        match result {
            Ok(AllocateResult::Created(reservation) | AllocateResult::Running(reservation))
                if reservation.end <= now =>
            {
                let room = request.conference.display_name();
                let zone = self.inner.config.time_zone;
                let ended = timestamp::format_local(reservation.end, zone, now);
                Err(GatewayError::Refused {
                    status: 403,
                    message: format!(
                        "The reservation of \"{room}\" ended at {ended}. Make a new reservation and try again."
                    ),
                })
            }
            result => result,
        }
    }

    /// Writes the decision log. Returns the fallback, if there is one.
    async fn record_decision(
        &self,
        request: &Request,
        result: &Result<AllocateResult>,
        now: DateTime<Utc>,
    ) -> Result<Option<Allocation>, StoreError> {
        let mut tx = self.inner.store.begin().await?;
        let fallback = match result {
            Err(error)
                if self.inner.upstream.on_failure == OnFailure::Allow && error.is_unavailable() =>
            {
                Some(self.allocate_fallback(&mut tx, request, now).await?)
            }
            _ => None,
        };
        let entry = match &fallback {
            Some(allocation) => self.fallback_entry(request, allocation, now),
            None => self.entry(request, result, now),
        };
        tracing::info!(
            conference = request.conference.node(),
            outcome = entry.outcome,
            reason = entry.reason,
            "decided"
        );
        metrics::decision_made(entry.outcome, entry.reason);
        tx.record(&[entry], now).await?;
        tx.commit().await?;
        Ok(fallback)
    }

    fn fallback_entry<'a>(
        &self,
        request: &'a Request,
        allocation: &Allocation,
        now: DateTime<Utc>,
    ) -> DecisionLogEntry<'a> {
        let room = request.conference.display_name();
        let end = timestamp::format_local(allocation.end, self.inner.config.time_zone, now);
        let sentence =
            format!("\"{room}\" runs until {end} because the reservation system is unavailable.");
        DecisionLogEntry::new(&request.conference, &request.requester)
            .with_outcome("allowed", "on_failure", sentence)
            .with_allocation(allocation)
    }

    fn entry<'a>(
        &self,
        request: &'a Request,
        result: &Result<AllocateResult>,
        now: DateTime<Utc>,
    ) -> DecisionLogEntry<'a> {
        let room = request.conference.display_name();
        let until = |end| timestamp::format_local(end, self.inner.config.time_zone, now);
        let (outcome, reason, sentence) = match result {
            Ok(AllocateResult::Created(Reservation { id, end, .. })) => {
                let end = until(*end);
                let sentence = format!(
                    "\"{room}\" was opened by the reservation system, as conference {id}, and runs until {end}."
                );
                ("allowed", "upstream", sentence)
            }
            Ok(AllocateResult::Running(Reservation { id, end, .. })) => {
                let end = until(*end);
                let sentence =
                    format!("\"{room}\" is running already, as conference {id}, until {end}.");
                ("allowed", "running", sentence)
            }
            Ok(_) => {
                let sentence = format!("\"{room}\" has a waiting queue: the visitor waits there.");
                ("queued", "waiting_queue", sentence)
            }
            Err(error @ GatewayError::Refused { .. }) => {
                ("refused", error.code(), error.to_string())
            }
            Err(error) => ("failed", error.code(), error.to_string()),
        };
        DecisionLogEntry::new(&request.conference, &request.requester)
            .with_outcome(outcome, reason, sentence)
    }

    /// Allocates a conference without the upstream, or returns the fallback that is running already.
    async fn allocate_fallback(
        &self,
        tx: &mut Tx,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Result<Allocation, StoreError> {
        tx.end_expired(now).await?;
        if let Some(running) = tx.unended(&request.conference).await? {
            return Ok(running);
        }
        let start = now.trunc_subsecs(0);
        let new = NewAllocation {
            conference: &request.conference,
            name: &request.name,
            mail_owner: &request.requester.mail_owner,
            terms: Terms {
                start,
                end: start + whole_seconds(self.inner.config.default_duration),
                options: Options::default(),
                booking: None,
            },
        };
        tx.insert_allocation(new, now).await
    }
}

fn store_failed(error: &StoreError) -> GatewayError {
    tracing::error!(%error, "a response of the reservation system can't be stored");
    GatewayError::StoreFailed
}
