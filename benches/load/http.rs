//! A caller who keeps its connection: requests one after the other, as Prosody makes them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::server::TOKEN;

pub(crate) struct Caller {
    address: SocketAddr,
    socket: BufReader<TcpStream>,
}

impl Caller {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            address,
            socket: BufReader::new(socket),
        }
    }

    pub(crate) fn post_form(&mut self, path: &str, body: &str) -> (u16, String) {
        self.call("POST", path, "application/x-www-form-urlencoded", body)
    }

    pub(crate) fn get(&mut self, path: &str) -> (u16, String) {
        self.call("GET", path, "text/plain", "")
    }

    pub(crate) fn delete(&mut self, path: &str) -> (u16, String) {
        self.call("DELETE", path, "text/plain", "")
    }

    fn call(&mut self, method: &str, path: &str, kind: &str, body: &str) -> (u16, String) {
        self.send(method, path, kind, body);
        self.answer()
    }

    /// Sends a request, whose answer is still to be read.
    pub(crate) fn send(&mut self, method: &str, path: &str, kind: &str, body: &str) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.socket.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// The status and the body of the answer.
    pub(crate) fn answer(&mut self) -> (u16, String) {
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            let read = self.socket.read_line(&mut line).unwrap();
            assert!(read > 0, "hung up on");
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
