//! Why and how a session ends.

use std::task::Poll;
use std::time::Duration;

use futures_util::future::poll_fn;
use tokio::time::timeout;
use tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};

use super::bounds;
use super::error::{Refusal, SessionError};
use super::websocket::close_payload;
use super::{Session, State};
use crate::metrics;

/// Longest close handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client disconnected, closed the WebSocket, or lost its connection.
    Left,
    /// The client violated the protocol or a rule, and received the reason.
    Refused,
    /// The client was silent for too long.
    Silent,
    /// The client does not read.
    Slow,
    /// usher stops.
    Stopped,
}

impl CloseReason {
    /// The label `reason` of `usher_sessions_ended_total`.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Stopped => "stopped",
        }
    }
}

/// How a session ends.
#[derive(Debug)]
pub(super) enum CloseAction {
    /// Nothing can be sent any more.
    Abort(CloseReason),
    /// The client closed the WebSocket, with this code.
    Answer(Option<CloseCode>),
    /// The client receives an ERROR frame, and then a close.
    Refuse(Refusal),
    /// The client receives a close.
    Close(CloseCode, &'static str, CloseReason),
}

impl CloseAction {
    /// Jitsi Meet's client reconnects after this close.
    pub(super) fn stop() -> Self {
        let text = "usher restarts; come back";
        Self::Close(CloseCode::Restart, text, CloseReason::Stopped)
    }

    pub(super) fn reason(&self) -> CloseReason {
        match self {
            Self::Abort(reason) | Self::Close(_, _, reason) => *reason,
            Self::Answer(_) => CloseReason::Left,
            Self::Refuse(refusal) => match refusal.error {
                SessionError::ConnectTimeout => CloseReason::Silent,
                _ => CloseReason::Refused,
            },
        }
    }
}

impl From<Refusal> for CloseAction {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl From<SessionError> for CloseAction {
    fn from(error: SessionError) -> Self {
        Self::Refuse(error.into())
    }
}

impl Session {
    /// Makes the session's task close the session. The first request counts.
    pub(super) fn request_close(&self, state: &mut State, close: CloseAction) {
        if state.close.is_none() {
            state.close = Some(Box::new(close));
            self.task.wake();
        }
    }

    /// Closes the session when usher stops.
    pub(super) fn stop(&self) {
        self.request_close(&mut self.state(), CloseAction::stop());
    }

    pub(super) async fn close_requested(&self) -> Box<CloseAction> {
        poll_fn(|context| {
            self.task.register(context.waker());
            self.state().close.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Closes the session, with a close handshake if the client takes part in it.
    pub(super) async fn close(&self, close: CloseAction) -> CloseReason {
        let reason = close.reason();
        match close {
            CloseAction::Abort(_) => {}
            CloseAction::Answer(code) => {
                self.send_close(&code.map_or_else(Vec::new, |code| close_payload(code, "")));
                let sent = poll_fn(|context| self.state().connection.poll_flush(context));
                let _ = timeout(CLOSE_TIMEOUT, sent).await;
            }
            CloseAction::Refuse(refusal) => {
                tracing::debug!(reason = %refusal.error, "refused");
                metrics::frame_refused(refusal.error.code());
                if let Some(bound) = refusal.error.bound() {
                    bounds::met(bound, None);
                }
                if let SessionError::Token(error) = &refusal.error {
                    metrics::token_refused("queue", error.code());
                }
                let payload = close_payload(refusal.error.close_code(), refusal.close_text());
                if let Some(frame) = refusal.frame() {
                    self.send_frame(&mut self.state(), &frame);
                }
                self.close_handshake(&payload).await;
            }
            CloseAction::Close(code, text, _) => {
                self.close_handshake(&close_payload(code, text)).await;
            }
        }
        reason
    }

    async fn close_handshake(&self, payload: &[u8]) {
        self.send_close(payload);
        let mut frames = 0;
        let closed = poll_fn(|context| self.state().connection.poll_close(context, &mut frames));
        let _ = timeout(CLOSE_TIMEOUT, closed).await;
    }

    /// Sends a close frame, behind which nothing may follow.
    fn send_close(&self, payload: &[u8]) {
        let mut state = self.state();
        self.send(&mut state, OpCode::Control(Control::Close), payload);
        state.protocol.close();
    }
}
