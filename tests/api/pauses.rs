//! usher or the machine stands still: no visitor loses its place for it. And clients that are seldom awake.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client_frame::client_frame as frame;
use crate::nginx::Nginx;
use crate::process::Process;
use crate::stomp::{SECRET, sign, visitor, visitor_topic};

const TEXT: u8 = 0x81;

/// A client that beats when the test says so.
struct Client(TcpStream);

impl Client {
    fn wait(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let handshake = b"GET /waiting-queue/visitor/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(handshake).unwrap();
        let token = sign(&visitor("room"));
        let topic = visitor_topic("room");
        let mut client = Self(stream);
        client.send(&format!(
            "CONNECT\naccept-version:1.2\nheart-beat:1000,0\nAuthorization:Bearer {token}\n\n\0"
        ));
        client.send(&format!(
            "SUBSCRIBE\nid:1\ndestination:{topic}\nreceipt:waits\n\n\0"
        ));
        client.receives("receipt-id:waits");
        client
    }

    fn send(&mut self, text: &str) {
        self.0.write_all(&frame(TEXT, text.as_bytes())).unwrap();
    }

    fn receives(&mut self, expected: &str) {
        let mut received = String::new();
        while !received.contains(expected) {
            let mut buffer = [0; 4096];
            let read = self.0.read(&mut buffer).unwrap();
            assert!(read > 0, "closed: {received}");
            received += &String::from_utf8_lossy(&buffer[..read]);
        }
    }

    fn is_open(&mut self) {
        self.send("ACK\nid:x\nreceipt:open\n\n\0");
        self.receives("receipt-id:open");
    }
}

/// Beats for a while.
fn beat(clients: &mut [&mut Client], length: Duration) {
    let started = Instant::now();
    while started.elapsed() < length {
        for client in &mut *clients {
            client.send("\n");
        }
        sleep(Duration::from_millis(300));
    }
}

fn start(dir: &TempDir, queue: &str) -> Process {
    let more = format!("[auth]\nsecret = \"{SECRET}\"\n[queue]\n{queue}\n");
    Process::start_with(dir.path(), &dir.path().join("usher.db"), &more)
}

#[test]
fn pause_of_usher_costs_no_place() {
    let dir = TempDir::new().unwrap();
    let process = start(&dir, "heart_beat = \"1s\"");
    // Also through nginx, which keeps what clients send meanwhile.
    let nginx = Nginx::start(dir.path(), process.address());
    let address = nginx
        .as_ref()
        .map_or(process.address(), |nginx| nginx.address);
    let mut beating = Client::wait(process.address());
    let mut proxied = Client::wait(address);
    let mut silent = Client::wait(process.address());
    beat(&mut [&mut silent], Duration::from_millis(900));
    process.signal("-STOP");
    // Longer than the allowance of two seconds.
    beat(&mut [&mut beating, &mut proxied], Duration::from_secs(5));
    process.signal("-CONT");
    beat(&mut [&mut beating, &mut proxied], Duration::from_secs(4));
    beating.is_open();
    proxied.is_open();
    // A client that really is silent still ends.
    let mut rest = Vec::new();
    let ended = silent.0.read_to_end(&mut rest);
    let text = String::from_utf8_lossy(&rest);
    assert!(
        ended.is_ok() && text.contains("no heart-beat came"),
        "{ended:?} {text}"
    );
}

#[test]
fn client_may_beat_as_seldom_as_it_is_asked_for() {
    let dir = TempDir::new().unwrap();
    let process = start(&dir, "heart_beat = \"1s\"\nclient_heart_beat = \"6s\"");
    let mut client = Client::wait(process.address());
    for _ in 0..2 {
        sleep(Duration::from_secs(7));
        client.send("\n");
    }
    client.is_open();
}
