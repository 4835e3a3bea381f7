//! usher itself: its configuration, keys, database and address.

use std::time::Duration;

use usher::config::{Backend, Config};
use usher::{ServeError, clock};

use super::finding::Finding;

/// How long the service may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
const EXAMPLE_DOMAIN: &str = "meet.example.com";

/// A line for each thing looked at. The configuration itself was read before: had it a mistake, this would
/// not run.
pub(super) async fn findings(
    kid: Option<&str>,
    token: Option<&str>,
    config: &Config,
) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("configuration", "every key is understood")];
    let mut report = |what: &str, finding: Result<String, String>| {
        findings.push(match finding {
            Ok(good) => Finding::ok(what, good),
            Err(bad) => Finding::failed(what, bad),
        });
    };
    report("keys", keys(config));
    for (key, finding) in servers(config).await {
        report(key, finding);
    }
    if let Some(kid) = kid {
        report(&format!("key {kid:?}"), key(kid, config).await);
    }
    if let Some(token) = token {
        report("token", self::token(token, config).await);
    }
    for (what, finding) in upstream(config).await {
        report(what, finding);
    }
    report("database", database(config).await);
    findings.push(address(config).await);
    if config.xmpp.domain == EXAMPLE_DOMAIN {
        findings.push(
            Finding::note("xmpp.domain", format!("it is {EXAMPLE_DOMAIN}, the example"))
                .remedy("set it to the domain of Prosody's main VirtualHost; with the package: dpkg-reconfigure usher"),
        );
    }
    let notices = config.notices().into_iter();
    findings.extend(notices.map(|notice| Finding::note("configuration", notice)));
    findings
}

/// Who answers at `server.listen`.
async fn address(config: &Config) -> Finding {
    let (about, address) = ("server.listen", config.server.listen);
    if address.port() == 0 {
        return Finding::note(
            about,
            format!("{address} takes any free port, which nobody can be told"),
        );
    }
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build();
    let answer = match client {
        Ok(client) => {
            client
                .get(format!("http://{address}/about/version"))
                .send()
                .await
        }
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) => match answer.text().await {
            Ok(text) if text.contains("\"usher\"") => Finding::ok(about, format!("usher answers on {address}")),
            _ => Finding::failed(about, format!("another program answers on {address}"))
                .remedy("end it, or set server.listen to another port (and usher.socket, nginx and Prosody with it)"),
        },
        Err(error) if error.is_connect() => Finding::note(about, format!("nobody answers on {address}: usher doesn't run"))
            .remedy("systemctl start usher; journalctl -u usher says why it ended"),
        Err(error) => Finding::failed(about, format!("{address} doesn't answer as usher does: {}", error.without_url()))
            .remedy("see whose it is: ss -ltnp"),
    }
}

fn keys(config: &Config) -> Result<String, String> {
    usher::keys(config).map_err(|error| error.to_string())?;
    let service = config.auth.service.tokens.len();
    Ok(match (service, config.auth.any_key()) {
        (0, false) => "none is configured: callers on this machine need none, and tokens are signed with a secret of usher's own".into(),
        (0, true) => "service tokens are JWTs".into(),
        (n, _) => format!("{n} static service tokens"),
    })
}

/// The servers that keys are fetched from, by their keys of the configuration.
async fn servers(config: &Config) -> Vec<(&'static str, Result<String, String>)> {
    match usher::remote(config) {
        Ok(Some(remote)) => remote.probe().await,
        Ok(None) => Vec::new(),
        Err(error) => vec![("key server", Err(error.to_string()))],
    }
}

async fn key(kid: &str, config: &Config) -> Result<String, String> {
    if let Some(file) = config.auth.public_keys.get(kid) {
        // That it can be read was seen with all the others.
        return Ok(format!("in auth.public_keys, from {}", file.display()));
    }
    let remote = usher::remote(config).map_err(|error| error.to_string())?;
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
    let guard = usher::guard(config).map_err(|error| error.to_string())?;
    let judged = guard.judge(token.trim(), clock::now()).await;
    judged.map_err(|refusal| refusal.to_string())?;
    Ok("it is accepted as a service's".into())
}

/// The reservation system that decides, if it isn't usher, and what it has not heard yet.
async fn upstream(config: &Config) -> Vec<(&'static str, Result<String, String>)> {
    let what = "reservation system";
    if config.reservations.backend == Backend::Local {
        return Vec::new();
    }
    let reservations = match usher::open(config).await {
        Ok(reservations) => reservations,
        // What is wrong with the database is said below.
        Err(ServeError::Store { .. }) => return Vec::new(),
        Err(error) => return vec![(what, Err(error.to_string()))],
    };
    let mut findings = Vec::new();
    if let Some(upstream) = reservations.upstream() {
        findings.push((what, upstream.probe().await));
        let pending = upstream.pending().await;
        let pending = pending.map(|pending| format!("{pending} deletions wait to be delivered"));
        findings.push(("outbox", pending.map_err(|error| error.to_string())));
    }
    reservations.close().await;
    findings
}

async fn database(config: &Config) -> Result<String, String> {
    let url = &config.database.url;
    let remedy = |error: &dyn std::fmt::Display| {
        format!(
            "{url}: {error}; make the file and its directory writable for the user that runs usher, or set database.url"
        )
    };
    let reservations = usher::open(config).await.map_err(|error| remedy(&error))?;
    let probed = reservations
        .probe(clock::now())
        .await
        .map_err(|error| remedy(&error));
    reservations.close().await;
    probed.map(|()| format!("{url} takes writes"))
}
