//! SQLite: the file, its pragmas, the pools of connections, and the meaning of error codes.

mod writer;

use std::cmp::Ordering;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};

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
    if let Some(file) = file_of(url) {
        create_private(&file);
    }

    let mut connection = options.connect().await?;
    MIGRATIONS.run_direct(None, &mut connection, false).await?;
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
    let tables = "SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'";
    let tables: i64 = sqlx::query_scalar(tables)
        .fetch_one(&mut connection)
        .await?;
    let newest: Option<i64> = match tables {
        0 => None,
        _ => {
            let newest = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations");
            newest.fetch_one(&mut connection).await?
        }
    };
    // An error on closing does not change what was read.
    let _ = connection.close().await;
    let ours = MIGRATIONS.iter().map(|migration| migration.version).max();
    Ok(match newest.cmp(&ours) {
        Ordering::Less => Schema::Earlier,
        Ordering::Equal => Schema::Current,
        Ordering::Greater => Schema::Later,
    })
}

/// Copies the database to a file that only its owner can read: a snapshot of one instant.
pub(super) async fn back_up(url: &str, file: &Path) -> Result<()> {
    let failed = |problem: String| StoreError::Backup {
        file: file.to_owned(),
        problem,
    };
    let mut database = connect_read_only(url).await?;
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => failed("it is there already; name another".to_owned()),
            _ => failed(error.to_string()),
        })?;
    // SQLite treats the empty file as a new database, and keeps its mode.
    let copied = async {
        let name = file.to_str().ok_or("its name is not UTF-8; name another")?;
        let copy = sqlx::query("VACUUM INTO $1").bind(name);
        let copied = copy.execute(&mut database).await;
        copied.map_err(|error| error.to_string())?;
        let synced = made.sync_all().and_then(|()| sync_directory_of(file));
        synced.map_err(|error| error.to_string())
    };
    let copied: std::result::Result<(), String> = copied.await;
    let _ = database.close().await;
    copied.map_err(|problem| {
        // An incomplete backup must not be taken for a complete one.
        let _ = std::fs::remove_file(file);
        failed(problem)
    })
}

/// The name of a new file is durable only after its directory was synced.
fn sync_directory_of(file: &Path) -> io::Result<()> {
    let directory = file.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
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
