//! The WebSocket protocol of a server (RFC 6455, sections 5 to 8), without I/O: bytes to messages, and back.
//!
//! The library that parses the frame headers has sockets, too. They keep a buffer for each connection as long
//! as it is open; here there is one only while a message is on its way, as those who wait say nothing most of
//! the time.

use std::io::Cursor;

use thiserror::Error;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// Largest message, in bytes: the largest STOMP frame, and some.
pub(super) const MESSAGE_MAX: usize = 64 * 1024;
/// Largest payload of a control frame, in bytes (section 5.5).
const CONTROL_MAX: usize = 125;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A whole message, text or binary; text is UTF-8.
    Message(Vec<u8>),
    /// To be answered with a pong of the same payload.
    Ping(Vec<u8>),
    /// An answer to a ping, or a sign of life.
    Pong,
    /// The client leaves; the code is to be repeated, if there is one.
    Close(Option<CloseCode>),
}

/// What a client did to the protocol. The messages are for whoever wrote the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Breach {
    /// A frame is not as it must be.
    #[error("the WebSocket protocol was broken: {0}")]
    Protocol(&'static str),
    /// Text is not UTF-8 (section 8.1).
    #[error("a text message is not UTF-8; send binary ones")]
    Utf8,
    /// A message is larger than [`MESSAGE_MAX`].
    #[error("the message is too large; send smaller ones")]
    TooLarge,
}

/// What has come and is not a whole message yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Bytes whose frame isn't whole.
    raw: Vec<u8>,
    /// The message whose fragments come.
    fragments: Option<Fragments>,
}

#[derive(Debug)]
struct Fragments {
    is_text: bool,
    payload: Vec<u8>,
}

impl Inbox {
    /// Takes what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
    }

    /// Whether there is nothing to be kept.
    pub(super) fn is_empty(&self) -> bool {
        self.raw.is_empty() && self.fragments.is_none()
    }

    /// The next thing that came whole. Holds no more than the largest message and what was pushed since.
    ///
    /// # Errors
    ///
    /// [`Breach`]: the connection is of no use from then on.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Breach> {
        while let Some((header, payload)) = self.frame()? {
            let incoming = match header.opcode {
                OpCode::Control(control) => Some(Self::control(control, payload)?),
                OpCode::Data(data) => self.data(data, header.is_final, payload)?,
            };
            if incoming.is_some() {
                return Ok(incoming);
            }
        }
        Ok(None)
    }

    /// Takes the next whole frame, unmasked, off the front.
    fn frame(&mut self) -> Result<Option<(FrameHeader, Vec<u8>)>, Breach> {
        let mut cursor = Cursor::new(self.raw.as_slice());
        let header = FrameHeader::parse(&mut cursor)
            .map_err(|_| Breach::Protocol("there is no such opcode"))?;
        let Some((header, length)) = header else {
            return Ok(None);
        };
        let begin = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        self.judge(&header, begin, length)?;
        // No larger than the largest message.
        let end = begin + usize::try_from(length).unwrap_or(usize::MAX);
        if self.raw.len() < end {
            return Ok(None);
        }
        let rest = self.raw.split_off(end);
        let mut payload = std::mem::replace(&mut self.raw, rest);
        payload.drain(..begin);
        let mask = header
            .mask
            .ok_or(Breach::Protocol("frames of clients must be masked"))?;
        for (octet, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *octet ^= mask;
        }
        Ok(Some((header, payload)))
    }

    /// Whether a frame may be as its header says, whatever is in it (section 5.2). Before its payload has come:
    /// what is too large is not waited for.
    fn judge(&self, header: &FrameHeader, header_bytes: usize, length: u64) -> Result<(), Breach> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Breach::Protocol(
                "no extension was agreed on, RSV must be 0",
            ));
        }
        if header.mask.is_none() {
            return Err(Breach::Protocol("frames of clients must be masked"));
        }
        if header_bytes != header.len(length) {
            return Err(Breach::Protocol(
                "a length must be written as short as it can be",
            ));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if matches!(header.opcode, OpCode::Control(_)) {
            return match (header.is_final, length <= CONTROL_MAX) {
                (false, _) => Err(Breach::Protocol("control frames can't be fragmented")),
                (_, false) => Err(Breach::Protocol("control frames end at 125 bytes")),
                _ => Ok(()),
            };
        }
        let before = self
            .fragments
            .as_ref()
            .map_or(0, |message| message.payload.len());
        if length > MESSAGE_MAX - before {
            return Err(Breach::TooLarge);
        }
        Ok(())
    }

    fn control(control: Control, payload: Vec<u8>) -> Result<Incoming, Breach> {
        match control {
            Control::Ping => Ok(Incoming::Ping(payload)),
            Control::Pong => Ok(Incoming::Pong),
            Control::Close => close(&payload).map(Incoming::Close),
            Control::Reserved(_) => Err(Breach::Protocol("there is no such opcode")),
        }
    }

    fn data(
        &mut self,
        data: Data,
        is_final: bool,
        payload: Vec<u8>,
    ) -> Result<Option<Incoming>, Breach> {
        let message = match (data, self.fragments.take()) {
            (Data::Continue, Some(mut message)) => {
                message.payload.extend_from_slice(&payload);
                message
            }
            (Data::Text | Data::Binary, None) => Fragments {
                is_text: data == Data::Text,
                payload,
            },
            (Data::Continue, None) => {
                return Err(Breach::Protocol("there is no message to be continued"));
            }
            (Data::Text | Data::Binary, Some(_)) => {
                return Err(Breach::Protocol(
                    "a message began before the last one ended",
                ));
            }
            (Data::Reserved(_), _) => return Err(Breach::Protocol("there is no such opcode")),
        };
        if !is_final {
            self.fragments = Some(message);
            return Ok(None);
        }
        if message.is_text && std::str::from_utf8(&message.payload).is_err() {
            return Err(Breach::Utf8);
        }
        Ok(Some(Incoming::Message(message.payload)))
    }
}

/// The code in a close frame (sections 5.5.1 and 7.4).
fn close(payload: &[u8]) -> Result<Option<CloseCode>, Breach> {
    let Some((code, reason)) = payload.split_at_checked(2) else {
        return match payload {
            [] => Ok(None),
            _ => Err(Breach::Protocol("a close code has two bytes")),
        };
    };
    let code = CloseCode::from(u16::from_be_bytes([code[0], code[1]]));
    if !code.is_allowed() {
        return Err(Breach::Protocol("there is no such close code"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Breach::Utf8);
    }
    Ok(Some(code))
}

/// Appends a frame of a server, which is not masked: a whole message, or a control frame.
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
    // A vector takes whatever is written to it.
    let _ = header.format(length, out);
    out.extend_from_slice(payload);
}

/// The payload of a close frame. A reason is cut by nobody: keep it under 123 bytes.
pub(super) fn close_payload(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut payload = u16::from(code).to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    payload
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    const TEXT: u8 = 1;
    const BINARY: u8 = 2;
    const CLOSE: u8 = 8;
    const PING: u8 = 9;
    const PONG: u8 = 10;
    const FINAL: u8 = 0x80;

    /// A frame of a client.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..126 => bytes.push(FINAL | short as u8),
            middle @ 126..65536 => {
                bytes.push(FINAL | 126);
                bytes.extend((middle as u16).to_be_bytes());
            }
            long => {
                bytes.push(FINAL | 127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend(MASK);
        bytes.extend(
            payload
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(octet, mask)| octet ^ mask),
        );
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Incoming>, Breach> {
        let mut inbox = Inbox::default();
        inbox.push(bytes);
        let mut all = Vec::new();
        while let Some(incoming) = inbox.next()? {
            all.push(incoming);
        }
        Ok(all)
    }

    fn message(text: &str) -> Incoming {
        Incoming::Message(text.into())
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let whole = Incoming::Message(payload.clone());
            assert_eq!(
                read(&frame(FINAL | TEXT, &payload)),
                Ok(vec![whole]),
                "{length}"
            );
        }
        let two = [frame(FINAL | TEXT, b"a"), frame(FINAL | BINARY, b"b")].concat();
        assert_eq!(read(&two), Ok(vec![message("a"), message("b")]));
    }

    #[test]
    fn fragments_are_put_together_and_control_frames_come_between() {
        let bytes = [
            frame(TEXT, "J\u{e4}".as_bytes().split_at(2).0),
            frame(FINAL | PING, b"p"),
            frame(0, "J\u{e4}".as_bytes().split_at(2).1),
            frame(FINAL | PONG, b""),
            frame(FINAL, b"ger"),
        ];
        let expected = vec![
            Incoming::Ping(b"p".to_vec()),
            Incoming::Pong,
            message("J\u{e4}ger"),
        ];
        assert_eq!(read(&bytes.concat()), Ok(expected));
    }

    #[test]
    fn nothing_is_kept_between_messages() {
        let mut inbox = Inbox::default();
        inbox.push(&frame(FINAL | TEXT, b"a"));
        assert!(!inbox.is_empty());
        inbox.next().unwrap();
        assert!(inbox.is_empty());
        inbox.push(&frame(TEXT, b"a"));
        assert_eq!(inbox.next(), Ok(None));
        assert!(!inbox.is_empty(), "a fragment is");
    }

    #[test]
    fn what_breaks_the_protocol_is_refused() {
        let mut unmasked = frame(FINAL | TEXT, b"a");
        unmasked[1] &= 0x7f;
        let mut long_winded = vec![FINAL | TEXT, FINAL | 126, 0, 1];
        long_winded.extend(MASK);
        for (bytes, what) in [
            (unmasked, "unmasked"),
            (long_winded, "a length of one in two bytes"),
            (frame(FINAL | 0x40 | TEXT, b"a"), "RSV1"),
            (frame(FINAL | 0x20 | TEXT, b"a"), "RSV2"),
            (frame(FINAL | 0x10 | TEXT, b"a"), "RSV3"),
            (frame(FINAL | 3, b"a"), "a reserved opcode for data"),
            (frame(FINAL | 11, b"a"), "a reserved opcode for control"),
            (frame(FINAL, b"a"), "a continuation of nothing"),
            (frame(PING, b"a"), "a ping in fragments"),
            (frame(FINAL | PING, &[b'a'; 126]), "a long ping"),
            (
                [frame(TEXT, b"a"), frame(FINAL | TEXT, b"b")].concat(),
                "two at once",
            ),
            (frame(FINAL | CLOSE, b"\x03"), "half a close code"),
            (
                frame(FINAL | CLOSE, &999_u16.to_be_bytes()),
                "no close code",
            ),
            (
                frame(FINAL | CLOSE, &1005_u16.to_be_bytes()),
                "a code that is never sent",
            ),
        ] {
            assert!(
                matches!(read(&bytes), Err(Breach::Protocol(_))),
                "{what}: {:?}",
                read(&bytes)
            );
        }
    }

    #[test]
    fn text_is_utf8_and_binary_is_anything() {
        assert_eq!(read(&frame(FINAL | TEXT, b"\xff")), Err(Breach::Utf8));
        let close = [&1000_u16.to_be_bytes()[..], b"\xff"].concat();
        assert_eq!(read(&frame(FINAL | CLOSE, &close)), Err(Breach::Utf8));
        let anything = Incoming::Message(vec![0xff]);
        assert_eq!(read(&frame(FINAL | BINARY, b"\xff")), Ok(vec![anything]));
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_has_come() {
        let large = frame(FINAL | TEXT, &vec![b'x'; MESSAGE_MAX + 1]);
        assert_eq!(read(&large[..14]), Err(Breach::TooLarge));
        let fragment = frame(TEXT, &vec![b'x'; MESSAGE_MAX]);
        assert_eq!(
            read(&[fragment, frame(0, b"x")].concat()),
            Err(Breach::TooLarge)
        );
        let mut endless = vec![FINAL | TEXT, FINAL | 127];
        endless.extend(u64::MAX.to_be_bytes());
        endless.extend(MASK);
        assert_eq!(read(&endless), Err(Breach::TooLarge));
    }

    #[test]
    fn a_close_brings_its_code() {
        let close = |payload: &[u8]| read(&frame(FINAL | CLOSE, payload));
        assert_eq!(close(b""), Ok(vec![Incoming::Close(None)]));
        let normal = close_payload(CloseCode::Normal, "bye");
        assert_eq!(
            close(&normal),
            Ok(vec![Incoming::Close(Some(CloseCode::Normal))])
        );
    }

    #[test]
    fn frames_of_a_server_are_not_masked() {
        let mut out = Vec::new();
        write_frame(OpCode::Data(Data::Text), b"\n", &mut out);
        assert_eq!(out, [0x81, 1, b'\n']);
    }

    proptest! {
        /// However the bytes are cut, the same comes out.
        #[test]
        fn cuts_change_nothing(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cut in 1_usize..40,
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|payload| frame(FINAL | BINARY, payload)).collect();
            let mut inbox = Inbox::default();
            let mut all = Vec::new();
            for some in bytes.chunks(cut) {
                inbox.push(some);
                while let Some(incoming) = inbox.next().unwrap() {
                    all.push(incoming);
                }
            }
            let expected: Vec<_> = messages.into_iter().map(Incoming::Message).collect();
            prop_assert_eq!(all, expected);
            prop_assert!(inbox.is_empty());
        }

        /// Nothing that is sent makes it fall over, and it never keeps more than it may.
        #[test]
        fn rubbish_is_refused_and_bounded(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut inbox = Inbox::default();
            for some in bytes.chunks(100) {
                inbox.push(some);
                loop {
                    match inbox.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
                // A frame that isn't whole, with its header, and the fragments before it.
                prop_assert!(inbox.raw.len() <= MESSAGE_MAX + 14);
                let before = inbox.fragments.as_ref().map_or(0, |message| message.payload.len());
                prop_assert!(before <= MESSAGE_MAX);
            }
        }
    }
}
