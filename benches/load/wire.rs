//! The minimum of HTTP, WebSocket and STOMP that a client of the benchmark needs, so that the clients use little
//! CPU.

use std::net::SocketAddr;

/// The heart-beat of a client: a masked text message with a line feed.
pub(crate) const HEART_BEAT: [u8; 7] = [0x81, 0x81, 0, 0, 0, 0, b'\n'];

/// The WebSocket upgrade request. All measured servers accept this subprotocol.
pub(crate) fn handshake(address: SocketAddr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: v12.stomp\r\n\r\n"
    )
}

/// A text message of a client. The mask is zero, which saves the masking work.
pub(crate) fn client_message(text: &str) -> Vec<u8> {
    let mut bytes = header(text.len(), 0x80);
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    bytes
}

/// A text message of a server.
pub(crate) fn server_message(text: &str) -> Vec<u8> {
    let mut bytes = header(text.len(), 0);
    bytes.extend(text.as_bytes());
    bytes
}

fn header(length: usize, mask: u8) -> Vec<u8> {
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

/// Received bytes that are not parsed yet.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    bytes: Vec<u8>,
}

impl ReadBuffer {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes an HTTP header block if it is complete.
    pub(crate) fn take_http_header(&mut self) -> Option<String> {
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let header = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
        self.bytes.drain(..end);
        Some(header)
    }

    /// Takes the next WebSocket frame if it is complete: its payload and its size in bytes. Frees the buffer of an
    /// idle connection.
    pub(crate) fn take_frame(&mut self) -> Option<(Vec<u8>, usize)> {
        let (length, header) = match (self.bytes.get(1)?, self.bytes.get(2..10)) {
            (127, long) => (u64::from_be_bytes(long?.try_into().unwrap()), 10),
            (126, _) => {
                let length = self.bytes.get(2..4)?;
                (u16::from_be_bytes(length.try_into().unwrap()).into(), 4)
            }
            (short, _) => (u64::from(*short), 2),
        };
        let end = header + usize::try_from(length).unwrap();
        let payload = self.bytes.get(header..end)?.to_vec();
        self.bytes.drain(..end);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        Some((payload, end))
    }
}
