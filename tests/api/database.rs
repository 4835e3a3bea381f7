//! The database as other processes treat it: its file, a second service, backups, and what it costs when it is large.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use crate::process::{Process, free_address, run, stderr, stdout, usher, wait_for, write_config};

/// Runs SQL on a database that no service has open, or beside one.
fn execute(database: &Path, sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(database);
        let options = options.create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

/// A database with this content.
fn create(dir: &Path, sql: &str) -> std::path::PathBuf {
    let database = dir.join("usher.db");
    drop(Process::start(dir, &database));
    execute(&database, sql);
    database
}

/// `count` rows, whose numbers are `n`.
fn rows(count: usize, insert: &str, values: &str) -> String {
    format!(
        "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {count})
         INSERT INTO {insert} SELECT {values} FROM number;"
    )
}

fn live_rows(count: usize) -> String {
    let columns = "live (room, tenant, live_since, live_until)";
    rows(count, columns, "'live' || n, '', 0, 9999999999999")
}

fn golive(process: &Process, what: &str, room: &str) {
    let body = json!({ "conference": format!("{room}@conference.meet.example.com") });
    let status = process.post(&format!("/waiting-queue/{what}"), &body);
    assert_eq!(status, StatusCode::OK);
}

#[test]
fn lost_database_file_is_a_503_until_it_is_back() {
    let dir = TempDir::new().unwrap();
    let (database, moved) = (dir.path().join("usher.db"), dir.path().join("moved.db"));
    let process = Process::start(dir.path(), &database);
    assert_eq!(process.open("before").0, StatusCode::CREATED);
    let is_lost = || {
        let metrics = process.text("/metrics");
        metrics.contains("\nusher_database_file_lost 1\n")
    };
    for change in ["removed", "replaced"] {
        std::fs::rename(&database, &moved).unwrap();
        if change == "replaced" {
            std::fs::copy(&moved, &database).unwrap();
        }
        let (status, body) = process.open("during");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{change}");
        assert!(body["message"].as_str().unwrap().contains(change), "{body}");
        wait_for("the metric", is_lost);
        std::thread::sleep(Duration::from_millis(1100));
        let (status, body) = process.get("/ready");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["reasons"][0]["check"], "store", "{body}");
        assert!(body["message"].as_str().unwrap().contains(change), "{body}");
        let checked = run(dir.path(), &["check"]);
        assert_eq!(checked.status.code(), Some(1));
        let report = stdout(&checked);
        assert!(report.contains(&format!("was {change}")), "{report}");

        std::fs::rename(&moved, &database).unwrap();
        assert_eq!(process.open(change).0, StatusCode::CREATED);
        wait_for("the metric", || !is_lost());
        wait_for("readiness", || process.get("/ready").0 == StatusCode::OK);
    }
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    for line in ["was removed", "was replaced"] {
        let lines = log
            .lines()
            .filter(|it| it.contains("the database file is lost"));
        assert_eq!(lines.filter(|it| it.contains(line)).count(), 1, "{log}");
    }
}

#[test]
fn second_service_on_a_database_is_refused_and_commands_are_not() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("usher.db");
    let first = Process::start(dir.path(), &database);
    // The same file under another name.
    let other = TempDir::new().unwrap();
    std::os::unix::fs::symlink(&database, other.path().join("linked.db")).unwrap();
    write_config(
        other.path(),
        free_address(),
        &other.path().join("linked.db"),
    );
    let second = run(other.path(), &["serve"]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let reason = stderr(&second);
    assert!(
        reason.contains("another usher serves the database"),
        "{reason}"
    );
    assert!(
        reason.contains(&format!("process {}", first.id())),
        "{reason}"
    );

    let added = run(
        dir.path(),
        &["bookings", "add", "--room", "standup", "--for", "1h"],
    );
    assert!(added.status.success(), "{}", stderr(&added));
    assert_eq!(first.open("room").0, StatusCode::CREATED);
    first.signal("-KILL");
    first.wait();
    let again = Process::start(dir.path(), &database);
    assert_eq!(again.open("room").0, StatusCode::CONFLICT);
}

#[test]
fn killed_backup_leaves_no_file_that_looks_complete() {
    let dir = TempDir::new().unwrap();
    let columns = "decision (decided_at, room, tenant, mail_owner, outcome, reason, sentence)";
    let values = "9999999999999, 'room' || n, '', '', 'allowed', 'booked', 'It is booked.'";
    let database = create(dir.path(), &rows(20_000, columns, values));
    let copy = dir.path().join("copy.db");
    let mut interrupted = 0;
    for round in 0..20 {
        let mut backup = usher(dir.path())
            .args(["backup", "copy.db"])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(3 * round));
        let _ = backup.kill();
        backup.wait().unwrap();
        if copy.exists() {
            let size = copy.metadata().unwrap().len();
            assert!(size > 1 << 20, "{size} bytes after round {round}");
            std::fs::remove_file(&copy).unwrap();
        } else {
            interrupted += 1;
        }
    }
    assert!(interrupted > 0);
    std::fs::write(dir.path().join("copy.db.part"), "of another run").unwrap();
    let output = run(dir.path(), &["backup", "copy.db"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!dir.path().join("copy.db.part").exists());
    write_config(dir.path(), free_address(), &copy);
    let listed = run(dir.path(), &["decisions"]);
    assert!(stdout(&listed).contains("room20000"), "{listed:?}");
    drop(database);
}

#[test]
fn database_without_tables_of_usher_is_refused_unless_it_is_new() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("usher.db");
    write_config(dir.path(), free_address(), &database);
    for sql in ["CREATE TABLE other (n INTEGER)", "PRAGMA user_version = 7"] {
        let _ = std::fs::remove_file(&database);
        execute(&database, sql);
        let before = std::fs::read(&database).unwrap();
        for command in [
            &["serve"][..],
            &["bookings", "list"],
            &["backup", "copy.db"],
        ] {
            let refused = run(dir.path(), command);
            assert_eq!(refused.status.code(), Some(1), "{command:?}");
            let reason = stderr(&refused);
            assert!(reason.contains("no tables of usher"), "{reason}");
        }
        let checked = stdout(&run(dir.path(), &["check"]));
        assert!(checked.contains("no tables of usher"), "{checked}");
        assert_eq!(std::fs::read(&database).unwrap(), before);
    }
    // The package installs an empty file; a first start may be interrupted.
    std::fs::write(&database, "").unwrap();
    let process = Process::start(dir.path(), &database);
    assert_eq!(process.open("room").0, StatusCode::CREATED);
    drop(process);
    assert!(!dir.path().join("usher.db-new").exists());
    let _ = std::fs::remove_file(&database);
    execute(&database, "PRAGMA user_version = 7");
    std::fs::write(dir.path().join("usher.db-new"), "").unwrap();
    let process = Process::start(dir.path(), &database);
    assert_eq!(process.open("room").0, StatusCode::CREATED);
}

#[test]
fn requests_come_between_the_portions_of_a_purge() {
    let dir = TempDir::new().unwrap();
    let columns = "decision (decided_at, room, tenant, mail_owner, outcome, reason, sentence)";
    let values = "1000, 'room' || n, '', '', 'allowed', 'booked', 'It is booked.'";
    let database = create(dir.path(), &rows(300_000, columns, values));
    let process = Process::start(dir.path(), &database);
    let mut longest = Duration::ZERO;
    for n in 0..100 {
        let begun = Instant::now();
        assert_eq!(process.open(&format!("new{n}")).0, StatusCode::CREATED);
        longest = longest.max(begun.elapsed());
        std::thread::sleep(Duration::from_millis(10));
    }
    // 20 ms, five times and more.
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    let decisions = || {
        let (_, body) = process.get("/api/v1/decisions?limit=1000");
        body["decisions"].as_array().unwrap().len()
    };
    wait_for("the end of the purge", || decisions() == 100);
}

#[test]
fn many_conferences_are_listed_with_few_queries() {
    let dir = TempDir::new().unwrap();
    let columns =
        "booking (room, tenant, starts_at, ends_at, lobby, waiting_queue, created_at, changed_at)";
    let values = "'live' || n, '', 1000, NULL, 0, n % 2, 1000, 1000";
    let sql = live_rows(20_000) + &rows(20_000, columns, values);
    let database = create(dir.path(), &sql);
    let process = Process::start(dir.path(), &database);
    let begun = Instant::now();
    let (status, body) = process.get("/waiting-queue/conferences");
    let took = begun.elapsed();
    assert_eq!(status, StatusCode::OK);
    let list = body["conferences"].as_array().unwrap();
    assert_eq!(list.len(), 20_000);
    let waiting = list.iter().filter(|it| it["waitingQueue"] == true).count();
    assert_eq!(waiting, 10_000);
    // 300 ms, five times.
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[test]
fn cost_of_going_live_and_ending_does_not_depend_on_how_many_conferences_are_live() {
    let cost = |live: usize| {
        let dir = TempDir::new().unwrap();
        let columns = "booking (room, tenant, starts_at, ends_at, lobby, waiting_queue, auto_live, created_at, changed_at)";
        let values = "'live' || n, '', 9999999000000, 9999999999999, 0, 1, 5, 1000, 1000";
        let database = create(
            dir.path(),
            &(live_rows(live) + &rows(live, columns, values)),
        );
        let process = Process::start(dir.path(), &database);
        golive(&process, "golive", "first");
        let begun = process.cpu_ticks();
        for n in 0..100 {
            golive(&process, "golive", &format!("room{n}"));
            golive(&process, "endlive", &format!("room{n}"));
        }
        process.cpu_ticks() - begun
    };
    let (few, many) = (cost(1_000), cost(60_000));
    println!("ticks of CPU time for 200 changes: {few} with 1,000 live, {many} with 60,000");
    assert!(many < 5 * few.max(10), "{few} ticks became {many}");
}
