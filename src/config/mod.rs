//! The configuration: where it is read from, and one file for each section, with its keys, defaults and ranges.
//! The only place that reads the configuration file and its environment variables.
//!
//! A value comes from the environment (`USHER_SECTION__KEY`, unless it is empty), else from the file, else it is the default. A
//! configuration with mistakes is refused; the error names all of them, each with its key, its line and a hint.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

mod auth;
mod auth_service;
mod database;
mod error;
mod files;
mod gateway;
mod input;
mod log;
mod prosody;
mod queue;
mod reader;
mod reload;
mod reservations;
mod server;
#[cfg(test)]
mod tests;
mod unknown;
mod value;
mod xmpp;

pub use auth::{Auth, SecretAlgorithm};
pub use auth_service::{Service, ServiceToken};
pub use database::Database;
pub use error::{ConfigError, ConfigIssue};
pub use gateway::{OnFailure, Upstream};
pub use log::{Log, LogFormat, LogLevel};
pub use prosody::{Prosody, WithoutLobby};
pub use queue::Queue;
pub use reservations::{Backend, Reservations};
pub use server::Server;
pub use value::parse_duration;
pub use xmpp::Xmpp;

use reader::Reader;
use reload::Fixed;

/// The prefix of usher's environment variables.
const ENVIRONMENT_PREFIX: &str = "USHER_";

/// Where the file is searched for if none is named: in the working directory, and where the package has it.
const LOCAL_FILE: &str = "./config.toml";
const PACKAGE_FILE: &str = "/etc/jitsi/usher/config.toml";

/// What a configuration is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To run the service.
    Serve,
    /// To work beside the service with another command.
    Command,
}

impl Purpose {
    /// The usual files, in the order of the search. A command works on the service of this machine, wherever it is
    /// entered: in a source tree, `./config.toml` is the example of the project.
    fn usual_files(self) -> [&'static Path; 2] {
        let files = match self {
            Self::Serve => [LOCAL_FILE, PACKAGE_FILE],
            Self::Command => [PACKAGE_FILE, LOCAL_FILE],
        };
        files.map(Path::new)
    }
}

/// Everything that can be configured. `config.toml` explains the same keys to operators.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `[server]`: the socket of Prosody, nginx and the operator.
    pub server: Server,
    /// `[log]`: log lines on standard error.
    pub log: Log,
    /// `[database]`: bookings, running conferences and decisions.
    pub database: Database,
    /// `[xmpp]`: names in Prosody's configuration.
    pub xmpp: Xmpp,
    /// `[auth]`: which tokens are valid.
    pub auth: Auth,
    /// `[reservations]`: which conferences may start, when, and for how long.
    pub reservations: Reservations,
    /// `[queue]`: the visitors who wait until a conference goes live.
    pub queue: Queue,
    /// `[prosody]`: the protocol of usher's modules for Prosody.
    pub prosody: Prosody,
    /// Found while reading; a part of [`Config::warnings`].
    file_warnings: Vec<String>,
    /// The files that it names.
    files: Vec<PathBuf>,
}

/// Where a configuration was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// No file: the built-in defaults.
    Defaults,
}

impl Source {
    /// The usual file that this one has precedence over, if it is there, too.
    #[must_use]
    pub fn passed_over(&self) -> Option<&'static Path> {
        let Self::File(read) = self else { return None };
        let usual = Purpose::Serve.usual_files();
        let is_usual = usual.contains(&read.as_path());
        let mut others = usual.into_iter().filter(|file| file != read);
        others.find(|file| is_usual && file.exists() && !is_same_file(file, read))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Defaults => f.write_str("the built-in defaults"),
        }
    }
}

impl Config {
    /// Reads `path`, or the first of the usual files that exists, or only the defaults; then the environment,
    /// which has precedence.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or all mistakes of the configuration.
    pub fn load(path: Option<&Path>) -> Result<(Self, Source), ConfigError> {
        Self::load_for(Purpose::Serve, path)
    }

    /// The same for another purpose, with its own order of the usual files.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_for(purpose: Purpose, path: Option<&Path>) -> Result<(Self, Source), ConfigError> {
        let (text, source) = match path {
            Some(path) => (read_file(path)?, Source::File(path.to_owned())),
            None => find_file(purpose.usual_files())?,
        };
        let source_name = source.to_string();
        let base_dir = match &source {
            Source::File(path) => path.parent().unwrap_or(Path::new("")),
            Source::Defaults => Path::new(""),
        };
        let environment = environment(&source_name)?;
        let config = Self::parse(&text, &source_name, base_dir, environment)?;
        Ok((config, source))
    }

    /// Reads a configuration from values, and the files that they name. Relative paths start at `base_dir`.
    ///
    /// # Errors
    ///
    /// All mistakes of the configuration.
    pub fn parse(
        text: &str,
        source_name: &str,
        base_dir: &Path,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let error = |issues| ConfigError {
            source_name: source_name.to_owned(),
            issues,
        };
        // Docker passes variables that are not set as empty ones.
        let is_set = |(_, value): &(String, String)| !value.trim().is_empty();
        let environment = env.into_iter().filter(is_set).collect();
        let mut read = Reader::new(text, &environment, base_dir).map_err(error)?;
        let mut config = Self::read(&mut read);
        let files = read.files();
        let (issues, warnings) = read.finish();
        if !issues.is_empty() {
            return Err(error(issues));
        }
        (config.file_warnings, config.files) = (warnings, files);
        Ok(config)
    }

    fn read(read: &mut Reader<'_>) -> Self {
        let config = Self {
            server: Server::read(read),
            log: Log::read(read),
            database: Database::read(read),
            xmpp: Xmpp::read(read),
            auth: Auth::read(read),
            reservations: Reservations::read(read),
            queue: Queue::read(read),
            prosody: Prosody::read(read),
            file_warnings: Vec::new(),
            files: Vec::new(),
        };
        config.server.check_listen_is_protected(&config.auth, read);
        config
    }

    /// The files that the configuration names: secrets, tokens, keys.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter()
    }

    /// Problems that do not prevent the start: keys without effect, secrets that are short or that every user
    /// can read, unencrypted connections. For the log and `usher check`.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.file_warnings.clone();
        warnings.extend(self.auth.warnings());
        warnings.extend(self.reservations.warnings());
        warnings.extend(self.queue.warnings());
        warnings
    }

    /// The configuration after a reload of `new`, and the keys whose new values require a restart. They keep
    /// their present values.
    #[must_use]
    pub fn reload(&self, mut new: Self) -> (Self, Vec<&'static str>) {
        let mut fixed = Fixed::default();
        self.keep_fixed(&mut new, &mut fixed);
        (new, fixed.changed)
    }

    fn keep_fixed(&self, new: &mut Self, fixed: &mut Fixed) {
        self.server.keep_fixed(&mut new.server, fixed);
        self.log.keep_fixed(&mut new.log, fixed);
        self.database.keep_fixed(&mut new.database, fixed);
        self.xmpp.keep_fixed(&mut new.xmpp, fixed);
        self.reservations.keep_fixed(&mut new.reservations, fixed);
        self.queue.keep_fixed(&mut new.queue, fixed);
        self.prosody.keep_fixed(&mut new.prosody, fixed);
    }
}

/// The first of the usual files that exists. One that exists but cannot be read is an error: the next one might
/// have other settings.
fn find_file(usual: [&Path; 2]) -> Result<(String, Source), ConfigError> {
    for path in usual {
        match files::read_text(path) {
            Ok(text) => return Ok((text, Source::File(path.to_owned()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
    Ok((String::new(), Source::Defaults))
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let canonical = one.canonicalize().ok();
    canonical.is_some() && canonical == other.canonicalize().ok()
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    files::read_text(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    ConfigError {
        source_name: path.display().to_string(),
        issues: vec![ConfigIssue {
            key: String::new(),
            line: None,
            message: format!("the configuration cannot be read: {error}"),
            hint: match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "Run the command with sudo, or name another file with --config FILE."
                }
                io::ErrorKind::InvalidData => {
                    "Save it as UTF-8 text, or name another file with --config FILE."
                }
                _ => "Name a readable file with --config FILE.",
            }
            .to_owned(),
        }],
    }
}

/// usher's variables. `std::env::vars` would panic at any variable that is not UTF-8.
fn environment(source_name: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut environment = BTreeMap::new();
    let mut issues = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with(ENVIRONMENT_PREFIX) {
            continue;
        }
        match value.into_string() {
            Ok(value) => {
                environment.insert(name.to_owned(), value);
            }
            Err(_) => issues.push(ConfigIssue {
                key: name.to_owned(),
                line: None,
                message: "is not UTF-8".to_owned(),
                hint: "Write it in ASCII or UTF-8.".to_owned(),
            }),
        }
    }
    if issues.is_empty() {
        return Ok(environment);
    }
    Err(ConfigError {
        source_name: source_name.to_owned(),
        issues,
    })
}
