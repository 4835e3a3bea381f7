//! Live conferences at rest.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Result, Store, Tx, conference, instant, tenant_of};
use crate::conference::Conference;

/// A conference that is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveRow {
    /// Which one.
    pub(crate) conference: Conference,
    /// Since when.
    pub(crate) since: DateTime<Utc>,
}

fn live(row: &SqliteRow, domain: &str) -> Result<LiveRow> {
    Ok(LiveRow {
        conference: conference(row.try_get("room")?, row.try_get("tenant")?, domain)?,
        since: instant(row.try_get("live_since")?)?,
    })
}

impl Store {
    /// Every conference that is live.
    pub(crate) async fn live(&self) -> Result<Vec<LiveRow>> {
        sqlx::query("SELECT * FROM live")
            .fetch_all(&self.read)
            .await?
            .iter()
            .map(|row| live(row, &self.domain))
            .collect()
    }

    /// When a live conference next ends, or a booking next goes live, by itself.
    pub(crate) async fn next_live_change(&self) -> Result<Option<DateTime<Utc>>> {
        let row = sqlx::query(
            "SELECT MIN(at) AS next FROM (
                 SELECT MIN(live_until) AS at FROM live
                 UNION ALL
                 SELECT MIN(starts_at + auto_live * 60000) AS at FROM booking
                 WHERE auto_live IS NOT NULL AND went_live_at IS NULL
             ) AS changes",
        )
        .fetch_one(&self.read)
        .await?;
        row.try_get::<Option<i64>, _>("next")?
            .map(instant)
            .transpose()
    }
}

impl Tx {
    /// Marks a conference as live, or as live for longer.
    pub(crate) async fn set_live(
        &mut self,
        conference: &Conference,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO live (room, tenant, live_since, live_until) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant, room) DO UPDATE SET live_until = excluded.live_until",
        )
        .bind(conference.room())
        .bind(tenant_of(conference))
        .bind(now.timestamp_millis())
        .bind(until.timestamp_millis())
        .execute(self.group.connection()?)
        .await?;
        self.touches_live = true;
        Ok(())
    }

    /// Remembers that a conference went live, for its booking not to go live by itself later: the one
    /// that runs, or begins within the hour.
    pub(crate) async fn went_live(
        &mut self,
        conference: &Conference,
        now: DateTime<Utc>,
    ) -> Result<()> {
        sqlx::query(
            "UPDATE booking SET went_live_at = $1
             WHERE room = $2 AND tenant = $3 AND auto_live IS NOT NULL AND went_live_at IS NULL
               AND starts_at <= $1 + 3600000 AND (ends_at IS NULL OR ends_at > $1)",
        )
        .bind(now.timestamp_millis())
        .bind(conference.room())
        .bind(tenant_of(conference))
        .execute(self.group.connection()?)
        .await?;
        Ok(())
    }

    /// Marks a conference as not live.
    pub(crate) async fn end_live(&mut self, conference: &Conference) -> Result<()> {
        let done = sqlx::query("DELETE FROM live WHERE room = $1 AND tenant = $2")
            .bind(conference.room())
            .bind(tenant_of(conference))
            .execute(self.group.connection()?)
            .await?;
        self.touches_live |= done.rows_affected() > 0;
        Ok(())
    }

    /// Ends what has been live for longer than anybody said.
    pub(crate) async fn end_live_expired(&mut self, now: DateTime<Utc>) -> Result<()> {
        let done = sqlx::query("DELETE FROM live WHERE live_until <= $1")
            .bind(now.timestamp_millis())
            .execute(self.group.connection()?)
            .await?;
        self.touches_live |= done.rows_affected() > 0;
        Ok(())
    }

    /// The conferences whose bookings go live by themselves at or before `now`; each is given once.
    pub(crate) async fn take_auto_live(&mut self, now: DateTime<Utc>) -> Result<Vec<Conference>> {
        let rows = sqlx::query(
            "UPDATE booking SET went_live_at = $1
             WHERE auto_live IS NOT NULL AND went_live_at IS NULL
               AND starts_at + auto_live * 60000 <= $1
             RETURNING room, tenant, ends_at",
        )
        .bind(now.timestamp_millis())
        .fetch_all(self.group.connection()?)
        .await?;
        let mut due = Vec::new();
        for row in rows {
            let end: Option<i64> = row.try_get("ends_at")?;
            if end.is_none_or(|end| end > now.timestamp_millis()) {
                due.push(conference(
                    row.try_get("room")?,
                    row.try_get("tenant")?,
                    &self.domain,
                )?);
            }
        }
        Ok(due)
    }
}
