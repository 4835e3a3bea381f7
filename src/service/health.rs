//! Whether the service lives, for systemd's watchdog.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::http::health::AcceptLoopHealth;
use crate::reservation::Reservations;
use crate::{clock, lifecycle};

/// How long the database may take to answer before it counts as hanging.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// What systemd's watchdog watches: the accept loop and the database.
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

    /// Whether it lives: the accept loop runs, and the database answers, were it with an error. A full disk
    /// is no reason to be restarted, for a restart would not help; a database that hangs is.
    ///
    /// # Errors
    ///
    /// What hangs.
    pub async fn check(&self) -> Result<(), &'static str> {
        if !self.accept_loop.is_alive() {
            return Err("the accept loop");
        }
        let probed = timeout(STORE_TIMEOUT, self.reservations.probe(clock::now())).await;
        probed.map(drop).map_err(|_| "the database")
    }

    /// Tells systemd's watchdog that usher lives, as long as it does, for ever. Does nothing where there is no
    /// watchdog (`WatchdogSec`). Two signs of life fit into its time, so that one may be late.
    pub async fn watchdog_loop(self) {
        let Some(timeout) = sd_notify::watchdog_enabled() else {
            return;
        };
        loop {
            match self.check().await {
                Ok(()) => lifecycle::notify_watchdog(),
                Err(what) => tracing::error!("{what} hangs; systemd will restart usher"),
            }
            sleep(timeout / 3).await;
        }
    }
}
