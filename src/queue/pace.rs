//! Releases the waiting visitors of live conferences at the configured rate.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Queue;
use super::fan_out::fan_out;
use super::line::BATCH_MILLIS;

impl Queue {
    /// Releases one batch a second for each live conference, until `stop`.
    pub(super) async fn release_loop(&self, stop: &CancellationToken) {
        let mut second = interval(Duration::from_millis(u64::from(BATCH_MILLIS)));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = second.tick() => self.release_next(),
            }
        }
    }

    fn release_next(&self) {
        let per_second = self.inner.config.load().release_per_second;
        let batches: Vec<_> = self
            .state()
            .conferences
            .iter_mut()
            .filter_map(|(conference, queue)| {
                Some((Arc::clone(conference), queue.tick(per_second)?))
            })
            .collect();
        let now = Instant::now();
        fan_out(
            batches
                .into_iter()
                .map(|(conference, batch)| self.notification(&conference, batch, now))
                .collect(),
        );
    }
}
