//! How much work a client may cause (pure): before its session yields to others, over time, and before CONNECT.
//!
//! A unit is a read from the socket, a WebSocket frame or a STOMP frame. An honest client needs about twenty at its
//! arrival and one in several seconds after that.

use std::time::Duration;

/// Units of one turn; then other sessions have theirs. A unit needs some microseconds, most of them for an answer.
const TURN: u16 = 32;
/// Units that a client may cause at once.
const BURST: u32 = 512;
/// Time that earns one unit: 50 a second.
pub(super) const UNIT: Duration = Duration::from_millis(20);
/// Longest pause of a client above its rate.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Pauses in a row; a client that needs another one is closed.
const PAUSES_MAX: u8 = 4;
/// Units of the verification of a token.
pub(super) const VERIFICATION: u16 = 16;
/// Pings, pongs and heart-beats before CONNECT; the clients known send none.
const EARLY_MAX: u8 = 8;

/// What a client has caused. Eight bytes: each visitor has one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    /// When all units are earned, in [`UNIT`]s.
    earned_at: u32,
    /// Units of this turn.
    used: u16,
    /// Pauses since the last moment without debt.
    pauses: u8,
    early: u8,
}

impl Budget {
    pub(super) fn spend(&mut self, units: u16) {
        self.used = self.used.saturating_add(units);
    }

    /// Whether other sessions must have their turn now.
    pub(super) fn is_turn_over(&self) -> bool {
        self.used >= TURN
    }

    /// Ends a turn at `now`, in [`UNIT`]s. Returns how long the client has to pause; `None` if it goes on above its rate
    /// after several pauses.
    pub(super) fn end_turn(&mut self, now: u32) -> Option<Duration> {
        if self.earned_at <= now {
            self.pauses = 0;
        }
        let used = std::mem::take(&mut self.used);
        self.earned_at = self.earned_at.max(now).saturating_add(used.into());
        let debt = self.earned_at - now;
        if debt <= BURST {
            return Some(Duration::ZERO);
        }
        self.pauses += 1;
        (self.pauses <= PAUSES_MAX).then(|| (UNIT * (debt - BURST / 2)).min(PAUSE_MAX))
    }

    /// Counts a frame before CONNECT that is no part of CONNECT. Returns whether there may be another.
    pub(super) fn spend_early(&mut self) -> bool {
        self.early = self.early.saturating_add(1);
        self.early <= EARLY_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spends turns at `now` until the client has to pause or is closed.
    fn flood(budget: &mut Budget, now: u32) -> (u32, Option<Duration>) {
        let mut units = 0;
        loop {
            budget.spend(TURN);
            units += u32::from(TURN);
            match budget.end_turn(now) {
                Some(Duration::ZERO) => {}
                pause => return (units, pause),
            }
        }
    }

    #[test]
    fn turn_ends_after_its_units() {
        let mut budget = Budget::default();
        budget.spend(TURN - 1);
        assert!(!budget.is_turn_over());
        budget.spend(1);
        assert!(budget.is_turn_over());
        assert_eq!(budget.end_turn(0), Some(Duration::ZERO));
        assert!(!budget.is_turn_over());
    }

    #[test]
    fn flood_is_slowed_to_the_rate_and_then_closed() {
        let mut budget = Budget::default();
        let (mut now, mut pauses, mut units) = (1_000, 0, 0);
        let first = flood(&mut budget, now);
        assert!(first.0 > BURST && first.0 <= BURST + u32::from(TURN));
        let mut pause = first.1;
        while let Some(length) = pause {
            assert!(length > Duration::from_secs(2) && length <= PAUSE_MAX);
            pauses += 1;
            now += u32::try_from(length.as_millis() / UNIT.as_millis()).unwrap();
            let more = flood(&mut budget, now);
            (units, pause) = (units + more.0, more.1);
        }
        assert_eq!(pauses, PAUSES_MAX);
        // At most the earned units in each pause.
        assert!(units <= now - 1_000 + BURST, "{units} in {now}");
    }

    #[test]
    fn client_within_its_rate_is_never_slowed() {
        let mut budget = Budget::default();
        for now in 0..100_000 {
            budget.spend(1);
            assert_eq!(budget.end_turn(now), Some(Duration::ZERO));
        }
        // A burst, and after a quiet time another.
        for now in [200_000, 300_000, 400_000] {
            budget.spend(u16::try_from(BURST).unwrap());
            assert_eq!(budget.end_turn(now), Some(Duration::ZERO));
        }
    }

    #[test]
    fn quiet_time_forgets_former_pauses() {
        let mut budget = Budget::default();
        for round in 0..10 {
            let (_, pause) = flood(&mut budget, round * 10_000);
            assert!(pause.is_some(), "round {round}");
        }
    }

    #[test]
    fn few_frames_may_come_before_connect() {
        let mut budget = Budget::default();
        let allowed = (0..100).take_while(|_| budget.spend_early()).count();
        assert_eq!(allowed, usize::from(EARLY_MAX));
    }
}
