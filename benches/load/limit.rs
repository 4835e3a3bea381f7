//! The limit of the machine: a process whose two threads write bytes to plain TCP sockets and do nothing else.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::GO_LIVES;
use super::clients::Clients;
use super::report::{Latencies, progress};
use super::wire::server_message;

/// Argument that starts this program as that server.
pub(crate) const ARGUMENT: &str = "--limit-server";
const WRITERS: usize = 2;

/// Accepts connections. When a byte arrives on the first one, writes a message of this size to all others. Prints
/// its address as the first line of output.
pub(crate) fn serve(bytes: usize) {
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
    let message = frame_of_size(bytes);
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
    // Wait until the clients have read everything.
    let _ = control.read(&mut [0]);
}

/// A WebSocket frame of this size that the clients count as the expected MESSAGE.
fn frame_of_size(bytes: usize) -> Vec<u8> {
    let head = if bytes < 128 { 2 } else { 4 };
    let text = format!("MESSAGE{}\0", "x".repeat(bytes - head - 8));
    server_message(&text)
}

/// Measurements of this run by number of sockets and bytes, so that each is made once.
#[derive(Default)]
pub(crate) struct Limit {
    measured: HashMap<(usize, usize), Latencies>,
}

impl Limit {
    /// Latencies of writing `bytes` to each of `sockets` plain sockets: the median of several runs.
    pub(crate) fn of(&mut self, sockets: usize, bytes: usize) -> Latencies {
        *self.measured.entry((sockets, bytes)).or_insert_with(|| {
            progress(format!("  limit: {bytes} bytes to {sockets} plain sockets"));
            Latencies::median((0..GO_LIVES).map(|_| measure(sockets, bytes)).collect())
        })
    }
}

fn measure(sockets: usize, bytes: usize) -> Latencies {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([ARGUMENT, &bytes.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut server = KilledOnDrop(child);
    let mut line = String::new();
    let output = server.0.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    let address: SocketAddr = line.trim().parse().unwrap();

    let mut control = TcpStream::connect(address).unwrap();
    control
        .write_all(&u64::try_from(sockets).unwrap().to_be_bytes())
        .unwrap();
    let mut clients = Clients::plain(address, sockets);
    clients.connect_all();
    control.read_exact(&mut [0]).unwrap();
    let (latencies, _) = clients.measure_delivery(|| control.write_all(b"g").unwrap());
    latencies
}

/// A child process that is killed on drop.
pub(crate) struct KilledOnDrop(pub(crate) Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
