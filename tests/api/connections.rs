//! Connections that take room and give nothing: silent, slow, unread, too many. And requests at the edge of HTTP.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::TOKEN;
use crate::nginx::Nginx;
use crate::process::{Process, free_address, wait_for, write_config};

const PATIENCE: Duration = Duration::from_secs(20);
const HANDSHAKE: &str = "GET /waiting-queue/visitor/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn start(dir: &TempDir, server: &str) -> Process {
    Process::start_everywhere(dir.path(), server)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The answer to a request on a connection of its own.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    read(&mut stream)
}

fn read(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(room: &str) -> String {
    let body = format!("name={room}&start_time=2026-11-21T22:21:26.000Z&mail_owner=");
    format!(
        "POST /conference HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A value of `/metrics`.
fn metric(address: SocketAddr, name: &str) -> u64 {
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = ask(address, request);
    let line = answer.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name}: {answer}"));
    value.trim().parse().unwrap()
}

fn bound(address: SocketAddr, name: &str) -> u64 {
    metric(
        address,
        &format!("usher_bounds_met_total{{bound=\"{name}\"}}"),
    )
}

/// The lines of the log about a bound.
fn lines(dir: &TempDir, bound: &str) -> usize {
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    log.lines()
        .filter(|line| line.contains(&format!("bound=\"{bound}\"")))
        .count()
}

#[test]
fn silent_connections_keep_no_request_and_no_visitor_out() {
    let dir = TempDir::new().unwrap();
    let process = start(&dir, "max_connections = 150");
    let address = process.address();
    let mut silent: Vec<_> = (0..300).map(|_| connect(address)).collect();
    // Half a head is as silent.
    for stream in silent.iter_mut().skip(200) {
        let _ = stream.write_all(b"GET /health HTT");
    }
    for n in 0..3 {
        let begun = Instant::now();
        let answer = ask(address, &post(&format!("room{n}")));
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        println!("answered in {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(15));
    }
    let mut visitor = connect(address);
    visitor.write_all(HANDSHAKE.as_bytes()).unwrap();
    let mut head = [0; 12];
    visitor.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    assert!(bound(address, "requests") > 100);
    assert_eq!(lines(&dir, "requests"), 1);
}

#[test]
fn connections_of_one_address_are_bounded() {
    // An address of this machine beside the loopback, which stands for proxies and is not limited.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr());
    let Some(own) = own.ok().map(|own| own.ip()).filter(|ip| !ip.is_loopback()) else {
        println!("skipped: this machine has no address but the loopback");
        return;
    };
    let dir = TempDir::new().unwrap();
    let process = start(&dir, "max_per_address = 10");
    let port = process.address().port();
    let outside = SocketAddr::new(own, port);
    let silent: Vec<_> = (0..10).map(|_| connect(outside)).collect();
    let begun = Instant::now();
    let mut refused = connect(outside);
    assert_eq!(read(&mut refused), "");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let local = SocketAddr::new([127, 0, 0, 1].into(), port);
    assert!(ask(local, &post("room")).starts_with("HTTP/1.1 201"));
    assert!(bound(local, "requests_of_address") >= 1);
    assert_eq!(lines(&dir, "requests_of_address"), 1);
    drop(silent);
    wait_for("a connection of the address", || {
        ask(outside, &post("another")).starts_with("HTTP/1.1 201")
    });
}

#[test]
fn silent_and_unread_connections_end_in_time() {
    let dir = TempDir::new().unwrap();
    let process = start(&dir, "");
    let address = process.address();
    let begun = Instant::now();
    let mut silent = connect(address);
    let mut unread = connect(address);
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    unread.set_nonblocking(true).unwrap();
    let mut blocked = 0;
    while blocked < 50 {
        if unread.write(request.as_bytes()).is_err() {
            blocked += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(read(&mut silent), "");
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(9) && took < Duration::from_secs(50),
        "{took:?}"
    );
    assert!(bound(address, "head") >= 1);
    wait_for("the unread connection's end", || {
        bound(address, "write") >= 1
    });
}

#[test]
fn client_that_closes_its_side_after_the_request_gets_the_answer() {
    let dir = TempDir::new().unwrap();
    let process = start(&dir, "");
    for n in 0..20 {
        let mut stream = connect(process.address());
        stream
            .write_all(post(&format!("room{n}")).as_bytes())
            .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let answer = read(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 201"), "{n}: {answer:?}");
    }
}

#[test]
fn slow_body_without_a_token_holds_no_connection() {
    let dir = TempDir::new().unwrap();
    let process = start(&dir, "");
    for line in [
        "GET /health",
        "GET /waiting-queue/visitor",
        "POST /conference",
    ] {
        let begun = Instant::now();
        let request =
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nslow");
        let answer = ask(process.address(), &request);
        assert!(answer.starts_with("HTTP/1.1 "), "{line}: {answer:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{line}: {:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn slow_bodies_through_nginx_keep_no_request_and_no_visitor_out() {
    let dir = TempDir::new().unwrap();
    let process = start(&dir, "max_connections = 150");
    let address = process.address();
    let Some(nginx) = Nginx::start(dir.path(), address) else {
        println!("skipped: nginx isn't installed");
        return;
    };
    let head = "POST /waiting-queue/golive HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Content-Length: 60000\r\n\r\n{";
    let mut slow: Vec<_> = (0..300).map(|_| connect(nginx.address)).collect();
    for stream in &mut slow {
        stream.write_all(head.as_bytes()).unwrap();
    }
    let begun = Instant::now();
    assert!(ask(address, &post("room")).starts_with("HTTP/1.1 201"));
    let mut visitor = connect(nginx.address);
    visitor.write_all(HANDSHAKE.as_bytes()).unwrap();
    let mut status = [0; 12];
    visitor.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn second_authorization_header_is_refused() {
    let dir = TempDir::new().unwrap();
    let process = start(&dir, "");
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    for (first, second) in [(&*good, &*good), (&good, "Authorization: Bearer x\r\n")] {
        let request = format!(
            "GET /api/v1/bookings HTTP/1.1\r\nHost: localhost\r\n{first}{second}Connection: close\r\n\r\n"
        );
        let answer = ask(process.address(), &request);
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("Authorization"), "{answer}");
    }
}

#[test]
fn heads_have_at_most_16_kib() {
    let dir = TempDir::new().unwrap();
    let process = start(&dir, "");
    let status = |length: usize| {
        let filler = "x".repeat(length);
        let request = format!(
            "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: {filler}\r\n\r\n"
        );
        let answer = ask(process.address(), &request);
        answer.get(9..12).map(str::to_owned)
    };
    assert_eq!(status(15_000).as_deref(), Some("200"));
    assert_eq!(status(17_000).as_deref(), Some("431"));
}

#[test]
fn few_file_descriptors_lower_the_number_of_connections() {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    write_config(dir.path(), address, &dir.path().join("usher.db"));
    let child = limited(dir.path(), "ulimit -n 100").spawn().unwrap();
    let process = Process::running(child, address);
    let max = metric(address, "usher_connections_max");
    assert!((10..100).contains(&max), "{max}");
    let _silent: Vec<_> = (0..150).map(|_| connect(address)).collect();
    for n in 0..3 {
        let begun = Instant::now();
        let answer = ask(address, &post(&format!("room{n}")));
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "{:?}",
            begun.elapsed()
        );
    }
    process.signal("-TERM");
    process.wait();
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(
        log.matches("limit of open files is too low").count(),
        1,
        "{log}"
    );
    assert!(!log.contains("could not be accepted"), "{log}");
}

#[test]
fn limit_of_file_sizes_is_like_a_full_disk() {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    write_config(dir.path(), address, &dir.path().join("usher.db"));
    let child = limited(dir.path(), "ulimit -f 1000").spawn().unwrap();
    let process = Process::running(child, address);
    let refused = (0..500).any(|n| process.open(&format!("room{n}")).0 == 503);
    assert!(refused, "no write met the limit");
    assert_eq!(process.get("/health").0, 200);
    process.signal("-TERM");
    assert_eq!(process.wait(), Some(0));
}

/// usher under a limit of its shell.
fn limited(dir: &Path, limit: &str) -> Command {
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut command = Command::new("bash");
    let script = format!("{limit} && exec \"$0\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_usher")]);
    command.current_dir(dir).env_clear().stderr(log);
    command
}
