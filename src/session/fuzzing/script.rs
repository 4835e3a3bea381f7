//! The script of a client: bytes to steps.

use super::{DOMAIN, ROOM};

/// A part of a script.
pub(super) enum Step {
    /// The client sends bytes.
    Bytes(Vec<u8>),
    /// The queue releases the visitor of this subscription.
    Release(u32),
    /// The timer sends the number of waiting visitors to moderators.
    Updates,
}

/// Reads a script: each step is a byte that selects its kind, and a byte of its own.
pub(super) fn steps(mut script: &[u8], tokens: &[String]) -> Vec<Step> {
    let mut steps = Vec::new();
    while let [kind, argument, rest @ ..] = script {
        let length = rest.len().min(usize::from(*argument));
        let (payload, behind) = rest.split_at(length);
        script = behind;
        steps.push(match kind % 8 {
            0 => Step::Bytes(payload.to_vec()),
            1 => Step::Bytes(ws_frame(0x82, payload)),
            2 => Step::Bytes(fragments(payload, *kind)),
            3 => Step::Release(u32::from(*argument)),
            4 => Step::Updates,
            _ => {
                // The payload is short here: it is only a value in the frame.
                let text = String::from_utf8_lossy(payload);
                let frame = template(*kind >> 3, &text, tokens);
                match kind % 8 {
                    5 => Step::Bytes(fragments(frame.as_bytes(), *argument)),
                    _ => Step::Bytes(ws_frame(0x81, frame.as_bytes())),
                }
            }
        });
        if matches!(kind % 8, 3 | 4) {
            script = rest;
        }
    }
    steps
}

/// The frames that clients send, with a value of the script in one header.
fn template(number: u8, value: &str, tokens: &[String]) -> String {
    let number = usize::from(number);
    let token = &tokens[number % tokens.len()];
    let visitor = "destination:/secured/conference/visitor/topic.";
    let state = "destination:/secured/conference/state/topic.";
    match number % 13 {
        0 => format!("CONNECT\naccept-version:1.2\nAuthorization:Bearer {token}\n\n\0"),
        1 => format!("CONNECT\nheart-beat:{value}\nAuthorization:Bearer {token}\n\n\0"),
        2 => format!("STOMP\naccept-version:{value}\nAuthorization:Bearer {token}\n\n\0"),
        3 => format!("SUBSCRIBE\nid:{value}\n{visitor}{ROOM}\nreceipt:r\n\n\0"),
        4 => format!("SUBSCRIBE\nid:{value}\n{state}{ROOM}\nack:client\n\n\0"),
        5 => format!("SUBSCRIBE\nid:1\n{visitor}{value}@conference.{DOMAIN}\n\n\0"),
        6 => {
            format!("SUBSCRIBE\nid:{value}\n{state}{ROOM}\nAuthorization:Bearer {token}\n\n\0")
        }
        7 => format!("UNSUBSCRIBE\nid:{value}\nreceipt:u\n\n\0"),
        8 => format!("UNSUBSCRIBE\n{visitor}{ROOM}\n\n\0"),
        9 => format!("ACK\nid:{value}\nmessage-id:1\nsubscription:1\n\n\0"),
        10 => format!("SEND\ndestination:/a\ncontent-length:{value}\n\nbody\0"),
        11 => format!("DISCONNECT\nreceipt:{value}\n\n\0"),
        _ => "\n\r\n".to_owned(),
    }
}

/// A frame of a client; its mask is zero.
fn ws_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => bytes.push(0x80 | length),
        _ => {
            bytes.push(0x80 | 126);
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// A message in fragments of this size, with a ping behind the first.
fn fragments(payload: &[u8], size: u8) -> Vec<u8> {
    let size = usize::from(size).max(1);
    let mut bytes = ws_frame(2, &[]);
    bytes.extend(ws_frame(0x89, b"ping"));
    for piece in payload.chunks(size) {
        bytes.extend(ws_frame(0, piece));
    }
    bytes.extend(ws_frame(0x80, &[]));
    bytes
}
