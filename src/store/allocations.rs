//! Allocations in the database.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};

use super::bookings::options;
use super::{
    PURGE_ROWS, ROWS, Result, Store, StoreError, Tx, allocation_id, conference, instant, is_full,
    push_values_as_table, tenant_of,
};
use crate::domain::allocation::{Allocation, AllocationId, EndReason};
use crate::domain::booking::BookingId;
use crate::domain::conference::Conference;
use crate::domain::policy::Terms;

fn allocation(row: &SqliteRow, domain: &str) -> Result<Allocation> {
    let millis = |column| row.try_get::<i64, _>(column);
    let booking: Option<i64> = row.try_get("booking_id")?;
    let ended: Option<i64> = row.try_get("ended_at")?;
    let end_reason: Option<String> = row.try_get("end_reason")?;
    Ok(Allocation {
        id: allocation_id(row.try_get("id")?)?,
        conference: conference(row.try_get("room")?, row.try_get("tenant")?, domain)?,
        name: row.try_get("name")?,
        mail_owner: row.try_get("mail_owner")?,
        booking: booking.map(BookingId),
        start: instant(millis("starts_at")?)?,
        end: instant(millis("ends_at")?)?,
        options: options(row)?,
        ended_at: ended.map(instant).transpose()?,
        end_reason: end_reason.as_deref().and_then(EndReason::from_code),
    })
}

/// An allocation to insert.
#[derive(Clone, Debug)]
pub(crate) struct NewAllocation<'a> {
    pub(crate) conference: &'a Conference,
    /// The room's node as Prosody wrote it.
    pub(crate) name: &'a str,
    /// The owner as Prosody wrote it.
    pub(crate) mail_owner: &'a str,
    pub(crate) terms: Terms,
}

/// A running allocation, and what its booking says of it.
#[derive(Clone, Debug)]
pub(crate) struct RunningRow {
    pub(crate) allocation: Allocation,
    pub(crate) title: Option<String>,
    pub(crate) owner: Option<String>,
}

/// The allocations of these rooms that are not marked as ended.
fn select_unended(conferences: &[&Conference]) -> QueryBuilder<Sqlite> {
    let mut select = QueryBuilder::new("SELECT allocation.* FROM ");
    push_values_as_table(&mut select, conferences);
    select.push(
        " JOIN allocation ON tenant = wanted.column1 AND room = wanted.column2
          WHERE ended_at IS NULL",
    );
    select
}

fn push_ids(statement: &mut QueryBuilder<Sqlite>, ids: &[AllocationId]) {
    let mut separated = statement.separated(", ");
    for id in ids {
        separated.push_bind(id.get());
    }
}

impl Store {
    /// For each of these conferences, whether it has a waiting queue: an option of its running allocation, or else of its
    /// next booking, if that starts at or before `starts_by`.
    pub(crate) async fn have_queue(
        &self,
        conferences: &[&Conference],
        now: DateTime<Utc>,
        starts_by: DateTime<Utc>,
    ) -> Result<Vec<bool>> {
        let (now, starts_by) = (now.timestamp_millis(), starts_by.timestamp_millis());
        self.are_matched(conferences, |select| {
            select
                .push(
                    " LEFT JOIN allocation AS a
                        ON a.tenant = wanted.column2 AND a.room = wanted.column3
                       AND a.ended_at IS NULL AND a.ends_at > ",
                )
                .push_bind(now)
                .push(
                    " LEFT JOIN booking AS b ON b.id = (
                          SELECT id FROM booking
                          WHERE tenant = wanted.column2 AND room = wanted.column3
                            AND (ends_at IS NULL OR ends_at > ",
                )
                .push_bind(now)
                .push(
                    ") ORDER BY starts_at, id LIMIT 1)
                      WHERE (a.waiting_queue <> 0)
                         OR (a.id IS NULL AND b.waiting_queue <> 0 AND b.starts_at <= ",
                )
                .push_bind(starts_by)
                .push(")");
        })
        .await
    }

    /// For each of these conferences, whether it is among the rows that `push_rest` selects from `wanted`, which has its
    /// number, tenant and room.
    pub(super) async fn are_matched(
        &self,
        conferences: &[&Conference],
        push_rest: impl Fn(&mut QueryBuilder<Sqlite>),
    ) -> Result<Vec<bool>> {
        let mut matched = vec![false; conferences.len()];
        for (some, matched) in conferences.chunks(ROWS).zip(matched.chunks_mut(ROWS)) {
            let mut select = QueryBuilder::new("SELECT wanted.column1 AS number FROM (");
            select.push_values(some.iter().enumerate(), |mut row, (number, conference)| {
                row.push_bind(i64::try_from(number).unwrap_or_default())
                    .push_bind(tenant_of(conference).to_owned())
                    .push_bind(conference.room().to_owned());
            });
            select.push(") AS wanted");
            push_rest(&mut select);
            for row in select.build().fetch_all(&self.read).await? {
                let number = usize::try_from(row.try_get::<i64, _>("number")?);
                if let Some(matched) = number.ok().and_then(|number| matched.get_mut(number)) {
                    *matched = true;
                }
            }
        }
        Ok(matched)
    }

    /// The allocation with this id, running or over.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn allocation(&self, id: AllocationId) -> Result<Option<Allocation>> {
        sqlx::query("SELECT * FROM allocation WHERE id = $1")
            .bind(id.get())
            .fetch_optional(&self.read)
            .await?
            .map(|row| allocation(&row, &self.domain))
            .transpose()
    }

    /// The allocation of this room that is not marked as ended; it may be past its end.
    pub(crate) async fn unended(&self, conference: &Conference) -> Result<Option<Allocation>> {
        Ok(self.unended_of(&[conference]).await?.remove(conference))
    }

    /// The allocations of these rooms that are not marked as ended, each room named once.
    pub(crate) async fn unended_of(
        &self,
        conferences: &[&Conference],
    ) -> Result<HashMap<Conference, Allocation>> {
        let mut found = HashMap::new();
        for some in conferences.chunks(ROWS) {
            let rows = select_unended(some).build().fetch_all(&self.read).await?;
            for row in rows {
                let allocation = allocation(&row, &self.domain)?;
                found.insert(allocation.conference.clone(), allocation);
            }
        }
        Ok(found)
    }

    /// Every allocation that is neither ended nor past its end, with the title and the owner of its booking.
    pub(crate) async fn running(&self, now: DateTime<Utc>) -> Result<Vec<RunningRow>> {
        sqlx::query(
            "SELECT allocation.*, booking.title AS title, booking.owner AS owner
             FROM allocation LEFT JOIN booking ON booking.id = allocation.booking_id
             WHERE allocation.ended_at IS NULL AND allocation.ends_at > $1",
        )
        .bind(now.timestamp_millis())
        .fetch_all(&self.read)
        .await?
        .iter()
        .map(|row| {
            Ok(RunningRow {
                allocation: allocation(row, &self.domain)?,
                title: row.try_get("title")?,
                owner: row.try_get("owner")?,
            })
        })
        .collect()
    }

    /// When the next running allocation reaches its end.
    pub(crate) async fn next_end(&self) -> Result<Option<DateTime<Utc>>> {
        let row = sqlx::query("SELECT MIN(ends_at) AS next FROM allocation WHERE ended_at IS NULL")
            .fetch_one(&self.read)
            .await?;
        row.try_get::<Option<i64>, _>("next")?
            .map(instant)
            .transpose()
    }
}

impl Tx {
    /// Adds the allocations of `rows`, each under its conference.
    fn collect_allocations(
        &self,
        rows: &[SqliteRow],
        into: &mut HashMap<Conference, Allocation>,
    ) -> Result<()> {
        for row in rows {
            let allocation = allocation(row, &self.domain)?;
            into.insert(allocation.conference.clone(), allocation);
        }
        Ok(())
    }

    /// The allocation of this room that is not marked as ended; it may be past its end.
    pub(crate) async fn unended(&mut self, conference: &Conference) -> Result<Option<Allocation>> {
        sqlx::query("SELECT * FROM allocation WHERE room = $1 AND tenant = $2 AND ended_at IS NULL")
            .bind(conference.room())
            .bind(tenant_of(conference))
            .fetch_optional(&mut *self.transaction)
            .await?
            .map(|row| allocation(&row, &self.domain))
            .transpose()
    }

    /// The same for many rooms, each named once.
    pub(crate) async fn unended_of(
        &mut self,
        conferences: &[&Conference],
    ) -> Result<HashMap<Conference, Allocation>> {
        let mut found = HashMap::new();
        for some in conferences.chunks(ROWS) {
            let mut select = select_unended(some);
            let rows = select.build().fetch_all(&mut *self.transaction).await?;
            self.collect_allocations(&rows, &mut found)?;
        }
        Ok(found)
    }

    /// Inserts an allocation.
    pub(crate) async fn insert_allocation(
        &mut self,
        allocation: NewAllocation<'_>,
        now: DateTime<Utc>,
    ) -> Result<Allocation> {
        let made = self.insert_allocations(&[allocation], now).await?;
        made.into_values()
            .next()
            .ok_or_else(StoreError::missing_row)
    }

    /// Inserts allocations, each of another room. A constraint refuses a second running one in a room.
    pub(crate) async fn insert_allocations(
        &mut self,
        new: &[NewAllocation<'_>],
        now: DateTime<Utc>,
    ) -> Result<HashMap<Conference, Allocation>> {
        let mut made = HashMap::new();
        for some in new.chunks(ROWS) {
            let mut insert = QueryBuilder::<Sqlite>::new(
                "INSERT INTO allocation
                 (room, tenant, name, mail_owner, booking_id, starts_at, ends_at, max_occupants, lobby,
                  password, waiting_queue, room_rules, created_at) ",
            );
            insert.push_values(some, |mut row, allocation| {
                let Terms {
                    start,
                    end,
                    options,
                    booking,
                } = &allocation.terms;
                let password = options.password.as_ref();
                row.push_bind(allocation.conference.room())
                    .push_bind(tenant_of(allocation.conference))
                    .push_bind(allocation.name)
                    .push_bind(allocation.mail_owner)
                    .push_bind(booking.map(|id| id.0))
                    .push_bind(start.timestamp_millis())
                    .push_bind(end.timestamp_millis())
                    .push_bind(options.max_occupants.map(i64::from))
                    .push_bind(i64::from(options.lobby))
                    .push_bind(password.map(|password| password.expose()))
                    .push_bind(i64::from(options.waiting_queue))
                    .push_bind(options.rules.to_json())
                    .push_bind(now.timestamp_millis());
            });
            insert.push(" RETURNING *");
            let rows = insert.build().fetch_all(&mut *self.transaction).await?;
            self.collect_allocations(&rows, &mut made)?;
        }
        Ok(made)
    }

    /// Changes the window and the options of a running allocation.
    pub(crate) async fn revise_allocation(&mut self, id: AllocationId, to: &Terms) -> Result<()> {
        sqlx::query(
            "UPDATE allocation
             SET booking_id = $1, starts_at = $2, ends_at = $3, max_occupants = $4, lobby = $5,
                 password = $6, waiting_queue = $7, room_rules = $8
             WHERE id = $9 AND ended_at IS NULL",
        )
        .bind(to.booking.map(|id| id.0))
        .bind(to.start.timestamp_millis())
        .bind(to.end.timestamp_millis())
        .bind(to.options.max_occupants.map(i64::from))
        .bind(i64::from(to.options.lobby))
        .bind(
            to.options
                .password
                .as_ref()
                .map(|password| password.expose()),
        )
        .bind(i64::from(to.options.waiting_queue))
        .bind(to.options.rules.to_json())
        .bind(id.get())
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Ends a running allocation; returns whether it was running.
    pub(crate) async fn end_allocation(
        &mut self,
        id: AllocationId,
        reason: EndReason,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let ended = self.end_allocations(&[id], reason, now).await?;
        Ok(!ended.is_empty())
    }

    /// Ends those of the allocations that run, and their live state, and deletes their passwords; returns which
    /// were running.
    pub(crate) async fn end_allocations(
        &mut self,
        ids: &[AllocationId],
        reason: EndReason,
        now: DateTime<Utc>,
    ) -> Result<HashSet<AllocationId>> {
        let mut ended = HashSet::new();
        for some in ids.chunks(ROWS) {
            let mut delete = QueryBuilder::<Sqlite>::new(
                "DELETE FROM live WHERE (tenant, room) IN (
                     SELECT tenant, room FROM allocation WHERE ended_at IS NULL AND id IN (",
            );
            push_ids(&mut delete, some);
            delete.push(")) RETURNING room, tenant");
            let rows = delete.build().fetch_all(&mut *self.transaction).await?;
            self.live_ended(&rows)?;
            let mut update = QueryBuilder::<Sqlite>::new("UPDATE allocation SET ended_at = ");
            update
                .push_bind(now.timestamp_millis())
                .push(", end_reason = ")
                .push_bind(reason.code())
                .push(", password = NULL WHERE ended_at IS NULL AND id IN (");
            push_ids(&mut update, some);
            update.push(") RETURNING id");
            let rows = update.build().fetch_all(&mut *self.transaction).await?;
            for row in rows {
                ended.insert(allocation_id(row.try_get("id")?)?);
            }
        }
        Ok(ended)
    }

    /// Ends every allocation that is past its end; returns how many.
    pub(crate) async fn end_expired(&mut self, now: DateTime<Utc>) -> Result<u64> {
        let rows = sqlx::query(
            "DELETE FROM live WHERE (tenant, room) IN (
                 SELECT tenant, room FROM allocation WHERE ended_at IS NULL AND ends_at <= $1
             )
             RETURNING room, tenant",
        )
        .bind(now.timestamp_millis())
        .fetch_all(&mut *self.transaction)
        .await?;
        self.live_ended(&rows)?;
        let done = sqlx::query(
            "UPDATE allocation SET ended_at = ends_at, end_reason = $1, password = NULL
             WHERE ended_at IS NULL AND ends_at <= $2",
        )
        .bind(EndReason::Expired.code())
        .bind(now.timestamp_millis())
        .execute(&mut *self.transaction)
        .await?;
        Ok(done.rows_affected())
    }

    /// Deletes allocations that ended before `before`, at most [`PURGE_ROWS`]; returns whether there may be more.
    pub(crate) async fn purge_allocations(&mut self, before: DateTime<Utc>) -> Result<bool> {
        let done = sqlx::query(
            "DELETE FROM allocation
             WHERE id IN (SELECT id FROM allocation WHERE ended_at < $1 LIMIT $2)",
        )
        .bind(before.timestamp_millis())
        .bind(PURGE_ROWS)
        .execute(&mut *self.transaction)
        .await?;
        Ok(is_full(&done))
    }
}
