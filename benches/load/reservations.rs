//! Conferences asked for, each answer durable, beside what the disk can do.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};

use super::Run;
use super::http::Caller;
use super::report::{Spread, progress};
use super::server::{Server, scratch};

const CLIENTS: usize = 64;
/// How long each is measured.
const MEASURED: Duration = Duration::from_secs(5);
/// About what a decision takes.
const RECORD: [u8; 256] = [b'r'; 256];

pub(crate) fn reservations(run: &mut Run) {
    progress("  the disk, by itself");
    let synced = syncs_a_second();
    let committed = commits_a_second();
    let server = Server::start();
    progress("  one client");
    let (alone, alone_times) = posts_a_second(&server, 1);
    progress(format!("  {CLIENTS} clients"));
    let (many, many_times) = posts_a_second(&server, CLIENTS);
    drop(server);
    // Commits slow down as disks please: once more, and the mean of both.
    let synced = [synced, syncs_a_second()];
    let committed = [committed, commits_a_second()];
    let both = json!({ "syncs_per_second": synced, "sqlite_commits_per_second": committed });
    let synced = f64::midpoint(synced[0], synced[1]);
    let committed = f64::midpoint(committed[0], committed[1]);

    let report = &mut run.report;
    report.row(
        "the disk: a record appended and synced, again and again",
        &format!("{synced:.0} a second"),
    );
    report.row(
        "the same as commits of SQLite, WAL and synchronous = FULL",
        &format!("{committed:.0} a second"),
    );
    report.row(
        "POST /conference, one client; half and 99 % within",
        &format!(
            "{alone:.0} a second; {:.1}; {:.1} ms",
            alone_times.half_ms, alone_times.most_ms
        ),
    );
    report.row(
        &format!("POST /conference, {CLIENTS} clients; half and 99 % within"),
        &format!(
            "{many:.0} a second; {:.1}; {:.1} ms",
            many_times.half_ms, many_times.most_ms
        ),
    );
    report.at_least(
        &format!("{CLIENTS} clients' POSTs ÷ the disk's limit"),
        many / synced,
        1.0,
        "",
    );
    // A log that SQLite writes over and over needn't grow, so its commits may well be the faster ones.
    report.row(
        &format!("{CLIENTS} clients' POSTs ÷ commits of SQLite"),
        &format!("{:.2}", many / committed),
    );
    report.at_most(
        &format!("{CLIENTS} clients' POSTs, 99 % within"),
        many_times.most_ms,
        50.0,
        "ms",
    );
    report.keep(
        "reservations",
        json!({
            "syncs_per_second": synced, "sqlite_commits_per_second": committed,
            "one_client": { "per_second": alone, "ms": alone_times.json() },
            "many_clients": { "clients": CLIENTS, "per_second": many, "ms": many_times.json() },
            "many_over_syncs": many / synced, "before_and_after": both,
        }),
    );
}

/// The time as Prosody tells it: usher has something to say about clocks that differ.
fn prosodys_time() -> String {
    let now = chrono::DateTime::<chrono::Utc>::from(SystemTime::now());
    now.format("%Y-%m-%dT%H%%3A%M%%3A%S%.3fZ").to_string()
}

/// Records appended to a file, each on disk before the next.
fn syncs_a_second() -> f64 {
    let dir = scratch();
    let mut file = std::fs::File::create(dir.path().join("records")).unwrap();
    let (begun, mut done) = (Instant::now(), 0_u32);
    while begun.elapsed() < MEASURED {
        file.write_all(&RECORD).unwrap();
        file.sync_data().unwrap();
        done += 1;
    }
    f64::from(done) / begun.elapsed().as_secs_f64()
}

/// Records inserted into a table of SQLite, each in a transaction of its own, with usher's settings.
fn commits_a_second() -> f64 {
    let dir = scratch();
    let options = SqliteConnectOptions::new()
        .filename(dir.path().join("records.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query("CREATE TABLE records (record BLOB)")
            .execute(&mut connection)
            .await
            .unwrap();
        let (begun, mut done) = (Instant::now(), 0_u32);
        while begun.elapsed() < MEASURED {
            sqlx::query("INSERT INTO records VALUES (?)")
                .bind(&RECORD[..])
                .execute(&mut connection)
                .await
                .unwrap();
            done += 1;
        }
        let rate = f64::from(done) / begun.elapsed().as_secs_f64();
        connection.close().await.unwrap();
        rate
    })
}

/// Conferences asked for by so many clients at a time, with a connection each; how many were answered a
/// second, and after how long. They are deleted when that is over.
fn posts_a_second(server: &Server, clients: usize) -> (f64, Spread) {
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    let answered: Vec<_> = std::thread::scope(|scope| {
        let working: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    let mut caller = Caller::new(server.address);
                    let (mut times, mut ids) = (Vec::new(), Vec::new());
                    while begun.elapsed() < MEASURED {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let form = format!(
                            "name=room-{clients}-{n}&start_time={}&mail_owner=someone%40meet.example.com",
                            prosodys_time()
                        );
                        let asked = Instant::now();
                        let (status, body) = caller.post_form("/conference", &form);
                        times.push(asked.elapsed());
                        assert!((200..300).contains(&status), "{status}: {body}");
                        let body: Value = serde_json::from_str(&body).unwrap();
                        ids.push(body["id"].as_i64().unwrap());
                    }
                    (times, ids)
                })
            })
            .collect();
        working.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let elapsed = begun.elapsed().as_secs_f64();
    let (times, ids): (Vec<_>, Vec<_>) = answered.into_iter().unzip();
    let times: Vec<Duration> = times.into_iter().flatten().collect();
    let a_second = times.len() as f64 / elapsed;
    // What the measure left would be in the way of the next.
    std::thread::scope(|scope| {
        for ids in ids {
            scope.spawn(move || {
                let mut caller = Caller::new(server.address);
                for id in ids {
                    caller.delete(&format!("/conference/{id}"));
                }
            });
        }
    });
    (a_second, Spread::of(times))
}
