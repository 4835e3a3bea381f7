//! Durable state: bookings, allocations, the decision log, what is live, and the outbox to an upstream.
//!
//! Everything that an answer reports is on disk before the answer leaves. One transaction writes at a time;
//! readers have connections of their own and see committed state only. The SQL is kept to what SQLite and
//! PostgreSQL share (numbered parameters, no vendor functions); what is specific to SQLite is in [`sqlite`] and
//! in the migrations.

mod allocations;
mod bookings;
mod changed;
mod decisions;
mod forget;
mod live;
mod outbox;
mod places;
mod prosody;
mod requests;
pub mod sqlite;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteQueryResult;
use sqlx::{QueryBuilder, Sqlite, SqlitePool};
use thiserror::Error;
use tokio::time::Instant;

use crate::batch::WorkerCrashed;
use crate::domain::allocation::AllocationId;
use crate::domain::conference::Conference;
use crate::metrics;
pub(crate) use allocations::{NewAllocation, RunningRow};
pub use bookings::{BookingFilter, Cursor};
pub(crate) use changed::{Change, ChangedConferences};
pub(crate) use decisions::DecisionLogEntry;
pub use decisions::{DecisionFilter, DecisionRow};
pub use forget::Forgotten;
use live::LiveNotifier;
pub(crate) use live::{LiveChange, LiveObserver, LiveRow};
pub use outbox::OutboxEntry;
pub(crate) use outbox::UpstreamRow;
pub(crate) use places::PlaceRow;
pub use requests::RequestKey;
use sqlite::{DatabaseFile, ServiceLock, Transaction, Writer};

/// The rows of one statement: SQLite allows 32,766 values.
const ROWS: usize = 1000;
/// The rows that one transaction purges, so that others come between.
const PURGE_ROWS: i64 = 1000;

/// The handle to the database. Cheap to clone; every clone is the same database.
#[derive(Clone, Debug)]
pub struct Store {
    write: Writer,
    read: SqlitePool,
    live: Arc<LiveNotifier>,
    file: Arc<DatabaseFile>,
    lock: Option<Arc<ServiceLock>>,
    changed: Arc<ChangedConferences>,
    domain: Arc<str>,
}

/// A transaction that may write, the only one at its time. Dropped without [`Tx::commit`], it is rolled back.
#[derive(Debug)]
pub struct Tx {
    transaction: Transaction,
    live: Arc<LiveNotifier>,
    file: Arc<DatabaseFile>,
    domain: Arc<str>,
    begun: Instant,
    /// For the observer.
    live_changes: Vec<LiveChange>,
    due_changed: bool,
    changed: Arc<ChangedConferences>,
    /// The conferences whose allocations this transaction changes.
    touched: Vec<Conference>,
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
    /// The file of the database is gone, or another one is in its place: what is written now would be lost.
    #[error(
        "the database file {} was {change} while usher has it open: what is written now would be lost; put the file back, or restart usher to use what is at its path", path.display()
    )]
    FileLost {
        /// The file.
        path: PathBuf,
        /// What happened to it: removed or replaced.
        change: &'static str,
    },
    /// Another process serves the database.
    #[error(
        "another usher serves the database {} already ({process}): stop it, or give each its own database.url", path.display()
    )]
    Served {
        /// The file.
        path: PathBuf,
        /// The other process.
        process: String,
    },
    /// The file is no database of usher, and is not new.
    #[error(
        "the file has no tables of usher, and is not new: restore a backup, remove the file to begin with a new database, or set database.url to another file"
    )]
    Foreign,
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
    /// There is no database, or its file is empty.
    Missing,
    /// The database has no tables of usher.
    Foreign,
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
        let store = Self {
            write,
            read,
            live: Arc::default(),
            file: Arc::new(DatabaseFile::opened(url)),
            lock: None,
            changed: Arc::default(),
            domain: domain.into(),
        };
        store.complete_owner_keys().await?;
        Ok(store)
    }

    /// Like [`Store::open`], for the one process that serves the database. Commands may use it at the same time.
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`], and [`StoreError::Served`] if another process serves it.
    pub async fn open_to_serve(url: &str, domain: &str) -> Result<Self> {
        // Before the migrations, which the other process would not expect.
        let lock = ServiceLock::acquire(url)?;
        let store = Self::open(url, domain).await?;
        let lock = lock.map(Arc::new);
        Ok(Self { lock, ..store })
    }

    /// Begins a transaction that may write. What is read in it holds until it is committed, since no other
    /// transaction writes meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the transactions before it take too long, [`StoreError::FileLost`] if the file of
    /// the database is gone.
    pub async fn begin(&self) -> Result<Tx> {
        self.file.check()?;
        let begun = Instant::now();
        let transaction = self.write.begin().await?;
        metrics::observe_store_wait("turn", begun.elapsed());
        Ok(Tx {
            transaction,
            live: Arc::clone(&self.live),
            file: Arc::clone(&self.file),
            domain: Arc::clone(&self.domain),
            begun,
            live_changes: Vec::new(),
            due_changed: false,
            changed: Arc::clone(&self.changed),
            touched: Vec::new(),
        })
    }

    /// The conferences that changed by another way than a request of Prosody.
    pub(crate) fn changed(&self) -> &ChangedConferences {
        &self.changed
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
        if let Some(lock) = &self.lock {
            lock.release();
        }
    }
}

impl Tx {
    /// Notifies about the allocation of this conference once the transaction is committed.
    pub(crate) fn touch(&mut self, conference: &Conference) {
        self.touched.push(conference.clone());
    }

    /// Makes all changes of this transaction durable, and reports those of live conferences to the observer.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if they can't be written, [`StoreError::FileLost`] if they would be lost; nothing was
    /// changed then.
    pub async fn commit(mut self) -> Result<()> {
        self.file.check()?;
        let started = Instant::now();
        // In a task of its own: a caller that is dropped meanwhile must not lose the notification.
        let committed = tokio::spawn(async move {
            self.transaction.commit().await?;
            self.live.notify(self.live_changes, self.begun);
            if self.due_changed {
                self.live.due_changed.notify_one();
            }
            for conference in &self.touched {
                self.changed.insert(conference, Change::Allocation);
            }
            // The next transaction begins when this one is dropped, after the notification.
            drop(self.transaction);
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

/// Whether a statement deleted [`PURGE_ROWS`], so that there may be more.
fn is_full(deleted: &SqliteQueryResult) -> bool {
    i64::try_from(deleted.rows_affected()).is_ok_and(|rows| rows >= PURGE_ROWS)
}

fn instant(millis: i64) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp_millis(millis)
        .ok_or_else(|| StoreError::Corrupt(format!("the instant {millis}")))
}

fn allocation_id(id: i64) -> Result<AllocationId> {
    AllocationId::new(id).ok_or_else(|| StoreError::Corrupt(format!("the conference id {id}")))
}

fn conference(room: &str, tenant: &str, domain: &str) -> Result<Conference> {
    Conference::from_canonical(room, tenant, domain)
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
