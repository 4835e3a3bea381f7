//! Durable state: bookings, allocations, the decision log, and the outbox to an upstream.
//!
//! What an answer says is on disk before the answer leaves. The SQL is kept to what SQLite and
//! PostgreSQL share (numbered parameters, no vendor functions); what differs between the two lives in
//! a file of its own ([`sqlite`]) and in the migrations.

mod allocations;
mod bookings;
mod decisions;
mod live;
mod outbox;
mod places;
pub mod sqlite;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::{QueryBuilder, Sqlite, SqlitePool};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
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
use writer::{Group, Writer};

/// Rows of one statement that has many: SQLite takes 32,766 values.
const ROWS: usize = 1000;

/// The handle to the database. Cheap to clone; every clone is the same database.
#[derive(Clone, Debug)]
pub struct Store {
    writer: Writer,
    read: SqlitePool,
    domain: Arc<str>,
}

/// One transaction that may write. Dropped without [`Tx::commit`], it leaves no trace.
///
/// It may see what others did whose commit is still to come, and share it. So whoever answers from what
/// they read in it commits it first, even if they changed nothing: then the answer holds.
#[derive(Debug)]
pub struct Tx {
    group: OwnedMutexGuard<Group>,
    writer: Writer,
    domain: Arc<str>,
    touches_live: bool,
    finished: bool,
}

/// What can go wrong with the database.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Two bookings of one room would overlap.
    #[error("the booking overlaps another")]
    Overlap,
    /// As many deletions wait for the upstream as may.
    #[error("the outbox is full: reservations.upstream.outbox_max deletions wait already")]
    OutboxFull,
    /// The disk is full, read-only or broken, or somebody holds the database for too long. It may be
    /// well again at the next try.
    #[error("the database can't be used right now: {0}")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// A row doesn't say what this version expects.
    #[error("the database holds {0}, which this version can't read")]
    Corrupt(String),
    /// The schema could not be brought up to date.
    #[error("the database schema could not be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The backup could not be made.
    #[error("the backup {file} could not be made: {problem}")]
    Backup {
        /// Where it was to go.
        file: PathBuf,
        /// Why not, and what to do.
        problem: String,
    },
    /// `database.url` can't be used.
    #[error("database.url: {0}")]
    Url(String),
    /// Anything else: a fault of ours.
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
    /// What was just written is not there: a fault of ours.
    pub(crate) fn missing_row() -> Self {
        sqlx::Error::RowNotFound.into()
    }
}

impl From<WorkerCrashed> for StoreError {
    fn from(_: WorkerCrashed) -> Self {
        sqlx::Error::WorkerCrashed.into()
    }
}

/// Short for this module's results.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Whose schema a database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// There is no database, or nothing in it yet.
    Missing,
    /// An earlier version's: opening it brings it up to date.
    Earlier,
    /// This version's.
    Current,
    /// A later version's, which this one doesn't open.
    Later,
}

impl Schema {
    /// That of the database at `url`, which is left as it is, and not made.
    ///
    /// # Errors
    ///
    /// [`StoreError::Url`] for a URL of no known kind, [`StoreError::Unavailable`] where the file can't be
    /// read.
    pub async fn at(url: &str) -> Result<Self> {
        sqlite::schema(url).await
    }
}

/// Copies the database at `url`, of whatever version, to `file`, which must not be there yet, as it is at one
/// instant. Others may write meanwhile; it is left as it is.
///
/// # Errors
///
/// [`StoreError::Unavailable`] where there is no database that can be read, [`StoreError::Backup`] where the
/// copy can't be made. Nothing is left of the file then.
pub async fn back_up(url: &str, file: &Path) -> Result<()> {
    sqlite::back_up(url, file).await
}

impl Store {
    /// Opens the database at `url`, making it if there is none, and brings its schema up to date.
    /// `domain` is the XMPP domain that its rooms belong to.
    ///
    /// # Errors
    ///
    /// [`StoreError::Url`] for a URL of no known kind, [`StoreError::Unavailable`] where the file can't
    /// be opened, [`StoreError::Migration`] for a schema of a later version.
    pub async fn open(url: &str, domain: &str) -> Result<Self> {
        let (writer, read) = sqlite::open(url).await?;
        let domain = domain.into();
        Ok(Self {
            writer,
            read,
            domain,
        })
    }

    /// Begins a transaction that may write. One writes at a time: what is read in it holds until it is
    /// committed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if its turn doesn't come in time.
    pub async fn begin(&self) -> Result<Tx> {
        let asked = Instant::now();
        let group = self.writer.turn().await?;
        let mut tx = Tx {
            group,
            writer: self.writer.clone(),
            domain: Arc::clone(&self.domain),
            touches_live: false,
            finished: false,
        };
        // In a task of its own: others share the transaction, and must not find it half begun when whoever
        // asks goes away.
        let begun = tokio::spawn(async move {
            tx.group.enter().await?;
            Ok(tx)
        });
        let begun = begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))?;
        metrics::observe_store_wait("turn", asked.elapsed());
        Ok(begun)
    }

    /// Waits until a transaction has changed which conferences are live, or when one goes live by itself: a
    /// hint to look, not the truth, which is in the table.
    pub(crate) async fn live_changed(&self) {
        self.writer.live_changed().await;
    }

    /// Whether the database takes a durable write at this moment.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn probe(&self, now: DateTime<Utc>) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE probe SET probed_at = $1")
            .bind(now.timestamp_millis())
            .execute(tx.group.connection()?)
            .await?;
        tx.commit().await
    }

    /// Closes every connection; what was committed stays.
    pub async fn close(&self) {
        self.read.close().await;
        self.writer.close().await;
    }
}

impl Tx {
    /// Makes everything done in this transaction durable.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the disk doesn't take it: nothing was done then.
    pub async fn commit(mut self) -> Result<()> {
        let asked = Instant::now();
        self.finished = true;
        let outcome = self.group.finish(self.touches_live);
        let writer = self.writer.clone();
        drop(self);
        // In a task of its own: others share the commit, whether or not whoever asked still waits for it.
        let committed = tokio::spawn(async move { writer.share(outcome).await }).await;
        metrics::observe_store_wait("commit", asked.elapsed());
        let committed = committed.unwrap_or_else(|_| Err(Arc::new(sqlx::Error::WorkerCrashed)));
        committed.map_err(|error| {
            metrics::store_failed("unavailable");
            StoreError::Unavailable(error)
        })
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if !self.finished
            && let Ok(runtime) = Handle::try_current()
        {
            let writer = self.writer.clone();
            runtime.spawn(async move { writer.tidy().await });
        }
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

/// The same as a table `asked (column1, column2)` to join others with: SQLite finds their rows by an index then,
/// which it doesn't with `IN`.
fn push_values_as_table(statement: &mut QueryBuilder<Sqlite>, conferences: &[&Conference]) {
    statement.push("(");
    push_names(statement, conferences);
    statement.push(") AS asked");
}

/// The stored form of a tenant: '' is none.
fn tenant_of(conference: &Conference) -> &str {
    conference.tenant().unwrap_or_default()
}
