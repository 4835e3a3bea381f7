//! HTTP calls to the upstream.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method};
use thiserror::Error;
use tokio::time::Instant;

use super::retry::{HttpResponse, RetryPolicy, TransportError};
use crate::config;
use crate::error_chain;
use crate::metrics;

/// The longest response body, in bytes; a conference is under a kilobyte.
const RESPONSE_MAX: usize = 64 * 1024;

/// Why there can be no client.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// No URL.
    #[error("reservations.upstream.url: is not set; set it to the reservation system's URL")]
    NoUrl,
    /// A header that is not valid in HTTP.
    #[error("reservations.upstream.headers: {0} can't be sent; write it in ASCII, on one line")]
    Header(String),
    /// The file of certificates is not readable, or has none.
    #[error("reservations.upstream.ca_file: {0}; the file must have PEM certificates")]
    Certificates(String),
    /// The TLS library failed.
    #[error("reservations.upstream: TLS can't be set up: {0}")]
    Tls(String),
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    url: String,
    form: Option<String>,
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    retry: RetryPolicy,
    deadline: Duration,
}

impl Client {
    pub(super) fn new(settings: &config::Upstream) -> Result<Self, UpstreamError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let invalid = || UpstreamError::Header(name.clone());
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| invalid())?;
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        let builder = reqwest::Client::builder()
            .user_agent(concat!("usher/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            // A redirected POST becomes a GET, and the headers are for the configured server only.
            .redirect(Policy::none())
            // A proxy of the environment is no part of the configuration.
            .no_proxy()
            // A pooled connection that the server closed would cost a retry and its pause.
            .pool_max_idle_per_host(0);
        let builder = if settings.url.starts_with("http://") {
            // Without TLS the system's certificates are not required: small containers have none.
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
            retry: RetryPolicy {
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
            // Pairs of strings are always valid in a form.
            form: Some(serde_urlencoded::to_string(fields).unwrap_or_default()),
        }
    }

    /// `GET /conference/{id}`; an id is valid in a path.
    pub(super) fn get(&self, id: impl Display) -> Call {
        self.on_conference(Method::GET, id)
    }

    /// `DELETE /conference/{id}`.
    pub(super) fn delete(&self, id: impl Display) -> Call {
        self.on_conference(Method::DELETE, id)
    }

    fn on_conference(&self, method: Method, id: impl Display) -> Call {
        let url = format!("{}/{id}", self.base);
        let form = None;
        Call { method, url, form }
    }

    /// The deadline of a request that begins now.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// Makes a call, with the configured retries, until `deadline`.
    pub(super) async fn call(
        &self,
        call: &Call,
        deadline: Instant,
    ) -> Result<HttpResponse, TransportError> {
        let start = Instant::now();
        let result = self.retry.run(deadline, || self.attempt(call)).await;
        record_call(call, &result, start.elapsed());
        result
    }

    /// Makes a call once: for calls that a loop repeats anyway.
    pub(super) async fn call_once(&self, call: &Call) -> Result<HttpResponse, TransportError> {
        let start = Instant::now();
        let limit = self.retry.timeout.min(self.deadline);
        let result = tokio::time::timeout(limit, self.attempt(call)).await;
        let result = result.unwrap_or(Err(TransportError::TimedOut));
        record_call(call, &result, start.elapsed());
        result
    }

    async fn attempt(&self, call: &Call) -> Result<HttpResponse, TransportError> {
        let unreachable = |error: reqwest::Error| {
            TransportError::Unreachable(error_chain::format(&error.without_url()))
        };
        let mut request = self.http.request(call.method.clone(), &call.url);
        if let Some(form) = &call.form {
            request = request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.clone());
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > RESPONSE_MAX {
                return Err(TransportError::ResponseTooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(HttpResponse { status, body })
    }
}

/// Records the result of a call and its time, which includes retries and their pauses.
fn record_call(call: &Call, result: &Result<HttpResponse, TransportError>, took: Duration) {
    let method = call.method.as_str();
    let outcome = match result {
        Ok(response) => match response.status {
            409 => "conflict",
            400..=499 => "refused",
            200..=299 => "ok",
            _ => "failed",
        },
        Err(TransportError::Unreachable(_)) => "unreachable",
        Err(TransportError::TimedOut) => "timeout",
        Err(TransportError::ResponseTooLong) => "failed",
    };
    metrics::observe_upstream_call(outcome, took);
    match result {
        Ok(response) => tracing::debug!(
            method,
            status = response.status,
            ?took,
            "upstream responded"
        ),
        Err(error) => tracing::debug!(method, trouble = %error, ?took, "upstream did not respond"),
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
