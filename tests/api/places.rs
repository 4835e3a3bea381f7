//! Places in the line: who keeps theirs, whatever happens to connections and to usher.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::harness::{Usher, all};
use crate::queue::{ROOM, start};
use crate::stomp::{Client, SECRET, visitor, visitor_topic};

/// The claims of somebody: signed again a second later, they make the same token.
fn somebody(name: &str, like: &Value) -> Value {
    let mut claims = like.clone();
    claims["jti"] = name.into();
    claims
}

async fn come(usher: &Usher, claims: &Value) -> Client {
    let mut client = Client::connect(usher, claims).await;
    client.subscribe("1", &visitor_topic("room")).await;
    client
}

#[tokio::test]
async fn who_comes_back_while_the_old_connection_still_seems_to_live_keeps_their_place() {
    let usher = start("queue.release_per_second = 1").await;
    let like = visitor("room");
    let (first, second) = (somebody("first", &like), somebody("second", &like));
    let dead = come(&usher, &first).await;
    let mut second = come(&usher, &second).await;
    // Their network changed: nobody has told usher about the end of the first connection.
    let mut back = come(&usher, &first).await;
    usher.counts(3).await;
    dead.vanish();
    usher.counts(2).await;
    let begun = Instant::now();
    usher.go_live(ROOM).await;
    back.told().await;
    second.told().await;
    let after = begun.elapsed();
    assert!(
        after >= Duration::from_millis(900),
        "the second did not wait for their turn: {after:?}"
    );
}

#[tokio::test]
async fn who_unsubscribes_gives_up_their_place() {
    let usher = start("queue.release_per_second = 1").await;
    let like = visitor("room");
    let mut first = come(&usher, &somebody("first", &like)).await;
    let mut second = come(&usher, &somebody("second", &like)).await;
    first.send("UNSUBSCRIBE\nid:1\n\n\0").await;
    usher.counts(1).await;
    first.subscribe("2", &visitor_topic("room")).await;
    usher.counts(2).await;
    let begun = Instant::now();
    usher.go_live(ROOM).await;
    second.told().await;
    first.told().await;
    let after = begun.elapsed();
    assert!(
        after >= Duration::from_millis(900),
        "they came in as if they had never left: {after:?}"
    );
}

#[tokio::test]
async fn a_restart_while_the_line_moves_breaks_neither_the_pace_nor_the_line() {
    let more = format!("auth.secret = \"{SECRET}\"\nqueue.release_per_second = 2");
    let mut usher = start("queue.release_per_second = 2").await;
    let like = visitor("room");
    let names: Vec<_> = (0..10).map(|n| format!("visitor-{n}")).collect();
    let mut waiting = Vec::new();
    for name in &names {
        waiting.push(come(&usher, &somebody(name, &like)).await);
    }
    usher.counts(10).await;
    usher.go_live(ROOM).await;
    for client in &mut waiting[..2] {
        client.told().await;
    }
    usher = Usher::start_in(usher.stop().await, &more).await;
    drop(waiting);
    let begun = Instant::now();
    // Whoever stood at the end is the first to be back.
    let mut back = Vec::new();
    for name in names[2..].iter().rev() {
        back.push(come(&usher, &somebody(name, &like)).await);
    }
    for client in &mut back {
        client.told().await;
    }
    let after = begun.elapsed();
    assert!(
        after >= Duration::from_secs(2),
        "eight at two a second came in within {after:?}"
    );
}

#[tokio::test]
async fn what_goes_live_in_the_same_instant_is_live_for_good() {
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
        client.told().await;
    }
    // One of them ends in the same instant as others go live once more.
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
async fn who_was_let_in_and_is_sent_back_takes_their_time() {
    let usher = start("").await;
    let mut claims = somebody("somebody", &visitor("room"));
    usher.go_live(ROOM).await;
    let mut client = come(&usher, &claims).await;
    assert_eq!(client.told().await["randomDelayMs"], 0);
    client.close().await;
    // jicofo said that it isn't live, and will say so for a while.
    for millis in [10_000, 20_000, 40_000, 60_000, 60_000] {
        let mut client = come(&usher, &claims).await;
        assert_eq!(client.told().await["randomDelayMs"], millis);
        client.close().await;
    }
    claims["jti"] = "somebody else".into();
    let mut client = come(&usher, &claims).await;
    assert_eq!(client.told().await["randomDelayMs"], 0);
}
