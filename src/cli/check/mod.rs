//! `usher check`: is everything there that the service needs, here and in its neighbours?

mod client;
mod finding;
mod nginx;
mod own;
mod program;
mod prosody;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use usher::config::{Config, ConfigError};

use super::say;
use finding::{Finding, Report, State};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A key id: is its key to be found, and can it be read?
    #[arg(long, value_name = "KEY_ID")]
    kid: Option<String>,
    /// A token as Prosody or jigasi send it: is it accepted as a service's? - reads standard input
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Look at the configuration and the files it names only, as a reload does
    #[arg(long, conflicts_with_all = ["kid", "token", "prosody", "nginx", "config_js"])]
    configuration_only: bool,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
    /// Prosody's configuration, if it isn't where prosodyctl looks for it
    #[arg(long, value_name = "FILE")]
    prosody: Option<PathBuf>,
    /// nginx's configuration, if it isn't where nginx looks for it
    #[arg(long, value_name = "FILE")]
    nginx: Option<PathBuf>,
    /// Jitsi Meet's config.js; without it /etc/jitsi/meet/DOMAIN-config.js
    #[arg(long, value_name = "FILE")]
    config_js: Option<PathBuf>,
}

/// Prints what was found of each thing that was looked at.
pub(super) async fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    if arguments.configuration_only {
        return tell(&own::configuration(config), arguments.json);
    }
    let mut findings =
        own::findings(arguments.kid.as_deref(), arguments.token.as_deref(), config).await;
    let prosody = prosody::look(arguments.prosody.as_deref(), config).await;
    let nginx = nginx::look(arguments.nginx.as_deref(), config).await;
    findings.extend(prosody.findings);
    findings.extend(nginx.findings);
    findings.push(client::queue_service(
        arguments.config_js.as_deref(),
        config,
    ));
    findings.push(bypass(nginx.passes_conference_requests, prosody.asks));
    tell(&findings, arguments.json)
}

/// Prints what is wrong with the configuration as JSON, if that was asked for and can be done.
pub(super) fn misconfigured(arguments: &Arguments, error: &ConfigError) -> bool {
    let findings = error.issues.iter().map(|issue| {
        let place = issue
            .line
            .map_or_else(String::new, |line| format!(":{line}"));
        let key = &issue.key;
        let says = format!("{}{place}: {key}: {}", error.source_name, issue.message);
        Finding::failed("configuration", says).remedy(issue.hint.clone())
    });
    let findings: Vec<_> = findings.collect();
    arguments.json && tell(&findings, true).is_ok()
}

fn tell(findings: &[Finding], json: bool) -> anyhow::Result<ExitCode> {
    let sound = findings
        .iter()
        .all(|finding| finding.state != State::Failed);
    if json {
        say(serde_json::to_string(&Report { sound, findings })?)?;
    } else {
        for finding in findings {
            say(finding)?;
        }
    }
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// jicofo answers conference requests over HTTP, which go past Prosody's own module, not past ours.
fn bypass(passed_on: Option<bool>, asks: Option<prosody::Asks>) -> Finding {
    let about = "conference requests over HTTP";
    match (passed_on, asks) {
        (None, _) => Finding::not_here(about, "what nginx does with /conference-request/v1 can't be seen"),
        (Some(false), _) => Finding::ok(about, "nginx passes none on to jicofo"),
        (Some(true), Some(prosody::Asks::Shim)) => {
            Finding::ok(about, "nginx passes them on, and usher_reservations checks their rooms")
        }
        (Some(true), Some(prosody::Asks::Stock)) => Finding::failed(
            about,
            "nginx passes them on to jicofo past Prosody's module reservations: anybody can start any conference",
        )
        .remedy("load usher_reservations instead of reservations, or uncomment the location of /conference-request/v1 in /etc/jitsi/meet/jaas/usher.conf and take conferenceRequestUrl out of config.js"),
        (Some(true), _) => Finding::note(about, "nginx passes them on to jicofo; usher sees their rooms only with usher_reservations"),
    }
}
