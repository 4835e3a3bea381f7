//! SQLite: the file, its pragmas, the pools of connections, and the meaning of error codes.

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

use super::{Result, Schema, StoreError};

/// Readers beside the one writer; two cores can't use more.
const READERS: u32 = 4;
/// The longest wait for a connection, that is, for the transactions before. Prosody gives up after 20 s.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(8);
/// The longest wait for a lock of another process (a backup, `usher bookings`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes the lock for writing at once: a deferred transaction can fail when it first writes.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// Opens the pool of the writer, which is one connection, and that of the readers.
pub(super) async fn open(url: &str) -> Result<(SqlitePool, SqlitePool)> {
    let options = options(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What was answered holds even if the power fails right after the answer.
        .synchronous(SqliteSynchronous::Full);
    create_private(options.get_filename());

    let write = pool(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // Where SQLite rolled back by itself, as it may on a full disk, sqlx's transaction can't be closed:
        // the pool replaces the connection.
        .before_acquire(|connection, _| {
            let usable = !connection.is_in_transaction();
            Box::pin(async move { Ok(usable) })
        })
        .connect_with(options.clone())
        .await?;
    MIGRATIONS.run(&write).await?;
    let read = pool(READERS)
        .connect_with(options.read_only(true).create_if_missing(false))
        .await?;
    Ok((write, read))
}

/// The file of the database at `url`; `None` for a database in memory or an unknown kind of URL.
#[must_use]
pub fn file_of(url: &str) -> Option<PathBuf> {
    let options = SqliteConnectOptions::from_str(url).ok()?;
    let file = options.get_filename();
    let in_memory = file.to_str()?.starts_with("file:") || file.as_os_str().is_empty();
    (!in_memory).then(|| file.to_owned())
}

fn options(url: &str) -> Result<SqliteConnectOptions> {
    let options = SqliteConnectOptions::from_str(url).map_err(|error| {
        StoreError::Url(format!("{error}; write it as \"sqlite:/path/usher.db\""))
    })?;
    Ok(options.busy_timeout(BUSY_TIMEOUT).foreign_keys(true))
}

fn pool(size: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(size)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
}

/// Makes the file readable by its owner alone before SQLite makes it readable by all: it holds
/// passwords of rooms. A file that is there keeps its mode, and what can't be made here is reported by
/// SQLite in the next step.
fn create_private(file: &Path) {
    let _ = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
}

/// One reader, which neither makes a database nor brings its schema up to date.
async fn look(url: &str) -> Result<SqliteConnection> {
    let looking = options(url)?.read_only(true);
    Ok(looking.connect().await?)
}

/// Whose schema the database at `url` has.
pub(super) async fn schema(url: &str) -> Result<Schema> {
    let database = options(url)?;
    match database.get_filename().metadata() {
        Ok(about) if about.len() == 0 => return Ok(Schema::Missing),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Schema::Missing),
        Err(error) => return Err(sqlx::Error::Io(error).into()),
    }
    let mut connection = look(url).await?;
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
    // What was read was read; a connection that can't be closed well is closed all the same.
    let _ = connection.close().await;
    let ours = MIGRATIONS.iter().map(|migration| migration.version).max();
    Ok(match newest.cmp(&ours) {
        Ordering::Less => Schema::Earlier,
        Ordering::Equal => Schema::Current,
        Ordering::Greater => Schema::Later,
    })
}

/// Copies the database as it is at one instant, for its owner alone.
pub(super) async fn back_up(url: &str, file: &Path) -> Result<()> {
    let failed = |problem: String| StoreError::Backup {
        file: file.to_owned(),
        problem,
    };
    let mut database = look(url).await?;
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => failed("it is there already; name another".to_owned()),
            _ => failed(error.to_string()),
        })?;
    // An empty file is taken for a new database, and keeps its mode.
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
        // Half a backup is worse than none.
        let _ = std::fs::remove_file(file);
        failed(problem)
    })
}

/// A new file's name is in its directory, which is on disk by itself.
fn sync_directory_of(file: &Path) -> io::Result<()> {
    let directory = file.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// What an error means for the caller.
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
mod tests {
    use chrono::DateTime;

    use super::super::{BookingFilter, DecisionFilter, Store};
    use super::*;
    use crate::domain::conference::Conference;

    /// The first schemas, as databases have them that are in use: the SHA-384 of each file. A change to one is
    /// refused by every such database ("was previously applied but has been modified"); it takes a new file.
    const FROZEN: [(i64, &str); 4] = [
        (
            1,
            "41026836aa2253baf52b64751e962dee7e7156ee8b1e0c032fb7b0502ff0332321d55d6ade2c43fd69c390b83da10239",
        ),
        (
            2,
            "46da9ffdc96e4c7edf1cca08a86bfe15dae2b09d9899e2a8326d395912294145d0a674fa79d0c76bbf62fe2168edbefa",
        ),
        (
            3,
            "b729a44ce60af92cf68cf7d362fd076233cc80db7ce6359d26f779aaf5bb59a608db3e7144aee068aec0df3d1c302f4e",
        ),
        (
            4,
            "ca21a8c0194f1b801927a6f99ce5fee87aed6aeb8f8fb10c70e7c1ce20aa6dd1105e210c82b5a246ad72f0dca07ab7cd",
        ),
    ];

    /// What came to be kept with each of them.
    const CONTENT: [&str; 4] = [
        "INSERT INTO booking (room, tenant, title, starts_at, ends_at, lobby, waiting_queue, created_at, changed_at)
            VALUES ('standup', '', 'Stand-up', 1000, 9000, 0, 1, 1000, 1000);
        INSERT INTO allocation (id, room, tenant, name, mail_owner, booking_id, starts_at, ends_at, lobby, waiting_queue, created_at)
            VALUES (42, 'standup', '', 'standup', '', 1, 1000, 2000, 0, 1, 1000);
        INSERT INTO decision (decided_at, room, tenant, mail_owner, outcome, reason, sentence, allocation_id)
            VALUES (1000, 'standup', '', '', 'allowed', 'booked', 'It is booked.', 42);",
        "INSERT INTO live (room, tenant, live_since, live_until) VALUES ('standup', '', 1500, 9000);
        UPDATE booking SET auto_live = 5;",
        "INSERT INTO upstream_conference (upstream_id, room, tenant, name, mail_owner, waiting_queue, ends_at)
            VALUES ('a7', 'standup', '', 'standup', '', 1, 9000);
        INSERT INTO outbox (upstream_id, room, tenant, accepted_at, attempts, next_at)
            VALUES ('a7', 'standup', '', 1000, 2, 3000);",
        "INSERT INTO place (number, room, tenant, token) VALUES (1, 'standup', '', x'00112233445566778899aabbccddeeff');",
    ];

    #[test]
    fn migrations_that_databases_went_through_stay_what_they_are() {
        let hex =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        let found: Vec<_> = MIGRATIONS
            .iter()
            .map(|one| (one.version, hex(&one.checksum)))
            .collect();
        for (version, checksum) in FROZEN {
            assert!(
                found.contains(&(version, checksum.to_owned())),
                "{version}: {found:?}"
            );
        }
    }

    /// A database of the schema `version`, with what it can hold.
    async fn database_of(version: i64, url: &str) {
        let options = SqliteConnectOptions::from_str(url).unwrap();
        let database = pool(1)
            .connect_with(options.create_if_missing(true))
            .await
            .unwrap();
        MIGRATIONS.run_to(version, &database).await.unwrap();
        for ((since, _), content) in FROZEN.iter().zip(CONTENT) {
            if *since <= version {
                sqlx::raw_sql(content).execute(&database).await.unwrap();
            }
        }
        database.close().await;
    }

    #[tokio::test]
    async fn database_of_each_schema_opens_and_keeps_its_content() {
        let standup = Conference::from_names("standup", None, "meet.example.com").unwrap();
        let at = |millis| DateTime::from_timestamp_millis(millis).unwrap();
        let versions: Vec<i64> = MIGRATIONS.iter().map(|one| one.version).collect();
        assert!(versions.len() >= FROZEN.len());
        for version in versions {
            let dir = tempfile::tempdir().unwrap();
            let url = format!("sqlite:{}", dir.path().join("usher.db").display());
            database_of(version, &url).await;

            let store = Store::open(&url, "meet.example.com").await.unwrap();
            let filter = BookingFilter {
                limit: 10,
                ..BookingFilter::default()
            };
            let bookings = store.bookings(&filter).await.unwrap();
            assert_eq!(bookings.len(), 1);
            let draft = &bookings[0].draft;
            assert_eq!(
                (draft.title.as_deref(), draft.start),
                (Some("Stand-up"), at(1000))
            );
            assert_eq!(draft.auto_live, (version >= 2).then_some(5));
            assert_eq!(store.unended(&standup).await.unwrap().unwrap().id.get(), 42);
            let filter = DecisionFilter {
                limit: 10,
                ..DecisionFilter::default()
            };
            assert_eq!(store.decisions(&filter).await.unwrap().len(), 1);

            let live = store.live().await.unwrap();
            let since: Vec<_> = live
                .iter()
                .map(|live| (&live.conference, live.since))
                .collect();
            assert_eq!(
                since,
                if version >= 2 {
                    vec![(&standup, at(1500))]
                } else {
                    vec![]
                }
            );
            let runs = store.upstream_conference("a7").await.unwrap();
            assert_eq!(
                runs.map(|row| (row.conference, row.end)),
                (version >= 3).then(|| (standup.clone(), at(9000)))
            );
            let outbox = store.outbox(0, 10).await.unwrap();
            let waits: Vec<_> = outbox
                .iter()
                .map(|it| (it.conference_id.as_str(), it.attempts))
                .collect();
            assert_eq!(
                waits,
                if version >= 3 {
                    vec![("a7", 2)]
                } else {
                    vec![]
                }
            );
            let mut tx = store.begin().await.unwrap();
            let places = tx.take_places().await.unwrap();
            assert_eq!(places.len(), usize::from(version >= 4));
            assert!(
                places
                    .iter()
                    .all(|place| place.conference == standup && place.token[1] == 0x11)
            );
            tx.commit().await.unwrap();
            store.close().await;
        }
    }
}
