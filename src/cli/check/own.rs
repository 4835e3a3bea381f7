//! usher itself: its configuration, keys, database and address.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use usher::clock;
use usher::config::{Backend, Config, Source};
use usher::reservation::gateway::Gateway;
use usher::store::{Schema, Store, StoreError, sqlite};
use usher::text::without_bom;

use super::finding::Finding;

/// The first bytes of every SQLite database that is not empty.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
const EXAMPLE_DOMAIN: &str = "meet.example.com";

/// The configuration and the files it names: whether a reload accepts them. The configuration itself was read
/// without an error before.
pub(super) fn configuration(config: &Config, source: &Source) -> Vec<Finding> {
    let valid = format!("{source}: every key is valid");
    let mut findings = vec![Finding::ok("configuration", valid)];
    if let Some(other) = source.passed_over() {
        let other = other.display();
        let message = format!("{other} is here, too, and was not read");
        let note = Finding::note("configuration", message);
        findings.push(note.hint(format!("to check that one: usher check --config {other}")));
    }
    let warnings = config.warnings().into_iter();
    findings.extend(warnings.map(|warning| Finding::note("configuration", warning)));
    findings.push(found("keys", keys(config)));
    if let Err(error) = usher::service::build::key_servers(config) {
        findings.push(Finding::failed("key server", error.to_string()));
    }
    findings
}

/// The findings about usher itself, beyond its configuration.
pub(super) async fn findings(
    kid: Option<&str>,
    token: Option<&str>,
    config: &Config,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, finding) in servers(config).await {
        findings.push(found(key, finding));
    }
    if let Some(kid) = kid {
        findings.push(found(format!("key {kid:?}"), key(kid, config).await));
    }
    if let Some(token) = token {
        findings.push(found("token", self::token(token, config).await));
    }
    if let Some(finding) = upstream(config).await {
        findings.push(found("reservation system", finding));
    }
    findings.extend(database(config).await);
    if config.xmpp.domain == EXAMPLE_DOMAIN {
        findings.push(
            Finding::note("xmpp.domain", format!("it is {EXAMPLE_DOMAIN}, the example"))
                .hint("set it to the domain of Prosody's main VirtualHost; with the package: dpkg-reconfigure usher"),
        );
    }
    findings
}

fn found(about: impl Into<String>, finding: Result<String, String>) -> Finding {
    match finding {
        Ok(good) => Finding::ok(about, good),
        Err(bad) => Finding::failed(about, bad),
    }
}

fn keys(config: &Config) -> Result<String, String> {
    if let Some(secret) = usher::service::build::secret_to_create(config) {
        let secret = secret.display();
        return Ok(format!(
            "none is configured: callers on this machine need none, and usher creates a secret, {secret}, when it starts"
        ));
    }
    let secret =
        usher::service::build::existing_secret(config).map_err(|error| error.to_string())?;
    usher::service::build::key_set(config, secret.as_ref()).map_err(|error| error.to_string())?;
    let service = config.auth.service.tokens.len();
    Ok(match (service, config.auth.any_key()) {
        (0, false) => "none is configured: callers on this machine need none, and tokens are signed with usher's own secret".into(),
        (0, true) => "service tokens are JWTs".into(),
        (n, _) => format!("{n} static service tokens"),
    })
}

/// The servers that keys are fetched from, by their keys of the configuration.
async fn servers(config: &Config) -> Vec<(&'static str, Result<String, String>)> {
    match usher::service::build::key_servers(config) {
        Ok(Some(remote)) => remote.probe().await,
        // An unusable server is reported with the configuration.
        Ok(None) | Err(_) => Vec::new(),
    }
}

async fn key(kid: &str, config: &Config) -> Result<String, String> {
    if let Some(file) = config.auth.public_keys.get(kid) {
        // It was read with all others before.
        return Ok(format!("in auth.public_keys, from {}", file.display()));
    }
    let remote = usher::service::build::key_servers(config).map_err(|error| error.to_string())?;
    let Some(remote) = remote else {
        return Err("it is not in auth.public_keys, and no key server is configured; add it there, or set auth.key_server or auth.jwks_url".into());
    };
    let findings = remote.probe_key(kid).await;
    let found = findings.iter().find_map(|(server, finding)| {
        let algorithms = finding.as_ref().ok()?;
        Some(format!("from {server}, for {algorithms}"))
    });
    found.ok_or_else(|| {
        let failures = findings.iter().filter_map(|(server, finding)| {
            let failure = finding.as_ref().err()?;
            Some(format!("{server}: {failure}"))
        });
        failures.collect::<Vec<_>>().join("; ")
    })
}

async fn token(token: &str, config: &Config) -> Result<String, String> {
    let token = match token {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(|error| error.to_string())?,
        token => token.to_owned(),
    };
    let secret =
        usher::service::build::existing_secret(config).map_err(|error| error.to_string())?;
    let guard = usher::service::build::service_auth(config, secret.as_ref())
        .map_err(|error| error.to_string())?;
    let token = without_bom(&token).trim();
    let verified = guard.verify_token(token, clock::now()).await;
    verified.map_err(|refusal| refusal.to_string())?;
    Ok("it is accepted as a service token".into())
}

/// The reservation system that decides, if it isn't usher.
async fn upstream(config: &Config) -> Option<Result<String, String>> {
    let settings = &config.reservations;
    if settings.backend == Backend::Local {
        return None;
    }
    // The configuration requires one.
    Some(Gateway::probe(settings.upstream.as_ref()?).await)
}

/// The database, and the outbox in it. A database that is missing or of another version is not changed: the service
/// does that, after a backup.
async fn database(config: &Config) -> Vec<Finding> {
    let about = "database";
    let url = &config.database.url;
    let unusable = |error: &dyn std::fmt::Display| {
        let error = error.to_string();
        vec![Finding::failed(about, format!("{url}: {error}")).hint(remedy(&error))]
    };
    if let Some(finding) = no_database(url) {
        return vec![finding];
    }
    match Schema::at(url).await {
        Ok(Schema::Missing) => match directory(url) {
            Some(directory) if !directory.is_dir() => {
                unusable(&format!("there is no directory {}", directory.display()))
            }
            _ => vec![Finding::ok(
                about,
                format!("{url} is created when usher starts"),
            )],
        },
        Ok(Schema::Foreign) => vec![Finding::failed(
            about,
            format!("{url}: {}", StoreError::Foreign),
        )],
        Ok(Schema::Earlier) => vec![
            Finding::note(
                about,
                format!(
                    "{url} is migrated when usher starts; an earlier usher can't open it afterwards"
                ),
            )
            .hint("before that: usher backup FILE"),
        ],
        Ok(Schema::Later) => vec![
            Finding::failed(
                about,
                format!("{url} was written by a later version of usher"),
            )
            .hint("install that version, or restore a backup"),
        ],
        Ok(Schema::Current) => match writes(config).await {
            Ok(findings) => findings,
            Err(error) => unusable(&error),
        },
        Err(error) => unusable(&error),
    }
}

/// What to do about an error of the database.
fn remedy(error: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| error.contains(word));
    if has(&["disk is full", "No space left"]) {
        "free space on its disk"
    } else if has(&["is locked", "busy"]) {
        "end the other program that holds it (fuser FILE), then check again"
    } else if has(&["malformed", "disk I/O error"]) {
        "check its disk, and restore a backup if the database is damaged"
    } else if has(&["there is no directory"]) {
        "create the directory for the user that runs usher, or set database.url"
    } else {
        "make the file and its directory writable for the user that runs usher, or set database.url"
    }
}

/// Whether the path leads to something else than a database: neither rights nor space would help.
fn no_database(url: &str) -> Option<Finding> {
    let file = sqlite::file_of(url)?;
    let failed = |what| Finding::failed("database", format!("{url}: {} {what}", file.display()));
    if file.is_dir() {
        return Some(failed("is a directory").hint("set database.url to a file in it"));
    }
    let mut first = Vec::new();
    let length = u64::try_from(SQLITE_MAGIC.len()).unwrap_or_default();
    File::open(&file)
        .ok()?
        .take(length)
        .read_to_end(&mut first)
        .ok()?;
    (!first.is_empty() && first != SQLITE_MAGIC).then(|| {
        failed("is no SQLite database").hint(
            "set database.url to usher's database; if this file was it, move it away and restore a backup",
        )
    })
}

/// The directory of the database.
fn directory(url: &str) -> Option<PathBuf> {
    let file = sqlite::file_of(url)?;
    let directory = file.parent()?;
    let here = directory.as_os_str().is_empty();
    (!here).then(|| directory.to_owned())
}

/// Whether the database takes writes, and how many deletions the reservation system has not acknowledged.
async fn writes(config: &Config) -> Result<Vec<Finding>, String> {
    let url = &config.database.url;
    let store = Store::open(url, &config.xmpp.domain).await;
    let store = store.map_err(|error| error.to_string())?;
    let probed = store.probe(clock::now()).await;
    let mut findings = Vec::new();
    if probed.is_ok() && config.reservations.backend == Backend::Upstream {
        findings.push(match store.outbox_pending().await {
            Ok(pending) => Finding::ok(
                "outbox",
                format!("{pending} deletions wait to be delivered"),
            ),
            Err(error) => Finding::failed("outbox", error.to_string()),
        });
    }
    store.close().await;
    probed.map_err(|error| error.to_string())?;
    findings.push(Finding::ok("database", format!("{url} takes writes")));
    Ok(findings)
}
