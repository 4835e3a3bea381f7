//! Whether the upstream is well: what its answers say of it, probing it while it is left alone, and what
//! `usher check` finds.

use std::sync::{MutexGuard, PoisonError};

use tokio::time::sleep;

use super::circuit_breaker::{Breaker, Probed};
use super::client::Client;
use super::response::is_object;
use super::{Failure, Upstream};
use crate::config;

/// An id that no system gives out, to see what it answers.
const IMPOSSIBLE_ID: &str = "0";

impl Upstream {
    /// What the breaker makes of a request's end.
    pub(super) fn heard(&self, failure: Option<&Failure>) {
        match failure {
            Some(Failure::NotWritten | Failure::Busy | Failure::Resting) => {}
            Some(failure) if failure.is_absence() => {
                if self.breaker().failed() {
                    tracing::warn!(
                        why = failure.code(),
                        "the reservation system failed repeatedly; it is left alone until it answers a probe"
                    );
                    self.inner.opened.notify_one();
                }
            }
            _ => {
                if self.breaker().succeeded() {
                    self.is_back();
                }
            }
        }
    }

    fn is_back(&self) {
        tracing::info!("the reservation system answers again");
        self.inner.outbox_changed.notify_one();
    }

    /// Looks again and again whether an upstream that failed is back.
    pub(super) async fn keep_watch(&self) {
        loop {
            if !self.breaker().is_open() {
                self.inner.opened.notified().await;
            }
            sleep(self.inner.settings.probe_interval).await;
            if !self.breaker().is_open() {
                continue;
            }
            let call = self.inner.client.get(IMPOSSIBLE_ID);
            let probed = match self.inner.client.call_once(&call).await {
                Ok(reply) if reply.status < 500 => Probed::Well,
                Ok(_) => Probed::Ill,
                Err(_) => Probed::Away,
            };
            if self.breaker().probed(probed) {
                self.is_back();
            }
        }
    }

    /// What the upstream answers when it is asked for a conference that can't be, for `usher check`.
    ///
    /// # Errors
    ///
    /// What is wrong with that, and what to do.
    pub async fn probe(settings: &config::Upstream) -> Result<String, String> {
        let client = Client::new(settings).map_err(|error| error.to_string())?;
        let call = client.get(IMPOSSIBLE_ID);
        let (status, body) = match client.call_once(&call).await {
            Ok(reply) => (reply.status, reply.body),
            Err(trouble) => {
                return Err(format!(
                    "{trouble}; start it, or correct reservations.upstream.url (and ca_file, where its certificate is the trouble)"
                ));
            }
        };
        match status {
            404 | 410 if !is_object(&body) => Ok(format!(
                "it answers with status {status}, but not in JSON; if no conference can be opened, correct reservations.upstream.url"
            )),
            404 | 410 => Ok(format!("it answers, and has no conference {IMPOSSIBLE_ID}")),
            401 | 403 | 407 => Err(format!(
                "it refuses usher with status {status}; give reservations.upstream.headers what it wants, such as Authorization"
            )),
            300..=399 => Err(format!(
                "it sends usher elsewhere (status {status}); set reservations.upstream.url to where that is"
            )),
            500.. => Err(format!(
                "it fails with status {status} when asked for a conference that it doesn't have; it should answer 404: see its log"
            )),
            200..=299 => Err(format!(
                "it answers with status {status} when asked for a conference that can't be; is reservations.upstream.url the reservation API's?"
            )),
            _ => Ok(format!(
                "it answers with status {status} when asked for a conference that can't be; 404 would be right"
            )),
        }
    }

    pub(super) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        let breaker = self.inner.breaker.lock();
        breaker.unwrap_or_else(PoisonError::into_inner)
    }
}
