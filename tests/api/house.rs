//! Rules about what may be used where, and how long a file may be, checked against the source.

use std::fs;
use std::path::{Path, PathBuf};

/// Every source file, with its path below `src`.
pub(crate) fn source_files() -> Vec<(String, String)> {
    fn walk(directory: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    let files = paths.into_iter().map(|path| {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    });
    files.collect()
}

/// Whether a file of `src` holds tests only.
pub(crate) fn is_test(path: &str) -> bool {
    let directories = path.trim_end_matches(".rs").split('/');
    directories
        .skip(1)
        .any(|name| matches!(name, "tests" | "test_keys"))
}

#[test]
fn files_have_at_most_500_lines() {
    let files = source_files()
        .into_iter()
        .filter(|(path, _)| !is_test(path));
    let lengths: Vec<_> = files
        .map(|(path, text)| (text.lines().count(), path))
        .collect();
    assert!(lengths.len() > 50);
    for (lines, path) in lengths {
        assert!(
            lines <= 500,
            "{path} has {lines} lines: split it by what it owns"
        );
    }
}

/// Asserts that only files that `may` contain one of these words, and that some file does.
fn only(words: &[&str], may: impl Fn(&str) -> bool) {
    let mut users = 0;
    for (name, text) in source_files() {
        for word in words.iter().filter(|word| text.contains(**word)) {
            users += 1;
            assert!(may(&name), "{name} has {word}");
        }
    }
    assert!(users > 0, "no file uses {words:?}");
}

#[test]
fn warp_stays_at_the_front_door() {
    only(&["warp::"], |name| name.starts_with("http/"));
}

#[test]
fn sql_stays_in_the_store() {
    only(&["sqlx::"], |name| name.starts_with("store/"));
}

#[test]
fn only_the_configuration_reads_the_environment() {
    only(&["env::var", "env::vars"], |name| {
        // The log format depends on whether systemd's journal reads it.
        name.starts_with("config/") || name == "cli/log.rs"
    });
}

#[test]
fn metrics_are_defined_in_their_own_folder() {
    only(&["prometheus::"], |name| name.starts_with("metrics/"));
}

#[test]
fn only_one_file_reads_the_clock() {
    // The start of the process is a metric, and no decision depends on it.
    only(&["Utc::now", "SystemTime::now"], |name| {
        matches!(name, "clock.rs" | "metrics/process.rs")
    });
}

#[test]
fn anyhow_stays_in_the_binary() {
    only(&["anyhow"], |name| {
        name == "main.rs" || name.starts_with("cli/")
    });
}

#[test]
fn the_rooms_in_the_middle_are_pure() {
    let pure = [
        "domain/conference.rs",
        "domain/room_name.rs",
        "stomp/decoder.rs",
        "stomp/frame.rs",
        "stomp/negotiate.rs",
        "auth/grant.rs",
        "queue/budget.rs",
        "queue/line.rs",
        "session/destination.rs",
        "queue/message.rs",
        "domain/policy/mod.rs",
        "domain/booking.rs",
        "domain/allocation.rs",
        "domain/requester.rs",
        "domain/timestamp.rs",
        "reservation/gateway/response.rs",
        "reservation/gateway/circuit_breaker.rs",
        "reservation/gateway/id.rs",
    ];
    let sources = source_files();
    for room in pure {
        let (_, text) = sources.iter().find(|(name, _)| name == room).expect(room);
        for word in [
            "tokio",
            "sqlx",
            "warp",
            "reqwest",
            "std::fs",
            "std::net",
            "clock::now",
        ] {
            assert!(!text.contains(word), "{room} has {word}");
        }
    }
}
