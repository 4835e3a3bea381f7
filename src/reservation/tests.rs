//! The expiry loop on a paused clock, and requests that share a transaction.
//!
//! Only the loop's pauses follow the paused clock; the instants of decisions are arguments.

use std::path::Path;
use std::sync::mpsc;

use chrono::SubsecRound;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock;
use crate::config::Config;
use crate::domain::allocation::Allocation;
use crate::domain::booking::{Draft, Options, StartPolicy};
use crate::domain::policy::Reason;
use crate::domain::reservation::{Reservation, ReservationId};

/// The longest wait, in real time, for an action of the loop.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// Reservations whose background tasks run until this is dropped.
struct Fixture {
    reservations: Reservations,
    background: JoinHandle<()>,
    /// While a blocking task waits for this sender, the paused clock doesn't advance by itself.
    _clock: mpsc::Sender<()>,
    _dir: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        Self::with_decisions_max(10_000).await
    }

    async fn with_decisions_max(max: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let url = format!("sqlite:{}", dir.path().join("usher.db").display());
        let (hold, held) = mpsc::channel();
        tokio::task::spawn_blocking(move || held.recv());
        let store = Store::open(&url, "meet.example.com").await.unwrap();
        let config = format!(
            "[reservations]\ndefault_duration = \"6h\"\ndecisions_kept = \"30d\"\ndecisions_max = {max}\n"
        );
        let config = Config::parse(&config, "test", Path::new(""), []).unwrap();
        let reservations = Reservations::new(store, Arc::new(config.reservations)).unwrap();
        let running = reservations.clone();
        let background = tokio::spawn(async move { running.run(CancellationToken::new()).await });
        let fixture = Self {
            reservations,
            background,
            _clock: hold,
            _dir: dir,
        };
        // Once this conference is ended, the loop has finished its first run and waits for the next.
        let id = fixture.open("first", clock::now() - TimeDelta::days(1));
        fixture.until_ended(id.await).await;
        fixture
    }

    async fn ask(&self, room: &str, at: DateTime<Utc>) -> AllocateResult {
        let request = request(room, Requester::default());
        self.reservations.allocate(request, at).await.unwrap()
    }

    async fn open(&self, room: &str, at: DateTime<Utc>) -> AllocationId {
        created(&self.ask(room, at).await)
    }

    /// Sends a request and returns before it is decided. Requests are decided in the order of these calls.
    async fn send(
        &self,
        room: &str,
        requester: Requester,
        at: DateTime<Utc>,
    ) -> JoinHandle<AllocateResult> {
        let reservations = self.reservations.clone();
        let request = request(room, requester);
        let task = tokio::spawn(async move { reservations.allocate(request, at).await.unwrap() });
        tokio::task::yield_now().await;
        task
    }

    /// The decision log, oldest first.
    async fn decisions(&self) -> Vec<DecisionRow> {
        let filter = DecisionFilter {
            limit: 1000,
            ..DecisionFilter::default()
        };
        let mut rows = self.reservations.decisions(&filter).await.unwrap();
        rows.reverse();
        rows
    }

    /// The recorded end of an allocation.
    async fn ended_at(&self, id: AllocationId) -> Option<DateTime<Utc>> {
        self.allocation(id).await.ended_at
    }

    async fn allocation(&self, id: AllocationId) -> Allocation {
        let found = self.reservations.inner.store.allocation(id).await.unwrap();
        found.unwrap()
    }

    /// Advances the loop's clock second by second until the end of an allocation is recorded.
    async fn until_ended(&self, id: AllocationId) -> DateTime<Utc> {
        let start = std::time::Instant::now();
        loop {
            if let Some(ended_at) = self.ended_at(id).await {
                return ended_at;
            }
            assert!(start.elapsed() < WAIT_TIMEOUT, "{id} is never ended");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.background.abort();
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

fn created(result: &AllocateResult) -> AllocationId {
    match result {
        AllocateResult::Created(Reservation {
            id: ReservationId::Number(id),
            ..
        }) => *id,
        other => panic!("not created: {other:?}"),
    }
}

fn conflict(result: &AllocateResult) -> AllocationId {
    match result {
        AllocateResult::Conflict(id) => *id,
        other => panic!("no conflict: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn end_is_recorded_when_the_time_is_up() {
    let fixture = Fixture::new().await;
    let opened = clock::now() - TimeDelta::hours(7);
    let id = fixture.open("room", opened).await;
    let ended_at = fixture.until_ended(id).await;
    assert_eq!(ended_at, opened.trunc_subsecs(0) + TimeDelta::hours(6));
}

#[tokio::test(start_paused = true)]
async fn frequent_requests_do_not_delay_the_recording_of_an_end() {
    let fixture = Fixture::new().await;
    let now = clock::now();
    let id = fixture.open("over", now - TimeDelta::hours(7)).await;
    let start = std::time::Instant::now();
    // A new conference notifies the loop every 50 ms.
    for n in 0.. {
        fixture.open(&format!("room{n}"), now).await;
        tokio::time::advance(Duration::from_millis(50)).await;
        if fixture.ended_at(id).await.is_some() {
            break;
        }
        assert!(start.elapsed() < WAIT_TIMEOUT, "it is never ended");
    }
}

#[tokio::test(start_paused = true)]
async fn frequent_requests_do_not_delay_the_purge_of_old_records() {
    let fixture = Fixture::new().await;
    let now = clock::now();
    let old = fixture.open("old", now - TimeDelta::days(31)).await;
    let store = &fixture.reservations.inner.store;
    let start = std::time::Instant::now();
    let mut requests = 0;
    while store.allocation(old).await.unwrap().is_some() {
        assert!(start.elapsed() < WAIT_TIMEOUT, "nothing is purged");
        fixture.open(&format!("room{requests}"), now).await;
        requests += 1;
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    // The fixture's own conference of the day before is not purged.
    assert_eq!(fixture.decisions().await.len(), requests + 1);
}

#[tokio::test(start_paused = true)]
async fn decisions_beyond_the_maximum_are_purged() {
    let fixture = Fixture::with_decisions_max(3).await;
    for _ in 0..5 {
        fixture.ask("room", clock::now()).await;
    }
    let start = std::time::Instant::now();
    while fixture.decisions().await.len() > 3 {
        assert!(start.elapsed() < WAIT_TIMEOUT, "nothing is purged");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(fixture.decisions().await.len(), 3);
}

fn draft(room: &str, now: DateTime<Utc>) -> Draft {
    Draft {
        conference: conference(room),
        title: None,
        owner: None,
        start: now - TimeDelta::minutes(5),
        end: Some(now + TimeDelta::minutes(50)),
        time_zone: None,
        options: Options::default(),
        start_policy: None,
        auto_live: None,
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_share_a_transaction_are_decided_as_if_alone() {
    let fixture = Fixture::new().await;
    let now = clock::now();
    let mut owned = draft("owned", now);
    owned.owner = Some("alice@example.com".to_owned());
    owned.start_policy = Some(StartPolicy::Owner);
    let owned = fixture.reservations.book(owned, now).await.unwrap();
    let mut queued = draft("queued", now);
    queued.options.waiting_queue = true;
    let queued = fixture.reservations.book(queued, now).await.unwrap();
    let expired = fixture.open("expired", now - TimeDelta::hours(7)).await;
    let running = fixture.open("running", now).await;
    let before = fixture.decisions().await.len();

    let user = Requester::default;
    let visitor = Requester {
        visitor: true,
        ..user()
    };
    let alice = Requester {
        user_email: Some("alice@example.com".to_owned()),
        ..user()
    };
    let busy = fixture.reservations.inner.store.begin().await.unwrap();
    let owned_by_other = fixture.send("owned", user(), now).await;
    let queued_by_visitor = fixture.send("queued", visitor, now).await;
    let free_by_first = fixture.send("free", user(), now).await;
    let after_expired = fixture.send("expired", user(), now).await;
    let owned_by_owner = fixture.send("owned", alice, now).await;
    let free_by_second = fixture.send("free", user(), now).await;
    let in_running = fixture.send("running", user(), now).await;
    let queued_by_user = fixture.send("queued", user(), now).await;
    let free_by_third = fixture.send("free", user(), now).await;
    busy.commit().await.unwrap();

    let owned_by_other = owned_by_other.await.unwrap();
    assert!(
        matches!(&owned_by_other, AllocateResult::Refused(refusal) if refusal.reason == Reason::NotOwner)
    );
    let owned_by_owner = created(&owned_by_owner.await.unwrap());
    assert_eq!(
        fixture.allocation(owned_by_owner).await.booking,
        Some(owned.id)
    );

    assert!(matches!(
        queued_by_visitor.await.unwrap(),
        AllocateResult::Queued
    ));
    let queued_by_user = created(&queued_by_user.await.unwrap());
    let allocation = fixture.allocation(queued_by_user).await;
    assert_eq!(allocation.booking, Some(queued.id));
    assert!(allocation.options.waiting_queue);

    let free = created(&free_by_first.await.unwrap());
    assert_eq!(conflict(&free_by_second.await.unwrap()), free);
    assert_eq!(conflict(&free_by_third.await.unwrap()), free);

    let after_expired = created(&after_expired.await.unwrap());
    assert_ne!(after_expired, expired);
    let end = (now - TimeDelta::hours(1)).trunc_subsecs(0);
    assert_eq!(fixture.ended_at(expired).await, Some(end));
    assert_eq!(conflict(&in_running.await.unwrap()), running);

    // The log has an entry for each, in order.
    let log = fixture.decisions().await;
    let entries = log[before..]
        .iter()
        .map(|row| (row.conference.room(), row.outcome.as_str(), row.allocation));
    let expected = [
        ("owned", "refused", None),
        ("queued", "queued", None),
        ("free", "allowed", Some(free)),
        ("expired", "allowed", Some(after_expired)),
        ("owned", "allowed", Some(owned_by_owner)),
        ("free", "conflict", Some(free)),
        ("running", "conflict", Some(running)),
        ("queued", "allowed", Some(queued_by_user)),
        ("free", "conflict", Some(free)),
    ];
    assert_eq!(entries.collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_one_statement_holds_are_all_decided() {
    let fixture = Fixture::new().await;
    let now = clock::now();
    let busy = fixture.reservations.inner.store.begin().await.unwrap();
    let waiting: Vec<_> = (0..2500)
        .map(|n| {
            let reservations = fixture.reservations.clone();
            let request = request(&format!("room{n}"), Requester::default());
            tokio::spawn(async move { reservations.allocate(request, now).await })
        })
        .collect();
    tokio::task::yield_now().await;
    busy.commit().await.unwrap();
    for one in waiting {
        assert!(matches!(one.await.unwrap(), Ok(AllocateResult::Created(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn ends_that_share_a_transaction_are_answered_each() {
    let fixture = Fixture::new().await;
    let now = clock::now();
    let first = fixture.open("room1", now).await;
    let second = fixture.open("room2", now).await;
    let ended = fixture.open("ended", now).await;
    assert!(
        fixture
            .reservations
            .end(&ended.to_string(), now)
            .await
            .unwrap()
    );
    let unknown = AllocationId::new(1_000_000).unwrap();
    let later = now + TimeDelta::minutes(1);

    let busy = fixture.reservations.inner.store.begin().await.unwrap();
    let mut results = Vec::new();
    for id in [first, second, first, ended, unknown] {
        let reservations = fixture.reservations.clone();
        results.push(tokio::spawn(async move {
            reservations.end(&id.to_string(), later).await.unwrap()
        }));
        tokio::task::yield_now().await;
    }
    busy.commit().await.unwrap();
    let mut issued = Vec::new();
    for result in results {
        issued.push(result.await.unwrap());
    }
    assert_eq!(issued, [true, true, true, true, false]);
    assert_eq!(fixture.ended_at(first).await, Some(later));
    assert_eq!(fixture.ended_at(second).await, Some(later));
    assert_eq!(fixture.ended_at(ended).await, Some(now));
    let other = fixture.open("room1", later).await;
    assert_ne!(other, first);
}
