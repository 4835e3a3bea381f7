//! The usher under load: a process of its own, on a scratch directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::Caller;
use super::limit::Ended;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const TOKEN: &str = "a-service-token-for-the-benchmark-012345";
/// Ticks of the CPU times in /proc, a second: fixed on Linux for programs.
const TICKS: u64 = 100;
/// How long a server may take to its first answer.
const START: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    process: Ended,
    pub(crate) address: SocketAddr,
    _dir: TempDir,
}

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) rss_bytes: usize,
    pub(crate) cpu: Duration,
}

impl Usage {
    pub(crate) fn of(process: u32) -> Self {
        let read = |what: &str| std::fs::read_to_string(format!("/proc/{process}/{what}")).unwrap();
        let status = read("status");
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let rss: usize = rss.trim().trim_end_matches(" kB").parse().unwrap();
        // After the name in parentheses: the state, and eleven fields later user and system time.
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
            cpu: Duration::from_millis(ticks * 1000 / TICKS),
        }
    }

    /// What each of `count` cost in memory, since then.
    pub(crate) fn bytes_each(&self, since: &Self, count: usize) -> f64 {
        self.rss_bytes.saturating_sub(since.rss_bytes) as f64 / count as f64
    }

    /// What each of `count` cost in CPU, since then.
    pub(crate) fn micros_each(&self, since: &Self, count: usize) -> f64 {
        (self.cpu - since.cpu).as_secs_f64() * 1e6 / count as f64
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With these files in its directory, and further lines of configuration, `{dir}` being that directory.
    pub(crate) fn start_with(files: &[(&str, &str, &str)]) -> Self {
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
            // As the package's unit has it.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = Ended(child);
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
        set_live(&mut Caller::new(self.address), "golive", ROOM);
    }

    pub(crate) fn end_live(&self) {
        set_live(&mut Caller::new(self.address), "endlive", ROOM);
    }

    /// How many wait, of all conferences.
    pub(crate) fn waiting(&self) -> u64 {
        let (_, body) = Caller::new(self.address).get("/waiting-queue/conferences");
        let body: Value = serde_json::from_str(&body).unwrap();
        let list = body["conferences"].as_array().unwrap();
        list.iter()
            .filter_map(|conference| conference["visitorsWaiting"].as_u64())
            .sum()
    }

    /// Waits until so many wait; false if that doesn't come about.
    pub(crate) fn counts(&self, waiting: usize) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if self.waiting() == waiting as u64 {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

/// The conference that crowds wait for.
pub(crate) const ROOM: &str = "room";

/// `golive` or `endlive`.
pub(crate) fn set_live(caller: &mut Caller, what: &str, room: &str) {
    ask_live(caller, what, room);
    hear_live(caller);
}

/// Asks for it, and leaves the answer for [`hear_live`].
pub(crate) fn ask_live(caller: &mut Caller, what: &str, room: &str) {
    let path = format!("/waiting-queue/{what}");
    let body = json!({ "conference": format!("{room}@conference.meet.example.com") });
    caller.send("POST", &path, "application/json", &body.to_string());
}

pub(crate) fn hear_live(caller: &mut Caller) {
    let (status, body) = caller.answer();
    assert_eq!(status, 200, "{body}");
}

pub(crate) fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

pub(crate) fn wait_for(address: SocketAddr) {
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < START, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where builds go: on the disk that the project is on, not in memory.
pub(crate) fn target() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_usher"));
    program.ancestors().nth(2).unwrap().to_owned()
}

pub(crate) fn scratch() -> TempDir {
    TempDir::new_in(target()).unwrap()
}
