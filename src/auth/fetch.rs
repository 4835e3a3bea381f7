//! The HTTP client of key servers: small documents, with retries within a deadline, and without redirections.

use std::fmt::Display;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::backoff::Backoff;
use crate::error_chain;

/// The size limit of a document, in bytes.
pub(super) const DOCUMENT_MAX_BYTES: usize = 64 * 1024;
/// The time limit of one attempt, from connecting to the last byte.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// The time limit of all attempts together. Prosody waits 20 s for usher.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(8);
const RETRIES: usize = 2;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why the server gave neither a document nor the answer that there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchError {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it took too long to answer")]
    TooSlow,
    #[error("it answers with status {0}")]
    Failing(StatusCode),
    #[error("its answer is longer than {DOCUMENT_MAX_BYTES} bytes")]
    TooLong,
}

impl FetchError {
    fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLong)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Response {
    /// The body of status 200.
    Found(Vec<u8>),
    /// Another status that is no failure of the server; redirections, too.
    Other(StatusCode),
}

#[derive(Debug, Clone)]
pub(super) struct Fetcher(Client);

impl Fetcher {
    /// A client for the server of this URL.
    ///
    /// # Errors
    ///
    /// The error of the TLS library, such as missing root certificates.
    pub(super) fn new(url: &Url) -> Result<Self, impl Display> {
        let builder = Client::builder()
            .user_agent(concat!("usher/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            // The environment must not redirect requests for keys.
            .no_proxy()
            // Keys are fetched about once an hour: an idle connection would not last.
            .pool_max_idle_per_host(0);
        let builder = match url.scheme() {
            // Without TLS no root certificates are needed; small containers have none.
            "http" => builder.tls_certs_only([]),
            _ => builder.https_only(true),
        };
        builder
            .build()
            .map(Self)
            .map_err(|error| error_chain::format(&error))
    }

    /// Sends a request, with up to two retries.
    pub(super) async fn get(&self, url: Url) -> Result<Response, FetchError> {
        let deadline = Instant::now() + TOTAL_TIMEOUT;
        let mut pauses = Backoff::exponential(FIRST_PAUSE, LONGEST_PAUSE).take(RETRIES);
        let attempts = async {
            loop {
                let attempt = timeout(ATTEMPT_TIMEOUT, self.attempt(url.clone())).await;
                let error = match attempt.unwrap_or(Err(FetchError::TooSlow)) {
                    Err(error) if error.is_retryable() => error,
                    conclusive => return conclusive,
                };
                let Some(pause) = pauses.next() else {
                    return Err(error);
                };
                tracing::debug!(%error, ?pause, "request for a key failed; retrying");
                sleep(pause).await;
            }
        };
        let result = timeout_at(deadline, attempts).await;
        result.unwrap_or(Err(FetchError::TooSlow))
    }

    async fn attempt(&self, url: Url) -> Result<Response, FetchError> {
        let broken = |error: reqwest::Error| {
            FetchError::Unreachable(error_chain::format(&error.without_url()))
        };
        let mut response = self.0.get(url).send().await.map_err(broken)?;
        let status = response.status();
        match status {
            StatusCode::OK => {}
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                return Err(FetchError::Failing(status));
            }
            _ if status.is_server_error() => return Err(FetchError::Failing(status)),
            _ => return Ok(Response::Other(status)),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > DOCUMENT_MAX_BYTES || announces_more(&response) {
                return Err(FetchError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response::Found(body))
    }
}

/// Whether the response's Content-Length exceeds the limit.
fn announces_more(response: &reqwest::Response) -> bool {
    let length = response.content_length();
    length.is_some_and(|length| length > DOCUMENT_MAX_BYTES as u64)
}
