//! The pace of releases: one budget per conference, and the order after a restart.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::harness::Usher;
use crate::nginx::Nginx;
use crate::queue::{ROOM, start};
use crate::stomp::{Client, SECRET, visitor, visitor_topic};

/// Messages of one second may arrive a little apart: a shorter time than a second for tests on a busy machine.
const ALMOST_A_SECOND: Duration = Duration::from_millis(700);

/// Who was released when.
#[derive(Clone, Default)]
struct Releases(Arc<Mutex<Vec<(usize, Instant)>>>);

impl Releases {
    /// Records the release of this client.
    fn record(&self, number: usize, mut client: Client) -> JoinHandle<()> {
        let releases = self.clone();
        tokio::spawn(async move {
            client.released().await;
            let now = Instant::now();
            releases.0.lock().unwrap().push((number, now));
        })
    }

    fn numbers(&self) -> Vec<usize> {
        let releases = self.0.lock().unwrap();
        releases.iter().map(|(number, _)| *number).collect()
    }

    #[track_caller]
    fn keep_the_rate(&self, per_second: usize) {
        let releases = self.0.lock().unwrap();
        for (n, (_, first)) in releases.iter().enumerate() {
            let within = releases[n..].iter();
            let within = within.take_while(|(_, at)| *at < *first + ALMOST_A_SECOND);
            let count = within.count();
            assert!(count <= per_second, "{count} were released in a second");
        }
    }
}

/// Puts nginx, if it is installed, in front of the service: the service has its address then.
#[expect(clippy::print_stdout, reason = "the report names what was skipped")]
fn before(usher: &mut Usher) -> Option<Proxy> {
    let dir = TempDir::new().unwrap();
    let Some(nginx) = Nginx::start(dir.path(), usher.address) else {
        println!("skipped: nginx is not installed");
        return None;
    };
    usher.address = nginx.address;
    Some((nginx, dir))
}

type Proxy = (Nginx, TempDir);

/// A service, directly and, where nginx is installed, through nginx.
async fn each_way(config: &str) -> Vec<(Usher, Option<Proxy>)> {
    let direct = start(config).await;
    let mut proxied = start(config).await;
    let nginx = before(&mut proxied);
    let mut ways = vec![(direct, None)];
    ways.extend(nginx.map(|nginx| (proxied, Some(nginx))));
    ways
}

async fn wait_as(usher: &Usher, like: &Value, number: usize) -> Client {
    let mut claims = like.clone();
    claims["jti"] = format!("visitor-{number}").into();
    let mut client = Client::connect(usher, &claims).await;
    client.subscribe("1", &visitor_topic("room")).await;
    client
}

#[tokio::test]
async fn golive_and_endlive_in_turn_release_no_more_than_the_rate() {
    for (usher, _nginx) in each_way("queue.release_per_second = 10").await {
        let (releases, like) = (Releases::default(), visitor("room"));
        let mut tasks = Vec::new();
        for number in 0..40 {
            let client = wait_as(&usher, &like, number).await;
            tasks.push(releases.record(number, client));
        }
        usher.counts(40).await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            usher.go_live(ROOM).await;
            usher.end_live(ROOM).await;
        }
        usher.go_live(ROOM).await;
        for task in tasks {
            task.await.unwrap();
        }
        releases.keep_the_rate(10);
        let mut numbers = releases.numbers();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn late_visitors_of_a_live_conference_share_the_rate_with_those_that_wait() {
    for (usher, _nginx) in each_way("queue.release_per_second = 5").await {
        let (releases, like) = (Releases::default(), visitor("room"));
        let mut tasks = Vec::new();
        for number in 0..5 {
            let client = wait_as(&usher, &like, number).await;
            tasks.push(releases.record(number, client));
        }
        usher.counts(5).await;
        usher.go_live(ROOM).await;
        // They come when the first five have been released.
        for number in 5..20 {
            let client = wait_as(&usher, &like, number).await;
            tasks.push(releases.record(number, client));
        }
        for task in tasks {
            task.await.unwrap();
        }
        releases.keep_the_rate(5);
    }
}

#[tokio::test]
async fn released_visitors_that_return_share_the_rate() {
    let usher = start("queue.release_per_second = 5").await;
    let (first, like) = (Releases::default(), visitor("room"));
    usher.go_live(ROOM).await;
    // As if Prosody had no room yet: each visitor is released twice.
    let mut tasks = Vec::new();
    for number in 0..5 {
        let mut client = wait_as(&usher, &like, number).await;
        client.released().await;
        first.0.lock().unwrap().push((number, Instant::now()));
        client.close().await;
        let client = wait_as(&usher, &like, number).await;
        tasks.push(first.record(number, client));
    }
    for task in tasks {
        task.await.unwrap();
    }
    first.0.lock().unwrap().sort_by_key(|(_, at)| *at);
    first.keep_the_rate(5);
}

/// Restarts the service; returns it behind nginx if it was.
async fn restart(usher: Usher, nginx: Option<Proxy>, config: &str) -> (Usher, Option<Proxy>) {
    let more = format!("auth.secret = \"{SECRET}\"\nqueue.state_interval = \"200ms\"\n{config}");
    let mut usher = Usher::start_in(usher.stop().await, &more).await;
    let nginx = nginx.and_then(|_| before(&mut usher));
    (usher, nginx)
}

#[tokio::test]
async fn visitors_that_return_within_ten_seconds_of_a_restart_are_released_in_the_order_of_their_places()
 {
    let config = "queue.release_per_second = 4\nqueue.reconnect_grace = \"2s\"";
    for (usher, nginx) in each_way(config).await {
        let like = visitor("room");
        let mut waiting = Vec::new();
        for number in 0..12 {
            waiting.push(wait_as(&usher, &like, number).await);
        }
        usher.counts(12).await;
        usher.go_live(ROOM).await;
        for client in &mut waiting[..4] {
            client.released().await;
        }
        let (usher, _nginx) = restart(usher, nginx, config).await;
        drop(waiting);
        let releases = Releases::default();
        let mut tasks = vec![releases.record(99, wait_as(&usher, &like, 99).await)];
        // The last of the line is the quickest, and the first is later than the grace.
        for number in (4..12).rev() {
            let pause = if number == 4 { 3000 } else { 20 };
            sleep(Duration::from_millis(pause)).await;
            assert!(
                releases.numbers().is_empty(),
                "{:?} before {number}",
                releases.numbers()
            );
            tasks.push(releases.record(number, wait_as(&usher, &like, number).await));
        }
        for task in tasks {
            task.await.unwrap();
        }
        releases.keep_the_rate(4);
        // Messages of one batch may arrive in another order.
        let batches: Vec<_> = releases.numbers().iter().map(|number| number / 4).collect();
        assert!(batches.is_sorted(), "{:?}", releases.numbers());
    }
}

#[tokio::test]
async fn release_goes_on_ten_seconds_after_a_restart_and_a_later_owner_is_at_the_front() {
    let config = "queue.release_per_second = 1\nqueue.reconnect_grace = \"60s\"";
    let usher = start(config).await;
    let like = visitor("room");
    let mut waiting = Vec::new();
    for number in 0..4 {
        waiting.push(wait_as(&usher, &like, number).await);
    }
    usher.counts(4).await;
    let begun = Instant::now();
    let (usher, _) = restart(usher, None, config).await;
    drop(waiting);
    let releases = Releases::default();
    let mut tasks = Vec::new();
    for number in 1..4 {
        tasks.push(releases.record(number, wait_as(&usher, &like, number).await));
    }
    usher.go_live(ROOM).await;
    while releases.numbers().is_empty() {
        sleep(Duration::from_millis(10)).await;
        assert!(begun.elapsed() < Duration::from_secs(50));
    }
    assert!(
        begun.elapsed() > Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
    tasks.push(releases.record(0, wait_as(&usher, &like, 0).await));
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(releases.numbers(), [1, 0, 2, 3]);
}
