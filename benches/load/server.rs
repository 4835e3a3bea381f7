//! The usher process under load, in a scratch directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::HttpClient;
use super::limit::KilledOnDrop;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const TOKEN: &str = "a-service-token-for-the-benchmark-012345";
/// Clock ticks per second in /proc: always 100 on Linux.
const TICKS_PER_SECOND: u64 = 100;
/// Time-out for the first response of a server.
const START_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    process: KilledOnDrop,
    pub(crate) address: SocketAddr,
    _dir: TempDir,
}

/// Memory and CPU time of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) rss_bytes: usize,
    pub(crate) cpu: Duration,
}

impl Usage {
    pub(crate) fn of(process: u32) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
        let status = read("status");
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let rss: usize = rss.trim().trim_end_matches(" kB").parse().unwrap();
        // User and system time are the 12th and 13th fields after the name in parentheses.
        let stat = read("stat");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Self {
            rss_bytes: rss * 1024,
            cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        }
    }

    /// Memory growth since `since` per client.
    pub(crate) fn bytes_each(&self, since: &Self, count: usize) -> f64 {
        self.rss_bytes.saturating_sub(since.rss_bytes) as f64 / count as f64
    }

    /// CPU time since `since` per client, in microseconds.
    pub(crate) fn micros_each(&self, since: &Self, count: usize) -> f64 {
        (self.cpu - since.cpu).as_secs_f64() * 1e6 / count as f64
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts usher with extra files `(name, content, configuration line)`. An empty name adds only the line.
    pub(crate) fn start_with(files: &[(&str, &str, &str)]) -> Self {
        Self::start_as(files, &[])
    }

    /// Starts usher as systemd does: it notifies this socket within each `WatchdogSec`, here in microseconds.
    pub(crate) fn start_watched(notify: &Path, watchdog_micros: &str) -> Self {
        let environment = [
            ("NOTIFY_SOCKET", notify.to_str().unwrap()),
            ("WATCHDOG_USEC", watchdog_micros),
        ];
        Self::start_as(&[], &environment)
    }

    fn start_as(files: &[(&str, &str, &str)], environment: &[(&str, &str)]) -> Self {
        let dir = scratch();
        let address = free_address();
        let mut config = format!(
            "server.listen = \"{address}\"\nserver.max_connections = 19900\n\
             database.url = \"sqlite:{}/usher.db\"\nauth.secret = \"{SECRET}\"\n\
             auth.service.tokens = [\"{TOKEN}\"]\nqueue.max_per_token = 1000000\nlog.level = \"warn\"\n",
            dir.path().display()
        );
        for (name, text, line) in files {
            if !name.is_empty() {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            config.push_str(line);
            config.push('\n');
        }
        let file = dir.path().join("config.toml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_usher"))
            .arg("--config")
            .arg(file)
            // As in the package's systemd unit.
            .env("MALLOC_ARENA_MAX", "1")
            .env("MALLOC_MMAP_THRESHOLD_", "16384")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = KilledOnDrop(child);
        wait_for(address);
        Self {
            process,
            address,
            _dir: dir,
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.process.0.id())
    }

    pub(crate) fn go_live(&self) {
        set_live(&mut HttpClient::new(self.address), "golive", ROOM);
    }

    pub(crate) fn end_live(&self) {
        set_live(&mut HttpClient::new(self.address), "endlive", ROOM);
    }

    /// Number of waiting visitors in all conferences.
    pub(crate) fn waiting(&self) -> u64 {
        let (_, body) = HttpClient::new(self.address).get("/waiting-queue/conferences");
        let body: Value = serde_json::from_str(&body).unwrap();
        let list = body["conferences"].as_array().unwrap();
        list.iter()
            .filter_map(|conference| conference["visitorsWaiting"].as_u64())
            .sum()
    }

    /// Waits until this number of visitors wait. Returns false after one minute.
    pub(crate) fn wait_for_waiting(&self, waiting: usize) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            if self.waiting() == waiting as u64 {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

/// The conference of all modes that need one.
pub(crate) const ROOM: &str = "room";

/// Sends `golive` or `endlive` and expects success.
pub(crate) fn set_live(client: &mut HttpClient, action: &str, room: &str) {
    send_live_request(client, action, room);
    expect_ok(client);
}

/// Sends the request only; [`expect_ok`] reads the response.
pub(crate) fn send_live_request(client: &mut HttpClient, action: &str, room: &str) {
    let path = format!("/waiting-queue/{action}");
    let body = json!({ "conference": format!("{room}@conference.meet.example.com") });
    client.send("POST", &path, "application/json", &body.to_string());
}

pub(crate) fn expect_ok(client: &mut HttpClient) {
    let (status, body) = client.response();
    assert_eq!(status, 200, "{body}");
}

pub(crate) fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

pub(crate) fn wait_for(address: SocketAddr) {
    let start = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(
            start.elapsed() < START_TIMEOUT,
            "nothing listens on {address}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The build directory: on the disk of the project, not a memory file system.
pub(crate) fn target() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_usher"));
    program.ancestors().nth(2).unwrap().to_owned()
}

pub(crate) fn scratch() -> TempDir {
    TempDir::new_in(target()).unwrap()
}
