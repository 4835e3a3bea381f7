//! Decides on requests: all that arrived while the transaction before ran, in one transaction.
//!
//! A few statements and one commit serve any number of requests. Reads and writes of a decision are in one
//! transaction, so the data can't change in between, and no answer leaves before everything is on disk.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{AllocateResult, Backend, Request, ReservationError, Reservations};
use crate::batch::BatchItem;
use crate::domain::allocation::Allocation;
use crate::domain::conference::Conference;
use crate::domain::policy::{self, Decision};
use crate::domain::timestamp;
use crate::store::{DecisionLogEntry, NewAllocation, StoreError, Tx};

/// A request that is not decided yet.
#[derive(Debug)]
pub(super) struct PendingRequest {
    request: Request,
    received_at: DateTime<Utc>,
}

type Pending = BatchItem<PendingRequest, AllocateResult, StoreError>;

/// A request with its decision.
struct Row<'a> {
    request: &'a Request,
    decision: Decision,
    /// An allocation is made for this request: of several that may open a room, the first one.
    opens: bool,
}

/// The answer to a request, and its entry in the decision log.
type DecisionRecord<'a> = (AllocateResult, DecisionLogEntry<'a>);

/// Gives each request of a batch its own result.
fn fan_result(
    batch: &[Pending],
    result: Result<Vec<AllocateResult>, StoreError>,
) -> Vec<Result<AllocateResult, Arc<StoreError>>> {
    match result.map_err(Arc::new) {
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error); batch.len()],
    }
}

impl Reservations {
    /// Decides on a request, allocates if it is allowed, and records the decision.
    ///
    /// # Errors
    ///
    /// When the database can't be written; nothing was decided then. Or when the upstream refuses the request or does
    /// not answer as it should.
    pub async fn allocate(
        &self,
        request: Request,
        now: DateTime<Utc>,
    ) -> Result<AllocateResult, ReservationError> {
        // Before the backends, and without an entry in the decision log: jicofo checks every few seconds.
        if request.conference.is_health_check() {
            return Ok(AllocateResult::Refused(policy::refuse_health_check()));
        }
        if let Backend::Gateway(gateway) = &self.backend {
            return Ok(gateway.allocate(&request).await?);
        }
        let reservations = self.clone();
        let work = async move { reservations.decide_pending().await };
        let pending = PendingRequest {
            request,
            received_at: now,
        };
        Ok(self.inner.pending.submit(pending, work).await?)
    }

    /// Decides on all requests that are pending when the transaction begins.
    async fn decide_pending(&self) {
        let begun = self.inner.store.begin().await;
        let batch = self.inner.pending.take();
        let result = match begun {
            Ok(tx) => self.decide(tx, &batch).await,
            Err(error) => Err(error),
        };
        let outcomes = match result {
            // One room's unreadable row must not fail the other requests.
            Err(StoreError::Corrupt(_) | StoreError::Other(_)) if batch.len() > 1 => {
                self.decide_each(&batch).await
            }
            result => fan_result(&batch, result),
        };
        for (item, outcome) in batch.into_iter().zip(outcomes) {
            item.answer(outcome);
        }
    }

    /// Decides on the requests of a batch in a transaction each.
    async fn decide_each(&self, batch: &[Pending]) -> Vec<Result<AllocateResult, Arc<StoreError>>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for one in batch.chunks(1) {
            let result = match self.inner.store.begin().await {
                Ok(tx) => self.decide(tx, one).await,
                Err(error) => Err(error),
            };
            outcomes.extend(fan_result(one, result));
        }
        outcomes
    }

    /// Decides on a batch in one transaction.
    async fn decide(
        &self,
        mut tx: Tx,
        batch: &[Pending],
    ) -> Result<Vec<AllocateResult>, StoreError> {
        // The requests arrived at nearly the same time: the instant of the last one holds for all.
        let Some(now) = batch.iter().map(|item| item.request.received_at).max() else {
            return Ok(Vec::new());
        };
        let mut running = unended(&mut tx, batch, now).await?;
        let rows = self.decisions_on(&mut tx, batch, &running, now).await?;
        let new: Vec<_> = rows.iter().filter_map(Row::new_allocation).collect();
        running.extend(tx.insert_allocations(&new, now).await?);
        let records = rows.iter().map(|row| self.finish(row, &running, now));
        let records = records.collect::<Result<Vec<DecisionRecord<'_>>, _>>()?;
        let (outcomes, entries): (Vec<_>, Vec<_>) = records.into_iter().unzip();
        tx.record(&entries, now).await?;
        tx.commit().await?;
        for entry in entries {
            let (outcome, reason) = (entry.outcome, entry.reason);
            let conference = entry.conference.node();
            tracing::info!(conference, outcome, reason, "decided");
            crate::metrics::decision_made(outcome, reason);
        }
        if !new.is_empty() {
            self.inner.ends_changed.notify_one();
        }
        Ok(outcomes)
    }

    /// The decision on each request, from the next bookings and the running allocations of their rooms.
    async fn decisions_on<'a>(
        &self,
        tx: &mut Tx,
        batch: &'a [Pending],
        running: &HashMap<Conference, Allocation>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Row<'a>>, StoreError> {
        let bookings = tx.next_bookings(&rooms(batch), now).await?;
        let mut opened = HashSet::new();
        let rows = batch.iter().map(|item| {
            let request = &item.request.request;
            let room = &request.conference;
            let decision = policy::decide(
                room,
                &request.requester,
                bookings.get(room),
                running.get(room),
                &self.inner.rules,
                now,
            );
            let opens = matches!(decision, Decision::Allow(_)) && opened.insert(room);
            Row {
                request,
                decision,
                opens,
            }
        });
        Ok(rows.collect())
    }

    /// The answer to a request, and its entry in the decision log. `running` has the new allocations.
    fn finish<'a>(
        &self,
        row: &Row<'a>,
        running: &HashMap<Conference, Allocation>,
        now: DateTime<Utc>,
    ) -> Result<DecisionRecord<'a>, StoreError> {
        let request = row.request;
        let room = request.conference.display_name();
        let entry = DecisionLogEntry::new(&request.conference, &request.requester);
        Ok(match &row.decision {
            Decision::Allow(_) | Decision::Conflict(_) => {
                let running = running
                    .get(&request.conference)
                    .ok_or_else(StoreError::missing_row)?;
                let entry = entry.with_allocation(running);
                if row.opens {
                    let (reason, sentence) = self.opened(running, now);
                    let entry = entry.with_outcome("allowed", reason, sentence);
                    (AllocateResult::Created(running.clone().into()), entry)
                } else {
                    let id = running.id;
                    let sentence = format!("\"{room}\" is running already, as conference {id}.");
                    let entry = entry.with_outcome("conflict", "running", sentence);
                    (AllocateResult::Conflict(id), entry)
                }
            }
            Decision::Queue(booking) => {
                let sentence = format!("\"{room}\" has a waiting queue: the visitor waits there.");
                let entry = entry.with_outcome("queued", "waiting_queue", sentence);
                (AllocateResult::Queued, entry.with_booking(Some(*booking)))
            }
            Decision::Refuse(refusal) => {
                let (reason, sentence) = (refusal.reason.code(), refusal.sentence.clone());
                let entry = entry.with_outcome("refused", reason, sentence);
                let entry = entry.with_booking(refusal.booking);
                (AllocateResult::Refused(refusal.clone()), entry)
            }
        })
    }

    /// Why a new allocation was allowed: the code and the sentence.
    fn opened(&self, allocation: &Allocation, now: DateTime<Utc>) -> (&'static str, String) {
        let room = allocation.conference.display_name();
        let until = timestamp::format_local(allocation.end, self.inner.rules.time_zone, now);
        let (reason, under) = match allocation.booking {
            Some(booking) => ("booked", format!(" under booking {booking}")),
            None => ("unbooked", String::new()),
        };
        let sentence = format!("\"{room}\" was opened{under} and runs until {until}.");
        (reason, sentence)
    }
}

impl<'a> Row<'a> {
    /// The allocation to insert for this request, if there is one.
    fn new_allocation(&self) -> Option<NewAllocation<'a>> {
        match &self.decision {
            Decision::Allow(terms) if self.opens => Some(NewAllocation {
                conference: &self.request.conference,
                name: &self.request.name,
                mail_owner: &self.request.requester.mail_owner,
                terms: terms.clone(),
            }),
            _ => None,
        }
    }
}

/// The rooms of a batch, each once.
fn rooms(batch: &[Pending]) -> Vec<&Conference> {
    let rooms = batch.iter().map(|item| &item.request.request.conference);
    rooms.collect::<HashSet<_>>().into_iter().collect()
}

/// The running allocations of a batch's rooms. Those past their end are ended first.
async fn unended(
    tx: &mut Tx,
    batch: &[Pending],
    now: DateTime<Utc>,
) -> Result<HashMap<Conference, Allocation>, StoreError> {
    let mut running = tx.unended_of(&rooms(batch)).await?;
    if running.values().any(|running| running.is_over(now)) {
        tx.end_expired(now).await?;
        running.retain(|_, running| !running.is_over(now));
    }
    Ok(running)
}
