//! What is measured: every name, help text and unit is in this file, and so is every value that a label may
//! have.
//!
//! There is one set of them for the process, as there is one set of its own figures, so that whatever is
//! worth counting can be counted with one line where it happens. They are written here and read by
//! Prometheus; nothing in usher decides by them. Labels are words of the program, never names of rooms,
//! people, or addresses: their number doesn't grow with use.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

mod process;

/// The media type of what [`render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What visitors in the queue's books are doing, for [`Snapshot::visitors`].
pub const VISITOR_STATES: [&str; 4] = ["waiting", "releasing", "released", "away"];
/// Why sessions end ([`session_ended`]).
const ENDS: [&str; 5] = ["left", "refused", "silent", "slow", "stopped"];
/// Why frames are refused ([`frame_refused`]).
const FRAME_REFUSALS: [&str; 8] = [
    "destination",
    "full",
    "key_server",
    "not_allowed",
    "protocol",
    "token",
    "too_large",
    "too_late",
];
/// Where tokens are refused ([`token_refused`]).
const TOKEN_DOORS: [&str; 2] = ["http", "queue"];
/// The usual reasons for it. There are more; they appear when they first happen.
const TOKEN_REFUSALS: [&str; 7] = [
    "bad_signature",
    "expired",
    "key_server_unavailable",
    "malformed",
    "missing",
    "not_configured",
    "unknown_key",
];
/// The usual decisions ([`decision_made`]). There are more; they appear when they first happen.
const DECISIONS: [(&str, &str); 5] = [
    ("allowed", "booked"),
    ("allowed", "unbooked"),
    ("conflict", "running"),
    ("queued", "waiting_queue"),
    ("refused", "booked"),
];
/// What becomes of calls to the upstream ([`observe_upstream_call`]).
const UPSTREAM_OUTCOMES: [&str; 6] = [
    "ok",
    "conflict",
    "refused",
    "failed",
    "timeout",
    "unreachable",
];
/// What is waited for at the database ([`observe_store_wait`]).
const STORE_STEPS: [&str; 2] = ["turn", "commit"];
/// How the database fails ([`store_failed`]).
const STORE_FAILURES: [&str; 2] = ["unavailable", "other"];
/// What becomes of a reload ([`config_reloaded`]).
const RELOADS: [&str; 2] = ["ok", "refused"];

/// From a visitor's release to their message, in seconds: a crowd takes some hundred milliseconds.
const TOLD_BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// One sync of a disk, in seconds, and up to the eight seconds that a turn is waited for.
const STORE_BUCKETS: [f64; 11] = [
    0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 8.0,
];
/// A call over a network, in seconds, up to its time-out.
const UPSTREAM_BUCKETS: [f64; 9] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 20.0];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type Histograms = Family<Labels<1>, Histogram, fn() -> Histogram>;

struct Metrics {
    registry: Registry,
    visitors: Gauges<1>,
    live: Gauge,
    connections: Gauge,
    connections_max: Gauge,
    released: Counter,
    sessions_opened: Counter,
    sessions_ended: Counters<1>,
    frames_refused: Counters<1>,
    tokens_refused: Counters<2>,
    told: Histogram,
    decisions: Counters<2>,
    upstream: Histograms,
    outbox: Gauge,
    store: Histograms,
    store_failures: Counters<1>,
    reloads: Counters<1>,
    reloaded: Gauge,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let metrics = Self {
            visitors: add(
                r,
                "usher_visitors",
                "Visitors by state: waiting for a conference to go live; in line in one that is live; released but still connected; away, their place kept",
                Gauges::default(),
            ),
            live: add(
                r,
                "usher_conferences_live",
                "Conferences that are live",
                Gauge::default(),
            ),
            connections: add(
                r,
                "usher_connections",
                "Open connections, waiting visitors among them",
                Gauge::default(),
            ),
            connections_max: add(
                r,
                "usher_connections_max",
                "How many connections there may be (server.max_connections)",
                Gauge::default(),
            ),
            released: add(
                r,
                "usher_visitors_released",
                "Visitors who were let in",
                Counter::default(),
            ),
            sessions_opened: add(
                r,
                "usher_sessions_opened",
                "Sessions of the queue that began",
                Counter::default(),
            ),
            sessions_ended: add(
                r,
                "usher_sessions_ended",
                "Sessions of the queue that ended, by reason",
                Counters::default(),
            ),
            frames_refused: add(
                r,
                "usher_frames_refused",
                "STOMP frames that were refused, by reason",
                Counters::default(),
            ),
            tokens_refused: add(
                r,
                "usher_tokens_refused",
                "Tokens that were refused, by where and reason",
                Counters::default(),
            ),
            told: add(
                r,
                "usher_golive_told_seconds",
                "From a visitor's release (going live, or their turn where there is a pace) until they were told",
                Histogram::new(TOLD_BUCKETS),
            ),
            decisions: add(
                r,
                "usher_decisions",
                "Requests for conferences, by outcome and reason",
                Counters::default(),
            ),
            upstream: add(
                r,
                "usher_upstream_call_seconds",
                "Calls to the external reservation system, by outcome",
                Histograms::new_with_constructor(|| Histogram::new(UPSTREAM_BUCKETS)),
            ),
            outbox: add(
                r,
                "usher_outbox_pending",
                "Deletions that the external reservation system has not heard of yet",
                Gauge::default(),
            ),
            store: add(
                r,
                "usher_store_seconds",
                "Waiting for the database, by step: the turn to write, the commit",
                Histograms::new_with_constructor(|| Histogram::new(STORE_BUCKETS)),
            ),
            store_failures: add(
                r,
                "usher_store_failures",
                "Failures of the database, by reason",
                Counters::default(),
            ),
            reloads: add(
                r,
                "usher_reloads",
                "Reloads of the configuration, by outcome",
                Counters::default(),
            ),
            reloaded: add(
                r,
                "usher_reload_successful",
                "Whether the last reload was taken (1) or refused (0)",
                Gauge::default(),
            ),
            registry: Registry::default(),
        };
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("usher_build", "Which usher this is", Info::new(version));
        let started_at = SystemTime::now();
        registry.register_collector(Box::new(ProcessFigures { started_at }));
        metrics.at_zero();
        Self {
            registry,
            ..metrics
        }
    }

    /// What has not happened yet is zero and not absent: so a rate sees the first time, too.
    fn at_zero(&self) {
        let counters = [
            (&self.sessions_ended, "reason", ENDS.as_slice()),
            (&self.frames_refused, "reason", &FRAME_REFUSALS),
            (&self.store_failures, "reason", &STORE_FAILURES),
            (&self.reloads, "outcome", &RELOADS),
        ];
        for (family, label, values) in counters {
            for value in values {
                drop(family.get_or_create(&[(label, value)]));
            }
        }
        for state in VISITOR_STATES {
            drop(self.visitors.get_or_create(&[("state", state)]));
        }
        for door in TOKEN_DOORS {
            for reason in TOKEN_REFUSALS {
                let labels = [("door", door), ("reason", reason)];
                drop(self.tokens_refused.get_or_create(&labels));
            }
        }
        for (outcome, reason) in DECISIONS {
            let labels = [("outcome", outcome), ("reason", reason)];
            drop(self.decisions.get_or_create(&labels));
        }
        for outcome in UPSTREAM_OUTCOMES {
            drop(self.upstream.get_or_create(&[("outcome", outcome)]));
        }
        for step in STORE_STEPS {
            drop(self.store.get_or_create(&[("step", step)]));
        }
        self.reloaded.set(1);
    }
}

fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// The service starts: from here on the figures know since when.
pub fn init() {
    LazyLock::force(&METRICS);
}

/// A session of the queue began.
pub fn session_opened() {
    METRICS.sessions_opened.inc();
}

/// A session of the queue ended.
pub fn session_ended(reason: &'static str) {
    let ended = &METRICS.sessions_ended;
    ended.get_or_create(&[("reason", reason)]).inc();
}

/// A STOMP frame was refused.
pub fn frame_refused(reason: &'static str) {
    let refused = &METRICS.frames_refused;
    refused.get_or_create(&[("reason", reason)]).inc();
}

/// A token was refused, at the door `http` or `queue`.
pub fn token_refused(door: &'static str, reason: &'static str) {
    let labels = [("door", door), ("reason", reason)];
    METRICS.tokens_refused.get_or_create(&labels).inc();
}

/// So many visitors were let in.
pub fn visitors_released(count: usize) {
    METRICS
        .released
        .inc_by(count.try_into().unwrap_or(u64::MAX));
}

/// A visitor was told to come in, so long after it was their turn.
pub fn observe_delivery_latency(after: Duration) {
    METRICS.told.observe(after.as_secs_f64());
}

/// A request for a conference was decided.
pub fn decision_made(outcome: &'static str, reason: &'static str) {
    let labels = [("outcome", outcome), ("reason", reason)];
    METRICS.decisions.get_or_create(&labels).inc();
}

/// The upstream was called, and that took so long. `outcome`: `ok`, `conflict`, `refused` (it said no),
/// `failed` (it broke), `timeout`, or `unreachable`.
pub fn observe_upstream_call(outcome: &'static str, took: Duration) {
    let calls = METRICS.upstream.get_or_create(&[("outcome", outcome)]);
    calls.observe(took.as_secs_f64());
}

/// So many deletions wait for the upstream to hear of them.
pub fn set_outbox_pending(count: u64) {
    METRICS.outbox.set(count.try_into().unwrap_or(i64::MAX));
}

/// The database was waited for: for the `turn` to write, or for the `commit`.
pub fn observe_store_wait(step: &'static str, took: Duration) {
    let waits = METRICS.store.get_or_create(&[("step", step)]);
    waits.observe(took.as_secs_f64());
}

/// The database failed: it is `unavailable`, or something `other` is wrong.
pub fn store_failed(reason: &'static str) {
    let failures = &METRICS.store_failures;
    failures.get_or_create(&[("reason", reason)]).inc();
}

/// The configuration was read again, and taken or refused.
pub fn config_reloaded(taken: bool) {
    let [ok, refused] = RELOADS;
    let outcome = if taken { ok } else { refused };
    METRICS.reloads.get_or_create(&[("outcome", outcome)]).inc();
    METRICS.reloaded.set(i64::from(taken));
}

/// What is looked at when it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// How many visitors are in each of [`VISITOR_STATES`].
    pub visitors: [usize; 4],
    /// How many conferences are live.
    pub live: usize,
    /// How many connections are open.
    pub connections: usize,
    /// How many there may be.
    pub connections_max: usize,
}

/// Everything that is measured, in Prometheus' text format.
#[must_use]
pub fn render(now: Snapshot) -> String {
    let set = |gauge: &Gauge, value: usize| {
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    };
    for (state, count) in VISITOR_STATES.into_iter().zip(now.visitors) {
        set(&METRICS.visitors.get_or_create(&[("state", state)]), count);
    }
    set(&METRICS.live, now.live);
    set(&METRICS.connections, now.connections);
    set(&METRICS.connections_max, now.connections_max);
    let mut text = String::new();
    // Writing to memory doesn't fail.
    let _ = encode(&mut text, &METRICS.registry);
    plain(&text)
}

/// OpenMetrics, which the library writes, as the older text format, which everything reads: there, a
/// counter's name has its `_total` in the head lines, too.
fn plain(openmetrics: &str) -> String {
    let mut plain = String::with_capacity(openmetrics.len());
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        let kind = |line: &str| {
            let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
            Some((name.to_owned(), kind.to_owned()))
        };
        let suffix = |kind: &str| match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let typed = |kind: &str| if kind == "info" { "gauge" } else { kind }.to_owned();
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, help)) = rest.split_once(' ') else {
                continue;
            };
            let next = lines.peek().and_then(|next| kind(next));
            let suffix = next.map_or("", |(_, kind)| suffix(&kind));
            plain += &format!("# HELP {name}{suffix} {help}\n");
        } else if let Some((name, kind)) = kind(line) {
            plain += &format!("# TYPE {name}{} {}\n", suffix(&kind), typed(&kind));
        } else if !line.starts_with('#') {
            plain += line;
            plain.push('\n');
        }
    }
    plain
}

/// The figures of the process, under the names that Prometheus' libraries give them.
#[derive(Debug)]
struct ProcessFigures {
    /// By our own clock: `/proc/stat`, which says when the machine started, is hidden from the packaged service.
    started_at: SystemTime,
}

impl Collector for ProcessFigures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let mut add = |name: &str, help: &str, metric: Option<&dyn EncodeMetric>| {
            let Some(metric) = metric else {
                return Ok(());
            };
            let kind = metric.metric_type();
            metric.encode(encoder.encode_descriptor(name, help, None, kind)?)
        };
        let figures = process::Figures::read();
        let cpu = figures.cpu_seconds.map(ConstCounter::new);
        add(
            "process_cpu_seconds",
            "Time spent on the processors, in seconds",
            cpu.as_ref().map(|it| it as _),
        )?;
        let memory = figures.resident_bytes.map(ConstGauge::new);
        add(
            "process_resident_memory_bytes",
            "Memory in use, in bytes",
            memory.as_ref().map(|it| it as _),
        )?;
        let files = figures.open_files.map(ConstGauge::new);
        add(
            "process_open_fds",
            "Open files, connections among them",
            files.as_ref().map(|it| it as _),
        )?;
        let limit = figures.open_files_max.map(ConstGauge::new);
        add(
            "process_max_fds",
            "How many files may be open",
            limit.as_ref().map(|it| it as _),
        )?;
        let started = self.started_at.duration_since(UNIX_EPOCH);
        let start = ConstGauge::new(started.unwrap_or_default().as_secs_f64());
        add(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970",
            Some(&start),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_its_help_and_its_type_under_its_own_name() {
        observe_delivery_latency(Duration::from_millis(3));
        let text = render(Snapshot::default());
        let mut samples = 0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            samples += 1;
            let name = line.split(['{', ' ']).next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"];
            let base = of_histogram
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            assert!(text.contains(&format!("# HELP {base} ")), "{line}");
            assert!(text.contains(&format!("# TYPE {base} ")), "{line}");
        }
        assert!(samples > 50, "{text}");
        assert!(!text.contains("EOF"), "{text}");
    }
}
