//! The same clients at other servers, for comparison. None of these verifies a token.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Run;
use super::clients::Clients;
use super::idle::cpu_seconds_per_minute;
use super::limit::{KilledOnDrop, Limit};
use super::report::{Latencies, number, progress};
use super::server::{Usage, free_address, scratch, target, wait_for};
use super::tokens::{connect, stomp_frames};
use super::tungstenite_server;
use super::wire::{ReadBuffer, client_message, handshake};
use super::worker::{Client, Kind};

/// Number of measured broadcasts.
const ROUNDS: usize = 5;
/// Time-out for the start of a server, which may include the download of its packages.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A running server and its protocol details.
struct Peer {
    address: SocketAddr,
    path: &'static str,
    /// Header lines of CONNECT.
    login: &'static str,
    destination: &'static str,
    frames: Vec<String>,
    /// The process to measure.
    process: u32,
    _others: Vec<TerminatedOnDrop>,
    _process: KilledOnDrop,
    _dir: TempDir,
}

/// A process that receives SIGTERM on drop.
struct TerminatedOnDrop(u32);

impl Drop for TerminatedOnDrop {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.to_string()).status();
    }
}

pub(crate) fn peers(run: &mut Run) {
    type Start = fn() -> Result<Peer, String>;
    let all: [(&str, &str, Start); 3] = [
        (
            "tungstenite",
            "hyper and tokio-tungstenite with default settings, like warp's WebSocket",
            tungstenite,
        ),
        (
            "stomp-broker-js",
            "stomp-broker-js 1.3 (heart-beats in one direction only)",
            broker_js,
        ),
        ("rabbitmq", "RabbitMQ from Debian, web-stomp", rabbitmq),
    ];
    for (name, about, start) in all {
        progress(format!("  {name}"));
        match start() {
            Ok(peer) => {
                // A crash of one server must not lose the other results.
                let measurement = || measure(&peer, run.visitors, &mut run.limit);
                let Ok(result) = catch_unwind(AssertUnwindSafe(measurement)) else {
                    run.report
                        .row(about, "not measured: it failed during the measurement");
                    continue;
                };
                run.report.row(about, &summary(&result));
                run.report.record(name, result);
            }
            Err(reason) => run.report.row(about, &format!("not measured: {reason}")),
        }
    }
}

fn summary(result: &Value) -> String {
    let value = |path: &str| number(result.pointer(path).and_then(Value::as_f64).unwrap());
    format!(
        "{} bytes per visitor; {} µs CPU per set-up; last delivery after {} ms, {} × the limit; idle CPU {} s per minute",
        value("/bytes_per_visitor"),
        value("/cpu_us_per_set_up"),
        value("/told_ms/last"),
        value("/last_over_limit"),
        value("/cpu_s_per_minute"),
    )
}

fn measure(peer: &Peer, count: usize, limit: &mut Limit) -> Value {
    let client = Client {
        kind: Kind::Waiting,
        address: peer.address,
        path: Some(peer.path.to_owned()),
        frames: peer.frames.clone(),
    };
    let mut clients = Clients::new(vec![client; count]);
    let usage = || Usage::of(peer.process);
    let from = count * 2 / 15;
    clients.connect_up_to(from);
    let before = usage();
    clients.connect_all();
    let full = usage();
    let idle = cpu_seconds_per_minute(usage);
    let mut publisher = Publisher::new(peer);
    let mut runs = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let (latencies, size) = clients.measure_delivery(|| publisher.send(peer.destination));
        runs.push(latencies);
        bytes = size;
    }
    drop(clients);
    let (delivery, raw) = (Latencies::median(runs), limit.of(count, bytes));
    json!({
        "bytes_per_visitor": full.bytes_each(&before, count - from),
        "cpu_us_per_set_up": full.micros_each(&before, count - from),
        "cpu_s_per_minute": idle, "message_bytes": bytes,
        "told_ms": delivery.json(), "limit_ms": raw.json(),
        "last_over_limit": delivery.max_ms / raw.max_ms,
    })
}

/// The client that sends the broadcast.
struct Publisher {
    socket: TcpStream,
}

impl Publisher {
    fn new(peer: &Peer) -> Self {
        let mut socket = TcpStream::connect(peer.address).unwrap();
        socket.set_nodelay(true).unwrap();
        let upgrade = handshake(peer.address, peer.path);
        socket.write_all(upgrade.as_bytes()).unwrap();
        let mut buffer = ReadBuffer::default();
        let mut bytes = [0; 2048];
        let mut read = |buffer: &mut ReadBuffer, socket: &mut TcpStream| {
            let n = socket.read(&mut bytes).unwrap();
            assert!(n > 0, "the server closed the connection");
            buffer.push(&bytes[..n]);
        };
        while buffer.take_http_header().is_none() {
            read(&mut buffer, &mut socket);
        }
        // Without heart-beats, since nothing would send them.
        let connect = connect(peer.login).replace("10000,10000", "0,0");
        socket.write_all(&client_message(&connect)).unwrap();
        while buffer.take_frame().is_none() {
            read(&mut buffer, &mut socket);
        }
        Self { socket }
    }

    /// Sends the same body as usher.
    fn send(&mut self, destination: &str) {
        let body = json!({
            "conference": "room@conference.meet.example.com", "status": "live", "randomDelayMs": 0,
        });
        let frame =
            format!("SEND\ndestination:{destination}\ncontent-type:application/json\n\n{body}\0");
        self.socket.write_all(&client_message(&frame)).unwrap();
    }
}

fn tungstenite() -> Result<Peer, String> {
    let address = free_address();
    let dir = scratch();
    let child = Command::new(std::env::current_exe().unwrap())
        .args([tungstenite_server::ARGUMENT, &address.port().to_string()])
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    wait_for(address);
    let destination = "/topic/room";
    Ok(Peer {
        address,
        path: "/",
        login: "host:localhost",
        destination,
        frames: stomp_frames("host:localhost", destination),
        process: child.id(),
        _others: Vec::new(),
        _process: KilledOnDrop(child),
        _dir: dir,
    })
}

/// A server on stomp-broker-js. The library sends no receipts for SUBSCRIBE, which the clients require, so the
/// middleware sends them.
const BROKER: &str = "\
const server = require('http').createServer();
const Broker = require('stomp-broker-js');
const heart = { heartbeat: [10000, 10000], heartbeatErrorMargin: 10000 };
const broker = new Broker({ server, path: '/stomp', protocol: 'ws', ...heart });
broker.addMiddleware('subscribe', (socket, args, next) => {
  const done = next();
  socket.send('RECEIPT\\nreceipt-id:r\\n\\n\\0');
  return done;
});
server.listen({ host: '127.0.0.1', port: Number(process.argv[2]), backlog: 4096 });
";

fn broker_js() -> Result<Peer, String> {
    let install_dir = target().join("peers/stomp-broker-js");
    std::fs::create_dir_all(&install_dir).map_err(|error| error.to_string())?;
    if !install_dir.join("node_modules/stomp-broker-js").exists() {
        progress("  npm install stomp-broker-js");
        run_command(
            Command::new("npm")
                .args([
                    "install",
                    "--no-audit",
                    "--no-fund",
                    "--silent",
                    "--prefix",
                    ".",
                ])
                .arg("stomp-broker-js@1.3.0")
                .current_dir(&install_dir),
        )?;
    }
    std::fs::write(install_dir.join("broker.js"), BROKER).map_err(|error| error.to_string())?;
    let address = free_address();
    let dir = scratch();
    let child = Command::new("node")
        .arg("broker.js")
        .arg(address.port().to_string())
        .current_dir(&install_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("node: {error}"))?;
    wait_for(address);
    let destination = "/topic/room";
    Ok(Peer {
        address,
        path: "/stomp",
        login: "host:localhost",
        destination,
        frames: stomp_frames("host:localhost", destination),
        process: child.id(),
        _others: Vec::new(),
        _process: KilledOnDrop(child),
        _dir: dir,
    })
}

fn rabbitmq() -> Result<Peer, String> {
    let install_dir = target().join("peers/rabbitmq");
    std::fs::create_dir_all(&install_dir).map_err(|error| error.to_string())?;
    let dir = scratch();
    let ports = [(); 4].map(|()| free_address());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load/rabbitmq.sh");
    let output = std::fs::File::create(dir.path().join("output")).unwrap();
    let errors = output.try_clone().unwrap();
    let child = Command::new(script)
        .args([&install_dir, dir.path()])
        .args(ports.map(|address| address.port().to_string()))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut child = KilledOnDrop(child);
    let start = Instant::now();
    let [address, ..] = ports;
    while TcpStream::connect(address).is_err() {
        let ended = child.0.try_wait().unwrap().is_some();
        if ended || start.elapsed() > START_TIMEOUT {
            let output = std::fs::read_to_string(dir.path().join("output")).unwrap();
            return Err(output.lines().last().unwrap_or("no output").to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let read = |file: &str| -> u32 {
        let text = std::fs::read_to_string(dir.path().join(file)).unwrap();
        text.trim().parse().unwrap()
    };
    let process = read("pid");
    // Its memory still grows during the start.
    std::thread::sleep(Duration::from_secs(5));
    let (destination, login) = ("/topic/room", "host:/\nlogin:guest\npasscode:guest");
    Ok(Peer {
        address,
        path: "/ws",
        login,
        destination,
        frames: stomp_frames(login, destination),
        process,
        _others: vec![
            TerminatedOnDrop(process),
            TerminatedOnDrop(read("epmd.pid")),
        ],
        _process: child,
        _dir: dir,
    })
}

fn run_command(command: &mut Command) -> Result<(), String> {
    match command.stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
