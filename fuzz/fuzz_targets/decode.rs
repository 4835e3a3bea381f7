//! The STOMP decoder with any bytes, split anywhere, in any version: it does not panic, it respects its limits, the
//! result does not depend on the split, and decoded frames can be encoded and decoded again.
//!
//! The first byte selects the version, the second the size of the pieces.

#![no_main]

// Only this module, which depends on no other module of the service.
#[path = "../../src/stomp/mod.rs"]
#[expect(dead_code, reason = "the part for sessions is not fuzzed")]
mod stomp;

use libfuzzer_sys::fuzz_target;
use stomp::{Command, DecodeError, Decoder, Frame, Item, Limits, Version, negotiate};

const LIMITS: Limits = Limits {
    max_header_bytes: 200,
    max_headers: 4,
    max_body_bytes: 64,
};

/// Memory of a partial line and headers, or headers and a body, with twice the capacity for header pairs.
const BOUND: usize = 2 * 200 + 2 * 4 * size_of::<(String, String)>();

fuzz_target!(|data: &[u8]| {
    let [selector, size, bytes @ ..] = data else {
        return;
    };
    let version = Version::ALL.get(usize::from(*selector) % 4).copied();

    let whole = read(version, LIMITS, &[bytes]);
    let size = usize::from(*size).max(1);
    let pieces: Vec<_> = bytes.chunks(size).collect();
    assert_eq!(
        whole,
        read(version, LIMITS, &pieces),
        "the result depends on the split"
    );

    for item in whole.0 {
        let Item::Frame(frame) = item else { continue };
        assert!(frame.headers.len() <= LIMITS.max_headers);
        assert!(frame.body.len() <= LIMITS.max_body_bytes);
        negotiate_all(&frame);
        let version = version.unwrap_or(Version::V12);
        let again = read(Some(version), Limits::default(), &[&frame.encode(version)]);
        let Ok([Item::Frame(again)]) = <[Item; 1]>::try_from(again.0) else {
            panic!("{frame:?} cannot be decoded again")
        };
        assert_same(&frame, &again, version);
    }
});

fn read(
    version: Option<Version>,
    limits: Limits,
    pieces: &[&[u8]],
) -> (Vec<Item>, Option<DecodeError>) {
    let mut decoder = Decoder::new(limits);
    if let Some(version) = version {
        decoder.set_version(version);
    }
    let mut items = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => return (items, Some(error)),
            }
        }
        assert!(input.is_empty());
        assert!(limits != LIMITS || decoder.heap_bytes() <= BOUND);
        assert!(decoder.is_inside_frame() || decoder.heap_bytes() == 0);
    }
    (items, None)
}

/// Negotiation must not panic for any header value.
fn negotiate_all(frame: &Frame) {
    let ours = negotiate::HeartBeatOffer {
        send: std::time::Duration::from_secs(15),
        want: std::time::Duration::from_secs(15),
    };
    for (_, value) in &frame.headers {
        let _ = negotiate::version(Some(value));
        let _ = negotiate::subprotocol(value);
        let _ = negotiate::heart_beat(Some(value), ours);
    }
}

/// The frames are equal except for characters that the version cannot encode.
fn assert_same(frame: &Frame, again: &Frame, version: Version) {
    assert_eq!(frame.command, again.command);
    assert_eq!(frame.body, again.body);
    if version < Version::V12
        || matches!(
            frame.command,
            Command::Connect | Command::Stomp | Command::Connected
        )
    {
        return;
    }
    let without_length = |frame: &Frame| -> Vec<_> {
        let mut headers = frame.headers.clone();
        headers.retain(|(name, _)| name != "content-length");
        headers
    };
    assert_eq!(without_length(frame), without_length(again));
}
