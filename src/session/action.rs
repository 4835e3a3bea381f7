//! What the state machine and the session exchange: actions, and the values that a result needs.

use chrono::{DateTime, Utc};

use super::commands::{Connect, Subscribe};
use super::destination::Destination;
use super::error::{Refusal, SessionError};
use crate::auth::Expiry;
use crate::auth::grant::Grant;
use crate::config;
use crate::domain::secret::Secret;
use crate::queue::TokenKey;
use crate::stomp::Frame;

/// What the machine knows of its surroundings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Env<'a> {
    pub(super) queue: &'a config::Queue,
    pub(super) xmpp: &'a config::Xmpp,
    pub(super) now: DateTime<Utc>,
}

/// A client whose token was verified.
#[derive(Debug)]
pub(super) struct Authenticated {
    pub(super) grant: Grant,
    pub(super) key: TokenKey,
    pub(super) expiry: Expiry,
}

/// What the session must do next.
#[derive(Debug)]
pub(super) enum Action {
    /// Nothing: the frame has no answer.
    Done,
    /// Send this frame.
    Send(Frame),
    /// Verify the token and call [`Protocol::verified`](super::protocol::Protocol::verified).
    Verify(Verification),
    /// Join the queue, or start to watch it, and call [`Protocol::subscribed`](super::protocol::Protocol::subscribed).
    Join(Destination, Join),
    /// Send the receipt, if there is one, and close the WebSocket.
    Disconnect(Option<Frame>),
}

/// A command that waits for the verification of its token.
#[derive(Debug)]
pub(super) struct Verification {
    pub(super) command: Pending,
    pub(super) receipt: Option<String>,
}

#[derive(Debug)]
pub(super) enum Pending {
    Connect(Connect),
    Subscribe(Subscribe),
}

/// An authorized SUBSCRIBE.
#[derive(Debug)]
pub(super) struct Join {
    /// The number of the subscription, unique in the session.
    pub(super) number: u32,
    pub(super) token: TokenKey,
    pub(super) is_service: bool,
    /// Whether the session waits for another conference already.
    pub(super) is_further_wait: bool,
    /// The subscription of the session that waits for this conference already, by its number.
    pub(super) same_as: Option<u32>,
    pub(super) subscribe: Subscribe,
    pub(super) receipt: Option<String>,
}

impl Verification {
    pub(super) fn token(&self) -> &str {
        match &self.command {
            Pending::Connect(connect) => connect.token.expose(),
            Pending::Subscribe(subscribe) => subscribe.token.as_ref().map_or("", Secret::expose),
        }
    }
}

impl Join {
    pub(super) fn refuse(self, error: SessionError) -> Refusal {
        let receipt = self.receipt;
        Refusal { error, receipt }
    }
}
