//! The limit: a process that writes bytes to plain TCP sockets, from two threads, and does nothing else.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::GO_LIVES;
use super::crowd::Crowd;
use super::report::{Spread, progress};
use super::wire::unmasked;

/// Tells this program to be the server.
pub(crate) const ARGUMENT: &str = "--limit-server";
const WRITERS: usize = 2;

/// Takes connections, and once told to, on the first, writes a message of so many bytes to all others. Its
/// address is the first line of its output.
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
    let message = framed(bytes);
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

/// A frame of so many bytes that the clients take for what they wait for.
fn framed(bytes: usize) -> Vec<u8> {
    let head = if bytes < 128 { 2 } else { 4 };
    let text = format!("MESSAGE{}\0", "x".repeat(bytes - head - 8));
    unmasked(&text)
}

/// What was measured in this run, by sockets and bytes.
#[derive(Default)]
pub(crate) struct Limit {
    known: HashMap<(usize, usize), Spread>,
}

impl Limit {
    /// How long it takes each of so many sockets to get so many bytes: the run in the middle of several.
    pub(crate) fn of(&mut self, sockets: usize, bytes: usize) -> Spread {
        *self.known.entry((sockets, bytes)).or_insert_with(|| {
            progress(format!(
                "  the limit: {bytes} bytes to {sockets} plain sockets"
            ));
            Spread::median((0..GO_LIVES).map(|_| measure(sockets, bytes)).collect())
        })
    }
}

fn measure(sockets: usize, bytes: usize) -> Spread {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([ARGUMENT, &bytes.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut server = Ended(child);
    let mut line = String::new();
    let output = server.0.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    let address: SocketAddr = line.trim().parse().unwrap();

    let mut control = TcpStream::connect(address).unwrap();
    control
        .write_all(&u64::try_from(sockets).unwrap().to_be_bytes())
        .unwrap();
    let mut crowd = Crowd::plain(address, sockets);
    crowd.come();
    control.read_exact(&mut [0]).unwrap();
    let (spread, _) = crowd.told(|| control.write_all(b"g").unwrap());
    spread
}

/// A process that ends with this.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
