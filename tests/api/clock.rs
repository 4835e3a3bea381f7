//! A machine whose clock is not set yet.

use std::path::PathBuf;
use std::process::Command;

use reqwest::StatusCode;
use tempfile::TempDir;

use crate::harness::in_seconds;
use crate::process::{Process, free_address, stderr, stdout, usher, write_config};

/// Compiles the library that sets the clock of a process to a time before 1970.
fn old_clock(dir: &TempDir) -> PathBuf {
    let library = dir.path().join("old_clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/old_clock.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    assert!(compiled.unwrap().success());
    library
}

#[test]
fn clock_before_1970_is_named_and_panics_nothing() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("usher.db");
    write_config(dir.path(), free_address(), &database);
    let library = old_clock(&dir);
    let run = |arguments: &[&str]| {
        let mut command = usher(dir.path());
        command.args(arguments).env("LD_PRELOAD", &library);
        command.output().unwrap()
    };
    let serve = run(&["serve"]);
    let error = stderr(&serve);
    assert_eq!(serve.status.code(), Some(1), "{error}");
    assert!(error.contains("clock") && error.contains("1970"), "{error}");
    let end = in_seconds(3600);
    let add = run(&[
        "bookings",
        "add",
        "--create-database",
        "--room",
        "booked",
        "--end",
        &end,
    ]);
    assert!(add.status.success(), "{}", stderr(&add));
    let list = run(&["bookings", "list"]);
    assert!(stdout(&list).contains("booked"), "{}", stdout(&list));
    for output in [&serve, &add, &list] {
        assert!(!stderr(output).contains("panicked"), "{}", stderr(output));
    }
    // The database that was made at that time is usable once the clock is set.
    let process = Process::start(dir.path(), &database);
    let (status, opened) = process.open("booked");
    assert_eq!(status, StatusCode::CREATED, "{opened}");
    let path = format!("/conference/{}", opened["id"]);
    assert_eq!(process.get(&path).0, StatusCode::OK);
}
