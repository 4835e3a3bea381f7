//! Rate and latency of POST /conference, compared with the sync rate of the disk. Each response is durable.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};

use super::Run;
use super::http::HttpClient;
use super::report::{Latencies, progress};
use super::server::{Server, scratch};

const CLIENTS: usize = 64;
/// Duration of each measurement.
const MEASURED: Duration = Duration::from_secs(5);
/// About the size of the record of a decision.
const RECORD: [u8; 256] = [b'r'; 256];

pub(crate) fn reservations(run: &mut Run) {
    progress("  the disk alone");
    let synced = syncs_per_second();
    let committed = commits_per_second();
    let server = Server::start();
    progress("  one client");
    let (alone, alone_times) = posts_per_second(&server, 1);
    progress(format!("  {CLIENTS} clients"));
    let (many, many_times) = posts_per_second(&server, CLIENTS);
    drop(server);
    // The speed of a disk varies: measured before and after, and the mean is used.
    let synced = [synced, syncs_per_second()];
    let committed = [committed, commits_per_second()];
    let both = json!({ "syncs_per_second": synced, "sqlite_commits_per_second": committed });
    let synced = f64::midpoint(synced[0], synced[1]);
    let committed = f64::midpoint(committed[0], committed[1]);

    let report = &mut run.report;
    report.row(
        "disk: one record appended and synced, repeatedly",
        &format!("{synced:.0} a second"),
    );
    report.row(
        "SQLite: one record per commit, WAL and synchronous = FULL",
        &format!("{committed:.0} a second"),
    );
    report.row(
        "POST /conference, one client; median and 99 %",
        &format!(
            "{alone:.0} a second; {:.1}; {:.1} ms",
            alone_times.median_ms, alone_times.p99_ms
        ),
    );
    report.row(
        &format!("POST /conference, {CLIENTS} clients; median and 99 %"),
        &format!(
            "{many:.0} a second; {:.1}; {:.1} ms",
            many_times.median_ms, many_times.p99_ms
        ),
    );
    report.at_least(
        &format!("{CLIENTS} clients: POSTs ÷ disk syncs"),
        many / synced,
        1.0,
        "",
    );
    // SQLite reuses its write-ahead log, which then does not grow, so its commits can be faster than appends.
    report.row(
        &format!("{CLIENTS} clients: POSTs ÷ SQLite commits"),
        &format!("{:.2}", many / committed),
    );
    report.at_most(
        &format!("{CLIENTS} clients: POST latency, 99 %"),
        many_times.p99_ms,
        50.0,
        "ms",
    );
    report.record(
        "reservations",
        json!({
            "syncs_per_second": synced, "sqlite_commits_per_second": committed,
            "one_client": { "per_second": alone, "ms": alone_times.json() },
            "many_clients": { "clients": CLIENTS, "per_second": many, "ms": many_times.json() },
            "many_over_syncs": many / synced, "before_and_after": both,
        }),
    );
}

/// The current time in the format that Prosody sends. usher warns when the clocks differ.
fn current_time() -> String {
    let now = chrono::DateTime::<chrono::Utc>::from(SystemTime::now());
    now.format("%Y-%m-%dT%H%%3A%M%%3A%S%.3fZ").to_string()
}

/// Appends records to a file and syncs each one before the next.
fn syncs_per_second() -> f64 {
    let dir = scratch();
    let mut file = std::fs::File::create(dir.path().join("records")).unwrap();
    let (start, mut done) = (Instant::now(), 0_u32);
    while start.elapsed() < MEASURED {
        file.write_all(&RECORD).unwrap();
        file.sync_data().unwrap();
        done += 1;
    }
    f64::from(done) / start.elapsed().as_secs_f64()
}

/// Inserts records into an SQLite table, each in its own transaction, with usher's settings.
fn commits_per_second() -> f64 {
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
        let (start, mut done) = (Instant::now(), 0_u32);
        while start.elapsed() < MEASURED {
            sqlx::query("INSERT INTO records VALUES (?)")
                .bind(&RECORD[..])
                .execute(&mut connection)
                .await
                .unwrap();
            done += 1;
        }
        let rate = f64::from(done) / start.elapsed().as_secs_f64();
        connection.close().await.unwrap();
        rate
    })
}

/// Sends POST /conference from `clients` connections at the same time. Returns the responses per second and
/// their latencies. Deletes the conferences at the end.
fn posts_per_second(server: &Server, clients: usize) -> (f64, Latencies) {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    let mut http = HttpClient::new(server.address);
                    let (mut times, mut ids) = (Vec::new(), Vec::new());
                    while start.elapsed() < MEASURED {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let form = format!(
                            "name=room-{clients}-{n}&start_time={}&mail_owner=user%40meet.example.com",
                            current_time()
                        );
                        let sent_at = Instant::now();
                        let (status, body) = http.post_form("/conference", &form);
                        times.push(sent_at.elapsed());
                        assert!((200..300).contains(&status), "{status}: {body}");
                        let body: Value = serde_json::from_str(&body).unwrap();
                        ids.push(body["id"].as_i64().unwrap());
                    }
                    (times, ids)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let elapsed = start.elapsed().as_secs_f64();
    let (times, ids): (Vec<_>, Vec<_>) = results.into_iter().unzip();
    let times: Vec<Duration> = times.into_iter().flatten().collect();
    let per_second = times.len() as f64 / elapsed;
    // Leftover conferences would slow the next measurement.
    std::thread::scope(|scope| {
        for ids in ids {
            scope.spawn(move || {
                let mut http = HttpClient::new(server.address);
                for id in ids {
                    http.delete(&format!("/conference/{id}"));
                }
            });
        }
    });
    (per_second, Latencies::of(times))
}
