//! The timer wheel: one task runs the timers of all sessions.
//!
//! A `tokio` timer for each session costs memory, and wakes the session's task for a heart-beat of one byte. Here a session
//! is one pointer in the slot of its next deadline. A session that has ended is in no slot: a weak pointer keeps the
//! memory allocated.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Session;
use super::budget::UNIT;

/// Length of a slot. A timer runs at most this much late on an idle machine.
const SLOT: Duration = Duration::from_millis(50);
/// The number of sessions between two yields to other tasks.
const BATCH: usize = 64;
/// A tick that is this much late: the process or the machine stood still, and no client is to blame for its silence.
const STANDSTILL: Duration = Duration::from_secs(2);

/// A slot of time, counted from the start of the service. Sessions keep times in this form: four bytes instead of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u32);

impl Slot {
    /// Later than all others; it contains no session.
    pub(super) const NEVER: Self = Self(u32::MAX);
}

/// The sessions, by their next deadline.
#[derive(Debug)]
pub struct TimerWheel {
    started_at: Instant,
    due: Mutex<Due>,
    added: Notify,
    /// The slot in which the last standstill ended.
    resumed_at: AtomicU32,
}

#[derive(Debug, Default)]
struct Due {
    slots: BTreeMap<Slot, Vec<Weak<Session>>>,
    stopped: bool,
}

impl Default for TimerWheel {
    fn default() -> Self {
        Self {
            started_at: Instant::now(),
            due: Mutex::default(),
            added: Notify::new(),
            resumed_at: AtomicU32::new(0),
        }
    }
}

impl TimerWheel {
    /// The slot to be looked at in when it is `deadline`: the first that begins then or later.
    pub(super) fn slot(&self, deadline: Instant) -> Slot {
        let since = deadline
            .saturating_duration_since(self.started_at)
            .as_nanos();
        let slot = since.div_ceil(SLOT.as_nanos());
        Slot(u32::try_from(slot).unwrap_or(u32::MAX - 1))
    }

    /// The time since the start, in units of a session's budget.
    pub(super) fn units(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.started_at);
        u32::try_from(since.as_millis() / UNIT.as_millis()).unwrap_or(u32::MAX)
    }

    /// When the process last resumed after a standstill.
    pub(super) fn resumed_at(&self) -> Instant {
        self.start_of(Slot(self.resumed_at.load(Ordering::Relaxed)))
    }

    /// When `slot` starts.
    pub(super) fn start_of(&self, slot: Slot) -> Instant {
        self.started_at + SLOT * slot.0
    }

    /// Records that the tick before `now` was at `last`.
    fn check_standstill(&self, last: Instant, now: Instant) {
        let late = now.saturating_duration_since(last);
        if late >= STANDSTILL {
            self.resumed_at
                .store(self.current(now).0, Ordering::Relaxed);
            tracing::warn!(
                ?late,
                "usher stood still; the silence of clients counts from now"
            );
        }
    }

    /// The last slot that has started.
    pub(super) fn current(&self, now: Instant) -> Slot {
        let since = now.saturating_duration_since(self.started_at).as_nanos();
        Slot(u32::try_from(since / SLOT.as_nanos()).unwrap_or(u32::MAX - 1))
    }

    /// Adds a session to `slot`; it must be in no other. Returns false after the stop.
    pub(super) fn add(&self, slot: Slot, session: &Arc<Session>) -> bool {
        let mut due = self.due();
        if due.stopped {
            return false;
        }
        let was_empty = due.slots.is_empty();
        due.slots
            .entry(slot)
            .or_default()
            .push(Arc::downgrade(session));
        drop(due);
        if was_empty {
            self.added.notify_one();
        }
        true
    }

    /// Removes a session from `slot`, if it is there.
    pub(super) fn remove(&self, slot: Slot, session: &Session) {
        let mut due = self.due();
        let Entry::Occupied(mut sessions) = due.slots.entry(slot) else {
            return;
        };
        let is_it = |other: &Weak<Session>| std::ptr::eq(other.as_ptr(), session);
        if let Some(place) = sessions.get().iter().position(is_it) {
            sessions.get_mut().swap_remove(place);
        }
        if sessions.get().is_empty() {
            sessions.remove();
        }
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the timers until `stop`, and then closes every session.
    pub async fn run(&self, stop: CancellationToken) {
        let mut tick = interval(SLOT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        while !stop.is_cancelled() {
            let is_idle = self.due().slots.is_empty();
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.added.notified(), if is_idle => last = Instant::now(),
                _ = tick.tick(), if !is_idle => {
                    let now = Instant::now();
                    self.check_standstill(last, now);
                    last = now;
                    self.run_due(now).await;
                }
            }
        }
        self.due().stopped = true;
        self.stop_all().await;
    }

    async fn run_due(&self, now: Instant) {
        let current = self.current(now);
        while let Some((slot, sessions)) = self.take_first(|slot| slot <= current) {
            for some in sessions.chunks(BATCH) {
                for session in some.iter().filter_map(Weak::upgrade) {
                    session.on_timer(slot, now);
                }
                tokio::task::yield_now().await;
            }
        }
    }

    async fn stop_all(&self) {
        while let Some((_, sessions)) = self.take_first(|_| true) {
            for some in sessions.chunks(BATCH) {
                for session in some.iter().filter_map(Weak::upgrade) {
                    session.stop();
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn take_first(&self, wanted: impl FnOnce(Slot) -> bool) -> Option<(Slot, Vec<Weak<Session>>)> {
        let mut due = self.due();
        let first = due.slots.first_entry()?;
        wanted(*first.key()).then(|| first.remove_entry())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_tick_is_a_standstill() {
        let wheel = TimerWheel::default();
        let start = wheel.started_at;
        let seconds = |count| start + Duration::from_secs(count);
        wheel.check_standstill(seconds(1), seconds(2));
        assert_eq!(wheel.resumed_at(), start);
        wheel.check_standstill(seconds(2), seconds(14));
        assert_eq!(wheel.resumed_at(), seconds(14));
    }

    /// Otherwise a timer runs too early, has nothing to do, and is set for the same slot forever.
    #[test]
    fn no_slot_begins_before_its_deadline() {
        let wheel = TimerWheel::default();
        for nanos in [0, 1, 49_999_999, 50_000_000, 50_000_001, 100_700_000] {
            let deadline = wheel.started_at + Duration::from_nanos(nanos);
            let slot = wheel.slot(deadline);
            let before = deadline - Duration::from_nanos(1);
            assert!(nanos == 0 || wheel.current(before) < slot, "{nanos}");
            assert!(slot.0 <= wheel.current(deadline).0 + 1, "{nanos}");
        }
    }
}
