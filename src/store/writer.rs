//! The writer: one connection, and transactions that share a commit.
//!
//! A disk syncs some thousand times a second, and every commit is a sync. So those who wait for their turn
//! while another writes join its transaction of SQLite, and the commit is everybody's: who is done asks for
//! a second turn, behind those who wait by then. When it comes, and nobody has committed meanwhile, they
//! commit what all have done. No answer leaves before that; and who is alone has the second turn at once,
//! and waits for no company.
//!
//! Each writes behind a savepoint, so that one who gives up takes nothing of the others along. Where SQLite
//! undoes everything by itself, as it may on a full disk, the savepoint is gone too: the next step notices,
//! and all who shared are told that nothing was done.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};
use tokio::time::timeout;

/// How long a request waits for its turn to write. Prosody gives up after 20 s.
pub(super) const TURN_TIMEOUT: Duration = Duration::from_secs(8);

/// What became of a commit, for all who share it.
pub(super) type Outcome = Arc<OnceLock<Result<(), Arc<sqlx::Error>>>>;

/// The handle to the writer. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    group: Arc<Mutex<Group>>,
    live_changed: Arc<Notify>,
}

/// The connection, and those who share its transaction. Whoever holds the lock has the turn.
#[derive(Debug)]
pub(super) struct Group {
    options: SqliteConnectOptions,
    /// `None` after its thread has died, or once it is closed.
    connection: Option<SqliteConnection>,
    closed: bool,
    open: Option<Open>,
}

/// A transaction of SQLite that is not committed yet.
#[derive(Debug, Default)]
struct Open {
    outcome: Outcome,
    /// How many are done, and ask for a second turn.
    members: usize,
    /// Somebody writes; or gave up, which is undone by whoever comes next.
    unfinished: bool,
    touches_live: bool,
}

impl Writer {
    pub(super) fn new(connection: SqliteConnection, options: SqliteConnectOptions) -> Self {
        let group = Group {
            options,
            connection: Some(connection),
            closed: false,
            open: None,
        };
        Self {
            group: Arc::new(Mutex::new(group)),
            live_changed: Arc::default(),
        }
    }

    /// Waits for the turn to write: first come, first served.
    pub(super) async fn turn(&self) -> sqlx::Result<OwnedMutexGuard<Group>> {
        let turn = Arc::clone(&self.group).lock_owned();
        let turn = timeout(TURN_TIMEOUT, turn).await;
        turn.map_err(|_| sqlx::Error::PoolTimedOut)
    }

    /// Waits until what was done has been committed, or commits it.
    pub(super) async fn share(&self, outcome: Outcome) -> Result<(), Arc<sqlx::Error>> {
        let mut group = self.group.lock().await;
        match outcome.get() {
            Some(outcome) => outcome.clone(),
            None => group.commit(&self.live_changed).await,
        }
    }

    /// Undoes what somebody left who gave up, if nobody else is there to do it: an open transaction keeps
    /// other processes out.
    pub(super) async fn tidy(&self) {
        let mut group = self.group.lock().await;
        if group.open.as_ref().is_some_and(|open| open.members == 0) {
            group.roll_back().await;
        }
    }

    /// Waits until a commit has changed which conferences are live.
    pub(super) async fn live_changed(&self) {
        self.live_changed.notified().await;
    }

    /// Closes the connection, for good.
    pub(super) async fn close(&self) {
        let mut group = self.group.lock().await;
        group.closed = true;
        if group.open.is_some() {
            group.fail(sqlx::Error::PoolClosed).await;
        }
        if let Some(connection) = group.connection.take() {
            // What was committed is on disk; a connection that can't be closed well is closed all the same.
            let _ = connection.close().await;
        }
    }
}

impl Group {
    /// The connection, to write with.
    pub(super) fn connection(&mut self) -> sqlx::Result<&mut SqliteConnection> {
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    // Boxed: the compiler can't tell that sqlx's own future may move between threads.
    fn run(
        &mut self,
        sql: &'static str,
    ) -> Pin<Box<dyn Future<Output = sqlx::Result<()>> + Send + '_>> {
        Box::pin(async move {
            // Prepared once: it comes with every transaction.
            sqlx::query(sql).execute(self.connection()?).await?;
            Ok(())
        })
    }

    /// Begins: joins those who are there, or opens a transaction of SQLite. Must not be dropped half-way.
    pub(super) async fn enter(&mut self) -> sqlx::Result<()> {
        if let Some(open) = &mut self.open {
            let step = if std::mem::replace(&mut open.unfinished, true) {
                "ROLLBACK TO member"
            } else {
                "RELEASE member; SAVEPOINT member"
            };
            match self.run(step).await {
                Ok(()) => return Ok(()),
                Err(error) => self.fail(error).await,
            };
        }
        if self.closed {
            return Err(sqlx::Error::PoolClosed);
        }
        if self.connection.is_none() {
            self.connection = Some(self.options.connect().await?);
        }
        self.open = Some(Open {
            unfinished: true,
            ..Open::default()
        });
        let begun = self.run("BEGIN IMMEDIATE; SAVEPOINT member").await;
        if begun.is_err() {
            self.roll_back().await;
        }
        begun
    }

    /// Whoever has the turn is done: this is how they will know that it was committed.
    pub(super) fn finish(&mut self, touches_live: bool) -> Outcome {
        let open = self.open.get_or_insert_default();
        open.members += 1;
        open.unfinished = false;
        open.touches_live |= touches_live;
        Arc::clone(&open.outcome)
    }

    async fn commit(&mut self, live_changed: &Notify) -> Result<(), Arc<sqlx::Error>> {
        let given_up = self.open.as_ref().is_some_and(|open| open.unfinished);
        let step = if given_up {
            "ROLLBACK TO member; RELEASE member; COMMIT"
        } else {
            "RELEASE member; COMMIT"
        };
        if let Err(error) = self.run(step).await {
            return Err(self.fail(error).await);
        }
        if let Some(open) = self.open.take() {
            // Set but once: it goes with the transaction.
            let _ = open.outcome.set(Ok(()));
            if open.touches_live {
                live_changed.notify_one();
            }
        }
        Ok(())
    }

    /// Tells all who share that nothing was done, and sees to it.
    async fn fail(&mut self, error: sqlx::Error) -> Arc<sqlx::Error> {
        let error = Arc::new(error);
        if let Some(open) = &self.open {
            let _ = open.outcome.set(Err(Arc::clone(&error)));
        }
        self.roll_back().await;
        error
    }

    /// When SQLite has rolled back by itself, there is nothing left to undo, and it says so with an error.
    async fn roll_back(&mut self) {
        self.open = None;
        if let Err(sqlx::Error::WorkerCrashed) = self.run("ROLLBACK").await {
            self.connection = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::{DateTime, TimeDelta, Utc};
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions, Executor};
    use tempfile::TempDir;
    use tokio::task::JoinHandle;

    use super::super::{Result, Store, StoreError, Tx};
    use crate::domain::conference::Conference;

    async fn store() -> (TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("usher.db").display());
        let store = Store::open(&url, "meet.example.com").await.unwrap();
        (dir, store)
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    async fn write(tx: &mut Tx, room: &str) {
        let room = Conference::from_names(room, None, "meet.example.com").unwrap();
        let until = now() + TimeDelta::hours(1);
        tx.set_live(&[&room], now(), until).await.unwrap();
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

    /// One is done, and asks for the commit, while another has the turn.
    async fn one_done_while_another_writes(store: &Store) -> (JoinHandle<Result<()>>, Tx) {
        let mut first = store.begin().await.unwrap();
        write(&mut first, "first").await;
        let another = store.clone();
        let second = tokio::spawn(async move { another.begin().await });
        // It stands in line before the first asks again.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let first = tokio::spawn(first.commit());
        (first, second.await.unwrap().unwrap())
    }

    #[tokio::test]
    async fn those_who_wait_share_a_commit_and_none_is_told_before_it() {
        let (_dir, store) = store().await;
        let (first, mut second) = one_done_while_another_writes(&store).await;
        write(&mut second, "second").await;
        assert!(!first.is_finished());
        assert!(written(&store).await.is_empty());
        second.commit().await.unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(written(&store).await, ["first", "second"]);
    }

    #[tokio::test]
    async fn who_gives_up_takes_nothing_of_the_others_along() {
        let (_dir, store) = store().await;
        let (first, mut second) = one_done_while_another_writes(&store).await;
        write(&mut second, "second").await;
        drop(second);
        let mut third = store.begin().await.unwrap();
        write(&mut third, "third").await;
        third.commit().await.unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(written(&store).await, ["first", "third"]);
    }

    #[tokio::test]
    async fn who_gives_up_alone_keeps_no_other_process_out() {
        let (dir, store) = store().await;
        let mut given_up = store.begin().await.unwrap();
        write(&mut given_up, "given-up").await;
        drop(given_up);
        let file = dir.path().join("usher.db");
        let other = SqliteConnectOptions::new().filename(file);
        let mut other = other.connect().await.unwrap();
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        other.execute("ROLLBACK").await.unwrap();
        assert!(written(&store).await.is_empty());
    }

    #[tokio::test]
    async fn commit_that_nobody_waits_for_any_more_is_made_all_the_same() {
        let (_dir, store) = store().await;
        let (first, second) = one_done_while_another_writes(&store).await;
        first.abort();
        drop(second);
        store.begin().await.unwrap().commit().await.unwrap();
        assert_eq!(written(&store).await, ["first"]);
    }

    #[tokio::test]
    async fn all_who_share_are_told_when_the_database_undid_everything() {
        let (_dir, store) = store().await;
        let (first, mut second) = one_done_while_another_writes(&store).await;
        // As SQLite does by itself on a full disk.
        let connection = second.group.connection().unwrap();
        connection.execute("ROLLBACK").await.unwrap();
        write(&mut second, "second").await;
        assert!(matches!(
            second.commit().await,
            Err(StoreError::Unavailable(_))
        ));
        assert!(matches!(
            first.await.unwrap(),
            Err(StoreError::Unavailable(_))
        ));
        // A write outside of any transaction is SQLite's own commit; ours is not in it.
        assert_eq!(written(&store).await, ["second"]);
        let mut third = store.begin().await.unwrap();
        write(&mut third, "third").await;
        third.commit().await.unwrap();
        assert_eq!(written(&store).await, ["second", "third"]);
    }
}
