//! The conferences of an upstream in the database, and the outbox: deletions that it has not acknowledged yet.

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteExecutor};

use super::{PURGE_ROWS, Result, Store, StoreError, Tx, conference, instant, is_full, tenant_of};
use crate::domain::conference::Conference;

/// A conference that the upstream reported as running.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamRow {
    /// The upstream's id.
    pub(crate) id: String,
    pub(crate) conference: Conference,
    /// The room's node as Prosody wrote it.
    pub(crate) name: String,
    /// The owner as Prosody received it.
    pub(crate) mail_owner: String,
    /// Whether its visitors wait in the queue.
    pub(crate) waiting_queue: bool,
    /// The end that the upstream set.
    pub(crate) end: DateTime<Utc>,
    /// When its room was destroyed.
    pub(crate) ended_at: Option<DateTime<Utc>>,
}

/// A deletion to deliver.
#[derive(Clone, Debug)]
pub struct OutboxEntry {
    /// Entries are delivered in this order.
    pub id: i64,
    /// The upstream's id of the conference.
    pub conference_id: String,
    /// The conference; `None` if only its id is known.
    pub conference: Option<Conference>,
    /// When Prosody requested it.
    pub accepted_at: DateTime<Utc>,
    /// The number of attempts so far.
    pub attempts: u32,
    /// When the next attempt is due.
    pub next_at: DateTime<Utc>,
    /// The error of the last attempt.
    pub last_error: Option<String>,
}

fn upstream_row(row: &SqliteRow, domain: &str) -> Result<UpstreamRow> {
    let ended: Option<i64> = row.try_get("ended_at")?;
    let waiting_queue: i64 = row.try_get("waiting_queue")?;
    Ok(UpstreamRow {
        id: row.try_get("upstream_id")?,
        conference: conference(row.try_get("room")?, row.try_get("tenant")?, domain)?,
        name: row.try_get("name")?,
        mail_owner: row.try_get("mail_owner")?,
        waiting_queue: waiting_queue != 0,
        end: instant(row.try_get("ends_at")?)?,
        ended_at: ended.map(instant).transpose()?,
    })
}

fn deletion(row: &SqliteRow, domain: &str) -> Result<OutboxEntry> {
    let room: Option<String> = row.try_get("room")?;
    let tenant: Option<String> = row.try_get("tenant")?;
    let named = room.map(|room| conference(&room, tenant.as_deref().unwrap_or_default(), domain));
    let attempts: i64 = row.try_get("attempts")?;
    Ok(OutboxEntry {
        id: row.try_get("id")?,
        conference_id: row.try_get("upstream_id")?,
        conference: named.transpose()?,
        accepted_at: instant(row.try_get("accepted_at")?)?,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        next_at: instant(row.try_get("next_at")?)?,
        last_error: row.try_get("trouble")?,
    })
}

async fn upstream_conference(
    executor: impl SqliteExecutor<'_>,
    id: &str,
    domain: &str,
) -> Result<Option<UpstreamRow>> {
    sqlx::query("SELECT * FROM upstream_conference WHERE upstream_id = $1")
        .bind(id)
        .fetch_optional(executor)
        .await?
        .map(|row| upstream_row(&row, domain))
        .transpose()
}

impl Store {
    /// The conference with this id, if the upstream reported it.
    pub(crate) async fn upstream_conference(&self, id: &str) -> Result<Option<UpstreamRow>> {
        upstream_conference(&self.read, id, &self.domain).await
    }

    /// For each of these conferences, whether it has a waiting queue: an option of the one that runs in its room, of those
    /// that aren't over the one with the latest end.
    pub(crate) async fn upstream_have_queue(
        &self,
        conferences: &[&Conference],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>> {
        let now = now.timestamp_millis();
        self.are_matched(conferences, |select| {
            select
                .push(
                    " WHERE (
                          SELECT waiting_queue FROM upstream_conference
                          WHERE tenant = wanted.column2 AND room = wanted.column3
                            AND ended_at IS NULL AND ends_at > ",
                )
                .push_bind(now)
                .push(" ORDER BY ends_at DESC LIMIT 1) <> 0");
        })
        .await
    }

    /// The conference that runs in this room: of those that aren't over, the one with the latest end.
    pub(crate) async fn upstream_running(
        &self,
        conference: &Conference,
        now: DateTime<Utc>,
    ) -> Result<Option<UpstreamRow>> {
        sqlx::query(
            "SELECT * FROM upstream_conference
             WHERE room = $1 AND tenant = $2 AND ended_at IS NULL AND ends_at > $3
             ORDER BY ends_at DESC LIMIT 1",
        )
        .bind(conference.room())
        .bind(tenant_of(conference))
        .bind(now.timestamp_millis())
        .fetch_optional(&self.read)
        .await?
        .map(|row| upstream_row(&row, &self.domain))
        .transpose()
    }

    /// Every conference that runs at the upstream.
    pub(crate) async fn all_upstream_running(
        &self,
        now: DateTime<Utc>,
    ) -> Result<Vec<UpstreamRow>> {
        sqlx::query("SELECT * FROM upstream_conference WHERE ended_at IS NULL AND ends_at > $1")
            .bind(now.timestamp_millis())
            .fetch_all(&self.read)
            .await?
            .iter()
            .map(|row| upstream_row(row, &self.domain))
            .collect()
    }

    /// The number of deletions to deliver.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn outbox_pending(&self) -> Result<u64> {
        let row = sqlx::query("SELECT COUNT(*) AS pending FROM outbox")
            .fetch_one(&self.read)
            .await?;
        let pending: i64 = row.try_get("pending")?;
        Ok(u64::try_from(pending).unwrap_or_default())
    }

    /// The deletions to deliver, in order, from the one after `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn outbox(&self, after: i64, limit: u32) -> Result<Vec<OutboxEntry>> {
        sqlx::query("SELECT * FROM outbox WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.read)
            .await?
            .iter()
            .map(|row| deletion(row, &self.domain))
            .collect()
    }

    /// The deletions of one room, in order.
    pub(crate) async fn outbox_of(&self, conference: &Conference) -> Result<Vec<OutboxEntry>> {
        sqlx::query("SELECT * FROM outbox WHERE room = $1 AND tenant = $2 ORDER BY id")
            .bind(conference.room())
            .bind(tenant_of(conference))
            .fetch_all(&self.read)
            .await?
            .iter()
            .map(|row| deletion(row, &self.domain))
            .collect()
    }

    /// The next deletion that is due. The deletions of a room are delivered in order.
    pub(crate) async fn outbox_due(&self, now: DateTime<Utc>) -> Result<Option<OutboxEntry>> {
        sqlx::query(
            "SELECT * FROM outbox
             WHERE next_at <= $1 AND NOT EXISTS (
                 SELECT 1 FROM outbox AS older
                 WHERE older.room = outbox.room AND older.tenant = outbox.tenant AND older.id < outbox.id
             )
             ORDER BY next_at, id LIMIT 1",
        )
        .bind(now.timestamp_millis())
        .fetch_optional(&self.read)
        .await?
        .map(|row| deletion(&row, &self.domain))
        .transpose()
    }

    /// When the next deletion is due.
    pub(crate) async fn outbox_next(&self) -> Result<Option<DateTime<Utc>>> {
        let row = sqlx::query(
            "SELECT MIN(next_at) AS next FROM outbox
             WHERE NOT EXISTS (
                 SELECT 1 FROM outbox AS older
                 WHERE older.room = outbox.room AND older.tenant = outbox.tenant AND older.id < outbox.id
             )",
        )
        .fetch_one(&self.read)
        .await?;
        row.try_get::<Option<i64>, _>("next")?
            .map(instant)
            .transpose()
    }
}

impl Tx {
    /// Records a conference that runs upstream, and removes its deletion from the outbox: the upstream's report
    /// is newer. Returns whether there was a deletion. Ends the live state of a conference of the room whose time is up.
    pub(crate) async fn upstream_runs(
        &mut self,
        row: &UpstreamRow,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let ended = sqlx::query(
            "DELETE FROM live
             WHERE tenant = $1 AND room = $2 AND EXISTS (
                 SELECT 1 FROM upstream_conference AS former
                 WHERE former.tenant = live.tenant AND former.room = live.room
                   AND former.upstream_id <> $3 AND former.ended_at IS NULL
                   AND former.ends_at <= $4 AND former.ends_at > live.live_since
             )
             RETURNING room, tenant",
        )
        .bind(tenant_of(&row.conference))
        .bind(row.conference.room())
        .bind(&row.id)
        .bind(now.timestamp_millis())
        .fetch_all(&mut *self.transaction)
        .await?;
        self.live_ended(&ended)?;
        sqlx::query(
            "INSERT INTO upstream_conference
             (upstream_id, room, tenant, name, mail_owner, waiting_queue, ends_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (upstream_id) DO UPDATE SET
                 room = excluded.room, tenant = excluded.tenant, name = excluded.name,
                 mail_owner = excluded.mail_owner, waiting_queue = excluded.waiting_queue,
                 ends_at = excluded.ends_at, ended_at = NULL",
        )
        .bind(&row.id)
        .bind(row.conference.room())
        .bind(tenant_of(&row.conference))
        .bind(&row.name)
        .bind(&row.mail_owner)
        .bind(i64::from(row.waiting_queue))
        .bind(row.end.timestamp_millis())
        .execute(&mut *self.transaction)
        .await?;
        let done = sqlx::query("DELETE FROM outbox WHERE upstream_id = $1")
            .bind(&row.id)
            .execute(&mut *self.transaction)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// The conference with this id, if the upstream reported it.
    pub(crate) async fn upstream_conference(&mut self, id: &str) -> Result<Option<UpstreamRow>> {
        upstream_conference(&mut *self.transaction, id, &self.domain).await
    }

    /// Adds the deletion of a conference. One that is in the outbox already stays unchanged.
    ///
    /// # Errors
    ///
    /// [`StoreError::OutboxFull`] if the outbox holds `max` entries.
    pub(crate) async fn accept_deletion(
        &mut self,
        id: &str,
        conference: Option<&Conference>,
        max: u32,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS pending, COUNT(CASE WHEN upstream_id = $1 THEN 1 END) AS present FROM outbox",
        )
        .bind(id)
        .fetch_one(&mut *self.transaction)
        .await?;
        let (pending, present): (i64, i64) = (row.try_get("pending")?, row.try_get("present")?);
        if present > 0 {
            return Ok(());
        }
        if pending >= i64::from(max) {
            return Err(StoreError::OutboxFull);
        }
        sqlx::query(
            "INSERT INTO outbox (upstream_id, room, tenant, accepted_at, attempts, next_at)
             VALUES ($1, $2, $3, $4, 0, $4)",
        )
        .bind(id)
        .bind(conference.map(Conference::room))
        .bind(conference.map(tenant_of))
        .bind(now.timestamp_millis())
        .execute(&mut *self.transaction)
        .await?;
        sqlx::query("UPDATE upstream_conference SET ended_at = $1 WHERE upstream_id = $2")
            .bind(now.timestamp_millis())
            .bind(id)
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    /// Removes a deletion that was delivered.
    pub(crate) async fn delete_outbox_entry(&mut self, id: i64) -> Result<()> {
        sqlx::query("DELETE FROM outbox WHERE id = $1")
            .bind(id)
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    /// Schedules the next attempt for a deletion that could not be delivered.
    pub(crate) async fn defer_deletion(
        &mut self,
        id: i64,
        until: DateTime<Utc>,
        error: &str,
    ) -> Result<()> {
        sqlx::query(
            "UPDATE outbox SET attempts = attempts + 1, next_at = $1, trouble = $2 WHERE id = $3",
        )
        .bind(until.timestamp_millis())
        .bind(error)
        .bind(id)
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Makes all deletions due.
    pub(crate) async fn retry_now(&mut self, now: DateTime<Utc>) -> Result<()> {
        sqlx::query("UPDATE outbox SET next_at = $1 WHERE next_at > $1")
            .bind(now.timestamp_millis())
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    /// Removes the deletions accepted before `before`; returns the ids of their conferences.
    pub(crate) async fn give_up_deletions(&mut self, before: DateTime<Utc>) -> Result<Vec<String>> {
        sqlx::query("DELETE FROM outbox WHERE accepted_at < $1 RETURNING upstream_id")
            .bind(before.timestamp_millis())
            .fetch_all(&mut *self.transaction)
            .await?
            .iter()
            .map(|row| Ok(row.try_get("upstream_id")?))
            .collect()
    }

    /// Deletes conferences that were over before `before` and have no deletion in the outbox, at most [`PURGE_ROWS`];
    /// returns whether there may be more.
    pub(crate) async fn purge_upstream(&mut self, before: DateTime<Utc>) -> Result<bool> {
        let done = sqlx::query(
            "DELETE FROM upstream_conference
             WHERE upstream_id IN (
                 SELECT upstream_id FROM upstream_conference
                 WHERE COALESCE(ended_at, ends_at) < $1
                   AND upstream_id NOT IN (SELECT upstream_id FROM outbox)
                 LIMIT $2
             )",
        )
        .bind(before.timestamp_millis())
        .bind(PURGE_ROWS)
        .execute(&mut *self.transaction)
        .await?;
        Ok(is_full(&done))
    }
}
