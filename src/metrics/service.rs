//! The service itself: its version and its reloads.

use prometheus::{Gauge, IntCounterVec, IntGauge, Opts, Registry, Result};

use super::{counters, register, with};

const RELOADS: (&str, &str) = (
    "usher_reloads_total",
    "Reloads of the configuration, by outcome",
);

pub(super) struct Metrics {
    reloads: IntCounterVec,
    reload_successful: IntGauge,
    config_read_at: Gauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let build = Opts::new("usher_build_info", "The version of usher")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        register(registry, IntGauge::with_opts(build))?.set(1);
        let reload_successful = IntGauge::new(
            "usher_reload_successful",
            "Whether the last reload was applied (1) or refused (0)",
        );
        let reload_successful = register(registry, reload_successful)?;
        reload_successful.set(1);
        let config_read_at = Gauge::new(
            "usher_config_read_timestamp_seconds",
            "When the configuration in use was read, in seconds since 1970",
        );
        Ok(Self {
            config_read_at: register(registry, config_read_at)?,
            reloads: counters(registry, RELOADS, ["outcome"], &[["ok"], ["refused"]])?,
            reload_successful,
        })
    }
}

/// The configuration that is in use from now on was read at this time, in seconds since 1970.
pub fn config_read(at: f64) {
    with(|metrics| metrics.service.config_read_at.set(at));
}

/// A reload of the configuration was applied or refused.
pub fn config_reloaded(is_applied: bool) {
    let outcome = if is_applied { "ok" } else { "refused" };
    with(|metrics| {
        let service = &metrics.service;
        service.reloads.with_label_values(&[outcome]).inc();
        service.reload_successful.set(i64::from(is_applied));
    });
}
