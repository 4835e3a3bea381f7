//! A WebSocket connection: the socket, and the bytes that are not decoded or not sent yet.
//!
//! An idle connection has no buffer. Bytes are read onto the stack, and kept only if they are not a whole message; bytes
//! to send are kept only if the socket does not accept them.

use std::fmt;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tungstenite::protocol::frame::coding::OpCode;

use super::websocket::{FrameDecoder, MESSAGE_MAX, ProtocolError, WsMessage, write_frame};

/// Largest number of unsent bytes. A client with more is dropped.
pub(super) const UNSENT_MAX: usize = 256 * 1024;
/// Size of one read, on the stack.
const READ_BYTES: usize = 4096;
/// Frames and reads of a close handshake. A client that sends more does not take part in it.
const CLOSE_FRAMES_MAX: u16 = 256;
/// How long the other end may leave sent bytes unacknowledged: usher's heart-beats find a machine that is gone.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);

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
        let socket = SockRef::from(&stream);
        if let Err(error) = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)) {
            tracing::debug!(%error, "TCP_USER_TIMEOUT was refused");
        }
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

    /// The next message that has arrived whole, of at most `max` bytes, and the number of frames up to its end.
    pub(super) fn next_message(
        &mut self,
        max: usize,
    ) -> Result<(Option<WsMessage>, u16), ProtocolError> {
        let Some(decoder) = &mut self.received else {
            return Ok((None, 0));
        };
        decoder.set_max(max);
        let message = decoder.next()?;
        let frames = decoder.take_frames();
        if decoder.is_empty() {
            self.received = None;
        }
        Ok((message, frames))
    }

    /// The memory of an unfinished frame or message.
    pub(super) fn unfinished_bytes(&self) -> usize {
        let decoder = self.received.as_ref();
        decoder.map_or(0, |decoder| decoder.heap_bytes())
    }

    /// Whether bytes of the client wait in the socket. It asks the kernel: the runtime knows of them later.
    pub(super) fn has_unread(&self) -> bool {
        let mut octet = [MaybeUninit::uninit()];
        let peeked = SockRef::from(&self.stream).peek(&mut octet);
        peeked.is_ok_and(|count| count > 0)
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

    /// Waits until all bytes are sent and the client has closed its side as well. Other messages are ignored; `frames`
    /// counts them. Above a bound nothing more is read, and this waits for its caller's time-out: with unread bytes the
    /// end of the connection is a reset, and a client that goes on sending must have the time to read why.
    pub(super) fn poll_close(&mut self, context: &mut Context<'_>, frames: &mut u16) -> Poll<()> {
        if ready!(self.poll_flush(context)).is_err() {
            return Poll::Ready(());
        }
        while *frames < CLOSE_FRAMES_MAX {
            match self.next_message(MESSAGE_MAX) {
                Ok((Some(WsMessage::Close(_)), _)) => return Poll::Ready(()),
                Ok((Some(_), count)) => {
                    *frames = frames.saturating_add(count);
                    continue;
                }
                Ok((None, count)) => *frames = frames.saturating_add(count),
                // Undecodable bytes are dropped: the end of the connection is recognised without them.
                Err(_) => self.received = None,
            }
            if ready!(self.poll_read(context)).is_err() {
                return Poll::Ready(());
            }
            *frames = frames.saturating_add(1);
        }
        Poll::Pending
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
