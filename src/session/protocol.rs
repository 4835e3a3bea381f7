//! The STOMP session as a state machine (sans I/O): bytes of a client in, actions out.
//!
//! ```text
//! AwaitingConnect ─CONNECT→ VerifyingConnect ─token is good→ Connected ⇄ VerifyingSubscribe
//!        └──────────────────────────┴────────── close ─────────┴──────────→ Closed
//! ```
//!
//! A token may need a key from a server. So the machine returns [`Action::Verify`], and continues when it receives the
//! result; further frames wait until then.

use std::time::Duration;

use tokio::time::Instant;

use super::action::{Action, Authenticated, Env, Join, Pending, Verification};
use super::commands::Connect;
use super::connected::{Connected, Step};
use super::error::{Refusal, SessionError};
use super::subscription::Topic;
use super::timer::Liveness;
use super::websocket::{EARLY_MESSAGE_MAX, MESSAGE_MAX};
use crate::auth::TokenError;
use crate::domain::conference::Conference;
use crate::stomp::negotiate::HeartBeatOffer;
use crate::stomp::{Command, Decoder, Frame, Item, Limits, Version};

/// The state machine.
#[derive(Debug, Default)]
pub(super) struct Protocol {
    state: State,
    /// The decoder of an incomplete frame.
    decoder: Option<Box<Decoder>>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    AwaitingConnect,
    VerifyingConnect,
    Connected(Box<Connected>),
    VerifyingSubscribe(Box<Connected>),
    Closed,
}

impl Protocol {
    /// Handles frames at the front of `input` until one requires an action; `None` when `input` is used up.
    ///
    /// # Errors
    ///
    /// The violation that ends the session.
    pub(super) fn receive(
        &mut self,
        input: &mut &[u8],
        env: &Env<'_>,
    ) -> Result<Option<Action>, Refusal> {
        let kept = self.decoder.take();
        let limits = self.frame_limits();
        let mut decoder = kept.map_or_else(|| Decoder::new(limits), |kept| *kept);
        loop {
            // CONNECT decides the version of the frames behind it, in the same message too.
            if let Some(version) = self.version() {
                decoder.set_version(version);
            }
            match decoder.decode(input).map_err(SessionError::from)? {
                None => break,
                Some(Item::HeartBeat) => {}
                Some(Item::Frame(frame)) => {
                    return self.handle_frame(&frame, env).map(Some);
                }
            }
        }
        if decoder.is_inside_frame() {
            self.decoder = Some(Box::new(decoder));
        }
        Ok(None)
    }

    /// Smaller ones before CONNECT, which requires no token.
    fn frame_limits(&self) -> Limits {
        let limits = Limits::default();
        let max = limits.max_header_bytes.min(self.message_max());
        Limits {
            max_header_bytes: max,
            ..limits
        }
    }

    /// The largest message of the client, in this state.
    pub(super) fn message_max(&self) -> usize {
        match self.connected() {
            Some(_) => MESSAGE_MAX,
            None => EARLY_MESSAGE_MAX,
        }
    }

    /// The memory of an incomplete frame.
    pub(super) fn unfinished_bytes(&self) -> usize {
        let decoder = self.decoder.as_ref();
        decoder.map_or(0, |decoder| decoder.heap_bytes())
    }

    fn handle_frame(&mut self, frame: &Frame, env: &Env<'_>) -> Result<Action, Refusal> {
        let receipt = frame.header("receipt").map(str::to_owned);
        let step = match &mut self.state {
            State::Connected(connected) => connected.handle_frame(frame, env),
            State::AwaitingConnect if frame.command.is_connect() => {
                let connect = Connect::parse(frame, offer(env));
                connect.map(|connect| Step::Verify(Pending::Connect(connect)))
            }
            _ => Err(SessionError::ConnectExpected),
        };
        match step {
            Ok(Step::Done) => {
                Ok(receipt.map_or(Action::Done, |receipt| Action::Send(receipt_frame(receipt))))
            }
            Ok(Step::Verify(command)) => {
                self.state = std::mem::take(&mut self.state).verifying();
                Ok(Action::Verify(Verification { command, receipt }))
            }
            Ok(Step::Join(destination, join)) => {
                Ok(Action::Join(destination, Join { receipt, ..join }))
            }
            Ok(Step::Disconnect) => Ok(Action::Disconnect(receipt.map(receipt_frame))),
            Err(error) => Err(Refusal { error, receipt }),
        }
    }

    /// Continues with the command whose token was verified.
    ///
    /// # Errors
    ///
    /// The violation that ends the session.
    pub(super) fn verified(
        &mut self,
        verification: Verification,
        client: Result<Authenticated, TokenError>,
        env: &Env<'_>,
    ) -> Result<Action, Refusal> {
        let Verification { command, receipt } = verification;
        let refused = |error| Refusal {
            error,
            receipt: receipt.clone(),
        };
        let client = client.map_err(|error| refused(SessionError::Token(error)))?;
        match (command, std::mem::take(&mut self.state)) {
            (Pending::Connect(connect), State::VerifyingConnect) => {
                // Jitsi Meet's client gives up after a few refusals at CONNECT; after one at SUBSCRIBE it reconnects
                // forever.
                if !client.grant.allows_anything() {
                    return Err(refused(SessionError::NoAccess));
                }
                let frame = connected_frame(&connect, offer(env));
                self.state = State::Connected(Box::new(Connected::new(connect, client)));
                Ok(Action::Send(frame))
            }
            (Pending::Subscribe(subscribe), State::VerifyingSubscribe(mut connected)) => {
                let join = connected.authorize(subscribe, Some(&client), env);
                self.state = State::Connected(connected);
                let (destination, join) = join.map_err(&refused)?;
                Ok(Action::Join(destination, Join { receipt, ..join }))
            }
            _ => Err(refused(SessionError::ConnectExpected)),
        }
    }

    /// Adds the subscription that was joined; returns its receipt.
    pub(super) fn subscribed(&mut self, join: Join, topic: Topic) -> Option<Frame> {
        self.connected_mut()?.add(&join.subscribe, topic);
        join.receipt.map(receipt_frame)
    }

    /// The conference of the wait with this number, if its visitor was released.
    pub(super) fn released(&self, number: u32) -> Option<&Conference> {
        self.connected()?.released(number)
    }

    /// The MESSAGE that releases the visitor, for the next subscription of this wait; `None` if there is no further one.
    pub(super) fn release(&mut self, number: u32, json: &[u8]) -> Option<Vec<u8>> {
        self.connected_mut()?.release(number, json)
    }

    /// The MESSAGEs to moderators that are due: how many visitors wait, if the number has changed.
    pub(super) fn state_updates(
        &mut self,
        now: Instant,
        interval: Duration,
        count: impl Fn(&Conference) -> usize,
        muc_prefix: &str,
    ) -> Vec<Vec<u8>> {
        let connected = self.connected_mut();
        connected.map_or_else(Vec::new, |connected| {
            connected.state_updates(now, interval, count, muc_prefix)
        })
    }

    /// When the next of [`Protocol::state_updates`] is due.
    pub(super) fn next_state_update(&self) -> Option<Instant> {
        self.connected()?.next_state_update()
    }

    /// Records that the client sent something. Returns whether that counts: before CONNECT it does not.
    pub(super) fn mark_active(&mut self) -> bool {
        let connected = self.connected_mut();
        connected.is_some_and(|connected| {
            connected.is_pinged = false;
            true
        })
    }

    /// Records that a WebSocket ping was sent.
    pub(super) fn mark_pinged(&mut self) {
        if let Some(connected) = self.connected_mut() {
            connected.is_pinged = true;
        }
    }

    /// How the client shows that it is alive.
    pub(super) fn liveness(&self, connect_timeout: Duration) -> Liveness {
        match self.connected() {
            None => Liveness::Connect(connect_timeout),
            Some(connected) => match connected.heart_beat().expect {
                Some(interval) => Liveness::HeartBeat {
                    interval,
                    is_pinged: connected.is_pinged,
                },
                None => Liveness::Ping {
                    is_pinged: connected.is_pinged,
                },
            },
        }
    }

    /// The interval in which the server must send something.
    pub(super) fn send_interval(&self) -> Option<Duration> {
        self.connected()?.heart_beat().send
    }

    /// The negotiated version, after CONNECT.
    pub(super) fn version(&self) -> Option<Version> {
        self.connected().map(|connected| connected.version)
    }

    pub(super) fn is_between_frames(&self) -> bool {
        self.decoder.is_none()
    }

    pub(super) fn is_verifying(&self) -> bool {
        matches!(
            self.state,
            State::VerifyingConnect | State::VerifyingSubscribe(_)
        )
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Ends all subscriptions; nothing is sent any more.
    pub(super) fn close(&mut self) {
        *self = Self {
            state: State::Closed,
            decoder: None,
        };
    }

    fn connected(&self) -> Option<&Connected> {
        match &self.state {
            State::Connected(connected) | State::VerifyingSubscribe(connected) => Some(connected),
            State::AwaitingConnect | State::VerifyingConnect | State::Closed => None,
        }
    }

    fn connected_mut(&mut self) -> Option<&mut Connected> {
        match &mut self.state {
            State::Connected(connected) | State::VerifyingSubscribe(connected) => Some(connected),
            State::AwaitingConnect | State::VerifyingConnect | State::Closed => None,
        }
    }
}

impl State {
    fn verifying(self) -> Self {
        match self {
            Self::AwaitingConnect => Self::VerifyingConnect,
            Self::Connected(connected) => Self::VerifyingSubscribe(connected),
            other => other,
        }
    }
}

fn offer(env: &Env<'_>) -> HeartBeatOffer {
    HeartBeatOffer {
        send: env.queue.heart_beat,
        want: env.queue.client_heart_beat,
    }
}

fn connected_frame(connect: &Connect, offer: HeartBeatOffer) -> Frame {
    let version = connect.version;
    let mut frame = Frame::new(Command::Connected).with("version", version.as_str());
    if version > Version::V10 {
        frame = frame.with("heart-beat", offer.to_string());
    }
    let mut id = [0; 8];
    // The id distinguishes sessions in a client's log; it is no secret, and zero if the system has no random bytes.
    let _ = aws_lc_rs::rand::fill(&mut id);
    frame
        .with("session", format!("{:016x}", u64::from_be_bytes(id)))
        .with("server", concat!("usher/", env!("CARGO_PKG_VERSION")))
}

fn receipt_frame(receipt: String) -> Frame {
    Frame::new(Command::Receipt).with("receipt-id", receipt)
}

#[cfg(test)]
mod tests;
