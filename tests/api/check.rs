//! `usher check`: its findings and how it prints them. tests/package runs it beside a real nginx and Prosody.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, free_address, run, stdout, usher, wait_for};

/// Runs the check with `config`. Other programs are not installed unless named.
fn check(dir: &TempDir, config: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let all = [&["check", "--json"], arguments].concat();
    let output = run(dir.path(), &all);
    let printed = stdout(&output);
    let report: Value = serde_json::from_str(&printed)
        .unwrap_or_else(|error| panic!("{error}: {printed:?} {output:?}"));
    assert_eq!(report["sound"], output.status.success());
    (output.status.code(), report)
}

#[track_caller]
fn finding<'r>(report: &'r Value, about: &str) -> &'r Value {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["about"] == about);
    found.unwrap_or_else(|| panic!("nothing about {about}: {report:#}"))
}

#[test]
fn every_finding_that_failed_names_its_remedy_and_fails_the_check() {
    let dir = TempDir::new().unwrap();
    let config_js = dir.path().join("config.js");
    let path = config_js.display().to_string();
    for (line, state) in [
        (
            "visitors: { queueService: 'meet.example.com/waiting-queue' }",
            "ok",
        ),
        (
            "visitors: { queueService: 'https://meet.example.com/waiting-queue' }",
            "failed",
        ),
        (
            "visitors: { queueService: 'meet.example.com/other' }",
            "failed",
        ),
        ("// queueService: 'meet.example.com/waiting-queue'", "note"),
    ] {
        fs::write(&config_js, line).unwrap();
        let (code, report) = check(
            &dir,
            "server.listen = \"127.0.0.1:0\"",
            &["--config-js", &path],
        );
        let found = finding(&report, "config.js");
        assert_eq!(found["state"], state, "{line}: {found}");
        assert_eq!(
            found["remedy"].is_string(),
            state != "ok",
            "{line}: {found}"
        );
        assert_eq!(
            code,
            Some(i32::from(state == "failed")),
            "{line}: {report:#}"
        );
    }
}

#[test]
fn missing_programs_are_no_error() {
    let dir = TempDir::new().unwrap();
    let (code, report) = check(&dir, "xmpp.domain = \"meet.nowhere.test\"", &[]);
    assert_eq!(finding(&report, "config.js")["state"], "not_here");
    assert_eq!(
        finding(&report, "conference requests over HTTP")["state"],
        "not_here"
    );
    assert_eq!(code, Some(0), "{report:#}");
}

#[test]
fn errors_of_the_configuration_are_findings() {
    let dir = TempDir::new().unwrap();
    let config = "server.listen = \"nowhere\"\nqueue.pth = \"/q\"";
    let (code, report) = check(&dir, config, &[]);
    assert_eq!(code, Some(64));
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 2, "{report:#}");
    for (found, says) in findings
        .iter()
        .zip(["config.toml:1: server.listen", "config.toml:2: queue.pth"])
    {
        assert!(found["says"].as_str().unwrap().contains(says), "{found}");
        assert!(found["remedy"].is_string(), "{found}");
    }
}

#[test]
fn the_program_at_the_address_is_identified() {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    let config = format!("server.listen = \"{address}\"");
    let (code, report) = check(&dir, &config, &[]);
    let found = finding(&report, "server.listen");
    assert_eq!(
        (code, &found["state"]),
        (Some(0), &Value::from("note")),
        "{found}"
    );

    let child = usher(dir.path()).stderr(Stdio::null()).spawn().unwrap();
    let process = Process::running(child, address);
    let (_, report) = check(&dir, &config, &[]);
    assert_eq!(
        finding(&report, "server.listen")["state"],
        "ok",
        "{report:#}"
    );
    drop(process);

    let listener = std::net::TcpListener::bind(address).unwrap();
    let other = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 1024]).unwrap();
        socket
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
            .unwrap();
    });
    let (code, report) = check(&dir, &config, &[]);
    other.join().unwrap();
    let found = finding(&report, "server.listen");
    assert_eq!(
        (code, &found["state"]),
        (Some(1), &Value::from("failed")),
        "{found}"
    );
    assert!(
        found["says"].as_str().unwrap().contains("another program"),
        "{found}"
    );
}

#[test]
fn the_check_never_prints_a_secret() {
    let dir = TempDir::new().unwrap();
    let secret = "0123456789-this-is-the-secret-of-the-test";
    let config = format!("auth.secret = \"{secret}\"\nauth.service.tokens = [\"{secret}\"]");
    let (_, report) = check(&dir, &config, &["--token", secret]);
    assert_eq!(finding(&report, "token")["state"], "ok", "{report:#}");
    assert!(!report.to_string().contains(secret), "{report:#}");
}

#[test]
fn the_check_leaves_the_directory_as_it_is() {
    let dir = TempDir::new().unwrap();
    let (code, report) = check(&dir, "server.listen = \"127.0.0.1:0\"", &[]);
    assert_eq!(code, Some(0), "{report:#}");
    let says = finding(&report, "database")["says"].as_str().unwrap();
    assert!(says.contains("is created when usher starts"), "{says}");
    let says = finding(&report, "keys")["says"].as_str().unwrap();
    assert!(says.contains("usher.secret"), "{says}");
    let left = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["config.toml"]);

    let (_, report) = check(&dir, "", &["--token", "a.b.c"]);
    assert_eq!(finding(&report, "token")["state"], "failed", "{report:#}");
    assert!(!dir.path().join("usher.secret").exists());

    let (code, report) = check(&dir, "database.url = \"sqlite:nowhere/usher.db\"", &[]);
    assert_eq!(
        (code, &finding(&report, "database")["state"]),
        (Some(1), &Value::from("failed"))
    );
}

/// A database of an earlier version: without the newest migration.
fn earlier(dir: &TempDir) {
    static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/store/migrations/sqlite");
    fs::write(
        dir.path().join("config.toml"),
        "server.listen = \"127.0.0.1:0\"",
    )
    .unwrap();
    let url = format!("sqlite:{}?mode=rwc", dir.path().join("usher.db").display());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let database = sqlx::SqlitePool::connect(&url).await.unwrap();
        MIGRATIONS.run_to(3, &database).await.unwrap();
        database.close().await;
    });
}

fn sql(dir: &TempDir, statements: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use sqlx::Connection;
        let url = format!("sqlite:{}", dir.path().join("usher.db").display());
        let mut database = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let statements = statements.to_owned();
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
            .execute(&mut database)
            .await
            .unwrap();
        database.close().await.unwrap();
    });
}

fn versions(file: &std::path::Path) -> i64 {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use sqlx::Connection;
        let url = format!("sqlite:{}", file.display());
        let mut database = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let versions = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations");
        versions.fetch_one(&mut database).await.unwrap()
    })
}

#[test]
fn check_and_backup_leave_an_earlier_database_as_it_is() {
    let dir = TempDir::new().unwrap();
    earlier(&dir);
    let database = dir.path().join("usher.db");
    let before = versions(&database);
    let (code, report) = check(&dir, "server.listen = \"127.0.0.1:0\"", &[]);
    let found = finding(&report, "database");
    assert_eq!(
        (code, &found["state"]),
        (Some(0), &Value::from("note")),
        "{found}"
    );
    assert!(
        found["remedy"].as_str().unwrap().contains("usher backup"),
        "{found}"
    );
    assert_eq!(versions(&database), before);

    let output = run(dir.path(), &["backup", "copy.db"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(versions(&database), before);
    assert_eq!(versions(&dir.path().join("copy.db")), before);

    // Any other command migrates it.
    assert!(run(dir.path(), &["bookings", "list"]).status.success());
    assert!(versions(&database) > before);
    let upstream =
        "reservations.backend = \"upstream\"\nreservations.upstream.url = \"http://127.0.0.1:1\"";
    let (_, report) = check(&dir, upstream, &[]);
    assert_eq!(finding(&report, "database")["state"], "ok", "{report:#}");
    let says = &finding(&report, "outbox")["says"];
    assert_eq!(says, "0 deletions wait to be delivered");
}

#[test]
fn a_database_of_a_later_version_is_reported() {
    let dir = TempDir::new().unwrap();
    earlier(&dir);
    sql(
        &dir,
        "UPDATE _sqlx_migrations SET version = 9999 WHERE version = 1",
    );
    let (code, report) = check(&dir, "server.listen = \"127.0.0.1:0\"", &[]);
    let found = finding(&report, "database");
    assert_eq!(
        (code, &found["state"]),
        (Some(1), &Value::from("failed")),
        "{found}"
    );
    assert!(found["says"].as_str().unwrap().contains("later"), "{found}");
}

#[test]
fn a_file_that_is_no_database_is_not_a_matter_of_rights() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("usher.db"), "<html>no database</html>").unwrap();
    for (url, says) in [
        ("sqlite:usher.db", "is no SQLite database"),
        ("sqlite:.", "is a directory"),
    ] {
        let (code, report) = check(&dir, &format!("database.url = \"{url}\""), &[]);
        let found = finding(&report, "database");
        assert_eq!(
            (code, &found["state"]),
            (Some(1), &Value::from("failed")),
            "{found}"
        );
        assert!(found["says"].as_str().unwrap().contains(says), "{found}");
        assert!(
            !found["remedy"].as_str().unwrap().contains("writable"),
            "{found}"
        );
    }
}

#[test]
fn a_running_usher_that_is_not_ready_is_reported_with_its_reasons() {
    let dir = TempDir::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let service = std::thread::spawn(move || {
        use std::io::{Read, Write};
        loop {
            let (mut socket, _) = listener.accept().unwrap();
            let mut head = [0; 2048];
            let length = socket.read(&mut head).unwrap();
            let path = String::from_utf8_lossy(&head[..length]).into_owned();
            let (status, body) = if path.starts_with("GET /ready") {
                (
                    503,
                    r#"{"reasons":[{"check":"store","message":"The file is gone."}]}"#,
                )
            } else if path.starts_with("GET /about") {
                (200, r#"{"name":"usher"}"#)
            } else if path.starts_with("GET /stop") {
                break;
            } else {
                (404, "{}")
            };
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
            let answer = format!("{head}Connection: close\r\n\r\n{body}");
            socket.write_all(answer.as_bytes()).unwrap();
        }
    });
    let (code, report) = check(&dir, &format!("server.listen = \"{address}\""), &[]);
    let found = finding(&report, "readiness");
    assert_eq!((code, &found["state"]), (Some(1), &Value::from("failed")));
    assert!(
        found["says"]
            .as_str()
            .unwrap()
            .contains("The file is gone."),
        "{found}"
    );
    let _ = reqwest::blocking::get(format!("http://{address}/stop"));
    service.join().unwrap();
}

#[test]
fn a_configuration_that_changed_after_it_was_read_is_reported() {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    let config = format!("server.listen = \"{address}\"\nxmpp.domain_file = \"domain\"");
    fs::write(dir.path().join("domain"), "meet.example.org").unwrap();
    fs::write(dir.path().join("config.toml"), &config).unwrap();
    let child = usher(dir.path()).stderr(Stdio::null()).spawn().unwrap();
    let process = Process::running(child, address);
    let state = || {
        let output = run(dir.path(), &["check", "--json"]);
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        finding(&report, "running configuration").clone()
    };
    assert_eq!(state()["state"], "ok");
    for file in ["config.toml", "domain"] {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let text = fs::read_to_string(dir.path().join(file)).unwrap();
        fs::write(dir.path().join(file), text + "\n").unwrap();
        let changed = state();
        assert_eq!(changed["state"], "failed", "{changed}");
        assert!(
            changed["says"].as_str().unwrap().contains(file),
            "{changed}"
        );
        assert!(
            changed["remedy"]
                .as_str()
                .unwrap()
                .contains("systemctl reload usher")
        );
        process.signal("-HUP");
        wait_for("the reload", || state()["state"] == "ok");
    }
}

#[test]
fn a_missing_database_has_no_backup() {
    let dir = TempDir::new().unwrap();
    let output = run(dir.path(), &["backup", "copy.db"]);
    assert!(!output.status.success());
    assert!(!dir.path().join("copy.db").exists() && !dir.path().join("usher.db").exists());
}

#[test]
fn configuration_only_checks_nothing_else() {
    let dir = TempDir::new().unwrap();
    // No service answers there, and a reload would accept it.
    let config = "auth.key_server = \"http://127.0.0.1:1/\"";
    let (code, report) = check(&dir, config, &["--configuration-only"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(check(&dir, config, &[]).0, Some(1));
    fs::write(dir.path().join("key.pem"), "").unwrap();
    let (code, report) = check(
        &dir,
        "auth.public_keys.a = \"key.pem\"",
        &["--configuration-only"],
    );
    assert_eq!(
        (code, &finding(&report, "keys")["state"]),
        (Some(1), &Value::from("failed"))
    );
    let (code, _) = check(&dir, "queue.pth = 1", &["--configuration-only"]);
    assert_eq!(code, Some(64));
}
