//! The same crowd at the doors of others. None of them checks a token; each does less than usher, or more.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Run;
use super::crowd::Crowd;
use super::idle::minute;
use super::limit::{Ended, Limit};
use super::report::{Spread, number, progress};
use super::server::{Usage, free_address, scratch, target, wait_for};
use super::tokens::{connect, stomp};
use super::upgraded;
use super::wire::{Inbox, handshake, message};
use super::worker::{Kind, Visitor};

/// How often a fan-out is measured.
const ROUNDS: usize = 5;
/// How long a peer may take to its first answer: Erlang's virtual machine takes a while, and packages have to
/// come from somewhere.
const START: Duration = Duration::from_secs(120);

/// A server that was started, and what to say to it.
struct Peer {
    address: SocketAddr,
    path: &'static str,
    /// What lets a client in.
    entry: &'static str,
    destination: &'static str,
    /// What a visitor says.
    says: Vec<String>,
    /// The process that does the work.
    process: u32,
    _others: Vec<Stopped>,
    _process: Ended,
    _dir: TempDir,
}

/// Some other process, by its id.
struct Stopped(u32);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.to_string()).status();
    }
}

pub(crate) fn peers(run: &mut Run) {
    type Start = fn() -> Result<Peer, String>;
    let all: [(&str, &str, Start); 3] = [
        (
            "tungstenite",
            "hyper and tokio-tungstenite as they come, like warp's WebSocket",
            tungstenite,
        ),
        (
            "stomp-broker-js",
            "stomp-broker-js 1.3 (heart-beats one way only)",
            broker_js,
        ),
        ("rabbitmq", "RabbitMQ of Debian, web-stomp", rabbitmq),
    ];
    for (name, about, start) in all {
        progress(format!("  {name}"));
        match start() {
            Ok(peer) => {
                // One that falls over is not to take the other results with it.
                let work = || measure(&peer, run.visitors, &mut run.limit);
                let Ok(found) = catch_unwind(AssertUnwindSafe(work)) else {
                    run.report.row(about, "not measured: it failed on the way");
                    continue;
                };
                run.report.row(about, &sentence(&found));
                run.report.keep(name, found);
            }
            Err(reason) => run.report.row(about, &format!("not measured: {reason}")),
        }
    }
}

fn sentence(found: &Value) -> String {
    let value = |path: &str| number(found.pointer(path).and_then(Value::as_f64).unwrap());
    format!(
        "{} bytes a visitor; {} µs CPU a set-up; the last told after {} ms, {} × the limit; idle {} s a minute",
        value("/bytes_per_visitor"),
        value("/cpu_us_per_set_up"),
        value("/told_ms/last"),
        value("/last_over_limit"),
        value("/cpu_s_per_minute"),
    )
}

fn measure(peer: &Peer, count: usize, limit: &mut Limit) -> Value {
    let visitor = Visitor {
        kind: Kind::Waits,
        address: peer.address,
        path: Some(peer.path.to_owned()),
        says: peer.says.clone(),
    };
    let mut crowd = Crowd::new(vec![visitor; count]);
    let usage = || Usage::of(peer.process);
    let from = count * 2 / 15;
    crowd.grow_to(from);
    let before = usage();
    crowd.come();
    let full = usage();
    let idle = minute(usage);
    let mut publisher = Publisher::new(peer);
    let mut runs = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let (spread, some) = crowd.told(|| publisher.send(peer.destination));
        runs.push(spread);
        bytes = some;
    }
    drop(crowd);
    let (told, raw) = (Spread::median(runs), limit.of(count, bytes));
    json!({
        "bytes_per_visitor": full.bytes_each(&before, count - from),
        "cpu_us_per_set_up": full.micros_each(&before, count - from),
        "cpu_s_per_minute": idle, "message_bytes": bytes,
        "told_ms": told.json(), "limit_ms": raw.json(),
        "last_over_limit": told.last_ms / raw.last_ms,
    })
}

/// Who sends what all are told.
struct Publisher {
    socket: TcpStream,
}

impl Publisher {
    fn new(peer: &Peer) -> Self {
        let mut socket = TcpStream::connect(peer.address).unwrap();
        socket.set_nodelay(true).unwrap();
        let hello = handshake(peer.address, peer.path);
        socket.write_all(hello.as_bytes()).unwrap();
        let mut inbox = Inbox::default();
        let mut buffer = [0; 2048];
        let mut more = |inbox: &mut Inbox, socket: &mut TcpStream| {
            let n = socket.read(&mut buffer).unwrap();
            assert!(n > 0, "hung up on");
            inbox.put(&buffer[..n]);
        };
        while inbox.take_head().is_none() {
            more(&mut inbox, &mut socket);
        }
        // No heart-beats: it has other things to do.
        let hello = connect(peer.entry).replace("10000,10000", "0,0");
        socket.write_all(&message(&hello)).unwrap();
        while inbox.take_frame().is_none() {
            more(&mut inbox, &mut socket);
        }
        Self { socket }
    }

    /// A body as usher's.
    fn send(&mut self, destination: &str) {
        let body = json!({
            "conference": "room@conference.meet.example.com", "status": "live", "randomDelayMs": 0,
        });
        let frame =
            format!("SEND\ndestination:{destination}\ncontent-type:application/json\n\n{body}\0");
        self.socket.write_all(&message(&frame)).unwrap();
    }
}

fn tungstenite() -> Result<Peer, String> {
    let address = free_address();
    let dir = scratch();
    let child = Command::new(std::env::current_exe().unwrap())
        .args([upgraded::ARGUMENT, &address.port().to_string()])
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    wait_for(address);
    let destination = "/topic/room";
    Ok(Peer {
        address,
        path: "/",
        entry: "host:localhost",
        destination,
        says: stomp("host:localhost", destination),
        process: child.id(),
        _others: Vec::new(),
        _process: Ended(child),
        _dir: dir,
    })
}

/// The whole of the server that uses it. It gives no receipts for subscriptions, without which a client doesn't
/// know that it waits.
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
    let place = target().join("peers/stomp-broker-js");
    std::fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    if !place.join("node_modules/stomp-broker-js").exists() {
        progress("  npm install stomp-broker-js");
        ran(Command::new("npm")
            .args([
                "install",
                "--no-audit",
                "--no-fund",
                "--silent",
                "--prefix",
                ".",
            ])
            .arg("stomp-broker-js@1.3.0")
            .current_dir(&place))?;
    }
    std::fs::write(place.join("broker.js"), BROKER).map_err(|error| error.to_string())?;
    let address = free_address();
    let dir = scratch();
    let child = Command::new("node")
        .arg("broker.js")
        .arg(address.port().to_string())
        .current_dir(&place)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("node: {error}"))?;
    wait_for(address);
    let destination = "/topic/room";
    Ok(Peer {
        address,
        path: "/stomp",
        entry: "host:localhost",
        destination,
        says: stomp("host:localhost", destination),
        process: child.id(),
        _others: Vec::new(),
        _process: Ended(child),
        _dir: dir,
    })
}

fn rabbitmq() -> Result<Peer, String> {
    let place = target().join("peers/rabbitmq");
    std::fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    let dir = scratch();
    let ports = [(); 4].map(|()| free_address());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load/rabbitmq.sh");
    let output = std::fs::File::create(dir.path().join("output")).unwrap();
    let errors = output.try_clone().unwrap();
    let child = Command::new(script)
        .args([&place, dir.path()])
        .args(ports.map(|address| address.port().to_string()))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut child = Ended(child);
    let begun = Instant::now();
    let [address, ..] = ports;
    while TcpStream::connect(address).is_err() {
        let ended = child.0.try_wait().unwrap().is_some();
        if ended || begun.elapsed() > START {
            let said = std::fs::read_to_string(dir.path().join("output")).unwrap();
            return Err(said.lines().last().unwrap_or("it did not start").to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let read = |file: &str| -> u32 {
        let text = std::fs::read_to_string(dir.path().join(file)).unwrap();
        text.trim().parse().unwrap()
    };
    let process = read("pid");
    // What it loads at the start is not part of the first visitors' price.
    std::thread::sleep(Duration::from_secs(5));
    let (destination, entry) = ("/topic/room", "host:/\nlogin:guest\npasscode:guest");
    Ok(Peer {
        address,
        path: "/ws",
        entry,
        destination,
        says: stomp(entry, destination),
        process,
        _others: vec![Stopped(process), Stopped(read("epmd.pid"))],
        _process: child,
        _dir: dir,
    })
}

fn ran(command: &mut Command) -> Result<(), String> {
    match command.stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
