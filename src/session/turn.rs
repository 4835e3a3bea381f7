//! What a session does in its own time: verifications, its end, and turns. After a bounded amount of work it yields, and
//! a client above its rate pauses. Unfinished frames count against a bound on all of them together.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::poll_fn;
use tokio::time::{Instant, sleep};

use super::action::{Authenticated, Verification};
use super::close::{CloseAction, CloseReason};
use super::error::SessionError;
use super::websocket::{EARLY_MESSAGE_MAX, ProtocolError};
use super::{Event, Pause, Session, State};
use crate::auth::TokenError;

impl Session {
    /// Does what takes time. Returns the end of the session, if it ended.
    pub(super) async fn handle_event(self: &Arc<Self>, mut event: Event) -> Option<CloseReason> {
        loop {
            event = match event {
                Event::Verify(verification, rest) => self.verify(*verification, &rest).await?,
                Event::Turn(pause) => self.next_turn(*pause).await?,
                Event::Close(close) => return Some(self.close(*close).await),
            };
        }
    }

    /// Verifies a token, and handles the rest of its message.
    async fn verify(self: &Arc<Self>, verification: Verification, rest: &[u8]) -> Option<Event> {
        let client = tokio::select! {
            biased;
            client = self.context.authenticate(verification.token()) => client,
            // A key may take long to fetch; a stop does not wait for it.
            close = self.close_requested() => return Some(Event::Close(close)),
        };
        let mut state = self.state();
        let result = self.resume(&mut state, verification, client, rest);
        self.after_message(&mut state, result)
    }

    fn resume(
        self: &Arc<Self>,
        state: &mut State,
        verification: Verification,
        client: Result<Authenticated, TokenError>,
        rest: &[u8],
    ) -> Result<Option<Event>, CloseAction> {
        let env = self.context.env();
        let action = state.protocol.verified(verification, client, &env)?;
        self.perform(state, action)?;
        self.handle_frames(state, rest)
    }

    /// Ends the turn of the session; it continues with the `rest` of its message.
    pub(super) fn end_turn(&self, state: &mut State, rest: Vec<u8>) -> Event {
        match self.settle(state, rest.len()) {
            Ok(pause) => Event::turn(pause, rest),
            Err(close) => close.into(),
        }
    }

    /// Settles the budget of the turn, and counts the bytes that the session keeps. Returns the client's pause.
    pub(super) fn settle(&self, state: &mut State, rest: usize) -> Result<Duration, CloseAction> {
        let now = self.context.timers.units(Instant::now());
        let pause = state.budget.end_turn(now).ok_or(SessionError::TooFast)?;
        self.count_unfinished(state, rest)?;
        Ok(pause)
    }

    /// Counts the bytes of an unfinished frame, and of the `rest` of a message.
    pub(super) fn count_unfinished(
        &self,
        state: &mut State,
        rest: usize,
    ) -> Result<(), CloseAction> {
        let unfinished = state.connection.unfinished_bytes() + state.protocol.unfinished_bytes();
        // A frame that arrives in several messages is in both buffers.
        let is_early = state.protocol.version().is_none();
        if is_early && unfinished > EARLY_MESSAGE_MAX * 3 / 2 {
            return Err(SessionError::from(ProtocolError::TooLarge).into());
        }
        if unfinished + rest == 0 {
            state.unfinished = None;
            return Ok(());
        }
        let counted = state.unfinished.get_or_insert_with(|| {
            let bytes = &self.context.limits.unfinished;
            Box::new(bytes.guard())
        });
        match counted.set(unfinished + rest) {
            true => Ok(()),
            false => Err(SessionError::UnfinishedLimit.into()),
        }
    }

    /// Counts a frame that is no part of CONNECT, if that has not come yet.
    pub(super) fn count_early(state: &mut State) -> Result<(), CloseAction> {
        match state.protocol.version().is_some() || state.budget.spend_early() {
            true => Ok(()),
            false => Err(SessionError::ConnectFirst.into()),
        }
    }

    /// Continues after the turns of other sessions, or after a pause, with the `rest` of the message.
    async fn next_turn(self: &Arc<Self>, Pause { length, rest }: Pause) -> Option<Event> {
        if length.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tracing::debug!(?length, "the client sends too much; it has to pause");
        }
        if let Some(close) = self.pause(length).await {
            return Some(Event::Close(close));
        }
        if rest.is_empty() {
            return None;
        }
        let mut state = self.state();
        let result = self.handle_frames(&mut state, &rest);
        self.after_message(&mut state, result)
    }

    /// Waits for `length`, and until all bytes are sent. Returns a close that is requested meanwhile.
    async fn pause(&self, length: Duration) -> Option<Box<CloseAction>> {
        let mut timer = (!length.is_zero()).then(|| Box::pin(sleep(length)));
        poll_fn(|context| {
            self.task.register(context.waker());
            let mut state = self.state();
            if let Some(close) = state.close.take() {
                return Poll::Ready(Some(close));
            }
            let sent = state.connection.poll_flush(context);
            if let Poll::Ready(Err(_)) = sent {
                let lost = CloseAction::Abort(CloseReason::Left);
                return Poll::Ready(Some(Box::new(lost)));
            }
            if let Some(running) = &mut timer {
                if Pin::new(running).poll(context).is_pending() {
                    return Poll::Pending;
                }
                timer = None;
            }
            sent.map(|_| None)
        })
        .await
    }
}
