//! Copies the database: a snapshot of one instant, complete or not there.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sqlx::{Connection, SqliteConnection};

use super::{beside, connect_read_only, schema};
use crate::store::{Result, Schema, StoreError};

/// Copies the database to `file`, which only its owner can read. It is written as `FILE.part` and renamed when it is on
/// disk: an interrupted backup leaves no file that could be taken for a complete one, and the next one replaces what it
/// left.
pub(in crate::store) async fn back_up(url: &str, file: &Path) -> Result<()> {
    let failed = |problem: String| StoreError::Backup {
        file: file.to_owned(),
        problem,
    };
    if schema(url).await? == Schema::Foreign {
        return Err(StoreError::Foreign);
    }
    let mut database = connect_read_only(url).await?;
    let copied = copy(&mut database, file).await;
    // An error on closing does not change what was copied.
    let _ = database.close().await;
    copied.map_err(failed)
}

async fn copy(database: &mut SqliteConnection, file: &Path) -> std::result::Result<(), String> {
    let text = |error: io::Error| error.to_string();
    refuse_existing(file)?;
    let part = beside(file, ".part");
    let lock = open_part(&part)?;
    let copied = async {
        let name = part.to_str().ok_or("its name is not UTF-8; name another")?;
        // SQLite treats the empty file as a new database, and keeps its mode.
        let copy = sqlx::query("VACUUM INTO $1").bind(name);
        let copied = copy.execute(database).await;
        copied.map_err(|error| error.to_string())?;
        lock.sync_all().map_err(text)?;
        refuse_existing(file)?;
        std::fs::rename(&part, file).map_err(text)?;
        sync_directory_of(file).map_err(text)
    };
    let copied: std::result::Result<(), String> = copied.await;
    if copied.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    copied
}

fn refuse_existing(file: &Path) -> std::result::Result<(), String> {
    match file.symlink_metadata() {
        Ok(_) => Err("it is there already; name another".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Opens the empty file of a backup and locks it against another backup to the same file.
fn open_part(part: &PathBuf) -> std::result::Result<File, String> {
    let text = |error: io::Error| error.to_string();
    let busy = || format!("another backup writes {}", part.display());
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(part)
        .map_err(text)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(busy()),
        Err(TryLockError::Error(error)) => return Err(error.to_string()),
    }
    // The other backup may have renamed it since it was opened.
    let is_same = part
        .metadata()
        .is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
    if !is_same {
        return Err(busy());
    }
    file.set_len(0).map_err(text)?;
    Ok(file)
}

/// The name of a new file is durable only after its directory was synced.
fn sync_directory_of(file: &Path) -> io::Result<()> {
    let directory = file.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
