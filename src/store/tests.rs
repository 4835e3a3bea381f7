//! Transactions: one at a time, durable before they are answered, and rolled back when they are dropped.

use chrono::TimeDelta;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Executor};
use tempfile::TempDir;

use super::*;

async fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("usher.db").display());
    let store = Store::open(&url, "meet.example.com").await.unwrap();
    (dir, store)
}

async fn write(tx: &mut Tx, room: &str) {
    let room = Conference::from_names(room, None, "meet.example.com").unwrap();
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let until = now + TimeDelta::hours(1);
    tx.set_live(&[&room], now, until).await.unwrap();
}

async fn written(store: &Store) -> Vec<String> {
    let rows = store.live().await.unwrap();
    let mut rooms: Vec<_> = rows
        .iter()
        .map(|row| row.conference.room().to_owned())
        .collect();
    rooms.sort();
    rooms
}

#[tokio::test]
async fn readers_see_a_transaction_after_its_commit_only() {
    let (_dir, store) = store().await;
    let mut tx = store.begin().await.unwrap();
    write(&mut tx, "room").await;
    assert!(written(&store).await.is_empty());
    tx.commit().await.unwrap();
    assert_eq!(written(&store).await, ["room"]);
}

#[tokio::test]
async fn transactions_run_one_after_another_in_the_order_of_begin() {
    let (_dir, store) = store().await;
    let mut first = store.begin().await.unwrap();
    let mut others = Vec::new();
    for room in ["second", "third"] {
        let store = store.clone();
        others.push(tokio::spawn(async move {
            let mut tx = store.begin().await.unwrap();
            let before = written(&store).await;
            write(&mut tx, room).await;
            tx.commit().await.unwrap();
            before
        }));
        tokio::task::yield_now().await;
    }
    write(&mut first, "first").await;
    assert!(others.iter().all(|other| !other.is_finished()));
    first.commit().await.unwrap();
    let third = others.pop().unwrap().await.unwrap();
    let second = others.pop().unwrap().await.unwrap();
    assert_eq!(second, ["first"]);
    assert_eq!(third, ["first", "second"]);
}

#[tokio::test]
async fn begin_fails_when_the_transaction_before_takes_too_long() {
    let (_dir, store) = store().await;
    let first = store.begin().await.unwrap();
    tokio::time::pause();
    let second = store.begin().await;
    assert!(matches!(second, Err(StoreError::Unavailable(_))));
    tokio::time::resume();
    drop(first);
    store.begin().await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn dropped_transaction_is_rolled_back_and_blocks_no_other_process() {
    let (dir, store) = store().await;
    let mut dropped = store.begin().await.unwrap();
    write(&mut dropped, "dropped").await;
    drop(dropped);
    let file = dir.path().join("usher.db");
    let other = SqliteConnectOptions::new().filename(file);
    let mut other = other.connect().await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    other.execute("ROLLBACK").await.unwrap();
    let mut tx = store.begin().await.unwrap();
    write(&mut tx, "next").await;
    tx.commit().await.unwrap();
    assert_eq!(written(&store).await, ["next"]);
}

/// Records what it receives.
#[derive(Debug, Default)]
struct Observer(std::sync::Mutex<Vec<LiveChange>>);

impl LiveObserver for Observer {
    fn live_changed(&self, changes: Vec<LiveChange>, _: Instant) {
        self.0.lock().unwrap().extend(changes);
    }
}

#[tokio::test]
async fn observer_receives_live_changes_before_the_commit_returns_even_if_its_caller_is_dropped() {
    let (_dir, store) = store().await;
    let observer = Arc::new(Observer::default());
    let weak: std::sync::Weak<Observer> = Arc::downgrade(&observer);
    store.observe_live(weak);
    let count = || observer.0.lock().unwrap().len();

    let mut tx = store.begin().await.unwrap();
    write(&mut tx, "room").await;
    assert_eq!(count(), 0);
    tx.commit().await.unwrap();
    assert_eq!(count(), 1);

    let mut tx = store.begin().await.unwrap();
    write(&mut tx, "rolled-back").await;
    drop(tx);

    let mut tx = store.begin().await.unwrap();
    let room = Conference::from_names("room", None, "meet.example.com").unwrap();
    tx.end_live(&[&room]).await.unwrap();
    let mut commit = Box::pin(tx.commit());
    assert!(futures_util::poll!(commit.as_mut()).is_pending());
    drop(commit);
    // The next transaction begins after the notification.
    drop(store.begin().await.unwrap());
    let received = observer.0.lock().unwrap();
    assert!(
        matches!(&received[..], [LiveChange::Live(_), LiveChange::Ended(ended)] if *ended == room)
    );
}

#[tokio::test]
async fn commit_fails_where_sqlite_rolled_back_by_itself_and_a_later_one_works() {
    let (_dir, store) = store().await;
    for _ in 0..2 {
        let mut tx = store.begin().await.unwrap();
        write(&mut tx, "lost").await;
        // As SQLite does by itself on a full disk.
        tx.transaction.execute("ROLLBACK").await.unwrap();
        assert!(matches!(tx.commit().await, Err(StoreError::Unavailable(_))));
        assert!(written(&store).await.is_empty());
    }
    let mut tx = store.begin().await.unwrap();
    write(&mut tx, "room").await;
    tx.commit().await.unwrap();
    assert_eq!(written(&store).await, ["room"]);
}
