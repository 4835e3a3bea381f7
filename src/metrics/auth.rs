//! Tokens.

use prometheus::{IntCounterVec, Registry, Result};

use super::{counters, with};

const REFUSED: (&str, &str) = (
    "usher_tokens_refused_total",
    "Tokens that were refused, by where and reason",
);
const DOORS: [&str; 2] = ["http", "queue"];
/// The usual reasons. Others appear when they first occur.
const REASONS: [&str; 7] = [
    "bad_signature",
    "expired",
    "key_server_unavailable",
    "malformed",
    "missing",
    "not_configured",
    "unknown_key",
];

pub(super) struct Metrics {
    refused: IntCounterVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let known = DOORS.map(|door| REASONS.map(|reason| [door, reason]));
        let refused = counters(registry, REFUSED, ["door", "reason"], known.as_flattened())?;
        Ok(Self { refused })
    }
}

/// A token was refused, at the door `http` or `queue`.
pub fn token_refused(door: &'static str, reason: &'static str) {
    with(|metrics| {
        metrics
            .auth
            .refused
            .with_label_values(&[door, reason])
            .inc()
    });
}
