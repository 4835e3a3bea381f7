//! Decodes frames from bytes, in pieces of any size: a frame over several messages, several frames in one.

use std::fmt;
use std::mem::size_of;

use super::Version;
use super::error::DecodeError;
use super::frame::{Command, Escaping, Frame};

/// The longest line that can hold a command: the longest of them and a CR.
const MAX_COMMAND_LINE: usize = 12;
const _: () = assert!(MAX_COMMAND_LINE == Command::MAX_LEN + 1);

/// The size limits of a frame. The first octet beyond a limit is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The head: command, headers and the empty line, with their line ends, as on the wire.
    pub max_header_bytes: usize,
    /// The number of headers.
    pub max_headers: usize,
    /// The body.
    pub max_body_bytes: usize,
}

impl Default for Limits {
    /// Jitsi's clients send a token of up to 16 KiB, a few short headers and no body. The head may be twice as large.
    /// Small bodies are accepted, so that the error for a SEND names the SEND and not its size.
    fn default() -> Self {
        Self {
            max_header_bytes: 32 * 1024,
            max_headers: 32,
            max_body_bytes: 8 * 1024,
        }
    }
}

/// What the peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A frame.
    Frame(Frame),
    /// An end of line between frames.
    HeartBeat,
}

/// Decodes frames from bytes.
///
/// It consumes only the bytes of the next frame. Between frames it uses no heap memory; inside a frame it uses at most
/// a small multiple of its limits. The time is linear in the number of octets, for pieces of any size.
///
/// [`set_version`](Self::set_version) applies from the next frame on, even if its bytes have already arrived.
pub struct Decoder {
    limits: Limits,
    version: Option<Version>,
    state: State,
}

/// The part of the frame that the next octet belongs to.
enum State {
    CommandLine(CommandLine),
    Head(Head),
    Body(Body),
    Failed(DecodeError),
}

/// The result of one step.
enum Step {
    /// More bytes are needed.
    Wait,
    /// The frame continues with this part.
    Enter(State),
    /// An item is complete.
    Done(Item),
}

impl Decoder {
    /// A decoder without a version. Until [`set_version`](Self::set_version), a CONNECT without `accept-version` is
    /// decoded by the rules of 1.0, and every other frame by those of 1.2, the strictest.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            version: None,
            state: State::default(),
        }
    }

    /// Sets the negotiated version.
    pub fn set_version(&mut self, version: Version) {
        self.version = Some(version);
    }

    /// Takes the next frame or heart-beat off the front of `input`; `None` when `input` is used up. Call it until then
    /// for each message.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are not a frame; every later call returns the same error.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Item>, DecodeError> {
        let result = self.run(input);
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
        }
        result
    }

    /// Whether a frame has begun and not ended.
    pub fn is_inside_frame(&self) -> bool {
        match &self.state {
            State::CommandLine(line) => line.len > 0,
            State::Head(_) | State::Body(_) => true,
            State::Failed(_) => false,
        }
    }

    /// Its heap memory, in bytes.
    pub fn heap_bytes(&self) -> usize {
        match &self.state {
            State::CommandLine(_) => 0,
            State::Head(head) => head.line.capacity() + header_bytes(&head.headers),
            State::Body(body) => body.frame.body.capacity() + header_bytes(&body.frame.headers),
            State::Failed(DecodeError::UnknownCommand { command }) => command.capacity(),
            State::Failed(_) => 0,
        }
    }

    fn run(&mut self, input: &mut &[u8]) -> Result<Option<Item>, DecodeError> {
        loop {
            let step = match &mut self.state {
                State::CommandLine(line) => line.step(input, self.version),
                State::Head(head) => head.step(input, &self.limits),
                State::Body(body) => body.step(input),
                State::Failed(error) => return Err(error.clone()),
            };
            match step? {
                Step::Wait => return Ok(None),
                Step::Enter(state) => self.state = state,
                Step::Done(item) => {
                    self.state = State::default();
                    return Ok(Some(item));
                }
            }
        }
    }
}

/// Without the content: it may be a token.
impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("version", &self.version)
            .field("is_inside_frame", &self.is_inside_frame())
            .field("heap_bytes", &self.heap_bytes())
            .finish_non_exhaustive()
    }
}

impl Default for State {
    fn default() -> Self {
        Self::CommandLine(CommandLine::default())
    }
}

/// The command line; empty between frames.
#[derive(Default)]
struct CommandLine {
    line: [u8; MAX_COMMAND_LINE],
    len: usize,
}

impl CommandLine {
    fn step(&mut self, input: &mut &[u8], version: Option<Version>) -> Result<Step, DecodeError> {
        while let Some(octet) = take_octet(input) {
            match octet {
                b'\n' => return self.end(version),
                0 => return Err(DecodeError::NulInHead),
                _ if self.len == self.line.len() => return Err(self.unknown()),
                _ => {
                    self.line[self.len] = octet;
                    self.len += 1;
                }
            }
        }
        Ok(Step::Wait)
    }

    fn end(&self, version: Option<Version>) -> Result<Step, DecodeError> {
        let line = &self.line[..self.len];
        let line = without_cr(line);
        if line.is_empty() {
            return Ok(Step::Done(Item::HeartBeat));
        }
        let command = Command::from_wire(line).ok_or_else(|| self.unknown())?;
        Ok(Step::Enter(State::Head(Head {
            command,
            version,
            headers: Vec::new(),
            line: Vec::new(),
            used: self.len + 1,
        })))
    }

    fn unknown(&self) -> DecodeError {
        let shown = |octet: &u8| match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'-' | b'_' | b'/' | b'.' => {
                char::from(*octet)
            }
            _ => '?',
        };
        DecodeError::UnknownCommand {
            command: without_cr(&self.line[..self.len])
                .iter()
                .map(shown)
                .collect(),
        }
    }
}

/// The headers, up to the empty line.
struct Head {
    command: Command,
    version: Option<Version>,
    headers: Vec<(String, String)>,
    /// The beginning of an incomplete line.
    line: Vec<u8>,
    /// Octets of the head so far.
    used: usize,
}

impl Head {
    fn step(&mut self, input: &mut &[u8], limits: &Limits) -> Result<Step, DecodeError> {
        let max = limits.max_header_bytes;
        loop {
            let Some(left) = max.checked_sub(self.used).filter(|left| *left > 0) else {
                return Err(DecodeError::HeadTooLarge { max });
            };
            let window = &input[..left.min(input.len())];
            if window.is_empty() {
                return Ok(Step::Wait);
            }
            let end = window.iter().position(|octet| matches!(octet, b'\n' | 0));
            let Some(end) = end else {
                append(&mut self.line, take(input, window.len()), max);
                self.used += window.len();
                continue;
            };
            let rest = take(input, end);
            let terminator = take_octet(input);
            self.used += end + 1;
            if terminator == Some(0) {
                return Err(DecodeError::NulInHead);
            }
            let ended = if self.line.is_empty() {
                self.line(rest, limits)?
            } else {
                append(&mut self.line, rest, max);
                let line = std::mem::take(&mut self.line);
                self.line(&line, limits)?
            };
            if ended {
                return Ok(Step::Enter(State::Body(self.end(limits)?)));
            }
        }
    }

    /// Handles one line. Returns whether it is the empty line that ends the head.
    fn line(&mut self, line: &[u8], limits: &Limits) -> Result<bool, DecodeError> {
        let bytes = without_cr(line);
        if bytes.is_empty() {
            return Ok(true);
        }
        let max = limits.max_headers;
        if self.headers.len() >= max {
            return Err(DecodeError::TooManyHeaders { max });
        }
        let line = self.headers.len() + 2;
        let text = str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8 { line })?;
        // Since 1.1 a second colon must be escaped. It is not ambiguous, and clients write it.
        let (name, value) = text.split_once(':').ok_or(DecodeError::NoColon { line })?;
        if name.is_empty() {
            return Err(DecodeError::NoName { line });
        }
        let version = self.version.unwrap_or(Version::V12);
        let escaping = Escaping::of(self.command, version);
        let plain = |text| unescape(text, escaping, line, version);
        self.headers.push((plain(name)?, plain(value)?));
        Ok(false)
    }

    fn end(&mut self, limits: &Limits) -> Result<Body, DecodeError> {
        let mut frame = Frame::new(self.command);
        frame.headers = std::mem::take(&mut self.headers);
        let is_1_0 = match self.version {
            Some(version) => version == Version::V10,
            None => self.command.is_connect() && frame.header("accept-version").is_none(),
        };
        if is_1_0 {
            for (_, value) in &mut frame.headers {
                trim(value);
            }
        }
        let max = limits.max_body_bytes;
        let claimed = match frame.header("content-length") {
            Some(text) => Some(content_length(text, max)?),
            None => None,
        };
        let rule = match self.command {
            command if command.has_body() => BodyRule::Keep,
            _ if is_1_0 => BodyRule::Ignore,
            _ => BodyRule::Refuse,
        };
        if rule == BodyRule::Refuse && claimed.is_some_and(|length| length > 0) {
            let command = self.command;
            return Err(DecodeError::BodyNotAllowed { command });
        }
        Ok(Body {
            frame,
            rule,
            claimed,
            seen: 0,
            max,
        })
    }
}

/// How a body is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyRule {
    Keep,
    /// 1.0 requires it for SUBSCRIBE and says nothing about other frames.
    Ignore,
    Refuse,
}

/// The body, up to the NUL.
struct Body {
    frame: Frame,
    rule: BodyRule,
    /// `content-length`.
    claimed: Option<usize>,
    /// Octets so far.
    seen: usize,
    max: usize,
}

impl Body {
    fn step(&mut self, input: &mut &[u8]) -> Result<Step, DecodeError> {
        let end = match self.claimed {
            Some(claimed) => claimed - self.seen,
            None => match input.iter().position(|octet| *octet == 0) {
                Some(end) => end,
                None => input.len(),
            },
        };
        self.keep(take(input, end.min(input.len())))?;
        match take_octet(input) {
            None => Ok(Step::Wait),
            Some(0) => {
                let empty = Frame::new(self.frame.command);
                let frame = std::mem::replace(&mut self.frame, empty);
                Ok(Step::Done(Item::Frame(frame)))
            }
            Some(_) => Err(DecodeError::NoNul),
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        self.seen += bytes.len();
        match self.rule {
            BodyRule::Refuse if self.seen > 0 => Err(DecodeError::BodyNotAllowed {
                command: self.frame.command,
            }),
            _ if self.seen > self.max => Err(DecodeError::BodyTooLarge { max: self.max }),
            BodyRule::Keep => {
                let bound = self.claimed.unwrap_or(self.max);
                append(&mut self.frame.body, bytes, bound);
                Ok(())
            }
            BodyRule::Ignore | BodyRule::Refuse => Ok(()),
        }
    }
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(count);
    *input = rest;
    taken
}

fn take_octet(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
}

/// Lines end in LF, or since 1.2 in CR LF. A client that writes CR LF writes it in its CONNECT too, before a version is
/// negotiated: so one CR is removed in every version.
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Appends; the capacity doubles as it grows, up to `max`.
fn append(buffer: &mut Vec<u8>, bytes: &[u8], max: usize) {
    let needed = buffer.len() + bytes.len();
    if needed > buffer.capacity() {
        let room = needed.max(max.min(2 * buffer.capacity()));
        buffer.reserve_exact(room - buffer.len());
    }
    buffer.extend_from_slice(bytes);
}

/// Removes the blanks that pad values in the examples of 1.0. Later versions forbid it.
fn trim(value: &mut String) {
    let trimmed = value.trim_matches([' ', '\t']);
    if trimmed.len() < value.len() {
        *value = trimmed.to_owned();
    }
}

fn content_length(text: &str, max: usize) -> Result<usize, DecodeError> {
    if text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(DecodeError::BadContentLength);
    }
    // More digits than a `usize` holds are too large as well.
    match text.parse() {
        Ok(length) if length <= max => Ok(length),
        _ => Err(DecodeError::BodyTooLarge { max }),
    }
}

fn unescape(
    text: &str,
    escaping: Escaping,
    line: usize,
    version: Version,
) -> Result<String, DecodeError> {
    if escaping == Escaping::None || !text.contains('\\') {
        return Ok(text.to_owned());
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        if next != '\\' {
            plain.push(next);
            continue;
        }
        let escaped = rest.next().ok_or(DecodeError::HalfEscape { line })?;
        let undefined = || DecodeError::UndefinedEscape {
            line,
            escaped: if escaped.is_ascii_alphanumeric() {
                escaped
            } else {
                '?'
            },
            version,
        };
        plain.push(escaping.unescape(escaped).ok_or_else(undefined)?);
    }
    Ok(plain)
}

fn header_bytes(headers: &Vec<(String, String)>) -> usize {
    let texts: usize = headers
        .iter()
        .map(|(name, value)| name.capacity() + value.capacity())
        .sum();
    headers.capacity() * size_of::<(String, String)>() + texts
}

#[cfg(test)]
mod tests;
