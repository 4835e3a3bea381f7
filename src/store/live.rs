//! Live conferences in the database, and the observer of their changes.

use std::fmt;
use std::sync::{OnceLock, Weak};

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{ROWS, Result, Store, Tx, conference, instant, push_values_as_table, tenant_of};
use crate::domain::conference::Conference;

const HOUR_MILLIS: i64 = 3_600_000;

/// A conference that is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveRow {
    pub(crate) conference: Conference,
    pub(crate) since: DateTime<Utc>,
}

/// A committed change of which conferences are live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LiveChange {
    /// The conference is live; it may have been before.
    Live(LiveRow),
    /// The conference is no longer live.
    Ended(Conference),
}

/// Keeps a copy of the live conferences up to date.
pub(crate) trait LiveObserver: fmt::Debug + Send + Sync {
    /// Receives the changes of one transaction, in their order: after it is durable, before [`Tx::commit`] returns, and
    /// before the next transaction begins. `begun` is the instant at which the transaction was requested. Must not block.
    fn live_changed(&self, changes: Vec<LiveChange>, begun: Instant);
}

/// What the clones of a [`Store`] share about live conferences.
#[derive(Debug, Default)]
pub(super) struct LiveNotifier {
    pub(super) observer: OnceLock<Weak<dyn LiveObserver>>,
    /// The next live conference may expire, or the next booking go live, earlier than before.
    pub(super) due_changed: Notify,
    changed_elsewhere: Notify,
}

impl LiveNotifier {
    pub(super) fn notify(&self, changes: Vec<LiveChange>, begun: Instant) {
        let observer = self.observer.get().and_then(Weak::upgrade);
        if let Some(observer) = observer.filter(|_| !changes.is_empty()) {
            observer.live_changed(changes, begun);
        }
    }
}

fn live(row: &SqliteRow, domain: &str) -> Result<LiveRow> {
    Ok(LiveRow {
        conference: conference(row.try_get("room")?, row.try_get("tenant")?, domain)?,
        since: instant(row.try_get("live_since")?)?,
    })
}

/// The condition that a row belongs to one of these conferences. SQLite finds the rows by an index.
fn push_among(statement: &mut QueryBuilder<Sqlite>, conferences: &[&Conference]) {
    statement.push("(tenant, room) IN (SELECT column1, column2 FROM ");
    push_values_as_table(statement, conferences);
    statement.push(")");
}

impl Store {
    /// Sets the one observer of live conferences.
    pub(crate) fn observe_live(&self, observer: Weak<dyn LiveObserver>) {
        // A second observer would be a defect: there is one queue.
        let _ = self.live.observer.set(observer);
    }

    /// Waits until a transaction may have changed [`Store::next_live_change`].
    pub(crate) async fn live_due_changed(&self) {
        self.live.due_changed.notified().await;
    }

    /// Waits until another process has changed the database. The notification is a hint; the state is in the tables.
    pub(crate) async fn changed_elsewhere(&self) {
        self.live.changed_elsewhere.notified().await;
    }

    /// Causes [`Store::changed_elsewhere`] to return.
    pub(super) fn note_change_elsewhere(&self) {
        self.live.changed_elsewhere.notify_one();
    }

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
            insert.push(
                " ON CONFLICT (tenant, room) DO UPDATE SET live_until = excluded.live_until
                  RETURNING room, tenant, live_since",
            );
            for row in insert.build().fetch_all(&mut *self.transaction).await? {
                let live = live(&row, &self.domain)?;
                self.live_changes.push(LiveChange::Live(live));
            }
            self.due_changed = true;
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
                .push(" WHERE id IN (SELECT booking.id FROM ");
            push_values_as_table(&mut update, some);
            update
                .push(
                    " JOIN booking ON tenant = wanted.column1 AND room = wanted.column2
                      WHERE auto_live IS NOT NULL AND went_live_at IS NULL AND starts_at <= ",
                )
                .push_bind(now + HOUR_MILLIS)
                .push(" AND (ends_at IS NULL OR ends_at > ")
                .push_bind(now)
                .push("))");
            update.build().execute(&mut *self.transaction).await?;
        }
        Ok(())
    }

    /// Marks conferences as not live.
    pub(crate) async fn end_live(&mut self, conferences: &[&Conference]) -> Result<()> {
        for some in conferences.chunks(ROWS) {
            let mut delete = QueryBuilder::<Sqlite>::new("DELETE FROM live WHERE ");
            push_among(&mut delete, some);
            delete.push(" RETURNING room, tenant");
            let rows = delete.build().fetch_all(&mut *self.transaction).await?;
            self.live_ended(&rows)?;
        }
        Ok(())
    }

    /// Records that the live states of these deleted rows ended.
    pub(super) fn live_ended(&mut self, rows: &[SqliteRow]) -> Result<()> {
        for row in rows {
            let room = conference(row.try_get("room")?, row.try_get("tenant")?, &self.domain)?;
            self.live_changes.push(LiveChange::Ended(room));
        }
        Ok(())
    }

    /// Ends live states that have expired.
    pub(crate) async fn end_live_expired(&mut self, now: DateTime<Utc>) -> Result<()> {
        let rows = sqlx::query("DELETE FROM live WHERE live_until <= $1 RETURNING room, tenant")
            .bind(now.timestamp_millis())
            .fetch_all(&mut *self.transaction)
            .await?;
        self.live_ended(&rows)
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
