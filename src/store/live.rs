//! Live conferences in the database.

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};

use super::{ROWS, Result, Store, Tx, conference, instant, push_names, tenant_of};
use crate::domain::conference::Conference;

const HOUR_MILLIS: i64 = 3_600_000;

/// A conference that is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveRow {
    pub(crate) conference: Conference,
    pub(crate) since: DateTime<Utc>,
}

fn live(row: &SqliteRow, domain: &str) -> Result<LiveRow> {
    Ok(LiveRow {
        conference: conference(row.try_get("room")?, row.try_get("tenant")?, domain)?,
        since: instant(row.try_get("live_since")?)?,
    })
}

/// The condition that a row belongs to one of these conferences.
fn push_among(statement: &mut QueryBuilder<Sqlite>, conferences: &[&Conference]) {
    statement.push("(tenant, room) IN (");
    push_names(statement, conferences);
    statement.push(")");
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

    /// When the next live conference expires, or the next booking goes live by itself.
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
    /// Marks conferences as live, or extends their live state. Each is named once.
    pub(crate) async fn set_live(
        &mut self,
        conferences: &[&Conference],
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<()> {
        for some in conferences.chunks(ROWS) {
            let mut insert = QueryBuilder::<Sqlite>::new(
                "INSERT INTO live (room, tenant, live_since, live_until) ",
            );
            insert.push_values(some, |mut row, conference| {
                row.push_bind(conference.room().to_owned())
                    .push_bind(tenant_of(conference).to_owned())
                    .push_bind(now.timestamp_millis())
                    .push_bind(until.timestamp_millis());
            });
            insert
                .push(" ON CONFLICT (tenant, room) DO UPDATE SET live_until = excluded.live_until");
            insert.build().execute(&mut *self.transaction).await?;
            self.touches_live = true;
        }
        Ok(())
    }

    /// Records in the bookings that conferences went live, so that the bookings don't go live by themselves
    /// later. Applies to bookings that run or start within an hour.
    pub(crate) async fn went_live(
        &mut self,
        conferences: &[&Conference],
        now: DateTime<Utc>,
    ) -> Result<()> {
        let now = now.timestamp_millis();
        for some in conferences.chunks(ROWS) {
            let mut update = QueryBuilder::<Sqlite>::new("UPDATE booking SET went_live_at = ");
            update
                .push_bind(now)
                .push(" WHERE auto_live IS NOT NULL AND went_live_at IS NULL AND starts_at <= ")
                .push_bind(now + HOUR_MILLIS)
                .push(" AND (ends_at IS NULL OR ends_at > ")
                .push_bind(now)
                .push(") AND ");
            push_among(&mut update, some);
            update.build().execute(&mut *self.transaction).await?;
        }
        Ok(())
    }

    /// Marks conferences as not live.
    pub(crate) async fn end_live(&mut self, conferences: &[&Conference]) -> Result<()> {
        for some in conferences.chunks(ROWS) {
            let mut delete = QueryBuilder::<Sqlite>::new("DELETE FROM live WHERE ");
            push_among(&mut delete, some);
            let done = delete.build().execute(&mut *self.transaction).await?;
            self.touches_live |= done.rows_affected() > 0;
        }
        Ok(())
    }

    /// Ends live states that have expired.
    pub(crate) async fn end_live_expired(&mut self, now: DateTime<Utc>) -> Result<()> {
        let done = sqlx::query("DELETE FROM live WHERE live_until <= $1")
            .bind(now.timestamp_millis())
            .execute(&mut *self.transaction)
            .await?;
        self.touches_live |= done.rows_affected() > 0;
        Ok(())
    }

    /// The conferences whose bookings go live by themselves at or before `now`. Each is returned once only.
    pub(crate) async fn take_auto_live(&mut self, now: DateTime<Utc>) -> Result<Vec<Conference>> {
        let rows = sqlx::query(
            "UPDATE booking SET went_live_at = $1
             WHERE auto_live IS NOT NULL AND went_live_at IS NULL
               AND starts_at + auto_live * 60000 <= $1
             RETURNING room, tenant, ends_at",
        )
        .bind(now.timestamp_millis())
        .fetch_all(&mut *self.transaction)
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
