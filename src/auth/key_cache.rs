//! A shelf of documents from afar: keeps what was found and, for a while, what wasn't; asks once for
//! all who wait for the same; and bounds what strangers can make it ask for.
//!
//! Names come out of tokens that nobody has verified yet, so anyone can make them up. What was found
//! before is asked for again without limit, as there is only so much of it. Everything else is a
//! stranger, and all strangers share a small [`Budget`]: whoever makes names up can spend it, and
//! then a document that was never seen has to wait, but none that is known.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The most documents that are kept; the one fetched longest ago goes first.
const FOUND_MAX: usize = 256;
/// How long a document that isn't there counts as such.
pub(super) const ABSENT_KEPT: Duration = Duration::from_secs(60);
/// How long after a failure nobody asks again for the same document.
const FAILURE_KEPT: Duration = Duration::from_secs(5);
/// How many strangers may be asked for at once, how many in a row, and how many a second then.
/// Together with [`ABSENT_KEPT`] this bounds what is kept of strangers, too, to about a hundred.
const STRANGERS_AT_ONCE: usize = 8;
const STRANGERS_IN_A_ROW: u32 = 32;
const STRANGERS_PER_SECOND: u32 = 1;

/// The SHA-256 of what a document is asked for by, so that a name is small, however long that is.
pub(super) type Name = [u8; 32];

/// How asking ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome<T> {
    /// There it is.
    Found(T),
    /// There is none.
    Absent,
    /// Nobody can tell.
    Failed,
}

/// What is known about a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look<T> {
    /// The document.
    pub(super) value: Option<T>,
    /// Whether that is what the server says. If it isn't, the document is an old one, or whether
    /// there is one can't be told right now.
    pub(super) current: bool,
}

impl<T> Look<T> {
    const UNKNOWN: Self = Self {
        value: None,
        current: false,
    };
}

/// The shelf. Each user holds it by [`Arc`], as asking goes on when the one who asked has left.
#[derive(Debug)]
pub(super) struct KeyCache<T> {
    /// How long a document counts as current. For as long again it may stand in while the server
    /// fails.
    kept: Duration,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    found: HashMap<Name, Found<T>>,
    missed: HashMap<Name, Missed>,
    asking: HashMap<Name, Asking<T>>,
    budget: Budget,
}

#[derive(Debug)]
struct Found<T> {
    value: T,
    at: Instant,
    failed_at: Option<Instant>,
}

#[derive(Debug)]
struct Missed {
    /// Otherwise asking failed.
    absent: bool,
    until: Instant,
}

#[derive(Debug)]
struct Asking<T> {
    stranger: bool,
    told: watch::Receiver<Option<Look<T>>>,
}

/// What is to be done about a request.
enum Plan<T> {
    Answer(Look<T>),
    Wait(watch::Receiver<Option<Look<T>>>),
    /// Ask, and meanwhile go on with an old document, if there is one that may stand in.
    Ask(watch::Sender<Option<Look<T>>>, Option<Look<T>>),
}

impl<T: Clone + Send + Sync + 'static> KeyCache<T> {
    /// An empty one.
    pub(super) fn new(kept: Duration) -> Self {
        Self {
            kept,
            state: Mutex::new(State {
                found: HashMap::new(),
                missed: HashMap::new(),
                asking: HashMap::new(),
                budget: Budget::full(Instant::now()),
            }),
        }
    }

    /// The document, if it is here and current.
    pub(super) fn at_hand(&self, name: &Name) -> Option<T> {
        let now = Instant::now();
        let state = self.state();
        let found = state.found.get(name)?;
        (now < found.at + self.kept).then(|| found.value.clone())
    }

    /// The document: from the shelf if it is no older than `max_age`, else by asking.
    pub(super) async fn get<F>(
        self: &Arc<Self>,
        name: Name,
        max_age: Duration,
        ask: impl FnOnce() -> F,
    ) -> Look<T>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let plan = self
            .state()
            .plan(name, max_age.min(self.kept), self.kept, Instant::now());
        let mut told = match plan {
            Plan::Answer(look) => return look,
            Plan::Wait(told) => told,
            Plan::Ask(tell, stand_in) => {
                let told = tell.subscribe();
                let (shelf, asking) = (Arc::clone(self), ask());
                tokio::spawn(async move {
                    let outcome = asking.await;
                    let now = Instant::now();
                    let look = shelf.state().settle(name, outcome, shelf.kept, now);
                    tell.send_replace(Some(look));
                });
                if let Some(look) = stand_in {
                    return look;
                }
                told
            }
        };
        let told = told.wait_for(Option::is_some).await;
        told.ok()
            .and_then(|look| look.clone())
            .unwrap_or(Look::UNKNOWN)
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing in it is ever half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> State<T> {
    fn plan(&mut self, name: Name, max_age: Duration, kept: Duration, now: Instant) -> Plan<T> {
        let found = self.found.get(&name);
        let mut stand_in = None;
        if let Some(found) = found {
            if now < found.at + max_age {
                return Plan::Answer(Look {
                    value: Some(found.value.clone()),
                    current: true,
                });
            }
            if let Some(failed_at) = found.failed_at {
                let look = found.after_failure(kept, now);
                if now < failed_at + FAILURE_KEPT {
                    return Plan::Answer(look);
                }
                // The server failed the last time: don't let anybody wait while it is asked again.
                stand_in = look.value.is_some().then_some(look);
            }
        }
        let stranger = found.is_none();
        if let Some(asking) = self.asking.get(&name) {
            // Unless whoever asked is gone without a word.
            if asking.told.has_changed().is_ok() {
                return match stand_in {
                    Some(look) => Plan::Answer(look),
                    None => Plan::Wait(asking.told.clone()),
                };
            }
            self.asking.remove(&name);
        }
        if stranger {
            if let Some(missed) = self.missed.get(&name).filter(|missed| now < missed.until) {
                return Plan::Answer(Look {
                    value: None,
                    current: missed.absent,
                });
            }
            let at_once = self.asking.values().filter(|asking| asking.stranger);
            if at_once.count() >= STRANGERS_AT_ONCE || !self.budget.take(now) {
                return Plan::Answer(Look::UNKNOWN);
            }
        }
        let (tell, told) = watch::channel(None);
        self.asking.insert(name, Asking { stranger, told });
        Plan::Ask(tell, stand_in)
    }

    fn settle(&mut self, name: Name, outcome: Outcome<T>, kept: Duration, now: Instant) -> Look<T> {
        self.asking.remove(&name);
        match outcome {
            Outcome::Found(value) => {
                self.missed.remove(&name);
                self.make_room(&name);
                let found = Found {
                    value: value.clone(),
                    at: now,
                    failed_at: None,
                };
                self.found.insert(name, found);
                Look {
                    value: Some(value),
                    current: true,
                }
            }
            Outcome::Absent => {
                self.found.remove(&name);
                self.miss(name, true, now);
                Look {
                    value: None,
                    current: true,
                }
            }
            Outcome::Failed => {
                if let Some(found) = self.found.get_mut(&name) {
                    found.failed_at = Some(now);
                    return found.after_failure(kept, now);
                }
                self.miss(name, false, now);
                Look::UNKNOWN
            }
        }
    }

    fn make_room(&mut self, name: &Name) {
        if self.found.len() < FOUND_MAX || self.found.contains_key(name) {
            return;
        }
        let oldest = self.found.iter().min_by_key(|(_, found)| found.at);
        if let Some(oldest) = oldest.map(|(name, _)| *name) {
            self.found.remove(&oldest);
        }
    }

    fn miss(&mut self, name: Name, absent: bool, now: Instant) {
        self.missed.retain(|_, missed| now < missed.until);
        let span = if absent { ABSENT_KEPT } else { FAILURE_KEPT };
        let until = now + span;
        self.missed.insert(name, Missed { absent, until });
    }
}

impl<T: Clone> Found<T> {
    fn after_failure(&self, kept: Duration, now: Instant) -> Look<T> {
        let may_stand_in = now < self.at + kept.saturating_mul(2);
        Look {
            value: may_stand_in.then(|| self.value.clone()),
            current: false,
        }
    }
}

/// How often strangers may be asked for: so many in a row, then so many a second.
#[derive(Debug)]
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn full(now: Instant) -> Self {
        Self {
            left: f64::from(STRANGERS_IN_A_ROW),
            at: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = now.duration_since(self.at).as_secs_f64() * f64::from(STRANGERS_PER_SECOND);
        self.left = (self.left + gained).min(f64::from(STRANGERS_IN_A_ROW));
        self.at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::JoinSet;
    use tokio::time::{advance, sleep};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);

    /// A shelf, and how often its server was asked. What the server does is said each time.
    struct Scene {
        shelf: Arc<KeyCache<u32>>,
        asked: Arc<AtomicUsize>,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                shelf: Arc::new(KeyCache::new(HOUR)),
                asked: Arc::default(),
            }
        }

        fn asked(&self) -> usize {
            self.asked.swap(0, Ordering::SeqCst)
        }

        async fn get(&self, name: u16, outcome: Outcome<u32>) -> Look<u32> {
            self.get_no_older(name, HOUR, outcome).await
        }

        async fn get_no_older(&self, name: u16, age: Duration, outcome: Outcome<u32>) -> Look<u32> {
            let asked = Arc::clone(&self.asked);
            let ask = || async move {
                asked.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_millis(1)).await;
                outcome
            };
            self.shelf.get(named(name), age, ask).await
        }
    }

    fn named(name: u16) -> Name {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&name.to_be_bytes());
        bytes
    }

    fn current(value: Option<u32>) -> Look<u32> {
        Look {
            value,
            current: true,
        }
    }

    fn old(value: Option<u32>) -> Look<u32> {
        Look {
            value,
            current: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_is_kept_until_it_expires() {
        let scene = Scene::new();
        assert_eq!(scene.get(1, Outcome::Found(1)).await, current(Some(1)));
        advance(HOUR - SECOND).await;
        assert_eq!(scene.get(1, Outcome::Found(2)).await, current(Some(1)));
        assert_eq!(scene.asked(), 1);
        advance(SECOND).await;
        assert_eq!(scene.shelf.at_hand(&named(1)), None);
        assert_eq!(scene.get(1, Outcome::Found(2)).await, current(Some(2)));
        assert_eq!(scene.asked(), 1);
        assert_eq!(scene.shelf.at_hand(&named(1)), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_it_younger_has_it_asked_for_sooner() {
        let scene = Scene::new();
        scene.get(1, Outcome::Found(1)).await;
        advance(SECOND * 59).await;
        let minute = SECOND * 60;
        let look = scene.get_no_older(1, minute, Outcome::Found(2)).await;
        assert_eq!(look, current(Some(1)));
        advance(SECOND).await;
        let look = scene.get_no_older(1, minute, Outcome::Found(2)).await;
        assert_eq!(look, current(Some(2)));
        assert_eq!(scene.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_is_not_asked_for_again_for_a_minute() {
        let scene = Scene::new();
        assert_eq!(scene.get(1, Outcome::Absent).await, current(None));
        advance(ABSENT_KEPT - SECOND).await;
        assert_eq!(scene.get(1, Outcome::Found(1)).await, current(None));
        assert_eq!(scene.asked(), 1);
        advance(SECOND).await;
        assert_eq!(scene.get(1, Outcome::Found(1)).await, current(Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_withdrawn_is_gone_at_once() {
        let scene = Scene::new();
        scene.get(1, Outcome::Found(1)).await;
        advance(HOUR).await;
        assert_eq!(scene.get(1, Outcome::Absent).await, current(None));
        assert_eq!(scene.get(1, Outcome::Failed).await, current(None));
        assert_eq!(scene.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_document_stands_in_while_the_server_fails_for_as_long_again() {
        let scene = Scene::new();
        scene.get(1, Outcome::Found(1)).await;
        advance(HOUR).await;
        assert_eq!(scene.get(1, Outcome::Failed).await, old(Some(1)));
        assert_eq!(scene.asked(), 2);
        // Right after a failure nobody is asked.
        assert_eq!(scene.get(1, Outcome::Found(2)).await, old(Some(1)));
        assert_eq!(scene.asked(), 0);
        // Later somebody is, but nobody waits for it.
        advance(FAILURE_KEPT).await;
        assert_eq!(scene.get(1, Outcome::Failed).await, old(Some(1)));
        assert_eq!(scene.get(1, Outcome::Failed).await, old(Some(1)));
        sleep(SECOND).await;
        assert_eq!(scene.asked(), 1);
        advance(HOUR).await;
        assert_eq!(scene.get(1, Outcome::Failed).await, old(None));
        // It comes back with the server, without being a stranger.
        scene.shelf.state().budget.left = 0.0;
        advance(FAILURE_KEPT).await;
        assert_eq!(scene.get(1, Outcome::Found(2)).await, current(Some(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_no_no_and_is_soon_forgotten() {
        let scene = Scene::new();
        assert_eq!(scene.get(1, Outcome::Failed).await, old(None));
        assert_eq!(scene.get(1, Outcome::Found(1)).await, old(None));
        assert_eq!(scene.asked(), 1);
        advance(FAILURE_KEPT).await;
        assert_eq!(scene.get(1, Outcome::Found(1)).await, current(Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_wait_for_the_same_make_one_request() {
        let scene = Arc::new(Scene::new());
        let mut waiting = JoinSet::new();
        for _ in 0..100 {
            let scene = Arc::clone(&scene);
            waiting.spawn(async move { scene.get(1, Outcome::Found(1)).await });
        }
        let looks = waiting.join_all().await;
        assert_eq!(looks.len(), 100);
        assert!(looks.iter().all(|look| *look == current(Some(1))));
        assert_eq!(scene.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn asking_goes_on_when_the_one_who_asked_leaves() {
        let scene = Scene::new();
        let impatient = scene.get(1, Outcome::Found(1));
        tokio::select! {
            biased;
            _ = impatient => panic!("that was quick"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(scene.get(1, Outcome::Found(2)).await, current(Some(1)));
        assert_eq!(scene.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn asking_that_dies_is_done_again() {
        let scene = Scene::new();
        let dying = scene
            .shelf
            .get(named(1), HOUR, || async { panic!("on purpose") });
        assert_eq!(dying.await, old(None));
        assert_eq!(scene.get(1, Outcome::Found(1)).await, current(Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_have_a_small_budget_that_fills_again() {
        let scene = Scene::new();
        for name in 1000..3000 {
            let outcome = scene.get(name, Outcome::Absent).await;
            let within = usize::from(name) < 1000 + STRANGERS_IN_A_ROW as usize;
            assert_eq!(
                outcome,
                if within { current(None) } else { old(None) },
                "{name}"
            );
        }
        assert_eq!(scene.asked(), STRANGERS_IN_A_ROW as usize);
        advance(SECOND * 5).await;
        for name in 3000..4000 {
            scene.get(name, Outcome::Absent).await;
        }
        assert_eq!(scene.asked(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_of_made_up_names_fills_no_memory_and_keeps_no_known_one_out() {
        let scene = Scene::new();
        scene.get(1, Outcome::Found(1)).await;
        let (mut most, mut asked) = (0, 0);
        for name in 1000..11_000 {
            scene.get(name, Outcome::Absent).await;
            assert_eq!(scene.get(1, Outcome::Found(1)).await, current(Some(1)));
            advance(Duration::from_millis(8_640)).await;
            most = most.max(scene.shelf.state().missed.len());
            asked += scene.asked();
        }
        assert!((5..=100).contains(&most), "{most}");
        assert!(asked <= 11_000, "{asked}");
        assert!(scene.shelf.state().asking.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_strangers_are_asked_for_at_once() {
        let scene = Arc::new(Scene::new());
        let mut waiting = JoinSet::new();
        for name in 0..20 {
            let scene = Arc::clone(&scene);
            waiting.spawn(async move { scene.get(name, Outcome::Found(1)).await });
        }
        let looks = waiting.join_all().await;
        let found = looks.iter().filter(|look| **look == current(Some(1)));
        assert_eq!(found.count(), STRANGERS_AT_ONCE);
        assert_eq!(scene.asked(), STRANGERS_AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_documents_are_kept() {
        let scene = Scene::new();
        let many = u16::try_from(FOUND_MAX).unwrap() + 10;
        for name in 0..many {
            advance(SECOND).await;
            assert!(scene.get(name, Outcome::Found(1)).await.current);
        }
        assert_eq!(scene.shelf.state().found.len(), FOUND_MAX);
        assert_eq!(scene.shelf.at_hand(&named(9)), None);
        assert_eq!(scene.shelf.at_hand(&named(10)), Some(1));
    }
}
