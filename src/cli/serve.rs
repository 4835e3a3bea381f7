//! `usher serve`: the service, from its socket to its last connection.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use usher::config::{Config, Log};
use usher::lifecycle::{self, ProcessSignal, Signals};
use usher::{Service, metrics};

use super::log::Level;

/// Serves until a signal says stop; a second one stops at once.
pub(crate) async fn run(
    config: Config,
    file: Option<&Path>,
    level: &Level,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::catch()?;
    let inherited = lifecycle::inherited().context("the socket that systemd hands over")?;
    let address = config.server.listen;
    let listener = match inherited {
        Some(listener) => listener,
        None => lifecycle::listen(address).with_context(|| {
            format!(
                "{address} can't be listened on; set server.listen to a free address of this machine"
            )
        })?,
    };
    lifecycle::raise_file_limit(config.server.max_connections);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let mut service = tokio::select! {
        started = Service::start(listener, config) => started?,
        () = signals.stop() => return Ok(ExitCode::SUCCESS),
    };
    lifecycle::notify_ready();
    let watchdog = tokio::spawn(service.liveness().watchdog_loop());
    while signals.next().await == ProcessSignal::Reload {
        lifecycle::notify_reloading();
        metrics::config_reloaded(reload(&mut service, file, level));
        lifecycle::notify_ready();
    }
    lifecycle::notify_stopping();
    let stopped = tokio::select! {
        () = service.stop() => ExitCode::SUCCESS,
        () = signals.stop() => {
            tracing::warn!("a second signal: leaving at once");
            ExitCode::FAILURE
        }
    };
    watchdog.abort();
    Ok(stopped)
}

/// Reads the configuration again, and says whether it was taken. A bad one changes nothing.
fn reload(service: &mut Service, file: Option<&Path>, level: &Level) -> bool {
    let (config, source) = match Config::load(file) {
        Ok(loaded) => loaded,
        Err(error) => {
            for issue in &error.issues {
                tracing::error!("{}: {issue}", error.source_name);
            }
            tracing::error!("the configuration was not reloaded; the former one stays");
            return false;
        }
    };
    let warnings = config.warnings();
    let log: Log = config.log.clone();
    match service.reload(config) {
        Ok(left) => {
            level.set(&log);
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            for key in left {
                tracing::warn!(key, "changed, but counts from the next start only");
            }
            tracing::info!(%source, "the configuration was reloaded");
            true
        }
        Err(error) => {
            tracing::error!(%error, "the configuration was not reloaded; the former one stays");
            false
        }
    }
}
