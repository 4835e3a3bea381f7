//! Bodies for the answers that hyper makes by itself: a request that is no HTTP never reaches a route, and hyper
//! answers 400, 414 or 431 without a body. Clients expect `message` and `code` in every error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The answers of hyper: the beginning of the head, the code and the message.
const ANSWERS: [(&str, &str, &str); 3] = [
    (
        "HTTP/1.1 400 Bad Request\r\n",
        "malformed_request",
        "The request is not HTTP/1.1; send a request line, headers, and an empty line.",
    ),
    (
        "HTTP/1.1 414 URI Too Long\r\n",
        "uri_too_long",
        "The address is too long; send less in the query.",
    ),
    (
        "HTTP/1.1 431 Request Header Fields Too Large\r\n",
        "headers_too_large",
        "The headers are too large; send less than 16 KiB of them, with fewer cookies or a shorter token.",
    ),
];

/// A connection whose answers always have a body.
#[derive(Debug)]
pub(super) struct WithErrorBodies<S> {
    stream: S,
    /// What is written instead of an answer of hyper: at most one, the last of the connection.
    instead: Vec<u8>,
}

impl<S: AsyncWrite + Unpin> WithErrorBodies<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            instead: Vec::new(),
        }
    }

    /// The connection itself, after an upgrade.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    fn poll_instead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write(context, &self.instead))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

/// What is sent instead of `bytes`, if they end in an answer of hyper: the same with a body.
fn with_body(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = bytes.strip_suffix(b"\r\n\r\n")?;
    let begin = text.windows(9).rposition(|at| at == b"HTTP/1.1 ")?;
    let (before, head) = bytes.split_at(begin);
    let head = std::str::from_utf8(head).ok()?;
    let (line, code, message) = ANSWERS
        .into_iter()
        .find(|(line, ..)| head.starts_with(line))?;
    head.lines()
        .find(|header| header.eq_ignore_ascii_case("content-length: 0"))?;
    let body = json!({ "message": message, "code": code }).to_string();
    let answer = format!(
        "{line}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    Some([before, answer.as_bytes()].concat())
}

impl<S: AsyncRead + Unpin> AsyncRead for WithErrorBodies<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WithErrorBodies<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(context))?;
        match with_body(bytes) {
            Some(instead) => {
                // Written by the flush that follows.
                self.instead = instead;
                Poll::Ready(Ok(bytes.len()))
            }
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_hyper_gets_a_body() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let text =
            |bytes: &str| with_body(bytes.as_bytes()).map(|it| String::from_utf8(it).unwrap());
        let answer = text(bare).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{head}"
        );
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "headers_too_large");
        // After the answer to another request.
        let first = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(
            text(&format!("{first}{bare}")),
            Some(format!("{first}{answer}"))
        );
        for other in [
            first,
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 20\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "\r\n\r\n",
            "",
        ] {
            assert_eq!(text(other), None, "{other}");
        }
    }
}
