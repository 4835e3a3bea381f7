//! Liveness, for systemd's watchdog. Readiness is in `http::health`.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::http::health::AcceptLoopHealth;
use crate::reservation::Reservations;
use crate::{clock, lifecycle};

/// A database that takes longer to answer is considered hung.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks the accept loop and the database.
#[derive(Clone, Debug)]
pub struct Liveness {
    reservations: Reservations,
    accept_loop: AcceptLoopHealth,
}

impl Liveness {
    pub(super) fn new(reservations: Reservations, accept_loop: AcceptLoopHealth) -> Self {
        Self {
            reservations,
            accept_loop,
        }
    }

    /// Whether the accept loop runs and the database answers, even with an error: a restart does not help against a
    /// full disk, but it does against a database that hangs.
    ///
    /// # Errors
    ///
    /// The part that hangs.
    pub async fn check(&self) -> Result<(), &'static str> {
        if !self.accept_loop.is_alive() {
            return Err("the accept loop");
        }
        let probed = timeout(STORE_TIMEOUT, self.reservations.probe(clock::now())).await;
        probed.map(drop).map_err(|_| "the database")
    }

    /// Notifies systemd's watchdog while [`Self::check`] succeeds, three times within `WatchdogSec`, so that a late
    /// notification does no harm. Without a watchdog it returns.
    pub async fn watchdog_loop(self) {
        let Some(timeout) = sd_notify::watchdog_enabled() else {
            return;
        };
        loop {
            match self.check().await {
                Ok(()) => lifecycle::notify_watchdog(),
                Err(part) => tracing::error!("{part} does not respond; systemd will restart usher"),
            }
            sleep(timeout / 3).await;
        }
    }
}
