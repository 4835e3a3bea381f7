//! Any bytes, cut anywhere: the WebSocket inbox does not panic, gives out nothing larger than a message may
//! be, and reads the same however they are cut; and frames that are made well come out as they went in, with
//! control frames between the fragments.
//!
//! The first byte chooses between bytes as they are and bytes as the payloads of good frames, the second how
//! they are cut.

#![no_main]

// The module alone, without the service around it: it depends on nothing of ours.
#[path = "../../src/session/websocket.rs"]
#[expect(dead_code, reason = "what the session asks of it is not fuzzed")]
mod websocket;

use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use websocket::{Breach, Inbox, Incoming, MESSAGE_MAX, close_payload, write_frame};

fuzz_target!(|data: &[u8]| {
    let [choice, size, bytes @ ..] = data else {
        return;
    };
    let size = usize::from(*size).max(1);
    if choice % 2 == 0 {
        let whole = read(&[bytes]);
        let pieces: Vec<_> = bytes.chunks(size).collect();
        assert_eq!(whole, read(&pieces), "however they are cut");
        whole.0.iter().for_each(answered);
        return;
    }
    let (sent, expected) = conversation(bytes);
    let pieces: Vec<_> = sent.chunks(size).collect();
    assert_eq!(read(&pieces), (expected, None));
});

fn read(pieces: &[&[u8]]) -> (Vec<Incoming>, Option<Breach>) {
    let mut inbox = Inbox::default();
    let mut all = Vec::new();
    let mut pushed = 0;
    for piece in pieces {
        inbox.push(piece);
        pushed += piece.len();
        loop {
            match inbox.next() {
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

/// What a session answers is a frame that a client can read.
fn answered(incoming: &Incoming) {
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

/// The bytes as binary messages in fragments, some with a ping in the middle, as a client sends them; and what
/// comes of it.
fn conversation(bytes: &[u8]) -> (Vec<u8>, Vec<Incoming>) {
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
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
            masked(opcode, index == last, part, &mut sent);
            if index == 0 && with_ping && last > 0 {
                masked(9, true, b"ping", &mut sent);
                expected.push(Incoming::Ping(b"ping".to_vec()));
            }
        }
        expected.push(Incoming::Message(payload.to_vec()));
    }
    (sent, expected)
}

/// Appends a frame of a client.
fn masked(opcode: u8, is_final: bool, payload: &[u8], out: &mut Vec<u8>) {
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
