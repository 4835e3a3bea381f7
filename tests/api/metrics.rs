//! The metrics as Prometheus reads them; the dashboard and the alerts query metrics that exist.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Answer, TOKEN, Usher};
use crate::process::free_address;
use crate::queue::start;
use crate::stomp::Client;

const ROOM: &str = "room@conference.meet.example.com";
const DASHBOARD: &str = include_str!("../../packaging/grafana/usher.json");
const RULES: &str = include_str!("../../packaging/prometheus/usher.rules.yml");
/// The number of queries before Prometheus counts as broken.
const TRIES: usize = 300;
const PAUSE: Duration = Duration::from_millis(100);

async fn scrape(usher: &Usher) -> String {
    let answer = usher
        .client
        .get(usher.url("/metrics"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let kind = answer.headers()["content-type"].to_str().unwrap();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    answer.text().await.unwrap()
}

/// The value of a sample, given with its labels.
fn value(scraped: &str, sample: &str) -> f64 {
    let line = scraped.lines().find_map(|line| {
        let rest = line.strip_prefix(sample)?;
        rest.strip_prefix(' ')
    });
    let found = line.unwrap_or_else(|| panic!("no {sample} in {scraped}"));
    found.parse().unwrap()
}

/// One event of most kinds.
async fn use_everything(usher: &Usher) {
    usher.open("standup").await;
    usher.open("standup").await;
    let wrong = usher.client.get(usher.url("/api/v1/bookings"));
    Answer::of(wrong.bearer_auth("wrong")).await.refused(401);
    let mut waiting = Client::wait(usher, "room").await;
    usher.go_live(ROOM).await;
    waiting.released().await;
    waiting.close().await;
}

#[tokio::test]
async fn events_are_counted() {
    let usher = start("").await;
    let before = scrape(&usher).await;
    use_everything(&usher).await;
    let mut faulty = Client::wait(&usher, "other").await;
    faulty.send("SEND\ndestination:x\n\n\0").await;
    // Other tests of this process count too, so values are compared, not asserted.
    for sample in [
        "usher_visitors_released_total",
        "usher_sessions_opened_total",
        "usher_sessions_ended_total{reason=\"left\"}",
        "usher_sessions_ended_total{reason=\"refused\"}",
        "usher_frames_refused_total{reason=\"not_allowed\"}",
        "usher_tokens_refused_total{door=\"http\",reason=\"not_configured\"}",
        "usher_golive_told_seconds_count",
        "usher_decisions_total{outcome=\"allowed\",reason=\"unbooked\"}",
        "usher_decisions_total{outcome=\"conflict\",reason=\"running\"}",
        "usher_store_seconds_count{step=\"turn\"}",
        "usher_store_seconds_count{step=\"commit\"}",
    ] {
        let mut tries = 0;
        while value(&scrape(&usher).await, sample) <= value(&before, sample) {
            tries += 1;
            assert!(tries < TRIES, "{sample} was not counted");
            tokio::time::sleep(PAUSE).await;
        }
    }
    let figures = scrape(&usher).await;
    assert!(value(&figures, "process_resident_memory_bytes") > 1e6);
    assert!(value(&figures, "process_start_time_seconds") > 1.6e9);
    assert!(value(&figures, "process_open_fds") > 3.0);
    assert!(value(&figures, "process_max_fds") > 3.0);
    value(&figures, "process_cpu_seconds_total");
}

#[tokio::test]
async fn metrics_require_the_local_machine_or_a_service_token() {
    let usher = start("").await;
    let ask = || usher.client.get(usher.url("/metrics"));
    assert!(ask().send().await.unwrap().status().is_success());
    let good = ask().bearer_auth(TOKEN).send().await.unwrap();
    assert!(good.status().is_success());
    Answer::of(ask().bearer_auth("wrong")).await.refused(401);
    let proxied = ask().header("X-Forwarded-For", "192.0.2.1");
    Answer::of(proxied).await.refused(401);
    let proxied = ask().header("X-Forwarded-For", "192.0.2.1");
    let proxied = proxied.bearer_auth(TOKEN).send().await.unwrap();
    assert!(proxied.status().is_success());
    let posted = usher.client.post(usher.url("/metrics"));
    Answer::of(posted).await.refused(405);
}

/// The queries of the dashboard, as Grafana would send them.
fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            let query = query
                .replace("$__rate_interval", "1m")
                .replace("$job", ".*");
            assert!(!query.contains('$'), "{query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    assert!(queries.len() >= 20);
    queries
}

/// The queries of the rules, and the left sides of their comparisons: an alert that does not fire has no result, its left side has one.
fn rules() -> Vec<(String, String, String)> {
    let mut rules = Vec::new();
    let mut lines = RULES.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("- alert: ") else {
            continue;
        };
        let query = lines.next().unwrap().strip_prefix("expr: ").unwrap();
        let compared = [" == ", " > "]
            .iter()
            .find_map(|sign| query.rsplit_once(sign));
        let (left, number) = compared.unwrap_or_else(|| panic!("{query}"));
        number.parse::<f64>().unwrap();
        rules.push((name.to_owned(), query.to_owned(), left.to_owned()));
    }
    assert!(rules.len() >= 10);
    rules
}

/// The names of our metrics in a query.
fn names(query: &str) -> BTreeSet<&str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("usher_") || word.starts_with("process_"))
        .collect()
}

#[tokio::test]
async fn dashboard_and_alerts_query_existing_metrics() {
    let usher = start("").await;
    let scraped = scrape(&usher).await;
    let samples: BTreeSet<_> = scraped
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let panels = panels().into_iter().map(|(_, query)| query);
    let mut asked = 0;
    for query in panels.chain(rules().into_iter().map(|(_, query, _)| query)) {
        for name in names(&query) {
            asked += 1;
            assert!(samples.contains(name), "{name} of {query}");
        }
    }
    assert!(asked >= 30, "{asked}");
}

/// Whether a missing program fails the test instead of skipping it.
#[expect(
    clippy::disallowed_methods,
    reason = "it concerns the test machine, not usher"
)]
fn require_programs() -> bool {
    std::env::var_os("CI").is_some()
}

struct Prometheus {
    child: Child,
    address: SocketAddr,
    client: reqwest::Client,
    _dir: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Starts a Prometheus that scrapes `usher`; `None` if it isn't installed.
    fn start(usher: &Usher) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let rules = dir.path().join("usher.rules.yml");
        std::fs::write(&rules, RULES).unwrap();
        let config = dir.path().join("prometheus.yml");
        let scrape = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 1s }}\n\
             rule_files: [ {} ]\n\
             scrape_configs: [ {{ job_name: usher, authorization: {{ credentials: {TOKEN} }}, static_configs: [ {{ targets: [ \"{}\" ] }} ] }} ]\n",
            rules.display(),
            usher.address
        );
        std::fs::write(&config, scrape).unwrap();
        let address = free_address();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self {
            child,
            address,
            client: usher.client.clone(),
            _dir: dir,
        })
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let url = reqwest::Url::parse_with_params(&format!("http://{}{path}", self.address), query);
        let answer = self.client.get(url.unwrap()).send().await.ok()?;
        answer.json().await.ok()
    }

    /// The result of a query, once there is one.
    async fn finds(&self, what: &str, query: &str) -> Vec<Value> {
        let mut last = Value::Null;
        for _ in 0..TRIES {
            if let Some(answer) = self.get("/api/v1/query", &[("query", query)]).await {
                assert_ne!(answer["status"], "error", "{what}: {query}: {answer}");
                if let Some(found) = answer["data"]["result"]
                    .as_array()
                    .filter(|it| !it.is_empty())
                {
                    return found.clone();
                }
                last = answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("{what}: {query} has no result: {last}");
    }
}

#[tokio::test]
async fn prometheus_answers_each_panel_and_alert() {
    let usher = start("").await;
    let Some(prometheus) = Prometheus::start(&usher) else {
        assert!(!require_programs(), "Prometheus isn't installed");
        println!("skipped: Prometheus isn't installed");
        return;
    };
    prometheus
        .finds("the scrape", "up{job=\"usher\"} == 1")
        .await;
    use_everything(&usher).await;
    let mut asked = 0;
    for (panel, query) in panels() {
        asked += 1;
        prometheus.finds(&panel, &query).await;
    }
    for (alert, query, left) in rules() {
        asked += 1;
        prometheus.finds(&alert, &left).await;
        let answer = prometheus.get("/api/v1/query", &[("query", &query)]).await;
        assert_eq!(answer.unwrap()["status"], "success", "{query}");
    }
    assert!(asked > 30);
    let loaded = prometheus.get("/api/v1/rules", &[]).await.unwrap();
    let loaded = loaded["data"]["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(loaded.len(), rules().len());
    assert!(loaded.iter().all(|rule| rule["health"] != json!("err")));
}

#[test]
fn promtool_accepts_the_rules() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/packaging/prometheus/usher.rules.yml"
    );
    let Ok(checked) = Command::new("promtool")
        .args(["check", "rules", file])
        .output()
    else {
        assert!(!require_programs(), "promtool isn't installed");
        println!("skipped: promtool isn't installed");
        return;
    };
    let message = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{message}");
}
