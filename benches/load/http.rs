//! An HTTP client that keeps one connection open and sends one request after the other, as Prosody does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::server::TOKEN;

pub(crate) struct HttpClient {
    address: SocketAddr,
    socket: BufReader<TcpStream>,
}

impl HttpClient {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            address,
            socket: BufReader::new(socket),
        }
    }

    pub(crate) fn post_form(&mut self, path: &str, body: &str) -> (u16, String) {
        self.request("POST", path, "application/x-www-form-urlencoded", body)
    }

    pub(crate) fn get(&mut self, path: &str) -> (u16, String) {
        self.request("GET", path, "text/plain", "")
    }

    pub(crate) fn delete(&mut self, path: &str) -> (u16, String) {
        self.request("DELETE", path, "text/plain", "")
    }

    fn request(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &str,
    ) -> (u16, String) {
        self.send(method, path, content_type, body);
        self.response()
    }

    /// Sends a request. Read its response with [`Self::response`].
    pub(crate) fn send(&mut self, method: &str, path: &str, content_type: &str, body: &str) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.socket.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// Reads the status and the body of a response.
    pub(crate) fn response(&mut self) -> (u16, String) {
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            let read = self.socket.read_line(&mut line).unwrap();
            assert!(read > 0, "the server closed the connection");
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if status == 0 {
                status = line.split(' ').nth(1).unwrap().parse().unwrap();
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }
}
