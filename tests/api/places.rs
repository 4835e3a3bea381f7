//! Places in the line: they survive broken connections and restarts.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::harness::{Usher, all};
use crate::queue::{ROOM, start};
use crate::stomp::{Client, SECRET, visitor, visitor_topic};

/// The claims of one user: signed again a second later, they are the same token.
fn user(name: &str, like: &Value) -> Value {
    let mut claims = like.clone();
    claims["jti"] = name.into();
    claims
}

async fn subscribe(usher: &Usher, claims: &Value) -> Client {
    let mut client = Client::connect(usher, claims).await;
    client.subscribe("1", &visitor_topic("room")).await;
    client
}

#[tokio::test]
async fn visitor_keeps_its_place_while_the_old_connection_is_still_open() {
    let usher = start("queue.release_per_second = 1").await;
    let like = visitor("room");
    let (first, second) = (user("first", &like), user("second", &like));
    let dead = subscribe(&usher, &first).await;
    let mut second = subscribe(&usher, &second).await;
    // The visitor's network changed: usher has not noticed the end of the first connection.
    let mut back = subscribe(&usher, &first).await;
    usher.counts(3).await;
    dead.vanish();
    usher.counts(2).await;
    let begun = Instant::now();
    usher.go_live(ROOM).await;
    back.released().await;
    second.released().await;
    let after = begun.elapsed();
    assert!(
        after >= Duration::from_millis(900),
        "the second was released too early: {after:?}"
    );
}

#[tokio::test]
async fn visitor_that_unsubscribes_loses_its_place() {
    let usher = start("queue.release_per_second = 1").await;
    let like = visitor("room");
    let mut first = subscribe(&usher, &user("first", &like)).await;
    let mut second = subscribe(&usher, &user("second", &like)).await;
    first.send("UNSUBSCRIBE\nid:1\n\n\0").await;
    usher.counts(1).await;
    first.subscribe("2", &visitor_topic("room")).await;
    usher.counts(2).await;
    let begun = Instant::now();
    usher.go_live(ROOM).await;
    second.released().await;
    first.released().await;
    let after = begun.elapsed();
    assert!(
        after >= Duration::from_millis(900),
        "the first kept its place: {after:?}"
    );
}

#[tokio::test]
async fn restart_during_release_keeps_the_pace_and_the_order() {
    let more = format!("auth.secret = \"{SECRET}\"\nqueue.release_per_second = 2");
    let mut usher = start("queue.release_per_second = 2").await;
    let like = visitor("room");
    let names: Vec<_> = (0..10).map(|n| format!("visitor-{n}")).collect();
    let mut waiting = Vec::new();
    for name in &names {
        waiting.push(subscribe(&usher, &user(name, &like)).await);
    }
    usher.counts(10).await;
    usher.go_live(ROOM).await;
    for client in &mut waiting[..2] {
        client.released().await;
    }
    usher = Usher::start_in(usher.stop().await, &more).await;
    drop(waiting);
    let begun = Instant::now();
    // The last visitor of the line is the first to reconnect.
    let mut back = Vec::new();
    for name in names[2..].iter().rev() {
        back.push(subscribe(&usher, &user(name, &like)).await);
    }
    for client in &mut back {
        client.released().await;
    }
    let after = begun.elapsed();
    assert!(
        after >= Duration::from_secs(2),
        "eight visitors at two a second were released within {after:?}"
    );
}

#[tokio::test]
async fn concurrent_go_live_events_are_all_durable() {
    const ROOMS: usize = 50;
    let usher = start("").await;
    let jid = |n: usize| format!("room-{n}@conference.meet.example.com");
    let mut waiting = all(ROOMS, |n| {
        let (address, room) = (&usher, format!("room-{n}"));
        async move { Client::wait(address, &room).await }
    })
    .await;
    all(ROOMS, |n| {
        let usher = &usher;
        async move { usher.go_live(&jid(n)).await }
    })
    .await;
    for client in &mut waiting {
        client.released().await;
    }
    // One ends at the same time as the others go live again.
    all(ROOMS, |n| {
        let usher = &usher;
        async move {
            match n {
                0 => usher.end_live(&jid(0)).await,
                n => usher.go_live(&jid(n)).await,
            }
        }
    })
    .await;
    let more = format!("auth.secret = \"{SECRET}\"");
    let usher = Usher::start_in(usher.stop().await, &more).await;
    for n in 0..ROOMS {
        assert_eq!(usher.status(&jid(n)).await["live"], n > 0, "{n}");
    }
}

#[tokio::test]
async fn released_visitor_that_returns_gets_a_growing_delay() {
    let usher = start("").await;
    let mut claims = user("first user", &visitor("room"));
    usher.go_live(ROOM).await;
    let mut client = subscribe(&usher, &claims).await;
    assert_eq!(client.released().await["randomDelayMs"], 0);
    client.close().await;
    // jicofo sent the visitor back since it does not know yet that the conference is live.
    for millis in [10_000, 20_000, 40_000, 60_000, 60_000] {
        let mut client = subscribe(&usher, &claims).await;
        assert_eq!(client.released().await["randomDelayMs"], millis);
        client.close().await;
    }
    claims["jti"] = "second user".into();
    let mut client = subscribe(&usher, &claims).await;
    assert_eq!(client.released().await["randomDelayMs"], 0);
}
