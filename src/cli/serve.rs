//! `usher serve`: runs the service.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use tokio::net::TcpListener;
use usher::config::{Config, Log};
use usher::lifecycle::{self, ProcessSignal, Signals};
use usher::{Service, clock, metrics};

use super::log::Level;

/// Runs the service until a signal stops it; a second signal stops it immediately.
pub(crate) async fn run(
    config: Config,
    file: Option<&Path>,
    read_at: DateTime<Utc>,
    level: &Level,
) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        clock::is_set(),
        "the system's clock is before 1970; set it (timedatectl), then start usher"
    );
    let mut signals = Signals::install()?;
    let listener = listen(config.server.listen)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let mut service = tokio::select! {
        started = Service::start(listener, config) => started?,
        () = signals.wait_for_stop() => return Ok(ExitCode::SUCCESS),
    };
    metrics::config_read(seconds(read_at));
    lifecycle::notify_ready();
    let watchdog = tokio::spawn(service.liveness().watchdog_loop());
    while signals.next().await == ProcessSignal::Reload {
        lifecycle::notify_reloading();
        let read_at = clock::now();
        let is_applied = reload(&mut service, file, level);
        metrics::config_reloaded(is_applied);
        if is_applied {
            metrics::config_read(seconds(read_at));
        }
        lifecycle::notify_ready();
    }
    lifecycle::notify_stopping();
    let exit_code = tokio::select! {
        () = service.stop() => ExitCode::SUCCESS,
        () = signals.wait_for_stop() => {
            tracing::warn!("second signal; stopping immediately");
            ExitCode::FAILURE
        }
    };
    watchdog.abort();
    Ok(exit_code)
}

fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1000.0
}

/// The socket of systemd, or one on `address`.
fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let inherited = lifecycle::inherited_listener().context("the socket of systemd")?;
    match inherited {
        Some(listener) => Ok(listener),
        None => lifecycle::listen(address).map_err(|error| {
            let remedy = match error.kind() {
                ErrorKind::AddrInUse => "end the program that listens there (ss -ltnp), or set server.listen to another port",
                ErrorKind::AddrNotAvailable => "set server.listen to an address of this machine (ip address)",
                ErrorKind::PermissionDenied => "set server.listen to a port above 1023, or give usher CAP_NET_BIND_SERVICE",
                _ => "set server.listen to a free address of this machine",
            };
            anyhow!("can't listen on {address}: {error}; {remedy}")
        }),
    }
}

/// Reloads the configuration; returns whether it was applied. An invalid one changes nothing.
fn reload(service: &mut Service, file: Option<&Path>, level: &Level) -> bool {
    let (config, source) = match Config::load(file) {
        Ok(loaded) => loaded,
        Err(error) => {
            for issue in &error.issues {
                tracing::error!("{}: {issue}", error.source_name);
            }
            tracing::error!("the configuration was not reloaded; the previous one stays in use");
            return false;
        }
    };
    let warnings = config.warnings();
    let log: Log = config.log.clone();
    match service.reload(config) {
        Ok(needs_restart) => {
            level.set(&log);
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            for key in needs_restart {
                tracing::warn!(key, "changed; restart usher to apply it");
            }
            tracing::info!(%source, "the configuration was reloaded");
            true
        }
        Err(error) => {
            tracing::error!(%error, "the configuration was not reloaded; the previous one stays in use");
            false
        }
    }
}
