//! Why the gateway has no reservation to return.

use thiserror::Error;

use super::response::ResponseError;
use super::retry::TransportError;

/// A refusal or failure of the upstream. The messages are for the user who requested the room.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GatewayError {
    /// The upstream refuses the request.
    #[error("{message}")]
    Refused {
        /// From 400 to 499.
        status: u16,
        /// The upstream's message, or one of usher where it has none.
        message: String,
    },
    /// No connection.
    #[error("The reservation system can't be reached right now. Try again in a minute.")]
    Unreachable,
    /// No response within the configured time.
    #[error("The reservation system did not answer in time. Try again in a minute.")]
    TimedOut,
    /// A status from 500 up.
    #[error("The reservation system fails right now (status {0}). Try again in a minute.")]
    ServerError(u16),
    /// The circuit breaker is open.
    #[error("The reservation system is unavailable right now. Try again in a minute.")]
    CircuitOpen,
    /// A response that is not of the API.
    #[error(
        "The response of the reservation system can't be used: {0}. Contact its administrator."
    )]
    InvalidResponse(ResponseError),
    /// A response above the size limit.
    #[error(
        "The response of the reservation system can't be used: it is too long. Contact its administrator."
    )]
    ResponseTooLong,
    /// The limit of simultaneous requests is reached.
    #[error("Too many rooms are being opened right now. Try again in a minute.")]
    TooManyInFlight,
    /// The response could not be stored; the log has the reason.
    #[error(
        "The reservation service can't store its decision right now. Try again in a few seconds."
    )]
    StoreFailed,
}

impl GatewayError {
    /// The code in the decision log and in responses.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "upstream",
            Self::Unreachable => "upstream_unreachable",
            Self::TimedOut => "upstream_too_slow",
            Self::ServerError(_) => "upstream_failing",
            Self::CircuitOpen => "upstream_resting",
            Self::InvalidResponse(_) | Self::ResponseTooLong => "upstream_unusable",
            Self::TooManyInFlight => "busy",
            Self::StoreFailed => "not_written",
        }
    }

    /// Whether the upstream is unavailable, which is what `on_failure` is for; not whether it answers wrongly.
    pub(super) fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable | Self::TimedOut | Self::ServerError(_) | Self::CircuitOpen
        )
    }
}

impl From<TransportError> for GatewayError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Unreachable(_) => Self::Unreachable,
            TransportError::TimedOut => Self::TimedOut,
            TransportError::ResponseTooLong => Self::ResponseTooLong,
        }
    }
}

impl From<ResponseError> for GatewayError {
    fn from(error: ResponseError) -> Self {
        Self::InvalidResponse(error)
    }
}
