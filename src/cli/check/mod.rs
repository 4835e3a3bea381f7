//! `usher check`: whether usher and the systems around it are configured to work together.

mod client;
mod finding;
mod nginx;
mod own;
mod program;
mod prosody;
mod rights;
mod service;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use usher::config::{Config, ConfigError, Source};

use super::{print, print_json};
use finding::{Finding, Report, State};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A key id: check that its key can be found and read
    #[arg(long, value_name = "KEY_ID")]
    kid: Option<String>,
    /// A token of Prosody or jigasi: check that it is accepted as a service token; - reads standard input
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Check only the configuration and the files it names, as a reload does
    #[arg(long, conflicts_with_all = ["kid", "token", "prosody", "nginx", "config_js"])]
    configuration_only: bool,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
    /// Prosody's configuration, if it isn't at prosodyctl's default path
    #[arg(long, value_name = "FILE")]
    prosody: Option<PathBuf>,
    /// nginx's configuration, if it isn't at nginx's default path
    #[arg(long, value_name = "FILE")]
    nginx: Option<PathBuf>,
    /// Jitsi Meet's config.js; without it /etc/jitsi/meet/DOMAIN-config.js
    #[arg(long, value_name = "FILE")]
    config_js: Option<PathBuf>,
}

/// Prints a finding for each thing that was checked.
pub(super) async fn run(
    arguments: &Arguments,
    config: &Config,
    source: &Source,
) -> anyhow::Result<ExitCode> {
    let mut findings = own::configuration(config, source);
    if arguments.configuration_only {
        return report(&findings, arguments.json);
    }
    findings
        .extend(own::findings(arguments.kid.as_deref(), arguments.token.as_deref(), config).await);
    findings.extend(rights::findings(config, source).await);
    let (address, service) = service::find(config).await;
    findings.push(address);
    if let Some(service) = &service {
        findings.extend(service.findings(config, source).await);
    }
    let prosody = prosody::inspect(arguments.prosody.as_deref(), config, service.as_ref()).await;
    let nginx = nginx::inspect(arguments.nginx.as_deref(), config).await;
    findings.extend(prosody.findings);
    findings.extend(nginx.findings);
    findings.push(client::queue_service(
        arguments.config_js.as_deref(),
        config,
    ));
    findings.push(bypass(nginx.passes_conference_requests, prosody.module));
    report(&findings, arguments.json)
}

/// Prints what is wrong with the configuration as JSON, if `--json` is given. Returns whether it did.
pub(super) fn print_config_errors(arguments: &Arguments, error: &ConfigError) -> bool {
    let findings = error.issues.iter().map(|issue| {
        let place = issue
            .line
            .map_or_else(String::new, |line| format!(":{line}"));
        let key = &issue.key;
        let message = format!("{}{place}: {key}: {}", error.source_name, issue.message);
        Finding::failed("configuration", message).hint(issue.hint.clone())
    });
    let findings: Vec<_> = findings.collect();
    arguments.json && report(&findings, true).is_ok()
}

fn report(findings: &[Finding], json: bool) -> anyhow::Result<ExitCode> {
    let ok = findings
        .iter()
        .all(|finding| finding.state != State::Failed);
    if json {
        print_json(&serde_json::to_string(&Report { ok, findings })?)?;
    } else {
        for finding in findings {
            print(finding)?;
        }
    }
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What to do where a system of this machine serves another domain.
fn domain_hint(other: &str) -> String {
    format!(
        "if \"{other}\" is right, set xmpp.domain to it (with the package: dpkg-reconfigure usher)"
    )
}

/// jicofo answers conference requests over HTTP. They bypass Prosody's stock module, but not ours.
fn bypass(passes_requests: Option<bool>, module: Option<prosody::ReservationModule>) -> Finding {
    let about = "conference requests over HTTP";
    match (passes_requests, module) {
        (None, _) => Finding::not_installed(about, "whether nginx passes /conference-request/v1 on is unknown"),
        (Some(false), _) => Finding::ok(about, "nginx passes none on to jicofo"),
        (Some(true), Some(prosody::ReservationModule::Shim)) => {
            Finding::ok(about, "nginx passes them on, and usher_reservations checks their rooms")
        }
        (Some(true), Some(prosody::ReservationModule::Stock)) => Finding::failed(
            about,
            "nginx passes them on to jicofo past Prosody's module reservations: every client can start any conference",
        )
        .hint("load usher_reservations instead of reservations, or uncomment the location of /conference-request/v1 in /etc/jitsi/meet/jaas/usher.conf and take conferenceRequestUrl out of config.js"),
        (Some(true), _) => Finding::note(about, "nginx passes them on to jicofo; usher checks their rooms only with usher_reservations"),
    }
}
