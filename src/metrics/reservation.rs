//! Requests for conferences, and the external reservation system.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, Registry, Result};

use super::{counters, histograms, register, with};

const DECISIONS: (&str, &str) = (
    "usher_decisions_total",
    "Requests for conferences, by outcome and reason",
);
/// The usual decisions. Others appear when they first occur.
const KNOWN_DECISIONS: [[&str; 2]; 5] = [
    ["allowed", "booked"],
    ["allowed", "unbooked"],
    ["conflict", "running"],
    ["queued", "waiting_queue"],
    ["refused", "booked"],
];
const UPSTREAM_CALLS: (&str, &str) = (
    "usher_upstream_call_seconds",
    "Calls to the external reservation system, by outcome",
);
const UPSTREAM_OUTCOMES: [&str; 6] = [
    "ok",
    "conflict",
    "refused",
    "failed",
    "timeout",
    "unreachable",
];
/// In seconds, up to the time-out of a call.
const UPSTREAM_BUCKETS: [f64; 9] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 20.0];

pub(super) struct Metrics {
    decisions: IntCounterVec,
    upstream_calls: HistogramVec,
    outbox_pending: IntGauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let labels = ["outcome", "reason"];
        let outbox_pending = IntGauge::new(
            "usher_outbox_pending",
            "Deletions that the external reservation system has not received yet",
        );
        Ok(Self {
            decisions: counters(registry, DECISIONS, labels, &KNOWN_DECISIONS)?,
            upstream_calls: histograms(
                registry,
                UPSTREAM_CALLS,
                &UPSTREAM_BUCKETS,
                "outcome",
                &UPSTREAM_OUTCOMES,
            )?,
            outbox_pending: register(registry, outbox_pending)?,
        })
    }
}

/// A request for a conference was decided.
pub fn decision_made(outcome: &'static str, reason: &'static str) {
    with(|metrics| {
        let decisions = &metrics.reservation.decisions;
        decisions.with_label_values(&[outcome, reason]).inc();
    });
}

/// The upstream was called. `outcome`: `ok`, `conflict`, `refused` (it denied), `failed` (it failed), `timeout`, or
/// `unreachable`.
pub fn observe_upstream_call(outcome: &'static str, took: Duration) {
    with(|metrics| {
        let calls = &metrics.reservation.upstream_calls;
        let histogram = calls.with_label_values(&[outcome]);
        histogram.observe(took.as_secs_f64());
    });
}

/// The number of deletions that the upstream has not received yet.
pub fn set_outbox_pending(count: u64) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    with(|metrics| metrics.reservation.outbox_pending.set(count));
}
