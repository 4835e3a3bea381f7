//! The one connection that writes, and its transactions, one at a time.
//!
//! There is no pool: between any two transactions it would ask the connection whether it still works, and take it
//! back in another task.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteTransactionManager};
use sqlx::{ConnectOptions, Connection, Error, SqlSafeStr, SqliteConnection};
use sqlx_core::transaction::TransactionManager;
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard};
use tokio::time::timeout;

/// The longest wait for the transactions before. Prosody gives up after 20 s.
const TURN_TIMEOUT: Duration = Duration::from_secs(8);

/// Takes the lock for writing at once: a deferred transaction can fail when it first writes.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// The connection that writes. Every clone is the same connection.
#[derive(Clone, Debug)]
pub(in crate::store) struct Writer {
    slot: Arc<Mutex<Slot>>,
    options: Arc<SqliteConnectOptions>,
}

#[derive(Debug)]
enum Slot {
    Open(SqliteConnection),
    /// No transaction begins after [`Writer::close`].
    Closed,
}

/// A transaction that may write. Dropped without [`Transaction::commit`], it is rolled back.
#[derive(Debug)]
pub(in crate::store) struct Transaction {
    connection: OwnedMappedMutexGuard<Slot, SqliteConnection>,
    ended: bool,
}

impl Writer {
    pub(super) fn new(connection: SqliteConnection, options: SqliteConnectOptions) -> Self {
        Self {
            slot: Arc::new(Mutex::new(Slot::Open(connection))),
            options: Arc::new(options),
        }
    }

    /// Waits for the transactions before and begins one.
    pub(in crate::store) async fn begin(&self) -> Result<Transaction, Error> {
        // From here on, so that a caller that is dropped meanwhile leaves no transaction open.
        let mut transaction = Transaction {
            connection: self.turn().await?,
            ended: false,
        };
        if transaction.connection.is_in_transaction() {
            // SQLite rolled back by itself, as it may on a full disk: sqlx can't close its transaction.
            *transaction.connection = self.options.connect().await?;
        }
        SqliteTransactionManager::begin(&mut transaction.connection, Some(BEGIN.into_sql_str()))
            .await?;
        Ok(transaction)
    }

    async fn turn(&self) -> Result<OwnedMappedMutexGuard<Slot, SqliteConnection>, Error> {
        let turn = timeout(TURN_TIMEOUT, Arc::clone(&self.slot).lock_owned()).await;
        let turn = turn.map_err(|_| Error::PoolTimedOut)?;
        let connection = OwnedMutexGuard::try_map(turn, |slot| match slot {
            Slot::Open(connection) => Some(connection),
            Slot::Closed => None,
        });
        connection.map_err(|_| Error::PoolClosed)
    }

    /// A number that changes when another connection has committed. All other connections of this process read only.
    pub(in crate::store) async fn data_version(&self) -> Result<i64, Error> {
        let mut connection = self.turn().await?;
        let version = sqlx::query_scalar("PRAGMA data_version");
        version.fetch_one(&mut *connection).await
    }

    /// Moves the log's content into the database and truncates the log, as far as no reader uses it.
    pub(in crate::store) async fn checkpoint(&self) -> Result<(), Error> {
        let mut connection = self.turn().await?;
        let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
        checkpoint.execute(&mut *connection).await?;
        Ok(())
    }

    /// Closes the connection after the transactions before. What was committed stays.
    pub(in crate::store) async fn close(&self) {
        let slot = std::mem::replace(&mut *self.slot.lock().await, Slot::Closed);
        if let Slot::Open(connection) = slot {
            // An error on closing does not change what was committed.
            let _ = connection.close().await;
        }
    }
}

impl Transaction {
    /// Makes the changes durable. The next transaction begins when this one is dropped.
    pub(in crate::store) async fn commit(&mut self) -> Result<(), Error> {
        SqliteTransactionManager::commit(&mut self.connection).await?;
        self.ended = true;
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.ended {
            // The next statement on this connection runs after it.
            SqliteTransactionManager::start_rollback(&mut self.connection);
        }
    }
}
