//! The WebSocket decoder with any bytes, split anywhere: it does not panic, returns no message above the limit, and
//! the result does not depend on the split. Valid frames are decoded to the same messages, with control frames
//! between fragments.
//!
//! The first byte selects between raw bytes and bytes as payloads of valid frames, the second the size of the pieces.

#![no_main]

// Only this module, which depends on no other module of the service.
#[path = "../../src/session/websocket/client_frame.rs"]
mod client_frame;
#[path = "../../src/session/websocket.rs"]
#[expect(dead_code, reason = "the part for sessions is not fuzzed")]
mod websocket;

use client_frame::client_frame;
use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use websocket::{FrameDecoder, MESSAGE_MAX, ProtocolError, WsMessage, close_payload, write_frame};

fuzz_target!(|data: &[u8]| {
    let [selector, size, bytes @ ..] = data else {
        return;
    };
    let size = usize::from(*size).max(1);
    if selector % 2 == 0 {
        let whole = read(&[bytes]);
        let pieces: Vec<_> = bytes.chunks(size).collect();
        assert_eq!(whole, read(&pieces), "the result depends on the split");
        whole.0.iter().for_each(assert_response);
        return;
    }
    let (encoded, expected) = encode_messages(bytes);
    let pieces: Vec<_> = encoded.chunks(size).collect();
    assert_eq!(read(&pieces), (expected, None));
});

fn read(pieces: &[&[u8]]) -> (Vec<WsMessage>, Option<ProtocolError>) {
    let mut decoder = FrameDecoder::default();
    let mut all = Vec::new();
    let mut pushed = 0;
    for piece in pieces {
        decoder.push(piece);
        pushed += piece.len();
        loop {
            match decoder.next() {
                Ok(Some(message)) => {
                    assert!(size_of(&message) <= MESSAGE_MAX.min(pushed));
                    all.push(message);
                }
                Ok(None) => break,
                Err(error) => return (all, Some(error)),
            }
        }
    }
    (all, None)
}

fn size_of(message: &WsMessage) -> usize {
    match message {
        WsMessage::Data(payload) | WsMessage::Ping(payload) => payload.len(),
        WsMessage::Pong | WsMessage::Close(_) => 0,
    }
}

/// The response of a session is a valid frame.
fn assert_response(message: &WsMessage) {
    let mut out = Vec::new();
    match message {
        WsMessage::Ping(payload) => {
            assert!(payload.len() <= 125);
            write_frame(OpCode::Control(Control::Pong), payload, &mut out);
            assert_eq!(out.len(), 2 + payload.len());
        }
        WsMessage::Close(Some(code)) => {
            let payload = close_payload(*code, "");
            write_frame(OpCode::Control(Control::Close), &payload, &mut out);
            assert_eq!(out.len(), 4);
        }
        WsMessage::Data(payload) => {
            write_frame(OpCode::Data(Data::Binary), payload, &mut out);
            assert!(out.ends_with(payload));
        }
        WsMessage::Pong | WsMessage::Close(None) => {}
    }
}

/// Encodes the bytes as fragmented binary messages of a client, some with a ping between fragments. Returns them with
/// the expected messages.
fn encode_messages(bytes: &[u8]) -> (Vec<u8>, Vec<WsMessage>) {
    let (mut encoded, mut expected) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    while let [head, body @ ..] = rest {
        let (fragments, with_ping) = (usize::from(head % 4) + 1, head & 4 != 0);
        let (payload, after) = body.split_at(body.len().min(usize::from(head >> 3) * 16));
        rest = after;
        let share = payload.len().div_ceil(fragments).max(1);
        let mut parts: Vec<_> = payload.chunks(share).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len() - 1;
        for (index, part) in parts.into_iter().enumerate() {
            let opcode = if index == 0 { 2 } else { 0 };
            let fin = u8::from(index == last) << 7;
            encoded.extend(client_frame(fin | opcode, part));
            if index == 0 && with_ping && last > 0 {
                encoded.extend(client_frame(0x89, b"ping"));
                expected.push(WsMessage::Ping(b"ping".to_vec()));
            }
        }
        expected.push(WsMessage::Data(payload.to_vec()));
    }
    (encoded, expected)
}
