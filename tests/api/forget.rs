//! `usher forget`: what it erases beside a running service, and what it keeps.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::in_seconds;
use crate::process::{Process, run, stderr, stdout, wait_for};

/// The bytes of the database and of its log.
fn stored(dir: &TempDir) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in ["usher.db", "usher.db-wal"] {
        bytes.extend(fs::read(dir.path().join(name)).unwrap_or_default());
    }
    bytes
}

fn holds(dir: &TempDir, text: &str) -> bool {
    stored(dir)
        .windows(text.len())
        .any(|at| at == text.as_bytes())
}

#[test]
fn forgotten_person_is_erased_from_what_is_over() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    let alice = "Alice.Ames@example.com";
    let book = |room: &str, end: i64| {
        let body = json!({
            "room": room, "owner": alice, "title": format!("Alice's {room}"), "password": "hunter2",
            "end": in_seconds(end),
        });
        process.post_json("/api/v1/bookings", &body).1
    };
    let (past, coming) = (book("past", 2), book("coming", 3600));
    let identity = [
        ("user_id", "u-17"),
        ("user_email", alice),
        ("user_name", "Alice Ames"),
    ];
    process.open_as("free", &identity);
    process.open_as("other", &[("user_id", "u-99"), ("user_name", "Bob")]);
    let title = |booking: &Value| {
        let path = format!("/api/v1/bookings/{}", booking["id"]);
        process.get(&path).1
    };
    assert!(holds(&dir, alice) && holds(&dir, "Alice Ames"));
    let is_over = || in_seconds(0).as_str() > past["end"].as_str().unwrap();
    wait_for("the end of the booking", is_over);

    let output = run(dir.path(), &["forget", "alice.ames@EXAMPLE.com"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report = stdout(&output);
    for line in [
        "password of 1 bookings that are over".to_owned(),
        "the user in 1 decisions".to_owned(),
        format!("kept: booking {}, which is not over", coming["id"]),
        "backups".to_owned(),
    ] {
        assert!(report.contains(&line), "{line}: {report}");
    }
    let over = title(&past);
    assert!(
        over.get("owner").is_none() && over.get("title").is_none(),
        "{over}"
    );
    assert_eq!(over["password_set"], false);
    assert_eq!(title(&coming)["owner"], alice);
    let decisions = process.get("/api/v1/decisions").1;
    let text = decisions.to_string();
    assert!(!text.contains("Alice") && !text.contains("u-17"), "{text}");
    assert!(text.contains("u-99") && text.contains("\"free\""), "{text}");

    let cancelled = run(
        dir.path(),
        &["bookings", "cancel", &coming["id"].to_string()],
    );
    assert!(cancelled.status.success(), "{}", stderr(&cancelled));
    let again = run(dir.path(), &["forget", alice]);
    assert!(
        !stdout(&again).contains("kept: booking"),
        "{}",
        stdout(&again)
    );
    drop(process);
    assert!(!holds(&dir, "Alice Ames") && !holds(&dir, "u-17"));
}

#[test]
fn owner_of_a_running_conference_is_kept_until_it_ends() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    let (_, made) = process.open_as("room", &[("mail_owner", "7F3a@meet.example.com")]);
    let owner = made["mail_owner"].as_str().unwrap();
    let running = stdout(&run(dir.path(), &["forget", owner]));
    assert!(
        running.contains("the owner of 1 running conferences"),
        "{running}"
    );
    assert!(running.contains("the user in 1 decisions"), "{running}");
    let path = format!("/conference/{}", made["id"]);
    assert_eq!(process.get(&path).1["mail_owner"], owner);
    process.delete(&path);
    let over = stdout(&run(dir.path(), &["forget", owner]));
    assert!(
        over.contains("the owner of 1 conferences that are over"),
        "{over}"
    );
    assert!(!over.contains("kept:"), "{over}");
    let empty = run(dir.path(), &["forget", " "]);
    assert!(!empty.status.success() && stderr(&empty).contains("the person is empty"));
}
