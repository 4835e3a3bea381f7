//! Writes down what an upstream answered: the decision, and what runs.

use chrono::{DateTime, SubsecRound, Utc};

use super::response::UpstreamConference;
use super::{Failure, Refused, Upstream, Verdict};
use crate::clock;
use crate::config::OnFailure;
use crate::domain::allocation::Allocation;
use crate::domain::booking::Options;
use crate::domain::policy::Terms;
use crate::domain::timestamp;
use crate::metrics;
use crate::reservation::Request;
use crate::store::{DecisionLogEntry, NewAllocation, StoreError, Tx, UpstreamRow};

impl Upstream {
    /// Remembers what runs, and that it is not to be deleted.
    pub(super) async fn remember(
        &self,
        request: &Request,
        granted: &UpstreamConference,
    ) -> Result<(), Failure> {
        let row = UpstreamRow {
            id: granted.id.to_string(),
            conference: request.conference.clone(),
            name: granted.name.clone(),
            mail_owner: granted.mail_owner.clone(),
            waiting_queue: granted.options.waiting_queue,
            end: granted.end,
            ended_at: None,
        };
        let written = async {
            let mut tx = self.inner.store.begin().await?;
            let overtaken = tx.upstream_runs(&row).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(overtaken)
        };
        match written.await {
            Ok(false) => Ok(()),
            Ok(true) => {
                tracing::info!(
                    id = row.id,
                    "it runs again before its deletion was heard; not deleted"
                );
                Ok(())
            }
            Err(error) => Err(not_written(&error)),
        }
    }

    /// Turns what was heard into what is answered, and writes it down.
    pub(super) async fn conclude(
        &self,
        request: &Request,
        asked: Result<Verdict, Failure>,
    ) -> Verdict {
        let now = clock::now();
        let verdict = match asked {
            Ok(Verdict::Opened(granted) | Verdict::Running(granted)) if granted.end <= now => {
                let ended =
                    timestamp::format_local(granted.end, self.inner.settings.time_zone, now);
                let room = request.conference.display_name();
                Verdict::Refused(Refused {
                    status: 403,
                    message: format!(
                        "The reservation of \"{room}\" ended at {ended}. Reserve the room anew, then open it again."
                    ),
                })
            }
            Ok(verdict) => verdict,
            Err(failure) => Verdict::Failed(failure),
        };
        self.record(request, verdict, now)
            .await
            .unwrap_or_else(|error| Verdict::Failed(not_written(&error)))
    }

    async fn record(
        &self,
        request: &Request,
        verdict: Verdict,
        now: DateTime<Utc>,
    ) -> Result<Verdict, StoreError> {
        let settings = &self.inner.settings;
        let room = request.conference.display_name();
        let until = |end| timestamp::format_local(end, settings.time_zone, now);
        let mut tx = self.inner.store.begin().await?;
        let unasked = match &verdict {
            Verdict::Failed(failure)
                if settings.on_failure == OnFailure::Allow && failure.is_absence() =>
            {
                Some(self.run_unasked(&mut tx, request, now).await?)
            }
            _ => None,
        };
        let entry = DecisionLogEntry::new(&request.conference, &request.requester);
        let entry = match (&verdict, &unasked) {
            (_, Some(allocation)) => {
                let end = until(allocation.end);
                let sentence = format!(
                    "\"{room}\" runs until {end} because the reservation system gives no answer."
                );
                entry
                    .with_outcome("allowed", "on_failure", sentence)
                    .with_allocation(allocation)
            }
            (Verdict::Opened(granted), _) => {
                let (id, end) = (&granted.id, until(granted.end));
                let sentence = format!(
                    "\"{room}\" was opened by the reservation system, as conference {id}, and runs until {end}."
                );
                entry.with_outcome("allowed", "upstream", sentence)
            }
            (Verdict::Running(granted), _) => {
                let (id, end) = (&granted.id, until(granted.end));
                let sentence =
                    format!("\"{room}\" is running already, as conference {id}, until {end}.");
                entry.with_outcome("allowed", "running", sentence)
            }
            (Verdict::Refused(refused), _) => {
                entry.with_outcome("refused", "upstream", refused.message.clone())
            }
            (Verdict::Failed(failure), _) => {
                entry.with_outcome("failed", failure.code(), failure.to_string())
            }
            (Verdict::Queued | Verdict::Unasked(_), _) => {
                let sentence = format!("\"{room}\" has a waiting queue: the visitor waits there.");
                entry.with_outcome("queued", "waiting_queue", sentence)
            }
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
        Ok(unasked.map_or(verdict, Verdict::Unasked))
    }

    /// Lets a conference run that the upstream could not be asked about; the one that does so already, if any.
    async fn run_unasked(
        &self,
        tx: &mut Tx,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Result<Allocation, StoreError> {
        let Request {
            conference,
            name,
            requester,
            ..
        } = request;
        tx.end_expired(now).await?;
        if let Some(running) = tx.unended(conference).await? {
            return Ok(running);
        }
        let start = now.trunc_subsecs(0);
        let terms = Terms {
            start,
            end: start + self.inner.settings.default_duration,
            options: Options::default(),
            booking: None,
        };
        let opening = NewAllocation {
            conference,
            name,
            mail_owner: &requester.mail_owner,
            terms,
        };
        tx.insert_allocation(opening, now).await
    }
}

fn not_written(error: &StoreError) -> Failure {
    tracing::error!(%error, "an answer of the reservation system was not written down");
    Failure::NotWritten
}
