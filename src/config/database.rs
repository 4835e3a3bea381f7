//! `[database]`: bookings, running conferences and decisions.

use super::input::Invalid;
use super::reader::Reader;
use super::reload::Fixed;
use super::value::text_value;

/// `[database]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// `sqlite:` and a path, relative to the working directory. usher creates a missing file; SQLite keeps two
    /// more files beside it (`-wal`, `-shm`), so usher needs the right to write to that directory.
    pub url: String,
}

const DEFAULT_URL: &str = "sqlite:usher.db";

impl Default for Database {
    fn default() -> Self {
        Self {
            url: DEFAULT_URL.to_owned(),
        }
    }
}

impl Database {
    pub(super) fn read(read: &mut Reader<'_>) -> Self {
        let mut it = Self::default();
        read.set::<DatabaseUrl, _>("database.url", &mut it.url);
        it
    }

    pub(super) fn keep_fixed(&self, new: &mut Self, fixed: &mut Fixed) {
        fixed.keep("database.url", &self.url, &mut new.url);
    }
}

text_value!(DatabaseUrl(String), database_url);

/// No issue repeats the URL: it may contain a password.
fn database_url(url: String) -> Result<String, Invalid> {
    let message = match url.split_once(':') {
        Some(("sqlite", "" | "//")) => "names no file",
        Some(("sqlite", _)) => return Ok(url),
        Some(("postgres" | "postgresql", _)) => {
            "names a PostgreSQL database, but this version supports SQLite only"
        }
        _ => "is not the URL of a SQLite database",
    };
    let hint = format!("Write \"{DEFAULT_URL}\" or another file.");
    Err(Invalid::new(message, hint))
}

#[cfg(test)]
mod tests {
    use super::super::value::tests::{decoded, rejects};
    use super::*;

    #[test]
    fn database_is_a_sqlite_file() {
        let hint = "\"sqlite:usher.db\"";
        rejects::<DatabaseUrl>(&[
            (
                "'postgres://me:8675309@localhost/usher'",
                "supports SQLite only",
                hint,
            ),
            ("'postgresql:usher'", "supports SQLite only", hint),
            (
                "'mysql://me:8675309@localhost/usher'",
                "not the URL of a SQLite database",
                hint,
            ),
            ("'usher.db'", "not the URL of a SQLite database", hint),
            ("'sqlite:'", "names no file", hint),
            ("'sqlite://'", "names no file", hint),
            ("''", "is empty", "Give it a value"),
        ]);
        for url in ["postgres", "mysql"] {
            let url = format!("'{url}://me:8675309@localhost/usher'");
            let invalid = decoded::<DatabaseUrl>(&url).unwrap_err();
            assert!(!invalid.to_string().contains("8675309"), "{invalid}");
        }
    }
}
