//! Any bytes, cut anywhere, in any version: the decoder neither panics nor uses more memory than its limits
//! allow, reads the same however they are cut, and what it has read can be written and read again.
//!
//! The first byte chooses the version, the second how the rest is cut.

#![no_main]

// The module alone, without the service around it: it depends on nothing of ours.
#[path = "../../src/stomp/mod.rs"]
#[expect(dead_code, reason = "the session's half of the module is not fuzzed")]
mod stomp;

use libfuzzer_sys::fuzz_target;
use stomp::{Command, DecodeError, Decoder, Frame, Item, Limits, Version, negotiate};

const LIMITS: Limits = Limits {
    max_header_bytes: 200,
    max_headers: 4,
    max_body_bytes: 64,
};

/// A line in the making and headers, or headers and a body; room for twice the pairs of strings.
const BOUND: usize = 2 * 200 + 2 * 4 * size_of::<(String, String)>();

fuzz_target!(|data: &[u8]| {
    let [choice, size, bytes @ ..] = data else {
        return;
    };
    let version = Version::ALL.get(usize::from(*choice) % 4).copied();

    let whole = read(version, LIMITS, &[bytes]);
    let size = usize::from(*size).max(1);
    let pieces: Vec<_> = bytes.chunks(size).collect();
    assert_eq!(
        whole,
        read(version, LIMITS, &pieces),
        "however they are cut"
    );

    for item in whole.0 {
        let Item::Frame(frame) = item else { continue };
        assert!(frame.headers.len() <= LIMITS.max_headers);
        assert!(frame.body.len() <= LIMITS.max_body_bytes);
        negotiated(&frame);
        let version = version.unwrap_or(Version::V12);
        let again = read(Some(version), Limits::default(), &[&frame.encode(version)]);
        let Ok([Item::Frame(again)]) = <[Item; 1]>::try_from(again.0) else {
            panic!("{frame:?} is not read back")
        };
        written_as(&frame, &again, version);
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

/// Negotiation does not panic on any header value.
fn negotiated(frame: &Frame) {
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

/// The frame is the same but for what the version can't write.
fn written_as(frame: &Frame, again: &Frame, version: Version) {
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
    let but_length = |frame: &Frame| -> Vec<_> {
        let mut headers = frame.headers.clone();
        headers.retain(|(name, _)| name != "content-length");
        headers
    };
    assert_eq!(but_length(frame), but_length(again));
}
