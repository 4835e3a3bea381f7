//! The generated secret, for a configuration without any key: a file beside the database, readable by its owner.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::domain::secret::Secret;
use crate::text::without_bom;

/// The random bytes of a secret.
const SECRET_BYTES: usize = 64;

/// The secret's path beside a database: `usher.secret` for `usher.db`.
#[must_use]
pub fn path(database: &Path) -> PathBuf {
    database.with_extension("secret")
}

/// Reads the secret, or creates it; the flag is true for a new secret.
///
/// # Errors
///
/// Those of reading or creating the file, and an empty file.
pub fn load_or_create(path: &Path) -> io::Result<(Secret, bool)> {
    match std::fs::read_to_string(path) {
        Ok(text) if without_bom(&text).trim().is_empty() => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"))
        }
        Ok(text) => Ok((Secret::new(without_bom(&text).trim().to_owned()), false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; SECRET_BYTES];
            aws_lc_rs::rand::fill(&mut bytes)
                .map_err(|_| io::Error::other("the system provides no random bytes"))?;
            let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            writeln!(file, "{secret}")?;
            file.sync_all()?;
            Ok((Secret::new(secret), true))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_secret_is_beside_the_database() {
        for (database, secret) in [
            ("usher.db", "usher.secret"),
            ("/var/lib/usher/usher.db", "/var/lib/usher/usher.secret"),
            ("/a/b.sqlite", "/a/b.secret"),
        ] {
            assert_eq!(path(Path::new(database)), Path::new(secret));
        }
    }

    #[test]
    fn a_secret_is_created_once_and_only_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("usher.secret");
        let (made, new) = load_or_create(&path).unwrap();
        assert!(new);
        assert_eq!(made.expose().len(), 2 * SECRET_BYTES);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let (read, new) = load_or_create(&path).unwrap();
        assert!(!new);
        assert_eq!(read.expose(), made.expose());
    }

    #[test]
    fn an_empty_secret_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("usher.secret");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(
            load_or_create(&path).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
