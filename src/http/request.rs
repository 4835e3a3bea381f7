//! What every request passes on its way in: the method, the service token, and the body within its bounds.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use warp::filters::BoxedFilter;
use warp::http::header::{AUTHORIZATION, CONTENT_TYPE};
use warp::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use warp::{Filter, Rejection, Stream};

use super::Shared;
use super::caller::caller;
use super::error::ApiError;
use super::form::{FieldError, Fields};
use crate::auth::service_token::ServiceAuth;
use crate::clock;
use crate::domain::scope::Scope;

/// Largest body that is read; a booking is under a kilobyte.
const BODY_MAX: usize = 64 * 1024;
/// Largest body of a report of Prosody: a server has some thousands of rooms, with 300 bytes each.
pub(super) const REPORT_MAX: usize = 4 * 1024 * 1024;
/// How much of a larger body is discarded before the answer: a client that is still sending would otherwise see a
/// broken connection instead of the answer.
const DRAIN_MAX: usize = 4 * 1024 * 1024;
/// The media types of changes that a resource accepts (RFC 5789).
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) const READ: &[Method] = &[Method::GET];
pub(super) const CREATE: &[Method] = &[Method::POST];
pub(super) const READ_END: &[Method] = &[Method::GET, Method::DELETE];
pub(super) const READ_CREATE: &[Method] = &[Method::GET, Method::POST];
pub(super) const READ_CHANGE_END: &[Method] =
    &[Method::GET, Method::PUT, Method::PATCH, Method::DELETE];

/// Who may call an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// Every client.
    Open,
    /// Holders of a service token with one of these scopes. A valid token of a user gets this status.
    Service(StatusCode, Scopes),
    /// Holders of a service token with the scope to read the resource, or to end it.
    ReadOrEnd(Scopes, Scopes),
}

type Scopes = &'static [Scope];

impl Access {
    /// The status for a valid token of a user, and the scopes of which a service token has one; `None`: every client.
    pub(super) fn required(self, method: &Method) -> Option<(StatusCode, Scopes)> {
        match self {
            Self::Open => None,
            Self::Service(status, any_of) => Some((status, any_of)),
            Self::ReadOrEnd(_, end) if method == Method::DELETE => {
                Some((StatusCode::UNAUTHORIZED, end))
            }
            Self::ReadOrEnd(read, _) => Some((StatusCode::UNAUTHORIZED, read)),
        }
    }
}

/// Holders of a service token with one of these scopes.
pub(super) const fn service(any_of: Scopes) -> Access {
    Access::Service(StatusCode::UNAUTHORIZED, any_of)
}

/// An authorized request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) query: String,
    pub(super) body: Bytes,
    pub(super) now: DateTime<Utc>,
}

impl Request {
    /// The fields of the body, which is a form.
    pub(super) fn form<T: DeserializeOwned>(&self, expected: &str) -> Result<Fields<T>, ApiError> {
        if !is_type(&self.headers, "application/x-www-form-urlencoded") {
            return Err(ApiError::wrong_type(expected));
        }
        Ok(Fields::from_form(&self.body)?)
    }

    /// The fields of the body, which is a JSON object.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<Fields<T>, ApiError> {
        if !is_type(&self.headers, "application/json") {
            return Err(ApiError::wrong_type("application/json"));
        }
        Ok(Fields::from_json(&self.body)?)
    }

    /// The fields of a change to a JSON object (RFC 7396).
    pub(super) fn merge_patch<T: DeserializeOwned>(&self) -> Result<Fields<T>, ApiError> {
        const TYPES: [&str; 2] = ["application/merge-patch+json", "application/json"];
        if !TYPES
            .iter()
            .any(|expected| is_type(&self.headers, expected))
        {
            let types = TYPES.join(" or ");
            let accepted =
                HeaderValue::from_static("application/merge-patch+json, application/json");
            return Err(ApiError::wrong_type(&types).with_header(ACCEPT_PATCH, accepted));
        }
        Ok(Fields::from_json(&self.body)?)
    }

    /// The fields of the query.
    pub(super) fn query<T: DeserializeOwned>(&self) -> Result<Fields<T>, Vec<FieldError>> {
        Fields::from_form(self.query.as_bytes())
    }
}

/// Whether a `Content-Type` is `expected`, whatever its parameters. A missing header counts as `expected`.
fn is_type(headers: &HeaderMap, expected: &str) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let value = value.to_str().unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(expected)
}

/// What every route passes after its path: the method, the service token where `access` requires one, and only
/// then the body.
pub(super) fn request(
    shared: &Arc<Shared>,
    methods: &'static [Method],
    access: Access,
) -> BoxedFilter<(Request,)> {
    request_up_to(shared, methods, access, BODY_MAX)
}

/// The same with a body of up to `max` bytes.
pub(super) fn request_up_to(
    shared: &Arc<Shared>,
    methods: &'static [Method],
    access: Access,
    max: usize,
) -> BoxedFilter<(Request,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let shared = Arc::clone(shared);
    warp::method()
        .and(warp::header::headers_cloned())
        .and_then(move |method: Method, headers: HeaderMap| {
            let shared = Arc::clone(&shared);
            async move {
                if !methods.contains(&method) {
                    return Err(warp::reject::custom(ApiError::wrong_method(methods)));
                }
                let now = clock::now();
                let required = access.required(&method);
                authorize(&shared.service_auth.load_full(), &headers, required, now).await?;
                Ok((method, headers, now))
            }
        })
        .and(query)
        .and(warp::body::stream())
        .and_then(move |(method, headers, now), query, body| async move {
            // Without a token a slow body must not hold a connection; no such request needs one.
            let body = match access {
                Access::Open => Bytes::new(),
                Access::Service(..) | Access::ReadOrEnd(..) => read_body(body, max).await?,
            };
            Ok::<_, Rejection>(Request {
                method,
                headers,
                query,
                body,
                now,
            })
        })
        .boxed()
}

/// Requires a service token, if one is `required`.
pub(super) async fn authorize(
    auth: &ServiceAuth,
    headers: &HeaderMap,
    required: Option<(StatusCode, Scopes)>,
    now: DateTime<Utc>,
) -> Result<(), Rejection> {
    let Some((user_token_status, any_of)) = required else {
        return Ok(());
    };
    let refused = |refusal| warp::reject::custom(ApiError::refused(&refusal, user_token_status));
    if headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
        let message = "The header Authorization comes twice; send one token.";
        let error = ApiError::new(StatusCode::BAD_REQUEST, message);
        return Err(warp::reject::custom(error));
    }
    let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    auth.authorize(authorization, caller(headers), any_of, now)
        .await
        .map_err(refused)
}

/// Reads a body to its end, up to `max` bytes.
async fn read_body<B: Buf>(
    body: impl Stream<Item = Result<B, warp::Error>>,
    max: usize,
) -> Result<Bytes, Rejection> {
    let incomplete = || {
        let message = "The body did not arrive whole; send it again.";
        warp::reject::custom(ApiError::new(StatusCode::BAD_REQUEST, message))
    };
    let mut body = std::pin::pin!(body);
    let mut whole = BytesMut::new();
    let mut length = 0;
    let reading = async {
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk.map_err(|_| incomplete())?;
            length += chunk.remaining();
            if length > DRAIN_MAX.max(max) {
                break;
            }
            if length <= max {
                whole.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
            }
        }
        Ok::<_, Rejection>(())
    };
    tokio::time::timeout(BODY_TIMEOUT, reading)
        .await
        .map_err(|_| {
            let message = "The body did not arrive in time; send it again.";
            warp::reject::custom(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
        })??;
    if length > max {
        return Err(warp::reject::custom(ApiError::too_large(max)));
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::stream;
    use warp::Reply;

    use super::*;

    /// The status of the answer to a body that can't be read.
    async fn refused(body: impl Stream<Item = Result<Bytes, warp::Error>>) -> StatusCode {
        let rejection = read_body(body, BODY_MAX).await.unwrap_err();
        let error = rejection.find::<ApiError>().unwrap().clone();
        error.into_response().status()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_in_time_is_refused() {
        assert_eq!(
            refused(stream::pending()).await,
            StatusCode::REQUEST_TIMEOUT
        );
    }

    #[tokio::test]
    async fn an_endless_body_is_discarded_up_to_a_limit() {
        const CHUNK: usize = 16 * 1024;
        let sent = AtomicUsize::new(0);
        let endless = stream::repeat_with(|| {
            sent.fetch_add(CHUNK, Ordering::Relaxed);
            Ok(Bytes::from_static(&[0; CHUNK]))
        });
        assert_eq!(refused(endless).await, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(sent.into_inner(), DRAIN_MAX + CHUNK);
    }
}
