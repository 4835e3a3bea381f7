//! Reads the files of the configuration, within bounds.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest file that is read, be it configuration, secret or tokens. A wrong path
/// (`/dev/zero`) must not eat the memory.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Reads a file of bounded size as text.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(FILE_MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > FILE_MAX_BYTES {
        let message = format!("it is larger than {FILE_MAX_BYTES} bytes");
        return Err(io::Error::other(message));
    }
    Ok(text)
}

/// What is in a directory, in order.
pub(super) fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path()));
    let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Whether every user of the machine may do something with a file.
#[cfg(unix)]
pub(super) fn open_to_everyone(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
}

#[cfg(not(unix))]
pub(super) fn open_to_everyone(_path: &Path) -> bool {
    false
}

/// Whether a file could be read: whoever needs it reads it later.
pub(super) fn check_readable(path: &Path) -> io::Result<()> {
    if File::open(path)?.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(())
}
