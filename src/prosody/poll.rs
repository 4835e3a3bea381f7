//! `GET /api/v1/prosody/rooms`: waits until a directive of an instance's rooms has changed.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Prosody;
use super::events::seconds;
use super::wire::Answer;
use crate::clock;

/// How long a poll waits for a change: below the idle time-outs of usual proxies, 60 s.
const POLL: Duration = Duration::from_secs(25);
/// Changes within this time are delivered together.
const COLLECT: Duration = Duration::from_millis(10);

/// The instance is not known, as after a restart of usher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("This instance is not known; report all rooms (\"all\": true), then poll again.")]
pub struct UnknownInstance;

/// An open poll: while one is open, its instance is there.
struct Poll {
    prosody: Prosody,
    instance: Arc<str>,
    changed: watch::Receiver<u64>,
}

impl Drop for Poll {
    fn drop(&mut self) {
        if let Some(instance) = self.prosody.state().instances.get_mut(&self.instance) {
            instance.polls = instance.polls.saturating_sub(1);
            instance.last_seen = Instant::now();
        }
    }
}

impl Prosody {
    /// The changes after the revision `after`, or none after 25 seconds or at `stop`.
    ///
    /// # Errors
    ///
    /// [`UnknownInstance`].
    pub async fn poll(
        &self,
        instance: &str,
        after: u64,
        stop: &CancellationToken,
    ) -> Result<Answer, UnknownInstance> {
        let mut poll = self.begin_poll(instance, after)?;
        let deadline = Instant::now() + POLL;
        loop {
            poll.changed.borrow_and_update();
            let answer = self.changes(instance, after)?;
            if !answer.rooms.is_empty() || !answer.decisions.is_empty() {
                return Ok(answer);
            }
            tokio::select! {
                changed = poll.changed.changed() => match changed {
                    Ok(()) => sleep(COLLECT).await,
                    Err(_) => return Err(UnknownInstance),
                },
                () = sleep_until(deadline) => return self.changes(instance, after),
                () = stop.cancelled() => return self.changes(instance, after),
            }
        }
    }

    fn begin_poll(&self, instance: &str, after: u64) -> Result<Poll, UnknownInstance> {
        let mut state = self.state();
        let known = state.instances.get_key_value(instance);
        let name = known.map(|(name, _)| Arc::clone(name));
        let name = name.ok_or(UnknownInstance)?;
        let known = state.instances.get_mut(instance).ok_or(UnknownInstance)?;
        known.polls += 1;
        known.last_seen = Instant::now();
        // Delivered: the module has received an answer with this revision.
        known.late.retain(|(revision, _)| *revision > after);
        Ok(Poll {
            prosody: self.clone(),
            instance: name,
            changed: known.changed.subscribe(),
        })
    }

    fn changes(&self, instance: &str, after: u64) -> Result<Answer, UnknownInstance> {
        let state = self.state();
        let known = state.instances.get(instance).ok_or(UnknownInstance)?;
        let late = known.late.iter();
        let rooms = state.rooms.values().filter(|room| {
            let is_this = room.instance.as_deref() == Some(instance);
            is_this && room.poll_revision > after && room.is_there()
        });
        Ok(Answer {
            now: seconds(clock::now()),
            revision: Some(state.revision),
            rooms: rooms.filter_map(|room| room.directive.clone()).collect(),
            decisions: late
                .filter(|(revision, _)| *revision > after)
                .map(|(_, decision)| decision.clone())
                .collect(),
            ..Answer::default()
        })
    }
}
