//! The commands of the binary: `check`, `bookings`, `decisions`, `token` and `backup`.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{TOKEN, in_seconds};
use crate::process::{
    Process, free_address, run, run_with_input, stderr, stdout, usher, write_config,
};

/// No key of anything.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

#[test]
fn check_reports_every_configuration_error_with_its_line() {
    let dir = TempDir::new().unwrap();
    let text = "[server]\nlisten = \"0.0.0.0:8060\"\n[queue]\nstate_interval = 15\n[reservation]\npolicy = \"booked\"\n";
    std::fs::write(dir.path().join("config.toml"), text).unwrap();
    let output = run(dir.path(), &["check"]);
    assert_eq!(output.status.code(), Some(64));
    let errors = stderr(&output);
    for (line, key) in [
        ("2", "server.listen"),
        ("4", "queue.state_interval"),
        ("5", "reservation"),
    ] {
        let named = errors
            .lines()
            .any(|l| l.contains(&format!(":{line}:")) && l.contains(key));
        assert!(named, "{key} on line {line}: {errors}");
    }
}

#[test]
fn check_succeeds_with_the_defaults() {
    let dir = TempDir::new().unwrap();
    let output = run(dir.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("ok      database"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn public_address_without_a_token_is_refused() {
    let dir = TempDir::new().unwrap();
    std::fs::write(
        dir.path().join("config.toml"),
        "server.listen = \"0.0.0.0:0\"\n",
    )
    .unwrap();
    let output = run(dir.path(), &["serve"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(
        stderr(&output).contains("auth.service.tokens"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn port_in_use_is_named() {
    let dir = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    write_config(
        dir.path(),
        taken.local_addr().unwrap(),
        &dir.path().join("usher.db"),
    );
    let output = run(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("server.listen"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn each_reason_not_to_listen_has_its_own_remedy() {
    let dir = TempDir::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for (address, remedy) in [
        (taken.as_str(), "ss -ltnp"),
        ("192.0.2.1:8060", "an address of this machine"),
    ] {
        let text = format!("server.listen = \"{address}\"\nauth.service.tokens = [\"{TOKEN}\"]\n");
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
        let output = run(dir.path(), &[]);
        assert_eq!(output.status.code(), Some(1));
        let errors = stderr(&output);
        assert!(
            errors.contains(remedy) && errors.contains("server.listen"),
            "{errors}"
        );
    }
}

#[test]
fn bookings_are_added_listed_and_cancelled_on_the_command_line() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("usher.db");
    let process = Process::start(dir.path(), &database);
    let start = in_seconds(3600);
    let add = [
        "bookings", "add", "--room", "Été", "--start", &start, "--for", "1h", "--title", "Tea",
    ];
    let added = run(dir.path(), &add);
    assert_eq!(added.status.code(), Some(0), "{}", stderr(&added));
    let again = run(dir.path(), &add);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("Tea"), "{}", stderr(&again));

    let listed = stdout(&run(dir.path(), &["bookings", "list", "--room", "été"]));
    assert!(listed.contains("été") && listed.contains("Tea"), "{listed}");
    // The running service has the booking.
    let (_, seen) = process.get("/api/v1/bookings");
    assert_eq!(seen["bookings"][0]["title"], "Tea");

    let id = seen["bookings"][0]["id"].to_string();
    assert_eq!(
        run(dir.path(), &["bookings", "cancel", &id]).status.code(),
        Some(0)
    );
    let gone = run(dir.path(), &["bookings", "cancel", &id]);
    assert_eq!(gone.status.code(), Some(1));
    assert_eq!(stdout(&run(dir.path(), &["bookings", "list"])), "");
}

#[test]
fn booking_on_the_command_line_has_every_option_of_the_api() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    let (start, end) = (in_seconds(3600), in_seconds(7200));
    let add = [
        "bookings",
        "add",
        "--room",
        "Été",
        "--tenant",
        "Blue",
        "--title",
        "Tea",
        "--owner",
        "alice@example.com",
        "--start",
        &start,
        "--end",
        &end,
        "--max-occupants",
        "12",
        "--lobby",
        "--password",
        "hunter2",
        "--waiting-queue",
        "--auto-live",
        "5",
        "--starters",
        "owner",
    ];
    let added = run(dir.path(), &add);
    assert!(added.status.success(), "{}", stderr(&added));
    assert!(!stdout(&added).contains("hunter2"));
    let (_, seen) = process.get("/api/v1/bookings");
    let booking = &seen["bookings"][0];
    for (field, expected) in [
        ("room", Value::from("%c3%a9t%c3%a9")),
        ("tenant", "blue".into()),
        ("title", "Tea".into()),
        ("owner", "alice@example.com".into()),
        ("max_occupants", 12.into()),
        ("lobby", true.into()),
        ("password_set", true.into()),
        ("waiting_queue", true.into()),
        ("auto_live", 5.into()),
        ("starters", "owner".into()),
    ] {
        assert_eq!(booking[field], expected, "{field}");
    }
    // Times on the wire have whole seconds.
    assert_eq!(booking["start"].as_str().unwrap()[..19], start[..19]);
    assert_eq!(booking["end"].as_str().unwrap()[..19], end[..19]);
}

#[test]
fn too_long_window_is_refused_on_the_command_line() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("usher.db"), "").unwrap();
    for duration in ["36526d", "100000000d"] {
        let add = ["bookings", "add", "--room", "room", "--for", duration];
        let refused = run(dir.path(), &add);
        assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
        let errors = stderr(&refused);
        assert!(
            errors.contains("--for is too long") && errors.contains("permanent"),
            "{errors}"
        );
    }
    let add = ["bookings", "add", "--room", "room", "--for", "36525d"];
    let added = run(dir.path(), &add);
    assert!(added.status.success(), "{}", stderr(&added));
}

#[test]
fn password_is_read_from_a_file_or_standard_input() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    let file = dir.path().join("password");
    std::fs::write(&file, "hunter2 \u{e9}\n").unwrap();
    let add = |room, file| {
        [
            "bookings",
            "add",
            "--permanent",
            "--room",
            room,
            "--password-file",
            file,
        ]
    };
    let added = run(dir.path(), &add("file", "password"));
    assert!(added.status.success(), "{}", stderr(&added));
    let input = std::fs::File::open(&file).unwrap();
    let added = run_with_input(dir.path(), &add("input", "-"), input.into());
    assert!(added.status.success(), "{}", stderr(&added));
    for room in ["file", "input"] {
        assert_eq!(process.open(room).1["password"], "hunter2 \u{e9}");
    }
    let missing = run(dir.path(), &add("missing", "nowhere"));
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).contains("--password-file nowhere"),
        "{}",
        stderr(&missing)
    );
    // An empty input is no password.
    let empty = run(dir.path(), &add("empty", "-"));
    assert_eq!(empty.status.code(), Some(1));
    assert!(stderr(&empty).contains("password: "), "{}", stderr(&empty));
}

#[test]
fn no_command_creates_a_database_unless_it_is_asked_to() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("usher.db");
    let add = ["bookings", "add", "--room", "room", "--for", "1h"];
    for command in [
        &add[..],
        &["bookings", "list"],
        &["bookings", "cancel", "1"],
        &["decisions"],
        &["forget", "alice@example.com"],
    ] {
        let refused = run(dir.path(), command);
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        let errors = stderr(&refused);
        let path = database.display().to_string();
        assert!(
            errors.contains(&format!("there is no database at {path}")),
            "{errors}"
        );
        assert!(
            errors.contains("--create-database") && errors.contains("--config"),
            "{errors}"
        );
        assert!(!database.exists(), "{command:?}");
    }
    let added = run(dir.path(), &[&add[..], &["--create-database"]].concat());
    assert!(added.status.success(), "{}", stderr(&added));
    assert!(run(dir.path(), &add).status.code().is_some() && database.exists());
    // The package creates an empty file with the right owner.
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("usher.db"), "").unwrap();
    let added = run(dir.path(), &add);
    assert!(added.status.success(), "{}", stderr(&added));
}

#[test]
fn database_in_memory_leaves_no_file() {
    for url in ["sqlite::memory:", "sqlite://:memory:"] {
        let dir = TempDir::new().unwrap();
        let address = free_address();
        let text = format!(
            "server.listen = \"{address}\"\ndatabase.url = \"{url}\"\nauth.service.tokens = [\"{TOKEN}\"]\n"
        );
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
        let child = usher(dir.path()).stderr(Stdio::null()).spawn().unwrap();
        let process = Process::running(child, address);
        assert_eq!(process.open("standup").0, 201, "{url}");
        assert_eq!(process.open("standup").0, 409, "{url}");
        process.signal("-TERM");
        assert_eq!(process.wait(), Some(0));
        let left = std::fs::read_dir(dir.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["config.toml"], "{url}");
    }
}

#[test]
fn each_command_names_the_configuration_that_it_read() {
    let dir = TempDir::new().unwrap();
    let output = run(dir.path(), &["token", "--service"]);
    let errors = stderr(&output);
    assert!(errors.contains("reading the built-in defaults"), "{errors}");
    let _process = Process::start(dir.path(), &dir.path().join("usher.db"));
    for command in [
        &["bookings", "list"][..],
        &["decisions"],
        &["token", "--service"],
        &["backup", "copy.db"],
    ] {
        let errors = stderr(&run(dir.path(), command));
        assert!(
            errors.contains("reading ./config.toml"),
            "{command:?}: {errors}"
        );
    }
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(
        log.contains("configuration read") && log.contains("./config.toml"),
        "{log}"
    );
    let checked = stdout(&run(dir.path(), &["check"]));
    assert!(
        checked.contains("configuration: ./config.toml: every key is valid"),
        "{checked}"
    );
}

#[test]
fn marks_of_direction_are_not_printed() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    let (reversed, escaped) = ("Tea \u{202e}gnp.exe", "Tea \\u{202e}gnp.exe");
    let add = [
        "bookings", "add", "--room", "tea", "--title", reversed, "--owner", reversed,
    ];
    let added = run(dir.path(), &add);
    let refused = run(dir.path(), &add);
    process.open("tea");
    let listed = run(dir.path(), &["bookings", "list"]);
    let decisions = run(dir.path(), &["decisions"]);
    for text in [&added, &listed, &decisions].map(stdout) {
        assert!(!text.contains('\u{202e}'), "{text}");
    }
    assert!(
        !stderr(&refused).contains('\u{202e}'),
        "{}",
        stderr(&refused)
    );
    if added.status.success() {
        assert!(stdout(&listed).contains(escaped), "{}", stdout(&listed));
    }
}

/// As after the installation of the package, which creates a service token and no secret.
#[test]
fn service_token_is_the_configured_one_where_nothing_can_be_signed() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    std::fs::write(dir.path().join("tokens"), format!("{TOKEN}\n")).unwrap();
    let config = "auth.service.tokens_file = \"tokens\"";
    std::fs::write(dir.path().join("other.toml"), config).unwrap();
    let token = |more: &[&str]| {
        run(
            dir.path(),
            &[&["--config", "other.toml", "token"][..], more].concat(),
        )
    };
    // A generated secret counts as none only if it can't be used: this one can.
    let signed = stdout(&token(&["--service"]));
    assert_eq!(signed.split('.').count(), 3, "{signed}");
    drop(process);

    std::fs::write(dir.path().join("key.pem"), PUBLIC_KEY).unwrap();
    let config = format!("{config}\nauth.public_keys.jitsi = \"key.pem\"");
    std::fs::write(dir.path().join("other.toml"), config).unwrap();
    let output = token(&["--service"]);
    assert_eq!(stdout(&output).trim(), TOKEN, "{}", stderr(&output));
    assert!(stderr(&output).contains("--ttl"), "{}", stderr(&output));
    let refused = token(&["--room", "room", "--visitor"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("auth.secret_file"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn booking_on_the_command_line_is_permanent_only_if_it_says_so() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    let refused = run(dir.path(), &["bookings", "add", "--room", "endless"]);
    assert_eq!(refused.status.code(), Some(2));
    for option in ["--for", "--end", "--permanent"] {
        assert!(stderr(&refused).contains(option), "{}", stderr(&refused));
    }
    let both = [
        "bookings",
        "add",
        "--room",
        "endless",
        "--permanent",
        "--for",
        "1h",
    ];
    assert_eq!(run(dir.path(), &both).status.code(), Some(2));
    let added = run(dir.path(), &both[..5]);
    assert!(added.status.success(), "{}", stderr(&added));
    assert!(stdout(&added).contains("permanent"), "{}", stdout(&added));
    let (_, seen) = process.get("/api/v1/bookings");
    assert_eq!(seen["bookings"][0]["permanent"], true);
}

#[test]
fn list_of_bookings_says_that_there_are_more_and_several_are_cancelled_at_once() {
    let dir = TempDir::new().unwrap();
    let _process = Process::start(dir.path(), &dir.path().join("usher.db"));
    for room in ["one", "two", "three"] {
        let added = run(
            dir.path(),
            &["bookings", "add", "--room", room, "--for", "1h"],
        );
        assert!(added.status.success(), "{}", stderr(&added));
    }
    let list = |limit| run(dir.path(), &["bookings", "list", "--limit", limit]);
    let part = list("2");
    assert_eq!(stdout(&part).lines().count(), 2);
    assert!(stderr(&part).contains("--limit"), "{}", stderr(&part));
    let all = list("3");
    assert_eq!(stdout(&all).lines().count(), 3);
    assert!(!stderr(&all).contains("--limit"), "{}", stderr(&all));
    // The one in the middle is unknown; the others are cancelled.
    let cancelled = run(dir.path(), &["bookings", "cancel", "1", "77", "3"]);
    assert_eq!(cancelled.status.code(), Some(1));
    assert!(stderr(&cancelled).contains("77"), "{}", stderr(&cancelled));
    assert_eq!(stdout(&cancelled).lines().count(), 2);
    assert_eq!(stdout(&list("3")).lines().count(), 1);
}

#[test]
fn lists_on_the_command_line_are_filtered_by_tenant() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    for room in ["room", "[München]room"] {
        let added = run(
            dir.path(),
            &["bookings", "add", "--permanent", "--room", room],
        );
        assert!(added.status.success(), "{}", stderr(&added));
    }
    process.open("room");
    process.open("[münchen]room");
    for list in [&["bookings", "list"][..], &["decisions"]] {
        for tenant in ["münchen", "MÜNCHEN"] {
            let listed = stdout(&run(dir.path(), &[list, &["--tenant", tenant]].concat()));
            assert!(
                listed.lines().count() == 1 && listed.contains("[münchen]room"),
                "{list:?}: {listed}"
            );
        }
        let bad = run(dir.path(), &[list, &["--tenant", "a/b"]].concat());
        assert_eq!(bad.status.code(), Some(1));
        assert!(stderr(&bad).contains("is not a tenant"), "{}", stderr(&bad));
    }
}

#[test]
fn decisions_are_listed_on_the_command_line() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    process.open("room1");
    process.open("room2");
    let shown = stdout(&run(dir.path(), &["decisions"]));
    assert_eq!(shown.lines().count(), 2, "{shown}");
    let shown = stdout(&run(dir.path(), &["decisions", "--room", "Room2"]));
    assert!(
        shown.lines().count() == 1 && shown.contains("room2"),
        "{shown}"
    );
}

#[test]
fn tokens_of_the_command_line_are_accepted_by_the_service() {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    std::fs::write(
        dir.path().join("config.toml"),
        format!("server.listen = \"{address}\"\n"),
    )
    .unwrap();
    let token = stdout(&run(dir.path(), &["token", "--service"]));
    let visitor = stdout(&run(dir.path(), &["token", "--room", "room", "--visitor"]));
    let child = usher(dir.path()).stderr(Stdio::null()).spawn().unwrap();
    let _process = Process::running(child, address);
    let get = |token: &str| {
        let url = format!("http://{address}/api/v1/bookings");
        Process::client()
            .get(url)
            .bearer_auth(token.trim())
            .send()
            .unwrap()
            .status()
    };
    assert_eq!(get(&token), StatusCode::OK);
    assert_eq!(get(&visitor), StatusCode::UNAUTHORIZED);
}

#[test]
fn backup_of_a_running_service_is_complete_and_private() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("usher.db");
    let process = Process::start(dir.path(), &database);
    let (status, _) = process.open("standup");
    assert_eq!(status, 201);
    let output = run(dir.path(), &["backup", "copy.db"]);
    assert!(output.status.success(), "{}", stderr(&output));
    drop(process);

    let copy = dir.path().join("copy.db");
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = Process::start(dir.path(), &copy);
    let (status, _) = again.open("standup");
    assert_eq!(status, 409, "the backup has the running conference");
    drop(again);

    let output = run(dir.path(), &["backup", "copy.db"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("is there already; name another"),
        "{}",
        stderr(&output)
    );
    let output = run(dir.path(), &["backup", "nowhere/copy.db"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("nowhere/copy.db"),
        "{}",
        stderr(&output)
    );
}
