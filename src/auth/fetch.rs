//! Fetches a small document from a server that the operator named: within a deadline and a size, from
//! that server and no other, and again after a pause when it failed.

use std::fmt::Display;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::backoff::Backoff;
use crate::error_chain;

/// The most that a document may hold, in bytes.
pub(super) const DOCUMENT_MAX_BYTES: usize = 64 * 1024;
/// How long one attempt may take, from connecting to the last byte.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long all attempts and the pauses between them may take. Prosody waits 20 s for us.
const IN_ALL: Duration = Duration::from_secs(8);
/// How often is tried again, and after what pause.
const RETRIES: usize = 2;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why there is no document, when the server should have one or tell that it hasn't.
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
    /// Whether the next attempt may go better.
    fn may_pass(&self) -> bool {
        !matches!(self, Self::TooLong)
    }
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Status 200, and this body.
    Found(Vec<u8>),
    /// Another status, which isn't the server's own failure: there is no such document for us.
    /// Redirections count here, too, as nobody but the named server is asked.
    Not(StatusCode),
}

/// Asks for documents.
#[derive(Debug, Clone)]
pub(super) struct Fetcher(Client);

impl Fetcher {
    /// For the server of this URL.
    ///
    /// # Errors
    ///
    /// What the TLS library has to say, such as that the system has no root certificates.
    pub(super) fn new(url: &Url) -> Result<Self, impl Display> {
        let builder = Client::builder()
            .user_agent(concat!("usher/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            // Keys come from the named server itself; and a proxy would come from the environment.
            .no_proxy()
            // BatchItem once an hour: by then the connection is gone.
            .pool_max_idle_per_host(0);
        let builder = match url.scheme() {
            // Nothing to trust, so do without the system's roots: small containers have none.
            "http" => builder.tls_certs_only([]),
            _ => builder.https_only(true),
        };
        builder
            .build()
            .map(Self)
            .map_err(|error| error_chain::format(&error))
    }

    /// Asks, up to three times.
    pub(super) async fn get(&self, url: Url) -> Result<Answer, FetchError> {
        let deadline = Instant::now() + IN_ALL;
        let mut pauses = Backoff::exponential(FIRST_PAUSE, LONGEST_PAUSE).take(RETRIES);
        let asking = async {
            loop {
                let asked = timeout(ATTEMPT, self.once(url.clone())).await;
                let error = match asked.unwrap_or(Err(FetchError::TooSlow)) {
                    Err(error) if error.may_pass() => error,
                    conclusive => return conclusive,
                };
                let Some(pause) = pauses.next() else {
                    return Err(error);
                };
                tracing::debug!(%error, ?pause, "asking again for a key");
                sleep(pause).await;
            }
        };
        let asked = timeout_at(deadline, asking).await;
        asked.unwrap_or(Err(FetchError::TooSlow))
    }

    async fn once(&self, url: Url) -> Result<Answer, FetchError> {
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
            _ => return Ok(Answer::Not(status)),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > DOCUMENT_MAX_BYTES || announces_more(&response) {
                return Err(FetchError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer::Found(body))
    }
}

/// Whether the answer says itself that it will be too long.
fn announces_more(response: &Response) -> bool {
    let length = response.content_length();
    length.is_some_and(|length| length > DOCUMENT_MAX_BYTES as u64)
}
