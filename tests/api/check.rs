//! `usher check` as a doctor: what it finds in the neighbours' files, and how it tells. With a real nginx and
//! Prosody it is tried in tests/package.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, free_address, run, stdout, usher};

/// Runs the check with `config`, and with neighbours that aren't there unless named.
fn check(dir: &TempDir, config: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let all = [&["check", "--json"], arguments].concat();
    let output = run(dir.path(), &all);
    let told = stdout(&output);
    let report: Value =
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told:?} {output:?}"));
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
fn what_is_not_on_this_machine_is_no_fault() {
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
fn mistakes_of_the_configuration_are_findings_too() {
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
fn whoever_answers_at_the_address_is_told_apart() {
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
    let stranger = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 1024]).unwrap();
        socket
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
            .unwrap();
    });
    let (code, report) = check(&dir, &config, &[]);
    stranger.join().unwrap();
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
