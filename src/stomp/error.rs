//! Why bytes are no frames, in words for the peer that sent them.

use thiserror::Error;

use super::Version;
use super::frame::Command;

/// Why bytes are not frames. All of them are the peer's fault and final: where the next frame would begin
/// can't be known any more.
///
/// Each message fits the header `message` of an ERROR frame as it is, in every version and for clients
/// that read headers literally (jigasi): short, printable ASCII, nothing that needs an escape. None shows
/// what a header holds, which may be a token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The first line is no command.
    #[error("'{command}' is no STOMP command; write one in capitals, alone on the first line")]
    UnknownCommand {
        /// What stands there, cut short, with `?` for what should not be shown.
        command: String,
    },
    /// More bytes of head than [`Limits::max_header_bytes`](super::Limits::max_header_bytes).
    #[error("the headers are too large; the command and all headers may take {max} bytes")]
    HeadTooLarge {
        /// The limit.
        max: usize,
    },
    /// More headers than [`Limits::max_headers`](super::Limits::max_headers).
    #[error("there are too many headers; a frame may have {max}")]
    TooManyHeaders {
        /// The limit.
        max: usize,
    },
    /// A header line without a colon.
    #[error("line {line} of the frame has no colon; write headers as name, colon, value")]
    NoColon {
        /// The line, from 1, which is the command's.
        line: usize,
    },
    /// A header line that begins with the colon.
    #[error("line {line} of the frame has no name before its colon; write one")]
    NoName {
        /// The line, from 1, which is the command's.
        line: usize,
    },
    /// A header line that is not UTF-8.
    #[error("line {line} of the frame is not UTF-8; encode headers in UTF-8")]
    NotUtf8 {
        /// The line, from 1, which is the command's.
        line: usize,
    },
    /// An escape that the version does not define.
    #[error(
        "line {line} of the frame has a backslash before '{escaped}', which means nothing in STOMP {version}; write a backslash as two"
    )]
    UndefinedEscape {
        /// The line, from 1, which is the command's.
        line: usize,
        /// What follows the backslash; `?` for what should not be shown.
        escaped: char,
        /// The version.
        version: Version,
    },
    /// A name or value that ends in half an escape.
    #[error("line {line} of the frame has a backslash before nothing; write a backslash as two")]
    HalfEscape {
        /// The line, from 1, which is the command's.
        line: usize,
    },
    /// A NUL before the empty line.
    #[error(
        "the frame ends among its headers; put an empty line after them, then the body, then NUL"
    )]
    NulInHead,
    /// A `content-length` that is no number.
    #[error("content-length is no number; write the length of the body in bytes, in digits")]
    BadContentLength,
    /// More body, or a claim of more, than [`Limits::max_body_bytes`](super::Limits::max_body_bytes).
    #[error("the body is too large; it may take {max} bytes")]
    BodyTooLarge {
        /// The limit.
        max: usize,
    },
    /// A body where none may be, since 1.1.
    #[error("a {command} frame has no body; end it with NUL right after the empty line")]
    BodyNotAllowed {
        /// The frame's command.
        command: Command,
    },
    /// No NUL after as many octets as `content-length` says.
    #[error(
        "the body is longer than its content-length; count it in bytes and end the frame with NUL"
    )]
    NoNul,
}
