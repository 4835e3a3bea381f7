//! The server side of the WebSocket protocol (RFC 6455, sections 5 to 8), sans I/O: bytes to messages, and back.
//!
//! `tungstenite` parses the frame headers. Its own sockets are not used: they keep a buffer for as long as a connection
//! is open, and a waiting visitor is idle nearly all the time.

use std::io::Cursor;

use thiserror::Error;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// Largest message, in bytes: more than the largest STOMP frame.
pub(super) const MESSAGE_MAX: usize = 64 * 1024;
/// Largest message before CONNECT, and the most bytes of an unfinished one. A token with many groups is several KiB long.
pub(super) const EARLY_MESSAGE_MAX: usize = 16 * 1024;
/// Largest payload of a control frame, in bytes (section 5.5).
const CONTROL_MAX: usize = 125;

/// A message of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WsMessage {
    /// A whole message, text or binary; text is UTF-8.
    Data(Vec<u8>),
    /// The answer is a pong with the same payload.
    Ping(Vec<u8>),
    Pong,
    /// The answer is a close with the same code.
    Close(Option<CloseCode>),
}

/// How a client violated the protocol. The messages are for client developers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum ProtocolError {
    #[error("the WebSocket frame has RSV bits set; no extension was negotiated")]
    ReservedBits,
    #[error("the WebSocket frame has an unknown opcode")]
    UnknownOpcode,
    #[error("the WebSocket frame is not masked; a client must mask its frames")]
    Unmasked,
    #[error("the WebSocket frame's length is not in its shortest form")]
    LengthNotMinimal,
    #[error("the WebSocket control frame is fragmented; send it whole")]
    FragmentedControl,
    #[error("the WebSocket control frame is too long; its limit is 125 bytes")]
    ControlTooLong,
    #[error("the WebSocket continuation frame continues no message")]
    NothingToContinue,
    #[error("the WebSocket message began before the last one ended")]
    MessageInsideMessage,
    #[error("the WebSocket close code has one byte; it needs two")]
    CloseCodeTooShort,
    #[error("the WebSocket close code is invalid")]
    InvalidCloseCode,
    /// Section 8.1.
    #[error("a text message or close reason is not UTF-8; send binary messages")]
    NotUtf8,
    /// Larger than [`MESSAGE_MAX`].
    #[error("the message is too large; send smaller ones")]
    TooLarge,
}

impl ProtocolError {
    pub(super) fn close_code(self) -> CloseCode {
        match self {
            Self::NotUtf8 => CloseCode::Invalid,
            Self::TooLarge => CloseCode::Size,
            _ => CloseCode::Protocol,
        }
    }
}

/// Decodes messages from bytes, in pieces of any size.
#[derive(Debug)]
pub(super) struct FrameDecoder {
    /// The bytes of an incomplete frame.
    raw: Vec<u8>,
    /// The incomplete message, where it is fragmented.
    fragments: Option<Fragments>,
    /// The largest message.
    max: usize,
    /// Frames since [`FrameDecoder::take_frames`].
    frames: u16,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self {
            raw: Vec::new(),
            fragments: None,
            max: MESSAGE_MAX,
            frames: 0,
        }
    }
}

#[derive(Debug)]
struct Fragments {
    is_text: bool,
    payload: Vec<u8>,
}

impl FrameDecoder {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // Exact: thousands of unfinished frames would otherwise take twice their size.
        self.raw.reserve_exact(bytes.len());
        self.raw.extend_from_slice(bytes);
    }

    /// Sets the largest message, at most [`MESSAGE_MAX`].
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max.min(MESSAGE_MAX);
    }

    /// The number of frames that were decoded since the last call.
    pub(super) fn take_frames(&mut self) -> u16 {
        std::mem::take(&mut self.frames)
    }

    /// Its memory, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let fragments = self.fragments.as_ref();
        self.raw.capacity() + fragments.map_or(0, |message| message.payload.capacity())
    }

    /// Whether no frame or message is incomplete.
    pub(super) fn is_empty(&self) -> bool {
        self.raw.is_empty() && self.fragments.is_none()
    }

    /// The next whole message. The memory is bounded by the largest message and the bytes pushed since.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`]; the connection cannot be used any more.
    pub(super) fn next(&mut self) -> Result<Option<WsMessage>, ProtocolError> {
        while let Some((header, payload)) = self.frame()? {
            let message = match header.opcode {
                OpCode::Control(control) => Some(Self::control(control, payload)?),
                OpCode::Data(data) => self.data(data, header.is_final, payload)?,
            };
            if message.is_some() {
                return Ok(message);
            }
        }
        Ok(None)
    }

    /// Removes the next whole frame and unmasks its payload.
    fn frame(&mut self) -> Result<Option<(FrameHeader, Vec<u8>)>, ProtocolError> {
        let mut cursor = Cursor::new(self.raw.as_slice());
        let header = FrameHeader::parse(&mut cursor).map_err(|_| ProtocolError::UnknownOpcode)?;
        let Some((header, length)) = header else {
            return Ok(None);
        };
        let begin = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        self.check_header(&header, begin, length)?;
        // At most the largest message: `check_header` verified it.
        let end = begin + usize::try_from(length).unwrap_or(usize::MAX);
        if self.raw.len() < end {
            return Ok(None);
        }
        self.frames = self.frames.saturating_add(1);
        let mut payload = if self.raw.len() == end {
            let mut whole = std::mem::take(&mut self.raw);
            whole.drain(..begin);
            whole
        } else {
            let payload = self.raw[begin..end].to_vec();
            self.raw.drain(..end);
            payload
        };
        let mask = header.mask.ok_or(ProtocolError::Unmasked)?;
        for (octet, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *octet ^= mask;
        }
        Ok(Some((header, payload)))
    }

    /// Verifies a frame's header (section 5.2), before its payload arrives: a frame that is too large is refused at once.
    fn check_header(
        &self,
        header: &FrameHeader,
        header_bytes: usize,
        length: u64,
    ) -> Result<(), ProtocolError> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(ProtocolError::ReservedBits);
        }
        if header.mask.is_none() {
            return Err(ProtocolError::Unmasked);
        }
        if header_bytes != header.len(length) {
            return Err(ProtocolError::LengthNotMinimal);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if matches!(header.opcode, OpCode::Control(_)) {
            return match (header.is_final, length <= CONTROL_MAX) {
                (false, _) => Err(ProtocolError::FragmentedControl),
                (_, false) => Err(ProtocolError::ControlTooLong),
                _ => Ok(()),
            };
        }
        let before = self
            .fragments
            .as_ref()
            .map_or(0, |message| message.payload.len());
        if length > self.max.saturating_sub(before) {
            return Err(ProtocolError::TooLarge);
        }
        Ok(())
    }

    fn control(control: Control, payload: Vec<u8>) -> Result<WsMessage, ProtocolError> {
        match control {
            Control::Ping => Ok(WsMessage::Ping(payload)),
            Control::Pong => Ok(WsMessage::Pong),
            Control::Close => close(&payload).map(WsMessage::Close),
            Control::Reserved(_) => Err(ProtocolError::UnknownOpcode),
        }
    }

    fn data(
        &mut self,
        data: Data,
        is_final: bool,
        payload: Vec<u8>,
    ) -> Result<Option<WsMessage>, ProtocolError> {
        let message = match (data, self.fragments.take()) {
            (Data::Continue, Some(mut message)) => {
                message.payload.reserve_exact(payload.len());
                message.payload.extend_from_slice(&payload);
                message
            }
            (Data::Text | Data::Binary, None) => Fragments {
                is_text: data == Data::Text,
                payload,
            },
            (Data::Continue, None) => {
                return Err(ProtocolError::NothingToContinue);
            }
            (Data::Text | Data::Binary, Some(_)) => {
                return Err(ProtocolError::MessageInsideMessage);
            }
            (Data::Reserved(_), _) => return Err(ProtocolError::UnknownOpcode),
        };
        if !is_final {
            self.fragments = Some(message);
            return Ok(None);
        }
        if message.is_text && std::str::from_utf8(&message.payload).is_err() {
            return Err(ProtocolError::NotUtf8);
        }
        Ok(Some(WsMessage::Data(message.payload)))
    }
}

/// The code in a close frame (sections 5.5.1 and 7.4).
fn close(payload: &[u8]) -> Result<Option<CloseCode>, ProtocolError> {
    let Some((code, reason)) = payload.split_at_checked(2) else {
        return match payload {
            [] => Ok(None),
            _ => Err(ProtocolError::CloseCodeTooShort),
        };
    };
    let code = CloseCode::from(u16::from_be_bytes([code[0], code[1]]));
    if !code.is_allowed() {
        return Err(ProtocolError::InvalidCloseCode);
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(ProtocolError::NotUtf8);
    }
    Ok(Some(code))
}

/// Appends a server frame, which is not masked: a whole message or a control frame.
pub(super) fn write_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader {
        is_final: true,
        rsv1: false,
        rsv2: false,
        rsv3: false,
        opcode,
        mask: None,
    };
    let length = payload.len() as u64;
    out.reserve(header.len(length) + payload.len());
    // Writing to a vector never fails.
    let _ = header.format(length, out);
    out.extend_from_slice(payload);
}

/// The payload of a close frame. A reason has at most 123 bytes.
pub(super) fn close_payload(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut payload = u16::from(code).to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    payload
}

#[cfg(test)]
mod client_frame;
#[cfg(test)]
mod tests;
