//! A machine whose clock is not set yet.

use reqwest::StatusCode;
use tempfile::TempDir;

use crate::harness::in_seconds;
use crate::process::{Process, free_address, preload_library, stderr, stdout, usher, write_config};

#[test]
fn clock_before_1970_is_named_and_panics_nothing() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("usher.db");
    write_config(dir.path(), free_address(), &database);
    // The clock of a process is before 1970 with it.
    let library = preload_library(dir.path(), "old_clock.c");
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
