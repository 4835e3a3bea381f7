//! The database.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, Registry, Result};

use super::{counters, histograms, register, with};

const WAITS: (&str, &str) = (
    "usher_store_seconds",
    "Time spent waiting for the database, by step: the turn to write, the commit",
);
const STEPS: [&str; 2] = ["turn", "commit"];
/// In seconds: from one sync of a disk to the eight seconds after which a request gives up.
const WAIT_BUCKETS: [f64; 11] = [
    0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 8.0,
];
const FAILURES: (&str, &str) = (
    "usher_store_failures_total",
    "Failures of the database, by reason",
);
const FAILURE_REASONS: [[&str; 1]; 2] = [["unavailable"], ["other"]];
const FILE_LOST: (&str, &str) = (
    "usher_database_file_lost",
    "1 while the file of the database is gone or another one is in its place, else 0",
);

pub(super) struct Metrics {
    waits: HistogramVec,
    failures: IntCounterVec,
    file_lost: IntGauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            waits: histograms(registry, WAITS, &WAIT_BUCKETS, "step", &STEPS)?,
            failures: counters(registry, FAILURES, ["reason"], &FAILURE_REASONS)?,
            file_lost: register(registry, IntGauge::new(FILE_LOST.0, FILE_LOST.1))?,
        })
    }
}

/// A transaction waited for the database: for the `turn` to write, or for the `commit`.
pub fn observe_store_wait(step: &'static str, took: Duration) {
    with(|metrics| {
        let waits = metrics.store.waits.with_label_values(&[step]);
        waits.observe(took.as_secs_f64());
    });
}

/// The database failed: it is `unavailable`, or the reason is `other`.
pub fn store_failed(reason: &'static str) {
    with(|metrics| metrics.store.failures.with_label_values(&[reason]).inc());
}

/// Whether the file of the database is gone, or another one is in its place.
pub fn set_database_file_lost(is_lost: bool) {
    with(|metrics| metrics.store.file_lost.set(i64::from(is_lost)));
}
