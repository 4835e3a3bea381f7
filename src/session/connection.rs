//! A WebSocket connection: the socket, and the bytes that are not decoded or not sent yet.
//!
//! An idle connection has no buffer. Bytes are read onto the stack, and kept only if they are not a whole message; bytes
//! to send are kept only if the socket does not accept them.

use std::fmt;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;
use tokio::time::Instant;
use tungstenite::protocol::frame::coding::OpCode;

use super::websocket::{FrameDecoder, ProtocolError, WsMessage, write_frame};

/// Largest number of unsent bytes. A client with more is dropped.
pub(super) const UNSENT_MAX: usize = 256 * 1024;
/// Size of one read, on the stack.
const READ_BYTES: usize = 4096;

/// The session's end of a WebSocket.
pub(super) struct Connection {
    stream: TcpStream,
    received: Option<Box<FrameDecoder>>,
    unsent: Option<Box<WriteBuffer>>,
}

/// Bytes that the socket has not accepted.
struct WriteBuffer {
    bytes: Vec<u8>,
    since: Instant,
}

/// The result of [`Connection::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The socket accepted everything, or earlier bytes wait already.
    Ok,
    /// Bytes wait from now on: [`Connection::poll_flush`] must be called.
    Blocked,
    /// More than [`UNSENT_MAX`] bytes would wait.
    Overflow,
    /// The connection is lost.
    Lost,
}

impl Connection {
    /// A connection after its handshake; `received` are bytes that arrived behind it.
    pub(super) fn new(stream: TcpStream, received: &[u8]) -> Self {
        let mut connection = Self {
            stream,
            received: None,
            unsent: None,
        };
        if !received.is_empty() {
            connection.received.get_or_insert_default().push(received);
        }
        connection
    }

    /// The next message that has arrived whole.
    pub(super) fn next_message(&mut self) -> Result<Option<WsMessage>, ProtocolError> {
        let Some(decoder) = &mut self.received else {
            return Ok(None);
        };
        let message = decoder.next()?;
        if decoder.is_empty() {
            self.received = None;
        }
        Ok(message)
    }

    /// Waits until bytes arrive, and reads once.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.poll_read_ready(context))?;
        let mut buffer = [0; READ_BYTES];
        Poll::Ready(match self.stream.try_read(&mut buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                let decoder = self.received.get_or_insert_default();
                decoder.push(&buffer[..read]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        })
    }

    /// Writes a frame to the socket, and keeps what the socket does not accept.
    pub(super) fn send(&mut self, opcode: OpCode, payload: &[u8], now: Instant) -> Sent {
        let mut bytes = Vec::new();
        write_frame(opcode, payload, &mut bytes);
        if let Some(unsent) = &mut self.unsent {
            if unsent.bytes.len() + bytes.len() > UNSENT_MAX {
                return Sent::Overflow;
            }
            unsent.bytes.extend_from_slice(&bytes);
            return Sent::Ok;
        }
        let written = match self.stream.try_write(&bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return Sent::Lost,
        };
        if written == bytes.len() {
            return Sent::Ok;
        }
        bytes.drain(..written);
        self.unsent = Some(Box::new(WriteBuffer { bytes, since: now }));
        Sent::Blocked
    }

    /// Waits until all bytes are sent.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(unsent) = &mut self.unsent {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write(&unsent.bytes) {
                Ok(written) if written == unsent.bytes.len() => self.unsent = None,
                Ok(written) => {
                    unsent.bytes.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until all bytes are sent and the client has closed its side as well. Other messages are ignored.
    pub(super) fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if ready!(self.poll_flush(context)).is_err() {
            return Poll::Ready(());
        }
        loop {
            match self.next_message() {
                Ok(Some(WsMessage::Close(_))) => return Poll::Ready(()),
                Ok(Some(_)) => continue,
                Ok(None) => {}
                // Undecodable bytes are dropped: the end of the connection is recognised without them.
                Err(_) => self.received = None,
            }
            if ready!(self.poll_read(context)).is_err() {
                return Poll::Ready(());
            }
        }
    }

    /// Since when bytes wait to be sent.
    pub(super) fn unsent_since(&self) -> Option<Instant> {
        self.unsent.as_ref().map(|unsent| unsent.since)
    }

    #[cfg(test)]
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    #[cfg(test)]
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent.as_ref().map_or(0, |unsent| unsent.bytes.len())
    }
}

/// Without the buffers: they may contain a token.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}
