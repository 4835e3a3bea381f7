//! One STOMP session: its states, its loop, its reasons to end.
//!
//! A session is a conversation on a WebSocket that somebody else has opened: it reads frames, subscribes to
//! the queue, and tells what it is told. It ends with an ERROR frame that says why where the client did
//! wrong, and with a WebSocket close alone where we leave: Jitsi Meet gives up for good after a few ERRORs.

mod frames;

use std::time::Duration;

use futures_util::future::select_all;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error as SocketError, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use crate::conference::Conference;
use crate::queue::{Queue, Waiting, message};
use crate::stomp::negotiate::HeartBeat;
use crate::stomp::{Command, Decoder, Frame, Item, Limits, Version};
use crate::token::Verifier;
use crate::token::grant::Rules;
use frames::{Client, Fault};

/// How long a client may take to take what it is sent, before it is dropped: it reads nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the close handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a client that promised no heart-beats is asked for a sign of life, by a WebSocket ping.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A peer's heart-beat may be late by as much again as its interval: networks and timers are.
const BEAT_TOLERANCE: u32 = 2;

/// What all sessions share.
#[derive(Debug)]
pub struct Gate {
    /// The queue.
    pub queue: Queue,
    /// Checks tokens.
    pub verifier: Verifier,
    /// What tokens allow.
    pub rules: Rules,
    /// How often moderators are told how many wait.
    pub state_interval: Duration,
    /// How often a heart-beat is sent, and wanted.
    pub heart_beat: Duration,
    /// How long a client may take to its CONNECT frame.
    pub connect_timeout: Duration,
    /// `xmpp.muc_prefix`.
    pub muc_prefix: String,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client left, with a DISCONNECT, a close, or neither.
    Left,
    /// The client did what it may not, and was told what.
    Refused,
    /// The client was silent for too long.
    Silent,
    /// The client doesn't read.
    Slow,
    /// We leave.
    Stopped,
}

/// Something that a client subscribed to.
#[derive(Debug)]
struct Subscription {
    id: String,
    /// As the client wrote it: MESSAGE frames repeat it.
    destination: String,
    /// Whether MESSAGE frames carry an `ack` header (the client's `ack` is not `auto`).
    acknowledged: bool,
    topic: Topic,
}

#[derive(Debug)]
enum Topic {
    /// A visitor's place in the line; `told` once it was told.
    Visitor {
        conference: Conference,
        waiting: Waiting,
        told: bool,
    },
    /// How many wait: what was told last, and when to look again.
    State {
        conference: Conference,
        told: Option<usize>,
        look_at: Instant,
    },
}

/// What happens next.
enum Event {
    Stop,
    Socket(Option<Result<Message, SocketError>>),
    Released {
        subscription: usize,
        delay_millis: u32,
    },
    Clock,
}

struct Session<'g, S> {
    socket: S,
    gate: &'g Gate,
    decoder: Decoder,
    client: Client,
    version: Version,
    subscriptions: Vec<Subscription>,
    beats: HeartBeat,
    /// When something was last sent, and heard.
    sent_at: Instant,
    heard_at: Instant,
    pinged: bool,
    messages: u64,
}

/// Runs a session on an open WebSocket until it ends; `address` is the client's, `None` for the loopback.
pub async fn run<S>(
    socket: S,
    gate: &Gate,
    address: Option<std::net::IpAddr>,
    stop: &CancellationToken,
) -> End
where
    S: Stream<Item = Result<Message, SocketError>> + Sink<Message, Error = SocketError> + Unpin,
{
    let now = Instant::now();
    let session = Session {
        socket,
        gate,
        decoder: Decoder::new(Limits::default()),
        client: Client::new(address),
        version: Version::V10,
        subscriptions: Vec::new(),
        beats: HeartBeat {
            send: None,
            expect: None,
        },
        sent_at: now,
        heard_at: now,
        pinged: false,
        messages: 0,
    };
    let end = session.run(stop).await;
    tracing::debug!(?end, "a session ended");
    end
}

impl<S> Session<'_, S>
where
    S: Stream<Item = Result<Message, SocketError>> + Sink<Message, Error = SocketError> + Unpin,
{
    async fn run(mut self, stop: &CancellationToken) -> End {
        loop {
            let event = self.next(stop).await;
            // In a box, as it is short-lived: a session is as large as the largest thing it ever waits
            // for, and nearly all its life it waits for an event.
            let went_on = Box::pin(self.deal_with(event)).await;
            if let Err(end) = went_on {
                return end;
            }
        }
    }

    async fn deal_with(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Stop => {
                self.close(CloseCode::Restart, "usher restarts; come back")
                    .await;
                Err(End::Stopped)
            }
            Event::Socket(None | Some(Err(SocketError::ConnectionClosed))) => Err(End::Left),
            Event::Socket(Some(Err(error))) => self.broken(error).await,
            Event::Socket(Some(Ok(message))) => self.read(message).await,
            Event::Released {
                subscription,
                delay_millis,
            } => self.tell_live(subscription, delay_millis).await,
            Event::Clock => self.clock().await,
        }
    }

    async fn next(&mut self, stop: &CancellationToken) -> Event {
        let deadline = self.deadline();
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            (subscription, delay_millis) = released(&mut self.subscriptions) => {
                Event::Released { subscription, delay_millis }
            }
            message = self.socket.next() => Event::Socket(message),
            () = sleep_until(deadline) => Event::Clock,
        }
    }

    /// When the clock next matters.
    fn deadline(&self) -> Instant {
        if !self.client.is_connected() {
            return self.heard_at + self.gate.connect_timeout;
        }
        let silence = match self.beats.expect {
            Some(expect) => self.heard_at + expect * BEAT_TOLERANCE,
            None if self.pinged => self.heard_at + PING_INTERVAL * BEAT_TOLERANCE,
            None => self.heard_at + PING_INTERVAL,
        };
        let beat = self.beats.send.map(|send| self.sent_at + early(send));
        let looks = self
            .subscriptions
            .iter()
            .filter_map(|subscription| match subscription.topic {
                Topic::State { look_at, .. } => Some(look_at),
                Topic::Visitor { .. } => None,
            });
        looks.chain(beat).fold(silence, Instant::min)
    }

    /// Does what is due.
    async fn clock(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if !self.client.is_connected() {
            if now < self.heard_at + self.gate.connect_timeout {
                return Ok(());
            }
            let fault = Fault::policy("no CONNECT frame came in time; send one first");
            return Err(self.refuse(fault, None, End::Silent).await);
        }
        let silent_for = now.duration_since(self.heard_at);
        match self.beats.expect {
            Some(expect) if silent_for >= expect * BEAT_TOLERANCE => {
                self.close(CloseCode::Policy, "no heart-beat came").await;
                return Err(End::Silent);
            }
            None if silent_for >= PING_INTERVAL * BEAT_TOLERANCE => return Err(End::Silent),
            None if silent_for >= PING_INTERVAL && !self.pinged => {
                self.pinged = true;
                self.send(Message::Ping(Bytes::new())).await?;
            }
            _ => {}
        }
        if let Some(send) = self.beats.send
            && now >= self.sent_at + early(send)
        {
            self.send(Message::Text(Utf8Bytes::from_static("\n")))
                .await?;
        }
        self.tell_state(now).await
    }

    async fn read(&mut self, message: Message) -> Result<(), End> {
        if self.client.is_connected() {
            self.heard_at = Instant::now();
            self.pinged = false;
        }
        let bytes = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            // The handshake is the library's; what follows is the end of the stream.
            Message::Close(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                return self.flush().await;
            }
        };
        let mut input = bytes.as_ref();
        loop {
            match self.decoder.decode(&mut input) {
                Ok(None) => return Ok(()),
                Ok(Some(Item::HeartBeat)) => {}
                Ok(Some(Item::Frame(frame))) => self.take(frame).await?,
                Err(error) => {
                    let fault = Fault::protocol(error.to_string());
                    return Err(self.refuse(fault, None, End::Refused).await);
                }
            }
        }
    }

    /// Does what a frame asks for.
    async fn take(&mut self, frame: Frame) -> Result<(), End> {
        let receipt = frame.header("receipt").map(str::to_owned);
        let left = frame.command == Command::Disconnect;
        if let Err(fault) = self.handle(frame).await {
            return Err(self.refuse(fault, receipt, End::Refused).await);
        }
        if let Some(receipt) = receipt.filter(|_| self.client.has_greeted()) {
            self.send_frame(&Frame::new(Command::Receipt).with("receipt-id", receipt))
                .await?;
        }
        if left {
            self.close(CloseCode::Normal, "").await;
            return Err(End::Left);
        }
        // A moderator is told at once how many wait.
        self.tell_state(Instant::now()).await
    }

    async fn tell_live(&mut self, subscription: usize, delay_millis: u32) -> Result<(), End> {
        let Some(Subscription {
            topic: Topic::Visitor {
                conference, told, ..
            },
            ..
        }) = self.subscriptions.get_mut(subscription)
        else {
            return Ok(());
        };
        *told = true;
        let body = message::live(&conference.jid(&self.gate.muc_prefix), delay_millis);
        self.send_message(subscription, body).await
    }

    async fn tell_state(&mut self, now: Instant) -> Result<(), End> {
        for index in 0..self.subscriptions.len() {
            let Topic::State {
                conference,
                told,
                look_at,
            } = &mut self.subscriptions[index].topic
            else {
                continue;
            };
            if *look_at > now {
                continue;
            }
            *look_at = now + self.gate.state_interval;
            let waiting = self.gate.queue.waiting(conference);
            if told.replace(waiting) == Some(waiting) {
                continue;
            }
            let body = message::state(&conference.jid(&self.gate.muc_prefix), waiting);
            self.send_message(index, body).await?;
        }
        Ok(())
    }

    async fn send_message(&mut self, subscription: usize, body: Vec<u8>) -> Result<(), End> {
        let Some(subscription) = self.subscriptions.get(subscription) else {
            return Ok(());
        };
        self.messages += 1;
        let mut frame = Frame::new(Command::Message)
            .with("destination", &subscription.destination)
            .with("message-id", self.messages.to_string())
            .with("subscription", &subscription.id);
        if subscription.acknowledged {
            frame = frame.with("ack", self.messages.to_string());
        }
        self.send_frame(&frame.body(body, "application/json")).await
    }

    async fn send_frame(&mut self, frame: &Frame) -> Result<(), End> {
        // Frames are UTF-8: heads always, and bodies because they are ours.
        match Utf8Bytes::try_from(frame.encode(self.version)) {
            Ok(text) => self.send(Message::Text(text)).await,
            Err(_) => Err(End::Refused),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        self.sent_at = Instant::now();
        match timeout(WRITE_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_) => Err(End::Slow),
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        match timeout(WRITE_TIMEOUT, self.socket.flush()).await {
            // After a close, the end of the stream says so.
            Ok(_) => Ok(()),
            Err(_) => Err(End::Slow),
        }
    }

    /// Tells the client what it did wrong, and hangs up.
    async fn refuse(&mut self, fault: Fault, receipt: Option<String>, end: End) -> End {
        tracing::debug!(reason = fault.message, "refused");
        if fault.code == CloseCode::Again {
            self.close(fault.code, "try again in a moment").await;
            return end;
        }
        let mut frame = Frame::new(Command::Error).with("message", fault.message.clone());
        if let Some(receipt) = receipt {
            frame = frame.with("receipt-id", receipt);
        }
        if let Some((name, value)) = fault.header {
            frame = frame.with(name, value);
        }
        let frame = frame.body(fault.message, "text/plain");
        if let Err(end) = self.send_frame(&frame).await {
            return end;
        }
        self.close(fault.code, "refused; the ERROR frame says why")
            .await;
        end
    }

    /// What the WebSocket layer found wrong.
    async fn broken(&mut self, error: SocketError) -> Result<(), End> {
        let fault = match error {
            SocketError::Capacity(_) => Fault {
                code: CloseCode::Size,
                ..Fault::policy("the message is too large; send smaller ones")
            },
            SocketError::Utf8(_) => {
                Fault::protocol("a text message is not UTF-8; send binary ones".into())
            }
            SocketError::Protocol(_) => Fault::protocol("the WebSocket protocol was broken".into()),
            // The connection is gone.
            _ => return Err(End::Left),
        };
        Err(self.refuse(fault, None, End::Refused).await)
    }

    /// Closes the WebSocket in order, if the client plays along.
    async fn close(&mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame {
            code,
            reason: Utf8Bytes::from_static(reason),
        };
        let handshake = async {
            if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, handshake).await;
    }
}

/// Beats are sent a little early, to be there in time.
fn early(interval: Duration) -> Duration {
    interval - (interval / 10).min(Duration::from_secs(1))
}

/// Waits until one of the visitors among the subscriptions may go in.
async fn released(subscriptions: &mut [Subscription]) -> (usize, u32) {
    let waiting: Vec<_> = subscriptions
        .iter_mut()
        .enumerate()
        .filter_map(|(index, subscription)| match &mut subscription.topic {
            Topic::Visitor {
                waiting,
                told: false,
                ..
            } => Some(Box::pin(async move { (index, waiting.released().await) })),
            _ => None,
        })
        .collect();
    if waiting.is_empty() {
        return std::future::pending().await;
    }
    select_all(waiting).await.0
}
