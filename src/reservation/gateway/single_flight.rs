//! Requests of one key that are under way at the same time share one call, and calls for one room take turns.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::GatewayError;
use crate::domain::conference::Conference;

/// The limit of calls under way; further ones are refused.
const CALLS_MAX: usize = 256;

/// A call under way; `None` if its task panicked.
type Call<T> = Shared<BoxFuture<'static, Option<T>>>;

/// The calls under way, by their key.
#[derive(Debug)]
pub(super) struct InFlight<K, T>(Arc<Mutex<HashMap<K, Call<T>>>>);

/// The result of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined<T> {
    /// Of the caller's own call.
    Own(T),
    /// Of another caller's call.
    Shared(T),
}

impl<K, T> InFlight<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Waits for the call of this key, and makes it if there is none. The call runs in a task of its own, since it
    /// must finish even if no caller waits for it any more: the upstream has received it.
    pub(super) async fn join(
        &self,
        key: K,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<Joined<T>, GatewayError> {
        let (is_own, call) = {
            let mut calls = self.lock();
            match calls.get(&key) {
                Some(call) => (false, call.clone()),
                None if calls.len() >= CALLS_MAX => return Err(GatewayError::TooManyInFlight),
                None => {
                    let guard = RemoveOnDrop(self.clone(), key.clone());
                    let task = tokio::spawn(async move {
                        let _guard = guard;
                        call.await
                    });
                    let call = task.map(Result::ok).boxed().shared();
                    calls.insert(key, call.clone());
                    (true, call)
                }
            }
        };
        let result = call.await.ok_or(GatewayError::StoreFailed)?;
        Ok(if is_own {
            Joined::Own(result)
        } else {
            Joined::Shared(result)
        })
    }
}

impl<K, T> InFlight<K, T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Call<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, T> Clone for InFlight<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T> Default for InFlight<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Removes a call when it ends, and also when it panics.
struct RemoveOnDrop<K: Eq + Hash, T>(InFlight<K, T>, K);

impl<K: Eq + Hash, T> Drop for RemoveOnDrop<K, T> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// One lock per room with a call under way or waiting.
#[derive(Debug, Default)]
pub(super) struct RoomLocks(Mutex<HashMap<Conference, Weak<tokio::sync::Mutex<()>>>>);

impl RoomLocks {
    /// The lock of this room. Locks that no caller holds are dropped.
    pub(super) fn get(&self, room: &Conference) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(room).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        locks.insert(room.clone(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn simultaneous_requests_of_one_key_share_one_call() {
        let (in_flight, made) = (InFlight::default(), Arc::new(AtomicUsize::new(0)));
        let join = |key: &'static str| {
            let made = Arc::clone(&made);
            in_flight.join(key, async move { made.fetch_add(1, Ordering::Relaxed) })
        };
        let results = tokio::join!(join("a"), join("a"), join("b"), join("a"));
        assert_eq!(results.0, Ok(Joined::Own(0)));
        assert_eq!(results.1, Ok(Joined::Shared(0)));
        assert_eq!(results.2, Ok(Joined::Own(1)));
        assert_eq!(results.3, Ok(Joined::Shared(0)));
        assert_eq!(
            join("a").await,
            Ok(Joined::Own(2)),
            "the first call is over"
        );
    }

    #[tokio::test]
    async fn calls_beyond_the_limit_are_refused() {
        let in_flight = InFlight::<usize, ()>::default();
        let start = |key| in_flight.join(key, std::future::pending()).now_or_never();
        for key in 0..CALLS_MAX {
            assert_eq!(start(key), None);
        }
        let refused = Some(Err(GatewayError::TooManyInFlight));
        assert_eq!(start(CALLS_MAX), refused);
        assert_eq!(start(0), None, "joined");
    }

    #[tokio::test]
    async fn call_goes_on_when_its_caller_is_gone() {
        let in_flight = InFlight::<&str, u8>::default();
        let gone = in_flight.join("a", async { 1 }).now_or_never();
        assert_eq!(gone, None);
        let other = in_flight.join("a", std::future::pending());
        assert_eq!(other.await, Ok(Joined::Shared(1)));
    }

    #[tokio::test]
    async fn panicked_call_is_reported_and_removed() {
        let in_flight = InFlight::<&str, u8>::default();
        let call = in_flight.join("a", async { panic!("a test") });
        assert_eq!(call.await, Err(GatewayError::StoreFailed));
        assert_eq!(in_flight.join("a", async { 2 }).await, Ok(Joined::Own(2)));
    }

    #[tokio::test]
    async fn unused_room_lock_is_dropped() {
        let room = |name| Conference::from_names(name, None, "meet.example.com").unwrap();
        let locks = RoomLocks::default();
        let lock = locks.get(&room("a"));
        assert!(Arc::ptr_eq(&lock, &locks.get(&room("a"))));
        drop(lock);
        let _other = locks.get(&room("b"));
        assert_eq!(locks.0.lock().unwrap().len(), 1);
    }
}
