//! `usher token`: signs a token that the service accepts, for tests or for Prosody.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;
use usher::clock;
use usher::config::{Config, parse_duration};
use usher::domain::conference::Conference;
use usher::domain::scope::{Scope, Scopes};

use super::{print, print_error};

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("role").required(true))]
pub(crate) struct Arguments {
    /// The room the token is for; * for any
    #[arg(long, required_unless_present = "service")]
    room: Option<String>,
    /// The room's tenant
    #[arg(long, conflicts_with = "service")]
    tenant: Option<String>,
    /// For a visitor, who waits until the conference goes live
    #[arg(long, group = "role")]
    visitor: bool,
    /// For a moderator, who sees how many visitors wait
    #[arg(long, group = "role")]
    moderator: bool,
    /// For Prosody or jigasi
    #[arg(long, group = "role", conflicts_with = "room")]
    service: bool,
    /// What the service may do: prosody, queue, bookings, decisions, operate or metrics; may be repeated; default: all
    #[arg(long, value_name = "SCOPE", requires = "service", value_parser = scope)]
    scope: Vec<Scope>,
    /// How long it is valid
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// The user's id
    #[arg(long, value_name = "ID", conflicts_with = "service")]
    user_id: Option<String>,
    /// The user's e-mail address
    #[arg(long, value_name = "ADDRESS", conflicts_with = "service")]
    user_email: Option<String>,
    /// The user's name
    #[arg(long, value_name = "NAME", conflicts_with = "service")]
    user_name: Option<String>,
}

fn scope(name: &str) -> Result<Scope, String> {
    Scope::named(name).ok_or_else(|| format!("scopes are {}", Scope::list(&Scope::ALL)))
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
}

/// Prints the token.
pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    ensure!(
        !arguments.ttl.is_zero(),
        "--ttl must be longer than nothing"
    );
    let Some(secret) = usher::service::build::secret(config)? else {
        return print_configured(arguments, config);
    };
    let now = clock::now().timestamp();
    let auth = &config.auth;
    let issuers = if arguments.service {
        &auth.service.issuers
    } else {
        &auth.accepted_issuers
    };
    let concrete = |accepted: &[String]| {
        accepted
            .iter()
            .find(|name| *name != "*")
            .cloned()
            .unwrap_or_else(|| "jitsi".into())
    };
    let mut claims = json!({
        "iss": concrete(issuers),
        "aud": concrete(&auth.accepted_audiences),
        "iat": now,
        "nbf": now,
        "exp": now + i64::try_from(arguments.ttl.as_secs())?,
    });
    if let Some(room) = &arguments.room {
        let any = room == "*";
        let name = if any { "any" } else { room };
        let tenant = arguments.tenant.as_deref();
        let conference = Conference::from_names(name, tenant, &config.xmpp.domain)?;
        claims["room"] = if any {
            "*".into()
        } else {
            conference.room().into()
        };
        claims["sub"] = conference.tenant().unwrap_or(&config.xmpp.domain).into();
        claims["context"] = json!({ "user": user(arguments) });
    }
    if !arguments.scope.is_empty() {
        let names: Vec<_> = arguments.scope.iter().map(|it| it.name()).collect();
        claims["scope"] = names.join(" ").into();
    }
    let algorithm = auth.secret_algorithm;
    print(usher::auth::sign_by(
        algorithm,
        secret.expose(),
        &claims,
        Some("usher"),
    )?)?;
    Ok(ExitCode::SUCCESS)
}

/// Without a secret nothing can be signed, as after the installation of the package; but a service token that is
/// configured can be used.
fn print_configured(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let mut tokens = config.auth.service.tokens.iter();
    let allows = |scopes: Scopes| {
        let mut wanted = arguments.scope.iter();
        wanted.all(|scope| scopes.include_one_of(&[*scope]))
    };
    let configured = tokens.find(|it| arguments.service && allows(it.scopes));
    let token = configured.context(
        "auth.secret is not set, and only it can sign tokens here; write Prosody's app_secret into a file and set auth.secret_file, or sign with the private half of your key pair elsewhere",
    )?;
    print_error(&"this is one of auth.service.tokens: it has no end, and --ttl no effect");
    print(token.token.expose())?;
    Ok(ExitCode::SUCCESS)
}

fn user(arguments: &Arguments) -> serde_json::Value {
    let mut user = if arguments.visitor {
        json!({ "role": "visitor" })
    } else {
        json!({ "moderator": true })
    };
    for (claim, value) in [
        ("id", &arguments.user_id),
        ("email", &arguments.user_email),
        ("name", &arguments.user_name),
    ] {
        if let Some(value) = value {
            user[claim] = value.as_str().into();
        }
    }
    user
}
