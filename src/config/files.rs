//! Reads the files that the configuration names, within bounds.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest file that is read: the configuration, a secret or tokens. A wrong path such as `/dev/zero`
/// must not fill the memory.
const FILE_MAX_BYTES: u64 = 1024 * 1024;
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads a file of bounded size as text, without the byte order mark that some editors write: it would become a
/// part of a secret.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(FILE_MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > FILE_MAX_BYTES {
        let message = format!("it is larger than {FILE_MAX_BYTES} bytes");
        return Err(io::Error::other(message));
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        text.remove(0);
    }
    Ok(text)
}

/// The entries of a directory, sorted.
pub(super) fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path()));
    let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Whether every user of the machine has any right to a file.
#[cfg(unix)]
pub(super) fn is_world_readable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
}

#[cfg(not(unix))]
pub(super) fn is_world_readable(_path: &Path) -> bool {
    false
}

/// Opens a file that is read later.
pub(super) fn check_readable(path: &Path) -> io::Result<()> {
    if File::open(path)?.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(())
}
