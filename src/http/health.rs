//! Whether connections are accepted, and whether the store takes writes.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep};

use crate::reservation::Reservations;

/// How often the accept loop shows that it runs.
const BEAT: Duration = Duration::from_secs(1);
/// A loop that was not seen for so long hangs: a busy machine's is late by less.
const BEAT_LOST: Duration = Duration::from_secs(15);

/// Whether connections are accepted: written by the accept loop, read by those who ask how it is.
#[derive(Clone, Debug)]
pub struct AcceptLoopHealth(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    seen: Instant,
    trouble: Option<String>,
}

impl Default for AcceptLoopHealth {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            seen: Instant::now(),
            trouble: None,
        })))
    }
}

impl AcceptLoopHealth {
    fn get(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop runs. Waits until it has to show that again.
    pub async fn tick(&self) {
        self.get().seen = Instant::now();
        sleep(BEAT).await;
    }

    /// A connection was accepted, or could not be.
    pub fn record_accept(&self, outcome: Result<(), &io::Error>) {
        self.get().trouble = outcome.err().map(ToString::to_string);
    }

    /// Whether the loop runs and accepts connections.
    ///
    /// # Errors
    ///
    /// What keeps it, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        if !self.is_alive() {
            return Err("The accept loop hangs; the log may say why.".into());
        }
        match &self.get().trouble {
            None => Ok(()),
            Some(error) => Err(format!(
                "Connections can't be accepted: {error}; raise LimitNOFILE or lower server.max_connections."
            )),
        }
    }

    /// Whether the loop runs, whatever it can do.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.get().seen.elapsed() < BEAT_LOST
    }
}

/// How long the result of a probe holds. Every client may ask, and each probe costs a write to the disk.
const PROBE_HOLDS: Duration = Duration::from_secs(1);

/// Whether the store takes writes, and when that was last probed.
#[derive(Debug, Default)]
pub(super) struct StoreHealth(Mutex<Option<(Instant, bool)>>);

impl StoreHealth {
    /// Whether the store takes writes.
    pub(super) async fn is_writable(
        &self,
        reservations: &Reservations,
        now: DateTime<Utc>,
    ) -> bool {
        let started = Instant::now();
        if let Some((at, is_writable)) = *self.last()
            && started.duration_since(at) < PROBE_HOLDS
        {
            return is_writable;
        }
        let probed = reservations.probe(now).await;
        if let Err(error) = &probed {
            tracing::warn!(%error, "not ready");
        }
        *self.last() = Some((started, probed.is_ok()));
        probed.is_ok()
    }

    fn last(&self) -> MutexGuard<'_, Option<(Instant, bool)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_is_not_seen_for_long_hangs() {
        let health = AcceptLoopHealth::default();
        health.tick().await;
        assert_eq!(health.check(), Ok(()));
        advance(BEAT_LOST).await;
        assert!(!health.is_alive());
        assert!(health.check().unwrap_err().contains("hangs"));
        health.tick().await;
        assert!(health.is_alive());
    }

    #[tokio::test]
    async fn a_failed_accept_is_trouble_until_one_succeeds_and_no_reason_to_be_restarted() {
        let health = AcceptLoopHealth::default();
        health.record_accept(Err(&io::Error::other("too many open files")));
        let trouble = health.check().unwrap_err();
        assert!(trouble.contains("too many open files") && trouble.contains("LimitNOFILE"));
        assert!(health.is_alive());
        health.record_accept(Ok(()));
        assert_eq!(health.check(), Ok(()));
    }
}
