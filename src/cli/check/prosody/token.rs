//! The token that Prosody presents: whether the running usher accepts it, or would accept it.

use usher::clock;
use usher::config::Config;
use usher::domain::scope::Scope;

use super::super::finding::Finding;
use super::super::service::RunningService;
use super::{Report, ReservationModule, Token, restart};

const ABOUT: &str = "Prosody's service token";
/// The byte order mark, which Prosody sends as a part of the token.
const BYTE_ORDER_MARK: char = '\u{feff}';

pub(super) async fn finding(
    report: &Report,
    config: &Config,
    service: Option<&RunningService>,
) -> Option<Finding> {
    let token = match report.reservation_module() {
        Some(ReservationModule::Stock) => &report.header,
        _ if report.has_shim() => &report.token,
        // Jitsi's component signs tokens with a key.
        _ => return None,
    };
    if token.place == "unreadable" {
        let message = format!("Prosody can't read it: {}", token.detail);
        return Some(
            Finding::failed(ABOUT, message).hint("chown usher:prosody and chmod 640 that file"),
        );
    }
    let header = header(token);
    if header
        .as_ref()
        .is_some_and(|it| it.contains(BYTE_ORDER_MARK))
    {
        let message = format!(
            "{} begins with a byte order mark, which Prosody sends as a part of the token",
            token.detail
        );
        let hint = format!("sed -i '1s/^\\xEF\\xBB\\xBF//' {}", token.detail);
        return Some(Finding::failed(ABOUT, message).hint(hint));
    }
    let name = name(token);
    let verified = match service {
        Some(service) => service
            .authorize(header.as_deref())
            .await
            .map(|()| "accepts"),
        None => locally(header.as_deref(), config)
            .await
            .map(|()| "would accept"),
    };
    Some(match verified {
        Ok(verb) => Finding::ok(ABOUT, format!("usher {verb} {name}")),
        Err(reason) => Finding::failed(ABOUT, format!("usher refuses {name}: {reason}"))
            .hint(hint(token, report, config)),
    })
}

/// The value of the header `Authorization`.
pub(super) fn header(token: &Token) -> Option<String> {
    let value = token.value.as_ref()?;
    Some(match token.place.as_str() {
        "header" => value.clone(),
        _ => format!("Bearer {value}"),
    })
}

fn name(token: &Token) -> String {
    match token.place.as_str() {
        "none" => "requests of Prosody without a token".to_owned(),
        "file" => format!("the one in {}", token.detail),
        "header" => "the one in reservations_api_headers".to_owned(),
        _ => "the one in usher_token".to_owned(),
    }
}

fn hint(token: &Token, report: &Report, config: &Config) -> String {
    let restart = restart(&config.xmpp.domain);
    let is_stock = report.reservation_module() == Some(ReservationModule::Stock);
    match token.place.as_str() {
        "none" if is_stock => format!(
            "set reservations_api_headers = {{ [\"Authorization\"] = \"Bearer TOKEN\" }}, then: {restart}"
        ),
        "none" => format!(
            "ln -s ../conf.avail/usher.cfg.lua /etc/prosody/conf.d/, or set usher_token_file; then: {restart}"
        ),
        "file" => "let auth.service.tokens_file name that file, too, then: systemctl reload usher".to_owned(),
        _ => "add it to auth.service.tokens, then: systemctl reload usher; or let Prosody have one of those".to_owned(),
    }
}

/// Whether a usher with this configuration accepts the header.
async fn locally(header: Option<&str>, config: &Config) -> Result<(), String> {
    let failed = |error: usher::service::ServeError| error.to_string();
    let secret = usher::service::build::existing_secret(config).map_err(failed)?;
    let auth = usher::service::build::service_auth(config, secret.as_ref()).map_err(failed)?;
    match header {
        None if auth.open => Ok(()),
        None => Err("a service token is required".to_owned()),
        Some(header) => {
            let (scheme, token) = header.split_once(' ').unwrap_or_default();
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err("the header must be \"Bearer\", a blank and the token".to_owned());
            }
            let verified = auth.verify_token(token.trim(), clock::now()).await;
            let scopes = verified.map_err(|refusal| refusal.to_string())?;
            match scopes.include_one_of(&[Scope::Prosody]) {
                true => Ok(()),
                false => Err("the token lacks the scope \"prosody\"".to_owned()),
            }
        }
    }
}
