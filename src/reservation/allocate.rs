//! Requests are decided: all that came while the store was busy with the last ones, in one transaction.
//!
//! What a decision reads still holds when its outcome is written, as in a transaction of its own, and no answer
//! leaves before all is on disk. It costs a few statements and one commit for as many requests as there are.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Outcome, Request, Reservations};
use crate::batch::BatchItem;
use crate::domain::allocation::Allocation;
use crate::domain::policy::{self, Decision};
use crate::domain::timestamp;
use crate::store::{Entry, Opening, StoreError};

/// A request that is not decided yet.
#[derive(Debug)]
pub(super) struct Undecided {
    request: Request,
    came: DateTime<Utc>,
}

/// What is to be answered, and what is to be written down of it.
type Decided<'a> = (Outcome, Entry<'a>);

/// The outcome for each of those who asked together.
fn of_each(
    asked: &[BatchItem<Undecided, Outcome, StoreError>],
    together: Result<Vec<Outcome>, StoreError>,
) -> Vec<Result<Outcome, Arc<StoreError>>> {
    match together.map_err(Arc::new) {
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error); asked.len()],
    }
}

impl Reservations {
    /// Decides on a request, allocates if it is allowed, and records the decision.
    ///
    /// # Errors
    ///
    /// When the database can't take it; nothing was decided then.
    pub async fn allocate(
        &self,
        request: Request,
        now: DateTime<Utc>,
    ) -> Result<Outcome, Arc<StoreError>> {
        let reservations = self.clone();
        let work = async move { reservations.decide_all().await };
        let undecided = Undecided { request, came: now };
        self.inner.undecided.ask(undecided, work).await
    }

    /// Decides on all requests that have come by its turn.
    async fn decide_all(&self) {
        let _turn = self.inner.deciding.lock().await;
        let asked = self.inner.undecided.take();
        let outcomes = match self.decide(&asked).await {
            // What is wrong with one room is not to be the others' trouble.
            Err(StoreError::Corrupt(_) | StoreError::Other(_)) if asked.len() > 1 => {
                let mut outcomes = Vec::with_capacity(asked.len());
                for one in asked.chunks(1) {
                    outcomes.extend(of_each(one, self.decide(one).await));
                }
                outcomes
            }
            together => of_each(&asked, together),
        };
        for (one, outcome) in asked.into_iter().zip(outcomes) {
            one.answer(outcome);
        }
    }

    async fn decide(
        &self,
        asked: &[BatchItem<Undecided, Outcome, StoreError>],
    ) -> Result<Vec<Outcome>, StoreError> {
        // They came within the same moment: that of the last one is everybody's.
        let Some(now) = asked.iter().map(|one| one.what.came).max() else {
            return Ok(Vec::new());
        };
        let requests: Vec<_> = asked.iter().map(|one| &one.what.request).collect();
        let rooms: HashSet<_> = requests.iter().map(|it| &it.conference).collect();
        let rooms: Vec<_> = rooms.into_iter().collect();
        let mut tx = self.inner.store.begin().await?;
        let bookings = tx.next_bookings(&rooms, now).await?;
        let mut running = tx.unended_of(&rooms).await?;
        if running.values().any(|running| running.is_over(now)) {
            tx.end_expired(now).await?;
            running.retain(|_, running| !running.is_over(now));
        }
        let decisions: Vec<_> = requests
            .iter()
            .map(|request| {
                let Request {
                    conference,
                    requester,
                    ..
                } = request;
                let booking = bookings.get(conference);
                let running = running.get(conference);
                let settings = &self.inner.settings;
                policy::decide(conference, requester, booking, running, settings, now)
            })
            .collect();

        // Of several who may open a room, the first one does.
        let mut opened = HashSet::new();
        let openings: Vec<_> = requests
            .iter()
            .zip(&decisions)
            .filter_map(|(request, decision)| match decision {
                Decision::Allow(allowance) if opened.insert(&request.conference) => Some(Opening {
                    conference: &request.conference,
                    name: &request.name,
                    mail_owner: &request.requester.mail_owner,
                    allowance: allowance.clone(),
                }),
                _ => None,
            })
            .collect();
        running.extend(tx.insert_allocations(&openings, now).await?);

        let decided = requests.iter().zip(decisions).map(|(request, decision)| {
            let running = running.get(&request.conference);
            let allowed = matches!(decision, Decision::Allow(_));
            let opens = allowed && opened.remove(&request.conference);
            self.conclude(request, decision, running, opens, now)
        });
        let decided = decided.collect::<Result<Vec<Decided<'_>>, _>>()?;
        let (outcomes, entries): (Vec<_>, Vec<_>) = decided.into_iter().unzip();
        tx.record(&entries, now).await?;
        tx.commit().await?;
        for entry in entries {
            let (outcome, reason) = (entry.outcome, entry.reason);
            tracing::info!(
                conference = entry.conference.node(),
                outcome,
                reason,
                "decided"
            );
            crate::metrics::decision_made(outcome, reason);
        }
        if !openings.is_empty() {
            self.inner.ends_changed.notify_one();
        }
        Ok(outcomes)
    }

    /// What is answered, and written down. `opens`: the allocation that runs was made for this request.
    fn conclude<'a>(
        &self,
        request: &'a Request,
        decision: Decision,
        running: Option<&Allocation>,
        opens: bool,
        now: DateTime<Utc>,
    ) -> Result<Decided<'a>, StoreError> {
        let room = request.conference.display_name();
        let entry = Entry::new(&request.conference, &request.requester);
        Ok(match decision {
            Decision::Allow(_) | Decision::Conflict(_) => {
                let running = running.ok_or_else(StoreError::lost)?;
                let entry = entry.about(running);
                if opens {
                    let zone = self.inner.settings.time_zone;
                    let until = timestamp::format_local(running.end, zone, now);
                    let (reason, why) = match running.booking {
                        Some(booking) => ("booked", format!(" under booking {booking}")),
                        None => ("unbooked", String::new()),
                    };
                    let sentence = format!("\"{room}\" was opened{why} and runs until {until}.");
                    let entry = entry.says("allowed", reason, sentence);
                    (Outcome::Allocated(running.clone()), entry)
                } else {
                    let id = running.id;
                    let sentence = format!("\"{room}\" is running already, as conference {id}.");
                    let entry = entry.says("conflict", "running", sentence);
                    (Outcome::Conflict(id), entry)
                }
            }
            Decision::Queue(booking) => {
                let sentence = format!("\"{room}\" has a waiting queue: the visitor waits there.");
                let entry = entry.says("queued", "waiting_queue", sentence);
                (Outcome::Queued, entry.booked(Some(booking)))
            }
            Decision::Refuse(refusal) => {
                let (reason, sentence) = (refusal.reason.code(), refusal.sentence.clone());
                let entry = entry.says("refused", reason, sentence);
                let entry = entry.booked(refusal.booking);
                (Outcome::Refused(refusal), entry)
            }
        })
    }
}
