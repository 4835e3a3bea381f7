//! The metrics of this process, in Prometheus' text format: one file an area, with names, help texts, buckets and label
//! values.
//!
//! They are global, so an event is counted with one line where it happens. No code reads them. Labels are words of the
//! program, never names of rooms or people, nor addresses, so their number doesn't grow with use. Label values that
//! are known exist from the start with the value 0, so that a rate includes the first event.

mod auth;
mod process;
mod queue;
mod reservation;
mod service;
mod session;
mod store;

use std::sync::LazyLock;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, Opts, Registry, Result, TextEncoder};

pub use auth::token_refused;
pub use queue::{VISITOR_STATES, observe_delivery_latency, visitors_released};
pub use reservation::{decision_made, observe_upstream_call, set_outbox_pending};
pub use service::{config_read, config_reloaded};
pub use session::{BOUNDS, bound_met, frame_refused, session_ended, session_opened};
pub use store::{observe_store_wait, set_database_file_lost, store_failed};

/// The media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Metrics {
    registry: Registry,
    auth: auth::Metrics,
    queue: queue::Metrics,
    reservation: reservation::Metrics,
    service: service::Metrics,
    session: session::Metrics,
    store: store::Metrics,
}

static METRICS: LazyLock<Result<Metrics>> = LazyLock::new(Metrics::new);

impl Metrics {
    fn new() -> Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(process::ProcessCollector::new()?))?;
        Ok(Self {
            auth: auth::Metrics::new(&registry)?,
            queue: queue::Metrics::new(&registry)?,
            reservation: reservation::Metrics::new(&registry)?,
            service: service::Metrics::new(&registry)?,
            session: session::Metrics::new(&registry)?,
            store: store::Metrics::new(&registry)?,
            registry,
        })
    }
}

/// Records with `record`. There is nothing to record with if a metric could not be registered, which [`init`] logs.
fn with(record: impl FnOnce(&Metrics)) {
    if let Ok(metrics) = &*METRICS {
        record(metrics);
    }
}

/// Registers all metrics, and takes the start time of the process.
pub fn init() {
    if let Err(error) = &*METRICS {
        tracing::error!(%error, "metrics are not available");
    }
}

/// The values that are read when Prometheus asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The number of visitors in each of [`VISITOR_STATES`].
    pub visitors: [usize; VISITOR_STATES.len()],
    /// The number of live conferences.
    pub live: usize,
    /// The number of open connections.
    pub connections: usize,
    /// `server.max_connections`.
    pub connections_max: usize,
}

/// All metrics in Prometheus' text format.
#[must_use]
pub fn render(snapshot: Snapshot) -> String {
    let mut text = String::new();
    with(|metrics| {
        metrics.queue.set(&snapshot);
        metrics.session.set(&snapshot);
        let families = metrics.registry.gather();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "metrics could not be encoded");
        }
    });
    text
}

fn register<M: Collector + Clone + 'static>(registry: &Registry, metric: Result<M>) -> Result<M> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(options))
}

/// Histograms by `label`, with its known `values`.
fn histograms(
    registry: &Registry,
    (name, help): (&str, &str),
    buckets: &[f64],
    label: &str,
    values: &[&str],
) -> Result<HistogramVec> {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let histograms = register(registry, HistogramVec::new(options, &[label]))?;
    for value in values {
        histograms.get_metric_with_label_values(&[value])?;
    }
    Ok(histograms)
}

/// Counters by `labels`, with their known `values`.
fn counters<const N: usize>(
    registry: &Registry,
    (name, help): (&str, &str),
    labels: [&str; N],
    values: &[[&str; N]],
) -> Result<prometheus::IntCounterVec> {
    let options = Opts::new(name, help);
    let counters = register(registry, prometheus::IntCounterVec::new(options, &labels))?;
    for value in values {
        counters.get_metric_with_label_values(value)?;
    }
    Ok(counters)
}

/// A count as a gauge's value.
fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_sample_has_help_and_type_under_its_own_name() {
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
    }

    /// Dashboards and alerts depend on them.
    #[test]
    fn names_and_types_stay() {
        let text = render(Snapshot::default());
        let types: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        let expected = [
            "process_cpu_seconds_total counter",
            "process_max_fds gauge",
            "process_open_fds gauge",
            "process_resident_memory_bytes gauge",
            "process_start_time_seconds gauge",
            "usher_bounds_met_total counter",
            "usher_build_info gauge",
            "usher_conferences_live gauge",
            "usher_config_read_timestamp_seconds gauge",
            "usher_connections gauge",
            "usher_connections_max gauge",
            "usher_database_file_lost gauge",
            "usher_decisions_total counter",
            "usher_frames_refused_total counter",
            "usher_golive_told_seconds histogram",
            "usher_outbox_pending gauge",
            "usher_reload_successful gauge",
            "usher_reloads_total counter",
            "usher_sessions_ended_total counter",
            "usher_sessions_opened_total counter",
            "usher_store_failures_total counter",
            "usher_store_seconds histogram",
            "usher_tokens_refused_total counter",
            "usher_upstream_call_seconds histogram",
            "usher_visitors gauge",
            "usher_visitors_released_total counter",
        ];
        assert_eq!(types, expected, "{text}");
    }
}
