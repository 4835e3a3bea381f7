//! nginx: whether it passes the queue's path to usher and conference requests to jicofo. Both are probed over HTTP, as
//! a visitor's browser sends them; only what can't be probed is read from nginx's configuration.

mod limits;
mod sites;

use std::path::Path;
use std::time::Duration;

use reqwest::header::{
    CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Response, StatusCode};
use usher::config::Config;

use super::finding::Finding;
use super::program;
use sites::{Capacity, Site};

const ABOUT: &str = "nginx";
const INCLUDE: &str = "include /etc/jitsi/meet/jaas/*.conf;";
const UPGRADE_LINES: &str = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";";
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Any key will do (RFC 6455, section 4.1): the connection is closed after the answer.
const KEY: &str = "dXNoZXIgY2hlY2sgbmdpbg==";

/// What was found.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) findings: Vec<Finding>,
    /// Whether `/conference-request/v1` reaches jicofo, where that can be known.
    pub(super) passes_conference_requests: Option<bool>,
}

impl From<Finding> for Inspection {
    fn from(finding: Finding) -> Self {
        Self {
            findings: vec![finding],
            passes_conference_requests: None,
        }
    }
}

/// Inspects the nginx of this machine, or the one with the configuration in `file`.
pub(super) async fn inspect(file: Option<&Path>, config: &Config) -> Inspection {
    let Some(nginx) = program::find("nginx") else {
        return Finding::not_installed(ABOUT, "it is not installed on this machine").into();
    };
    let file = file.map(program::absolute);
    let mut arguments = vec!["-T", "-q"];
    if let Some(file) = &file {
        arguments.extend(["-c", file]);
    }
    let text = match program::output(&nginx, &arguments).await {
        Ok(text) => text,
        Err(error) => {
            let message = format!("its configuration can't be read: {error}");
            return Finding::failed(ABOUT, message)
                .hint(hint_for(&error))
                .into();
        }
    };
    let domain = &config.xmpp.domain;
    if let Some(other) = sites::other_deployment(domain, &text) {
        let message =
            format!("it serves Jitsi Meet for \"{other}\", and has no server for \"{domain}\"");
        return Finding::failed(ABOUT, message)
            .hint(super::domain_hint(&other))
            .into();
    }
    let sites = sites::of_domain(domain, &text);
    if sites.is_empty() {
        return Finding::not_installed(ABOUT, format!("it has no server for {domain}")).into();
    }
    let mut inspection = probe_all(&sites, config).await;
    let capacity = Capacity::read(&text, limits::open_files_of("nginx"));
    inspection.findings.extend(capacity.finding(config));
    inspection
}

/// Its message has the file and the line.
fn hint_for(error: &str) -> &'static str {
    if error.contains("Permission denied") {
        "run usher check as root"
    } else {
        "correct the line that nginx names, then: nginx -t && systemctl reload nginx"
    }
}

/// The answers of the site that has the queue; another may only redirect to HTTPS.
async fn probe_all(sites: &[Site], config: &Config) -> Inspection {
    let mut failure = None;
    let mut passes_conference_requests = None;
    for site in sites {
        match probe_conference_requests(site, config).await {
            Ok(passes) => {
                passes_conference_requests =
                    Some(passes_conference_requests == Some(true) || passes);
            }
            Err(error) => tracing::debug!(%error, ?site, "a probe failed"),
        }
        let finding = probe_queue(site, config).await;
        if finding.is_ok() {
            return Inspection {
                findings: vec![finding],
                passes_conference_requests,
            };
        }
        failure.get_or_insert(finding);
    }
    Inspection {
        findings: Vec::from_iter(failure),
        passes_conference_requests,
    }
}

/// Opens a WebSocket at the queue's path, as a visitor does.
async fn probe_queue(site: &Site, config: &Config) -> Finding {
    let path = &config.queue.path;
    let answer = match get(site, config, &format!("{path}/visitor/websocket"), true).await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => {
            let message = format!("it does not answer on {}: it does not run", site.address);
            return Finding::note(ABOUT, message).hint("systemctl start nginx, then check again");
        }
        Err(error) => {
            let message = format!("{} does not answer: {}", site.address, error.without_url());
            return Finding::failed(ABOUT, message).hint("see nginx's error.log");
        }
    };
    let status = answer.status();
    let text = match status {
        StatusCode::SWITCHING_PROTOCOLS => String::new(),
        _ => answer.text().await.unwrap_or_default(),
    };
    queue_finding(status, &text, config)
}

/// What an answer to the handshake means.
fn queue_finding(status: StatusCode, text: &str, config: &Config) -> Finding {
    let (path, listen) = (&config.queue.path, config.server.listen);
    match status {
        StatusCode::SWITCHING_PROTOCOLS => {
            Finding::ok(ABOUT, format!("visitors reach usher at {path}"))
        }
        // usher's own answer to a request that is no handshake any more.
        StatusCode::UPGRADE_REQUIRED => {
            let message = format!("the location of {path} does not pass the Upgrade header");
            Finding::failed(ABOUT, message).hint(format!("add to it: {UPGRADE_LINES}"))
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
            if text.contains("\"message\"") =>
        {
            Finding::ok(
                ABOUT,
                format!("visitors reach usher at {path}; it is full: {text}"),
            )
        }
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            let message = format!(
                "it passes {path} to an address where no service answers (HTTP {status}), and usher's is {listen}"
            );
            Finding::failed(ABOUT, message).hint(format!(
                "start usher; let the location of {path} have proxy_pass http://{listen};"
            ))
        }
        _ => {
            let message = format!(
                "visitors can't reach the queue: the answer at {path} is HTTP {status}, and not usher's"
            );
            Finding::failed(ABOUT, message).hint(format!(
                "put `{INCLUDE}` into the server block of {}, let its location of {path} have proxy_pass http://{listen};, then: systemctl reload nginx",
                config.xmpp.domain
            ))
        }
    }
}

/// Whether a conference request reaches jicofo, with or without a further path.
async fn probe_conference_requests(site: &Site, config: &Config) -> reqwest::Result<bool> {
    for path in ["/conference-request/v1", "/conference-request/v1/x"] {
        let answer = get(site, config, path, false).await?;
        if is_of_jicofo(answer.status(), content_type(&answer)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn content_type(answer: &Response) -> &str {
    let value = answer.headers().get(CONTENT_TYPE);
    value.and_then(|it| it.to_str().ok()).unwrap_or_default()
}

/// Whether an answer to a GET is jicofo's, or of a proxy that looked for it in vain. jicofo accepts POST only, and has
/// no path below. nginx itself redirects, refuses, or sends its pages: Jitsi's site answers unknown paths with its own.
fn is_of_jicofo(status: StatusCode, content_type: &str) -> bool {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => !content_type.starts_with("text/html"),
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => true,
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => false,
        _ => !status.is_redirection() && !content_type.starts_with("text/html"),
    }
}

/// Requests a path of the site as a browser does, but on this machine, whatever the certificate.
async fn get(
    site: &Site,
    config: &Config,
    path: &str,
    is_handshake: bool,
) -> reqwest::Result<Response> {
    let domain = &config.xmpp.domain;
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .resolve(domain, site.address)
        // The probe sends no secret, and stays on this machine.
        .tls_danger_accept_invalid_certs(true)
        .build()?;
    let scheme = if site.tls { "https" } else { "http" };
    let mut request = client.get(format!("{scheme}://{domain}:{}{path}", site.address.port()));
    if is_handshake {
        request = request
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, KEY);
    }
    request.send().await
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn the_answer_to_a_handshake_decides() {
        let config = Config::default();
        for (status, text, state, says) in [
            (101, "", State::Ok, "visitors reach usher"),
            (503, r#"{"message":"full"}"#, State::Ok, "full"),
            (503, "<html>", State::Failed, "not usher's"),
            (426, r#"{"message":"x"}"#, State::Failed, "Upgrade header"),
            (502, "<html>", State::Failed, "no service answers"),
            (404, "<html>", State::Failed, "can't reach the queue"),
            (200, "<html>", State::Failed, "can't reach the queue"),
            (301, "", State::Failed, "can't reach the queue"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let finding = queue_finding(status, text, &config);
            assert_eq!(finding.state, state, "{finding}");
            assert!(finding.message.contains(says), "{finding}");
            assert_eq!(finding.hint.is_some(), state == State::Failed, "{finding}");
        }
    }

    #[test]
    fn answers_of_jicofo_and_of_a_proxy_without_it_count_as_passed() {
        for (status, content_type, passes) in [
            (405, "", true),
            (405, "text/html", false),
            (502, "text/html", true),
            (504, "text/html", true),
            (200, "application/json", true),
            (200, "text/html; charset=utf-8", false),
            (404, "text/html", false),
            (404, "", false),
            (403, "text/html", false),
            (301, "", false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let found = is_of_jicofo(status, content_type);
            assert_eq!(found, passes, "{status} {content_type}");
        }
    }
}
