//! The parts of readiness: whether connections are accepted, and whether the store can be written.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep};

use super::error::lost_file_message;
use crate::reservation::Reservations;
use crate::store::StoreError;

/// The interval at which the accept loop records that it runs.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// A loop without a tick for this time hangs; on a busy machine a tick is late by less.
const TICK_TIMEOUT: Duration = Duration::from_secs(15);

/// Whether connections are accepted: the accept loop writes it, the health checks read it.
#[derive(Clone, Debug)]
pub struct AcceptLoopHealth(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    last_tick: Instant,
    last_error: Option<String>,
}

impl Default for AcceptLoopHealth {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            last_tick: Instant::now(),
            last_error: None,
        })))
    }
}

impl AcceptLoopHealth {
    fn get(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the loop runs, and waits until the next tick is due.
    pub async fn tick(&self) {
        self.get().last_tick = Instant::now();
        sleep(TICK_INTERVAL).await;
    }

    /// Records the result of an accept.
    pub fn record_accept(&self, outcome: Result<(), &io::Error>) {
        self.get().last_error = outcome.err().map(ToString::to_string);
    }

    /// Whether the loop runs and accepts connections.
    ///
    /// # Errors
    ///
    /// The cause, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        if !self.is_alive() {
            return Err("The accept loop hangs; see the log.".into());
        }
        match &self.get().last_error {
            None => Ok(()),
            Some(error) => Err(format!(
                "Connections can't be accepted: {error}; raise LimitNOFILE or lower server.max_connections."
            )),
        }
    }

    /// Whether the loop runs, even if it can't accept connections.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.get().last_tick.elapsed() < TICK_TIMEOUT
    }
}

/// The time for which the result of a probe is cached: every client may ask, and each probe writes to the disk.
const PROBE_TTL: Duration = Duration::from_secs(1);

/// The time of the last probe of the store, and the reason why it can't be written.
#[derive(Debug, Default)]
pub(super) struct StoreHealth(Mutex<Option<(Instant, Result<(), String>)>>);

impl StoreHealth {
    /// Whether the store can be written.
    ///
    /// # Errors
    ///
    /// The reason why not, in a sentence.
    pub(super) async fn check(
        &self,
        reservations: &Reservations,
        now: DateTime<Utc>,
    ) -> Result<(), String> {
        let started = Instant::now();
        if let Some((at, result)) = &*self.last()
            && started.duration_since(*at) < PROBE_TTL
        {
            return result.clone();
        }
        let probed = reservations.probe(now).await.map_err(|error| {
            tracing::warn!(%error, "not ready: the store can't be written");
            match error {
                StoreError::FileLost { change, .. } => lost_file_message(change),
                _ => "The database takes no writes; see the log, and free or repair its disk."
                    .to_owned(),
            }
        });
        *self.last() = Some((started, probed.clone()));
        probed
    }

    fn last(&self) -> MutexGuard<'_, Option<(Instant, Result<(), String>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn loop_without_a_tick_hangs() {
        let health = AcceptLoopHealth::default();
        health.tick().await;
        assert_eq!(health.check(), Ok(()));
        advance(TICK_TIMEOUT).await;
        assert!(!health.is_alive());
        assert!(health.check().unwrap_err().contains("hangs"));
        health.tick().await;
        assert!(health.is_alive());
    }

    #[tokio::test]
    async fn failed_accept_is_not_ready_until_one_succeeds_and_stays_alive() {
        let health = AcceptLoopHealth::default();
        health.record_accept(Err(&io::Error::other("too many open files")));
        let error = health.check().unwrap_err();
        assert!(error.contains("too many open files") && error.contains("LimitNOFILE"));
        assert!(health.is_alive());
        health.record_accept(Ok(()));
        assert_eq!(health.check(), Ok(()));
    }
}
