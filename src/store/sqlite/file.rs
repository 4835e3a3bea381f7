//! The file of a database: whether it is still the open one, and which process serves it.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{beside, file_of};
use crate::store::{Result, StoreError};

/// Compares the file at the path with the one that was opened. It never opens the file: closing it again would drop the
/// locks that SQLite holds on it in this process.
#[derive(Debug)]
pub(in crate::store) struct DatabaseFile {
    /// `None` for a database in memory.
    opened: Option<(PathBuf, u64, u64)>,
}

impl DatabaseFile {
    /// Remembers which file is at the path; call it while the database is open.
    pub(in crate::store) fn opened(url: &str) -> Self {
        let opened = file_of(url).and_then(|path| {
            let about = path.metadata().ok()?;
            Some((path, about.dev(), about.ino()))
        });
        Self { opened }
    }

    /// Checks that what is written reaches the file at the path.
    ///
    /// # Errors
    ///
    /// [`StoreError::FileLost`] if the file is gone or another one is in its place.
    pub(in crate::store) fn check(&self) -> Result<()> {
        let Some((path, dev, ino)) = &self.opened else {
            return Ok(());
        };
        let is_same = |about: &Metadata| (about.dev(), about.ino()) == (*dev, *ino);
        let change = match path.metadata() {
            Ok(about) if is_same(&about) => return Ok(()),
            Ok(_) => "replaced",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "removed",
            // Its directory can't be searched at the moment: nothing is known of the file.
            Err(_) => return Ok(()),
        };
        let path = path.clone();
        Err(StoreError::FileLost { path, change })
    }
}

/// The right of one process to serve a database: a lock on a file of its own beside it, since closing any file
/// descriptor of the database would drop the locks of SQLite. The kernel releases it with the process.
#[derive(Debug)]
pub(in crate::store) struct ServiceLock(File);

impl ServiceLock {
    /// Acquires the lock; `None` for a database in memory.
    ///
    /// # Errors
    ///
    /// [`StoreError::Served`] if another process holds it.
    pub(in crate::store) fn acquire(url: &str) -> Result<Option<Self>> {
        let Some(path) = file_of(url) else {
            return Ok(None);
        };
        // One file under two names is one database.
        let path = path.canonicalize().unwrap_or(path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(beside(&path, "-lock"))
            .map_err(sqlx::Error::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Served {
                    process: process_in(&mut file),
                    path,
                });
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, file = %path.display(), "the file system does not support locks: a second usher on this database would not be noticed");
                return Ok(None);
            }
        }
        // Only the message to a second process uses it.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Some(Self(file)))
    }

    /// Releases the lock, even if other parts of the process still hold the handle.
    pub(in crate::store) fn release(&self) {
        let _ = self.0.unlock();
    }
}

/// What the message says of the process that holds the lock.
fn process_in(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(id)) => format!("process {id}"),
        _ => "another process".to_owned(),
    }
}

/// Marks a database as one that is being created, so that an interrupted start can be repeated: an existing database
/// without usher's tables is refused otherwise. Returns the mark to remove when its tables are there.
pub(in crate::store) fn mark_new(path: &Path) -> Option<PathBuf> {
    let mark = beside(path, "-new");
    let is_empty = path.metadata().map_or(true, |about| about.len() == 0);
    if is_empty {
        // Without the mark, only the repetition after a crash is refused.
        let _ = File::create(&mark);
    }
    mark.exists().then_some(mark)
}
