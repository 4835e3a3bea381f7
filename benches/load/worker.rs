//! A worker process that runs many clients. Each request is a line of JSON on its standard input, each reply a
//! line of JSON on its standard output. Between requests the clients send heart-beats and read.
//!
//! There are several processes because each is limited in open files. A process has one thread and one task per
//! client, which leaves most of the machine to the server.

use std::cell::RefCell;
use std::io::BufRead;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet, LocalSet};

use super::wire::{HEART_BEAT, ReadBuffer, client_message, handshake};

/// Argument that starts this program as a worker.
pub(crate) const ARGUMENT: &str = "--worker";
/// Connections that one worker sets up at the same time.
const CONCURRENT_SET_UPS: usize = 32;
/// Each client sends a heart-beat once in this number of ticks: every ten seconds.
const HEART_BEAT_TICKS: usize = 100;
const HEART_BEAT_TICK: Duration = Duration::from_millis(100);
/// Time-out for the delivery of a message to all waiting clients.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);
/// Connections per local address. The port is chosen here because the kernel's search for a free port is slow
/// when many ports are in TIME_WAIT.
const PER_ADDRESS: u16 = 4_000;
const FIRST_PORT: u16 = 20_000;
/// Other ports that are tried when another process uses a port.
const OTHER_PORTS: u16 = 4;
/// Receive buffer of clients that do not read.
const SMALL_BUFFER: u32 = 4_096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A visitor who waits until its conference is live.
    Waiting,
    /// A moderator who subscribes to the number of waiting visitors.
    Watching,
    /// A visitor who waits and does not read.
    NotReading,
}

/// A client that can connect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// Path of the WebSocket. `None` is a plain TCP connection.
    pub(crate) path: Option<String>,
    /// STOMP frames of the set-up. Each requires a response.
    pub(crate) frames: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Adds clients. They do not connect yet.
    Add(Vec<Client>),
    /// Connects all of the first `count` clients that are not connected.
    Connect { count: usize },
    /// Discards the recorded deliveries.
    ResetDeliveries,
    /// Replies when all waiting clients have received a message.
    AwaitDeliveries,
    /// Disconnects every `nth` client, starting at index `first`, with a reset or a close.
    Disconnect {
        nth: usize,
        first: usize,
        reset: bool,
    },
    /// Clients that do not read request responses until the connection accepts no more bytes.
    Flood,
    /// Returns what the watching clients have received.
    Updates,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    /// The time of each delivery in microseconds since the epoch, and the size of the message.
    Deliveries {
        at: Vec<u64>,
        bytes: usize,
    },
    /// Number of messages and last body of each watching client.
    Updates(Vec<(usize, String)>),
    Failed(String),
}

/// Microseconds since the epoch: a clock that all processes share.
pub(crate) fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

/// A connected client.
struct Connection {
    socket: Rc<TcpStream>,
    reader: Option<AbortHandle>,
    /// The last frame may be incomplete, so no heart-beat may follow it.
    flooded: bool,
}

/// What all clients of this worker have received.
#[derive(Default)]
struct Received {
    delivered_at: Vec<u64>,
    bytes: usize,
    updates: Vec<(usize, String)>,
    /// Connections that the server closed.
    lost: usize,
}

#[derive(Default)]
struct Recorder {
    received: RefCell<Received>,
    changed: Notify,
}

type Connections = Rc<RefCell<Vec<Option<Connection>>>>;

struct Worker {
    number: u8,
    clients: Vec<Client>,
    connections: Connections,
    recorder: Rc<Recorder>,
    /// Connections opened so far; selects the next local address and port.
    opened: usize,
}

/// Runs until the input ends.
pub(crate) fn serve(number: u8) {
    let (requests, mut input) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let request: Request = serde_json::from_str(&line.unwrap()).unwrap();
            requests.send(request).unwrap();
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut worker = Worker {
        number,
        clients: Vec::new(),
        connections: Rc::default(),
        recorder: Rc::default(),
        opened: 0,
    };
    LocalSet::new().block_on(&runtime, async {
        tokio::task::spawn_local(send_heart_beats(Rc::clone(&worker.connections)));
        while let Some(request) = input.recv().await {
            let reply = worker
                .handle(request)
                .await
                .unwrap_or_else(|error| Reply::Failed(error.to_string()));
            println!("{}", serde_json::to_string(&reply).unwrap());
        }
    });
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

impl Worker {
    async fn handle(&mut self, request: Request) -> Result<Reply> {
        let reply = match request {
            Request::Add(clients) => {
                self.clients.extend(clients);
                Reply::Done
            }
            Request::Connect { count } => {
                self.connect(count).await?;
                Reply::Done
            }
            Request::ResetDeliveries => {
                let mut received = self.recorder.received.borrow_mut();
                (received.delivered_at, received.bytes) = (Vec::new(), 0);
                Reply::Done
            }
            Request::AwaitDeliveries => self.await_deliveries().await?,
            Request::Disconnect { nth, first, reset } => {
                let mut connections = self.connections.borrow_mut();
                for connection in connections.iter_mut().skip(first).step_by(nth) {
                    disconnect(connection, reset)?;
                }
                Reply::Done
            }
            Request::Flood => {
                self.flood();
                Reply::Done
            }
            Request::Updates => Reply::Updates(self.recorder.received.borrow().updates.clone()),
        };
        match self.recorder.received.borrow().lost {
            0 => Ok(reply),
            lost => Err(format!("the server closed {lost} connections").into()),
        }
    }

    async fn connect(&mut self, count: usize) -> Result<()> {
        self.connections.borrow_mut().resize_with(count, || None);
        let mut set_ups = JoinSet::new();
        for index in 0..count {
            if self.connections.borrow()[index].is_some() {
                continue;
            }
            if set_ups.len() >= CONCURRENT_SET_UPS {
                self.add(set_ups.join_next().await.unwrap()??);
            }
            let host = u8::try_from(self.opened / usize::from(PER_ADDRESS) % 200).unwrap();
            let port = FIRST_PORT + u16::try_from(self.opened % usize::from(PER_ADDRESS)).unwrap();
            let from = SocketAddr::from(([127, 0, self.number + 1, host + 1], port));
            self.opened += 1;
            let client = self.clients[index].clone();
            set_ups.spawn_local(async move { set_up(client, from).await.map(|up| (index, up)) });
        }
        while let Some(connected) = set_ups.join_next().await {
            self.add(connected??);
        }
        Ok(())
    }

    fn add(&mut self, (index, (socket, buffer)): (usize, (TcpStream, ReadBuffer))) {
        let socket = Rc::new(socket);
        let kind = self.clients[index].kind;
        let reader = (kind != Kind::NotReading).then(|| {
            let (socket, recorder) = (Rc::clone(&socket), Rc::clone(&self.recorder));
            tokio::task::spawn_local(read_messages(socket, buffer, kind, recorder)).abort_handle()
        });
        self.connections.borrow_mut()[index] = Some(Connection {
            socket,
            reader,
            flooded: false,
        });
    }

    async fn await_deliveries(&self) -> Result<Reply> {
        let waiting = self
            .connections
            .borrow()
            .iter()
            .zip(&self.clients)
            .filter(|(connection, client)| connection.is_some() && client.kind == Kind::Waiting)
            .count();
        let all = async {
            while self.recorder.received.borrow().delivered_at.len() < waiting {
                self.recorder.changed.notified().await;
            }
        };
        let in_time = tokio::time::timeout(DELIVERY_TIMEOUT, all).await.is_ok();
        let mut received = self.recorder.received.borrow_mut();
        let at = std::mem::take(&mut received.delivered_at);
        if !in_time {
            return Err(format!("{} of {waiting} clients received a message", at.len()).into());
        }
        let bytes = received.bytes;
        Ok(Reply::Deliveries { at, bytes })
    }

    /// Uses receipts, which a client may request without a limit.
    fn flood(&self) {
        let receipt = client_message(&format!("ACK\nid:x\nreceipt:{}\n\n\0", "r".repeat(180)));
        let mut connections = self.connections.borrow_mut();
        for (connection, client) in connections.iter_mut().zip(&self.clients) {
            let not_reading = client.kind == Kind::NotReading;
            let Some(connection) = connection.as_mut().filter(|_| not_reading) else {
                continue;
            };
            connection.flooded = true;
            for _ in 0..2_000 {
                if !matches!(connection.socket.try_write(&receipt), Ok(n) if n == receipt.len()) {
                    break;
                }
            }
        }
    }
}

fn disconnect(connection: &mut Option<Connection>, reset: bool) -> Result<()> {
    let Some(Connection { socket, reader, .. }) = connection.take() else {
        return Ok(());
    };
    if let Some(reader) = reader {
        reader.abort();
    }
    if reset {
        socket.set_zero_linger()?;
    }
    Ok(())
}

/// Connects and sends the frames of the set-up, each after the response to the one before.
async fn set_up(client: Client, from: SocketAddr) -> Result<(TcpStream, ReadBuffer)> {
    let socket = TcpSocket::new_v4()?;
    // Allows ports of closed connections.
    socket.set_reuseaddr(true)?;
    if client.kind == Kind::NotReading {
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
    }
    bind(&socket, from)?;
    let mut socket = socket.connect(client.address).await?;
    socket.set_nodelay(true)?;
    let mut buffer = ReadBuffer::default();
    let Some(path) = client.path else {
        return Ok((socket, buffer));
    };
    socket
        .write_all(handshake(client.address, &path).as_bytes())
        .await?;
    let header = loop {
        if let Some(header) = buffer.take_http_header() {
            break header;
        }
        read(&mut socket, &mut buffer).await?;
    };
    if !header.starts_with("HTTP/1.1 101") {
        return Err(header.into());
    }
    for frame in client.frames {
        socket.write_all(&client_message(&frame)).await?;
        loop {
            match buffer.take_frame() {
                Some((payload, _)) if payload.starts_with(b"ERROR") => {
                    return Err(String::from_utf8_lossy(&payload).into());
                }
                Some((payload, _)) if payload.contains(&0) => break,
                Some(_) => {}
                None => read(&mut socket, &mut buffer).await?,
            }
        }
    }
    Ok((socket, buffer))
}

fn bind(socket: &TcpSocket, mut from: SocketAddr) -> Result<()> {
    for _ in 0..OTHER_PORTS {
        if socket.bind(from).is_ok() {
            return Ok(());
        }
        from.set_port(from.port() + PER_ADDRESS);
    }
    Ok(socket.bind(from)?)
}

async fn read(socket: &mut TcpStream, buffer: &mut ReadBuffer) -> Result<()> {
    let mut bytes = [0; 2048];
    match socket.read(&mut bytes).await? {
        0 => Err("the server closed the connection during the set-up".into()),
        n => {
            buffer.push(&bytes[..n]);
            Ok(())
        }
    }
}

/// Reads and records the messages of one client until the connection ends.
async fn read_messages(
    socket: Rc<TcpStream>,
    mut buffer: ReadBuffer,
    kind: Kind,
    recorder: Rc<Recorder>,
) {
    let mut bytes = [0; 2048];
    let mut index = None;
    loop {
        while let Some((payload, size)) = buffer.take_frame() {
            if !payload.starts_with(b"MESSAGE") {
                continue;
            }
            let mut received = recorder.received.borrow_mut();
            if kind == Kind::Waiting {
                received.delivered_at.push(now_micros());
                received.bytes = received.bytes.max(size);
                recorder.changed.notify_one();
            } else {
                let index = *index.get_or_insert_with(|| {
                    received.updates.push((0, String::new()));
                    received.updates.len() - 1
                });
                let text = String::from_utf8_lossy(&payload);
                let body = text.split_once("\n\n").map_or("", |(_, body)| body);
                let update = &mut received.updates[index];
                *update = (update.0 + 1, body.trim_end_matches(['\0', '\n']).to_owned());
            }
        }
        if socket.readable().await.is_err() {
            break;
        }
        match socket.try_read(&mut bytes) {
            Ok(n) if n > 0 => buffer.push(&bytes[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => break,
        }
    }
    // A disconnect by the client aborts this task earlier.
    recorder.received.borrow_mut().lost += 1;
    recorder.changed.notify_one();
}

/// Sends the heart-beats of all clients, spread over the interval.
async fn send_heart_beats(connections: Connections) {
    let mut ticks = tokio::time::interval(HEART_BEAT_TICK);
    for tick in 0.. {
        ticks.tick().await;
        let connections = connections.borrow();
        let due = connections
            .iter()
            .skip(tick % HEART_BEAT_TICKS)
            .step_by(HEART_BEAT_TICKS);
        for connection in due.flatten().filter(|connection| !connection.flooded) {
            // The reader detects a closed connection. A full buffer already shows the server activity.
            let _ = connection.socket.try_write(&HEART_BEAT);
        }
    }
}
