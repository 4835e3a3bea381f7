//! POST /conference and systemd's watchdog while hostile WebSockets send as much as they can.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Run;
use super::http::HttpClient;
use super::limit::KilledOnDrop;
use super::report::{Latencies, progress};
use super::server::{Server, scratch};
use super::tokens::{Signer, visitors};
use super::wire::{HEART_BEAT, client_message, handshake};

/// Argument that starts this program as the flooding clients.
pub(crate) const ARGUMENT: &str = "--flood";
const MEASURED: Duration = Duration::from_secs(10);
/// Until all sockets flood.
const BEGIN: Duration = Duration::from_secs(1);
/// Pause of a client between two connections, if the server closes them.
const RECONNECT: Duration = Duration::from_millis(100);
/// Pause between two POSTs.
const POST_PAUSE: Duration = Duration::from_millis(10);
/// Frames in one write.
const FRAMES: usize = 300;
/// usher notifies the watchdog three times in this time.
const WATCHDOG_MICROS: &str = "1500000";
const PING: [u8; 7] = [0x89, 0x81, 0, 0, 0, 0, b'x'];
/// An empty fragment of a message that never ends.
const FRAGMENT: [u8; 6] = [0x00, 0x80, 0, 0, 0, 0];
/// The sockets of the rows with targets.
const SOCKETS: usize = 64;

/// What the sockets send: its name, and the number of sockets.
const FLOODS: &[(&str, usize)] = &[
    ("ping", 16),
    ("ping", SOCKETS),
    ("ping", 400),
    ("fragment", SOCKETS),
    ("heart-beat", SOCKETS),
    ("subscribe", SOCKETS),
    ("request", SOCKETS),
];

pub(crate) fn floods(run: &mut Run) {
    for (kind, sockets) in FLOODS {
        progress(format!("  {sockets} sockets, {kind}"));
        let (posts, gap) = measure(kind, *sockets);
        let report = &mut run.report;
        let label = format!("{sockets} sockets flood ({kind}): POST /conference,");
        if *sockets == SOCKETS {
            report.at_most(&format!("{label} median"), posts.median_ms, 100.0, "ms");
            report.at_most(&format!("{label} last"), posts.max_ms, 500.0, "ms");
        } else {
            report.row(&format!("{label} median; 99 %; last"), &posts.to_string());
        }
        let label = format!("{sockets} sockets flood ({kind}): largest gap of the watchdog");
        report.at_most(&label, gap.as_secs_f64(), 5.0, "s");
        report.record(
            &format!("flood_{kind}_{sockets}"),
            json!({ "post_ms": posts.json(), "watchdog_gap_s": gap.as_secs_f64() }),
        );
    }
}

/// Latencies of POST /conference, and the longest time without a notification of the watchdog.
fn measure(kind: &str, sockets: usize) -> (Latencies, Duration) {
    let dir = scratch();
    let notify = dir.path().join("notify");
    let watchdog = UnixDatagram::bind(&notify).unwrap();
    watchdog.set_nonblocking(true).unwrap();
    let server = Server::start_watched(&notify, WATCHDOG_MICROS);
    let flood = Command::new(std::env::current_exe().unwrap())
        .args([ARGUMENT, &format!("{kind},{sockets},{}", server.address)])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let flood = KilledOnDrop(flood);
    std::thread::sleep(BEGIN);
    let mut http = HttpClient::new(server.address);
    let (start, mut times) = (Instant::now(), Vec::new());
    let (mut beat_at, mut gap) = (start, Duration::ZERO);
    let mut buffer = [0; 4096];
    while start.elapsed() < MEASURED {
        let sent_at = Instant::now();
        let now = chrono::DateTime::<chrono::Utc>::from(SystemTime::now());
        let form = format!(
            "name=flood{}&start_time={}&mail_owner=",
            times.len(),
            now.format("%Y-%m-%dT%H%%3A%M%%3A%S%.3fZ")
        );
        let (status, body) = http.post_form("/conference", &form);
        assert!((200..300).contains(&status), "{status}: {body}");
        times.push(sent_at.elapsed());
        while let Ok(read) = watchdog.recv(&mut buffer) {
            if buffer[..read].starts_with(b"WATCHDOG=1") {
                gap = gap.max(beat_at.elapsed());
                beat_at = Instant::now();
            }
        }
        std::thread::sleep(POST_PAUSE);
    }
    drop(flood);
    (Latencies::of(times), gap.max(beat_at.elapsed()))
}

/// Floods until the process is killed. `value` is the kind, the number of sockets and the address.
pub(crate) fn serve(value: &str) {
    let parts: Vec<&str> = value.split(',').collect();
    let [kind, sockets, address] = parts[..] else {
        panic!("{value}")
    };
    let (sockets, address): (usize, SocketAddr) =
        (sockets.parse().unwrap(), address.parse().unwrap());
    let clients = visitors(address, "flooded", sockets, &Signer::SharedSecret);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for client in clients {
            let (first, chunk) = bytes(kind, address, &client.frames[0]);
            tokio::spawn(async move {
                loop {
                    let _ = flood(address, &first, &chunk).await;
                    tokio::time::sleep(RECONNECT).await;
                }
            });
        }
        std::future::pending::<()>().await;
    });
}

/// What a socket sends first, and then again and again.
fn bytes(kind: &str, address: SocketAddr, connect: &str) -> (Vec<u8>, Vec<u8>) {
    let upgrade = |first: &[u8]| {
        let mut bytes = handshake(address, "/waiting-queue/visitor/websocket").into_bytes();
        bytes.extend(first);
        bytes
    };
    match kind {
        "ping" => (upgrade(&[]), PING.repeat(FRAMES)),
        "fragment" => (upgrade(&[0x01, 0x80, 0, 0, 0, 0]), FRAGMENT.repeat(FRAMES)),
        "heart-beat" => (upgrade(&client_message(connect)), HEART_BEAT.repeat(FRAMES)),
        "request" => {
            let request = format!("GET /conference/1 HTTP/1.1\r\nHost: {address}\r\n\r\n");
            (Vec::new(), request.into_bytes().repeat(FRAMES / 10))
        }
        "subscribe" => {
            let topic = "/secured/conference/visitor/topic.flooded@conference.meet.example.com";
            let pair = [
                client_message(&format!("SUBSCRIBE\nid:1\ndestination:{topic}\n\n\0")),
                client_message("UNSUBSCRIBE\nid:1\nreceipt:r\n\n\0"),
            ];
            (
                upgrade(&client_message(connect)),
                pair.concat().repeat(FRAMES / 10),
            )
        }
        other => panic!("unknown flood {other:?}"),
    }
}

/// One connection, until the server closes it.
async fn flood(address: SocketAddr, first: &[u8], chunk: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(first).await?;
    let (mut reader, mut writer) = stream.into_split();
    let mut buffer = [0; 16_384];
    tokio::select! {
        ended = async { while reader.read(&mut buffer).await? > 0 {} Ok(()) } => ended,
        ended = async { loop { writer.write_all(chunk).await?; } } => ended,
    }
}
