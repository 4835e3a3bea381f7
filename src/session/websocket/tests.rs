use proptest::prelude::*;

use super::client_frame::client_frame as frame;
use super::*;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;

fn read(bytes: &[u8]) -> Result<Vec<WsMessage>, ProtocolError> {
    let mut decoder = FrameDecoder::default();
    decoder.push(bytes);
    let mut all = Vec::new();
    while let Some(message) = decoder.next()? {
        all.push(message);
    }
    Ok(all)
}

fn message(text: &str) -> WsMessage {
    WsMessage::Data(text.into())
}

#[test]
fn text_and_binary_messages_are_read() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
        let payload = vec![b'x'; length];
        let whole = WsMessage::Data(payload.clone());
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
fn fragments_are_one_message_with_control_frames_between() {
    let bytes = [
        frame(TEXT, "J\u{e4}".as_bytes().split_at(2).0),
        frame(FINAL | PING, b"p"),
        frame(0, "J\u{e4}".as_bytes().split_at(2).1),
        frame(FINAL | PONG, b""),
        frame(FINAL, b"ger"),
    ];
    let expected = vec![
        WsMessage::Ping(b"p".to_vec()),
        WsMessage::Pong,
        message("J\u{e4}ger"),
    ];
    assert_eq!(read(&bytes.concat()), Ok(expected));
}

#[test]
fn decoder_is_empty_between_messages() {
    let mut decoder = FrameDecoder::default();
    decoder.push(&frame(FINAL | TEXT, b"a"));
    assert!(!decoder.is_empty());
    decoder.next().unwrap();
    assert!(decoder.is_empty());
    decoder.push(&frame(TEXT, b"a"));
    assert_eq!(decoder.next(), Ok(None));
    assert!(!decoder.is_empty(), "a fragment is");
}

#[test]
fn each_protocol_error_is_recognised() {
    use ProtocolError::*;
    let mut unmasked = frame(FINAL | TEXT, b"a");
    unmasked[1] &= 0x7f;
    let length_of_one_in_two_bytes = vec![FINAL | TEXT, FINAL | 126, 0, 1, 0, 0, 0, 0];
    let message_in_message = [frame(TEXT, b"a"), frame(FINAL | TEXT, b"b")].concat();
    let mut cases = vec![
        (unmasked, Unmasked),
        (vec![FINAL | PING, 0], Unmasked),
        (length_of_one_in_two_bytes, LengthNotMinimal),
        (frame(FINAL, b"a"), NothingToContinue),
        (message_in_message, MessageInsideMessage),
        (frame(FINAL | CLOSE, b"\x03"), CloseCodeTooShort),
        (frame(FINAL | CLOSE, b"\x03\xe8\xff\xfe"), NotUtf8),
    ];
    for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
        for bit in [0x40, 0x20, 0x10] {
            cases.push((frame(FINAL | bit | opcode, b""), ReservedBits));
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push((frame(FINAL | opcode, b"a"), UnknownOpcode));
    }
    for opcode in [CLOSE, PING, PONG] {
        cases.push((frame(opcode, b""), FragmentedControl));
        cases.push((frame(FINAL | opcode, &[b'a'; 126]), ControlTooLong));
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2000, 5000] {
        let close = frame(FINAL | CLOSE, &code.to_be_bytes());
        cases.push((close, InvalidCloseCode));
    }
    for (bytes, error) in cases {
        assert_eq!(read(&bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn text_must_be_utf_8_and_binary_need_not() {
    // A stray byte, an overlong slash, a surrogate, beyond the last character, half a character.
    for text in [
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
    ] {
        let refused = Err(ProtocolError::NotUtf8);
        assert_eq!(read(&frame(FINAL | TEXT, text)), refused, "{text:?}");
        let binary = vec![WsMessage::Data(text.to_vec())];
        assert_eq!(read(&frame(FINAL | BINARY, text)), Ok(binary));
    }
    let halves = [frame(TEXT, b"\xe2"), frame(FINAL, b"\x28\xa1")].concat();
    assert_eq!(read(&halves), Err(ProtocolError::NotUtf8));
}

#[test]
fn fragments_may_split_a_character() {
    let text = "receipt:\u{20ac}\u{1d11e}";
    let mut bytes = frame(TEXT, b"");
    for octet in text.bytes() {
        bytes.extend(frame(0, &[octet]));
    }
    bytes.extend(frame(FINAL, b""));
    assert_eq!(read(&bytes), Ok(vec![message(text)]));
}

#[test]
fn too_large_message_is_refused_before_it_arrives() {
    let large = frame(FINAL | TEXT, &vec![b'x'; MESSAGE_MAX + 1]);
    assert_eq!(read(&large[..14]), Err(ProtocolError::TooLarge));
    let fragment = frame(TEXT, &vec![b'x'; MESSAGE_MAX]);
    assert_eq!(
        read(&[fragment, frame(0, b"x")].concat()),
        Err(ProtocolError::TooLarge)
    );
    for length in [1 << 40, i64::MAX as u64, u64::MAX] {
        let mut endless = vec![FINAL | TEXT, FINAL | 127];
        endless.extend(length.to_be_bytes());
        endless.extend([0; 4]);
        assert_eq!(read(&endless), Err(ProtocolError::TooLarge), "{length}");
    }
}

#[test]
fn close_code_follows_from_the_error() {
    assert_eq!(ProtocolError::NotUtf8.close_code(), CloseCode::Invalid);
    assert_eq!(ProtocolError::TooLarge.close_code(), CloseCode::Size);
    assert_eq!(ProtocolError::Unmasked.close_code(), CloseCode::Protocol);
}

#[test]
fn close_is_read_with_its_code() {
    let close = |payload: &[u8]| read(&frame(FINAL | CLOSE, payload));
    assert_eq!(close(b""), Ok(vec![WsMessage::Close(None)]));
    for (code, reason) in [
        (CloseCode::Normal, "bye"),
        (CloseCode::Away, "going away"),
        (CloseCode::Library(4000), ""),
    ] {
        let read = close(&close_payload(code, reason));
        assert_eq!(read, Ok(vec![WsMessage::Close(Some(code))]));
    }
}

#[test]
fn frames_of_the_server_are_unmasked_whole_and_minimal() {
    let written = |length: usize| {
        let mut out = Vec::new();
        write_frame(OpCode::Data(Data::Text), &vec![b'x'; length], &mut out);
        let head = out.len() - length;
        out[..head].to_vec()
    };
    assert_eq!(written(0), [0x81, 0]);
    assert_eq!(written(125), [0x81, 125]);
    assert_eq!(written(126), [0x81, 126, 0, 126]);
    assert_eq!(written(65_535), [0x81, 126, 0xff, 0xff]);
    assert_eq!(written(65_536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
}

proptest! {
    /// The result does not depend on how the bytes are cut.
    #[test]
    fn frames_may_come_in_pieces_of_any_size(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        cut in 1_usize..40,
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|payload| frame(FINAL | BINARY, payload)).collect();
        let mut decoder = FrameDecoder::default();
        let mut all = Vec::new();
        for some in bytes.chunks(cut) {
            decoder.push(some);
            while let Some(message) = decoder.next().unwrap() {
                all.push(message);
            }
        }
        let expected: Vec<_> = messages.into_iter().map(WsMessage::Data).collect();
        prop_assert_eq!(all, expected);
        prop_assert!(decoder.is_empty());
    }

    /// No bytes make the decoder panic, and its memory is bounded.
    #[test]
    fn no_bytes_make_the_frame_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut decoder = FrameDecoder::default();
        for some in bytes.chunks(100) {
            decoder.push(some);
            loop {
                match decoder.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
            // An incomplete frame with its header, and the fragments before it.
            prop_assert!(decoder.raw.len() <= MESSAGE_MAX + 14);
            let before = decoder.fragments.as_ref().map_or(0, |message| message.payload.len());
            prop_assert!(before <= MESSAGE_MAX);
        }
    }
}
