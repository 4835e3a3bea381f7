//! Visitors by the thousand: as little of a client as can wait in the queue.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::server::{SECRET, Server};

/// How many set-ups are under way at a time.
const AT_A_TIME: usize = 64;
const TOPIC: &str = "/secured/conference/visitor/topic.room@conference.meet.example.com";

pub(crate) struct Crowd {
    address: SocketAddr,
    tokens: Vec<String>,
    sockets: Vec<TcpStream>,
}

impl Crowd {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            tokens: Vec::new(),
            sockets: Vec::new(),
        }
    }

    /// Lets visitors come until there are so many, each with a token of their own.
    pub(crate) async fn grow_to(&mut self, size: usize) {
        // Made beforehand: the client's work is not to be in the way.
        for n in self.tokens.len()..size {
            self.tokens.push(token(n));
        }
        let mut coming = JoinSet::new();
        for n in self.sockets.len()..size {
            if coming.len() >= AT_A_TIME {
                self.sockets
                    .push(coming.join_next().await.unwrap().unwrap());
            }
            coming.spawn(come(self.address, self.tokens[n].clone()));
        }
        while let Some(socket) = coming.join_next().await {
            self.sockets.push(socket.unwrap());
        }
    }

    /// Goes live; how long it took each to be told, and how many bytes that took.
    pub(crate) async fn go_live(&mut self, server: &Server) -> (Vec<Duration>, usize) {
        let begun = Instant::now();
        let listening = told(std::mem::take(&mut self.sockets), begun, None);
        let ((), (sockets, times, bytes)) = tokio::join!(server.go_live(), listening);
        self.sockets = sockets;
        (times, bytes)
    }

    pub(crate) async fn leave(&mut self) {
        self.sockets.clear();
        // The server has to see it before they come back.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until every socket has had a message of so many bytes, or of any.
pub(crate) async fn told(
    sockets: Vec<TcpStream>,
    begun: Instant,
    length: Option<usize>,
) -> (Vec<TcpStream>, Vec<Duration>, usize) {
    let mut listening = JoinSet::new();
    for mut socket in sockets {
        listening.spawn(async move {
            let mut buffer = [0; 1024];
            let mut read = 0;
            loop {
                let n = socket.read(&mut buffer[read..]).await.unwrap();
                assert!(n > 0, "somebody was hung up on");
                read += n;
                // A frame's NUL is the last byte of its message.
                if length.map_or(buffer[read - 1] == 0, |length| read >= length) {
                    return (socket, begun.elapsed(), read);
                }
            }
        });
    }
    let (mut sockets, mut times, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(one) = listening.join_next().await {
        let (socket, time, read) = one.unwrap();
        sockets.push(socket);
        times.push(time);
        bytes = bytes.max(read);
    }
    (sockets, times, bytes)
}

fn token(n: usize) -> String {
    let claims = json!({
        "iss": "jitsi", "aud": "jitsi", "exp": 4_000_000_000_u64, "jti": n, "room": "room",
        "sub": "meet.example.com", "context": { "user": { "role": "visitor" } },
    });
    usher::token::mint(SECRET, &claims, Some("usher")).unwrap()
}

async fn come(address: SocketAddr, token: String) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let hello = format!(
        "GET /waiting-queue/visitor/websocket HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(hello.as_bytes()).await.unwrap();
    until(&mut socket, b"\r\n\r\n").await;
    let connect = format!(
        "CONNECT\naccept-version:1.2\nheart-beat:10000,10000\nAuthorization:Bearer {token}\n\n\0"
    );
    socket.write_all(&message(&connect)).await.unwrap();
    until(&mut socket, b"\0").await;
    let subscribe = format!("SUBSCRIBE\nid:1\ndestination:{TOPIC}\nreceipt:r\n\n\0");
    socket.write_all(&message(&subscribe)).await.unwrap();
    until(&mut socket, b"\0").await;
    socket
}

/// A text message of a client, masked with zeros: the rule is kept, and the work spared.
fn message(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let mut bytes = vec![0x81];
    match u8::try_from(length) {
        Ok(short) if short < 126 => bytes.push(0x80 | short),
        _ => {
            bytes.push(0x80 | 126);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    bytes
}

async fn until(socket: &mut TcpStream, end: &[u8]) {
    let mut buffer = [0; 1024];
    let mut read = 0;
    while !buffer[..read].ends_with(end) {
        let n = socket.read(&mut buffer[read..]).await.unwrap();
        assert!(
            n > 0,
            "hung up on: {}",
            String::from_utf8_lossy(&buffer[..read])
        );
        read += n;
    }
}
