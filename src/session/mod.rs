//! One STOMP session: its states, what happens to it, its reasons to end.
//!
//! A session is a conversation on a WebSocket that somebody else has opened: it reads frames, subscribes to
//! the queue, and tells what it is told. It ends with an ERROR frame that says why where the client did
//! wrong, and with a WebSocket close alone where we leave: Jitsi Meet gives up for good after a few ERRORs.
//!
//! Nearly all its life a session waits, and there are thousands of it. So what it keeps meanwhile is this
//! struct, a task that is as small as a task can be ([`Session::run`] reads, and does what takes longer in
//! boxes that are gone afterwards), and its place in the queue. There is no buffer: bytes are read onto the
//! stack, and kept only if they are no whole frame (`Unread`), or if the client does not take what it is sent
//! (`Unsent`). There is no timer: [`TimerWheel`] looks at each session when its time has come. And nobody wakes
//! its task to tell it something: whoever has news, the queue or the clock, writes it to the socket.

mod commands;
mod destination;
pub mod limits;
mod subscription;
mod timer;
pub mod timer_wheel;
mod websocket;

use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::poll_fn;
use futures_util::task::AtomicWaker;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::auth::Verifier;
use crate::metrics;
use crate::queue::{Queue, Subscriber, message};
use crate::stomp::negotiate::HeartBeat;
use crate::stomp::{Command, Decoder, Frame, Item, Limits, Version};
use commands::{Client, Fault};
use limits::{ConnectionLimits, LimitGuard};
use subscription::{Subscription, Topic};
use timer_wheel::{Slot, TimerWheel};
use websocket::{Breach, Inbox, Incoming, close_payload, write_frame};

/// What may wait to be written to a client, in bytes, before it is dropped.
const UNSENT_MAX: usize = 256 * 1024;
/// How long the close handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What is read at a time, on the stack.
const READ_BYTES: usize = 4096;

/// What all sessions share.
#[derive(Debug)]
pub struct SessionContext {
    /// The queue.
    pub queue: Queue,
    /// Checks tokens.
    pub verifier: Verifier,
    /// `xmpp.domain`.
    pub domain: Arc<str>,
    /// How often moderators are told how many wait.
    pub state_interval: Duration,
    /// How often a heart-beat is sent, and wanted.
    pub heart_beat: Duration,
    /// How long a client may take to its CONNECT frame.
    pub connect_timeout: Duration,
    /// How many may watch with one token.
    pub max_per_token: u32,
    /// How many connections may be open from one address.
    pub max_per_address: u32,
    /// `xmpp.muc_prefix`.
    pub muc_prefix: String,
    /// How many of each there are.
    pub tallies: ConnectionLimits,
    /// The sessions' clock.
    pub rounds: Arc<TimerWheel>,
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

impl End {
    /// One word for it.
    fn word(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Stopped => "stopped",
        }
    }
}

/// How a session is to end.
#[derive(Debug)]
enum Ending {
    /// There is nobody left to talk to.
    Gone(End),
    /// The client closes, with this code.
    Closed(Option<CloseCode>),
    /// The client is told what it did wrong.
    Refuse(Fault, End),
    /// We close.
    Close(CloseCode, &'static str, End),
}

impl Ending {
    fn stop() -> Self {
        Self::Close(
            CloseCode::Restart,
            "usher restarts; come back",
            End::Stopped,
        )
    }
}

/// What happened that takes a while to deal with.
enum Event {
    Message(Vec<u8>),
    Ending(Box<Ending>),
}

/// Bytes that came and are no whole message, or no whole frame.
#[derive(Debug, Default)]
struct Unread {
    inbox: Inbox,
    /// The STOMP frame that goes on in the next message.
    decoder: Option<Decoder>,
}

/// Bytes that the client's end of the connection has no room for.
#[derive(Debug)]
struct Unsent {
    bytes: Vec<u8>,
    since: Instant,
}

/// A session. It is shared: its task reads, and the queue and the clock write.
pub struct Session {
    stream: TcpStream,
    gate: Arc<SessionContext>,
    /// The session's task, to be woken when it has to end, or to write what the socket did not take.
    task: AtomicWaker,
    state: Mutex<State>,
}

/// Locked for moments only, and before the queue if both are.
struct State {
    client: Client,
    version: Version,
    /// A frame is being dealt with: silence is not the client's then.
    busy: bool,
    /// A close frame was sent; nothing may follow it.
    closed: bool,
    pinged: bool,
    subscriptions: Vec<Subscription>,
    beats: HeartBeat,
    /// When something was last sent, and heard.
    sent_at: Instant,
    heard_at: Instant,
    messages: u32,
    seats: u32,
    unread: Option<Box<Unread>>,
    unsent: Option<Box<Unsent>>,
    ending: Option<Box<Ending>>,
    /// When the clock looks at this session.
    slot: Slot,
}

impl State {
    /// The version that CONNECT settled, once it did.
    fn agreed_version(&self) -> Option<Version> {
        self.client.is_connected().then_some(self.version)
    }
}

impl Session {
    /// A session on an open WebSocket, of which `begun` was read already; `caller` is the client's address, `None`
    /// for the loopback.
    #[must_use]
    pub fn begin(
        stream: TcpStream,
        begun: &[u8],
        gate: &Arc<SessionContext>,
        caller: Option<LimitGuard<IpAddr>>,
    ) -> Arc<Self> {
        let now = Instant::now();
        let unread = (!begun.is_empty()).then(|| {
            let mut unread = Box::<Unread>::default();
            unread.inbox.push(begun);
            unread
        });
        let session = Arc::new(Self {
            stream,
            gate: Arc::clone(gate),
            task: AtomicWaker::new(),
            state: Mutex::new(State {
                client: Client::new(caller),
                version: Version::V10,
                busy: false,
                closed: false,
                pinged: false,
                subscriptions: Vec::new(),
                beats: HeartBeat {
                    send: None,
                    expect: None,
                },
                sent_at: now,
                heard_at: now,
                messages: 0,
                seats: 0,
                unread,
                unsent: None,
                ending: None,
                slot: Slot::NEVER,
            }),
        });
        session.schedule(&mut session.state());
        metrics::session_opened();
        session
    }

    /// Runs the session until it ends.
    pub async fn run(self: Arc<Self>) -> End {
        // What takes a while is put in a box: a task is as large as the largest thing it ever waits for, and
        // nearly all its life it waits for something to read.
        loop {
            let went_on = match poll_fn(|context| self.poll(context)).await {
                Event::Message(message) => Box::pin(self.read(message)).await,
                Event::Ending(ending) => Err(Box::pin(self.end(*ending)).await),
            };
            if let Err(end) = went_on {
                // Others may hold the session for a moment longer; its places in the line are free now.
                let mut state = self.state();
                state.subscriptions.clear();
                self.gate.rounds.remove(state.slot, &self);
                state.slot = Slot::NEVER;
                metrics::session_ended(end.word());
                return end;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock panics; if it did, the state is still the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits to be written, and reads, until something happens.
    fn poll(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<Event> {
        self.task.register(context.waker());
        let mut state = self.state();
        if let Some(ending) = state.ending.take() {
            return Poll::Ready(Event::Ending(ending));
        }
        // Who doesn't take what it is sent is not listened to either.
        match self.poll_flush(&mut state, context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => {
                return Poll::Ready(Event::Ending(Box::new(Ending::Gone(End::Left))));
            }
            // What the queue sent is unsent: the clock is to look in time whether it still is.
            Poll::Pending => {
                self.schedule(&mut state);
                return Poll::Pending;
            }
        }
        loop {
            match self.receive(&mut state) {
                Ok(Some(event)) => return Poll::Ready(event),
                Ok(None) => {}
                Err(ending) => return Poll::Ready(Event::Ending(Box::new(ending))),
            }
            if state.unsent.is_some() {
                // A pong did not go out; it does before more is read.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let readable = ready!(self.stream.poll_read_ready(context));
            if readable.and_then(|()| self.fetch(&mut state)).is_err() {
                return Poll::Ready(Event::Ending(Box::new(Ending::Gone(End::Left))));
            }
        }
    }

    /// Reads once from the socket.
    fn fetch(&self, state: &mut State) -> std::io::Result<()> {
        let mut buffer = [0; READ_BYTES];
        match self.stream.try_read(&mut buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                let unread = state.unread.get_or_insert_default();
                unread.inbox.push(&buffer[..read]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes what was read to the next message that says something.
    fn receive(&self, state: &mut State) -> Result<Option<Event>, Ending> {
        while let Some(unread) = &mut state.unread {
            let incoming = unread.inbox.next().map_err(broken)?;
            let between_frames = unread.decoder.is_none();
            if unread.inbox.is_empty() && between_frames {
                state.unread = None;
            }
            let Some(incoming) = incoming else {
                return Ok(None);
            };
            if state.client.is_connected() {
                state.heard_at = Instant::now();
                state.pinged = false;
            }
            match incoming {
                Incoming::Message(payload) if between_frames && is_heart_beat(&payload) => {}
                Incoming::Message(payload) => {
                    state.busy = true;
                    return Ok(Some(Event::Message(payload)));
                }
                Incoming::Ping(payload) => {
                    self.send(state, OpCode::Control(Control::Pong), &payload);
                }
                Incoming::Pong => {}
                Incoming::Close(code) => return Err(Ending::Closed(code)),
            }
        }
        Ok(None)
    }

    /// Does what a message asks for.
    async fn read(self: &Arc<Self>, message: Vec<u8>) -> Result<(), End> {
        let result = tokio::select! {
            biased;
            result = self.decode(&message) => result,
            // A token's key may take long to come; a stop does not wait for it.
            ending = self.ending() => Err(ending),
        };
        self.settle();
        match result {
            Ok(()) => Ok(()),
            Err(ending) => Err(self.end(ending).await),
        }
    }

    /// Waits until something ends the session.
    async fn ending(&self) -> Ending {
        poll_fn(|context| {
            self.task.register(context.waker());
            match self.state().ending.take() {
                Some(ending) => Poll::Ready(*ending),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// What follows from every message.
    fn settle(self: &Arc<Self>) {
        let mut state = self.state();
        state.busy = false;
        let now = Instant::now();
        if state.client.is_connected() {
            state.heard_at = now;
        }
        // A moderator is told at once how many wait.
        self.tell_state(&mut state, now);
        self.schedule(&mut state);
    }

    async fn decode(self: &Arc<Self>, message: &[u8]) -> Result<(), Ending> {
        let kept = {
            let mut state = self.state();
            let unread = state.unread.as_mut();
            unread.and_then(|unread| unread.decoder.take())
        };
        let mut decoder = kept.unwrap_or_else(|| Decoder::new(Limits::default()));
        let mut input = message;
        loop {
            // CONNECT settles the version of what follows it, in the same message, too.
            if let Some(version) = self.state().agreed_version() {
                decoder.set_version(version);
            }
            match decoder.decode(&mut input) {
                Ok(None) => break,
                Ok(Some(Item::HeartBeat)) => {}
                Ok(Some(Item::Frame(frame))) => self.take(frame).await?,
                Err(error) => {
                    let fault = Fault::protocol(error.to_string());
                    return Err(Ending::Refuse(fault, End::Refused));
                }
            }
        }
        let mut state = self.state();
        if decoder.is_inside_frame() {
            state.unread.get_or_insert_default().decoder = Some(decoder);
        } else if state
            .unread
            .as_ref()
            .is_some_and(|unread| unread.inbox.is_empty())
        {
            state.unread = None;
        }
        Ok(())
    }

    /// Does what a frame asks for.
    async fn take(self: &Arc<Self>, frame: Frame) -> Result<(), Ending> {
        let receipt = frame.header("receipt").map(str::to_owned);
        let left = frame.command == Command::Disconnect;
        if let Err(fault) = self.handle(frame).await {
            return Err(Ending::Refuse(Fault { receipt, ..fault }, End::Refused));
        }
        let mut state = self.state();
        if let Some(receipt) = receipt.filter(|_| state.client.has_greeted()) {
            let frame = Frame::new(Command::Receipt).with("receipt-id", receipt);
            self.send_frame(&mut state, &frame);
        }
        if left {
            return Err(Ending::Close(CloseCode::Normal, "", End::Left));
        }
        self.tell_at_once(&mut state);
        Ok(())
    }

    /// Lets those in who do not have to wait.
    fn tell_at_once(&self, state: &mut State) {
        let at_once = |subscription: &Subscription| match &subscription.topic {
            Topic::Visitor {
                seat,
                waiting,
                told,
                ..
            } if !told => {
                let delay_millis = waiting.immediate_release()?;
                let jid = waiting.conference().jid(&self.gate.muc_prefix);
                Some((*seat, message::live(&jid, delay_millis)))
            }
            _ => None,
        };
        let news: Vec<_> = state.subscriptions.iter().filter_map(at_once).collect();
        for (seat, body) in news {
            self.tell_visitor(state, seat, &body);
        }
    }

    fn tell_visitor(&self, state: &mut State, number: u32, body: &[u8]) {
        let mine = |subscription: &Subscription| matches!(&subscription.topic, Topic::Visitor { seat, told: false, .. } if *seat == number);
        // Who unsubscribed meanwhile doesn't want to know.
        let Some(index) = state.subscriptions.iter().position(mine) else {
            return;
        };
        if let Topic::Visitor { told, .. } = &mut state.subscriptions[index].topic {
            *told = true;
        }
        self.send_message(state, index, body);
    }

    fn tell_state(&self, state: &mut State, now: Instant) {
        for index in 0..state.subscriptions.len() {
            let Topic::State(watch) = &mut state.subscriptions[index].topic else {
                continue;
            };
            if watch.look_at > now {
                continue;
            }
            watch.look_at = now + self.gate.state_interval;
            let waiting = self.gate.queue.waiting(&watch.conference);
            if watch.told.replace(waiting) == Some(waiting) {
                continue;
            }
            let body = message::state(&watch.conference.jid(&self.gate.muc_prefix), waiting);
            self.send_message(state, index, &body);
        }
    }

    fn send_message(&self, state: &mut State, index: usize, body: &[u8]) {
        let Some(subscription) = state.subscriptions.get(index) else {
            return;
        };
        state.messages += 1;
        let frame = subscription.message(state.messages, body);
        self.send(state, OpCode::Data(Data::Text), &frame);
    }

    /// Frames are text: their heads are UTF-8 always, and their bodies because they are ours.
    fn send_frame(&self, state: &mut State, frame: &Frame) {
        self.send(
            state,
            OpCode::Data(Data::Text),
            &frame.encode(state.version),
        );
    }

    /// Writes to the socket what it takes, and keeps the rest until it takes more.
    fn send(&self, state: &mut State, opcode: OpCode, payload: &[u8]) {
        if state.closed {
            return;
        }
        state.closed = matches!(opcode, OpCode::Control(Control::Close));
        state.sent_at = Instant::now();
        let mut bytes = Vec::new();
        write_frame(opcode, payload, &mut bytes);
        if let Some(unsent) = &mut state.unsent {
            if unsent.bytes.len() + bytes.len() > UNSENT_MAX {
                self.end_soon(state, Ending::Gone(End::Slow));
            } else {
                unsent.bytes.extend_from_slice(&bytes);
            }
            return;
        }
        let written = match self.stream.try_write(&bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return self.end_soon(state, Ending::Gone(End::Left)),
        };
        if written < bytes.len() {
            bytes.drain(..written);
            state.unsent = Some(Box::new(Unsent {
                bytes,
                since: state.sent_at,
            }));
            self.task.wake();
        }
    }

    fn poll_flush(
        &self,
        state: &mut State,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        while let Some(unsent) = &mut state.unsent {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write(&unsent.bytes) {
                Ok(written) if written == unsent.bytes.len() => state.unsent = None,
                Ok(written) => {
                    unsent.bytes.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Has the session's task end it. The first reason counts.
    fn end_soon(&self, state: &mut State, ending: Ending) {
        if state.ending.is_none() {
            state.ending = Some(Box::new(ending));
            self.task.wake();
        }
    }

    /// Ends the session, in order if the client plays along.
    async fn end(&self, ending: Ending) -> End {
        match ending {
            Ending::Gone(end) => end,
            Ending::Closed(code) => {
                let payload = code.map_or_else(Vec::new, |code| close_payload(code, ""));
                self.send(&mut self.state(), OpCode::Control(Control::Close), &payload);
                let flushed = poll_fn(|context| self.poll_flush(&mut self.state(), context));
                let _ = timeout(CLOSE_TIMEOUT, flushed).await;
                End::Left
            }
            Ending::Refuse(fault, end) => {
                self.refuse(fault).await;
                end
            }
            Ending::Close(code, reason, end) => {
                self.close(code, reason).await;
                end
            }
        }
    }

    /// Tells the client what it did wrong, and hangs up.
    async fn refuse(&self, fault: Fault) {
        tracing::debug!(reason = fault.message, "refused");
        metrics::frame_refused(fault.reason);
        if fault.code == CloseCode::Again {
            return self.close(fault.code, "try again in a moment").await;
        }
        let mut frame = Frame::new(Command::Error).with("message", fault.message.clone());
        if let Some(receipt) = fault.receipt {
            frame = frame.with("receipt-id", receipt);
        }
        if let Some((name, value)) = fault.header {
            frame = frame.with(name, value);
        }
        self.send_frame(&mut self.state(), &frame.body(fault.message, "text/plain"));
        self.close(fault.code, "refused; the ERROR frame says why")
            .await;
    }

    /// Closes the WebSocket, and waits for the client to do the same.
    async fn close(&self, code: CloseCode, reason: &'static str) {
        let payload = close_payload(code, reason);
        self.send(&mut self.state(), OpCode::Control(Control::Close), &payload);
        let closed = poll_fn(|context| {
            let mut state = self.state();
            if ready!(self.poll_flush(&mut state, context)).is_err() {
                return Poll::Ready(());
            }
            loop {
                if state
                    .unread
                    .as_mut()
                    .is_some_and(|unread| hears_close(&mut unread.inbox))
                {
                    return Poll::Ready(());
                }
                let readable = ready!(self.stream.poll_read_ready(context));
                if readable.and_then(|()| self.fetch(&mut state)).is_err() {
                    return Poll::Ready(());
                }
            }
        });
        let _ = timeout(CLOSE_TIMEOUT, closed).await;
    }
}

impl Subscriber for Session {
    fn notify(&self, seat: u32, body: &[u8]) {
        self.tell_visitor(&mut self.state(), seat, body);
    }
}

/// Without what it holds: that may be a token.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// What the WebSocket layer found wrong.
fn broken(breach: Breach) -> Ending {
    let (code, reason) = match breach {
        Breach::Protocol(_) => (CloseCode::Protocol, "protocol"),
        Breach::Utf8 => (CloseCode::Invalid, "protocol"),
        Breach::TooLarge => (CloseCode::Size, "too_large"),
    };
    let fault = Fault {
        code,
        reason,
        ..Fault::policy(breach.to_string())
    };
    Ending::Refuse(fault, End::Refused)
}

/// Whether a client that was told that we close has closed, too. What else it says is not heard any more.
fn hears_close(inbox: &mut Inbox) -> bool {
    loop {
        match inbox.next() {
            Ok(Some(Incoming::Close(_))) => return true,
            Ok(Some(_)) => {}
            Ok(None) => return false,
            // It can't be understood; the end of the connection can.
            Err(_) => {
                *inbox = Inbox::default();
                return false;
            }
        }
    }
}

/// Whether this is nothing but ends of lines.
fn is_heart_beat(payload: &[u8]) -> bool {
    payload.iter().all(|octet| matches!(octet, b'\n' | b'\r'))
}

#[cfg(test)]
mod tests;
