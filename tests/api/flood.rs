//! Clients that send as much as they can: requests, timers and the watchdog go on. Also through nginx with the snippet
//! of the package.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client_frame::client_frame as frame;
use crate::harness::TOKEN;
use crate::nginx::Nginx;
use crate::process::{Process, free_address, usher, write_config};
use crate::stomp::{SECRET, sign, visitor, visitor_topic};

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The figures are 100 ms and 500 ms; a busy machine gets five times as much.
const MEDIAN_MAX: Duration = Duration::from_millis(500);
const SLOWEST_MAX: Duration = Duration::from_millis(2500);
/// The longest time between two beats of the watchdog: five times the figure.
const BEAT_MAX: Duration = Duration::from_secs(25);
const THREADS: usize = 4;

/// What a client floods with: what it sends once, and then again and again.
#[derive(Clone, Debug)]
struct Kind {
    name: &'static str,
    once: Vec<u8>,
    again: Vec<u8>,
}

fn kinds() -> Vec<Kind> {
    let text = |text: &str| frame(FIN | TEXT, text.as_bytes());
    let token = sign(&visitor("flooded"));
    let connect = text(&format!(
        "CONNECT\naccept-version:1.2\nheart-beat:0,0\nAuthorization:Bearer {token}\n\n\0"
    ));
    let topic = visitor_topic("flooded");
    let subscribe = format!("SUBSCRIBE\nid:1\ndestination:{topic}\n\n\0UNSUBSCRIBE\nid:1\n\n\0");
    let verify = format!(
        "SUBSCRIBE\nid:1\ndestination:{topic}\nAuthorization:Bearer {token}\n\n\0UNSUBSCRIBE\nid:1\n\n\0"
    );
    let receipts = text(&"ACK\nid:x\nreceipt:r\n\n\0".repeat(500));
    let kind = |name, once: &[u8], again: Vec<u8>| Kind {
        name,
        once: once.to_vec(),
        again,
    };
    let fragments = [connect.clone(), frame(TEXT, b"")].concat();
    vec![
        kind(
            "pings before CONNECT",
            b"",
            frame(FIN | PING, b"x").repeat(300),
        ),
        kind("heart-beats before CONNECT", b"", text("\n").repeat(300)),
        kind("CONNECTs", b"", connect.clone()),
        kind("pings", &connect, frame(FIN | PING, b"x").repeat(300)),
        kind("pongs", &connect, frame(FIN | PONG, b"x").repeat(300)),
        kind("heart-beats", &connect, text("\n").repeat(300)),
        kind("receipts", &connect, receipts),
        kind(
            "empty fragments",
            &fragments,
            frame(CONTINUATION, b"").repeat(300),
        ),
        kind("subscriptions", &connect, text(&subscribe).repeat(20)),
        kind("tokens", &connect, text(&verify).repeat(20)),
    ]
}

/// Connections that flood until this is dropped; a closed one is opened again.
struct Flood {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(address: SocketAddr, sockets: usize, kind: &Kind) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flood = |_| {
            let (stop, kind) = (Arc::clone(&stop), kind.clone());
            spawn(move || {
                let mut open: Vec<_> = (0..sockets / THREADS).map(|_| None).collect();
                while !stop.load(Ordering::Relaxed) {
                    let mut sent = false;
                    for socket in &mut open {
                        sent |= step(address, socket, &kind);
                    }
                    if !sent {
                        sleep(Duration::from_millis(1));
                    }
                }
            })
        };
        let threads = (0..THREADS).map(flood).collect();
        Self { stop, threads }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Opens the socket, or reads what there is and sends once more. Returns whether bytes were sent.
fn step(address: SocketAddr, socket: &mut Option<TcpStream>, kind: &Kind) -> bool {
    let Some(stream) = socket else {
        *socket = open(address, &kind.once).ok();
        return socket.is_some();
    };
    let mut buffer = [0; 16 * 1024];
    let lost = match stream.read(&mut buffer) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    let sent = stream.write(&kind.again);
    let blocked = matches!(&sent, Err(error) if error.kind() == ErrorKind::WouldBlock);
    if lost || (sent.is_err() && !blocked) {
        *socket = None;
    }
    sent.is_ok()
}

/// A WebSocket after its handshake, and the first bytes on it.
fn open(address: SocketAddr, first: &[u8]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let handshake = b"GET /waiting-queue/visitor/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(handshake)?;
    let mut head = [0; 1024];
    let read = stream.read(&mut head)?;
    if !head[..read].starts_with(b"HTTP/1.1 101") {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    stream.write_all(first)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// One POST on its own connection; how long it took.
fn post(address: SocketAddr, room: &str) -> Duration {
    let body = format!("name={room}&start_time=2026-11-21T22:21:26.000Z&mail_owner=");
    let started = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let request = format!(
        "POST /conference HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    started.elapsed()
}

/// Median and maximum of POSTs within `length`, in order of size.
fn measure(address: SocketAddr, prefix: &str, length: Duration) -> (Duration, Duration) {
    let started = Instant::now();
    let mut times = Vec::new();
    while started.elapsed() < length || times.len() < 10 {
        times.push(post(address, &format!("{prefix}{}", times.len())));
        sleep(Duration::from_millis(20));
    }
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

fn start(dir: &Path) -> (Process, SocketAddr) {
    let address = free_address();
    write_config(dir, address, &dir.join("usher.db"));
    let config = dir.join("config.toml");
    let text =
        std::fs::read_to_string(&config).unwrap() + &format!("[auth]\nsecret = \"{SECRET}\"\n");
    std::fs::write(config, text).unwrap();
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let child = usher(dir)
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .env("WATCHDOG_USEC", "3000000")
        .stderr(log)
        .spawn()
        .unwrap();
    (Process::running(child, address), address)
}

/// Asserts that POSTs are answered while each kind floods on 64 sockets.
fn assert_answered(usher: SocketAddr, flooded: SocketAddr, kinds: &[Kind]) {
    for (number, kind) in kinds.iter().enumerate() {
        let flood = Flood::start(flooded, 64, kind);
        sleep(Duration::from_millis(300));
        let (median, slowest) = measure(usher, &format!("room{number}x"), Duration::from_secs(2));
        drop(flood);
        assert!(median < MEDIAN_MAX, "{}: median {median:?}", kind.name);
        assert!(slowest < SLOWEST_MAX, "{}: slowest {slowest:?}", kind.name);
    }
}

#[test]
fn requests_are_answered_while_sockets_flood_with_each_frame() {
    let dir = TempDir::new().unwrap();
    let (_process, address) = start(dir.path());
    assert_answered(address, address, &kinds());
}

#[test]
fn requests_are_answered_while_sockets_flood_through_nginx() {
    let dir = TempDir::new().unwrap();
    let (_process, address) = start(dir.path());
    let Some(nginx) = Nginx::start(dir.path(), address) else {
        println!("skipped: nginx isn't installed");
        return;
    };
    let flooding = ["pings before CONNECT", "pings", "receipts"];
    let kinds: Vec<_> = kinds()
        .into_iter()
        .filter(|kind| flooding.contains(&kind.name))
        .collect();
    assert_answered(address, nginx.address, &kinds);
}

#[test]
fn watchdog_is_notified_while_many_sockets_flood() {
    let dir = TempDir::new().unwrap();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(BEAT_MAX)).unwrap();
    let (_process, address) = start(dir.path());
    let kind = &kinds()[0];
    assert_eq!(kind.name, "pings before CONNECT");
    let _flood = Flood::start(address, 400, kind);
    let mut beats = 0;
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while beats < 6 {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("no beat of the watchdog");
        if String::from_utf8_lossy(&buffer[..length]).contains("WATCHDOG=1") {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            beats += 1;
        }
    }
    println!("the longest gap: {longest:?}");
    assert!(longest < BEAT_MAX);
}
