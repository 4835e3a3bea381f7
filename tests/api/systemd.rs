//! usher under systemd: the inherited socket, notifications, reloads, the journal.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::SinkExt;
use reqwest::StatusCode;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

use crate::process::{Process, WAIT_TIMEOUT, free_address, usher, wait_for};
use crate::scripted::{Reply, Scripted};
use crate::stomp::{SECRET, sign, visitor, visitor_topic};

const FIRST: &str = "the-first-service-token-0123456789abcdef";
const SECOND: &str = "the-second-service-token-0123456789abcdef";

const UPSTREAM_SECRET: &str = "the-reservation-system-s-own-secret-0123456789";

/// The interval between two connections during restarts.
const EVERY: Duration = Duration::from_millis(50);

fn write(dir: &Path, text: &str) {
    fs::write(dir.join("config.toml"), text).unwrap();
}

fn read_log(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap()
}

/// Starts usher with a configuration; the log goes to a file.
fn start(dir: &Path, address: SocketAddr, more: &str) -> Process {
    write(dir, &format!("server.listen = \"{address}\"\n{more}"));
    let log = File::create(dir.join("log")).unwrap();
    Process::running(usher(dir).stderr(log).spawn().unwrap(), address)
}

/// Starts usher on a socket that this process keeps, as systemd does: descriptor 3, named in the environment.
fn start_on(dir: &Path, socket: &TcpListener) -> Process {
    let mut options = File::options();
    let log = options
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    let child = Command::new("bash")
        .args([
            "-c",
            "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" 3<&0 </dev/null",
            env!("CARGO_BIN_EXE_usher"),
        ])
        .current_dir(dir)
        .env_clear()
        .stdin(OwnedFd::from(socket.try_clone().unwrap()))
        .stderr(log)
        .spawn()
        .unwrap();
    Process::running(child, socket.local_addr().unwrap())
}

/// One request on its own connection.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WAIT_TIMEOUT))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn connections_made_during_restarts_are_answered_after_them() {
    let dir = TempDir::new().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // The socket takes precedence over the configuration.
    write(dir.path(), "server.listen = \"127.0.0.1:1\"\n");
    let mut process = start_on(dir.path(), &socket);
    let over = Arc::new(AtomicBool::new(false));
    let asked = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let mut asking = Vec::new();
            while !over.load(Ordering::Relaxed) {
                asking.push(std::thread::spawn(move || ask(address)));
                std::thread::sleep(EVERY);
            }
            asking
        })
    };
    for _ in 0..3 {
        std::thread::sleep(4 * EVERY);
        process.signal("-TERM");
        assert_eq!(process.wait(), Some(0));
        // Some connections are made while usher does not run.
        std::thread::sleep(4 * EVERY);
        process = start_on(dir.path(), &socket);
    }
    over.store(true, Ordering::Relaxed);
    let asking = asked.join().unwrap();
    assert!(asking.len() > 20, "{}", asking.len());
    for asked in asking {
        let answer = asked.join().unwrap().expect("no refusal, no reset");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
    drop(process);
}

#[test]
fn systemd_receives_notifications() {
    let dir = TempDir::new().unwrap();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    let receive = |what: &str| {
        let mut buffer = [0; 512];
        loop {
            let length = socket.recv(&mut buffer).expect(what);
            let state = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if state.contains(what) {
                return state;
            }
        }
    };
    let address = free_address();
    write(dir.path(), &format!("server.listen = \"{address}\"\n"));
    let child = usher(dir.path())
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .env("WATCHDOG_USEC", "600000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process::running(child, address);
    receive("READY=1");
    receive("WATCHDOG=1");
    receive("WATCHDOG=1");
    process.signal("-HUP");
    let reloading = receive("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    receive("READY=1");
    process.signal("-TERM");
    receive("STOPPING=1");
    assert_eq!(process.wait(), Some(0));
}

#[test]
fn reload_applies_tokens_keys_limits_and_log_level() {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    let process = start(
        dir.path(),
        address,
        &format!("auth.service.tokens = [\"{FIRST}\"]\n"),
    );
    let status = |token: &str| {
        let url = format!("http://{address}/api/v1/bookings");
        let answer = Process::client().get(url).bearer_auth(token).send();
        answer.unwrap().status()
    };
    assert_eq!(status(FIRST), StatusCode::OK);
    assert_eq!(status(SECOND), StatusCode::UNAUTHORIZED);
    write(
        dir.path(),
        &format!(
            "server.listen = \"{address}\"\nserver.max_connections = 17\nlog.level = \"debug\"\n\
             auth.service.tokens = [\"{SECOND}\"]\nqueue.max_per_token = 3\n"
        ),
    );
    process.signal("-HUP");
    wait_for("the reload", || {
        read_log(dir.path()).contains("was reloaded")
    });
    assert_eq!(status(SECOND), StatusCode::OK);
    assert_eq!(status(FIRST), StatusCode::UNAUTHORIZED);
    let log = read_log(dir.path());
    assert!(log.contains("server.max_connections"), "{log}");
    assert!(!log.contains("queue.max_per_token"), "{log}");
    drop(TcpStream::connect(address));
    ask(address).unwrap();
    wait_for("a line at the new level", || {
        let mut broken = TcpStream::connect(address).unwrap();
        let _ = broken.write_all(b"nonsense\r\n\r\n");
        read_log(dir.path()).contains("DEBUG")
    });
}

#[test]
fn invalid_configuration_is_refused_and_the_previous_one_stays() {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    let good = format!("auth.service.tokens = [\"{FIRST}\"]\n");
    let process = start(dir.path(), address, &good);
    write(
        dir.path(),
        "queue.state_interval = 15\nauth.service.tokens = [\"\"]\nlog.levle = \"info\"\n",
    );
    process.signal("-HUP");
    wait_for("the refusal", || {
        read_log(dir.path()).contains("was not reloaded")
    });
    let log = read_log(dir.path());
    for mistake in [
        "line 1: queue.state_interval",
        "line 2: auth.service.tokens",
        "line 3: log.levle",
    ] {
        assert!(log.contains(mistake), "{mistake}: {log}");
    }
    let url = format!("http://{address}/api/v1/bookings");
    let answer = Process::client()
        .get(url)
        .bearer_auth(FIRST)
        .send()
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let metrics = Process::client().get(format!("http://{address}/metrics"));
    let metrics = metrics.send().unwrap().text().unwrap();
    assert!(metrics.contains("usher_reload_successful 0"), "{metrics}");
    // Once corrected, it is applied.
    write(
        dir.path(),
        &format!("server.listen = \"{address}\"\n{good}"),
    );
    process.signal("-HUP");
    wait_for("the reload", || {
        read_log(dir.path()).contains("was reloaded")
    });
}

/// Requests `/ready` on a connection that was accepted before the stop; `None` if that was too late.
fn ask_while_it_stops() -> Option<String> {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    let process = start(dir.path(), address, "");
    let mut late = TcpStream::connect(address).unwrap();
    late.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    // Connections are accepted in order: once this one is answered, the other was accepted.
    ask(address).unwrap();
    process.signal("-TERM");
    wait_for("the stop", || read_log(dir.path()).contains("stopping"));
    let mut answer = String::new();
    let asked = late.write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n");
    let answered = asked.and_then(|()| late.read_to_string(&mut answer));
    assert_eq!(process.wait(), Some(0));
    answered.ok().filter(|length| *length > 0).map(|_| answer)
}

#[test]
fn connection_accepted_before_the_stop_gets_the_draining_response() {
    // usher waits half a second for a request; a busy machine may need another attempt.
    let answer = (0..10).find_map(|_| ask_while_it_stops());
    let answer = answer.expect("an answer in one of ten stops");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("\"check\":\"draining\""), "{answer}");
    assert!(answer.contains("shutting down"), "{answer}");
}

#[test]
fn lines_in_the_journal_begin_with_their_level() {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    write(dir.path(), &format!("server.listen = \"{address}\"\n"));
    let log_file = File::create(dir.path().join("log")).unwrap();
    let about = log_file.metadata().unwrap();
    let child = usher(dir.path())
        .env("JOURNAL_STREAM", format!("{}:{}", about.dev(), about.ino()))
        .stderr(log_file)
        .spawn()
        .unwrap();
    let process = Process::running(child, address);
    process.signal("-TERM");
    assert_eq!(process.wait(), Some(0));
    let log = read_log(dir.path());
    assert!(log.lines().count() >= 3, "{log}");
    assert!(log.contains("\n<6> INFO stopping"), "{log}");
    assert!(log.contains("<4> WARN no service token"), "{log}");
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
}

#[test]
fn log_contains_no_token_secret_or_password() {
    check_log_for_secrets("");
}

#[test]
fn log_contains_no_secret_of_a_reservation_system_or_key_server() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Both refuse, since refusals log most.
    let upstream = runtime.block_on(Scripted::start(|_| Reply::Raw(401, "no".to_owned())));
    let keys = runtime.block_on(Scripted::start(|_| Reply::Raw(404, "no".to_owned())));
    check_log_for_secrets(&format!(
        "auth.key_server = \"http://{}/\"\nreservations.backend = \"upstream\"\n\
         reservations.upstream.url = \"http://{}\"\n\
         reservations.upstream.headers.Authorization = \"Bearer {UPSTREAM_SECRET}\"\n",
        keys.address, upstream.address
    ));
    let requests = upstream.requests();
    let sent = requests[0].header("authorization").unwrap_or_default();
    assert!(sent.contains(UPSTREAM_SECRET), "{sent}");
    assert!(keys.requests().iter().any(|request| request.path != "/"));
}

/// Uses everything once, and searches the log for secrets.
fn check_log_for_secrets(more: &str) {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    let password = "hunter2-the-password";
    let config = format!(
        "log.level = \"trace\"\nauth.secret = \"{SECRET}\"\nauth.service.tokens = [\"{FIRST}\"]\n{more}"
    );
    let process = start(dir.path(), address, &config);
    let token = sign(&visitor("room"));
    let altered = format!("{token}x");
    // With a key that must be fetched: {"alg":"RS256","kid":"key-one","typ":"JWT"}.
    let (_, signed) = token.split_once('.').unwrap();
    let fetched = format!("eyJhbGciOiJSUzI1NiIsImtpZCI6ImtleS1vbmUiLCJ0eXAiOiJKV1QifQ.{signed}");
    let requests = use_everything(address, password, [&token, &altered, &fetched]);
    tokio::runtime::Runtime::new().unwrap().block_on(requests);
    // A secret under a wrong key is an error that does not repeat the value.
    write(
        dir.path(),
        &format!("auth.secrets = \"{SECRET}\"\nauth.service.tokens = \"{FIRST}\"\n"),
    );
    process.signal("-HUP");
    wait_for("the refusal", || {
        read_log(dir.path()).contains("was not reloaded")
    });
    process.signal("-TERM");
    assert_eq!(process.wait(), Some(0));
    let log = read_log(dir.path());
    assert!(
        log.contains("a session ended") && log.contains("decided"),
        "{log}"
    );
    assert!(
        log.contains("session{peer=127.0.0.1:") && log.contains("conference=\"room\"}"),
        "one span per session: {log}"
    );
    for secret in [
        FIRST,
        SECOND,
        SECRET,
        UPSTREAM_SECRET,
        password,
        &token,
        &altered,
        &fetched,
    ] {
        assert!(!log.contains(secret), "{secret} is in {log}");
    }
    for part in token.split('.') {
        assert!(!log.contains(part), "{part} is in {log}");
    }
}

/// Valid and invalid requests with tokens and passwords.
async fn use_everything(address: SocketAddr, password: &str, tokens: [&str; 3]) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let http = format!("http://{address}");
    let booking = serde_json::json!({ "room": "room", "password": password });
    let url = format!("{http}/api/v1/bookings");
    client
        .post(&url)
        .bearer_auth(FIRST)
        .json(&booking)
        .send()
        .await
        .unwrap();
    client
        .post(&url)
        .bearer_auth(FIRST)
        .body(booking.to_string())
        .send()
        .await
        .unwrap();
    client.get(&url).bearer_auth(SECOND).send().await.unwrap();
    let form = [
        ("name", "room"),
        ("start_time", "2026-11-21T22:21:26.000Z"),
        ("mail_owner", ""),
    ];
    client
        .post(format!("{http}/conference"))
        .bearer_auth(FIRST)
        .form(&form)
        .send()
        .await
        .unwrap();
    for token in tokens {
        let url = format!("ws://{address}/waiting-queue/visitor/websocket");
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let connect =
            format!("CONNECT\naccept-version:1.2\nhost:x\nAuthorization:Bearer {token}\n\n\0");
        socket.send(Message::text(connect)).await.unwrap();
        let _ = futures_util::StreamExt::next(&mut socket).await;
        let subscribe = format!(
            "SUBSCRIBE\nid:1\ndestination:{}\n\n\0",
            visitor_topic("room")
        );
        let _ = socket.send(Message::text(subscribe)).await;
        let _ = socket
            .send(Message::text(format!("NONSENSE\nx:{token}\n\n\0")))
            .await;
        let _ = futures_util::StreamExt::next(&mut socket).await;
    }
}
