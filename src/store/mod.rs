//! Durable state: bookings, allocations, the decision log, what is live, and the outbox to an upstream.
//!
//! Everything that an answer reports is on disk before the answer leaves. One transaction writes at a time;
//! readers have connections of their own and see committed state only. The SQL is kept to what SQLite and
//! PostgreSQL share (numbered parameters, no vendor functions); what is specific to SQLite is in [`sqlite`] and
//! in the migrations.

mod allocations;
mod bookings;
mod decisions;
mod live;
mod outbox;
mod places;
pub mod sqlite;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::{QueryBuilder, Sqlite, SqlitePool};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::batch::WorkerCrashed;
use crate::domain::allocation::AllocationId;
use crate::domain::conference::Conference;
use crate::metrics;
pub(crate) use allocations::NewAllocation;
pub use bookings::{BookingFilter, Cursor};
pub(crate) use decisions::DecisionLogEntry;
pub use decisions::{DecisionFilter, DecisionRow};
pub use outbox::OutboxEntry;
pub(crate) use outbox::UpstreamRow;
pub(crate) use places::PlaceRow;
use sqlite::{Transaction, Writer};

/// The rows of one statement: SQLite allows 32,766 values.
const ROWS: usize = 1000;

/// The handle to the database. Cheap to clone; every clone is the same database.
#[derive(Clone, Debug)]
pub struct Store {
    write: Writer,
    read: SqlitePool,
    live_changed: Arc<Notify>,
    domain: Arc<str>,
}

/// A transaction that may write, the only one at its time. Dropped without [`Tx::commit`], it is rolled back.
#[derive(Debug)]
pub struct Tx {
    transaction: Transaction,
    live_changed: Arc<Notify>,
    domain: Arc<str>,
    touches_live: bool,
}

/// What can go wrong with the database.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Two bookings of one room would overlap.
    #[error("the booking overlaps another")]
    Overlap,
    /// The outbox holds the maximum number of deletions.
    #[error("the outbox is full: reservations.upstream.outbox_max deletions wait already")]
    OutboxFull,
    /// The disk is full, read-only or broken, or another process holds the database for too long. A later
    /// try may succeed.
    #[error("the database can't be used right now: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A row has a value that this version can't read.
    #[error("the database holds {0}, which this version can't read")]
    Corrupt(String),
    /// The schema could not be brought up to date.
    #[error("the database schema could not be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The backup could not be made.
    #[error("the backup {file} could not be made: {problem}")]
    Backup {
        /// The file of the backup.
        file: PathBuf,
        /// The reason, and what to do.
        problem: String,
    },
    /// `database.url` can't be used.
    #[error("database.url: {0}")]
    Url(String),
    /// Any other error: a defect of usher.
    #[error("the database refused a statement: {0}")]
    Other(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let error = sqlite::classify(error);
        match error {
            Self::Unavailable(_) => metrics::store_failed("unavailable"),
            Self::Other(_) => metrics::store_failed("other"),
            _ => {}
        }
        error
    }
}

impl StoreError {
    /// A row that was just written is missing: a defect of usher.
    pub(crate) fn missing_row() -> Self {
        sqlx::Error::RowNotFound.into()
    }
}

impl From<WorkerCrashed> for StoreError {
    fn from(_: WorkerCrashed) -> Self {
        sqlx::Error::WorkerCrashed.into()
    }
}

/// The results of this module.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The version of a database's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// There is no database, or it is empty.
    Missing,
    /// The schema of an earlier version: opening the database brings it up to date.
    Earlier,
    /// The schema of this version.
    Current,
    /// The schema of a later version: this one doesn't open the database.
    Later,
}

impl Schema {
    /// Reads the version from the database at `url`, which is neither changed nor created.
    ///
    /// # Errors
    ///
    /// [`StoreError::Url`] for an unknown kind of URL, [`StoreError::Unavailable`] where the file can't be read.
    pub async fn at(url: &str) -> Result<Self> {
        sqlite::schema(url).await
    }
}

/// Copies the database at `url`, of any version, to the new file `file`: a snapshot of one instant. Other
/// processes may write meanwhile.
///
/// # Errors
///
/// [`StoreError::Unavailable`] where no database can be read, [`StoreError::Backup`] where the copy can't be
/// written. An incomplete file is removed.
pub async fn back_up(url: &str, file: &Path) -> Result<()> {
    sqlite::back_up(url, file).await
}

impl Store {
    /// Opens the database at `url`, creates it if it is missing, and brings its schema up to date.
    /// `domain` is the XMPP domain of its rooms.
    ///
    /// # Errors
    ///
    /// [`StoreError::Url`] for an unknown kind of URL, [`StoreError::Unavailable`] where the file can't
    /// be opened, [`StoreError::Migration`] for the schema of a later version.
    pub async fn open(url: &str, domain: &str) -> Result<Self> {
        let (write, read) = sqlite::open(url).await?;
        Ok(Self {
            write,
            read,
            live_changed: Arc::default(),
            domain: domain.into(),
        })
    }

    /// Begins a transaction that may write. What is read in it holds until it is committed, since no other
    /// transaction writes meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the transactions before it take too long.
    pub async fn begin(&self) -> Result<Tx> {
        let started = Instant::now();
        let transaction = self.write.begin().await?;
        metrics::observe_store_wait("turn", started.elapsed());
        Ok(Tx {
            transaction,
            live_changed: Arc::clone(&self.live_changed),
            domain: Arc::clone(&self.domain),
            touches_live: false,
        })
    }

    /// Waits until a transaction has changed which conferences are live, or when the next one goes live by
    /// itself. The notification is a hint; the state is in the table.
    pub(crate) async fn live_changed(&self) {
        self.live_changed.notified().await;
    }

    /// Checks that the database can be written durably at this moment.
    ///
    /// # Errors
    ///
    /// The reason why not.
    pub async fn probe(&self, now: DateTime<Utc>) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE probe SET probed_at = $1")
            .bind(now.timestamp_millis())
            .execute(&mut *tx.transaction)
            .await?;
        tx.commit().await
    }

    /// Closes every connection. What was committed stays.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

impl Tx {
    /// Makes all changes of this transaction durable.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if they can't be written; nothing was changed then.
    pub async fn commit(self) -> Result<()> {
        let started = Instant::now();
        // In a task of its own: a caller that is dropped meanwhile must not lose the notification.
        let committed = tokio::spawn(async move {
            self.transaction.commit().await?;
            if self.touches_live {
                self.live_changed.notify_one();
            }
            Ok(())
        });
        let committed = committed.await.unwrap_or(Err(sqlx::Error::WorkerCrashed));
        metrics::observe_store_wait("commit", started.elapsed());
        committed.map_err(|error| {
            metrics::store_failed("unavailable");
            StoreError::Unavailable(error)
        })
    }
}

fn instant(millis: i64) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp_millis(millis)
        .ok_or_else(|| StoreError::Corrupt(format!("the instant {millis}")))
}

fn allocation_id(id: i64) -> Result<AllocationId> {
    AllocationId::new(id).ok_or_else(|| StoreError::Corrupt(format!("the conference id {id}")))
}

fn conference(room: &str, tenant: &str, domain: &str) -> Result<Conference> {
    let tenant = Some(tenant).filter(|tenant| !tenant.is_empty());
    Conference::from_names(room, tenant, domain)
        .map_err(|_| StoreError::Corrupt(format!("the room name {room:?}")))
}

/// A row for each of these conferences: its tenant and its room.
fn push_names(statement: &mut QueryBuilder<Sqlite>, conferences: &[&Conference]) {
    statement.push_values(conferences, |mut row, conference| {
        row.push_bind(tenant_of(conference).to_owned())
            .push_bind(conference.room().to_owned());
    });
}

/// The same as a table `wanted (column1, column2)` to join others with: SQLite finds their rows by an index then,
/// which it doesn't with `IN`.
fn push_values_as_table(statement: &mut QueryBuilder<Sqlite>, conferences: &[&Conference]) {
    statement.push("(");
    push_names(statement, conferences);
    statement.push(") AS wanted");
}

/// The stored form of a tenant: '' is none.
fn tenant_of(conference: &Conference) -> &str {
    conference.tenant().unwrap_or_default()
}

#[cfg(test)]
mod tests;
