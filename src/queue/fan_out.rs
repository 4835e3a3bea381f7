//! Notifies the visitors that are released: thousands, of one conference or of many.
//!
//! A few tasks write to one session after another. Waking a task for each session instead was measured: 15,000 visitors
//! took 50 % longer.

use std::sync::Arc;

use tokio::time::Instant;

use super::SubscriberRef;
use crate::metrics;

/// The number of tasks for a large crowd: enough to keep a few cores busy.
const TASKS: usize = 4;
/// A smaller crowd gets one task.
const CHUNK_MIN: usize = 64;
/// The number of visitors that a task notifies before other tasks run.
const BATCH: usize = 64;

/// One message for several visitors.
#[derive(Debug)]
pub(super) struct Notification {
    pub(super) subscribers: Vec<SubscriberRef>,
    pub(super) body: Arc<[u8]>,
    /// The instant of the visitors' release.
    pub(super) since: Instant,
}

/// Notifies all of them from at most [`TASKS`] tasks, whether they belong to one conference or to many.
pub(super) fn fan_out(notifications: Vec<Notification>) {
    let count = notifications
        .iter()
        .map(|notification| notification.subscribers.len())
        .sum::<usize>();
    metrics::visitors_released(count);
    let chunk_len = count.div_ceil(TASKS).max(CHUNK_MIN);
    let (mut chunk, mut room) = (Vec::new(), chunk_len);
    for mut notification in notifications {
        while !notification.subscribers.is_empty() {
            let cut = room.min(notification.subscribers.len());
            let rest = notification.subscribers.split_off(cut);
            let subscribers = std::mem::replace(&mut notification.subscribers, rest);
            room -= subscribers.len();
            chunk.push(Notification {
                subscribers,
                body: Arc::clone(&notification.body),
                since: notification.since,
            });
            if room == 0 {
                tokio::spawn(notify_chunk(std::mem::take(&mut chunk)));
                room = chunk_len;
            }
        }
    }
    if !chunk.is_empty() {
        tokio::spawn(notify_chunk(chunk));
    }
}

async fn notify_chunk(chunk: Vec<Notification>) {
    for notification in chunk {
        // Observed after the last delivery: the tasks contend for the histogram.
        let mut latencies = Vec::with_capacity(notification.subscribers.len());
        for batch in notification.subscribers.chunks(BATCH) {
            for entry in batch {
                if let Some(subscriber) = entry.subscriber.upgrade() {
                    subscriber.notify(entry.subscription, &notification.body);
                    latencies.push(notification.since.elapsed());
                }
            }
            tokio::task::yield_now().await;
        }
        latencies
            .into_iter()
            .for_each(metrics::observe_delivery_latency);
    }
}
