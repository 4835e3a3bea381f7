use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Limits small enough to run into.
const SMALL: Limits = Limits {
    max_header_bytes: 100,
    max_headers: 4,
    max_body_bytes: 16,
};

fn decoder(version: Version) -> Decoder {
    let mut decoder = Decoder::new(Limits::default());
    decoder.set_version(version);
    decoder
}

/// All that these bytes hold, and how they end.
fn read(decoder: &mut Decoder, bytes: &[u8]) -> (Vec<Item>, Option<DecodeError>) {
    let (mut input, mut items) = (bytes, Vec::new());
    loop {
        match decoder.decode(&mut input) {
            Ok(Some(item)) => items.push(item),
            Ok(None) => {
                assert!(input.is_empty(), "it stops only once all is used up");
                return (items, None);
            }
            Err(error) => return (items, Some(error)),
        }
    }
}

/// The one frame that these bytes are.
fn the_frame(decoder: &mut Decoder, bytes: &[u8]) -> Frame {
    match read(decoder, bytes) {
        (items, None) => match <[Item; 1]>::try_from(items) {
            Ok([Item::Frame(frame)]) => frame,
            other => panic!("not one frame: {other:?}"),
        },
        (_, Some(error)) => panic!("{error}"),
    }
}

/// Why these bytes are none.
fn refusal(decoder: &mut Decoder, bytes: &[u8]) -> DecodeError {
    match read(decoder, bytes) {
        (_, Some(error)) => error,
        (items, None) => panic!("not refused: {items:?}"),
    }
}

/// Why these bytes are no frame of a session in this version.
fn refused(version: Version, bytes: &[u8]) -> DecodeError {
    refusal(&mut decoder(version), bytes)
}

#[test]
fn connect_of_stompjs_is_read() {
    let bytes = b"CONNECT\nAuthorization:Bearer a.b.c\naccept-version:1.2,1.1,1.0\nheart-beat:10000,10000\n\n\0";
    let frame = the_frame(&mut Decoder::new(Limits::default()), bytes);
    assert_eq!(frame.command, Command::Connect);
    assert_eq!(frame.header("Authorization"), Some("Bearer a.b.c"));
    assert_eq!(frame.header("accept-version"), Some("1.2,1.1,1.0"));
    assert_eq!(frame.header("heart-beat"), Some("10000,10000"));
    assert!(frame.body.is_empty());
}

#[test]
fn frame_may_come_octet_by_octet() {
    let bytes = b"SEND\ndestination:/a\ncontent-length:3\n\na\0b\0";
    let mut decoder = decoder(Version::V12);
    let (last, first) = bytes.split_last().unwrap();
    for octet in first {
        let mut input = std::slice::from_ref(octet);
        assert_eq!(decoder.decode(&mut input), Ok(None));
        assert!(decoder.is_inside_frame());
    }
    let frame = the_frame(&mut decoder, &[*last]);
    assert_eq!(frame.header("destination"), Some("/a"));
    assert_eq!(frame.body, b"a\0b");
    assert!(!decoder.is_inside_frame());
}

#[test]
fn many_frames_may_come_at_once() {
    let bytes = b"ACK\nid:1\n\n\0NACK\nid:2\n\n\0\nBEGIN\ntransaction:t\n\n\0";
    let (items, error) = read(&mut decoder(Version::V12), bytes);
    let commands: Vec<_> = items
        .iter()
        .map(|item| match item {
            Item::Frame(frame) => Some(frame.command),
            Item::HeartBeat => None,
        })
        .collect();
    let expected = [
        Some(Command::Ack),
        Some(Command::Nack),
        None,
        Some(Command::Begin),
    ];
    assert_eq!(commands, expected);
    assert_eq!(error, None);
}

#[test]
fn frames_behind_connect_are_read_by_the_negotiated_rules() {
    for (version, id) in [(Version::V10, r"a\c"), (Version::V12, "a:")] {
        let mut decoder = Decoder::new(Limits::default());
        let mut input = &b"CONNECT\naccept-version:1.2,1.0\n\n\0ACK\nid:a\\c\n\n\0"[..];
        let first = decoder.decode(&mut input).unwrap();
        assert!(matches!(first, Some(Item::Frame(_))));
        decoder.set_version(version);
        assert_eq!(the_frame(&mut decoder, input).header("id"), Some(id));
    }
}

#[test]
fn end_of_line_between_frames_is_a_heart_beat() {
    for version in Version::ALL {
        for (bytes, count) in [(&b"\n"[..], 1), (b"\r\n", 1), (b"\n\n\r\n", 3)] {
            let (items, error) = read(&mut decoder(version), bytes);
            assert_eq!(items, vec![Item::HeartBeat; count]);
            assert_eq!(error, None);
        }
    }
}

#[test]
fn ends_of_line_may_follow_the_nul() {
    let (items, error) = read(&mut decoder(Version::V12), b"ACK\nid:1\n\n\0\n\r\n");
    assert!(matches!(items[0], Item::Frame(_)));
    assert_eq!(items[1..], [Item::HeartBeat, Item::HeartBeat]);
    assert_eq!(error, None);
}

#[test]
fn lines_end_in_lf_or_cr_lf_in_every_version() {
    let bytes = b"SEND\r\ndestination:/a\r\nempty:\r\n\r\nbody\r\n\0";
    for version in Version::ALL {
        let frame = the_frame(&mut decoder(version), bytes);
        assert_eq!(frame.header("destination"), Some("/a"));
        assert_eq!(frame.header("empty"), Some(""));
        assert_eq!(frame.body, b"body\r\n", "a body keeps its line ends");
    }
    let bytes = b"CONNECT\r\naccept-version:1.2\r\n\r\n\0";
    let frame = the_frame(&mut Decoder::new(Limits::default()), bytes);
    assert_eq!(frame.header("accept-version"), Some("1.2"));
}

#[test]
fn only_the_last_cr_of_a_line_belongs_to_its_end() {
    let frame = the_frame(&mut decoder(Version::V12), b"ACK\nid:a\rb\r\r\n\n\0");
    assert_eq!(frame.header("id"), Some("a\rb\r"));
}

#[test]
fn content_length_counts_octets_and_nul_among_them() {
    let bytes = "SEND\ncontent-length:5\n\né\0\n\0\0".as_bytes();
    let frame = the_frame(&mut decoder(Version::V12), bytes);
    assert_eq!(frame.body, "é\0\n\0".as_bytes());
}

#[test]
fn body_without_content_length_ends_at_the_first_nul() {
    let mut decoder = decoder(Version::V12);
    let (items, error) = read(&mut decoder, b"SEND\n\nbody\0SEND\n\nmore\0");
    assert_eq!(items.len(), 2);
    assert_eq!(error, None);
    assert!(matches!(&items[1], Item::Frame(frame) if frame.body == b"more"));
}

#[test]
fn frame_of_content_length_must_end_in_nul() {
    for version in Version::ALL {
        let bytes = b"SEND\ncontent-length:2\n\nabc\0";
        assert_eq!(refused(version, bytes), DecodeError::NoNul);
    }
}

#[test]
fn content_length_must_be_digits() {
    for text in ["", "-1", "+1", "1.0", "0x10", "1 ", " 1", "one", "１"] {
        let bytes = format!("SEND\ncontent-length:{text}\n\n\0");
        let error = refused(Version::V12, bytes.as_bytes());
        assert_eq!(error, DecodeError::BadContentLength, "{text:?}");
    }
    let frame = the_frame(
        &mut decoder(Version::V12),
        b"SEND\ncontent-length:002\n\nab\0",
    );
    assert_eq!(frame.body, b"ab");
}

#[test]
fn escapes_are_undone_as_the_version_defines_them() {
    let bytes = br"SEND
n\cme:a\nb\cc\\d
r:x

"
    .iter()
    .copied()
    .chain([0])
    .collect::<Vec<_>>();
    for (version, name, value) in [
        (Version::V10, r"n\cme", r"a\nb\cc\\d"),
        (Version::V11, "n:me", "a\nb:c\\d"),
        (Version::V12, "n:me", "a\nb:c\\d"),
    ] {
        let frame = the_frame(&mut decoder(version), &bytes);
        assert_eq!(frame.headers[0], (name.into(), value.into()));
    }
    let frame = the_frame(&mut decoder(Version::V12), b"SEND\na:\\r\n\n\0");
    assert_eq!(frame.header("a"), Some("\r"), "CR, in 1.2 only");
}

#[test]
fn undefined_escape_is_fatal_since_1_1() {
    for (version, escaped) in [
        (Version::V11, 't'),
        (Version::V11, 'r'),
        (Version::V11, 'N'),
        (Version::V12, 't'),
        (Version::V12, '0'),
    ] {
        let bytes = format!("SEND\nfine:yes\na:\\{escaped}\n\n\0");
        let expected = DecodeError::UndefinedEscape {
            line: 3,
            escaped,
            version,
        };
        assert_eq!(refused(version, bytes.as_bytes()), expected);
        let in_the_name = format!("SEND\na\\{escaped}:\n\n\0");
        let error = refused(version, in_the_name.as_bytes());
        assert!(matches!(
            error,
            DecodeError::UndefinedEscape { line: 2, .. }
        ));
    }
    let error = refused(Version::V12, "SEND\na:\\é\n\n\0".as_bytes());
    assert!(matches!(
        error,
        DecodeError::UndefinedEscape { escaped: '?', .. }
    ));
}

#[test]
fn half_an_escape_is_fatal_since_1_1() {
    for version in [Version::V11, Version::V12] {
        let expected = DecodeError::HalfEscape { line: 2 };
        assert_eq!(refused(version, b"SEND\na:b\\\n\n\0"), expected);
        assert_eq!(refused(version, b"SEND\na\\:b\n\n\0"), expected);
    }
}

#[test]
fn frames_that_begin_a_session_have_no_escapes() {
    for command in ["CONNECT", "STOMP", "CONNECTED"] {
        let bytes = format!("{command}\naccept-version:1.2\npasscode:a\\tb\\c\\\n\n\0");
        for version in [None, Some(Version::V11), Some(Version::V12)] {
            let mut decoder = Decoder::new(Limits::default());
            decoder.version = version;
            let frame = the_frame(&mut decoder, bytes.as_bytes());
            assert_eq!(frame.header("passcode"), Some(r"a\tb\c\"));
        }
    }
}

#[test]
fn other_frames_before_a_version_is_known_are_read_strictly() {
    let error = refusal(&mut Decoder::new(Limits::default()), b"SEND\na:\\t\n\n\0");
    assert!(matches!(
        error,
        DecodeError::UndefinedEscape {
            version: Version::V12,
            ..
        }
    ));
}

#[test]
fn first_of_repeated_headers_wins() {
    let frame = the_frame(
        &mut decoder(Version::V12),
        b"MESSAGE\nfoo:World\nfoo:Hello\n\n\0",
    );
    assert_eq!(frame.header("foo"), Some("World"));
    assert_eq!(frame.headers.len(), 2, "the others are kept");
    let bytes = b"SEND\ncontent-length:1\ncontent-length:3\n\na\0";
    let frame = the_frame(&mut decoder(Version::V12), bytes);
    assert_eq!(frame.body, b"a");
}

#[test]
fn colon_in_a_value_need_not_be_escaped() {
    for version in Version::ALL {
        let frame = the_frame(&mut decoder(version), b"ACK\nid:a:b:\n\n\0");
        assert_eq!(frame.header("id"), Some("a:b:"));
    }
}

#[test]
fn blanks_around_values_are_kept_since_1_1() {
    for version in [Version::V11, Version::V12] {
        let frame = the_frame(&mut decoder(version), b"ACK\n id : a \n\n\0");
        assert_eq!(frame.header(" id "), Some(" a "));
    }
    let bytes = b"CONNECT\naccept-version:1.1\nlogin: me \n\n\0";
    let frame = the_frame(&mut Decoder::new(Limits::default()), bytes);
    assert_eq!(frame.header("login"), Some(" me "));
}

#[test]
fn blanks_around_values_are_padding_in_1_0() {
    let bytes = b"CONNECT\nlogin: me \npasscode:\tx y\n\n\0";
    let frame = the_frame(&mut Decoder::new(Limits::default()), bytes);
    assert_eq!(frame.header("login"), Some("me"));
    assert_eq!(frame.header("passcode"), Some("x y"));
    let bytes = b"SUBSCRIBE\ndestination: /queue/foo\nack: client\n\n\0";
    let frame = the_frame(&mut decoder(Version::V10), bytes);
    assert_eq!(frame.header("destination"), Some("/queue/foo"));
    assert_eq!(frame.header("ack"), Some("client"));
    let bytes = b"SEND\ncontent-length: 1\n\n\0\0";
    let frame = the_frame(&mut decoder(Version::V10), bytes);
    assert_eq!(frame.body, b"\0");
}

#[test]
fn commands_and_header_names_are_case_sensitive() {
    let expected = DecodeError::UnknownCommand {
        command: "connect".into(),
    };
    for line_end in ["\n", "\r\n"] {
        let bytes = format!("connect{line_end}");
        let error = refusal(&mut Decoder::new(SMALL), bytes.as_bytes());
        assert_eq!(error, expected);
    }
    let frame = the_frame(&mut decoder(Version::V12), b"ACK\nID:1\n\n\0");
    assert_eq!(frame.header("id"), None);
}

#[test]
fn every_command_is_known() {
    for command in Command::ALL {
        let bytes = format!("{command}\naccept-version:1.2\n\n\0");
        let frame = the_frame(&mut Decoder::new(Limits::default()), bytes.as_bytes());
        assert_eq!(frame.command, command);
    }
    assert_eq!(Command::ALL.len(), 15);
}

#[test]
fn unknown_command_is_named_without_what_should_not_be_shown() {
    for (bytes, shown) in [
        (&b"GET / HTTP/1.1\r\n"[..], "GET / HTTP/1"),
        (b"HELLO\n", "HELLO"),
        (b" CONNECT\n", " CONNECT"),
        (b"\rCONNECT\n", "?CONNECT"),
        (b"a:\\\x1b[\xff\n", "a?????"),
        (b"UNSUBSCRIBERS\n", "UNSUBSCRIBER"),
    ] {
        let expected = DecodeError::UnknownCommand {
            command: shown.into(),
        };
        assert_eq!(refusal(&mut Decoder::new(SMALL), bytes), expected);
    }
}

#[test]
fn endless_command_is_refused_at_its_first_octet_too_many() {
    let mut decoder = Decoder::new(Limits::default());
    let mut input = &[b'A'; 12][..];
    assert_eq!(decoder.decode(&mut input), Ok(None));
    let error = refusal(&mut decoder, b"A");
    assert!(matches!(error, DecodeError::UnknownCommand { .. }));
}

#[test]
fn header_line_needs_a_colon_and_a_name_before_it() {
    for version in Version::ALL {
        let error = refused(version, b"ACK\nid:1\nreceipt\n\n\0");
        assert_eq!(error, DecodeError::NoColon { line: 3 });
        let error = refused(version, b"ACK\n:1\n\n\0");
        assert_eq!(error, DecodeError::NoName { line: 2 });
    }
}

#[test]
fn heads_are_utf_8() {
    for version in Version::ALL {
        let frame = the_frame(&mut decoder(version), "ACK\nид:ü\n\n\0".as_bytes());
        assert_eq!(frame.header("ид"), Some("ü"));
        let error = refused(version, b"ACK\nid:\xff\n\n\0");
        assert_eq!(error, DecodeError::NotUtf8 { line: 2 });
    }
}

#[test]
fn body_need_not_be_utf_8() {
    let frame = the_frame(&mut decoder(Version::V12), b"SEND\n\n\xff\xfe\0");
    assert_eq!(frame.body, b"\xff\xfe");
}

#[test]
fn nul_before_the_empty_line_is_refused() {
    for bytes in [
        &b"\0"[..],
        b"DISCONNECT\0",
        b"DISCONNECT\n\0",
        b"ACK\nid:1\0",
        b"ACK\nid:1\n\0",
    ] {
        assert_eq!(refused(Version::V12, bytes), DecodeError::NulInHead);
    }
}

#[test]
fn frames_without_a_body_refuse_one_since_1_1() {
    let (mut refused_count, mut kept) = (0, 0);
    for command in Command::ALL {
        for head in ["", "content-length:2\n"] {
            let bytes = format!("{command}\naccept-version:1.1\n{head}\nab\0");
            let (items, error) = read(&mut decoder(Version::V11), bytes.as_bytes());
            if command.has_body() {
                assert!(matches!(&items[..], [Item::Frame(frame)] if frame.body == b"ab"));
                kept += 1;
            } else {
                assert_eq!(error, Some(DecodeError::BodyNotAllowed { command }));
                refused_count += 1;
            }
        }
    }
    assert_eq!((refused_count, kept), (24, 6));
    let bytes = b"CONNECT\naccept-version:1.2\n\nbody\0";
    let error = refusal(&mut Decoder::new(Limits::default()), bytes);
    let command = Command::Connect;
    assert_eq!(error, DecodeError::BodyNotAllowed { command });
}

#[test]
fn frames_without_a_body_may_say_that_it_is_empty() {
    let bytes = b"ACK\nid:1\ncontent-length:0\n\n\0";
    let frame = the_frame(&mut decoder(Version::V12), bytes);
    assert_eq!(frame.header("id"), Some("1"));
}

#[test]
fn frames_without_a_body_ignore_one_in_1_0() {
    let bytes = b"SUBSCRIBE\ndestination:/a\n\nbody\0";
    let frame = the_frame(&mut decoder(Version::V10), bytes);
    assert!(frame.body.is_empty());
    let bytes = b"CONNECT\nlogin:me\ncontent-length:3\n\n\0\n\0\0";
    let frame = the_frame(&mut Decoder::new(Limits::default()), bytes);
    assert!(frame.body.is_empty());
    let mut long = b"SUBSCRIBE\n\n".to_vec();
    long.extend([b'x'; 17]);
    let mut small = Decoder::new(SMALL);
    small.set_version(Version::V10);
    let max = 16;
    assert_eq!(
        refusal(&mut small, &long),
        DecodeError::BodyTooLarge { max }
    );
}

#[test]
fn head_is_refused_as_soon_as_it_is_too_large() {
    let fitting = format!("SEND\na:{}\n\n", "x".repeat(91));
    assert_eq!(fitting.len(), SMALL.max_header_bytes);
    let mut decoder = Decoder::new(SMALL);
    decoder.set_version(Version::V12);
    let mut input = fitting.as_bytes();
    assert_eq!(decoder.decode(&mut input), Ok(None));
    assert_eq!(the_frame(&mut decoder, b"\0").headers.len(), 1);

    let max = SMALL.max_header_bytes;
    let endless = format!("SEND\na:{}", "x".repeat(93));
    assert_eq!(endless.len(), max);
    let error = refusal(&mut decoder, endless.as_bytes());
    assert_eq!(error, DecodeError::HeadTooLarge { max });
    assert_eq!(decoder.heap_bytes(), 0);
}

#[test]
fn every_octet_of_the_head_counts() {
    let head = |length| format!("SEND\r\na:1\r\nb:2\r\nc:{}\n\n", "x".repeat(length));
    let max = SMALL.max_header_bytes;
    let (fitting, larger) = (head(80), head(81));
    assert_eq!((fitting.len(), larger.len()), (max, max + 1));
    let mut decoder = Decoder::new(SMALL);
    assert_eq!(
        the_frame(&mut decoder, format!("{fitting}\0").as_bytes())
            .headers
            .len(),
        3
    );
    let error = refusal(&mut decoder, larger.as_bytes());
    assert_eq!(error, DecodeError::HeadTooLarge { max });
}

#[test]
fn capacity_does_not_exceed_the_limit() {
    let limits = Limits {
        max_body_bytes: 100,
        ..SMALL
    };
    let line = format!("SEND\na:{}", "x".repeat(90));
    let body = format!("SEND\n\n{}", "x".repeat(100));
    for bytes in [line, body] {
        let mut decoder = Decoder::new(limits);
        for octet in bytes.as_bytes() {
            let mut input = std::slice::from_ref(octet);
            assert_eq!(decoder.decode(&mut input), Ok(None));
            assert!(decoder.heap_bytes() <= 100, "{}", decoder.heap_bytes());
        }
        assert!(decoder.heap_bytes() >= 92, "{}", decoder.heap_bytes());
    }
}

#[test]
fn header_too_many_is_refused() {
    let four = "SEND\na:1\na:2\nb:3\nb:4\n";
    let mut decoder = Decoder::new(SMALL);
    assert_eq!(
        the_frame(&mut decoder, format!("{four}\n\0").as_bytes())
            .headers
            .len(),
        4
    );
    let error = refusal(&mut decoder, format!("{four}c:5\n").as_bytes());
    assert_eq!(error, DecodeError::TooManyHeaders { max: 4 });
}

#[test]
fn claim_of_a_large_body_is_refused_before_there_is_one() {
    for claim in [
        "17",
        "4294967296",
        "18446744073709551616",
        "99999999999999999999999999",
    ] {
        let bytes = format!("SEND\ncontent-length:{claim}\n\n");
        let error = refusal(&mut Decoder::new(SMALL), bytes.as_bytes());
        assert_eq!(error, DecodeError::BodyTooLarge { max: 16 });
    }
}

#[test]
fn body_is_allocated_as_it_arrives_not_by_its_content_length() {
    let mut decoder = decoder(Version::V12);
    let mut input = &b"SEND\ncontent-length:8192\n\nx"[..];
    assert_eq!(decoder.decode(&mut input), Ok(None));
    assert!(decoder.heap_bytes() < 500, "{}", decoder.heap_bytes());
}

#[test]
fn body_is_refused_at_its_first_octet_too_many() {
    let mut decoder = Decoder::new(SMALL);
    let fitting = the_frame(&mut decoder, b"SEND\n\n0123456789abcdef\0");
    assert_eq!(fitting.body.len(), 16);
    let mut input = &b"SEND\n\n0123456789abcdef"[..];
    assert_eq!(decoder.decode(&mut input), Ok(None));
    let error = refusal(&mut decoder, b"g");
    assert_eq!(error, DecodeError::BodyTooLarge { max: 16 });
}

#[test]
fn after_an_error_there_is_only_that_error() {
    let mut decoder = decoder(Version::V12);
    let error = refusal(&mut decoder, b"ACK\nid\n");
    for bytes in [&b"ACK\nid:1\n\n\0"[..], b"\n", b""] {
        assert_eq!(refusal(&mut decoder, bytes), error);
    }
    assert!(!decoder.is_inside_frame());
}

#[test]
fn idle_decoder_uses_no_heap() {
    let mut decoder = decoder(Version::V12);
    assert_eq!(decoder.heap_bytes(), 0);
    let (items, _) = read(
        &mut decoder,
        b"SEND\nname:value\n\nbody\0\n\r\nACK\nid:1\n\n\0\n",
    );
    assert_eq!(items.len(), 5);
    assert_eq!(decoder.heap_bytes(), 0);
    assert!(size_of::<Decoder>() <= 160, "{}", size_of::<Decoder>());
}

#[test]
fn tokens_in_the_making_are_not_in_debug_output() {
    for bytes in [
        "CONNECT\nAuthorization:Bearer abc",
        "CONNECT\nAuthorization:Bearer abc\n\n",
    ] {
        let mut decoder = Decoder::new(Limits::default());
        let mut input = bytes.as_bytes();
        assert_eq!(decoder.decode(&mut input), Ok(None));
        let shown = format!("{decoder:?}");
        assert!(
            shown.contains("is_inside_frame: true") && !shown.contains("abc"),
            "{shown}"
        );
    }
}

#[test]
fn default_limits_take_a_connect_with_a_token_of_16_kib() {
    let token = "x".repeat(16 * 1024);
    let bytes = format!("CONNECT\naccept-version:1.2\nAuthorization:Bearer {token}\n\n\0");
    let frame = the_frame(&mut Decoder::new(Limits::default()), bytes.as_bytes());
    assert_eq!(
        frame.header("Authorization").map(str::len),
        Some(7 + token.len())
    );
}

/// Two million octets one by one: a decoder that scans or copies what it has read already takes hours.
#[test]
fn decoding_takes_linear_time() {
    const OCTETS: usize = 2_000_000;
    let limits = Limits {
        max_header_bytes: 1 << 21,
        max_headers: 1000,
        max_body_bytes: 1 << 21,
    };
    let long_line = format!("SEND\na:{}\n\nb\0", "x".repeat(OCTETS));
    let many_lines = format!("SEND\n{}\nb\0", "name:value\n".repeat(1000));
    let to_nul = format!("SEND\n\n{}\0", "x".repeat(OCTETS));
    let counted = format!("SEND\ncontent-length:{OCTETS}\n\n{}\0", "x".repeat(OCTETS));
    let beats = "\n".repeat(10_000);
    let begun = Instant::now();
    for bytes in [long_line, many_lines, to_nul, counted, beats] {
        for size in [1, 7, 1000, bytes.len()] {
            let mut decoder = Decoder::new(limits);
            let mut items = 0;
            for chunk in bytes.as_bytes().chunks(size) {
                let (read, error) = read(&mut decoder, chunk);
                assert_eq!(error, None);
                items += read.len();
            }
            assert!(items > 0);
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn messages_of_errors_fit_a_header_as_they_are() {
    let line = 1234;
    let errors = [
        DecodeError::UnknownCommand {
            command: "?".repeat(MAX_COMMAND_LINE),
        },
        DecodeError::HeadTooLarge { max: 32 * 1024 },
        DecodeError::TooManyHeaders { max: 32 },
        DecodeError::NoColon { line },
        DecodeError::NoName { line },
        DecodeError::NotUtf8 { line },
        DecodeError::UndefinedEscape {
            line,
            escaped: 't',
            version: Version::V12,
        },
        DecodeError::HalfEscape { line },
        DecodeError::NulInHead,
        DecodeError::BadContentLength,
        DecodeError::BodyTooLarge { max: 8192 },
        DecodeError::BodyNotAllowed {
            command: Command::Unsubscribe,
        },
        DecodeError::NoNul,
    ];
    let mut seen = 0;
    for error in errors {
        let message = error.to_string();
        assert!(message.len() <= 160, "{message}");
        let plain = |octet: u8| (b' '..=b'~').contains(&octet) && !b":\\".contains(&octet);
        assert!(message.bytes().all(plain), "{message}");
        seen += 1;
    }
    assert_eq!(seen, 13);
}

/// What a reader of this version makes of the frame once it is written.
fn as_read(frame: &Frame, version: Version) -> Frame {
    let escaping = Escaping::of(frame.command, version);
    let unwritable = |text: &str, colon| -> String {
        let lost = |c| match (c, escaping) {
            ('\0', _) => true,
            ('\r', Escaping::V12) => false,
            ('\r', _) => true,
            ('\n', _) => escaping == Escaping::None,
            (':', _) => colon && escaping == Escaping::None,
            _ => false,
        };
        text.chars()
            .map(|c| if lost(c) { ' ' } else { c })
            .collect()
    };
    let mut read = Frame::new(frame.command);
    for (name, value) in frame.headers.iter().filter(|(name, _)| !name.is_empty()) {
        let mut value = unwritable(value, false);
        if version == Version::V10 {
            trim(&mut value);
        }
        read.headers.push((unwritable(name, true), value));
    }
    if frame.command.has_body() && !frame.body.is_empty() {
        let length = frame.body.len().to_string();
        read = read.with("content-length", length);
        read.body.clone_from(&frame.body);
    }
    read
}

fn any_version() -> impl Strategy<Value = Version> {
    proptest::sample::select(&Version::ALL[..])
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let text = || proptest::string::string_regex(r"([a-zé: \t]|[\\\r\n\x00:]|.){0,12}").unwrap();
    let name = text().prop_filter("written by encode itself", |name| name != "content-length");
    (
        proptest::sample::select(&Command::ALL[..]),
        vec((name, text()), 0..6),
        vec(any::<u8>(), 0..40),
    )
        .prop_map(|(command, headers, body)| Frame {
            command,
            headers,
            body,
        })
}

/// Bytes that get past the first line more often than any bytes would.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let parts: &[&[u8]] = &[
        b"CONNECT",
        b"SEND",
        b"ACK",
        b"SUBSCRIBE",
        b"\n",
        b"\n",
        b"\n",
        b"\r\n",
        b"\r",
        b"\0",
        b"\0",
        b":",
        b"a:b",
        b"\\",
        b"\\n",
        b"\\r",
        b"\\t",
        b"content-length:3",
        b"content-length:17",
        b"accept-version:1.2",
        b"\xff",
        b"x",
        b"\xc3\xa9",
        b" ",
        b"0123456789",
    ];
    let part = prop_oneof![
        9 => proptest::sample::select(parts).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..20),
    ];
    vec(part, 0..40).prop_map(|parts| parts.concat())
}

/// The sizes of pieces that bytes come in, over and over.
fn any_cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(1..30usize, 1..6)
}

fn cut<'a>(bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    std::iter::from_fn(move || {
        let size = (*sizes.next()?).min(rest.len());
        (size > 0).then(|| take(&mut rest, size))
    })
}

/// As `read`, from pieces; and the most that was held after any of them.
fn read_cut(
    decoder: &mut Decoder,
    bytes: &[u8],
    sizes: &[usize],
) -> (Vec<Item>, Option<DecodeError>, usize) {
    let (mut items, mut held) = (Vec::new(), 0);
    for piece in cut(bytes, sizes) {
        let (more, error) = read(decoder, piece);
        items.extend(more);
        held = held.max(decoder.heap_bytes());
        if error.is_some() {
            return (items, error, held);
        }
    }
    (items, None, held)
}

/// What a decoder may hold: a line in the making and the texts of the headers before it, or those and a
/// body; and a pair of strings for each header, with room for as many again.
fn bound(limits: Limits) -> usize {
    let pairs = 2 * limits.max_headers.max(2) * size_of::<(String, String)>();
    pairs + limits.max_header_bytes + limits.max_header_bytes.max(limits.max_body_bytes)
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        frames in vec(any_frame(), 1..4),
        version in any_version(),
        cuts in any_cuts(),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(version)).collect();
        let (items, error, _) = read_cut(&mut decoder(version), &bytes, &cuts);
        let expected: Vec<_> = frames
            .iter()
            .map(|frame| Item::Frame(as_read(frame, version)))
            .collect();
        prop_assert_eq!(items, expected);
        prop_assert_eq!(error, None);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(
        bytes in any_bytes(),
        version in proptest::option::of(any_version()),
        cuts in any_cuts(),
    ) {
        let start = || Decoder { version, ..Decoder::new(SMALL) };
        let (mut whole, mut cut) = (start(), start());
        let (items, error) = read(&mut whole, &bytes);
        let (cut_items, cut_error, held) = read_cut(&mut cut, &bytes, &cuts);
        prop_assert_eq!(&items, &cut_items, "however they are cut");
        prop_assert_eq!(error, cut_error);
        prop_assert!(held.max(whole.heap_bytes()) <= bound(SMALL), "{}", held);
        prop_assert_eq!(whole.is_inside_frame(), cut.is_inside_frame());
        for item in items {
            let Item::Frame(frame) = item else { continue };
            prop_assert!(frame.headers.len() <= SMALL.max_headers);
            prop_assert!(frame.body.len() <= SMALL.max_body_bytes);
        }
    }

    #[test]
    fn frames_that_were_read_can_be_written(bytes in any_bytes(), version in any_version()) {
        let mut small = Decoder::new(SMALL);
        small.set_version(version);
        for item in read(&mut small, &bytes).0 {
            let Item::Frame(mut frame) = item else { continue };
            frame.headers.retain(|(name, _)| name != "content-length");
            let (items, error) = read(&mut decoder(version), &frame.encode(version));
            prop_assert_eq!(items, vec![Item::Frame(as_read(&frame, version))]);
            prop_assert_eq!(error, None);
        }
    }
}
