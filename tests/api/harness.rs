//! A service of its own for each test: started through `usher::serve` on a free port, with a database
//! in a scratch directory, and stopped when the test is over.

use std::net::SocketAddr;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use usher::config::Config;

pub(crate) const TOKEN: &str = "a-service-token-for-the-tests-0123456789";

pub(crate) struct Usher {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Usher {
    /// Starts a service with `extra` lines of configuration.
    pub(crate) async fn start(extra: &str) -> Self {
        Self::start_in(TempDir::new().unwrap(), extra).await
    }

    /// Starts a service on what a former one left.
    pub(crate) async fn start_in(dir: TempDir, extra: &str) -> Self {
        let config = config(dir.path(), extra);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = usher::serve(listener, config, async {
            let _ = stopped.await;
        });
        let task = tokio::spawn(async move { serving.await.unwrap() });
        let client = Client::builder().no_proxy().build().unwrap();
        Self {
            address,
            client,
            dir,
            stop: Some(stop),
            task,
        }
    }

    /// Stops it and hands over its directory.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap();
        self.dir
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request with the service token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, self.url(path))
            .bearer_auth(TOKEN)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    /// A form, as it is.
    pub(crate) async fn post_form(&self, body: impl Into<String>) -> Answer {
        let form = "application/x-www-form-urlencoded";
        let request = self
            .request(Method::POST, "/conference")
            .header("Content-Type", form);
        Answer::of(request.body(body.into())).await
    }

    /// What stock Prosody sends for a room.
    pub(crate) async fn open(&self, name: &str) -> Answer {
        self.open_as(name, &[]).await
    }

    /// What our shim sends for a room and a person.
    pub(crate) async fn open_as(&self, name: &str, identity: &[(&str, &str)]) -> Answer {
        let start_time = now().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let mut form = vec![
            ("name", name),
            ("start_time", &start_time),
            ("mail_owner", "abc@meet.example.com"),
        ];
        form.extend(identity);
        let request = self.request(Method::POST, "/conference").form(&form);
        Answer::of(request).await
    }

    pub(crate) async fn json(&self, method: Method, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(method, path).json(body)).await
    }

    /// Makes a booking that must succeed.
    pub(crate) async fn book(&self, body: &Value) -> Value {
        let answer = self.json(Method::POST, "/api/v1/bookings", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        answer.body
    }

    pub(crate) async fn decisions(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/decisions?{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["decisions"].as_array().unwrap().clone()
    }
}

/// The configuration of a test's service.
pub(crate) fn config(dir: &Path, extra: &str) -> Config {
    let database = dir.join("usher.db");
    let tokens = if extra.contains("auth.service.tokens") {
        String::new()
    } else {
        format!("auth.service.tokens = [\"{TOKEN}\"]")
    };
    let text = format!(
        "server.listen = \"127.0.0.1:0\"\ndatabase.url = \"sqlite:{}\"\n{tokens}\n{extra}\n",
        database.display()
    );
    Config::parse(&text, "test", dir, []).unwrap()
}

/// An answer, its body read as JSON where it is.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        Self::from(request.send().await.unwrap()).await
    }

    pub(crate) async fn from(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        Self {
            status,
            headers,
            body,
        }
    }

    pub(crate) fn id(&self) -> i64 {
        self.body["id"]
            .as_i64()
            .unwrap_or_else(|| panic!("no id: {self:?}"))
    }

    /// The moment the room must close, as stock Prosody works it out.
    pub(crate) fn end(&self) -> DateTime<Utc> {
        let start: DateTime<Utc> = self.body["start_time"].as_str().unwrap().parse().unwrap();
        start + TimeDelta::seconds(self.body["duration"].as_i64().unwrap())
    }

    /// The status, and a message and a code that are strings: what every refusal has.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(self.body["code"].is_string(), "no code: {}", self.body);
        let message = self.body["message"].as_str();
        message.unwrap_or_else(|| panic!("the message is no string: {}", self.body))
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests' own clock")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

/// An instant so many seconds from now, as JSON has it.
pub(crate) fn in_seconds(seconds: i64) -> String {
    (now() + TimeDelta::seconds(seconds))
        .format("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

/// Drives so many futures side by side.
pub(crate) async fn all<F: Future>(count: usize, make: impl Fn(usize) -> F) -> Vec<F::Output> {
    let mut pending: Vec<_> = (0..count).map(|n| Box::pin(make(n))).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => {
                done.push(output);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done
}
