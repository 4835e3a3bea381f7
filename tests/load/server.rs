//! The usher under load: a process of its own, on a scratch directory.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
const TOKEN: &str = "a-service-token-for-the-benchmark-012345";
/// Ticks of the CPU times in /proc, a second: fixed on Linux for programs.
const TICKS: u64 = 100;

pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
    _dir: TempDir,
}

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) rss_bytes: usize,
    pub(crate) cpu: Duration,
}

impl Server {
    pub(crate) fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let config = format!(
            "server.listen = \"{address}\"\ndatabase.url = \"sqlite:{}/usher.db\"\nauth.secret = \"{SECRET}\"\nauth.service.tokens = [\"{TOKEN}\"]\nqueue.max_per_token = 1000000\nlog.level = \"warn\"\n",
            dir.path().display()
        );
        let file = dir.path().join("config.toml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_usher"))
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            child,
            address,
            client: reqwest::Client::new(),
            _dir: dir,
        };
        while std::net::TcpStream::connect(address).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    pub(crate) fn usage(&self) -> Usage {
        let read = |what: &str| {
            std::fs::read_to_string(format!("/proc/{}/{what}", self.child.id())).unwrap()
        };
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
        Usage {
            rss_bytes: rss * 1024,
            cpu: Duration::from_millis(ticks * 1000 / TICKS),
        }
    }

    pub(crate) async fn go_live(&self) {
        self.post("golive").await;
    }

    pub(crate) async fn end_live(&self) {
        self.post("endlive").await;
    }

    async fn post(&self, what: &str) {
        let url = format!("http://{}/waiting-queue/{what}", self.address);
        let body = serde_json::json!({ "conference": "room@conference.meet.example.com" });
        let answer = self
            .client
            .post(url)
            .bearer_auth(TOKEN)
            .json(&body)
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{what}: {}", answer.status());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
