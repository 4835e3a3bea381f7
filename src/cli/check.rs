//! `usher check`: is everything there that the service needs?

use std::process::ExitCode;

use clap::Args;
use usher::config::{Backend, Config};
use usher::{ServeError, clock};

use super::say;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A key id: is its key to be found, and can it be read?
    #[arg(long, value_name = "KEY_ID")]
    kid: Option<String>,
    /// A token as Prosody or jigasi send it: is it accepted as a service's? - reads standard input
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

/// Prints a line for each thing looked at. The configuration itself was read before: had it a mistake,
/// this would not run.
pub(super) async fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let mut sound = true;
    let mut report = |what: &str, finding: Result<String, String>| {
        sound &= finding.is_ok();
        match finding {
            Ok(good) => say(format_args!("ok      {what}: {good}")),
            Err(bad) => say(format_args!("FAILED  {what}: {bad}")),
        }
    };
    report("configuration", Ok("every key is understood".into()))?;
    report("keys", keys(config))?;
    for (key, finding) in servers(config).await {
        report(key, finding)?;
    }
    if let Some(kid) = &arguments.kid {
        report(&format!("key {kid:?}"), key(kid, config).await)?;
    }
    if let Some(token) = &arguments.token {
        report("token", self::token(token, config).await)?;
    }
    for (what, finding) in upstream(config).await {
        report(what, finding)?;
    }
    report("database", database(config).await)?;
    for notice in config.notices() {
        say(format_args!("note    {notice}"))?;
    }
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
