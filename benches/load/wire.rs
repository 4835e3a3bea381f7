//! As much of HTTP, WebSocket and STOMP as a client of the benchmark needs, and no more: it is not to be what
//! is measured.

use std::net::SocketAddr;

/// A text message with a line feed, masked: a client's heart-beat.
pub(crate) const BEAT: [u8; 7] = [0x81, 0x81, 0, 0, 0, 0, b'\n'];

/// The request that turns a connection into a WebSocket. Who asks for a subprotocol gets it from each of the
/// systems measured.
pub(crate) fn handshake(address: SocketAddr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: v12.stomp\r\n\r\n"
    )
}

/// A text message of a client, masked with zeros: the rule is kept, and the work spared.
pub(crate) fn message(text: &str) -> Vec<u8> {
    let mut bytes = head(text.len(), 0x80);
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    bytes
}

/// A text message of a server.
pub(crate) fn unmasked(text: &str) -> Vec<u8> {
    let mut bytes = head(text.len(), 0);
    bytes.extend(text.as_bytes());
    bytes
}

fn head(length: usize, mask: u8) -> Vec<u8> {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => vec![0x81, mask | short],
        (_, Ok(length)) => [&[0x81, mask | 126], &length.to_be_bytes()[..]].concat(),
        _ => [
            &[0x81, mask | 127],
            &u64::try_from(length).unwrap().to_be_bytes()[..],
        ]
        .concat(),
    }
}

/// What a server sent and nobody looked at yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Up to the end of an HTTP head, if that is there.
    pub(crate) fn take_head(&mut self) -> Option<String> {
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
        self.bytes.drain(..end);
        Some(head)
    }

    /// The payload of the next WebSocket frame, if all of it is there, with the bytes it took. Memory that a
    /// quiet connection doesn't need is given back.
    pub(crate) fn take_frame(&mut self) -> Option<(Vec<u8>, usize)> {
        let (length, head) = match (self.bytes.get(1)?, self.bytes.get(2..10)) {
            (127, long) => (u64::from_be_bytes(long?.try_into().unwrap()), 10),
            (126, _) => {
                let length = self.bytes.get(2..4)?;
                (u16::from_be_bytes(length.try_into().unwrap()).into(), 4)
            }
            (short, _) => (u64::from(*short), 2),
        };
        let end = head + usize::try_from(length).unwrap();
        let payload = self.bytes.get(head..end)?.to_vec();
        self.bytes.drain(..end);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        Some((payload, end))
    }
}
