//! Allocations at rest.

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteExecutor};

use super::bookings::options;
use super::{Result, Store, Tx, allocation_id, conference, instant, tenant_of};
use crate::conference::Conference;
use crate::reservation::allocation::{Allocation, AllocationId, EndReason};
use crate::reservation::booking::BookingId;
use crate::reservation::policy::Allowance;

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
        end_reason: end_reason.as_deref().and_then(EndReason::of_code),
    })
}

async fn unended(
    executor: impl SqliteExecutor<'_>,
    conference: &Conference,
    domain: &str,
) -> Result<Option<Allocation>> {
    sqlx::query("SELECT * FROM allocation WHERE room = $1 AND tenant = $2 AND ended_at IS NULL")
        .bind(conference.room())
        .bind(tenant_of(conference))
        .fetch_optional(executor)
        .await?
        .map(|row| allocation(&row, domain))
        .transpose()
}

impl Store {
    /// The allocation of this room that nobody has ended; it may be past its end.
    pub(crate) async fn unended(&self, conference: &Conference) -> Result<Option<Allocation>> {
        unended(&self.read, conference, &self.domain).await
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

    /// When the next running allocation is over by itself.
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
    /// The allocation of this room that nobody has ended; it may be past its end.
    pub(crate) async fn unended(&mut self, conference: &Conference) -> Result<Option<Allocation>> {
        unended(self.group.connection()?, conference, &self.domain).await
    }

    /// Makes an allocation. The database refuses a second one that runs in the same room.
    pub(crate) async fn insert_allocation(
        &mut self,
        conference: &Conference,
        name: &str,
        mail_owner: &str,
        allowance: Allowance,
        now: DateTime<Utc>,
    ) -> Result<Allocation> {
        let Allowance {
            start,
            end,
            options,
            booking,
        } = allowance;
        let row = sqlx::query(
            "INSERT INTO allocation
             (room, tenant, name, mail_owner, booking_id, starts_at, ends_at, max_occupants, lobby,
              password, waiting_queue, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             RETURNING id",
        )
        .bind(conference.room())
        .bind(tenant_of(conference))
        .bind(name)
        .bind(mail_owner)
        .bind(booking.map(|id| id.0))
        .bind(start.timestamp_millis())
        .bind(end.timestamp_millis())
        .bind(options.max_occupants.map(i64::from))
        .bind(i64::from(options.lobby))
        .bind(options.password.as_ref().map(|password| password.expose()))
        .bind(i64::from(options.waiting_queue))
        .bind(now.timestamp_millis())
        .fetch_one(self.group.connection()?)
        .await?;
        Ok(Allocation {
            id: allocation_id(row.try_get("id")?)?,
            conference: conference.clone(),
            name: name.to_owned(),
            mail_owner: mail_owner.to_owned(),
            booking,
            start,
            end,
            options,
            ended_at: None,
            end_reason: None,
        })
    }

    /// Gives a running allocation another window and other options.
    pub(crate) async fn revise_allocation(
        &mut self,
        id: AllocationId,
        to: &Allowance,
    ) -> Result<()> {
        sqlx::query(
            "UPDATE allocation
             SET booking_id = $1, starts_at = $2, ends_at = $3, max_occupants = $4, lobby = $5,
                 password = $6, waiting_queue = $7
             WHERE id = $8 AND ended_at IS NULL",
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
        .bind(id.get())
        .execute(self.group.connection()?)
        .await?;
        Ok(())
    }

    /// Ends a running allocation, its being live, and forgets its password; tells whether it was running.
    pub(crate) async fn end_allocation(
        &mut self,
        id: AllocationId,
        reason: EndReason,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let live = sqlx::query(
            "DELETE FROM live WHERE EXISTS (
                 SELECT 1 FROM allocation AS a
                 WHERE a.id = $1 AND a.ended_at IS NULL AND a.room = live.room AND a.tenant = live.tenant
             )",
        )
        .bind(id.get())
        .execute(self.group.connection()?)
        .await?;
        self.touches_live |= live.rows_affected() > 0;
        let done = sqlx::query(
            "UPDATE allocation SET ended_at = $1, end_reason = $2, password = NULL
             WHERE id = $3 AND ended_at IS NULL",
        )
        .bind(now.timestamp_millis())
        .bind(reason.code())
        .bind(id.get())
        .execute(self.group.connection()?)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Ends every allocation that is past its end; tells how many.
    pub(crate) async fn end_expired(&mut self, now: DateTime<Utc>) -> Result<u64> {
        let live = sqlx::query(
            "DELETE FROM live WHERE EXISTS (
                 SELECT 1 FROM allocation AS a
                 WHERE a.ended_at IS NULL AND a.ends_at <= $1
                   AND a.room = live.room AND a.tenant = live.tenant
             )",
        )
        .bind(now.timestamp_millis())
        .execute(self.group.connection()?)
        .await?;
        self.touches_live |= live.rows_affected() > 0;
        let done = sqlx::query(
            "UPDATE allocation SET ended_at = ends_at, end_reason = $1, password = NULL
             WHERE ended_at IS NULL AND ends_at <= $2",
        )
        .bind(EndReason::Expired.code())
        .bind(now.timestamp_millis())
        .execute(self.group.connection()?)
        .await?;
        Ok(done.rows_affected())
    }

    /// Forgets allocations that ended before `before`.
    pub(crate) async fn purge_allocations(&mut self, before: DateTime<Utc>) -> Result<u64> {
        let done = sqlx::query("DELETE FROM allocation WHERE ended_at < $1")
            .bind(before.timestamp_millis())
            .execute(self.group.connection()?)
            .await?;
        Ok(done.rows_affected())
    }
}
