//! Connections and the queue's sessions.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry, Result};

use super::{Snapshot, counters, gauge_value, register, with};

const ENDED: (&str, &str) = (
    "usher_sessions_ended_total",
    "Sessions of the queue that ended, by reason",
);
const END_REASONS: [&str; 5] = ["left", "refused", "silent", "slow", "stopped"];
const FRAMES_REFUSED: (&str, &str) = (
    "usher_frames_refused_total",
    "STOMP frames that were refused, by reason",
);
const FRAME_REASONS: [&str; 10] = [
    "destination",
    "flood",
    "full",
    "key_server",
    "memory",
    "not_allowed",
    "protocol",
    "token",
    "too_large",
    "too_late",
];

/// The bounds on clients, for [`bound_met`].
pub const BOUNDS: [&str; 8] = [
    "requests_of_address",
    "requests",
    "sessions_of_address",
    "sessions",
    "head",
    "write",
    "frames",
    "unfinished",
];
const BOUNDS_MET: (&str, &str) = (
    "usher_bounds_met_total",
    "How often clients met a bound, by bound",
);

pub(super) struct Metrics {
    connections: IntGauge,
    connections_max: IntGauge,
    opened: IntCounter,
    ended: IntCounterVec,
    frames_refused: IntCounterVec,
    bounds_met: IntCounterVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let connections = IntGauge::new(
            "usher_connections",
            "Open connections, including those of waiting visitors",
        );
        let connections_max = IntGauge::new(
            "usher_connections_max",
            "The maximum number of connections (server.max_connections)",
        );
        let opened = IntCounter::new(
            "usher_sessions_opened_total",
            "Sessions of the queue that began",
        );
        let known = FRAME_REASONS.map(|reason| [reason]);
        Ok(Self {
            connections: register(registry, connections)?,
            connections_max: register(registry, connections_max)?,
            opened: register(registry, opened)?,
            ended: counters(
                registry,
                ENDED,
                ["reason"],
                &END_REASONS.map(|reason| [reason]),
            )?,
            frames_refused: counters(registry, FRAMES_REFUSED, ["reason"], &known)?,
            bounds_met: counters(
                registry,
                BOUNDS_MET,
                ["bound"],
                &BOUNDS.map(|bound| [bound]),
            )?,
        })
    }

    pub(super) fn set(&self, snapshot: &Snapshot) {
        self.connections.set(gauge_value(snapshot.connections));
        self.connections_max
            .set(gauge_value(snapshot.connections_max));
    }
}

/// A session of the queue began.
pub fn session_opened() {
    with(|metrics| metrics.session.opened.inc());
}

/// A session of the queue ended.
pub fn session_ended(reason: &'static str) {
    with(|metrics| metrics.session.ended.with_label_values(&[reason]).inc());
}

/// A client met a bound, one of [`BOUNDS`].
pub fn bound_met(bound: &'static str) {
    with(|metrics| metrics.session.bounds_met.with_label_values(&[bound]).inc());
}

/// A STOMP frame was refused.
pub fn frame_refused(reason: &'static str) {
    with(|metrics| {
        let refused = &metrics.session.frames_refused;
        refused.with_label_values(&[reason]).inc();
    });
}
