//! The decision log in the database: each request, when it came, and why it was allowed or refused.

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};

use super::{
    PURGE_ROWS, ROWS, Result, Store, Tx, allocation_id, conference, instant, is_full, tenant_of,
};
use crate::domain::allocation::{Allocation, AllocationId};
use crate::domain::booking::BookingId;
use crate::domain::conference::Conference;
use crate::domain::requester::Requester;

/// A recorded decision.
#[derive(Clone, Debug)]
pub struct DecisionRow {
    /// Increases with each decision.
    pub id: i64,
    /// The time of the decision.
    pub at: DateTime<Utc>,
    /// The room.
    pub conference: Conference,
    /// The user: only the fields that identify it are recorded.
    pub requester: Requester,
    /// `allowed`, `conflict`, `queued` or `refused`.
    pub outcome: String,
    /// The reason's code.
    pub reason: String,
    /// The reason as a sentence.
    pub sentence: String,
    /// The new or the running allocation.
    pub allocation: Option<AllocationId>,
    /// The booking behind the decision.
    pub booking: Option<BookingId>,
}

/// A decision to record.
#[derive(Clone, Debug)]
pub(crate) struct DecisionLogEntry<'a> {
    pub(crate) conference: &'a Conference,
    pub(crate) requester: &'a Requester,
    pub(crate) outcome: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) sentence: String,
    pub(crate) allocation: Option<AllocationId>,
    pub(crate) booking: Option<BookingId>,
}

impl<'a> DecisionLogEntry<'a> {
    /// An entry about a request, without an outcome yet.
    pub(crate) fn new(conference: &'a Conference, requester: &'a Requester) -> Self {
        let (outcome, reason, sentence) = ("", "", String::new());
        Self {
            conference,
            requester,
            outcome,
            reason,
            sentence,
            allocation: None,
            booking: None,
        }
    }

    /// Sets the outcome, the code of its reason, and the reason as a sentence.
    pub(crate) fn with_outcome(
        self,
        outcome: &'static str,
        reason: &'static str,
        sentence: String,
    ) -> Self {
        Self {
            outcome,
            reason,
            sentence,
            ..self
        }
    }

    /// Sets the new or the running allocation.
    pub(crate) fn with_allocation(self, allocation: &Allocation) -> Self {
        Self {
            allocation: Some(allocation.id),
            booking: allocation.booking,
            ..self
        }
    }

    /// Sets the booking behind the decision.
    pub(crate) fn with_booking(self, booking: Option<BookingId>) -> Self {
        Self { booking, ..self }
    }
}

/// Which decisions to list. A field that is `None` is no condition.
#[derive(Clone, Debug, Default)]
pub struct DecisionFilter {
    /// Canonical room name.
    pub room: Option<String>,
    /// Canonical tenant; `Some("")` is "no tenant".
    pub tenant: Option<String>,
    /// Decisions before this id: the list is newest first.
    pub before: Option<i64>,
    /// The maximum number of rows.
    pub limit: u32,
}

fn decision(row: &SqliteRow, domain: &str) -> Result<DecisionRow> {
    let allocation: Option<i64> = row.try_get("allocation_id")?;
    let booking: Option<i64> = row.try_get("booking_id")?;
    Ok(DecisionRow {
        id: row.try_get("id")?,
        at: instant(row.try_get("decided_at")?)?,
        conference: conference(row.try_get("room")?, row.try_get("tenant")?, domain)?,
        requester: Requester {
            mail_owner: row.try_get("mail_owner")?,
            user_id: row.try_get("user_id")?,
            user_email: row.try_get("user_email")?,
            user_name: row.try_get("user_name")?,
            ..Requester::default()
        },
        outcome: row.try_get("outcome")?,
        reason: row.try_get("reason")?,
        sentence: row.try_get("sentence")?,
        allocation: allocation.map(allocation_id).transpose()?,
        booking: booking.map(BookingId),
    })
}

impl Store {
    /// The decisions that match the filter, newest first.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn decisions(&self, filter: &DecisionFilter) -> Result<Vec<DecisionRow>> {
        sqlx::query(
            "SELECT * FROM decision
             WHERE (CAST($1 AS TEXT) IS NULL OR room = $1)
               AND (CAST($2 AS TEXT) IS NULL OR tenant = $2)
               AND id < $3
             ORDER BY id DESC
             LIMIT $4",
        )
        .bind(&filter.room)
        .bind(&filter.tenant)
        .bind(filter.before.unwrap_or(i64::MAX))
        .bind(i64::from(filter.limit))
        .fetch_all(&self.read)
        .await?
        .iter()
        .map(|row| decision(row, &self.domain))
        .collect()
    }
}

impl Tx {
    /// Records decisions, in this order.
    pub(crate) async fn record(
        &mut self,
        entries: &[DecisionLogEntry<'_>],
        now: DateTime<Utc>,
    ) -> Result<()> {
        for some in entries.chunks(ROWS) {
            let mut insert = QueryBuilder::<Sqlite>::new(
                "INSERT INTO decision
                 (decided_at, room, tenant, mail_owner, user_id, user_email, user_name, outcome, reason,
                  sentence, allocation_id, booking_id) ",
            );
            insert.push_values(some, |mut row, entry| {
                row.push_bind(now.timestamp_millis())
                    .push_bind(entry.conference.room())
                    .push_bind(tenant_of(entry.conference))
                    .push_bind(&entry.requester.mail_owner)
                    .push_bind(&entry.requester.user_id)
                    .push_bind(&entry.requester.user_email)
                    .push_bind(&entry.requester.user_name)
                    .push_bind(entry.outcome)
                    .push_bind(entry.reason)
                    .push_bind(&entry.sentence)
                    .push_bind(entry.allocation.map(AllocationId::get))
                    .push_bind(entry.booking.map(|id| id.0));
            });
            insert.build().execute(&mut *self.transaction).await?;
        }
        Ok(())
    }

    /// Deletes decisions made before `before`, and the oldest ones beyond `max` rows: at most [`PURGE_ROWS`] for either
    /// reason. Returns whether there may be more.
    pub(crate) async fn purge_decisions(
        &mut self,
        before: DateTime<Utc>,
        max: u64,
    ) -> Result<bool> {
        let old = sqlx::query(
            "DELETE FROM decision
             WHERE id IN (SELECT id FROM decision WHERE decided_at < $1 LIMIT $2)",
        )
        .bind(before.timestamp_millis())
        .bind(PURGE_ROWS)
        .execute(&mut *self.transaction)
        .await?;
        let surplus = sqlx::query(
            "DELETE FROM decision
             WHERE id IN (
                 SELECT id FROM decision WHERE id <= (SELECT MAX(id) FROM decision) - $1
                 ORDER BY id LIMIT $2
             )",
        )
        .bind(i64::try_from(max).unwrap_or(i64::MAX))
        .bind(PURGE_ROWS)
        .execute(&mut *self.transaction)
        .await?;
        Ok(is_full(&old) || is_full(&surplus))
    }
}
