//! A process full of visitors. It does what it is ordered to, a line of JSON on its input each, and answers
//! with a line of JSON; between orders its visitors keep their heart-beats and listen.
//!
//! Processes, because each may open only so many files; one thread and one task per visitor, because the
//! server is to have the rest of the machine.

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

use super::wire::{BEAT, Inbox, handshake, message};

/// Tells this program to be a worker.
pub(crate) const ARGUMENT: &str = "--worker";
/// How many set-ups of one worker are under way at a time.
const AT_A_TIME: usize = 32;
/// Each visitor sends a heart-beat once in so many ticks of such a length: every ten seconds.
const BEAT_TICKS: usize = 100;
const BEAT_TICK: Duration = Duration::from_millis(100);
/// How long everybody may take to be told.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many connections have one address. Each has a port of its own, chosen here: a search by the kernel takes
/// longer than all the rest once ports of former connections wait to be forgotten.
const PER_ADDRESS: u16 = 4_000;
const FIRST_PORT: u16 = 20_000;
/// How many other ports are tried where one is somebody else's.
const OTHER_PORTS: u16 = 4;
/// The receive buffer of those who don't read.
const DEAF_BUFFER: u32 = 4_096;

/// What somebody comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Waits until told.
    Waits,
    /// Is told, again and again, how many wait.
    Watches,
    /// Waits, and after that reads nothing any more.
    Deaf,
}

/// One who is to come: where to, and what they say, a message at a time, each of which is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Visitor {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// Without one, it is a plain connection.
    pub(crate) path: Option<String>,
    pub(crate) says: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// These may come, beside those who may already.
    Prepare(Vec<Visitor>),
    /// Whoever of the first `to` is not there comes.
    Come { to: usize },
    /// Forget what was told so far, and listen.
    Listen,
    /// Answer once all who wait have been told.
    Told,
    /// Every `nth` of those who are there leaves, beginning with one of the first; with a reset or in order.
    Leave {
        nth: usize,
        first: usize,
        reset: bool,
    },
    /// The deaf ask for answers until nothing more goes through.
    Stuff,
    /// What do those who watch know?
    Watched,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    /// When each was told, in microseconds since the epoch, and how many bytes the message had.
    Told {
        at: Vec<u64>,
        bytes: usize,
    },
    /// How many messages came, and what the last one said, of each who watches.
    Watched(Vec<(usize, String)>),
    Failed(String),
}

/// Microseconds since the epoch: a clock that all processes share.
pub(crate) fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

/// One who is there.
struct Seat {
    socket: Rc<TcpStream>,
    ear: Option<AbortHandle>,
    /// Half a frame may be under way: no heart-beat fits in there.
    stuffed: bool,
}

/// What was heard by all of them.
#[derive(Default)]
struct Heard {
    told_at: Vec<u64>,
    bytes: usize,
    watched: Vec<(usize, String)>,
    /// Hung up on without having left.
    lost: usize,
}

#[derive(Default)]
struct Ears {
    heard: RefCell<Heard>,
    news: Notify,
}

struct Worker {
    number: u8,
    visitors: Vec<Visitor>,
    seats: Rc<RefCell<Vec<Option<Seat>>>>,
    ears: Rc<Ears>,
    /// Connections made so far; addresses take turns.
    made: usize,
}

/// Runs until the input ends.
pub(crate) fn serve(number: u8) {
    let (orders, mut input) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let order: Order = serde_json::from_str(&line.unwrap()).unwrap();
            orders.send(order).unwrap();
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut worker = Worker {
        number,
        visitors: Vec::new(),
        seats: Rc::default(),
        ears: Rc::default(),
        made: 0,
    };
    LocalSet::new().block_on(&runtime, async {
        tokio::task::spawn_local(beat(Rc::clone(&worker.seats)));
        while let Some(order) = input.recv().await {
            let reply = worker
                .obey(order)
                .await
                .unwrap_or_else(|error| Reply::Failed(error.to_string()));
            println!("{}", serde_json::to_string(&reply).unwrap());
        }
    });
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

impl Worker {
    async fn obey(&mut self, order: Order) -> Result<Reply> {
        let reply = match order {
            Order::Prepare(visitors) => {
                self.visitors.extend(visitors);
                Reply::Done
            }
            Order::Come { to } => {
                self.come(to).await?;
                Reply::Done
            }
            Order::Listen => {
                let mut heard = self.ears.heard.borrow_mut();
                (heard.told_at, heard.bytes) = (Vec::new(), 0);
                Reply::Done
            }
            Order::Told => self.told().await?,
            Order::Leave { nth, first, reset } => {
                for seat in self.seats.borrow_mut().iter_mut().skip(first).step_by(nth) {
                    leave(seat, reset)?;
                }
                Reply::Done
            }
            Order::Stuff => {
                self.stuff();
                Reply::Done
            }
            Order::Watched => Reply::Watched(self.ears.heard.borrow().watched.clone()),
        };
        match self.ears.heard.borrow().lost {
            0 => Ok(reply),
            lost => Err(format!("{lost} were hung up on").into()),
        }
    }

    async fn come(&mut self, to: usize) -> Result<()> {
        self.seats.borrow_mut().resize_with(to, || None);
        let mut coming = JoinSet::new();
        for place in 0..to {
            if self.seats.borrow()[place].is_some() {
                continue;
            }
            if coming.len() >= AT_A_TIME {
                self.seat(coming.join_next().await.unwrap()??);
            }
            let turn = u8::try_from(self.made / usize::from(PER_ADDRESS) % 200).unwrap();
            let port = FIRST_PORT + u16::try_from(self.made % usize::from(PER_ADDRESS)).unwrap();
            let from = SocketAddr::from(([127, 0, self.number + 1, turn + 1], port));
            self.made += 1;
            let visitor = self.visitors[place].clone();
            coming
                .spawn_local(async move { set_up(visitor, from).await.map(|came| (place, came)) });
        }
        while let Some(came) = coming.join_next().await {
            self.seat(came??);
        }
        Ok(())
    }

    fn seat(&mut self, (place, (socket, inbox)): (usize, (TcpStream, Inbox))) {
        let socket = Rc::new(socket);
        let kind = self.visitors[place].kind;
        let ear = (kind != Kind::Deaf).then(|| {
            let (socket, ears) = (Rc::clone(&socket), Rc::clone(&self.ears));
            tokio::task::spawn_local(listen(socket, inbox, kind, ears)).abort_handle()
        });
        self.seats.borrow_mut()[place] = Some(Seat {
            socket,
            ear,
            stuffed: false,
        });
    }

    async fn told(&self) -> Result<Reply> {
        let waiting = self
            .seats
            .borrow()
            .iter()
            .zip(&self.visitors)
            .filter(|(seat, visitor)| seat.is_some() && visitor.kind == Kind::Waits)
            .count();
        let all = async {
            while self.ears.heard.borrow().told_at.len() < waiting {
                self.ears.news.notified().await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, all).await.is_ok();
        let mut heard = self.ears.heard.borrow_mut();
        let at = std::mem::take(&mut heard.told_at);
        if !in_time {
            return Err(format!("{} of {waiting} were told", at.len()).into());
        }
        let bytes = heard.bytes;
        Ok(Reply::Told { at, bytes })
    }

    /// Receipts are what a client can ask for as often as it likes.
    fn stuff(&self) {
        let receipt = message(&format!("ACK\nid:x\nreceipt:{}\n\n\0", "r".repeat(180)));
        for (seat, visitor) in self.seats.borrow_mut().iter_mut().zip(&self.visitors) {
            let Some(seat) = seat.as_mut().filter(|_| visitor.kind == Kind::Deaf) else {
                continue;
            };
            seat.stuffed = true;
            for _ in 0..2_000 {
                if !matches!(seat.socket.try_write(&receipt), Ok(n) if n == receipt.len()) {
                    break;
                }
            }
        }
    }
}

fn leave(seat: &mut Option<Seat>, reset: bool) -> Result<()> {
    let Some(Seat { socket, ear, .. }) = seat.take() else {
        return Ok(());
    };
    if let Some(ear) = ear {
        ear.abort();
    }
    if reset {
        socket.set_zero_linger()?;
    }
    Ok(())
}

/// Connects and says what there is to say.
async fn set_up(visitor: Visitor, from: SocketAddr) -> Result<(TcpStream, Inbox)> {
    let socket = TcpSocket::new_v4()?;
    // Ports of connections that have ended may be used again.
    socket.set_reuseaddr(true)?;
    if visitor.kind == Kind::Deaf {
        socket.set_recv_buffer_size(DEAF_BUFFER)?;
    }
    bind(&socket, from)?;
    let mut socket = socket.connect(visitor.address).await?;
    socket.set_nodelay(true)?;
    let mut inbox = Inbox::default();
    let Some(path) = visitor.path else {
        return Ok((socket, inbox));
    };
    socket
        .write_all(handshake(visitor.address, &path).as_bytes())
        .await?;
    let head = loop {
        if let Some(head) = inbox.take_head() {
            break head;
        }
        read(&mut socket, &mut inbox).await?;
    };
    if !head.starts_with("HTTP/1.1 101") {
        return Err(head.into());
    }
    for text in visitor.says {
        socket.write_all(&message(&text)).await?;
        loop {
            match inbox.take_frame() {
                Some((payload, _)) if payload.starts_with(b"ERROR") => {
                    return Err(String::from_utf8_lossy(&payload).into());
                }
                Some((payload, _)) if payload.contains(&0) => break,
                Some(_) => {}
                None => read(&mut socket, &mut inbox).await?,
            }
        }
    }
    Ok((socket, inbox))
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

async fn read(socket: &mut TcpStream, inbox: &mut Inbox) -> Result<()> {
    let mut buffer = [0; 2048];
    match socket.read(&mut buffer).await? {
        0 => Err("hung up on while coming".into()),
        n => {
            inbox.put(&buffer[..n]);
            Ok(())
        }
    }
}

/// Hears what a visitor hears.
async fn listen(socket: Rc<TcpStream>, mut inbox: Inbox, kind: Kind, ears: Rc<Ears>) {
    let mut buffer = [0; 2048];
    let mut watched = None;
    loop {
        while let Some((payload, bytes)) = inbox.take_frame() {
            if !payload.starts_with(b"MESSAGE") {
                continue;
            }
            let mut heard = ears.heard.borrow_mut();
            if kind == Kind::Waits {
                heard.told_at.push(now_micros());
                heard.bytes = heard.bytes.max(bytes);
                ears.news.notify_one();
            } else {
                let place = *watched.get_or_insert_with(|| {
                    heard.watched.push((0, String::new()));
                    heard.watched.len() - 1
                });
                let text = String::from_utf8_lossy(&payload);
                let body = text.split_once("\n\n").map_or("", |(_, body)| body);
                let entry = &mut heard.watched[place];
                *entry = (entry.0 + 1, body.trim_end_matches(['\0', '\n']).to_owned());
            }
        }
        if socket.readable().await.is_err() {
            break;
        }
        match socket.try_read(&mut buffer) {
            Ok(n) if n > 0 => inbox.put(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => break,
        }
    }
    // Those who leave don't come this far.
    ears.heard.borrow_mut().lost += 1;
    ears.news.notify_one();
}

/// Sends everybody's heart-beats, spread over the interval.
async fn beat(seats: Rc<RefCell<Vec<Option<Seat>>>>) {
    let mut ticks = tokio::time::interval(BEAT_TICK);
    for tick in 0.. {
        ticks.tick().await;
        let seats = seats.borrow();
        let due = seats.iter().skip(tick % BEAT_TICKS).step_by(BEAT_TICKS);
        for seat in due.flatten().filter(|seat| !seat.stuffed) {
            // Who is gone is noticed by who listens; a full buffer is a sign of life by itself.
            let _ = seat.socket.try_write(&BEAT);
        }
    }
}
