//! Why a session is refused. The texts of all STOMP ERROR frames are in this file.

use thiserror::Error;
use tungstenite::protocol::frame::coding::CloseCode;

use super::bounds::Bound;
use super::destination::DestinationError;
use super::websocket;
use crate::auth::TokenError;
use crate::queue::LimitReached;
use crate::stomp::negotiate::{NegotiateError, VERSIONS};
use crate::stomp::{Command, DecodeError, Frame};

/// A violation by the client. Each message is the header `message` of an ERROR frame: what is wrong, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    WebSocket(#[from] websocket::ProtocolError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Negotiate(#[from] NegotiateError),
    #[error("no CONNECT frame arrived in time; send one first")]
    ConnectTimeout,
    #[error("the first frame must be CONNECT")]
    ConnectExpected,
    #[error("too many WebSocket frames arrived before CONNECT; send CONNECT first")]
    ConnectFirst,
    #[error(
        "too many frames arrived for too long; send fewer, a client needs one in several seconds"
    )]
    TooFast,
    /// No ERROR frame is sent for it.
    #[error("too many frames of all clients are unfinished")]
    UnfinishedLimit,
    #[error("the session has begun already; send CONNECT once")]
    ConnectRepeated,
    #[error("{0} is a frame of the server; a client cannot send it")]
    ServerCommand(Command),
    #[error("{command} needs the header {name}")]
    MissingHeader {
        command: Command,
        name: &'static str,
    },
    #[error("ack is neither auto, client nor client-individual; leave it out")]
    UnknownAckMode,
    #[error("STOMP 1.0 has no NACK")]
    NackInV10,
    #[error("clients send no messages here; only subscribe")]
    SendNotAllowed,
    #[error("there are no transactions here, as clients send no messages")]
    NoTransactions,
    #[error("a token is needed; send CONNECT with the header Authorization, Bearer and the token")]
    TokenMissing,
    #[error("Authorization must be Bearer, a blank and the token")]
    AuthorizationScheme,
    #[error("the token is refused: {0}")]
    Token(TokenError),
    #[error(
        "the token grants no access to the queue; it needs room, sub, and context.user.role = visitor or context.user.moderator = true, or, for a service, the scope prosody"
    )]
    NoAccess,
    #[error("the token is for another conference; get one for this room and tenant")]
    OtherConference,
    #[error("the token does not allow waiting; it needs context.user.role = visitor")]
    NotVisitor,
    #[error(
        "only a moderator may watch how many visitors wait; the token needs context.user.moderator = true"
    )]
    NotModerator,
    #[error(transparent)]
    Destination(#[from] DestinationError),
    #[error("the id is too long; its limit is {max} bytes")]
    IdTooLong { max: usize },
    #[error("there is a subscription with this id already; choose another id")]
    IdInUse,
    #[error("there are too many subscriptions; the limit of a session is {max}")]
    TooManySubscriptions { max: usize },
    #[error("there is no subscription with this id or destination")]
    NotSubscribed,
    #[error(transparent)]
    QueueLimit(#[from] LimitReached),
    #[error(
        "too many visitors wait from this address already; try again later, or raise queue.max_per_address"
    )]
    AddressLimit,
    #[error(
        "too many moderators watch with this token already; use a token for each moderator, or raise queue.max_per_token"
    )]
    WatcherLimit,
}

impl SessionError {
    /// How the WebSocket closes.
    pub(super) fn close_code(&self) -> CloseCode {
        match self {
            Self::WebSocket(error) => error.close_code(),
            Self::Token(error) if error.is_worth_a_retry() => CloseCode::Again,
            Self::UnfinishedLimit => CloseCode::Again,
            Self::Decode(_)
            | Self::Negotiate(_)
            | Self::ConnectExpected
            | Self::ConnectRepeated
            | Self::ServerCommand(_)
            | Self::MissingHeader { .. }
            | Self::UnknownAckMode
            | Self::NackInV10 => CloseCode::Protocol,
            _ => CloseCode::Policy,
        }
    }

    /// The bound that the client met, if it is one that floods meet.
    pub(super) fn bound(&self) -> Option<Bound> {
        match self {
            Self::ConnectFirst | Self::TooFast => Some(Bound::Frames),
            Self::UnfinishedLimit => Some(Bound::Unfinished),
            Self::AddressLimit => Some(Bound::SessionsOfAddress),
            _ => None,
        }
    }

    /// The label `reason` of `usher_frames_refused_total`.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::WebSocket(websocket::ProtocolError::TooLarge) => "too_large",
            Self::WebSocket(_) => "protocol",
            Self::ConnectTimeout => "too_late",
            Self::Token(error) if error.is_worth_a_retry() => "key_server",
            Self::ConnectFirst | Self::TooFast => "flood",
            Self::UnfinishedLimit => "memory",
            Self::Token(_) => "token",
            Self::Destination(_) => "destination",
            Self::QueueLimit(_) | Self::AddressLimit | Self::WatcherLimit => "full",
            _ if self.close_code() == CloseCode::Protocol => "protocol",
            _ => "not_allowed",
        }
    }
}

/// A violation, with the receipt that the violating frame asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) error: SessionError,
    pub(super) receipt: Option<String>,
}

impl Refusal {
    /// The ERROR frame. There is none if the token may be good and cannot be verified now: Jitsi Meet's client gives up
    /// after a few ERRORs, and reconnects after a close.
    pub(super) fn frame(self) -> Option<Frame> {
        if self.error.close_code() == CloseCode::Again {
            return None;
        }
        let message = self.error.to_string();
        let mut frame = Frame::new(Command::Error).with("message", message.clone());
        if let Some(receipt) = self.receipt {
            frame = frame.with("receipt-id", receipt);
        }
        if self.error == SessionError::Negotiate(NegotiateError::NoCommonVersion) {
            frame = frame.with("version", VERSIONS);
        }
        Some(frame.body(message, "text/plain"))
    }

    /// The reason in the close frame.
    pub(super) fn close_text(&self) -> &'static str {
        match self.error.close_code() {
            CloseCode::Again => "try again in a moment",
            _ => "refused; the ERROR frame says why",
        }
    }
}

impl From<SessionError> for Refusal {
    fn from(error: SessionError) -> Self {
        let receipt = None;
        Self { error, receipt }
    }
}
