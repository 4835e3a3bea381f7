//! Notices what other processes do to the database: commits, and the loss of its file.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Store;
use crate::metrics;

/// The interval of the checks.
const INTERVAL: Duration = Duration::from_secs(1);

impl Store {
    /// Checks for changes of other processes, and whether the file is still the open one, until `stop`.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut second = interval(INTERVAL);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut version, mut was_lost) = (None, false);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = second.tick() => {}
            }
            let lost = self.file.check().err();
            metrics::set_database_file_lost(lost.is_some());
            match &lost {
                Some(error) if !was_lost => tracing::error!(%error, "the database file is lost"),
                None if was_lost => tracing::info!("the database file is back"),
                _ => {}
            }
            was_lost = lost.is_some();
            // While the database fails, the next transaction reports it.
            let Ok(now) = self.write.data_version().await else {
                continue;
            };
            if version.replace(now).is_some_and(|before| before != now) {
                self.note_change_elsewhere();
            }
        }
    }
}
