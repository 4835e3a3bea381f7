//! One frame as a value, and its bytes.

use std::fmt;

use super::Version;

/// Headers whose values are secrets: they are not shown in debug output.
const SECRET_HEADERS: [&str; 2] = ["authorization", "passcode"];

/// What stands for an octet in a header that the version has no way to write.
const UNWRITABLE: u8 = b' ';

/// What a frame asks or tells; on the wire in capitals, and only in capitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// From the client: begins a session.
    Connect,
    /// From the client: as CONNECT, since 1.1.
    Stomp,
    /// From the client: a message to a destination.
    Send,
    /// From the client: messages of a destination, please.
    Subscribe,
    /// From the client: no more of them.
    Unsubscribe,
    /// From the client: a message was dealt with.
    Ack,
    /// From the client: a message was not dealt with; since 1.1.
    Nack,
    /// From the client: begins a transaction.
    Begin,
    /// From the client: ends a transaction.
    Commit,
    /// From the client: takes a transaction back.
    Abort,
    /// From the client: ends the session.
    Disconnect,
    /// From the server: the session has begun.
    Connected,
    /// From the server: a message of a subscription.
    Message,
    /// From the server: a frame that asked for a receipt was dealt with.
    Receipt,
    /// From the server: what went wrong; the connection ends after it.
    Error,
}

impl Command {
    /// Every command.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Stomp,
        Self::Send,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Ack,
        Self::Nack,
        Self::Begin,
        Self::Commit,
        Self::Abort,
        Self::Disconnect,
        Self::Connected,
        Self::Message,
        Self::Receipt,
        Self::Error,
    ];

    /// The longest of them on the wire, in bytes.
    pub(super) const MAX_LEN: usize = Self::Unsubscribe.as_str().len();

    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Stomp => "STOMP",
            Self::Send => "SEND",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Ack => "ACK",
            Self::Nack => "NACK",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Abort => "ABORT",
            Self::Disconnect => "DISCONNECT",
            Self::Connected => "CONNECTED",
            Self::Message => "MESSAGE",
            Self::Receipt => "RECEIPT",
            Self::Error => "ERROR",
        }
    }

    pub(super) fn from_wire(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|command| command.as_str().as_bytes() == name)
    }

    /// Whether its frames may have a body.
    pub fn has_body(self) -> bool {
        matches!(self, Self::Send | Self::Message | Self::Error)
    }

    /// Whether it asks for a session to begin.
    pub fn is_connect(self) -> bool {
        matches!(self, Self::Connect | Self::Stomp)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which octets of names and values are escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escaping {
    /// 1.0, and frames that begin a session in any version.
    None,
    /// 1.1: colon, LF and backslash.
    V11,
    /// 1.2: CR too.
    V12,
}

impl Escaping {
    pub(super) fn of(command: Command, version: Version) -> Self {
        match (command, version) {
            (Command::Connect | Command::Stomp | Command::Connected, _) => Self::None,
            (_, Version::V10) => Self::None,
            (_, Version::V11) => Self::V11,
            (_, Version::V12) => Self::V12,
        }
    }

    /// What follows the backslash for this octet, if it has an escape.
    fn escape(self, octet: u8) -> Option<u8> {
        match (self, octet) {
            (Self::None, _) => None,
            (_, b'\\') => Some(b'\\'),
            (_, b'\n') => Some(b'n'),
            (_, b':') => Some(b'c'),
            (Self::V12, b'\r') => Some(b'r'),
            _ => None,
        }
    }

    /// What a backslash and this character stand for, if that is defined.
    pub(super) fn unescape(self, escaped: char) -> Option<char> {
        match (self, escaped) {
            (Self::None, _) => None,
            (_, '\\') => Some('\\'),
            (_, 'n') => Some('\n'),
            (_, 'c') => Some(':'),
            (Self::V12, 'r') => Some('\r'),
            _ => None,
        }
    }

    fn write(self, text: &str, breaks: &[u8], to: &mut Vec<u8>) {
        for octet in text.bytes() {
            match self.escape(octet) {
                Some(escaped) => to.extend([b'\\', escaped]),
                None if breaks.contains(&octet) => to.push(UNWRITABLE),
                None => to.push(octet),
            }
        }
    }
}

/// One frame: command, headers in order, body.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The command.
    pub command: Command,
    /// Names and values as meant, not as escaped, in the order of the wire.
    pub headers: Vec<(String, String)>,
    /// Empty for a frame without one.
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame with neither headers nor a body.
    pub fn new(command: Command) -> Self {
        Self {
            command,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// With this header after those it has.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With this body, and a header `content-type` that says what it is.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>, content_type: &str) -> Self {
        self.body = body.into();
        self.with("content-type", content_type)
    }

    /// The value of this header; of a repeated one the first, as the specification has it.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Its bytes: lines end in LF, the frame in NUL and nothing after it.
    ///
    /// A body gets a `content-length`, the last header; one that `headers` holds is not written. Commands
    /// that have no body are written without. What the version can't express in a header (a line
    /// break in 1.0 or CONNECTED, CR in 1.1, NUL in any) becomes a space, and a header without a name is
    /// left out: so no value, wherever it comes from, adds a line or ends the frame.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let headers = || self.headers.iter().map(|(name, value)| (&**name, &**value));
        let room: usize = headers()
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum();
        let mut bytes = Vec::with_capacity(Command::MAX_LEN + room + self.body.len() + 32);
        bytes.extend_from_slice(self.command.as_str().as_bytes());
        bytes.push(b'\n');
        for (name, value) in headers() {
            if !name.is_empty() && name != "content-length" {
                write_header(self.command, version, name, value, &mut bytes);
            }
        }
        let has_body = self.command.has_body();
        end(if has_body { &self.body } else { &[] }, &mut bytes);
        bytes
    }
}

/// Appends a header line, as [`Frame::encode`] writes it.
pub fn write_header(
    command: Command,
    version: Version,
    name: &str,
    value: &str,
    bytes: &mut Vec<u8>,
) {
    let escaping = Escaping::of(command, version);
    escaping.write(name, b":\r\n\0", bytes);
    bytes.push(b':');
    escaping.write(value, b"\r\n\0", bytes);
    bytes.push(b'\n');
}

/// Appends what follows the headers of a frame, as [`Frame::encode`] does: the length, the body, NUL.
pub fn end(body: &[u8], bytes: &mut Vec<u8>) {
    if !body.is_empty() {
        bytes.extend_from_slice(b"content-length:");
        bytes.extend_from_slice(body.len().to_string().as_bytes());
        bytes.push(b'\n');
    }
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    bytes.push(0);
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): &(String, String)| {
            let secret = SECRET_HEADERS
                .iter()
                .any(|secret| secret.eq_ignore_ascii_case(name));
            let value = if secret { "…" } else { value.as_str() };
            (name.clone(), value.to_owned())
        };
        f.debug_struct("Frame")
            .field("command", &self.command)
            .field(
                "headers",
                &self.headers.iter().map(shown).collect::<Vec<_>>(),
            )
            .field("body", &String::from_utf8_lossy(&self.body))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_is_written_with_its_headers_in_order() {
        let frame = Frame::new(Command::Message)
            .with("subscription", "1")
            .with("message-id", "7")
            .with(
                "destination",
                "/secured/conference/visitor/topic.room@conference.meet.example.com",
            )
            .body(r#"{"status":"live"}"#, "application/json");
        let expected = "MESSAGE\nsubscription:1\nmessage-id:7\n\
            destination:/secured/conference/visitor/topic.room@conference.meet.example.com\n\
            content-type:application/json\ncontent-length:17\n\n{\"status\":\"live\"}\0";
        for version in Version::ALL {
            assert_eq!(frame.encode(version), expected.as_bytes(), "{version}");
        }
    }

    #[test]
    fn frame_without_a_body_has_no_content_length() {
        let frame = Frame::new(Command::Receipt).with("receipt-id", "77");
        assert_eq!(frame.encode(Version::V12), b"RECEIPT\nreceipt-id:77\n\n\0");
        let mut frame = Frame::new(Command::Receipt).with("content-length", "9");
        frame.body = b"no receipt has one".to_vec();
        assert_eq!(frame.encode(Version::V12), b"RECEIPT\n\n\0");
    }

    #[test]
    fn content_length_is_always_that_of_the_body() {
        let frame = Frame::new(Command::Error)
            .with("content-length", "1")
            .body("é\0", "text/plain");
        let expected = "ERROR\ncontent-type:text/plain\ncontent-length:3\n\né\0\0";
        assert_eq!(frame.encode(Version::V12), expected.as_bytes());
    }

    #[test]
    fn headers_are_escaped_as_the_version_defines() {
        let frame = Frame::new(Command::Receipt).with("a:b", "c:d\\e\nf\rg");
        for (version, line) in [
            (Version::V10, "a b:c:d\\e f g"),
            (Version::V11, "a\\cb:c\\cd\\\\e\\nf g"),
            (Version::V12, "a\\cb:c\\cd\\\\e\\nf\\rg"),
        ] {
            let expected = format!("RECEIPT\n{line}\n\n\0");
            assert_eq!(frame.encode(version), expected.as_bytes(), "{version}");
        }
    }

    #[test]
    fn connected_is_not_escaped_in_any_version() {
        let frame = Frame::new(Command::Connected).with("server", "a:b\\c");
        for version in Version::ALL {
            assert_eq!(frame.encode(version), b"CONNECTED\nserver:a:b\\c\n\n\0");
        }
    }

    #[test]
    fn no_value_adds_a_line_or_ends_the_frame() {
        let mut tried = 0;
        for command in Command::ALL {
            for version in Version::ALL {
                let frame = Frame::new(command)
                    .with("x\ny\0", "a\n\nb\0c\r\n")
                    .with("", "z");
                let bytes = frame.encode(version);
                let breaks = bytes.iter().filter(|octet| **octet == b'\n').count();
                assert_eq!(breaks, 3, "{command} {version}");
                let end = bytes.iter().position(|octet| *octet == 0);
                assert_eq!(end, Some(bytes.len() - 1), "{command} {version}");
                tried += 1;
            }
        }
        assert_eq!(tried, 45);
    }

    #[test]
    fn first_header_of_a_name_is_its_value() {
        let frame = Frame::new(Command::Message)
            .with("foo", "World")
            .with("foo", "Hello");
        assert_eq!(frame.header("foo"), Some("World"));
        assert_eq!(frame.header("Foo"), None);
    }

    #[test]
    fn tokens_are_not_in_debug_output() {
        let frame = Frame::new(Command::Connect)
            .with("Authorization", "Bearer abc.def")
            .with("passcode", "hunter2")
            .with("login", "me");
        let shown = format!("{frame:?}");
        assert!(
            !shown.contains("abc.def") && !shown.contains("hunter2"),
            "{shown}"
        );
        assert!(
            shown.contains("Authorization") && shown.contains("me"),
            "{shown}"
        );
    }
}
