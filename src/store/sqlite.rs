//! SQLite: the file, its pragmas, the pools of connections, and the meaning of error codes.

mod backup;
mod file;
mod writer;

use std::cmp::Ordering;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};

pub(super) use backup::back_up;
pub(super) use file::{DatabaseFile, ServiceLock};
pub(super) use writer::{Transaction, Writer};

use super::{Result, Schema, StoreError};

/// Readers beside the one writer; two cores can't use more.
const READERS: u32 = 4;
/// The longest wait for a connection that reads.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(8);
/// The longest wait for a lock of another process (a backup, `usher bookings`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// Opens the connection that writes, and the pool of the readers.
pub(super) async fn open(url: &str) -> Result<(Writer, SqlitePool)> {
    let options = options(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What was answered holds even if the power fails right after the answer.
        .synchronous(SqliteSynchronous::Full);
    let file = file_of(url);
    let mark = file.as_deref().and_then(file::mark_new);
    if mark.is_none() && file.is_some() && matches!(schema(url).await?, Schema::Foreign) {
        return Err(StoreError::Foreign);
    }
    if let Some(file) = &file {
        create_private(file);
    }

    let mut connection = options.connect().await?;
    MIGRATIONS.run_direct(None, &mut connection, false).await?;
    if let Some(mark) = mark {
        let _ = std::fs::remove_file(mark);
    }
    let write = Writer::new(connection, options.clone());
    let read = SqlitePoolOptions::new()
        .max_connections(READERS)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options.read_only(true).create_if_missing(false))
        .await?;
    Ok((write, read))
}

/// The file of the database at `url`; `None` for a database in memory or an unknown kind of URL.
#[must_use]
pub fn file_of(url: &str) -> Option<PathBuf> {
    url.strip_prefix("sqlite:")?;
    let options = SqliteConnectOptions::from_str(url).ok()?;
    let file = options.get_filename();
    // sqlx gives ":memory:" a name of its own.
    let is_in_memory = file.to_string_lossy().starts_with("file:sqlx-in-memory-")
        || url.split(['?', '&']).any(|part| part == "mode=memory");
    (!is_in_memory && !file.as_os_str().is_empty()).then(|| file.to_owned())
}

fn options(url: &str) -> Result<SqliteConnectOptions> {
    let options = SqliteConnectOptions::from_str(url).map_err(|error| {
        StoreError::Url(format!("{error}; write it as \"sqlite:/path/usher.db\""))
    })?;
    Ok(options.busy_timeout(BUSY_TIMEOUT).foreign_keys(true))
}

/// Creates the file with access for its owner only, since it holds passwords of rooms; SQLite would make it
/// readable by all. An existing file keeps its mode. SQLite reports errors in the next step.
fn create_private(file: &Path) {
    let _ = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
}

/// A read-only connection, which neither creates a database nor changes its schema.
async fn connect_read_only(url: &str) -> Result<SqliteConnection> {
    Ok(options(url)?.read_only(true).connect().await?)
}

/// The version of the schema of the database at `url`.
pub(super) async fn schema(url: &str) -> Result<Schema> {
    let database = options(url)?;
    match database.get_filename().metadata() {
        Ok(about) if about.len() == 0 => return Ok(Schema::Missing),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Schema::Missing),
        Err(error) => return Err(sqlx::Error::Io(error).into()),
    }
    let mut connection = connect_read_only(url).await?;
    let tables: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM sqlite_master WHERE name IN ('_sqlx_migrations', 'booking')",
    )
    .fetch_one(&mut connection)
    .await?;
    let newest: Option<i64> = match tables {
        2 => {
            let newest = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations");
            newest.fetch_one(&mut connection).await?
        }
        _ => None,
    };
    // An error on closing does not change what was read.
    let _ = connection.close().await;
    if newest.is_none() {
        return Ok(Schema::Foreign);
    }
    let ours = MIGRATIONS.iter().map(|migration| migration.version).max();
    Ok(match newest.cmp(&ours) {
        Ordering::Less => Schema::Earlier,
        Ordering::Equal => Schema::Current,
        Ordering::Greater => Schema::Later,
    })
}

/// The path of a file beside another one, as SQLite names its own.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The kind of an error for the caller.
///
/// SQLite's primary result codes: 5 busy, 6 locked, 8 read-only, 10 I/O error, 13 full, 14 can't open,
/// 23 authorisation, 26 not a database.
pub(super) fn classify(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Io(_) => StoreError::Unavailable(error),
        sqlx::Error::Database(database) if database.message().contains("booking_overlap") => {
            StoreError::Overlap
        }
        sqlx::Error::Database(database) => {
            let code = database
                .code()
                .and_then(|code| code.parse::<u32>().ok())
                .unwrap_or(0);
            match code & 0xff {
                5 | 6 | 8 | 10 | 13 | 14 | 23 | 26 => StoreError::Unavailable(error),
                _ => StoreError::Other(error),
            }
        }
        _ => StoreError::Other(error),
    }
}

#[cfg(test)]
mod tests;
