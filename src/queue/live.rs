//! Conferences go live, and end: durably first, then for those who wait.
//!
//! At the stroke of the hour a thousand conferences go live. What is asked for while the store is busy with a
//! change is made in one go when it is free again, in the order in which it was asked for ([`Batcher`]).
//!
//! [`Batcher`]: crate::batch::Batcher

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::Queue;
use super::fan_out::fan_out;
use crate::domain::conference::Conference;
use crate::store::StoreError;

/// A change that somebody waits for.
#[derive(Debug)]
pub(super) struct Change {
    conference: Conference,
    what: What,
    asked: Instant,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// It goes live, at this instant.
    Live(DateTime<Utc>),
    Over,
}

impl What {
    fn is_as(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

impl Queue {
    /// Marks `conference` as live, durably, and lets those in who wait. Again is fine.
    ///
    /// # Errors
    ///
    /// When the database can't take it; nobody was let in then.
    pub async fn go_live(
        &self,
        conference: &Conference,
        now: DateTime<Utc>,
    ) -> Result<(), Arc<StoreError>> {
        self.change(conference, What::Live(now)).await
    }

    /// Marks `conference` as over, durably: whoever comes now waits. Again is fine.
    ///
    /// # Errors
    ///
    /// When the database can't take it.
    pub async fn end_live(&self, conference: &Conference) -> Result<(), Arc<StoreError>> {
        self.change(conference, What::Over).await
    }

    async fn change(&self, conference: &Conference, what: What) -> Result<(), Arc<StoreError>> {
        let change = Change {
            conference: conference.clone(),
            what,
            asked: Instant::now(),
        };
        let queue = self.clone();
        let work = async move { queue.make_changes().await };
        self.inner.changes.submit(change, work).await
    }

    /// Makes all changes that have been asked for by its turn.
    async fn make_changes(&self) {
        let _turn = self.inner.turn.lock().await;
        let asked = self.inner.changes.take();
        let changes: Vec<_> = asked.iter().map(|one| &one.request).collect();
        let outcome = self.write(&changes).await.map_err(Arc::new);
        let mut news = Vec::new();
        for change in changes {
            match change.what {
                _ if outcome.is_err() => {}
                What::Live(since) => {
                    news.extend(self.apply_live(&change.conference, since, change.asked));
                }
                What::Over => self.apply_end(&change.conference),
            }
        }
        fan_out(news);
        for one in asked {
            one.answer(outcome.clone());
        }
    }

    async fn write(&self, changes: &[&Change]) -> Result<(), StoreError> {
        let live_ttl = self.inner.settings.load_full().live_ttl;
        let mut tx = self.inner.store.begin().await?;
        for alike in changes.chunk_by(|one, next| one.what.is_as(next.what)) {
            let mut conferences: Vec<_> = alike.iter().map(|change| &change.conference).collect();
            conferences.sort_unstable();
            conferences.dedup();
            match alike[0].what {
                What::Live(now) => {
                    tx.set_live(&conferences, now, now + live_ttl).await?;
                    tx.went_live(&conferences, now).await?;
                }
                What::Over => tx.end_live(&conferences).await?,
            }
        }
        tx.commit().await
    }
}
