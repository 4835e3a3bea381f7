//! Reads the sections: which key takes what, within which limits. `[auth]` and `[reservations]`
//! have files of their own.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::auth::{Given, auth, one_of};
use super::reader::{Found, Reader};
use super::reservations::reservations;
use super::{Config, Database, Log, LogFormat, LogLevel, Queue, Server, Xmpp, defaults};

pub(super) const NONZERO: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// More connections than this on one machine means a typing error.
const CONNECTIONS_MAX: usize = 1_000_000;
/// More than these can't wait with one token or from one address: a process has fewer sockets.
const WAITING_LIMIT: u32 = 10_000_000;
const RELEASE_PER_SECOND_MAX: u32 = 100_000;
/// RFC 1035: a whole name, and one part of it.
const HOST_NAME_MAX_BYTES: usize = 253;
const HOST_LABEL_MAX_BYTES: usize = 63;
/// First parts of paths that usher's other routes own.
const RESERVED_PATHS: [&str; 6] = ["conference", "api", "health", "ready", "about", "metrics"];

/// What a service token can be checked against.
const CREDENTIALS: [&str; 8] = [
    "auth.secret",
    "auth.secret_file",
    "auth.public_keys",
    "auth.public_keys_dir",
    "auth.key_server",
    "auth.jwks_url",
    "auth.service.tokens",
    "auth.service.tokens_file",
];

/// Reads the whole configuration; never fails, the mistakes gather in the reader.
pub(super) fn config(read: &mut Reader<'_>) -> Config {
    let config = Config {
        server: server(read),
        log: log(read),
        database: database(read),
        xmpp: xmpp(read),
        auth: auth(read),
        reservations: reservations(read),
        queue: queue(read),
        remarks: Vec::new(),
    };
    reachable_from_afar(read, &config);
    config
}

fn server(read: &mut Reader<'_>) -> Server {
    Server {
        listen: listen(read),
        shutdown_grace: read.duration(
            "server.shutdown_grace",
            defaults::SHUTDOWN_GRACE,
            Duration::ZERO..=10 * MINUTE,
        ),
        max_connections: read.number(
            "server.max_connections",
            defaults::MAX_CONNECTIONS,
            1..=CONNECTIONS_MAX,
        ),
    }
}

fn listen(read: &mut Reader<'_>) -> SocketAddr {
    let Some(Found { value, place }) = read.text("server.listen") else {
        return defaults::LISTEN;
    };
    value.parse().unwrap_or_else(|_| {
        let port = value.rsplit(':').next().and_then(|port| port.parse().ok());
        let meant = match value.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, defaults::LISTEN.port()),
            Err(_) => SocketAddr::new(
                defaults::LISTEN.ip(),
                port.unwrap_or(defaults::LISTEN.port()),
            ),
        };
        read.mistake(
            &place,
            format!("{value:?} is not an IP address with a port"),
            format!("Write it as \"{meant}\"."),
        );
        defaults::LISTEN
    })
}

/// Whoever reaches usher may ask for conferences and send visitors in: on another address than
/// the machine's own there has to be something that a service token can be checked against.
fn reachable_from_afar(read: &mut Reader<'_>, config: &Config) {
    let local = config.server.listen.ip().to_canonical().is_loopback();
    let checkable = config.auth.any_key() || !config.auth.service.tokens.is_empty();
    // What was given but is wrong has been named already.
    let tried = CREDENTIALS.iter().any(|key| read.has_mistakes_at(key));
    if local || checkable || tried {
        return;
    }
    if let Some(place) = read.place("server.listen") {
        read.mistake(
            &place,
            format!(
                "{} can be reached from other machines, but no service token can be checked",
                config.server.listen
            ),
            "Set auth.service.tokens (or tokens_file) or auth.secret (or secret_file), \
             or listen on \"127.0.0.1:8060\".",
        );
    }
}

fn log(read: &mut Reader<'_>) -> Log {
    Log {
        format: read.choice(
            "log.format",
            defaults::LOG_FORMAT,
            &[
                ("auto", LogFormat::Auto),
                ("text", LogFormat::Text),
                ("json", LogFormat::Json),
            ],
        ),
        level: read.choice(
            "log.level",
            defaults::LOG_LEVEL,
            &[
                ("error", LogLevel::Error),
                ("warn", LogLevel::Warn),
                ("info", LogLevel::Info),
                ("debug", LogLevel::Debug),
                ("trace", LogLevel::Trace),
            ],
        ),
    }
}

fn database(read: &mut Reader<'_>) -> Database {
    let default = Database {
        url: defaults::DATABASE_URL.to_owned(),
    };
    let Some(Found { value, place }) = read.filled_text("database.url") else {
        return default;
    };
    // No URL is repeated here: there may be a password in it.
    let problem = match value.split_once(':') {
        Some(("sqlite", "" | "//")) => "names no file",
        Some(("sqlite", _)) => return Database { url: value },
        Some(("postgres" | "postgresql", _)) => {
            "names a PostgreSQL database, but this version only has SQLite"
        }
        _ => "is not the URL of a SQLite database",
    };
    let remedy = format!("Write \"{}\" or another file.", defaults::DATABASE_URL);
    read.mistake(&place, problem, remedy);
    default
}

fn xmpp(read: &mut Reader<'_>) -> Xmpp {
    Xmpp {
        domain: domain(read),
        muc_prefix: host_name(read, "xmpp.muc_prefix", defaults::MUC_PREFIX),
    }
}

/// The domain itself, or the file that the package keeps the answer of its installation in.
fn domain(read: &mut Reader<'_>) -> String {
    let inline = read.filled_text("xmpp.domain");
    let file = read.filled_text("xmpp.domain_file");
    match one_of(read, inline, file) {
        Some(Given::Inline(found)) => checked_host_name(read, found, defaults::DOMAIN),
        Some(Given::File(Found { value, place })) => match read.file(&value, &place) {
            Some(text) => {
                let value = text.trim().to_owned();
                checked_host_name(read, Found { value, place }, defaults::DOMAIN)
            }
            None => defaults::DOMAIN.to_owned(),
        },
        None => defaults::DOMAIN.to_owned(),
    }
}

fn host_name(read: &mut Reader<'_>, key: &'static str, default: &str) -> String {
    match read.filled_text(key) {
        Some(found) => checked_host_name(read, found, default),
        None => default.to_owned(),
    }
}

fn checked_host_name(read: &mut Reader<'_>, found: Found<String>, default: &str) -> String {
    let Found { value, place } = found;
    let name = value.to_ascii_lowercase();
    if is_host_name(&name) {
        return name;
    }
    let remedy = if name.is_ascii() {
        format!("Write it like {default:?}: no scheme, no port, no slash, no space.")
    } else {
        "Write the letters beyond a-z in Punycode (\"xn--…\").".to_owned()
    };
    read.mistake(&place, format!("{value:?} is not a host name"), remedy);
    default.to_owned()
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=HOST_LABEL_MAX_BYTES).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= HOST_NAME_MAX_BYTES && name.split('.').all(label)
}

fn queue(read: &mut Reader<'_>) -> Queue {
    Queue {
        path: queue_path(read),
        state_interval: read.duration(
            "queue.state_interval",
            defaults::STATE_INTERVAL,
            NONZERO..=HOUR,
        ),
        release_per_second: read.number(
            "queue.release_per_second",
            defaults::RELEASE_PER_SECOND,
            0..=RELEASE_PER_SECOND_MAX,
        ),
        live_ttl: read.duration("queue.live_ttl", defaults::LIVE_TTL, NONZERO..=30 * DAY),
        heart_beat: read.duration(
            "queue.heart_beat",
            defaults::HEART_BEAT,
            SECOND..=10 * MINUTE,
        ),
        connect_timeout: read.duration(
            "queue.connect_timeout",
            defaults::CONNECT_TIMEOUT,
            NONZERO..=MINUTE,
        ),
        reconnect_grace: read.duration(
            "queue.reconnect_grace",
            defaults::RECONNECT_GRACE,
            Duration::ZERO..=10 * MINUTE,
        ),
        max_per_token: read.number(
            "queue.max_per_token",
            defaults::WAITING_MAX,
            1..=WAITING_LIMIT,
        ),
        max_per_address: read.number(
            "queue.max_per_address",
            defaults::WAITING_MAX,
            1..=WAITING_LIMIT,
        ),
        trusted_proxies: trusted_proxies(read),
    }
}

fn trusted_proxies(read: &mut Reader<'_>) -> Vec<IpAddr> {
    let Some(found) = read.texts("queue.trusted_proxies") else {
        return defaults::TRUSTED_PROXIES.to_vec();
    };
    let mut proxies = Vec::new();
    for Found { value, place } in found.value {
        match value.parse() {
            Ok(address) => proxies.push(address),
            Err(_) => read.mistake(
                &place,
                format!("{value:?} is not an IP address"),
                "Write each proxy's own address, like \"192.0.2.7\".".to_owned(),
            ),
        }
    }
    proxies
}

fn queue_path(read: &mut Reader<'_>) -> String {
    let Some(Found { value, place }) = read.filled_text("queue.path") else {
        return defaults::QUEUE_PATH.to_owned();
    };
    let parts: Vec<&str> = value.trim_matches('/').split('/').collect();
    let fits = |part: &&str| {
        !matches!(*part, "" | "." | "..")
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    let tidy = format!("/{}", parts.join("/"));
    let (problem, remedy) = if value.trim_matches('/').is_empty() {
        (
            "would take every path there is".to_owned(),
            format!("Write \"{}\".", defaults::QUEUE_PATH),
        )
    } else if !parts.iter().all(fits) {
        (
            format!("{value:?} is not a path"),
            "Use letters, digits, \"-\", \".\", \"_\" and \"~\" between single slashes.".to_owned(),
        )
    } else if let Some(taken) = RESERVED_PATHS.iter().find(|taken| parts[0] == **taken) {
        (
            format!("/{taken} belongs to another part of usher"),
            format!("Write \"{}\" or another path.", defaults::QUEUE_PATH),
        )
    } else if value != tidy {
        (
            format!("{value:?} needs one slash at its start and none at its end"),
            format!("Write \"{tidy}\"."),
        )
    } else {
        return value;
    };
    read.mistake(&place, problem, remedy);
    defaults::QUEUE_PATH.to_owned()
}

/// An `http:` or `https:` URL without a slash at its end.
pub(super) fn web_address(read: &mut Reader<'_>, key: &'static str) -> Option<String> {
    let Found { value, place } = exact_web_address(read, key)?;
    if value.contains(['?', '#']) {
        read.mistake(
            &place,
            "has a \"?\" or a \"#\" in it, and a path is appended to it",
            "Write it up to there.",
        );
        return None;
    }
    Some(value.trim_end_matches('/').to_owned())
}

/// An `http:` or `https:` URL as it is.
pub(super) fn exact_web_address(read: &mut Reader<'_>, key: &'static str) -> Option<Found<String>> {
    let Found { value, place } = read.filled_text(key)?;
    let rest = value
        .strip_prefix("https://")
        .or_else(|| value.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    // The value is not repeated: a password may stand where it doesn't belong.
    let (problem, remedy) = match authority {
        Some(authority) if authority.contains('@') => (
            "has a user name or a password in it",
            "Take it out: logs and error messages show URLs.",
        ),
        Some(authority)
            if !authority.is_empty()
                && value.bytes().all(|byte| byte.is_ascii_graphic())
                && reqwest::Url::parse(&value).is_ok() =>
        {
            return Some(Found { value, place });
        }
        _ => (
            "is not the URL of a web server",
            "Write it like \"https://keys.example.com/asap\".",
        ),
    };
    read.mistake(&place, problem, remedy);
    None
}
