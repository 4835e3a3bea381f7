//! The configuration: its schema (which is the manual, too), where it is found, and `Secret`.
//! The only place that reads the configuration file or the environment.
//!
//! A value comes from the environment (`USHER_SECTION__KEY`), else from the file, else from the
//! defaults. Whatever is wrong stops the start, and all of it is named at once, each mistake
//! with its key, its line and what to do.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono_tz::Tz;

mod auth;
mod defaults;
mod duration;
mod files;
mod mistake;
mod reader;
mod reservations;
mod restart;
mod sections;
mod strangers;
#[cfg(test)]
mod tests;

pub use mistake::{ConfigError, Mistake};

use crate::domain::booking::StartPolicy;
use crate::domain::policy::PolicyKind;
use crate::domain::secret::Secret;

/// Reads a duration as the configuration writes it: `"90s"`, `"1h30m"`.
///
/// # Errors
///
/// What is wrong with it, and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|_| {
        format!(
            "\"{text}\" is not a duration; write a number and a unit: \"90s\", \"15m\", \"1h30m\""
        )
    })
}

/// What the names of our environment variables begin with.
const ENVIRONMENT_PREFIX: &str = "USHER_";

/// Where the file is looked for, in this order, if none is named.
const DEFAULT_PATHS: [&str; 2] = ["./config.toml", "/etc/jitsi/usher/config.toml"];

/// Everything that can be configured. The fields' documentation is the manual; `config.toml`
/// says the same to those who edit it.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]`: the socket that Prosody, nginx and the operator talk to.
    pub server: Server,
    /// `[log]`: what is written to standard error.
    pub log: Log,
    /// `[database]`: where bookings, running conferences and decisions are kept.
    pub database: Database,
    /// `[xmpp]`: the names Prosody goes by.
    pub xmpp: Xmpp,
    /// `[auth]`: whose tokens are believed.
    pub auth: Auth,
    /// `[reservations]`: which conferences may start, when and for how long.
    pub reservations: Reservations,
    /// `[queue]`: the visitors who wait for a conference to go live.
    pub queue: Queue,
    /// Seen while reading, no mistake, but worth a word: part of [`Config::notices`].
    remarks: Vec<String>,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// IP address and port to listen on; default `127.0.0.1:8060`. Port 0 takes any free one.
    /// Another address than the machine's own needs a secret, a key or a service token, or
    /// anybody who reaches it could start conferences.
    pub listen: SocketAddr,
    /// How long a stop waits for requests that are being answered; default `5s`, at most `10m`.
    /// Keep it below systemd's `TimeoutStopSec` (90 s unless set).
    pub shutdown_grace: Duration,
    /// How many connections are held at once; default 19000. Each waiting visitor is one, and
    /// each takes a file descriptor: stay some hundred below the limit of open files
    /// (`LimitNOFILE`). A twentieth, 100 at most, is kept for requests; visitors beyond the others
    /// are turned away. 19000 suits a limit of 20000.
    pub max_connections: usize,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// What lines look like; default `auto`.
    pub format: LogFormat,
    /// The least severe level that is written; default `info`.
    pub level: LogLevel,
}

/// What lines of the log look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `auto`: usher's choice, which is text; in systemd's journal with the level of each line, and without
    /// the time, which the journal has anyway.
    Auto,
    /// `text`: for people.
    Text,
    /// `json`: one object a line, for log collectors.
    Json,
}

/// How much the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// `error`: what keeps usher from doing its work.
    Error,
    /// `warn`: and what an operator should look into.
    Warn,
    /// `info`: and what happens: starts, stops, decisions.
    Info,
    /// `debug`: and why.
    Debug,
    /// `trace`: and every step.
    Trace,
}

/// `[database]`
#[derive(Debug, Clone)]
pub struct Database {
    /// `sqlite:` and a path; default `sqlite:usher.db`. A relative path starts at the directory
    /// usher is started in. The file is made if it isn't there; beside it SQLite keeps two more
    /// (`-wal`, `-shm`), so the directory has to be writable.
    pub url: String,
}

/// `[xmpp]`
#[derive(Debug, Clone)]
pub struct Xmpp {
    /// The main virtual host, in lower case; default `meet.example.com`. Tokens and requests
    /// for conferences elsewhere are refused. Given as `domain`, or as the file that holds it
    /// (`domain_file`), which is how the Debian package passes on what Jitsi's packages were told.
    pub domain: String,
    /// What the domain of the rooms' component begins with; default `conference`, as in
    /// `conference.meet.example.com`.
    pub muc_prefix: String,
}

/// `[auth]`
#[derive(Debug, Clone)]
pub struct Auth {
    /// The secret shared with Prosody (`app_secret`), for HS256 tokens. Given as `secret` or,
    /// better, in a file of its own (`secret_file`). Default: none.
    pub secret: Option<Secret>,
    /// Public keys for RS256 tokens, by their key id (`kid`): PEM files, relative to the
    /// directory of the configuration file. Default: none. Those of `public_keys_dir`, where each
    /// key is the file `{key id}.pem`, are among them.
    pub public_keys: BTreeMap<String, PathBuf>,
    /// The URL of an ASAP key server, asked for key ids that aren't in `public_keys`: each has its
    /// file there, `{SHA-256 of the key id}.pem`. Default: none.
    pub key_server: Option<String>,
    /// The URL of a JSON Web Key Set, looked into for key ids that aren't in `public_keys`.
    /// Default: none.
    pub jwks_url: Option<String>,
    /// How long a key from one of these is kept; default `1h`, from `1s` to `7d`. One that is
    /// withdrawn counts for so much longer. While the server is down, keys count for as long again.
    pub key_cache: Duration,
    /// Issuers (`iss`) whose tokens are believed; default `["jitsi"]`. `*` takes any.
    pub accepted_issuers: Vec<String>,
    /// Audiences (`aud`) a token may be meant for; default `["jitsi"]`. `*` takes any.
    pub accepted_audiences: Vec<String>,
    /// Whether a token's `sub` has to name the tenant or the domain; default true. Without it a
    /// token for a room opens the room of that name in every tenant.
    pub verify_domain: bool,
    /// How far the clocks of issuer and usher may differ when a token's times are checked;
    /// default `10s`, at most `10m`. Expired tokens live this much longer.
    pub leeway: Duration,
    /// `[auth.service]`: Prosody and jigasi.
    pub service: Service,
}

impl Auth {
    /// Whether there is any key that a JWT could be checked with.
    pub fn any_key(&self) -> bool {
        self.secret.is_some()
            || !self.public_keys.is_empty()
            || self.key_server.is_some()
            || self.jwks_url.is_some()
    }
}

/// `[auth.service]`
#[derive(Debug, Clone)]
pub struct Service {
    /// Fixed tokens that make their bearer a service, in the form `Authorization: Bearer …`.
    /// Given as `tokens` or, better, one a line in a file (`tokens_file`). Default: none.
    pub tokens: Vec<Secret>,
    /// Issuers (`iss`) whose tokens without room and user are service tokens; default
    /// `["jitsi"]`. With none, only the fixed tokens count.
    pub issuers: Vec<String>,
}

/// `[reservations]`
#[derive(Debug, Clone)]
pub struct Reservations {
    /// Who decides; default `local`.
    pub backend: Backend,
    /// Whether a conference needs a booking; default `open`.
    pub policy: PolicyKind,
    /// How long a conference without a booking may last; default `6h`, from `1s` to `30d`.
    /// When it is over, Prosody closes the room.
    pub default_duration: Duration,
    /// How long before its booking begins a conference may be opened; default `10m`, at most
    /// `24h`.
    pub early_start: Duration,
    /// Who may open a booked conference, where the booking itself doesn't say; default `anyone`.
    pub start_policy: StartPolicy,
    /// The IANA time zone in which times are told to people; default `UTC`. What goes over the
    /// wire to programs is UTC whatever this says.
    pub time_zone: Tz,
    /// How long the record of a decision is kept; default `30d`. It holds room names and who
    /// asked: keep it no longer than you need it.
    pub decision_retention: Duration,
    /// How many decisions are kept, the oldest going first; default 100000, some tens of MB.
    pub decisions_max: u64,
    /// `[reservations.upstream]`, if its URL is set.
    pub upstream: Option<Upstream>,
}

/// Who decides whether a conference may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `local`: usher, from its own bookings.
    Local,
    /// `upstream`: an external reservation system.
    Upstream,
}

/// `[reservations.upstream]`
#[derive(Debug, Clone)]
pub struct Upstream {
    /// What `/conference` is appended to; no default.
    pub url: String,
    /// How long to wait for an answer; default `20s`. A call that took longer is not tried again.
    pub timeout: Duration,
    /// How long all attempts at a request, their pauses and the GET after a 409 may take together;
    /// default `18s`: Prosody's own time-out is 20 s, and an answer after it is lost.
    pub deadline: Duration,
    /// How often to try again; default 3, at most 100.
    pub retry_count: u32,
    /// How long to wait before trying again; default `3s`.
    pub retry_delay: Duration,
    /// The statuses after which to try again, in order; default all from 500 to 599.
    pub retry_status: Vec<u16>,
    /// Headers to send along, such as `Authorization`; default none.
    pub headers: BTreeMap<String, Secret>,
    /// Whether what our shim knows of whoever asks (id, e-mail, name, group) is sent along; default
    /// false.
    pub forward_identity: bool,
    /// PEM certificates that are trusted beside the system's; default none.
    pub ca_file: Option<PathBuf>,
    /// What users get while no answer can be had; default `deny`.
    pub on_failure: OnFailure,
    /// After how many failures in a row it is left alone; default 3.
    pub failures_max: u32,
    /// How often to look whether it is back then; default `10s`.
    pub probe_interval: Duration,
    /// How long to try to deliver a DELETE; default `7d`.
    pub outbox_retention: Duration,
    /// How many DELETEs may wait for delivery; default 10000.
    pub outbox_max: u32,
}

/// What users get while the upstream gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// `deny`: a message that says to try again.
    Deny,
    /// `allow`: their conference, for `reservations.default_duration`.
    Allow,
}

/// `[queue]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The path under which the queue answers; default `/waiting-queue`. Jitsi Meet's
    /// `queueService` and the proxy in front have to name the same one.
    pub path: String,
    /// How often moderators are told how many wait; default `15s`, at most `1h`.
    pub state_interval: Duration,
    /// How many visitors a second are released once a conference goes live; default 0: all at
    /// once. A thousand who join in the same second can bring a deployment down.
    pub release_per_second: u32,
    /// How long a conference counts as live if nobody says that it ended; default `24h`, at most
    /// `30d`.
    pub live_ttl: Duration,
    /// How often a heart-beat is sent, and wanted, on a quiet connection; default `10s`. Clients that
    /// ask for slower ones get those.
    pub heart_beat: Duration,
    /// How long a client may take from its connection to its CONNECT frame; default `10s`.
    pub connect_timeout: Duration,
    /// For how long a visitor whose connection broke keeps their place; default `30s`; zero: not at
    /// all. The place belongs to the token.
    pub reconnect_grace: Duration,
    /// How many may wait, or watch, with one token; default 10000, since some portals give one token to all
    /// visitors of an event. Service tokens are not counted.
    pub max_per_token: u32,
    /// How many WebSockets may be open, and visitors wait, from one address; default 10000: whole
    /// schools share one. The loopback is never counted.
    pub max_per_address: u32,
    /// The proxies whose `X-Forwarded-For` is believed; default the loopback, where nginx is.
    pub trusted_proxies: Vec<IpAddr>,
}

/// Where a configuration came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// No file: the defaults that are built in.
    Embedded,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Embedded => f.write_str("the embedded defaults"),
        }
    }
}

impl Config {
    /// The defaults.
    pub fn embedded() -> Self {
        let environment = BTreeMap::new();
        let mut read = reader::Reader::empty("", &environment, Path::new(""));
        sections::config(&mut read)
    }

    /// Reads `path`, or the first of the usual files that exists, or nothing but the defaults;
    /// then the environment, which wins.
    pub fn load(path: Option<&Path>) -> Result<(Self, Source), ConfigError> {
        let (text, source) = match path {
            Some(path) => (read_file(path)?, Source::File(path.to_owned())),
            None => find_file()?,
        };
        let source_name = source.to_string();
        let base_dir = match &source {
            Source::File(path) => path.parent().unwrap_or(Path::new("")),
            Source::Embedded => Path::new(""),
        };
        let environment = environment(&source_name)?;
        let config = Self::parse(&text, &source_name, base_dir, environment)?;
        Ok((config, source))
    }

    /// Reads a configuration from values. Touches nothing but the files that the configuration
    /// names; relative paths start at `base_dir`.
    pub fn parse(
        text: &str,
        source_name: &str,
        base_dir: &Path,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let error = |mistakes| ConfigError {
            source_name: source_name.to_owned(),
            mistakes,
        };
        let environment = env.into_iter().collect();
        let mut read = reader::Reader::new(text, &environment, base_dir).map_err(error)?;
        let mut config = sections::config(&mut read);
        let (mistakes, remarks) = read.finish();
        if !mistakes.is_empty() {
            return Err(error(mistakes));
        }
        config.remarks = remarks;
        Ok(config)
    }

    /// What is no mistake but should be known: settings that do nothing in this version, secrets
    /// that are short or that every user can read. For the log at the start and `usher check`.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = self.remarks.clone();
        notices.extend(auth::notices(&self.auth));
        notices.extend(reservations::notices(&self.reservations));
        notices
    }
}

/// Whether standard error goes to systemd's journal (`JOURNAL_STREAM`, see systemd.exec(5)).
#[cfg(unix)]
pub fn logs_to_the_journal() -> bool {
    use std::os::unix::fs::MetadataExt;
    let named = std::env::vars_os().find(|(name, _)| name == "JOURNAL_STREAM");
    let here = std::fs::metadata("/proc/self/fd/2");
    match (named, here) {
        (Some((_, stream)), Ok(here)) => {
            stream.to_str() == Some(&format!("{}:{}", here.dev(), here.ino()))
        }
        _ => false,
    }
}

/// The first of the usual files that is there. One that is there but can't be read is an error:
/// going on to the next would start with settings nobody chose.
fn find_file() -> Result<(String, Source), ConfigError> {
    for path in DEFAULT_PATHS.map(Path::new) {
        match files::read_text(path) {
            Ok(text) => return Ok((text, Source::File(path.to_owned()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
    Ok((String::new(), Source::Embedded))
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    files::read_text(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    ConfigError {
        source_name: path.display().to_string(),
        mistakes: vec![Mistake {
            key: String::new(),
            line: None,
            problem: format!("the configuration cannot be read: {error}"),
            remedy: "Name a readable file with --config FILE, or make this one readable."
                .to_owned(),
        }],
    }
}

/// Our variables. `std::env::vars` would panic at the first one, ours or not, that isn't UTF-8.
fn environment(source_name: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut environment = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with(ENVIRONMENT_PREFIX) {
            continue;
        }
        match value.into_string() {
            Ok(value) => {
                environment.insert(name.to_owned(), value);
            }
            Err(_) => mistakes.push(Mistake {
                key: name.to_owned(),
                line: None,
                problem: "is not UTF-8".to_owned(),
                remedy: "Write it in ASCII or UTF-8.".to_owned(),
            }),
        }
    }
    if mistakes.is_empty() {
        return Ok(environment);
    }
    Err(ConfigError {
        source_name: source_name.to_owned(),
        mistakes,
    })
}
