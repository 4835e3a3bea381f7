//! Sessions: a WebSocket, and the STOMP conversation of a visitor or moderator on it.
//!
//! | module | owns |
//! | --- | --- |
//! | `websocket`, `connection` | framing (sans I/O); the socket and its buffers |
//! | `commands`, `subscription` | the frames of a client; what it subscribed to |
//! | `protocol`, `connected`, `action` | the state machine (sans I/O); its state after CONNECT; what it asks of the session |
//! | `budget`, `turn` | how much work a client may cause (pure); turns and pauses |
//! | [`runtime`] | the threads of the sessions |
//! | `timer`, [`timer_wheel`] | the deadlines of a session (pure); one task for all of them |
//! | `error`, `close` | violations and their ERROR texts; how a session ends |
//! | `destination`, [`limits`], [`bounds`] | names of topics; limits per address and token; what is reported of them |
//!
//! Sessions are idle most of the time, so they are kept small: no read buffer, no timer, no channel. A notification is
//! written to the socket by the task that sends it. The session's own task only reads, verifies tokens and closes; its
//! longer parts are boxed, so that an idle task is small.

mod action;
pub mod bounds;
mod budget;
mod close;
mod commands;
mod connected;
mod connection;
mod context;
mod destination;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod limits;
mod protocol;
pub mod runtime;
mod subscription;
mod timer;
pub mod timer_wheel;
mod turn;
mod websocket;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::poll_fn;
use futures_util::task::AtomicWaker;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::metrics;
use crate::queue::{Subscriber, SubscriberRef, message};
use crate::stomp::{Frame, Version};
use action::{Action, Join, Verification};
use budget::Budget;
use close::CloseAction;
pub use close::CloseReason;
use connection::{Connection, Sent};
pub use context::SessionContext;
use destination::Destination;
use error::SessionError;
use limits::{ByteGuard, ClientAddress, LimitGuard};
use protocol::Protocol;
use subscription::Topic;
use timer_wheel::Slot;
use websocket::WsMessage;

/// A session. Its task reads; the queue and the timer wheel write.
pub struct Session {
    context: Arc<SessionContext>,
    /// Wakes the session's task, to close the session or to write what the socket did not accept.
    task: AtomicWaker,
    state: Mutex<State>,
}

/// Locked for moments only, and before the queue if both are.
struct State {
    connection: Connection,
    protocol: Protocol,
    sent_at: Slot,
    received_at: Slot,
    close: Option<Box<CloseAction>>,
    /// The session's place in the timer wheel.
    slot: Slot,
    /// The client's address, counted; `None` for the loopback.
    client_address: Option<LimitGuard<ClientAddress>>,
    budget: Budget,
    /// Counts the bytes of an unfinished frame.
    unfinished: Option<Box<ByteGuard>>,
}

/// What takes time, and is left to the session's task.
enum Event {
    /// Verify a token; the bytes are the rest of its message.
    Verify(Box<Verification>, Vec<u8>),
    /// Yield to other sessions, or pause, and continue with the rest of the message.
    Turn(Box<Pause>),
    Close(Box<CloseAction>),
}

/// Boxed like the others: each task has room for one event.
struct Pause {
    length: Duration,
    /// The rest of the message.
    rest: Vec<u8>,
}

impl Event {
    fn turn(length: Duration, rest: Vec<u8>) -> Self {
        Self::Turn(Box::new(Pause { length, rest }))
    }
}

impl From<CloseAction> for Event {
    fn from(close: CloseAction) -> Self {
        Self::Close(Box::new(close))
    }
}

impl Session {
    /// Starts a session on a WebSocket after its handshake; `received` are the bytes that arrived behind it.
    #[must_use]
    pub fn begin(
        stream: TcpStream,
        received: &[u8],
        context: &Arc<SessionContext>,
        client_address: Option<LimitGuard<ClientAddress>>,
    ) -> Arc<Self> {
        let now = context.timers.current(Instant::now());
        let session = Arc::new(Self {
            context: Arc::clone(context),
            task: AtomicWaker::new(),
            state: Mutex::new(State {
                connection: Connection::new(stream, received),
                protocol: Protocol::default(),
                sent_at: now,
                received_at: now,
                close: None,
                slot: Slot::NEVER,
                client_address,
                budget: Budget::default(),
                unfinished: None,
            }),
        });
        session.arm_timer(&mut session.state());
        metrics::session_opened();
        session
    }

    /// Runs the session until it ends.
    pub async fn run(self: Arc<Self>) -> CloseReason {
        loop {
            let event = poll_fn(|context| self.poll_event(context)).await;
            // A task is as large as its largest future, so this one is boxed.
            let Some(reason) = Box::pin(self.handle_event(event)).await else {
                continue;
            };
            let mut state = self.state();
            state.protocol.close();
            self.context.timers.remove(state.slot, &self);
            state.slot = Slot::NEVER;
            metrics::session_ended(reason.code());
            return reason;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; after a panic the state would still be usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends, reads and handles messages, until something takes time.
    fn poll_event(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<Event> {
        self.task.register(context.waker());
        let mut state = self.state();
        let lost = || Poll::Ready(CloseAction::Abort(CloseReason::Left).into());
        loop {
            if let Some(close) = state.close.take() {
                return Poll::Ready(Event::Close(close));
            }
            // usher does not read from a client that does not read.
            match state.connection.poll_flush(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return lost(),
                Poll::Pending => {
                    self.arm_timer(&mut state);
                    return Poll::Pending;
                }
            }
            match self.handle_messages(&mut state) {
                Ok(Some(event)) => return Poll::Ready(event),
                Ok(None) if state.is_blocked() => continue,
                Ok(None) if state.budget.is_turn_over() => {
                    return Poll::Ready(self.end_turn(&mut state, Vec::new()));
                }
                Ok(None) => {}
                Err(close) => return Poll::Ready(close.into()),
            }
            match state.connection.poll_read(context) {
                Poll::Ready(Ok(())) => state.budget.spend(1),
                Poll::Ready(Err(_)) => return lost(),
                Poll::Pending => {
                    return match self.settle(&mut state, 0) {
                        Ok(Duration::ZERO) => Poll::Pending,
                        Ok(pause) => Poll::Ready(Event::turn(pause, Vec::new())),
                        Err(close) => Poll::Ready(close.into()),
                    };
                }
            }
        }
    }

    /// Handles the messages that have arrived whole.
    fn handle_messages(self: &Arc<Self>, state: &mut State) -> Result<Option<Event>, CloseAction> {
        while !state.is_blocked() && !state.budget.is_turn_over() {
            let max = state.protocol.message_max();
            let next = state.connection.next_message(max);
            let (message, frames) = next.map_err(SessionError::from)?;
            state.budget.spend(frames);
            let Some(message) = message else {
                return Ok(None);
            };
            if state.protocol.mark_active() {
                state.received_at = self.context.timers.current(Instant::now());
            }
            match message {
                WsMessage::Data(bytes)
                    if state.protocol.is_between_frames() && is_heart_beat(&bytes) =>
                {
                    Self::count_early(state)?;
                }
                WsMessage::Data(bytes) => {
                    let result = self.handle_frames(state, &bytes);
                    if let Some(event) = self.after_message(state, result) {
                        return Ok(Some(event));
                    }
                }
                WsMessage::Ping(bytes) => {
                    Self::count_early(state)?;
                    self.send(state, OpCode::Control(Control::Pong), &bytes);
                }
                WsMessage::Pong => Self::count_early(state)?,
                WsMessage::Close(code) => return Err(CloseAction::Answer(code)),
            }
        }
        Ok(None)
    }

    /// Handles the STOMP frames of a message, until one takes time.
    fn handle_frames(
        self: &Arc<Self>,
        state: &mut State,
        message: &[u8],
    ) -> Result<Option<Event>, CloseAction> {
        let (env, mut rest) = (self.context.env(), message);
        while let Some(action) = state.protocol.receive(&mut rest, &env)? {
            state.budget.spend(1);
            if let Some(verification) = self.perform(state, action)? {
                state.budget.spend(budget::VERIFICATION);
                self.count_unfinished(state, rest.len())?;
                return Ok(Some(Event::Verify(verification, rest.to_vec())));
            }
            if state.budget.is_turn_over() && !rest.is_empty() {
                return Ok(Some(self.end_turn(state, rest.to_vec())));
            }
        }
        Ok(None)
    }

    /// Performs an action; a verification is returned, because it takes time.
    fn perform(
        self: &Arc<Self>,
        state: &mut State,
        action: Action,
    ) -> Result<Option<Box<Verification>>, CloseAction> {
        match action {
            Action::Done => {}
            Action::Send(frame) => self.send_frame(state, &frame),
            Action::Verify(verification) => return Ok(Some(Box::new(verification))),
            Action::Join(destination, join) => self.join(state, destination, join)?,
            Action::Disconnect(receipt) => {
                if let Some(receipt) = receipt {
                    self.send_frame(state, &receipt);
                }
                let (code, reason) = (CloseCode::Normal, CloseReason::Left);
                return Err(CloseAction::Close(code, "", reason));
            }
        }
        Ok(None)
    }

    fn join(
        self: &Arc<Self>,
        state: &mut State,
        destination: Destination,
        join: Join,
    ) -> Result<(), CloseAction> {
        let number = join.number;
        let subscriber: Weak<Self> = Arc::downgrade(self);
        let subscriber = SubscriberRef {
            subscriber,
            subscription: number,
        };
        let address = state.client_address.as_ref().map(LimitGuard::key);
        let joined = match join.same_as {
            // The place in the line is the one that the visitor has.
            Some(number) => Ok(Topic::Also {
                number,
                is_released: false,
            }),
            None => self.context.join(destination, &join, address, subscriber),
        };
        let topic = match joined {
            Ok(topic) => topic,
            Err(error) => return Err(join.refuse(error).into()),
        };
        let released = self.immediate_release(state, &topic);
        let number = join.same_as.unwrap_or(number);
        if let Some(receipt) = state.protocol.subscribed(join, topic) {
            self.send_frame(state, &receipt);
        }
        if let Some(json) = released {
            self.release(state, number, &json);
        }
        Ok(())
    }

    /// The message to a visitor who does not have to wait.
    fn immediate_release(&self, state: &State, topic: &Topic) -> Option<Vec<u8>> {
        let (conference, delay_millis) = match topic {
            Topic::Visitor { ticket, .. } => (ticket.conference(), ticket.immediate_release()?),
            Topic::Also { number, .. } => (state.protocol.released(*number)?, 0),
            Topic::State(_) => return None,
        };
        let jid = conference.jid(&self.context.xmpp.muc_prefix);
        Some(message::live(&jid, delay_millis))
    }

    fn release(&self, state: &mut State, number: u32, json: &[u8]) {
        while let Some(message) = state.protocol.release(number, json) {
            self.send(state, OpCode::Data(Data::Text), &message);
        }
    }

    /// Sends what is due after each message, and sets the timer. It waits until a verification has ended.
    fn after_message(
        self: &Arc<Self>,
        state: &mut State,
        result: Result<Option<Event>, CloseAction>,
    ) -> Option<Event> {
        if !matches!(result, Ok(Some(_))) {
            let now = Instant::now();
            if state.protocol.mark_active() {
                state.received_at = self.context.timers.current(now);
            }
            // A moderator receives the number of waiting visitors at once.
            self.send_state_updates(state, now);
            self.arm_timer(state);
        }
        result.unwrap_or_else(|close| Some(close.into()))
    }

    fn send_state_updates(&self, state: &mut State, now: Instant) {
        let SessionContext {
            queue,
            xmpp,
            settings,
            ..
        } = &*self.context;
        let (interval, count) = (settings.state_interval, |it: &_| queue.waiting(it));
        let prefix = &xmpp.muc_prefix;
        for message in state.protocol.state_updates(now, interval, count, prefix) {
            self.send(state, OpCode::Data(Data::Text), &message);
        }
    }

    /// Frames are sent as text: their headers are UTF-8, and the server's bodies are too.
    fn send_frame(&self, state: &mut State, frame: &Frame) {
        let version = state.protocol.version().unwrap_or(Version::V10);
        self.send(state, OpCode::Data(Data::Text), &frame.encode(version));
    }

    fn send(&self, state: &mut State, opcode: OpCode, payload: &[u8]) {
        if state.protocol.is_closed() {
            return;
        }
        let now = Instant::now();
        state.sent_at = self.context.timers.current(now);
        match state.connection.send(opcode, payload, now) {
            Sent::Ok => {}
            Sent::Blocked => self.task.wake(),
            Sent::Overflow => self.request_close(state, CloseAction::Abort(CloseReason::Slow)),
            Sent::Lost => self.request_close(state, CloseAction::Abort(CloseReason::Left)),
        }
    }
}

impl State {
    /// Whether nothing may be read: the client reads nothing, or the session is to close.
    fn is_blocked(&self) -> bool {
        self.close.is_some() || self.connection.unsent_since().is_some()
    }
}

impl Subscriber for Session {
    fn notify(&self, subscription: u32, body: &[u8]) {
        self.release(&mut self.state(), subscription, body);
    }
}

/// Without its content: that may be a token.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Whether a message consists of ends of lines.
fn is_heart_beat(message: &[u8]) -> bool {
    message.iter().all(|octet| matches!(octet, b'\n' | b'\r'))
}

#[cfg(test)]
mod tests;
