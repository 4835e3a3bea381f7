//! What time does to reservations, on a clock that is moved by hand. Only the loop's sleeps follow that
//! clock; the instants of what is decided are given.

use std::sync::mpsc;

use chrono::SubsecRound;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::config::{PolicyKind, Starters};

/// Longest wait, in real time, for what the loop is to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reservations whose loop runs, until this is dropped.
struct House {
    reservations: Reservations,
    keeper: JoinHandle<()>,
    /// While a blocking task waits for this, the paused clock doesn't move by itself.
    _clock: mpsc::Sender<()>,
    _dir: TempDir,
}

impl House {
    async fn open(retention: Retention) -> Self {
        let dir = TempDir::new().unwrap();
        let url = format!("sqlite:{}", dir.path().join("usher.db").display());
        let (hold, held) = mpsc::channel();
        tokio::task::spawn_blocking(move || held.recv());
        let settings = Settings {
            policy: PolicyKind::Open,
            default_duration: TimeDelta::hours(6),
            early_start: TimeDelta::minutes(10),
            starters: Starters::Anyone,
            time_zone: chrono_tz::UTC,
        };
        let store = Store::open(&url, "meet.example.com").await.unwrap();
        let reservations = Reservations::new(store, settings, retention);
        let kept = reservations.clone();
        let keeper = tokio::spawn(async move { kept.keep_house(CancellationToken::new()).await });
        let house = Self {
            reservations,
            keeper,
            _clock: hold,
            _dir: dir,
        };
        // Its first round is over, and the clock of the next one runs, once this is ended.
        let id = house.allocate("first", clock::now() - TimeDelta::days(1));
        house.until_ended(id.await).await;
        house
    }

    async fn ask(&self, room: &str, at: DateTime<Utc>) -> Outcome {
        let request = Request {
            conference: Conference::from_names(room, None, "meet.example.com").unwrap(),
            name: room.to_owned(),
            start_time: String::new(),
            requester: Requester::default(),
        };
        self.reservations.allocate(&request, at).await.unwrap()
    }

    async fn allocate(&self, room: &str, at: DateTime<Utc>) -> AllocationId {
        match self.ask(room, at).await {
            Outcome::Allocated(allocation) => allocation.id,
            other => panic!("{room} can't be opened: {other:?}"),
        }
    }

    async fn decisions(&self) -> usize {
        let filter = DecisionFilter {
            limit: 1000,
            ..DecisionFilter::default()
        };
        self.reservations.decisions(&filter).await.unwrap().len()
    }

    /// When this allocation ended, as it is written down.
    async fn ended_at(&self, id: AllocationId) -> Option<DateTime<Utc>> {
        let found = self.reservations.inner.store.allocation(id).await.unwrap();
        found.unwrap().ended_at
    }

    /// Waits until it is written down that this allocation ended, a second of the loop's clock at a time.
    async fn until_ended(&self, id: AllocationId) -> DateTime<Utc> {
        let start = std::time::Instant::now();
        loop {
            if let Some(ended_at) = self.ended_at(id).await {
                return ended_at;
            }
            assert!(start.elapsed() < PATIENCE, "{id} is never ended");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

fn retention(kept: TimeDelta, decisions_max: u64) -> Retention {
    Retention {
        kept,
        decisions_max,
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_is_written_down_on_our_own_clock() {
    let house = House::open(retention(TimeDelta::days(30), 1000)).await;
    let opened = clock::now() - TimeDelta::hours(7);
    let id = house.allocate("room", opened).await;
    let ended_at = house.until_ended(id).await;
    assert_eq!(ended_at, opened.trunc_subsecs(0) + TimeDelta::hours(6));
}

#[tokio::test(start_paused = true)]
async fn an_end_is_written_down_however_often_others_ask() {
    let house = House::open(retention(TimeDelta::days(30), 1000)).await;
    let now = clock::now();
    let id = house.allocate("over", now - TimeDelta::hours(7)).await;
    let start = std::time::Instant::now();
    // A conference is opened every twentieth of a second, and the loop hears of each.
    for n in 0.. {
        house.allocate(&format!("room{n}"), now).await;
        tokio::time::advance(Duration::from_millis(50)).await;
        if house.ended_at(id).await.is_some() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it is never ended");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_old_is_forgotten_in_time_however_often_somebody_asks() {
    let house = House::open(retention(TimeDelta::days(30), 1000)).await;
    let now = clock::now();
    let old = house.allocate("old", now - TimeDelta::days(31)).await;
    let store = &house.reservations.inner.store;
    let start = std::time::Instant::now();
    let mut asked = 0;
    while store.allocation(old).await.unwrap().is_some() {
        assert!(start.elapsed() < PATIENCE, "nothing is forgotten");
        house.allocate(&format!("room{asked}"), now).await;
        asked += 1;
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    // Of the others, the one of the day before is left.
    assert_eq!(house.decisions().await, asked + 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_decisions_are_kept_than_may_be() {
    let house = House::open(retention(TimeDelta::days(30), 3)).await;
    for _ in 0..5 {
        house.ask("room", clock::now()).await;
    }
    let start = std::time::Instant::now();
    while house.decisions().await > 3 {
        assert!(start.elapsed() < PATIENCE, "nothing is forgotten");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(house.decisions().await, 3);
}
