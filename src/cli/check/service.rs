//! The usher that runs on this machine: which program answers at `server.listen`, whether it accepts a token, and
//! whether it has read the present configuration.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use usher::config::{Config, Source};
use usher::domain::scope::{Scope, Scopes};

use super::finding::Finding;

/// How long the service may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Open files beside connections: the database, the log, calls to key servers.
const OTHER_FILES: f64 = 100.0;
/// The times of files have the precision of the kernel's clock tick.
const CLOCK_TICK: f64 = 0.02;

/// A usher that answers.
#[derive(Debug)]
pub(super) struct RunningService {
    client: Client,
    base: String,
}

/// Which program answers at `server.listen`. None is no error: the check is for the time before the first start, too.
pub(super) async fn find(config: &Config) -> (Finding, Option<RunningService>) {
    let (about, listen) = ("server.listen", config.server.listen);
    if listen.port() == 0 {
        let message = "port 0 selects a random port; set a fixed one";
        return (Finding::note(about, message), None);
    }
    let client = Client::builder().no_proxy().timeout(TIMEOUT).build();
    let client = match client {
        Ok(client) => client,
        Err(error) => return (Finding::failed(about, error.to_string()), None),
    };
    let service = RunningService {
        client,
        base: format!("http://{}", reachable(listen)),
    };
    let answer = service
        .client
        .get(format!("{}/about/version", service.base));
    match answer.send().await {
        Ok(answer) => match answer.text().await {
            Ok(text) if text.contains("\"usher\"") => (
                Finding::ok(about, format!("usher answers on {listen}")),
                Some(service),
            ),
            _ => (
                Finding::failed(about, format!("another program answers on {listen}"))
                    .hint("end it, or set server.listen to another port (and usher.socket, nginx and Prosody with it)"),
                None,
            ),
        },
        Err(error) if error.is_connect() => (
            Finding::note(about, format!("no service answers on {listen}: usher does not run"))
                .hint("systemctl start usher; journalctl -u usher says why it ended"),
            None,
        ),
        Err(error) => (
            Finding::failed(about, format!("{listen} does not answer as usher does: {}", error.without_url()))
                .hint("find the program: ss -ltnp"),
            None,
        ),
    }
}

/// An address of this machine for a service that listens on all of them.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        ip if ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}

impl RunningService {
    /// Whether Prosody's request with this header is authorized. It asks for a conference that can't be.
    pub(super) async fn authorize(&self, header: Option<&str>) -> Result<(), String> {
        let mut request = self.client.get(format!("{}/conference/0", self.base));
        if let Some(header) = header {
            let value = HeaderValue::from_str(header);
            let mut value = value.map_err(|_| "an HTTP header can't carry it".to_owned())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let answer = request.send().await;
        let answer = answer.map_err(|error| error.without_url().to_string())?;
        let status = answer.status();
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Ok(());
        }
        let body = answer.text().await.unwrap_or_default();
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let message = body["message"].as_str();
        Err(message.map_or_else(|| format!("HTTP {status}"), str::to_owned))
    }

    /// The versions of the modules in each Prosody that is connected, for a caller with Prosody's header.
    pub(super) async fn module_versions(&self, header: Option<String>) -> Vec<String> {
        let mut request = self
            .client
            .get(format!("{}/api/v1/prosody/instances", self.base));
        if let Some(value) = header.and_then(|it| HeaderValue::from_str(&it).ok()) {
            request = request.header(AUTHORIZATION, value);
        }
        let Ok(answer) = request.send().await else {
            return Vec::new();
        };
        let body = answer.text().await.unwrap_or_default();
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let instances = body["instances"].as_array().into_iter().flatten();
        let versions = instances.filter_map(|it| it["shim"].as_str());
        versions.map(str::to_owned).collect()
    }

    /// Whether it is ready, and what its metrics report.
    pub(super) async fn findings(&self, config: &Config, source: &Source) -> Vec<Finding> {
        let mut findings = Vec::from_iter(self.readiness().await);
        if let Some(metrics) = self.metrics(config).await {
            findings.extend(configuration_age(&metrics, config, source));
            findings.extend(open_files(&metrics, config));
        }
        findings
    }

    /// Each reason for which it is not ready.
    async fn readiness(&self) -> Vec<Finding> {
        let answer = self.client.get(format!("{}/ready", self.base)).send().await;
        let Ok(answer) = answer else {
            return Vec::new();
        };
        let body: Value =
            serde_json::from_str(&answer.text().await.unwrap_or_default()).unwrap_or_default();
        let reasons = body["reasons"].as_array().into_iter().flatten();
        let messages = reasons.filter_map(|reason| reason["message"].as_str());
        let failed = |message| {
            Finding::failed("readiness", format!("usher is not ready: {message}"))
                .hint("journalctl -u usher -p warning has the cause")
        };
        messages.map(failed).collect()
    }

    async fn metrics(&self, config: &Config) -> Option<String> {
        let mut request = self.client.get(format!("{}/metrics", self.base));
        let mut tokens = config.auth.service.tokens.iter();
        let allows = |scopes: Scopes| scopes.include_one_of(&[Scope::Metrics]);
        if let Some(known) = tokens.find(|known| allows(known.scopes)) {
            request = request.bearer_auth(known.token.expose());
        }
        let answer = request.send().await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }
}

/// The value of a metric without labels.
fn value(metrics: &str, name: &str) -> Option<f64> {
    let mut lines = metrics.lines();
    let rest = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    rest.trim().parse().ok()
}

/// Whether a file changed after the service read its configuration.
fn configuration_age(metrics: &str, config: &Config, source: &Source) -> Option<Finding> {
    let read_at = value(metrics, "usher_config_read_timestamp_seconds")?;
    let Source::File(file) = source else {
        return None;
    };
    let files = std::iter::once(file.as_path()).chain(config.files().map(PathBuf::as_path));
    let changed = |file: &&Path| modified_at(file).is_some_and(|at| at > read_at + CLOCK_TICK);
    let about = "running configuration";
    Some(match files.into_iter().find(changed) {
        Some(file) => Finding::failed(
            about,
            format!("{} was changed after usher read it", file.display()),
        )
        .hint("systemctl reload usher; the log names changed keys that need a restart"),
        None => Finding::ok(about, "usher has read the present files"),
    })
}

fn modified_at(file: &Path) -> Option<f64> {
    let modified: SystemTime = file.metadata().ok()?.modified().ok()?;
    Some(modified.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}

/// Whether the service may have as many files open as it may have connections.
fn open_files(metrics: &str, config: &Config) -> Option<Finding> {
    let limit = value(metrics, "process_max_fds")?;
    let connections = config.server.max_connections;
    let wanted = connections as f64 + OTHER_FILES;
    (limit < wanted).then(|| {
        Finding::note(
            "usher's open files",
            format!("usher may have {limit} files open, too few for server.max_connections, {connections}"),
        )
        .hint(format!(
            "systemctl edit usher: [Service] LimitNOFILE={wanted}; or lower server.max_connections"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn metric_is_read_by_its_whole_name() {
        let metrics = "# HELP a b\na_b 1\na{x=\"y\"} 2\na 3.5\n";
        assert_eq!(value(metrics, "a"), Some(3.5));
        assert_eq!(value(metrics, "a_c"), None);
    }

    #[test]
    fn few_open_files_are_a_note() {
        let config = Config::default();
        let finding = open_files("process_max_fds 1024\n", &config).unwrap();
        assert_eq!(finding.state, State::Note);
        assert!(finding.hint.unwrap().contains("LimitNOFILE=19100"));
        assert!(open_files("process_max_fds 19100\n", &config).is_none());
        assert!(open_files("", &config).is_none());
    }

    #[test]
    fn service_on_all_addresses_is_reached_by_the_loopback() {
        for (listen, reached) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), reached);
        }
    }
}
