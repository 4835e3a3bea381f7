//! The service itself: its version and its reloads.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry, Result};

use super::{counters, register, with};

const RELOADS: (&str, &str) = (
    "usher_reloads_total",
    "Reloads of the configuration, by outcome",
);

pub(super) struct Metrics {
    reloads: IntCounterVec,
    reload_successful: IntGauge,
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
        Ok(Self {
            reloads: counters(registry, RELOADS, ["outcome"], &[["ok"], ["refused"]])?,
            reload_successful,
        })
    }
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
