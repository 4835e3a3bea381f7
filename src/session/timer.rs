//! What time does to a session: when it next matters, and what is due then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::commands::Fault;
use super::timer_wheel::Slot;
use super::{End, Ending, Session, State, Topic};

/// How long a client may take to take what it is sent, before it is dropped: it reads nothing.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a client that promised no heart-beats is asked for a sign of life, by a WebSocket ping.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A peer's heart-beat may be late by as much again as its interval: networks and timers are.
const BEAT_TOLERANCE: u32 = 2;
/// A session whose frame takes long (a key is being fetched) is looked at again so much later.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

impl Session {
    /// When the clock next matters.
    fn deadline(&self, state: &State) -> Instant {
        let mut deadline = self.silent_from(state);
        if let Some(unsent) = &state.unsent {
            deadline = deadline.min(unsent.since + WRITE_TIMEOUT);
        }
        if let Some(send) = state.beats.send {
            deadline = deadline.min(state.sent_at + early(send));
        }
        for subscription in &state.subscriptions {
            if let Topic::State(watch) = &subscription.topic {
                deadline = deadline.min(watch.look_at);
            }
        }
        deadline
    }

    /// When something has to be done about the client's silence.
    fn silent_from(&self, state: &State) -> Instant {
        if !state.client.is_connected() {
            return state.heard_at + self.gate.connect_timeout;
        }
        match state.beats.expect {
            Some(expect) => state.heard_at + expect * BEAT_TOLERANCE,
            None if state.pinged => state.heard_at + PING_INTERVAL * BEAT_TOLERANCE,
            None => state.heard_at + PING_INTERVAL,
        }
    }

    /// Has the clock look at this session in time.
    pub(super) fn schedule(self: &Arc<Self>, state: &mut State) {
        let slot = self.gate.rounds.slot(self.deadline(state));
        if slot < state.slot {
            self.gate.rounds.remove(state.slot, self);
            self.schedule_at(state, slot);
        }
    }

    fn schedule_at(self: &Arc<Self>, state: &mut State, slot: Slot) {
        state.slot = slot;
        if !self.gate.rounds.add(slot, self) {
            self.end_soon(state, Ending::stop());
        }
    }

    /// The clock looks at this session, as it asked for when it was last looked at or changed.
    pub(super) fn look(self: &Arc<Self>, slot: Slot, now: Instant) {
        let mut state = self.state();
        if state.slot != slot {
            return;
        }
        state.slot = Slot::NEVER;
        // Its task ends it, in its own time; nothing can be sent, so that whatever is due would stay so.
        if state.closed {
            return;
        }
        if state.busy {
            let slot = self.gate.rounds.slot(now + BUSY_PAUSE);
            return self.schedule_at(&mut state, slot);
        }
        match self.clock(&mut state, now) {
            Ok(()) => self.schedule(&mut state),
            Err(ending) => self.end_soon(&mut state, ending),
        }
    }

    /// Does what is due.
    fn clock(&self, state: &mut State, now: Instant) -> Result<(), Ending> {
        let unsent = state.unsent.as_ref();
        if unsent.is_some_and(|unsent| now >= unsent.since + WRITE_TIMEOUT) {
            return Err(Ending::Gone(End::Slow));
        }
        if now >= self.silent_from(state) {
            self.silence(state)?;
        }
        if let Some(send) = state.beats.send
            && now >= state.sent_at + early(send)
        {
            self.send(state, OpCode::Data(Data::Text), b"\n");
        }
        self.tell_state(state, now);
        Ok(())
    }

    /// The client has been silent for long.
    fn silence(&self, state: &mut State) -> Result<(), Ending> {
        if !state.client.is_connected() {
            let fault =
                Fault::policy("no CONNECT frame came in time; send one first").because("too_late");
            return Err(Ending::Refuse(fault, End::Silent));
        }
        if state.beats.expect.is_some() {
            let reason = "no heart-beat came";
            return Err(Ending::Close(CloseCode::Policy, reason, End::Silent));
        }
        if state.pinged {
            return Err(Ending::Gone(End::Silent));
        }
        state.pinged = true;
        self.send(state, OpCode::Control(Control::Ping), &[]);
        Ok(())
    }

    /// usher stops.
    pub(super) fn stop(&self) {
        self.end_soon(&mut self.state(), Ending::stop());
    }
}

/// Beats are sent a little early, to be there in time.
fn early(interval: Duration) -> Duration {
    interval - (interval / 10).min(Duration::from_secs(1))
}
