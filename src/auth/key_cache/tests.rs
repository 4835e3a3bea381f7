use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;
use tokio::time::{advance, sleep};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// A cache and the number of requests. Each call names the server's response.
struct Fixture {
    cache: Arc<KeyCache<u32>>,
    requests: Arc<AtomicUsize>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            cache: Arc::new(KeyCache::new(HOUR)),
            requests: Arc::default(),
        }
    }

    fn requests(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }

    async fn get(&self, name: u16, fetched: Fetched<u32>) -> Lookup<u32> {
        self.get_no_older(name, HOUR, fetched).await
    }

    async fn get_no_older(&self, name: u16, age: Duration, fetched: Fetched<u32>) -> Lookup<u32> {
        let requests = Arc::clone(&self.requests);
        let fetch = || async move {
            requests.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(1)).await;
            fetched
        };
        self.cache.get(key(name), age, fetch).await
    }
}

fn key(name: u16) -> CacheKey {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&name.to_be_bytes());
    bytes
}

fn definitive(value: Option<u32>) -> Lookup<u32> {
    Lookup::definitive(value)
}

fn stale(value: Option<u32>) -> Lookup<u32> {
    Lookup {
        value,
        definitive: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_is_cached_until_it_expires() {
    let fixture = Fixture::new();
    assert_eq!(fixture.get(1, Fetched::Found(1)).await, definitive(Some(1)));
    advance(HOUR - SECOND).await;
    assert_eq!(fixture.get(1, Fetched::Found(2)).await, definitive(Some(1)));
    assert_eq!(fixture.requests(), 1);
    advance(SECOND).await;
    assert_eq!(fixture.cache.get_cached(&key(1)), None);
    assert_eq!(fixture.get(1, Fetched::Found(2)).await, definitive(Some(2)));
    assert_eq!(fixture.requests(), 1);
    assert_eq!(fixture.cache.get_cached(&key(1)), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_shorter_max_age_fetches_earlier() {
    let fixture = Fixture::new();
    fixture.get(1, Fetched::Found(1)).await;
    advance(SECOND * 59).await;
    let minute = SECOND * 60;
    let lookup = fixture.get_no_older(1, minute, Fetched::Found(2)).await;
    assert_eq!(lookup, definitive(Some(1)));
    advance(SECOND).await;
    let lookup = fixture.get_no_older(1, minute, Fetched::Found(2)).await;
    assert_eq!(lookup, definitive(Some(2)));
    assert_eq!(fixture.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_absent_document_is_requested_once_in_ten_seconds() {
    let fixture = Fixture::new();
    assert_eq!(fixture.get(1, Fetched::Absent).await, definitive(None));
    advance(ABSENT_TTL - SECOND).await;
    assert_eq!(fixture.get(1, Fetched::Found(1)).await, definitive(None));
    assert_eq!(fixture.requests(), 1);
    advance(SECOND).await;
    assert_eq!(fixture.get(1, Fetched::Found(1)).await, definitive(Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_removed_document_is_removed_from_the_cache() {
    let fixture = Fixture::new();
    fixture.get(1, Fetched::Found(1)).await;
    advance(HOUR).await;
    assert_eq!(fixture.get(1, Fetched::Absent).await, definitive(None));
    assert_eq!(fixture.get(1, Fetched::Failed).await, definitive(None));
    assert_eq!(fixture.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stale_document_is_used_for_one_more_period_while_the_server_fails() {
    let fixture = Fixture::new();
    fixture.get(1, Fetched::Found(1)).await;
    advance(HOUR).await;
    assert_eq!(fixture.get(1, Fetched::Failed).await, stale(Some(1)));
    assert_eq!(fixture.requests(), 2);
    // Right after a failure there is no request.
    assert_eq!(fixture.get(1, Fetched::Found(2)).await, stale(Some(1)));
    assert_eq!(fixture.requests(), 0);
    // Later there is one, but no caller waits for it.
    advance(FAILURE_TTL).await;
    assert_eq!(fixture.get(1, Fetched::Failed).await, stale(Some(1)));
    assert_eq!(fixture.get(1, Fetched::Failed).await, stale(Some(1)));
    sleep(SECOND).await;
    assert_eq!(fixture.requests(), 1);
    advance(HOUR).await;
    assert_eq!(fixture.get(1, Fetched::Failed).await, stale(None));
    // When the server is back, the rate limit does not apply.
    fixture.cache.state().limit.available = 0.0;
    advance(FAILURE_TTL).await;
    assert_eq!(fixture.get(1, Fetched::Found(2)).await, definitive(Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_not_definitive_and_expires_soon() {
    let fixture = Fixture::new();
    assert_eq!(fixture.get(1, Fetched::Failed).await, stale(None));
    assert_eq!(fixture.get(1, Fetched::Found(1)).await, stale(None));
    assert_eq!(fixture.requests(), 1);
    advance(FAILURE_TTL).await;
    assert_eq!(fixture.get(1, Fetched::Found(1)).await, definitive(Some(1)));
}

#[tokio::test(start_paused = true)]
async fn concurrent_callers_share_one_request() {
    let fixture = Arc::new(Fixture::new());
    let mut waiting = JoinSet::new();
    for _ in 0..100 {
        let fixture = Arc::clone(&fixture);
        waiting.spawn(async move { fixture.get(1, Fetched::Found(1)).await });
    }
    let lookups = waiting.join_all().await;
    assert_eq!(lookups.len(), 100);
    assert!(lookups.iter().all(|lookup| *lookup == definitive(Some(1))));
    assert_eq!(fixture.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_continues_when_its_caller_is_dropped() {
    let fixture = Fixture::new();
    let impatient = fixture.get(1, Fetched::Found(1));
    tokio::select! {
        biased;
        _ = impatient => panic!("no request was needed"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(fixture.get(1, Fetched::Found(2)).await, definitive(Some(1)));
    assert_eq!(fixture.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_panics_is_repeated() {
    let fixture = Fixture::new();
    let dying = fixture
        .cache
        .get(key(1), HOUR, || async { panic!("on purpose") });
    assert_eq!(dying.await, stale(None));
    assert_eq!(fixture.get(1, Fetched::Found(1)).await, definitive(Some(1)));
}

#[tokio::test(start_paused = true)]
async fn unknown_documents_have_a_rate_limit() {
    let fixture = Fixture::new();
    for name in 1000..3000 {
        let fetched = fixture.get(name, Fetched::Absent).await;
        let within = usize::from(name) < 1000 + UNKNOWN_BURST as usize;
        assert_eq!(
            fetched,
            if within {
                definitive(None)
            } else {
                stale(None)
            },
            "{name}"
        );
    }
    assert_eq!(fixture.requests(), UNKNOWN_BURST as usize);
    advance(SECOND * 5).await;
    for name in 3000..4000 {
        fixture.get(name, Fetched::Absent).await;
    }
    assert_eq!(fixture.requests(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_day_of_invented_names_neither_fills_memory_nor_blocks_cached_documents() {
    let fixture = Fixture::new();
    fixture.get(1, Fetched::Found(1)).await;
    let (mut most, mut requests) = (0, 0);
    for name in 1000..11_000 {
        fixture.get(name, Fetched::Absent).await;
        assert_eq!(fixture.get(1, Fetched::Found(1)).await, definitive(Some(1)));
        advance(Duration::from_millis(8_640)).await;
        most = most.max(fixture.cache.state().negative.len());
        requests += fixture.requests();
    }
    assert!((1..=50).contains(&most), "{most}");
    assert!(requests <= 11_000, "{requests}");
    assert!(fixture.cache.state().in_flight.is_empty());
}

#[tokio::test(start_paused = true)]
async fn requests_for_unknown_documents_at_once_are_limited() {
    let fixture = Arc::new(Fixture::new());
    let mut waiting = JoinSet::new();
    for name in 0..20 {
        let fixture = Arc::clone(&fixture);
        waiting.spawn(async move { fixture.get(name, Fetched::Found(1)).await });
    }
    let lookups = waiting.join_all().await;
    let found = lookups
        .iter()
        .filter(|lookup| **lookup == definitive(Some(1)));
    assert_eq!(found.count(), MAX_UNKNOWN_IN_FLIGHT);
    assert_eq!(fixture.requests(), MAX_UNKNOWN_IN_FLIGHT);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_document_is_evicted() {
    let fixture = Fixture::new();
    let many = u16::try_from(MAX_ENTRIES).unwrap() + 10;
    for name in 0..many {
        advance(SECOND).await;
        assert!(fixture.get(name, Fetched::Found(1)).await.definitive);
    }
    assert_eq!(fixture.cache.state().entries.len(), MAX_ENTRIES);
    assert_eq!(fixture.cache.get_cached(&key(9)), None);
    assert_eq!(fixture.cache.get_cached(&key(10)), Some(1));
}
