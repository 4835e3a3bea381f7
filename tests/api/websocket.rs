//! What RFC 6455 asks of a server, with bytes on a plain TCP connection: no library stands between, so that
//! every rule can be broken. `tests/conformance/websocket.md` says which sentence each test is about.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client_frame::client_frame as frame;
use crate::harness::Usher;
use crate::stomp::{SECRET, sign, visitor, visitor_topic};

const PATIENCE: Duration = Duration::from_secs(15);
/// The key of the RFC's own example, and its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

async fn start() -> Usher {
    Usher::start(&format!("auth.secret = \"{SECRET}\"")).await
}

/// A handshake that is all right.
fn handshake() -> Vec<(&'static str, String)> {
    let headers = [
        ("Host", "meet.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ];
    headers
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec()
}

/// The same with one header replaced, or taken out.
fn handshake_but(name: &str, value: Option<&str>) -> Vec<(&'static str, String)> {
    let mut headers = handshake();
    headers.retain_mut(|(header, text)| {
        if *header != name {
            return true;
        }
        if let Some(value) = value {
            *text = value.to_owned();
        }
        value.is_some()
    });
    headers
}

struct Raw {
    socket: TcpStream,
    read: Vec<u8>,
}

/// The head of an HTTP answer, in lower case but for the values.
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(header, _)| header == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} comes twice");
        value
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    opcode: u8,
    payload: Vec<u8>,
}

impl Raw {
    async fn ask(usher: &Usher, line: &str, headers: &[(&str, String)]) -> (Self, Head) {
        let mut raw = Self {
            socket: TcpStream::connect(usher.address).await.unwrap(),
            read: Vec::new(),
        };
        let mut request = format!("{line}\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        raw.send(format!("{request}\r\n").as_bytes()).await;
        let head = raw.head().await;
        (raw, head)
    }

    async fn head(&mut self) -> Head {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.more().await, "closed instead of an answer");
        };
        let text = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let mut lines = text.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Head {
            status: status.parse().unwrap(),
            headers: headers.collect(),
        }
    }

    /// A WebSocket, and nothing said yet.
    async fn open(usher: &Usher) -> Self {
        let (raw, head) = Self::ask(usher, &line(), &handshake()).await;
        assert_eq!(head.status, 101);
        raw
    }

    /// A STOMP session.
    async fn session(usher: &Usher) -> Self {
        let mut raw = Self::open(usher).await;
        raw.send(&frame(FIN | TEXT, connect().as_bytes())).await;
        assert!(raw.text().await.starts_with("CONNECTED\n"));
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// Reads on; false at the end of the stream, or its reset.
    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = timeout(PATIENCE, self.socket.read(&mut buffer)).await;
        match read.expect("nothing came") {
            Ok(n) if n > 0 => {
                self.read.extend_from_slice(&buffer[..n]);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// The next frame, which must be as a server may send it: whole, unmasked, without reserved bits, its
    /// length in as few bytes as can be. `None` at the end.
    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, end)) = parse(&self.read) {
                self.read.drain(..end);
                return Some(frame);
            }
            if !self.more().await {
                assert!(self.read.is_empty(), "half a frame: {:?}", self.read);
                return None;
            }
        }
    }

    async fn text(&mut self) -> String {
        let frame = self.frame().await.expect("closed instead of a text");
        assert_eq!(frame.opcode, TEXT, "{frame:?}");
        String::from_utf8(frame.payload).unwrap()
    }

    /// The answer to a frame of STOMP that is all right.
    async fn is_alive(&mut self) {
        let ack = b"ACK\nid:x\nreceipt:alive\n\n\0";
        self.send(&frame(FIN | TEXT, ack)).await;
        let receipt = self.text().await;
        assert!(receipt.contains("receipt-id:alive"), "{receipt}");
    }

    /// The same behind so many pongs.
    async fn is_alive_behind(&mut self, pongs: usize) {
        let ack = b"ACK\nid:x\nreceipt:alive\n\n\0";
        self.send(&frame(FIN | TEXT, ack)).await;
        for _ in 0..pongs {
            assert_eq!(self.frame().await.unwrap().opcode, PONG);
        }
        assert!(self.text().await.contains("receipt-id:alive"));
    }

    /// The code and the ERROR with which the server ends a flood, behind its pongs.
    async fn flooded(&mut self) -> (u16, String) {
        let mut error = String::new();
        loop {
            let frame = self.frame().await.expect("closed without a close frame");
            match frame.opcode {
                PONG => {}
                TEXT => error = String::from_utf8(frame.payload).unwrap(),
                CLOSE => {
                    let code = frame.payload[..2].try_into().unwrap();
                    return (u16::from_be_bytes(code), error);
                }
                other => panic!("frame {other}"),
            }
        }
    }

    /// The code with which the server ends the connection. A STOMP frame that says why may come before;
    /// nothing comes after it but the end.
    async fn ended(&mut self) -> u16 {
        let mut said = 0;
        loop {
            let heard = self.frame().await.expect("closed without a close frame");
            match heard.opcode {
                TEXT => {
                    assert!(heard.payload.starts_with(b"ERROR\n"), "{heard:?}");
                    said += 1;
                    assert!(said == 1, "ERROR comes twice");
                }
                CLOSE => {
                    let (code, reason) = heard.payload.split_at(2);
                    assert!(std::str::from_utf8(reason).is_ok());
                    let code = u16::from_be_bytes(code.try_into().unwrap());
                    let _ = self
                        .socket
                        .write_all(&frame(FIN | CLOSE, &code.to_be_bytes()))
                        .await;
                    assert_eq!(self.frame().await, None, "a frame after the close");
                    return code;
                }
                other => panic!("frame {other} while ending"),
            }
        }
    }
}

fn line() -> String {
    "GET /waiting-queue/visitor/websocket HTTP/1.1".to_owned()
}

fn connect() -> String {
    let token = sign(&visitor("room"));
    format!("CONNECT\naccept-version:1.2\nheart-beat:0,0\nAuthorization:Bearer {token}\n\n\0")
}

/// The frame that the bytes begin with, and where it ends, if it is all there.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(
        first & 0xf0,
        FIN,
        "fragmented, or with reserved bits: {first:#x}"
    );
    assert_eq!(second & 0x80, 0, "masked");
    let (length, head) = match second {
        127 => {
            let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap());
            assert!(length > 0xffff, "{length} in eight bytes");
            (usize::try_from(length).unwrap(), 10)
        }
        126 => {
            let length = u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap());
            assert!(length > 125, "{length} in two bytes");
            (usize::from(length), 4)
        }
        short => (usize::from(short), 2),
    };
    let opcode = first & 0x0f;
    if opcode >= CLOSE {
        assert!(length <= 125, "a control frame of {length} bytes");
    }
    let payload = bytes.get(head..head + length)?.to_vec();
    Some((Frame { opcode, payload }, head + length))
}

/// Sends bytes in a session; the code that ends it.
async fn ends(usher: &Usher, bytes: &[u8]) -> u16 {
    let mut raw = Raw::session(usher).await;
    raw.send(bytes).await;
    raw.ended().await
}

// The handshake

#[tokio::test]
async fn handshake_is_answered_as_in_the_example() {
    let usher = start().await;
    let (mut raw, head) = Raw::ask(&usher, &line(), &handshake()).await;
    assert_eq!(head.status, 101);
    let upgrade = head.header("upgrade").unwrap();
    assert!(upgrade.eq_ignore_ascii_case("websocket"), "{upgrade}");
    let connection = head.header("connection").unwrap();
    assert!(connection.eq_ignore_ascii_case("upgrade"), "{connection}");
    assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT));
    raw.send(&frame(FIN | TEXT, connect().as_bytes())).await;
    assert!(raw.text().await.starts_with("CONNECTED\n"));
}

#[tokio::test]
async fn names_and_tokens_of_the_handshake_may_have_any_case_and_company() {
    let usher = start().await;
    let mut headers = handshake_but("Upgrade", Some("WebSocket"));
    for (name, value) in &mut headers {
        match *name {
            "Connection" => (*name, *value) = ("CONNECTION", "keep-alive, UPGRADE".into()),
            "Sec-WebSocket-Key" => *name = "sec-websocket-KEY",
            _ => {}
        }
    }
    headers.push(("X-Unknown", "what nobody asked for".into()));
    headers.push(("Cookie", "a=b".into()));
    let (_, head) = Raw::ask(&usher, &line(), &headers).await;
    assert_eq!(head.status, 101);
}

#[tokio::test]
async fn handshake_needs_each_of_its_headers() {
    let usher = start().await;
    for name in [
        "Host",
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
    ] {
        let (_, head) = Raw::ask(&usher, &line(), &handshake_but(name, None)).await;
        assert!(
            (400..500).contains(&head.status),
            "without {name}: {}",
            head.status
        );
    }
    for (name, value) in [("Upgrade", "h2c"), ("Connection", "close")] {
        let (_, head) = Raw::ask(&usher, &line(), &handshake_but(name, Some(value))).await;
        assert!(
            (400..500).contains(&head.status),
            "{name}: {value}: {}",
            head.status
        );
    }
}

#[tokio::test]
async fn handshake_is_a_get_of_http_1_1() {
    let usher = start().await;
    for line in [
        "POST /waiting-queue/visitor/websocket HTTP/1.1",
        "GET /waiting-queue/visitor/websocket HTTP/1.0",
    ] {
        let (_, head) = Raw::ask(&usher, line, &handshake()).await;
        assert!((400..600).contains(&head.status), "{line}: {}", head.status);
    }
}

#[tokio::test]
async fn key_must_be_sixteen_bytes_in_base64() {
    let usher = start().await;
    for key in [
        "",
        "c2hvcnQ=",
        "dGhlIHNhbXBsZSBub25jZSB0aGF0IGlzIHRvbyBsb25n",
        "!!!!!!!!!!!!!!!!!!!!!!==",
        "dGhlIHNhbXBsZSBub25jZTEy",
    ] {
        let headers = handshake_but("Sec-WebSocket-Key", Some(key));
        let (_, head) = Raw::ask(&usher, &line(), &headers).await;
        assert_eq!(head.status, 400, "{key:?}");
    }
}

#[tokio::test]
async fn other_version_is_refused_with_the_one_that_is_spoken() {
    let usher = start().await;
    for version in ["8", "14", "thirteen"] {
        let headers = handshake_but("Sec-WebSocket-Version", Some(version));
        let (_, head) = Raw::ask(&usher, &line(), &headers).await;
        assert_eq!(head.status, 426, "{version}");
        assert_eq!(head.header("sec-websocket-version"), Some("13"));
    }
}

#[tokio::test]
async fn subprotocol_is_one_of_those_offered_or_none() {
    let usher = start().await;
    for (offered, taken) in [
        (None, None),
        (Some("chat, superchat"), None),
        (Some("chat, v12.stomp"), Some("v12.stomp")),
    ] {
        let mut headers = handshake();
        headers.extend(offered.map(|offered| ("Sec-WebSocket-Protocol", offered.to_owned())));
        let (_, head) = Raw::ask(&usher, &line(), &headers).await;
        assert_eq!(head.header("sec-websocket-protocol"), taken, "{offered:?}");
    }
}

#[tokio::test]
async fn extensions_are_not_agreed_to() {
    let usher = start().await;
    let mut headers = handshake();
    headers.push(("Sec-WebSocket-Extensions", "permessage-deflate".into()));
    let (mut raw, head) = Raw::ask(&usher, &line(), &headers).await;
    assert_eq!(
        (head.status, head.header("sec-websocket-extensions")),
        (101, None)
    );
    // So its bit stays reserved.
    raw.send(&frame(FIN | 0x40 | TEXT, connect().as_bytes()))
        .await;
    assert_eq!(raw.ended().await, 1002);
}

#[tokio::test]
async fn frames_may_come_right_behind_the_handshake() {
    let usher = start().await;
    let mut raw = Raw {
        socket: TcpStream::connect(usher.address).await.unwrap(),
        read: Vec::new(),
    };
    let mut bytes = format!("{}\r\n", line());
    for (name, value) in handshake() {
        bytes.push_str(&format!("{name}: {value}\r\n"));
    }
    bytes.push_str("\r\n");
    let mut bytes = bytes.into_bytes();
    bytes.extend(frame(FIN | PING, b"early"));
    bytes.extend(frame(FIN | TEXT, connect().as_bytes()));
    raw.send(&bytes).await;
    assert_eq!(raw.head().await.status, 101);
    let pong = raw.frame().await.unwrap();
    assert_eq!(
        (pong.opcode, pong.payload.as_slice()),
        (PONG, &b"early"[..])
    );
    assert!(raw.text().await.starts_with("CONNECTED\n"));
}

// Frames

#[tokio::test]
async fn unmasked_frame_ends_the_connection() {
    let usher = start().await;
    assert_eq!(ends(&usher, b"\x81\x01\n").await, 1002);
    assert_eq!(ends(&usher, &[FIN | PING, 0]).await, 1002);
}

#[tokio::test]
async fn frames_of_the_server_are_unmasked_whole_and_minimal() {
    let usher = start().await;
    let mut raw = Raw::session(&usher).await;
    // `parse` looks at each: below and above what a byte, and two, can say.
    for length in [1, 60, 125, 126, 200, 2_000, 4_000] {
        let receipt = "r".repeat(length);
        let ack = format!("ACK\nid:x\nreceipt:{receipt}\n\n\0");
        raw.send(&frame(FIN | TEXT, ack.as_bytes())).await;
        let answer = raw.text().await;
        assert!(answer.contains(&receipt) || answer.starts_with("ERROR"));
        if answer.starts_with("ERROR") {
            break;
        }
    }
}

#[tokio::test]
async fn text_and_binary_messages_are_read() {
    let usher = start().await;
    let mut raw = Raw::open(&usher).await;
    raw.send(&frame(FIN | BINARY, connect().as_bytes())).await;
    assert!(raw.text().await.starts_with("CONNECTED\n"));
    raw.is_alive().await;
    // Nothing is a message as well.
    raw.send(&frame(FIN | TEXT, b"")).await;
    raw.is_alive().await;
}

// Fragments

#[tokio::test]
async fn fragments_are_one_message_with_control_frames_between() {
    let usher = start().await;
    let mut raw = Raw::session(&usher).await;
    raw.send(&frame(TEXT, b"ACK\nid:x\nrec")).await;
    raw.send(&frame(FIN | PING, b"between")).await;
    let pong = raw.frame().await.unwrap();
    assert_eq!(
        (pong.opcode, pong.payload.as_slice()),
        (PONG, &b"between"[..])
    );
    raw.send(&frame(CONTINUATION, b"")).await;
    raw.send(&frame(CONTINUATION, b"eipt:whole\n")).await;
    raw.send(&frame(FIN | PONG, b"unasked")).await;
    raw.send(&frame(FIN | CONTINUATION, b"\n\0")).await;
    assert!(raw.text().await.contains("receipt-id:whole"));
}

// Control frames

#[tokio::test]
async fn ping_is_answered_with_the_same_payload() {
    let usher = start().await;
    let mut raw = Raw::session(&usher).await;
    for payload in [
        &b""[..],
        b"hello",
        &[0, 0xff, 0xfe, b'\n', 0x80],
        &[b'x'; 125],
    ] {
        raw.send(&frame(FIN | PING, payload)).await;
        let pong = raw.frame().await.unwrap();
        assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, payload));
    }
    raw.is_alive().await;
}

#[tokio::test]
async fn pong_that_nobody_asked_for_is_not_answered() {
    let usher = start().await;
    let mut raw = Raw::session(&usher).await;
    raw.send(&frame(FIN | PONG, b"unasked")).await;
    // The next thing heard is the answer to the next thing said.
    raw.is_alive().await;
}

// The end

#[tokio::test]
async fn close_is_answered_and_the_connection_ends() {
    let usher = start().await;
    for payload in [
        &b""[..],
        &1000_u16.to_be_bytes(),
        b"\x03\xe9going away",
        &4000_u16.to_be_bytes(),
    ] {
        let mut raw = Raw::session(&usher).await;
        raw.send(&frame(FIN | CLOSE, payload)).await;
        let close = raw.frame().await.unwrap();
        assert_eq!(close.opcode, CLOSE, "{close:?}");
        // The code comes back, where there was one.
        assert!(
            payload.is_empty() || close.payload[..2] == payload[..2],
            "{close:?}"
        );
        // The server closes first: the client has not, and yet this is the end.
        assert_eq!(raw.frame().await, None);
    }
}

#[tokio::test]
async fn what_comes_after_a_close_is_not_looked_at() {
    let usher = start().await;
    let mut raw = Raw::session(&usher).await;
    let bytes = [
        frame(FIN | CLOSE, &1000_u16.to_be_bytes()),
        frame(FIN | TEXT, b"ACK\nid:x\nreceipt:late\n\n\0"),
        frame(FIN | PING, b"late"),
    ];
    raw.send(&bytes.concat()).await;
    assert_eq!(raw.frame().await.unwrap().opcode, CLOSE);
    assert_eq!(raw.frame().await, None);
}

#[tokio::test]
async fn close_within_a_message_is_a_close() {
    let usher = start().await;
    let mut raw = Raw::session(&usher).await;
    raw.send(&frame(TEXT, b"ACK\n")).await;
    raw.send(&frame(FIN | CLOSE, &1000_u16.to_be_bytes())).await;
    assert_eq!(raw.frame().await.unwrap().opcode, CLOSE);
    assert_eq!(raw.frame().await, None);
}

#[tokio::test]
async fn server_that_ends_a_session_closes_the_websocket_too() {
    let usher = start().await;
    let mut raw = Raw::session(&usher).await;
    raw.send(&frame(FIN | TEXT, b"DISCONNECT\n\n\0")).await;
    assert_eq!(raw.ended().await, 1000);
    let mut raw = Raw::session(&usher).await;
    raw.send(&frame(FIN | TEXT, b"SEND\n\n\0")).await;
    assert!(matches!(raw.ended().await, 1002 | 1008));
}

/// Jitsi Meet's client counts a handshake that is refused as an error, and a close not.
#[tokio::test]
async fn handshake_that_a_stop_overtakes_is_answered_and_then_closed() {
    let usher = start().await;
    let mut raw = Raw {
        socket: TcpStream::connect(usher.address).await.unwrap(),
        read: Vec::new(),
    };
    let mut head = format!("{}\r\n", line());
    for (name, value) in handshake() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    raw.send(head.as_bytes()).await;
    // Connections are taken in order: the one before is, when this is answered.
    assert_eq!(usher.get("/health").await.status, 200);
    let rest = async {
        raw.send(b"\r\n").await;
        assert_eq!(raw.head().await.status, 101);
        raw.ended().await
    };
    let (_, code) = tokio::join!(usher.stop(), rest);
    assert_eq!(code, 1012);
}

// UTF-8

#[tokio::test]
async fn text_that_is_not_utf_8_ends_the_connection() {
    let usher = start().await;
    // A stray byte, an overlong slash, a surrogate, beyond the last character, half a character.
    for text in [
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
    ] {
        let code = ends(&usher, &frame(FIN | TEXT, text)).await;
        assert!(matches!(code, 1002 | 1007), "{text:?}: {code}");
    }
    let halves = [frame(TEXT, b"\xe2"), frame(FIN | CONTINUATION, b"\x28\xa1")];
    let code = ends(&usher, &halves.concat()).await;
    assert!(matches!(code, 1002 | 1007), "{code}");
}

// Limits

#[tokio::test]
async fn frame_that_is_too_large_is_refused_before_it_is_there() {
    let usher = start().await;
    let mut bytes = vec![FIN | TEXT, 0xff];
    bytes.extend((1_u64 << 40).to_be_bytes());
    bytes.extend([0; 4]);
    assert_eq!(ends(&usher, &bytes).await, 1009);
}

#[tokio::test]
async fn message_that_is_too_large_is_refused_in_whatever_pieces() {
    let usher = start().await;
    let mut raw = Raw::session(&usher).await;
    let piece = [b'\n'; 1_000];
    raw.send(&frame(TEXT, &piece)).await;
    for _ in 0..200 {
        let bytes = frame(CONTINUATION, &piece);
        if raw.socket.write_all(&bytes).await.is_err() {
            break;
        }
    }
    assert_eq!(raw.ended().await, 1009);
}

#[tokio::test]
async fn a_handful_of_control_frames_before_connect_is_answered_and_more_end_the_session() {
    let usher = start().await;
    for bytes in [
        frame(FIN | PING, b"x"),
        frame(FIN | PONG, b"x"),
        frame(FIN | TEXT, b"\n"),
    ] {
        let mut raw = Raw::open(&usher).await;
        raw.send(&bytes.repeat(5)).await;
        raw.send(&frame(FIN | TEXT, connect().as_bytes())).await;
        let mut next = raw.frame().await.unwrap();
        while next.opcode == PONG {
            next = raw.frame().await.unwrap();
        }
        assert!(next.payload.starts_with(b"CONNECTED\n"), "{next:?}");
        let mut raw = Raw::open(&usher).await;
        raw.send(&bytes.repeat(100)).await;
        let (code, text) = raw.flooded().await;
        assert_eq!(code, 1008);
        assert!(text.contains("CONNECT first"), "{text}");
    }
}

#[tokio::test]
async fn client_above_its_rate_is_slowed_and_then_closed_with_a_reason() {
    let usher = start().await;
    let mut raw = Raw::session(&usher).await;
    let started = tokio::time::Instant::now();
    // A burst is answered.
    raw.send(&frame(FIN | PING, b"x").repeat(100)).await;
    raw.is_alive_behind(100).await;
    let (mut reader, mut writer) = raw.socket.into_split();
    let flood = tokio::spawn(async move {
        let bytes = frame(FIN | PING, b"x").repeat(1000);
        while writer.write_all(&bytes).await.is_ok() {}
    });
    let mut received = Vec::new();
    let ended = timeout(Duration::from_secs(120), async {
        let mut buffer = [0; 4096];
        while let Ok(read) = reader.read(&mut buffer).await {
            if read == 0 {
                break;
            }
            received.extend_from_slice(&buffer[..read]);
        }
    });
    ended.await.expect("it is not closed");
    flood.abort();
    // A pong is three bytes.
    assert!(received.len() < 3 * 5000, "{} bytes", received.len());
    assert!(
        started.elapsed() > Duration::from_secs(3),
        "it was not slowed"
    );
    let text = String::from_utf8_lossy(&received);
    assert!(text.contains("ERROR\nmessage:too many frames"), "{text}");
}

#[tokio::test]
async fn connect_of_12_kib_in_four_pieces_is_accepted() {
    let usher = start().await;
    let mut claims = visitor("room");
    claims["context"]["groups"] = "g".repeat(8_500).into();
    let token = sign(&claims);
    assert!(token.len() > 11_500, "{}", token.len());
    let text =
        format!("CONNECT\naccept-version:1.2\nheart-beat:0,0\nAuthorization:Bearer {token}\n\n\0");
    let pieces: Vec<_> = text.as_bytes().chunks(text.len().div_ceil(4)).collect();
    // As messages of their own, as stompjs sends them, and as fragments of one.
    let mut raw = Raw::open(&usher).await;
    for piece in &pieces {
        raw.send(&frame(FIN | BINARY, piece)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(raw.text().await.starts_with("CONNECTED\n"));
    let mut raw = Raw::open(&usher).await;
    for (number, piece) in pieces.iter().enumerate() {
        let opcode = if number == 0 { BINARY } else { CONTINUATION };
        let fin = if number == 3 { FIN } else { 0 };
        raw.send(&frame(fin | opcode, piece)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(raw.text().await.starts_with("CONNECTED\n"));
}

#[tokio::test]
async fn unfinished_frame_before_connect_has_at_most_16_kib() {
    let usher = start().await;
    // One message, whose length alone is too much; and one frame in many messages.
    let mut raw = Raw::open(&usher).await;
    let mut bytes = vec![FIN | TEXT, 0x80 | 126];
    bytes.extend(17_000_u16.to_be_bytes());
    bytes.extend([0; 4]);
    raw.send(&bytes).await;
    assert_eq!(raw.ended().await, 1009);
    let mut raw = Raw::open(&usher).await;
    raw.send(&frame(FIN | TEXT, b"CONNECT\nAuthorization:"))
        .await;
    for _ in 0..17 {
        let _ = raw
            .socket
            .write_all(&frame(FIN | TEXT, &[b'x'; 1_000]))
            .await;
    }
    assert_eq!(raw.ended().await, 1002);
}

#[tokio::test]
async fn session_goes_on_through_all_that_is_allowed() {
    let usher = start().await;
    let mut raw = Raw::session(&usher).await;
    let topic = visitor_topic("room");
    let subscribe = format!("SUBSCRIBE\nid:1\ndestination:{topic}\nreceipt:s\n\n\0");
    raw.send(&frame(FIN | BINARY, subscribe.as_bytes())).await;
    assert!(raw.text().await.contains("receipt-id:s"));
    for _ in 0..100 {
        raw.send(&frame(FIN | TEXT, b"\n")).await;
    }
    raw.is_alive().await;
}

#[test]
fn every_test_in_the_websocket_table_exists() {
    let table = include_str!("../conformance/websocket.md");
    let code = concat!(
        include_str!("websocket.rs"),
        include_str!("../../src/session/websocket/tests.rs")
    );
    let cells = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---"))
        .filter_map(|line| line.trim_end_matches([' ', '|']).rsplit(" | ").next())
        .filter(|cell| *cell != "Test");
    let mut rows = 0;
    for cell in cells {
        rows += 1;
        let names: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {cell}");
        for name in names {
            assert!(
                code.contains(&format!("fn {name}(")),
                "no such test: {name}"
            );
        }
    }
    assert!(rows > 30, "{rows} rows");
}
