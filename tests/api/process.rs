//! The binary as a process: signals, durability and the log.

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

/// The longest wait for an action of a process.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Takes a started process, and waits until it answers.
    pub(crate) fn running(child: Child, address: SocketAddr) -> Self {
        let process = Self { child, address };
        wait_for("usher to answer", || process.try_get("/health").is_some());
        process
    }

    /// Starts `usher` with a configuration of its own, and waits until it answers.
    pub(crate) fn start(dir: &Path, database: &Path) -> Self {
        Self::start_with(dir, database, "")
    }

    /// The same, with `extra` lines of configuration.
    pub(crate) fn start_with(dir: &Path, database: &Path, extra: &str) -> Self {
        let address = free_address();
        write_config(dir, address, database);
        let config = dir.join("config.toml");
        let text = std::fs::read_to_string(&config).unwrap() + extra;
        std::fs::write(config, text).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = usher(dir).stderr(log).spawn().unwrap();
        Self::running(child, address)
    }

    /// Starts it on all addresses of the machine, with these lines of `[server]`.
    pub(crate) fn start_everywhere(dir: &Path, server: &str) -> Self {
        let address = free_address();
        write_config(dir, address, &dir.join("usher.db"));
        let config = dir.join("config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let everywhere = format!("0.0.0.0:{}\"\n{server}", address.port());
        let text = text.replace(&format!("{address}\""), &everywhere);
        std::fs::write(config, text).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = usher(dir).stderr(log).spawn().unwrap();
        Self::running(child, address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn client() -> Client {
        Client::builder()
            .no_proxy()
            .timeout(WAIT_TIMEOUT)
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

    /// The body of a page as text.
    pub(crate) fn text(&self, path: &str) -> String {
        self.try_get(path).unwrap().text().unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> StatusCode {
        let url = format!("http://{}{path}", self.address);
        let request = Self::client().post(url).bearer_auth(TOKEN).json(body);
        request.send().unwrap().status()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time that it has used, in hundredths of a second.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // After the name of the process, which may have spaces.
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
        let ticks = fields.skip(11).take(2);
        ticks.map(|it| it.parse::<u64>().unwrap()).sum()
    }

    pub(crate) fn open(&self, room: &str) -> (StatusCode, Value) {
        self.open_at(room, "2026-11-21T22:21:26.000Z")
    }

    /// Opens a room with the start of another clock.
    fn open_at(&self, room: &str, start_time: &str) -> (StatusCode, Value) {
        self.open_with(room, &[("start_time", start_time), ("mail_owner", "")])
    }

    /// Opens a room with the fields of a user.
    pub(crate) fn open_as(&self, room: &str, identity: &[(&str, &str)]) -> (StatusCode, Value) {
        let mut fields = vec![("start_time", "2026-11-21T22:21:26.000Z")];
        fields.extend(identity);
        self.open_with(room, &fields)
    }

    fn open_with(&self, room: &str, fields: &[(&str, &str)]) -> (StatusCode, Value) {
        let url = format!("http://{}/conference", self.address);
        let mut form = vec![("name", room)];
        form.extend(fields);
        let response = Self::client()
            .post(url)
            .bearer_auth(TOKEN)
            .form(&form)
            .send()
            .unwrap();
        (response.status(), response.json().unwrap())
    }

    pub(crate) fn post_json(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = Self::client().post(format!("http://{}{path}", self.address));
        let response = request
            .bearer_auth(TOKEN)
            .header("Content-Type", "application/json")
            .body(body.to_string());
        let response = response.send().unwrap();
        (response.status(), response.json().unwrap())
    }

    pub(crate) fn delete(&self, path: &str) -> StatusCode {
        let request = Self::client().delete(format!("http://{}{path}", self.address));
        request.bearer_auth(TOKEN).send().unwrap().status()
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
            assert!(start.elapsed() < WAIT_TIMEOUT, "usher does not stop");
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

/// Compiles `source`, a file of these tests, to a library for `LD_PRELOAD`.
pub(crate) fn preload_library(dir: &Path, source: &str) -> PathBuf {
    let library = dir.join(source).with_extension("so");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/api")
                .join(source),
        )
        .status();
    assert!(compiled.unwrap().success());
    library
}

/// Runs a command to its end, by Debian's `timeout`.
pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Output {
    run_with_input(dir, arguments, Stdio::null())
}

/// The same, with standard input.
pub(crate) fn run_with_input(dir: &Path, arguments: &[&str], input: Stdio) -> Output {
    let timeout = WAIT_TIMEOUT.as_secs().to_string();
    let mut command = Command::new("/usr/bin/timeout");
    command
        .args([&timeout, env!("CARGO_BIN_EXE_usher")])
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

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

pub(crate) fn write_config(dir: &Path, address: SocketAddr, database: &Path) {
    let text = format!(
        "[server]\nlisten = \"{address}\"\n[database]\nurl = \"sqlite:{}\"\n[auth.service]\ntokens = [\"{TOKEN}\"]\n",
        database.display()
    );
    std::fs::write(dir.join("config.toml"), text).unwrap();
}

pub(crate) fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < WAIT_TIMEOUT,
            "timed out waiting for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn answered_allocations_survive_sigkill() {
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
fn sigterm_and_sigint_stop_usher_cleanly() {
    for signal in ["-TERM", "-INT"] {
        let dir = TempDir::new().unwrap();
        let process = Process::start(dir.path(), &dir.path().join("usher.db"));
        process.signal(signal);
        assert_eq!(process.wait(), Some(0), "{signal}");
    }
}

#[test]
fn database_files_are_readable_by_their_owner_only() {
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

#[test]
fn secrets_are_not_logged() {
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
        // Lines of other crates may have no message at this level.
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
    let logged = || {
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        let lines = log.lines().filter(|line| line.contains("clock skew"));
        let lines = lines.map(|line| line.contains("usher's clock is used"));
        lines.collect::<Vec<_>>()
    };
    for room in ["a", "b", "c"] {
        process.open_at(room, &in_seconds(-3600));
    }
    assert_eq!(logged(), [true]);
    for room in ["d", "e"] {
        process.open_at(room, &in_seconds(0));
    }
    assert_eq!(logged(), [true, false]);
    process.open_at("f", &in_seconds(3600));
    assert_eq!(logged(), [true, false, true]);
}
