//! A session without its socket, for the fuzz target `session` and for the tests below: a script of bytes in, frames
//! out. It panics if the session violates one of its rules.
//!
//! Whatever a client sends: no panic; at most `SUBSCRIPTIONS_MAX` subscriptions; each visitor is released once; each
//! frame that is sent can be decoded; a refusal fits a close frame; the result does not depend on how the bytes are
//! split; and the end of a session leaves no visitor in the queue.

#![expect(clippy::expect_used, clippy::panic, reason = "a finding is a panic")]

mod script;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::action::{Action, Join};
use super::connected::SUBSCRIPTIONS_MAX;
use super::destination::Destination;
use super::error::{Refusal, SessionError};
use super::limits::ConnectionLimits;
use super::protocol::Protocol;
use super::subscription::Topic;
use super::websocket::{FrameDecoder, WsMessage};
use super::{SessionContext, is_heart_beat};
use crate::auth::keys::KeySet;
use crate::auth::{self, Verifier};
use crate::config::Config;
use crate::queue::{Queue, Subscriber, SubscriberRef, message};
use crate::stomp::{Decoder, Frame, Item, Limits, Version};
use crate::store::Store;
use script::Step;

const SECRET: &str = "a-secret-for-fuzzing-of-some-length";
const DOMAIN: &str = "meet.example.com";
const ROOM: &str = "room@conference.meet.example.com";
/// Longest reason in a close frame: 125 bytes with the code.
const CLOSE_TEXT_MAX: usize = 123;

/// What all sessions of a run share: a queue over a database, and tokens.
#[derive(Debug)]
pub struct Fuzzer {
    context: SessionContext,
    tokens: Vec<String>,
}

/// What a client of a script received.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// The frames, and the reason of the end.
    pub received: Vec<String>,
}

impl Fuzzer {
    /// A fuzzer over the database at `url`.
    pub async fn open(url: &str) -> Self {
        let store = Store::open(url, DOMAIN).await.expect("a database");
        let mut config = Config::default();
        config.queue.reconnect_grace = Duration::ZERO;
        let users = [
            json!({ "role": "visitor" }),
            json!({ "moderator": true }),
            json!({ "role": "visitor", "moderator": true }),
            json!({}),
        ];
        let sign = |user: &Value| {
            let claims = json!({
                "iss": "jitsi", "aud": "jitsi", "sub": "*", "room": "*", "exp": 4_000_000_000_u64,
                "context": { "user": user },
            });
            auth::sign(SECRET, &claims, None).expect("a token")
        };
        let keys = KeySet::new().with_secret(SECRET).expect("a secret");
        Self {
            tokens: users.iter().map(sign).collect(),
            context: SessionContext {
                queue: Queue::new(store, config.queue.clone(), &config.xmpp.muc_prefix),
                verifier: Verifier::new(keys, Arc::default(), DOMAIN),
                settings: Arc::new(config.queue),
                xmpp: Arc::new(config.xmpp),
                limits: ConnectionLimits::default(),
                timers: Arc::default(),
            },
        }
    }

    /// Runs a script: the first byte is the size of the pieces, in which the bytes arrive the second time.
    ///
    /// # Panics
    ///
    /// With a finding.
    pub fn run(&self, data: &[u8]) -> Transcript {
        let (size, script) = data.split_first().unwrap_or((&0, &[]));
        let steps = script::steps(script, &self.tokens);
        let whole = self.converse(&steps, usize::MAX);
        let pieces = self.converse(&steps, usize::from(*size).max(1));
        assert_eq!(whole, pieces, "the result depends on the split");
        whole
    }

    fn converse(&self, steps: &[Step], size: usize) -> Transcript {
        let mut client = Conversation::new(self);
        for step in steps {
            match step {
                Step::Bytes(bytes) => bytes.chunks(size).for_each(|piece| client.push(piece)),
                Step::Release(number) => client.release(*number),
                Step::Updates => client.updates(),
            }
            let waiting = self.context.queue.conferences();
            let waiting: usize = waiting.iter().map(|it| it.waiting).sum();
            assert!(waiting <= SUBSCRIPTIONS_MAX, "{waiting} subscriptions");
        }
        let transcript = client.end();
        let left = self.context.queue.conferences();
        assert!(left.is_empty(), "the session left {left:?}");
        transcript
    }
}

/// A client, and the session's state.
struct Conversation<'a> {
    context: &'a SessionContext,
    decoder: FrameDecoder,
    protocol: Protocol,
    transcript: Transcript,
    /// Visitors' subscriptions that were not released, by their number; several may share one.
    waiting: BTreeMap<u32, u32>,
    last_joined: u32,
    is_over: bool,
    subscriber: Arc<dyn Subscriber>,
}

/// Receives nothing: the script releases.
#[derive(Debug)]
struct NoClient;

impl Subscriber for NoClient {
    fn notify(&self, _subscription: u32, _body: &[u8]) {}
}

impl<'a> Conversation<'a> {
    fn new(fuzzer: &'a Fuzzer) -> Self {
        Self {
            context: &fuzzer.context,
            decoder: FrameDecoder::default(),
            protocol: Protocol::default(),
            transcript: Transcript::default(),
            waiting: BTreeMap::new(),
            last_joined: 0,
            is_over: false,
            subscriber: Arc::new(NoClient),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.is_over {
            return;
        }
        self.decoder.push(bytes);
        while !self.is_over {
            self.decoder.set_max(self.protocol.message_max());
            let result = match self.decoder.next() {
                Ok(None) => return,
                Ok(Some(message)) => self.handle(message),
                Err(error) => Err(SessionError::from(error).into()),
            };
            if let Err(refusal) = result {
                self.refuse(refusal);
            }
        }
    }

    fn handle(&mut self, message: WsMessage) -> Result<(), Refusal> {
        self.protocol.mark_active();
        match message {
            WsMessage::Data(bytes)
                if self.protocol.is_between_frames() && is_heart_beat(&bytes) =>
            {
                Ok(())
            }
            WsMessage::Data(bytes) => self.frames(&bytes),
            WsMessage::Ping(_) | WsMessage::Pong => Ok(()),
            WsMessage::Close(code) => {
                self.over(&code);
                Ok(())
            }
        }
    }

    fn frames(&mut self, mut input: &[u8]) -> Result<(), Refusal> {
        let env = self.context.env();
        while let Some(mut action) = self.protocol.receive(&mut input, &env)? {
            if let Action::Verify(verification) = action {
                assert!(self.protocol.is_verifying());
                let verified = self.context.authenticate(verification.token());
                let client = verified.now_or_never().expect("no key server");
                action = self.protocol.verified(verification, client, &env)?;
            }
            assert!(!self.protocol.is_verifying());
            match action {
                Action::Done => {}
                Action::Send(frame) => self.sent(&frame),
                Action::Verify(_) => panic!("a token was verified twice"),
                Action::Join(destination, join) => self.join(destination, join)?,
                Action::Disconnect(receipt) => {
                    receipt.iter().for_each(|frame| self.sent(frame));
                    self.over(&"disconnected");
                    return Ok(());
                }
            }
        }
        assert!(input.is_empty(), "some input was left");
        Ok(())
    }

    fn join(&mut self, destination: Destination, join: Join) -> Result<(), Refusal> {
        assert!(join.number > self.last_joined, "a number was used twice");
        self.last_joined = join.number;
        let number = join.same_as.unwrap_or(join.number);
        let subscriber = SubscriberRef {
            subscriber: Arc::downgrade(&self.subscriber) as Weak<dyn Subscriber>,
            subscription: number,
        };
        let is_released = self.protocol.released(number).is_some();
        let joined = match join.same_as {
            Some(_) => Ok(Topic::Also {
                number,
                is_released: false,
            }),
            None => self.context.join(destination, &join, None, subscriber),
        };
        let topic = match joined {
            Ok(topic) => topic,
            Err(error) => return Err(join.refuse(error)),
        };
        if !matches!(topic, Topic::State(_)) {
            *self.waiting.entry(number).or_default() += 1;
        }
        let receipt = self.protocol.subscribed(join, topic);
        receipt.iter().for_each(|frame| self.sent(frame));
        if is_released {
            self.release(number);
        }
        Ok(())
    }

    fn release(&mut self, number: u32) {
        while let Some(bytes) = self.protocol.release(number, &message::live(ROOM, 0)) {
            assert!(!self.is_over);
            let waiting = self.waiting.entry(number).or_default();
            *waiting = waiting.checked_sub(1).expect("a visitor is released once");
            self.encoded(&bytes);
        }
    }

    fn updates(&mut self) {
        let queue = &self.context.queue;
        let count = |conference: &_| queue.waiting(conference);
        let (now, interval) = (Instant::now(), Duration::from_hours(1));
        for bytes in self
            .protocol
            .state_updates(now, interval, count, "conference")
        {
            self.encoded(&bytes);
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        assert!(refusal.close_text().len() <= CLOSE_TEXT_MAX);
        let code = refusal.error.close_code();
        if let Some(frame) = refusal.frame() {
            self.sent(&frame);
        }
        self.over(&code);
    }

    fn sent(&mut self, frame: &Frame) {
        let version = self.protocol.version().unwrap_or(Version::V10);
        self.encoded(&frame.encode(version));
    }

    /// Decodes a frame of the server, as a client does.
    fn encoded(&mut self, bytes: &[u8]) {
        let mut decoder = Decoder::new(Limits::default());
        decoder.set_version(self.protocol.version().unwrap_or(Version::V10));
        let mut input = bytes;
        let Ok(Some(Item::Frame(mut frame))) = decoder.decode(&mut input) else {
            panic!("{:?} is no frame", String::from_utf8_lossy(bytes));
        };
        assert!(
            std::str::from_utf8(bytes).is_ok(),
            "frames are sent as text"
        );
        // It is random.
        frame.headers.retain(|(name, _)| name != "session");
        self.transcript.received.push(format!("{frame:?}"));
    }

    fn over(&mut self, reason: &dyn fmt::Debug) {
        self.transcript.received.push(format!("over: {reason:?}"));
        self.is_over = true;
        self.protocol.close();
    }

    fn end(mut self) -> Transcript {
        self.protocol.close();
        assert!(self.protocol.is_closed());
        std::mem::take(&mut self.transcript)
    }
}

#[cfg(test)]
mod tests;
