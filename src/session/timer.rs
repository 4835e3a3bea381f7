//! When a session has something to do next, and what an idle client receives (pure); and the session's part of the
//! timer wheel.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::close::{CloseAction, CloseReason};
use super::error::SessionError;
use super::timer_wheel::Slot;
use super::{Session, State};

/// How long a client may leave sent bytes unread before it is dropped.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a client without heart-beats receives a WebSocket ping.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A client's heart-beat or pong may be late by one interval, to tolerate delays of networks and timers.
const TOLERANCE: u32 = 2;
/// How much later the timer checks a session again while a token is being verified, or the client's bytes wait in the
/// socket.
const RECHECK_PAUSE: Duration = Duration::from_secs(1);

/// How a client shows that it is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    /// It sends CONNECT within this time.
    Connect(Duration),
    /// It sends something in each interval, as it promised. A browser slows the timers of a hidden tab, yet answers
    /// pings: so a client with a long interval is pinged, too.
    HeartBeat { interval: Duration, is_pinged: bool },
    /// It promised nothing, and answers pings.
    Ping { is_pinged: bool },
}

/// When the timer has to check a session, and why.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    idle: Instant,
    write: Option<Instant>,
    heart_beat: Option<Instant>,
    state_update: Option<Instant>,
}

impl Liveness {
    /// When a client that last sent something at `received_at` is idle.
    fn idle_deadline(self, received_at: Instant) -> Instant {
        received_at
            + match self {
                Self::Connect(timeout) => timeout,
                Self::HeartBeat { .. } if self.is_ping_due() => PING_INTERVAL,
                Self::HeartBeat { interval, .. } => interval * TOLERANCE,
                Self::Ping { is_pinged: false } => PING_INTERVAL,
                Self::Ping { is_pinged: true } => PING_INTERVAL * TOLERANCE,
            }
    }

    /// Whether a client that is idle receives a ping first.
    fn is_ping_due(self) -> bool {
        match self {
            Self::Connect(_) => false,
            Self::HeartBeat {
                interval,
                is_pinged,
            } => !is_pinged && interval > PING_INTERVAL,
            Self::Ping { is_pinged } => !is_pinged,
        }
    }

    /// The client is idle: `Ok` if it receives a ping.
    ///
    /// # Errors
    ///
    /// How the session ends.
    fn on_idle(self) -> Result<(), CloseAction> {
        match self {
            _ if self.is_ping_due() => Ok(()),
            Self::Connect(_) => Err(SessionError::ConnectTimeout.into()),
            Self::HeartBeat { .. } => {
                let text = "no heart-beat came";
                Err(CloseAction::Close(
                    CloseCode::Policy,
                    text,
                    CloseReason::Silent,
                ))
            }
            Self::Ping { .. } => Err(CloseAction::Abort(CloseReason::Silent)),
        }
    }
}

impl Deadlines {
    fn next(self) -> Instant {
        let others = [self.write, self.heart_beat, self.state_update];
        others.into_iter().flatten().fold(self.idle, Instant::min)
    }
}

/// The interval between two heart-beats of the server: a little shorter than promised, so that they arrive in time.
fn send_interval(promised: Duration) -> Duration {
    promised - (promised / 10).min(Duration::from_secs(1))
}

impl Session {
    fn deadlines(&self, state: &State) -> Deadlines {
        let liveness = state
            .protocol
            .liveness(self.context.settings.connect_timeout);
        // While usher itself stood still, no client was silent or slow.
        let timers = &self.context.timers;
        let resumed_at = timers.resumed_at();
        let received_at = timers.start_of(state.received_at);
        let unsent_since = state.connection.unsent_since();
        Deadlines {
            idle: liveness.idle_deadline(received_at.max(resumed_at)),
            write: unsent_since.map(|since| since.max(resumed_at) + WRITE_TIMEOUT),
            heart_beat: self.heart_beat_at(state),
            state_update: state.protocol.next_state_update(),
        }
    }

    /// Sets the timer to the next deadline, if that is earlier.
    pub(super) fn arm_timer(self: &Arc<Self>, state: &mut State) {
        let timers = &self.context.timers;
        let slot = timers.slot(self.deadlines(state).next());
        if slot < state.slot {
            timers.remove(state.slot, self);
            self.arm_timer_at(state, slot);
        }
    }

    fn arm_timer_at(self: &Arc<Self>, state: &mut State, slot: Slot) {
        state.slot = slot;
        if !self.context.timers.add(slot, self) {
            self.request_close(state, CloseAction::stop());
        }
    }

    /// The timer wheel has reached the session's slot.
    pub(super) fn on_timer(self: &Arc<Self>, slot: Slot, now: Instant) {
        let mut state = self.state();
        if state.slot != slot {
            return;
        }
        state.slot = Slot::NEVER;
        // The task ends it; nothing can be sent, so everything would stay due.
        if state.protocol.is_closed() {
            return;
        }
        // The client is not silent while it waits for usher, or its bytes wait to be read.
        if state.protocol.is_verifying() || self.has_unread(&state, now) {
            self.task.wake();
            let slot = self.context.timers.slot(now + RECHECK_PAUSE);
            return self.arm_timer_at(&mut state, slot);
        }
        match self.run_due(&mut state, now) {
            Ok(()) => self.arm_timer(&mut state),
            Err(close) => self.request_close(&mut state, close),
        }
    }

    /// Whether a client seems silent although its bytes wait in the socket. Before CONNECT that doesn't matter.
    fn has_unread(&self, state: &State, now: Instant) -> bool {
        state.protocol.version().is_some()
            && !state.is_blocked()
            && now >= self.deadlines(state).idle
            && state.connection.has_unread()
    }

    fn heart_beat_at(&self, state: &State) -> Option<Instant> {
        let promised = state.protocol.send_interval()?;
        Some(self.context.timers.start_of(state.sent_at) + send_interval(promised))
    }

    fn run_due(&self, state: &mut State, now: Instant) -> Result<(), CloseAction> {
        let due = self.deadlines(state);
        if due.write.is_some_and(|write| now >= write) {
            return Err(CloseAction::Abort(CloseReason::Slow));
        }
        if now >= due.idle {
            let liveness = state
                .protocol
                .liveness(self.context.settings.connect_timeout);
            liveness.on_idle()?;
            state.protocol.mark_pinged();
            self.send(state, OpCode::Control(Control::Ping), &[]);
        }
        if self.heart_beat_at(state).is_some_and(|beat| now >= beat) {
            self.send(state, OpCode::Data(Data::Text), b"\n");
        }
        self.send_state_updates(state, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_client_is_closed_by_what_it_promised() {
        let connect = Liveness::Connect(Duration::from_secs(10)).on_idle();
        let Err(CloseAction::Refuse(refusal)) = connect else {
            panic!("{connect:?}");
        };
        assert_eq!(refusal.error, SessionError::ConnectTimeout);
        let beat = Liveness::HeartBeat {
            interval: Duration::from_secs(10),
            is_pinged: false,
        };
        let beat = beat.on_idle();
        assert!(
            matches!(
                beat,
                Err(CloseAction::Close(
                    CloseCode::Policy,
                    _,
                    CloseReason::Silent
                ))
            ),
            "{beat:?}"
        );
        let rare = |is_pinged| Liveness::HeartBeat {
            interval: Duration::from_secs(75),
            is_pinged,
        };
        assert!(rare(false).on_idle().is_ok());
        assert!(rare(true).on_idle().is_err());
        assert!(Liveness::Ping { is_pinged: false }.on_idle().is_ok());
        let pinged = Liveness::Ping { is_pinged: true }.on_idle();
        assert!(
            matches!(pinged, Err(CloseAction::Abort(CloseReason::Silent))),
            "{pinged:?}"
        );
    }

    #[test]
    fn heart_beat_may_be_late_by_one_interval() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let beats = |interval, is_pinged| Liveness::HeartBeat {
            interval: seconds(interval),
            is_pinged,
        };
        for (liveness, deadline) in [
            (Liveness::Connect(seconds(10)), 10),
            (beats(10, false), 20),
            (beats(75, false), 30),
            (beats(75, true), 150),
            (Liveness::Ping { is_pinged: false }, 30),
            (Liveness::Ping { is_pinged: true }, 60),
        ] {
            assert_eq!(liveness.idle_deadline(now), now + seconds(deadline));
        }
        assert_eq!(send_interval(seconds(10)), seconds(9));
        assert_eq!(send_interval(seconds(60)), seconds(59));
    }
}
