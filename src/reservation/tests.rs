//! What time does to reservations, on a clock that is moved by hand. Only the loop's sleeps follow that
//! clock; the instants of what is decided are given.

use std::sync::mpsc;

use chrono::SubsecRound;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::domain::booking::Options;
use crate::domain::booking::StartPolicy;
use crate::domain::policy::PolicyKind;
use crate::domain::policy::Reason;

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
            start_policy: StartPolicy::Anyone,
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
        let request = request(room, Requester::default());
        self.reservations.allocate(request, at).await.unwrap()
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

fn conference(room: &str) -> Conference {
    Conference::from_names(room, None, "meet.example.com").unwrap()
}

fn request(room: &str, requester: Requester) -> Request {
    Request {
        conference: conference(room),
        name: room.to_owned(),
        start_time: String::new(),
        requester,
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

fn draft(room: &str, owner: Option<&str>, waiting_queue: bool, now: DateTime<Utc>) -> Draft {
    Draft {
        conference: conference(room),
        title: None,
        owner: owner.map(str::to_owned),
        start: now - TimeDelta::minutes(5),
        end: Some(now + TimeDelta::minutes(50)),
        options: Options {
            waiting_queue,
            ..Options::default()
        },
        start_policy: owner.map(|_| StartPolicy::Owner),
        auto_live: None,
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_came_while_the_store_was_busy_are_each_decided_as_if_alone() {
    let house = House::open(retention(TimeDelta::days(30), 1000)).await;
    let now = clock::now();
    let reservations = &house.reservations;
    let owned = draft("owned", Some("alice@example.com"), false, now);
    let owned = reservations.book(owned, now).await.unwrap();
    let queued = draft("queued", None, true, now);
    let queued = reservations.book(queued, now).await.unwrap();
    let over = house.allocate("over", now - TimeDelta::hours(7)).await;
    let runs = house.allocate("runs", now).await;
    let before = house.decisions().await;

    let anyone = Requester::default;
    let visitor = || Requester {
        visitor: true,
        ..anyone()
    };
    let alice = Requester {
        user_email: Some("alice@example.com".to_owned()),
        ..anyone()
    };
    let asked = [
        ("owned", anyone()),
        ("queued", visitor()),
        ("plain", anyone()),
        ("over", anyone()),
        ("owned", alice),
        ("plain", anyone()),
        ("runs", anyone()),
        ("queued", anyone()),
        ("plain", anyone()),
    ];
    let busy = reservations.inner.store.begin().await.unwrap();
    let mut waiting = Vec::new();
    for (room, requester) in asked {
        let reservations = reservations.clone();
        let request = request(room, requester);
        waiting.push(tokio::spawn(async move {
            reservations.allocate(request, now).await.unwrap()
        }));
        // In the order in which they are written here.
        tokio::task::yield_now().await;
    }
    busy.commit().await.unwrap();
    let mut outcomes = Vec::new();
    for one in waiting {
        outcomes.push(one.await.unwrap());
    }

    let allocated = |n: usize| match &outcomes[n] {
        Outcome::Allocated(allocation) => allocation.clone(),
        other => panic!("{n}: {other:?}"),
    };
    let met = |n: usize| match &outcomes[n] {
        Outcome::Conflict(id) => *id,
        other => panic!("{n}: {other:?}"),
    };
    assert!(
        matches!(&outcomes[0], Outcome::Refused(refusal) if refusal.reason == Reason::NotOwner)
    );
    assert!(matches!(&outcomes[1], Outcome::Queued));
    let plain = allocated(2);
    assert_eq!((met(5), met(8)), (plain.id, plain.id));
    assert_ne!(allocated(3).id, over);
    assert_eq!(
        house.ended_at(over).await,
        Some(now - TimeDelta::hours(1)).map(|at| at.trunc_subsecs(0))
    );
    assert_eq!(allocated(4).booking, Some(owned.id));
    assert_eq!(met(6), runs);
    assert_eq!(allocated(7).booking, Some(queued.id));
    assert!(allocated(7).options.waiting_queue);

    // Each is written down, in their order, with what it was about.
    let filter = DecisionFilter {
        limit: 1000,
        ..DecisionFilter::default()
    };
    let mut rows = reservations.decisions(&filter).await.unwrap();
    rows.reverse();
    let rows: Vec<_> = rows[before..]
        .iter()
        .map(|row| (row.conference.room(), row.outcome.as_str(), row.allocation))
        .collect();
    let id = |n| Some(allocated(n).id);
    let expected = [
        ("owned", "refused", None),
        ("queued", "queued", None),
        ("plain", "allowed", id(2)),
        ("over", "allowed", id(3)),
        ("owned", "allowed", id(4)),
        ("plain", "conflict", id(2)),
        ("runs", "conflict", Some(runs)),
        ("queued", "allowed", id(7)),
        ("plain", "conflict", id(2)),
    ];
    assert_eq!(rows, expected);
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_a_statement_takes_are_all_decided() {
    let house = House::open(retention(TimeDelta::days(30), 10_000)).await;
    let now = clock::now();
    let reservations = &house.reservations;
    let busy = reservations.inner.store.begin().await.unwrap();
    let waiting: Vec<_> = (0..2500)
        .map(|n| {
            let reservations = reservations.clone();
            let request = request(&format!("room{n}"), Requester::default());
            tokio::spawn(async move { reservations.allocate(request, now).await })
        })
        .collect();
    tokio::task::yield_now().await;
    busy.commit().await.unwrap();
    for one in waiting {
        assert!(matches!(one.await.unwrap(), Ok(Outcome::Allocated(_))));
    }
}
