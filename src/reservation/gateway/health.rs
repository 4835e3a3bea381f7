//! The health of the upstream: what its responses show, the probes while the circuit breaker is open, and the probe of
//! `usher check`.

use std::sync::{MutexGuard, PoisonError};

use tokio::time::sleep;

use super::circuit_breaker::{CircuitBreaker, ProbeResult};
use super::client::Client;
use super::response::is_object;
use super::{Gateway, GatewayError};
use crate::config;

/// An id that no system issues.
const IMPOSSIBLE_ID: &str = "0";

impl Gateway {
    /// Records the end of a request in the circuit breaker.
    pub(super) fn record_result(&self, error: Option<&GatewayError>) {
        match error {
            Some(
                GatewayError::StoreFailed
                | GatewayError::TooManyInFlight
                | GatewayError::CircuitOpen,
            ) => {}
            Some(error) if error.is_unavailable() => {
                if self.circuit_breaker().record_failure() {
                    tracing::warn!(
                        why = error.code(),
                        "the reservation system failed repeatedly; no requests until it answers a probe"
                    );
                    self.inner.circuit_opened.notify_one();
                }
            }
            _ => {
                if self.circuit_breaker().record_success() {
                    self.on_recovery();
                }
            }
        }
    }

    fn on_recovery(&self) {
        tracing::info!("the reservation system answers again");
        self.inner.outbox_changed.notify_one();
    }

    /// Probes the upstream while the circuit breaker is open.
    pub(super) async fn probe_loop(&self) {
        loop {
            if !self.circuit_breaker().is_open() {
                self.inner.circuit_opened.notified().await;
            }
            sleep(self.inner.upstream.probe_interval).await;
            if !self.circuit_breaker().is_open() {
                continue;
            }
            let call = self.inner.client.get(IMPOSSIBLE_ID);
            let result = match self.inner.client.call_once(&call).await {
                Ok(response) if response.status < 500 => ProbeResult::Ok,
                Ok(_) => ProbeResult::Error,
                Err(_) => ProbeResult::Unreachable,
            };
            if self.circuit_breaker().record_probe(result) {
                self.on_recovery();
            }
        }
    }

    /// Requests a conference that can't exist, for `usher check`.
    ///
    /// # Errors
    ///
    /// What is wrong with the response, and what to do.
    pub async fn probe(settings: &config::Upstream) -> Result<String, String> {
        let client = Client::new(settings).map_err(|error| error.to_string())?;
        let call = client.get(IMPOSSIBLE_ID);
        let response = client.call_once(&call).await.map_err(|error| {
            format!("{error}; start it, or correct reservations.upstream.url (and ca_file, if its certificate is rejected)")
        })?;
        let status = response.status;
        match status {
            404 | 410 if !is_object(&response.body) => Ok(format!(
                "it answers with status {status}, but not in JSON; if no conference can be opened, correct reservations.upstream.url"
            )),
            404 | 410 => Ok(format!("it answers, and has no conference {IMPOSSIBLE_ID}")),
            401 | 403 | 407 => Err(format!(
                "it rejects usher with status {status}; set the headers that it requires, such as Authorization, in reservations.upstream.headers"
            )),
            300..=399 => Err(format!(
                "it redirects usher (status {status}); set reservations.upstream.url to the address of the redirect"
            )),
            500.. => Err(format!(
                "it fails with status {status} for a conference that it doesn't have; it should answer 404: see its log"
            )),
            200..=299 => Err(format!(
                "it answers with status {status} for a conference that can't exist; is reservations.upstream.url the reservation API's?"
            )),
            _ => Ok(format!(
                "it answers with status {status} for a conference that can't exist; 404 would be right"
            )),
        }
    }

    pub(super) fn circuit_breaker(&self) -> MutexGuard<'_, CircuitBreaker> {
        let circuit_breaker = self.inner.circuit_breaker.lock();
        circuit_breaker.unwrap_or_else(PoisonError::into_inner)
    }
}
