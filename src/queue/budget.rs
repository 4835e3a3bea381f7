//! The releases of the last second of one conference (pure): never more than the rate in any one-second window.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The rate counts over a second, and over a little more: messages of one batch reach their clients at slightly
/// different times, and no client may count more than the rate within a second.
pub const WINDOW: Duration = Duration::from_millis(1020);
/// Releases within this time are counted together, as if all were at the last of them. Bounds the number of entries.
const GRAIN: Duration = Duration::from_millis(10);

/// How many visitors of each conference are released per second.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// `queue.release_per_second`; 0 has no bound.
    pub per_second: u32,
    /// With a rate, no visitor is released before: the former run may have released visitors until it stopped.
    pub not_before: Option<Instant>,
}

impl Rate {
    /// A rate without a former run.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let not_before = None;
        Self {
            per_second,
            not_before,
        }
    }
}

/// The visitors that were released at nearly the same time.
#[derive(Clone, Copy, Debug)]
struct Releases {
    first: Instant,
    last: Instant,
    count: u32,
}

/// Counts the released visitors of one conference, whether it is live at the time or not. A live state that ends and
/// begins again has no other budget.
#[derive(Debug, Default)]
pub struct Budget {
    recent: VecDeque<Releases>,
}

impl Budget {
    /// How many visitors may be released now.
    pub fn available(&mut self, rate: Rate, now: Instant) -> u32 {
        self.forget(now);
        if rate.not_before.is_some_and(|at| now < at) {
            return if rate.per_second == 0 { u32::MAX } else { 0 };
        }
        match rate.per_second {
            0 => u32::MAX,
            max => max.saturating_sub(self.spent()),
        }
    }

    /// Counts released visitors. Without a rate, none are counted.
    pub fn spend(&mut self, count: u32, rate: Rate, now: Instant) {
        if rate.per_second == 0 || count == 0 {
            return;
        }
        match self.recent.back_mut() {
            Some(newest) if now.saturating_duration_since(newest.first) < GRAIN => {
                newest.last = now;
                newest.count = newest.count.saturating_add(count);
            }
            _ => self.recent.push_back(Releases {
                first: now,
                last: now,
                count,
            }),
        }
    }

    /// The instant from which this number of visitors, at most the rate, may be released.
    #[must_use]
    pub fn available_at(&self, count: u32, rate: Rate, now: Instant) -> Instant {
        if rate.per_second == 0 {
            return now;
        }
        let mut over = self.spent().saturating_add(count.min(rate.per_second));
        let mut at = rate.not_before.map_or(now, |at| at.max(now));
        for releases in &self.recent {
            if over <= rate.per_second {
                break;
            }
            over = over.saturating_sub(releases.count);
            at = at.max(releases.last + WINDOW);
        }
        at
    }

    /// Whether nothing is counted any more.
    pub fn is_unused(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.recent.is_empty()
    }

    /// The instant from which [`Budget::is_unused`], unless more are released.
    #[must_use]
    pub fn unused_at(&self) -> Option<Instant> {
        self.recent.back().map(|newest| newest.last + WINDOW)
    }

    fn spent(&self) -> u32 {
        let counts = self.recent.iter().map(|releases| releases.count);
        counts.fold(0, u32::saturating_add)
    }

    fn forget(&mut self, now: Instant) {
        while self
            .recent
            .front()
            .is_some_and(|oldest| oldest.last + WINDOW <= now)
        {
            self.recent.pop_front();
        }
        if self.recent.is_empty() {
            // The memory of a busy second, for each of many conferences.
            self.recent = VecDeque::new();
        }
    }
}
