//! The binary as a process: its commands, its signals, and what it makes of a bad day.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{TOKEN, in_seconds};

/// Longest wait for anything that a process is to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// A process that was started already; waits until it answers.
    pub(crate) fn running(child: Child, address: SocketAddr) -> Self {
        let process = Self { child, address };
        wait_for("usher to answer", || process.try_get("/health").is_some());
        process
    }

    /// Starts `usher` with a configuration of its own, and waits until it answers.
    fn start(dir: &Path, database: &Path) -> Self {
        Self::start_with(dir, database, "")
    }

    /// The same, with `extra` lines of configuration.
    fn start_with(dir: &Path, database: &Path, extra: &str) -> Self {
        let address = free_address();
        write_config(dir, address, database);
        let config = dir.join("config.toml");
        let text = std::fs::read_to_string(&config).unwrap() + extra;
        std::fs::write(config, text).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = usher(dir).stderr(log).spawn().unwrap();
        Self::running(child, address)
    }

    pub(crate) fn client() -> Client {
        Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .unwrap()
    }

    fn try_get(&self, path: &str) -> Option<Response> {
        let url = format!("http://{}{path}", self.address);
        Self::client().get(url).bearer_auth(TOKEN).send().ok()
    }

    pub(crate) fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.try_get(path).unwrap();
        (response.status(), response.json().unwrap())
    }

    fn open(&self, room: &str) -> (StatusCode, Value) {
        self.open_at(room, "2026-11-21T22:21:26.000Z")
    }

    /// Opens a room, by a clock of one's own.
    fn open_at(&self, room: &str, start_time: &str) -> (StatusCode, Value) {
        let url = format!("http://{}/conference", self.address);
        let form = [
            ("name", room),
            ("start_time", start_time),
            ("mail_owner", ""),
        ];
        let response = Self::client()
            .post(url)
            .bearer_auth(TOKEN)
            .form(&form)
            .send()
            .unwrap();
        (response.status(), response.json().unwrap())
    }

    pub(crate) fn signal(&self, signal: &str) {
        let done = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(done.unwrap().success());
    }

    pub(crate) fn wait(mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "usher does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn usher(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_usher"));
    command.current_dir(dir).stdin(Stdio::null()).env_clear();
    command
}

/// Runs a command to its end, which must come: `timeout` is Debian's.
pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Output {
    run_on(dir, arguments, Stdio::null())
}

/// The same, with something on standard input.
fn run_on(dir: &Path, arguments: &[&str], input: Stdio) -> Output {
    let patience = PATIENCE.as_secs().to_string();
    let mut command = Command::new("/usr/bin/timeout");
    command
        .args([&patience, env!("CARGO_BIN_EXE_usher")])
        .args(arguments);
    command
        .current_dir(dir)
        .stdin(input)
        .env_clear()
        .output()
        .unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn write_config(dir: &Path, address: SocketAddr, database: &Path) {
    let text = format!(
        "[server]\nlisten = \"{address}\"\n[database]\nurl = \"sqlite:{}\"\n[auth.service]\ntokens = [\"{TOKEN}\"]\n",
        database.display()
    );
    std::fs::write(dir.join("config.toml"), text).unwrap();
}

pub(crate) fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_was_answered_holds_after_kill_9() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("usher.db");
    for round in 0..3 {
        let process = Process::start(dir.path(), &database);
        let (status, made) = process.open(&format!("room{round}"));
        process.signal("-KILL");
        assert_eq!(process.wait(), None);
        assert_eq!(status, StatusCode::CREATED);
        let process = Process::start(dir.path(), &database);
        assert_eq!(
            process.get(&format!("/conference/{}.0", made["id"])),
            (StatusCode::OK, made.clone())
        );
        let (status, conflict) = process.open(&format!("room{round}"));
        assert_eq!(
            (status, &conflict["conflict_id"]),
            (StatusCode::CONFLICT, &made["id"])
        );
    }
}

#[test]
fn either_signal_ends_it_in_order() {
    for signal in ["-TERM", "-INT"] {
        let dir = TempDir::new().unwrap();
        let process = Process::start(dir.path(), &dir.path().join("usher.db"));
        process.signal(signal);
        assert_eq!(process.wait(), Some(0), "{signal}");
    }
}

#[test]
fn the_database_is_its_owners_alone() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("usher.db");
    let process = Process::start(dir.path(), &database);
    process.open("room");
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", database.display());
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}: {mode:o}");
    }
}

/// A file system of its own for the database: as root only, since nobody else may mount one.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "usher-test"])
            .arg(dir.path())
            .output()
            .ok()?;
        mount.status.success().then(|| Self(dir))
    }

    fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        let done = Command::new("mount")
            .args(["-o", &option])
            .arg(self.0.path())
            .status();
        assert!(done.unwrap().success(), "{option}");
    }

    fn fill(&self) {
        let _ = std::fs::write(self.0.path().join("ballast"), vec![0; 2 << 20]);
    }

    fn free(&self) {
        std::fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_a_503_and_it_is_well_again_after() {
    let Some(disk) = Disk::mount() else {
        println!("skipped: only root can mount a disk to fill");
        return;
    };
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &disk.0.path().join("usher.db"));
    assert_eq!(process.open("before").0, StatusCode::CREATED);
    disk.fill();
    let mut refused = 0;
    // The log that SQLite keeps has some room left at first.
    for n in 0..200 {
        let (status, body) = process.open(&format!("full{n}"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            assert!(body["message"].is_string(), "{body}");
            refused += 1;
        } else {
            assert_eq!(status, StatusCode::CREATED);
            assert_eq!(refused, 0, "it can't be well while the disk is full");
        }
        if refused == 3 {
            break;
        }
    }
    assert_eq!(refused, 3);
    assert_eq!(process.get("/health").0, StatusCode::OK);
    for path in ["/ready", "/about/health"] {
        let (status, told) = process.get(path);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(told["reasons"][0]["check"], "store", "{told}");
        assert!(told["message"].as_str().unwrap().contains("disk"), "{told}");
    }
    disk.free();
    assert_eq!(process.open("after").0, StatusCode::CREATED);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(process.get("/ready").0, StatusCode::OK);
    drop(process);
}

/// Compiles the library that makes a disk fail under a running process (as the kernel does when it turns
/// read-only or is full): writes are refused as long as a flag file is there.
fn failing_disk(dir: &Path) -> PathBuf {
    let library = dir.join("failing_disk.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/failing_disk.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    assert!(compiled.unwrap().success());
    library
}

#[test]
fn a_disk_that_refuses_writes_is_a_503_and_it_is_well_again_after() {
    for fault in ["READ_ONLY_FLAG", "FULL_FLAG"] {
        let dir = TempDir::new().unwrap();
        let flag = dir.path().join("flag");
        let address = free_address();
        write_config(dir.path(), address, &dir.path().join("usher.db"));
        let child = usher(dir.path())
            .env("LD_PRELOAD", failing_disk(dir.path()))
            .env(fault, &flag)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process::running(child, address);
        let (_, made) = process.open("before");
        std::fs::write(&flag, "").unwrap();
        for n in 0..3 {
            let (status, body) = process.open(&format!("during{n}"));
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{fault}: {body}");
            assert!(body["message"].is_string());
        }
        // What is there can still be read.
        assert_eq!(
            process.get(&format!("/conference/{}", made["id"])).0,
            StatusCode::OK
        );
        assert_eq!(process.get("/health").0, StatusCode::OK);
        let (status, told) = process.get("/ready");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(told["reasons"][0]["check"], "store", "{told}");
        std::fs::remove_file(&flag).unwrap();
        assert_eq!(process.open("after").0, StatusCode::CREATED);
        assert_eq!(process.open("during0").0, StatusCode::CREATED);
        wait_for("readiness", || process.get("/ready").0 == StatusCode::OK);
    }
}

#[test]
fn check_names_a_database_on_a_read_only_disk() {
    let Some(disk) = Disk::mount() else {
        println!("skipped: only root can mount a disk to make read-only");
        return;
    };
    let dir = TempDir::new().unwrap();
    let database = disk.0.path().join("usher.db");
    drop(Process::start(dir.path(), &database));
    disk.remount("ro");
    let checked = run(dir.path(), &["check"]);
    assert_eq!(checked.status.code(), Some(1));
    let told = stdout(&checked);
    assert!(told.contains("FAILED  database"), "{told}");
    assert!(told.contains(&database.display().to_string()), "{told}");
}

#[test]
fn check_names_every_mistake_with_its_line() {
    let dir = TempDir::new().unwrap();
    let text = "[server]\nlisten = \"0.0.0.0:8060\"\n[queue]\nstate_interval = 15\n[reservation]\npolicy = \"booked\"\n";
    std::fs::write(dir.path().join("config.toml"), text).unwrap();
    let output = run(dir.path(), &["check"]);
    assert_eq!(output.status.code(), Some(64));
    let told = stderr(&output);
    for (line, key) in [
        ("2", "server.listen"),
        ("4", "queue.state_interval"),
        ("5", "reservation"),
    ] {
        let named = told
            .lines()
            .any(|l| l.contains(&format!(":{line}:")) && l.contains(key));
        assert!(named, "{key} on line {line}: {told}");
    }
}

#[test]
fn check_is_content_with_the_defaults() {
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
fn a_public_address_without_a_token_is_refused() {
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
fn a_taken_port_is_named() {
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
fn bookings_are_added_listed_and_cancelled_from_the_shell() {
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
    // The running service sees what the shell did.
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
fn a_booking_from_the_shell_has_every_option_of_the_api() {
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
    for (field, wanted) in [
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
        assert_eq!(booking[field], wanted, "{field}");
    }
    // Whole seconds, as the wire counts them.
    assert_eq!(booking["start"].as_str().unwrap()[..19], start[..19]);
    assert_eq!(booking["end"].as_str().unwrap()[..19], end[..19]);
}

#[test]
fn a_window_that_is_too_long_is_refused_in_the_shell() {
    let dir = TempDir::new().unwrap();
    for lasts in ["36526d", "100000000d"] {
        let add = ["bookings", "add", "--room", "room", "--for", lasts];
        let refused = run(dir.path(), &add);
        assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
        let told = stderr(&refused);
        assert!(
            told.contains("--for is too long") && told.contains("permanent"),
            "{told}"
        );
    }
    let add = ["bookings", "add", "--room", "room", "--for", "36525d"];
    let added = run(dir.path(), &add);
    assert!(added.status.success(), "{}", stderr(&added));
}

#[test]
fn a_password_comes_from_a_file_or_from_standard_input() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    let file = dir.path().join("password");
    std::fs::write(&file, "hunter2 \u{e9}\n").unwrap();
    let add = |room, file| ["bookings", "add", "--room", room, "--password-file", file];
    let added = run(dir.path(), &add("file", "password"));
    assert!(added.status.success(), "{}", stderr(&added));
    let input = std::fs::File::open(&file).unwrap();
    let added = run_on(dir.path(), &add("input", "-"), input.into());
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
    // Nothing at all is no password.
    let empty = run(dir.path(), &add("empty", "-"));
    assert_eq!(empty.status.code(), Some(1));
    assert!(stderr(&empty).contains("password: "), "{}", stderr(&empty));
}

#[test]
fn lists_in_the_shell_are_narrowed_to_a_tenant_as_over_http() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    for room in ["room", "[München]room"] {
        let added = run(dir.path(), &["bookings", "add", "--room", room]);
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
fn decisions_are_shown_in_the_shell() {
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
fn tokens_that_the_shell_makes_are_taken_by_the_service() {
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
fn no_secret_is_ever_logged() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    let url = format!("http://{}/api/v1/bookings", process.address);
    let body = serde_json::json!({ "room": "room", "password": "hunter2-the-password" });
    Process::client()
        .post(url)
        .bearer_auth(TOKEN)
        .json(&body)
        .send()
        .unwrap();
    process.open("room");
    let wrong = "Bearer a-wrong-token-that-must-not-show";
    let url = format!("http://{}/conference/1", process.address);
    Process::client()
        .get(url)
        .header("Authorization", wrong)
        .send()
        .unwrap();
    process.signal("-TERM");
    assert_eq!(process.wait(), Some(0));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("decided"), "{log}");
    for secret in [
        TOKEN,
        "hunter2-the-password",
        "a-wrong-token-that-must-not-show",
    ] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn every_line_of_a_log_in_json_is_an_object() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("usher.db");
    let extra = "[log]\nformat = \"json\"\nlevel = \"debug\"\n";
    let process = Process::start_with(dir.path(), &database, extra);
    process.open("room \"with quotes\"");
    process.open("room");
    process.signal("-TERM");
    assert_eq!(process.wait(), Some(0));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let mut messages = Vec::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["level"].is_string(), "{line}");
        // What others say at this level has no message.
        if line["target"].as_str().unwrap().starts_with("usher") {
            let message = line["message"].as_str();
            messages.push(message.unwrap_or_else(|| panic!("{line}")).to_owned());
        }
    }
    assert!(messages.iter().any(|it| it == "decided"), "{messages:?}");
}

#[test]
fn clock_skew_is_logged_once_and_so_is_its_end() {
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &dir.path().join("usher.db"));
    let said = || {
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        let lines = log.lines().filter(|line| line.contains("clock skew"));
        let lines = lines.map(|line| line.contains("usher's clock is used"));
        lines.collect::<Vec<_>>()
    };
    for room in ["a", "b", "c"] {
        process.open_at(room, &in_seconds(-3600));
    }
    assert_eq!(said(), [true]);
    for room in ["d", "e"] {
        process.open_at(room, &in_seconds(0));
    }
    assert_eq!(said(), [true, false]);
    process.open_at("f", &in_seconds(3600));
    assert_eq!(said(), [true, false, true]);
}

#[test]
fn backup_of_a_running_service_is_complete_and_for_its_owner_alone() {
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
    assert_eq!(status, 409, "the backup knows the conference that ran");
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
