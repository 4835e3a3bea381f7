//! Calls to the upstream over HTTP: one attempt, its bounds, and what the network says.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method};
use thiserror::Error;
use tokio::time::Instant;

use super::retry::{Reply, Rules, Trouble};
use crate::config;
use crate::error_chain;
use crate::metrics;

/// The most that an answer may hold, in bytes; a conference is under a kilobyte.
const ANSWER_MAX: usize = 64 * 1024;

/// Why the upstream can't be asked at all.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// No URL.
    #[error("reservations.upstream.url: is not set; set it to the reservation system's URL")]
    NoUrl,
    /// A header that HTTP can't carry.
    #[error("reservations.upstream.headers: {0} can't be sent; write it in ASCII, on one line")]
    Header(String),
    /// The file of certificates can't be read, or holds none.
    #[error("reservations.upstream.ca_file: {0}; give it PEM certificates")]
    Certificates(String),
    /// The TLS library refuses.
    #[error("reservations.upstream: TLS can't be set up: {0}")]
    Tls(String),
}

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    url: String,
    form: Option<String>,
}

/// Makes calls.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    rules: Rules,
    deadline: Duration,
}

impl Client {
    /// For the upstream that `settings` describe.
    pub(super) fn new(settings: &config::Upstream) -> Result<Self, UpstreamError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let wrong = || UpstreamError::Header(name.clone());
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        let builder = reqwest::Client::builder()
            .user_agent(concat!("usher/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            // A POST that is sent elsewhere becomes a GET, and the headers are for the named server alone.
            .redirect(Policy::none())
            // A proxy would come from the environment, which only the configuration reads.
            .no_proxy()
            // A kept connection that the other side closed would cost a retry and its pause.
            .pool_max_idle_per_host(0);
        let builder = if settings.url.starts_with("http://") {
            // Nothing to trust, so do without the system's roots: small containers have none.
            builder.tls_certs_only([])
        } else {
            let more = settings.ca_file.as_deref().map(certificates).transpose()?;
            let builder = builder.https_only(true);
            builder.tls_certs_merge(more.unwrap_or_default())
        };
        let http = builder.build();
        Ok(Self {
            http: http.map_err(|error| UpstreamError::Tls(error_chain::format(&error)))?,
            base: format!("{}/conference", settings.url.trim_end_matches('/')),
            rules: Rules {
                timeout: settings.timeout,
                retry_count: settings.retry_count,
                retry_delay: settings.retry_delay,
                retry_status: settings.retry_status.clone(),
            },
            deadline: settings.deadline,
        })
    }

    /// `POST /conference` with these fields.
    pub(super) fn post(&self, fields: &[(&str, &str)]) -> Call {
        Call {
            method: Method::POST,
            url: self.base.clone(),
            // Pairs of texts can always be written as a form.
            form: Some(serde_urlencoded::to_string(fields).unwrap_or_default()),
        }
    }

    /// `GET /conference/{id}`; ids are such that they can stand there.
    pub(super) fn get(&self, id: &str) -> Call {
        self.about(Method::GET, id)
    }

    /// `DELETE /conference/{id}`.
    pub(super) fn delete(&self, id: &str) -> Call {
        self.about(Method::DELETE, id)
    }

    fn about(&self, method: Method, id: &str) -> Call {
        let url = format!("{}/{id}", self.base);
        let form = None;
        Call { method, url, form }
    }

    /// When a request that begins now has to be answered.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// Makes a call as the configuration says: again after some failures, until `deadline`.
    pub(super) async fn call(&self, call: &Call, deadline: Instant) -> Result<Reply, Trouble> {
        let began = Instant::now();
        let outcome = self.rules.follow(deadline, || self.attempt(call)).await;
        note(call, &outcome, began.elapsed());
        outcome
    }

    /// Makes a call once: for what is asked again later anyway.
    pub(super) async fn call_once(&self, call: &Call) -> Result<Reply, Trouble> {
        let began = Instant::now();
        let limit = self.rules.timeout.min(self.deadline);
        let outcome = tokio::time::timeout(limit, self.attempt(call)).await;
        let outcome = outcome.unwrap_or(Err(Trouble::TooSlow));
        note(call, &outcome, began.elapsed());
        outcome
    }

    async fn attempt(&self, call: &Call) -> Result<Reply, Trouble> {
        let broken =
            |error: reqwest::Error| Trouble::Unreachable(error_chain::format(&error.without_url()));
        let mut request = self.http.request(call.method.clone(), &call.url);
        if let Some(form) = &call.form {
            request = request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.clone());
        }
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(Trouble::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, body })
    }
}

/// The one place where it is known what became of a call to the upstream, and how long it took, retries and
/// their pauses included.
fn note(call: &Call, outcome: &Result<Reply, Trouble>, took: Duration) {
    let method = call.method.as_str();
    let word = match outcome {
        Ok(reply) => match reply.status {
            409 => "conflict",
            400..=499 => "refused",
            200..=299 => "ok",
            _ => "failed",
        },
        Err(Trouble::Unreachable(_)) => "unreachable",
        Err(Trouble::TooSlow) => "timeout",
        Err(Trouble::TooLong) => "failed",
    };
    metrics::observe_upstream_call(word, took);
    match outcome {
        Ok(reply) => tracing::debug!(method, status = reply.status, ?took, "upstream answered"),
        Err(trouble) => tracing::debug!(method, %trouble, ?took, "upstream did not answer"),
    }
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, UpstreamError> {
    let failed =
        |error: &dyn Display| UpstreamError::Certificates(format!("{}: {error}", file.display()));
    let pem = std::fs::read(file).map_err(|error| failed(&error))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| failed(&error))?;
    if certificates.is_empty() {
        return Err(failed(&"there is no certificate in it"));
    }
    Ok(certificates)
}
