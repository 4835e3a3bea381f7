//! An HTTP server with scripted responses that records its requests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The longest wait for a request.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// A recorded request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named = self.headers.iter().find(|(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }

    /// "POST /conference".
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// A scripted response.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Json(u16, Value),
    Raw(u16, String),
    /// No response.
    Nothing,
    /// Closes the connection without a response.
    HangUp,
}

type Script = Box<dyn FnMut(&Request) -> Reply + Send>;

pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    requests: watch::Receiver<Vec<Request>>,
    /// While this is true, responses are held back.
    pub(crate) hold: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    pub(crate) async fn start(script: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub(crate) async fn start_at(
        address: SocketAddr,
        script: impl FnMut(&Request) -> Reply + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let (recorded, requests) = watch::channel(Vec::new());
        let (hold, held) = watch::channel(false);
        let (recorded, shared) = (Arc::new(recorded), Arc::clone(&script));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (recorded, script) = (Arc::clone(&recorded), Arc::clone(&shared));
                tokio::spawn(serve(stream, recorded, script, held.clone()));
            }
        });
        Self {
            address,
            script,
            requests,
            hold,
            task,
        }
    }

    /// Replaces the script.
    pub(crate) fn set_script(&self, script: impl FnMut(&Request) -> Reply + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.borrow().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }

    /// Waits for `times` requests of this line.
    pub(crate) async fn wait(&self, line: &str, times: usize) {
        let mut requests = self.requests.clone();
        let enough =
            |all: &Vec<Request>| all.iter().filter(|one| one.line() == line).count() >= times;
        let waiting = tokio::time::timeout(WAIT_TIMEOUT, requests.wait_for(enough));
        let arrived = waiting.await.is_ok_and(|waited| waited.is_ok());
        assert!(arrived, "no {times} x {line}: {:?}", self.lines());
    }
}

async fn serve(
    stream: TcpStream,
    recorded: Arc<watch::Sender<Vec<Request>>>,
    script: Arc<Mutex<Script>>,
    mut held: watch::Receiver<bool>,
) {
    let mut stream = BufReader::new(stream);
    let Some(request) = read(&mut stream).await else {
        return;
    };
    let reply = (script.lock().unwrap())(&request);
    recorded.send_modify(|all| all.push(request));
    if held.wait_for(|held| !held).await.is_err() {
        return;
    }
    let (status, body) = match reply {
        Reply::Json(status, body) => (status, body.to_string()),
        Reply::Raw(status, body) => (status, body),
        Reply::HangUp => return,
        Reply::Nothing => std::future::pending().await,
    };
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status} X\r\nLocation: /elsewhere\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(response.as_bytes()).await;
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        let name = name.to_lowercase();
        if name == "content-length" {
            length = value.parse().ok()?;
        }
        headers.push((name, value.to_owned()));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        method,
        path,
        headers,
        body: String::from_utf8(body).ok()?,
    })
}

/// A valid conference of a reservation system: two hours from now.
pub(crate) fn conference(id: impl Into<Value>, name: &str) -> Value {
    json!({
        "id": id.into(),
        "name": name,
        "mail_owner": "owner@example.com",
        "start_time": crate::harness::in_seconds(0),
        "duration": 7200,
    })
}
