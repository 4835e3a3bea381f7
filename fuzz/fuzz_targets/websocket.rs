//! The WebSocket decoder with any bytes, split anywhere: it does not panic, returns no message above the limit, and
//! the result does not depend on the split. Valid frames are decoded to the same messages, with control frames
//! between fragments.
//!
//! The first byte selects between raw bytes and bytes as payloads of valid frames, the second the size of the pieces.

#![no_main]

// Only this module, which depends on no other module of the service.
#[path = "../../src/session/websocket.rs"]
#[expect(dead_code, reason = "the part for sessions is not fuzzed")]
mod websocket;

use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use websocket::{Breach, Inbox, Incoming, MESSAGE_MAX, close_payload, write_frame};

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

fn read(pieces: &[&[u8]]) -> (Vec<Incoming>, Option<Breach>) {
    let mut decoder = Inbox::default();
    let mut all = Vec::new();
    let mut pushed = 0;
    for piece in pieces {
        decoder.push(piece);
        pushed += piece.len();
        loop {
            match decoder.next() {
                Ok(Some(incoming)) => {
                    assert!(size_of(&incoming) <= MESSAGE_MAX.min(pushed));
                    all.push(incoming);
                }
                Ok(None) => break,
                Err(breach) => return (all, Some(breach)),
            }
        }
    }
    (all, None)
}

fn size_of(incoming: &Incoming) -> usize {
    match incoming {
        Incoming::Message(payload) | Incoming::Ping(payload) => payload.len(),
        Incoming::Pong | Incoming::Close(_) => 0,
    }
}

/// The response of a session is a valid frame.
fn assert_response(incoming: &Incoming) {
    let mut out = Vec::new();
    match incoming {
        Incoming::Ping(payload) => {
            assert!(payload.len() <= 125);
            write_frame(OpCode::Control(Control::Pong), payload, &mut out);
            assert_eq!(out.len(), 2 + payload.len());
        }
        Incoming::Close(Some(code)) => {
            let payload = close_payload(*code, "");
            write_frame(OpCode::Control(Control::Close), &payload, &mut out);
            assert_eq!(out.len(), 4);
        }
        Incoming::Message(payload) => {
            write_frame(OpCode::Data(Data::Binary), payload, &mut out);
            assert!(out.ends_with(payload));
        }
        Incoming::Pong | Incoming::Close(None) => {}
    }
}

/// Encodes the bytes as fragmented binary messages of a client, some with a ping between fragments. Returns them with
/// the expected messages.
fn encode_messages(bytes: &[u8]) -> (Vec<u8>, Vec<Incoming>) {
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
            write_masked(opcode, index == last, part, &mut encoded);
            if index == 0 && with_ping && last > 0 {
                write_masked(9, true, b"ping", &mut encoded);
                expected.push(Incoming::Ping(b"ping".to_vec()));
            }
        }
        expected.push(Incoming::Message(payload.to_vec()));
    }
    (encoded, expected)
}

/// Appends a masked frame.
fn write_masked(opcode: u8, is_final: bool, payload: &[u8], out: &mut Vec<u8>) {
    const MASK: [u8; 4] = [0xa5, 0x00, 0xff, 0x3c];
    out.push(opcode | u8::from(is_final) << 7);
    match payload.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        long => {
            out.push(0x80 | 126);
            out.extend((long as u16).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(octet, mask)| octet ^ mask),
    );
}
