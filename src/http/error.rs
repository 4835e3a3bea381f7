//! Responses: the one JSON error body, and the one table from errors to status codes.
//!
//! Stock Prosody shows `message` to the user and fails if it is not a string, so every body with an error status is
//! `{"message": "a sentence", "code": "a_word"}`, the framework's own rejections included. Programs read `code`, which
//! never changes.

use std::convert::Infallible;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};
use warp::http::header::{
    ALLOW, CONNECTION, ETAG, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use warp::http::{HeaderName, HeaderValue, Method, StatusCode};
use warp::reject::Reject;
use warp::{Rejection, Reply};

use super::form::FieldError;
use crate::auth::service_token::AuthError;
use crate::domain::scope::Scope;
use crate::reservation::gateway::GatewayError;
use crate::reservation::{BookingError, ReservationError};
use crate::store::StoreError;

/// A response of this server.
pub(super) type Response = warp::reply::Response;

/// `Retry-After`, in seconds, while the database or a key is unavailable.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// A response with an error status.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: Map<String, Value>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Reject for ApiError {}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let body = Map::from_iter([
            ("message".to_owned(), Value::String(message.into())),
            ("code".to_owned(), code_of(status).into()),
        ]);
        Self {
            status,
            body,
            header: None,
        }
    }

    /// Replaces the code of the status by one that says more.
    pub(super) fn with_code(self, code: impl Into<String>) -> Self {
        self.with_field("code", code.into())
    }

    /// Adds a member to the body.
    pub(super) fn with_field(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.body.insert(key.to_owned(), value.into());
        self
    }

    pub(super) fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self {
            header: Some((name, value)),
            ..self
        }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn no_such_booking() -> Self {
        Self::not_found("There is no booking with this id.").with_code("no_such_booking")
    }

    pub(super) fn no_such_path() -> Self {
        Self::not_found("There is no such path; docs/api.md lists the paths.")
            .with_code("no_such_path")
    }

    /// For an unauthorized caller; `user_token_status` is the status for a user's valid token.
    pub(super) fn refused(refusal: &AuthError, user_token_status: StatusCode) -> Self {
        let message = refusal.to_string();
        let error = match refusal {
            AuthError::Token(error) if error.is_temporary() => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
                    .with_header(RETRY_AFTER, RETRY_SECONDS)
            }
            AuthError::OtherOrigin | AuthError::OtherHost { .. } => {
                return Self::new(StatusCode::FORBIDDEN, message).with_code(refusal.code());
            }
            AuthError::NotAService => Self::new(user_token_status, message).with_www_authenticate(),
            AuthError::ScopeMissing(any_of) => return Self::insufficient_scope(any_of, message),
            AuthError::Missing
            | AuthError::NotBearer
            | AuthError::NotConfigured
            | AuthError::Token(_) => {
                Self::new(StatusCode::UNAUTHORIZED, message).with_www_authenticate()
            }
        };
        error.with_code(format!("token_{}", refusal.code()))
    }

    /// Names the scopes of which the token has none (RFC 6750, section 3.1).
    fn insufficient_scope(any_of: &[Scope], message: String) -> Self {
        let names: Vec<_> = any_of.iter().map(|scope| scope.name()).collect();
        let names = names.join(" ");
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{names}\"");
        let error = Self::new(StatusCode::FORBIDDEN, message)
            .with_code("insufficient_scope")
            .with_field("scope", names);
        match HeaderValue::from_str(&challenge) {
            Ok(challenge) => error.with_header(WWW_AUTHENTICATE, challenge),
            Err(_) => error,
        }
    }

    /// Names the required authentication scheme (RFC 9110, section 11.6.1).
    fn with_www_authenticate(self) -> Self {
        self.with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    pub(super) fn wrong_method(allowed: &[Method]) -> Self {
        let allowed = allowed
            .iter()
            .map(Method::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!("This path takes {allowed} only.");
        let error = Self::new(StatusCode::METHOD_NOT_ALLOWED, message);
        match HeaderValue::from_str(&allowed) {
            Ok(allowed) => error.with_header(ALLOW, allowed),
            Err(_) => error,
        }
    }

    pub(super) fn upgrade_required() -> Self {
        let message =
            "This path takes WebSockets only: version 13, with Upgrade and Connection headers.";
        Self::new(StatusCode::UPGRADE_REQUIRED, message)
            .with_header(UPGRADE, HeaderValue::from_static("websocket"))
            .with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
    }

    /// For a client beyond a limit. Its connection is closed, since it counts too.
    pub(super) fn connection_limit(status: StatusCode, message: &str) -> Self {
        Self::new(status, message).with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("The body is larger than {limit} bytes; send less.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub(super) fn wrong_type(expected: &str) -> Self {
        let message = format!("The body must be {expected}, with that Content-Type.");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        Self::from(vec![error])
    }
}

/// All wrong fields at once: in one message, and one by one in `fields`.
impl From<Vec<FieldError>> for ApiError {
    fn from(errors: Vec<FieldError>) -> Self {
        let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let named = errors.iter().zip(&messages);
        let fields: Vec<_> = named
            .filter_map(|(error, message)| {
                let (field, code) = (error.field()?, error.code());
                Some(json!({ "field": field, "message": message, "code": code }))
            })
            .collect();
        let error = Self::new(StatusCode::BAD_REQUEST, messages.join(". "));
        if fields.is_empty() {
            error.with_code(errors.first().map_or("bad_request", FieldError::code))
        } else {
            error
                .with_code("invalid_fields")
                .with_field("fields", fields)
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

/// Several requests may share one failed transaction.
impl From<Arc<StoreError>> for ApiError {
    fn from(error: Arc<StoreError>) -> Self {
        Self::from(&*error)
    }
}

impl From<&StoreError> for ApiError {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Overlap => Self::new(
                StatusCode::CONFLICT,
                "Another booking was created at the same time; try again.",
            )
            .with_code("overlap"),
            StoreError::OutboxFull => {
                tracing::error!(%error, "a deletion is not accepted");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "The deletion outbox is full. Try again later; pending deletions are listed at /api/v1/outbox.",
                )
                .with_code("outbox_full")
                .with_header(RETRY_AFTER, RETRY_SECONDS)
            }
            StoreError::Unavailable(_) => {
                tracing::error!(%error, "the database can't be used");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "The reservation service can't store its decision at the moment. Try again in a few seconds.",
                )
                .with_code("store_unavailable")
                .with_header(RETRY_AFTER, RETRY_SECONDS)
            }
            StoreError::FileLost { change, .. } => {
                // The watch logs it, once.
                Self::new(StatusCode::SERVICE_UNAVAILABLE, lost_file_message(change))
                    .with_header(RETRY_AFTER, RETRY_SECONDS)
            }
            StoreError::Backup { .. }
            | StoreError::Served { .. }
            | StoreError::Foreign
            | StoreError::Corrupt(_)
            | StoreError::Migration(_)
            | StoreError::Url(_)
            | StoreError::Other(_) => {
                tracing::error!(%error, "a request failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "The reservation service failed; its log says why.",
                )
            }
        }
    }
}

/// The reason why a database file is not written, without its path: anyone may read it.
pub(super) fn lost_file_message(change: &str) -> String {
    format!(
        "The database file was {change} while usher runs, so that nothing can be stored: an administrator must put it back, or restart usher."
    )
}

impl From<BookingError> for ApiError {
    fn from(error: BookingError) -> Self {
        let status = match error {
            BookingError::Store(error) => return error.into(),
            BookingError::Draft(_) | BookingError::Over { .. } => StatusCode::BAD_REQUEST,
            BookingError::Unknown(_) => StatusCode::NOT_FOUND,
            BookingError::Overlap(_) | BookingError::KeyUsed(_) => StatusCode::CONFLICT,
            BookingError::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            BookingError::Elsewhere => StatusCode::FORBIDDEN,
        };
        let answer = Self::new(status, error.to_string()).with_code(error.code());
        match error {
            BookingError::Overlap(booking) => {
                answer.with_field("conflicting_booking", booking.id.0)
            }
            _ => answer,
        }
    }
}

impl From<ReservationError> for ApiError {
    fn from(error: ReservationError) -> Self {
        match error {
            ReservationError::Store(error) => error.into(),
            ReservationError::Gateway(error) => error.into(),
        }
    }
}

impl From<GatewayError> for ApiError {
    fn from(error: GatewayError) -> Self {
        let (message, code) = (error.to_string(), error.code());
        let status = match error {
            GatewayError::Refused { status, .. } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
                return Self::new(status, message).with_code(code);
            }
            GatewayError::Unreachable
            | GatewayError::ServerError(_)
            | GatewayError::InvalidResponse(_)
            | GatewayError::ResponseTooLong => StatusCode::BAD_GATEWAY,
            GatewayError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            GatewayError::CircuitOpen
            | GatewayError::TooManyInFlight
            | GatewayError::StoreFailed => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, message)
            .with_code(code)
            .with_field("reason", code)
            .with_header(RETRY_AFTER, RETRY_SECONDS)
    }
}

impl Reply for ApiError {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self.body);
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// The code of an error that has none of its own.
fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::REQUEST_TIMEOUT => "request_timeout",
        StatusCode::CONFLICT => "conflict",
        StatusCode::GONE => "gone",
        StatusCode::PRECONDITION_FAILED => "precondition_failed",
        StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
        StatusCode::UNPROCESSABLE_ENTITY => "unprocessable",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        StatusCode::UPGRADE_REQUIRED => "upgrade_required",
        StatusCode::TOO_MANY_REQUESTS => "too_many_requests",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        status if status.is_server_error() => "internal",
        _ => "bad_request",
    }
}

/// A JSON response.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    warp::reply::with_status(warp::reply::json(body), status).into_response()
}

/// A response without a body.
pub(super) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// The response to a client that has this version already.
pub(super) fn not_modified(etag: HeaderValue) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    response.headers_mut().insert(ETAG, etag);
    response
}

/// Makes a response of a handler's result.
pub(super) fn respond(outcome: Result<Response, ApiError>) -> Response {
    outcome.unwrap_or_else(ApiError::into_response)
}

/// Answers a request that no route accepted: the only place where the framework's rejections become responses.
pub(super) async fn recover(rejection: Rejection) -> Result<Response, Infallible> {
    let error = match rejection.find::<ApiError>() {
        Some(error) => error.clone(),
        None if rejection.is_not_found() => ApiError::no_such_path(),
        None => {
            tracing::debug!(?rejection, "rejected");
            ApiError::new(StatusCode::BAD_REQUEST, "The request can't be understood.")
        }
    };
    Ok(error.into_response())
}
