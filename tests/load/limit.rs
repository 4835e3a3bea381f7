//! The limit: a process that writes bytes to plain TCP sockets, from two threads, and does nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Tells this program to be the server.
pub(crate) const ARGUMENT: &str = "--limit-server";
const WRITERS: usize = 2;

/// Takes connections, and once told to, on the first, writes `bytes` to all others. Its port is the first
/// line of its output.
pub(crate) fn serve(bytes: usize) {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let (mut control, _) = listener.accept().unwrap();
    let mut count = [0; 8];
    control.read_exact(&mut count).unwrap();
    let count = usize::try_from(u64::from_be_bytes(count)).unwrap();
    let sockets: Vec<_> = (0..count).map(|_| listener.accept().unwrap().0).collect();
    for socket in &sockets {
        socket.set_nodelay(true).unwrap();
    }
    control.write_all(b"r").unwrap();
    control.read_exact(&mut [0]).unwrap();
    let message = vec![b'x'; bytes];
    std::thread::scope(|scope| {
        for share in sockets.chunks(count.div_ceil(WRITERS)) {
            let message = &message;
            scope.spawn(move || {
                for mut socket in share {
                    socket.write_all(message).unwrap();
                }
            });
        }
    });
    // Until the clients have read it all.
    let _ = control.read(&mut [0]);
}

/// How long it takes each of so many sockets to get so many bytes.
pub(crate) async fn measure(sockets: usize, bytes: usize) -> Vec<Duration> {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args([ARGUMENT, &bytes.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let address: SocketAddr = line.trim().parse().unwrap();

    let mut control = TcpStream::connect(address).await.unwrap();
    control
        .write_all(&u64::try_from(sockets).unwrap().to_be_bytes())
        .await
        .unwrap();
    let mut crowd = Vec::with_capacity(sockets);
    for _ in 0..sockets {
        crowd.push(TcpStream::connect(address).await.unwrap());
    }
    tokio::io::AsyncReadExt::read_exact(&mut control, &mut [0])
        .await
        .unwrap();
    let begun = Instant::now();
    let go = control.write_all(b"g");
    let (_, (_, times, _)) = tokio::join!(go, super::crowd::told(crowd, begun, Some(bytes)));
    drop(control);
    server.wait().unwrap();
    times
}
