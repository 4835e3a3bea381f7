//! The waiting queue.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, Result};

use super::{Snapshot, gauge_value, histogram, register, with};

/// The states of visitors, for [`Snapshot::visitors`].
pub const VISITOR_STATES: [&str; 4] = ["waiting", "releasing", "released", "away"];
/// In seconds: a crowd takes some hundred milliseconds.
const LATENCY_BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

pub(super) struct Metrics {
    visitors: IntGaugeVec,
    live: IntGauge,
    released: IntCounter,
    delivery_latency: Histogram,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let visitors = Opts::new(
            "usher_visitors",
            "Visitors by state: waiting for a conference to go live; releasing: in line in a live one; released and still connected; away with a reserved place",
        );
        let released = IntCounter::new("usher_visitors_released_total", "Released visitors");
        Ok(Self {
            visitors: register(registry, IntGaugeVec::new(visitors, &["state"]))?,
            live: register(
                registry,
                IntGauge::new("usher_conferences_live", "Live conferences"),
            )?,
            released: register(registry, released)?,
            delivery_latency: histogram(
                registry,
                "usher_golive_told_seconds",
                "Time from a visitor's release to the delivery of the message",
                &LATENCY_BUCKETS,
            )?,
        })
    }

    pub(super) fn set(&self, snapshot: &Snapshot) {
        for (state, count) in VISITOR_STATES.iter().zip(snapshot.visitors) {
            let visitors = self.visitors.with_label_values(&[state]);
            visitors.set(gauge_value(count));
        }
        self.live.set(gauge_value(snapshot.live));
    }
}

/// Visitors were released.
pub fn visitors_released(count: usize) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    with(|metrics| metrics.queue.released.inc_by(count));
}

/// A visitor received its message, this long after its release.
pub fn observe_delivery_latency(latency: Duration) {
    with(|metrics| {
        let histogram = &metrics.queue.delivery_latency;
        histogram.observe(latency.as_secs_f64());
    });
}
