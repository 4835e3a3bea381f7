//! Telling those who are let in: thousands of them, of one conference or of many.
//!
//! A few tasks tell one after another. To wake a task for each instead, and have it look, took a crowd of 15,000
//! half as long again.

use std::sync::Arc;

use tokio::time::Instant;

use super::SubscriberRef;
use crate::metrics;

/// How many tasks tell a crowd: enough to keep a few cores busy.
const FAN_OUT: usize = 4;
/// A smaller crowd is one task's.
const FAN_OUT_MIN: usize = 64;
/// How many a task tells before others have their turn.
const BATCH: usize = 64;

/// Those who are to be told the same.
#[derive(Debug)]
pub(super) struct Notification {
    pub(super) seats: Vec<SubscriberRef>,
    /// The message.
    pub(super) body: Arc<[u8]>,
    /// Since when they are owed it.
    pub(super) since: Instant,
}

/// Tells all of them, from a few tasks: a crowd from several, many small conferences from no more than that.
pub(super) fn fan_out(all: Vec<Notification>) {
    let count = all.iter().map(|news| news.seats.len()).sum::<usize>();
    metrics::visitors_released(count);
    let share = count.div_ceil(FAN_OUT).max(FAN_OUT_MIN);
    let (mut next, mut room) = (Vec::new(), share);
    for mut news in all {
        while !news.seats.is_empty() {
            let rest = news.seats.split_off(room.min(news.seats.len()));
            let seats = std::mem::replace(&mut news.seats, rest);
            room -= seats.len();
            next.push(Notification {
                seats,
                body: Arc::clone(&news.body),
                since: news.since,
            });
            if room == 0 {
                tokio::spawn(notify_chunk(std::mem::take(&mut next)));
                room = share;
            }
        }
    }
    if !next.is_empty() {
        tokio::spawn(notify_chunk(next));
    }
}

async fn notify_chunk(share: Vec<Notification>) {
    for Notification { seats, body, since } in share {
        // LimitGuard once all are told: to count is to wait for whoever else does.
        let mut times = Vec::with_capacity(seats.len());
        for some in seats.chunks(BATCH) {
            for seat in some {
                if let Some(subscriber) = seat.subscriber.upgrade() {
                    subscriber.notify(seat.subscription, &body);
                    times.push(since.elapsed());
                }
            }
            tokio::task::yield_now().await;
        }
        times
            .into_iter()
            .for_each(metrics::observe_delivery_latency);
    }
}
