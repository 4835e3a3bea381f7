//! The waiting queue as its clients see it: waiting, release, limits, STOMP.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::harness::{Answer, TOKEN, Usher, all, in_seconds, now};
use crate::stomp::{
    Client, Frame, Incoming, QUIET, SECRET, claims, moderator, service, sign, state_topic, visitor,
    visitor_topic,
};

pub(crate) const ROOM: &str = "room@conference.meet.example.com";

pub(crate) async fn start(more: &str) -> Usher {
    Usher::start(&format!(
        "auth.secret = \"{SECRET}\"\nqueue.state_interval = \"200ms\"\n{more}"
    ))
    .await
}

impl Usher {
    async fn set_live(&self, what: &str, jid: &str) -> Answer {
        self.json(
            Method::POST,
            &format!("/waiting-queue/{what}"),
            &json!({ "conference": jid }),
        )
        .await
    }

    pub(crate) async fn go_live(&self, jid: &str) {
        assert_eq!(self.set_live("golive", jid).await.status, StatusCode::OK);
    }

    pub(crate) async fn end_live(&self, jid: &str) {
        assert_eq!(self.set_live("endlive", jid).await.status, StatusCode::OK);
    }

    pub(crate) async fn status(&self, jid: &str) -> Value {
        let answer = self
            .get(&format!("/waiting-queue/conferences?conference={jid}"))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.body["conferences"][0].clone()
    }

    /// Waits until this number of visitors wait.
    pub(crate) async fn counts(&self, waiting: u64) {
        for _ in 0..500 {
            if self.status(ROOM).await["visitorsWaiting"] == waiting {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "expected {waiting} waiting visitors: {}",
            self.status(ROOM).await
        );
    }
}

#[tokio::test]
async fn visitor_waits_until_live_and_late_visitor_is_released_immediately() {
    let usher = start("").await;
    let mut early = Client::wait(&usher, "room").await;
    early.receives_nothing().await;
    usher.go_live(ROOM).await;
    let released = early.released().await;
    assert_eq!(
        released,
        json!({ "conference": ROOM, "status": "live", "randomDelayMs": 0 })
    );
    let mut late = Client::wait(&usher, "room").await;
    assert_eq!(late.released().await, released);
    early.receives_nothing().await;
}

#[tokio::test]
async fn visitor_waits_again_after_end_live() {
    let usher = start("").await;
    usher.go_live(ROOM).await;
    usher.end_live(ROOM).await;
    let mut visitor = Client::wait(&usher, "room").await;
    visitor.receives_nothing().await;
    usher.go_live(ROOM).await;
    visitor.released().await;
}

#[tokio::test]
async fn moderator_receives_the_count_immediately_and_on_change() {
    let usher = start("").await;
    let mut host = Client::connect(&usher, &moderator("room")).await;
    host.subscribe("s", &state_topic("room")).await;
    assert_eq!(host.count().await, 0);
    let first = Client::wait(&usher, "room").await;
    assert_eq!(host.count().await, 1);
    let second = Client::wait(&usher, "room").await;
    assert_eq!(host.count().await, 2);
    // No message without a change.
    host.receives_nothing().await;
    first.close().await;
    assert_eq!(host.count().await, 1);
    second.vanish();
    assert_eq!(host.count().await, 0);
}

#[tokio::test]
async fn all_paths_accept_both_topics() {
    let usher = start("").await;
    let mut both = visitor("room");
    both["context"]["user"]["moderator"] = "true".into();
    for path in ["visitor/websocket", "visitor", "state/websocket", "state"] {
        let path = format!("/waiting-queue/{path}");
        let mut client = Client::dial(&usher, &path, &[]).await.unwrap();
        client
            .connect_with(&format!("Bearer {}", sign(&both)), "")
            .await;
        client.subscribe("v", &visitor_topic("room")).await;
        client.subscribe("s", &state_topic("room")).await;
        assert!(client.count().await >= 1);
        client.close().await;
    }
}

#[tokio::test]
async fn spellings_of_a_conference_share_one_line() {
    let usher = start("").await;
    let mut claims = visitor("room");
    claims["sub"] = "acme".into();
    let mut client = Client::connect(&usher, &claims).await;
    let topic = "/secured/conference/visitor/topic.Room@conference.acme.meet.example.com";
    client.subscribe("1", topic).await;
    usher.go_live(ROOM).await;
    client.receives_nothing().await;
    usher
        .go_live("[acme]room@conference.meet.example.com")
        .await;
    let frame = client.frame().await;
    assert_eq!(frame.header("destination"), topic);
    assert_eq!(
        frame.json()["conference"],
        "room@conference.acme.meet.example.com"
    );
}

#[tokio::test]
async fn release_rate_keeps_order_of_arrival() {
    let usher = start("queue.release_per_second = 2").await;
    let mut visitors = Vec::new();
    for _ in 0..5 {
        visitors.push(Client::wait(&usher, "room").await);
    }
    let begun = tokio::time::Instant::now();
    usher.go_live(ROOM).await;
    let mut seconds = Vec::new();
    for visitor in &mut visitors {
        assert_eq!(visitor.released().await["randomDelayMs"], 1000);
        seconds.push(begun.elapsed().as_millis());
    }
    assert!(seconds.is_sorted());
    assert!(
        seconds[4] >= 1000,
        "five at two a second take two seconds: {seconds:?}"
    );
    assert_eq!(usher.status(ROOM).await["visitorsWaiting"], 0);
}

#[tokio::test]
async fn visitor_that_returns_within_the_grace_keeps_its_place() {
    let usher = start("queue.release_per_second = 1").await;
    let mut first = visitor("room");
    first["jti"] = "first".into();
    let connect = async || {
        let mut client = Client::connect(&usher, &first).await;
        client.subscribe("1", &visitor_topic("room")).await;
        client
    };
    connect().await.vanish();
    usher.counts(0).await;
    let mut second = Client::wait(&usher, "room").await;
    let mut first = connect().await;
    usher.counts(2).await;
    let begun = tokio::time::Instant::now();
    usher.go_live(ROOM).await;
    first.released().await;
    second.released().await;
    let after = begun.elapsed();
    assert!(
        after >= Duration::from_millis(900),
        "the second was released with the first: {after:?}"
    );
}

#[tokio::test]
async fn restart_keeps_the_order_of_returning_visitors() {
    let mut usher = start("").await;
    // The claims are fixed: with the time of another second, the token would be another one.
    let same = visitor("room");
    let wait = async |usher: &Usher, name: &str| {
        let mut claims = same.clone();
        claims["jti"] = name.into();
        let mut client = Client::connect(usher, &claims).await;
        client.subscribe("1", &visitor_topic("room")).await;
        client
    };
    let more = format!("auth.secret = \"{SECRET}\"\nqueue.release_per_second = 1");
    let mut waiting = Vec::new();
    for name in ["first", "second", "third"] {
        waiting.push(wait(&usher, name).await);
    }
    usher.counts(3).await;
    usher = Usher::start_in(usher.stop().await, &more).await;
    drop(waiting);
    let released = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    // The visitors return in another order, and a new one comes first.
    for name in ["new", "third", "second", "first"] {
        let mut client = wait(&usher, name).await;
        let released = std::sync::Arc::clone(&released);
        tasks.push(tokio::spawn(async move {
            client.released().await;
            released.lock().unwrap().push(name);
        }));
    }
    usher.counts(4).await;
    usher.go_live(ROOM).await;
    for task in tasks {
        task.await.unwrap();
    }
    let released = released.lock().unwrap().clone();
    assert_eq!(released, ["first", "second", "third", "new"]);
}

#[tokio::test]
async fn live_state_survives_a_restart_and_expires() {
    let usher = start("queue.live_ttl = \"5s\"").await;
    usher.go_live(ROOM).await;
    let dir = usher.stop().await;
    let more = format!("auth.secret = \"{SECRET}\"\nqueue.live_ttl = \"5s\"");
    let usher = Usher::start_in(dir, &more).await;
    Client::wait(&usher, "room").await.released().await;
    for _ in 0..500 {
        if usher.status(ROOM).await["live"] == false {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Client::wait(&usher, "room").await.receives_nothing().await;
}

#[tokio::test]
async fn deleting_the_conference_ends_live_state() {
    let usher = start("").await;
    let conference = usher.open("room").await.id();
    usher.go_live(ROOM).await;
    usher.delete(&format!("/conference/{conference}")).await;
    assert_eq!(usher.status(ROOM).await["live"], false);
}

#[tokio::test]
async fn allocation_of_a_live_conference_reports_live() {
    let usher = start("").await;
    let booking = json!({ "room": "room", "end": in_seconds(60), "waiting_queue": true });
    usher.book(&booking).await;
    usher.go_live(ROOM).await;
    let opened = usher.open("room").await;
    assert_eq!(opened.body["live"], true, "{}", opened.body);
    let path = format!("/conference/{}", opened.id());
    assert_eq!(usher.get(&path).await.body["live"], true);
    usher.end_live(ROOM).await;
    assert_eq!(usher.get(&path).await.body.get("live"), None);
}

#[tokio::test]
async fn booking_goes_live_automatically() {
    let usher = start("").await;
    let mut booking = json!({
        "room": "room", "start": in_seconds(5), "end": in_seconds(60), "waiting_queue": true, "auto_live": 0,
    });
    usher.book(&booking).await;
    let mut visitor = Client::wait(&usher, "room").await;
    assert_eq!(usher.status(ROOM).await["waitingQueue"], true);
    visitor.receives_nothing().await;
    visitor.released().await;
    // Once, and not again after endlive.
    usher.end_live(ROOM).await;
    Client::wait(&usher, "room").await.receives_nothing().await;
    booking["room"] = "other".into();
    booking["waiting_queue"] = false.into();
    let refused = usher.json(Method::POST, "/api/v1/bookings", &booking).await;
    assert!(refused.refused(400).starts_with("auto_live: "));
}

#[tokio::test]
async fn golive_requires_a_conference_and_a_service_token() {
    let usher = start("").await;
    for what in ["golive", "endlive"] {
        let path = format!("/waiting-queue/{what}");
        for (body, status) in [
            (json!({}), 400),
            (json!({ "conference": "" }), 400),
            (json!({ "conference": 7 }), 400),
            (json!({ "conference": "room" }), 400),
            (
                json!({ "conference": "room@conference.other.example.com" }),
                403,
            ),
        ] {
            let answer = usher.json(Method::POST, &path, &body).await;
            assert!(
                answer.refused(status).starts_with("conference: "),
                "{}",
                answer.body
            );
        }
        let post = |authorization: String| {
            let request = usher
                .client
                .post(usher.url(&path))
                .json(&json!({ "conference": ROOM }));
            Answer::of(request.header("Authorization", authorization))
        };
        for header in ["", "Bearer", "Bearer wrong", "Basic dTpw"] {
            post(header.into()).await.refused(401);
        }
        for claims in [
            visitor("room"),
            moderator("room"),
            visitor("other"),
            claims("*", json!({})),
        ] {
            post(format!("Bearer {}", sign(&claims))).await.refused(403);
        }
        assert_eq!(
            post(format!("Bearer {}", sign(&service()))).await.status,
            StatusCode::OK
        );
        assert_eq!(post(format!("Bearer {TOKEN}")).await.status, StatusCode::OK);
        usher.get(&path).await.refused(405);
    }
    Answer::of(usher.client.get(usher.url("/waiting-queue/conferences")))
        .await
        .refused(401);
}

#[tokio::test]
async fn conferences_are_listed() {
    let usher = start("").await;
    let _visitor = Client::wait(&usher, "b").await;
    usher.go_live("a@conference.meet.example.com").await;
    let answer = usher.get("/waiting-queue/conferences").await;
    let list = answer.body["conferences"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(list[0]["conference"], "a@conference.meet.example.com");
    assert_eq!(list[0]["live"], true);
    assert!(list[0]["liveSince"].is_string());
    assert_eq!(list[1]["live"], false);
    assert_eq!(list[1]["visitorsWaiting"], 1);
    assert_eq!(
        usher.status("nobody@conference.meet.example.com").await["visitorsWaiting"],
        0
    );
}

#[tokio::test]
async fn service_token_waits_for_any_conference() {
    let usher = start("").await;
    let mut jigasi = Client::connect(&usher, &service()).await;
    jigasi.subscribe("1", &visitor_topic("room")).await;
    usher.go_live(ROOM).await;
    jigasi.released().await;
    let mut jigasi = Client::connect(&usher, &service()).await;
    jigasi
        .send(&format!(
            "SUBSCRIBE\nid:1\ndestination:{}\n\n\0",
            state_topic("room")
        ))
        .await;
    jigasi.refused().await;
}

#[tokio::test]
async fn token_without_the_needed_grant_is_refused_with_the_reason() {
    let usher = start("").await;
    let refused = async |claims: Value, topic: String| {
        let mut client = Client::connect(&usher, &claims).await;
        client
            .send(&format!(
                "SUBSCRIBE\nid:1\ndestination:{topic}\nreceipt:7\n\n\0"
            ))
            .await;
        let (error, code) = client.refused().await;
        assert_eq!(code, Some(1008));
        assert_eq!(error.header("receipt-id"), "7");
        error.header("message").to_owned()
    };
    let other = refused(visitor("other"), visitor_topic("room")).await;
    assert!(other.contains("another conference"), "{other}");
    let mut tenant = visitor("room");
    tenant["sub"] = "acme".into();
    assert!(
        refused(tenant, visitor_topic("room"))
            .await
            .contains("another conference")
    );
    assert!(
        refused(moderator("room"), visitor_topic("room"))
            .await
            .contains("visitor")
    );
    assert!(
        refused(visitor("room"), state_topic("room"))
            .await
            .contains("moderator")
    );
    let foreign = "/secured/conference/visitor/topic.room@conference.other.example.com";
    assert!(
        refused(visitor("*"), foreign.into())
            .await
            .contains("conference.meet.example.com")
    );
    assert!(
        refused(visitor("room"), "/nowhere".into())
            .await
            .contains("destination")
    );
    assert_eq!(usher.status(ROOM).await["visitorsWaiting"], 0);
}

#[tokio::test]
async fn invalid_token_is_refused_at_connect() {
    let usher = start("").await;
    let second = |name: &str, offset: i64| {
        let mut claims = visitor("room");
        claims[name] = (now().timestamp() + offset).into();
        claims
    };
    let other = |name: &str, value: &str| {
        let mut claims = visitor("room");
        claims[name] = value.into();
        claims
    };
    let mut endless = visitor("room");
    endless.as_object_mut().unwrap().remove("exp");
    let good = sign(&visitor("room"));
    let (head, _) = good.rsplit_once('.').unwrap();
    let mut tokens: Vec<String> = [
        second("exp", -60),
        second("nbf", 60),
        other("iss", "somebody"),
        other("aud", "something"),
        endless,
    ]
    .iter()
    .map(sign)
    .collect();
    tokens.push(format!("{head}."));
    tokens.push(head.to_owned());
    tokens.push("rubbish".into());
    tokens.push("x".repeat(15_000));
    tokens.push(
        usher::auth::sign("another secret of thirty-two bytes", &visitor("room"), None).unwrap(),
    );
    for token in tokens {
        let mut client = Client::open(&usher).await;
        let error = client.connect_with(&format!("Bearer {token}"), "").await;
        assert_eq!(error.command, "ERROR", "{error:?}");
        assert!(error.header("message").contains("token"), "{error:?}");
        assert!(!error.body.contains(&token));
        assert!(matches!(client.next().await, Incoming::Closed(Some(_))));
    }
    let idle = claims(
        "room",
        json!({ "user": { "name": "neither visitor nor moderator" } }),
    );
    let mut roomless = visitor("room");
    roomless.as_object_mut().unwrap().remove("room");
    for claims in [idle, roomless] {
        let mut client = Client::open(&usher).await;
        let error = client
            .connect_with(&format!("Bearer {}", sign(&claims)), "")
            .await;
        assert!(
            error.header("message").contains("no access to the queue"),
            "{error:?}"
        );
    }
    for authorization in ["", "Basic dTpw", "Bearer"] {
        let mut client = Client::open(&usher).await;
        assert_eq!(
            client.connect_with(authorization, "").await.command,
            "ERROR"
        );
    }
}

#[tokio::test]
async fn subscribe_may_carry_its_own_token() {
    let usher = start("").await;
    let mut client = Client::connect(&usher, &visitor("room")).await;
    let token = sign(&moderator("room"));
    let topic = state_topic("room");
    client
        .send(&format!(
            "SUBSCRIBE\nid:1\ndestination:{topic}\nAuthorization:Bearer {token}\n\n\0"
        ))
        .await;
    assert_eq!(client.count().await, 0);
}

/// A WebSocket from an address, as a proxy on the loopback forwards it.
async fn dial_from(usher: &Usher, address: &str) -> Result<Client, Error> {
    let headers = [("x-forwarded-for", address)];
    Client::dial(usher, "/waiting-queue/visitor/websocket", &headers).await
}

/// Sends CONNECT, for the first id, and SUBSCRIBE; returns the response to SUBSCRIBE.
async fn subscribe_with(client: &mut Client, token: &str, id: &str, topic: &str) -> Frame {
    if id == "1" {
        let connected = client.connect_with(&format!("Bearer {token}"), "").await;
        assert_eq!(connected.command, "CONNECTED", "{connected:?}");
    }
    client
        .send(&format!(
            "SUBSCRIBE\nid:{id}\ndestination:{topic}\nreceipt:1\n\n\0"
        ))
        .await;
    client.frame().await
}

/// The status and message of a refused handshake.
fn refused_handshake(outcome: Result<Client, Error>) -> (u16, String) {
    let Err(Error::Http(response)) = outcome else {
        panic!("the handshake was not refused");
    };
    let body: Value = serde_json::from_slice(response.body().as_deref().unwrap()).unwrap();
    let message = body["message"].as_str().unwrap().to_owned();
    (response.status().as_u16(), message)
}

/// Waits until a WebSocket is accepted, because another has left.
async fn accepted(dial: impl AsyncFn() -> Result<Client, Error>) -> Client {
    for _ in 0..500 {
        if let Ok(client) = dial().await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no WebSocket is accepted");
}

/// Three sessions with one token: two are accepted.
async fn two_of_three(usher: &Usher, token: &str, topic: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for command in ["RECEIPT", "RECEIPT", "ERROR"] {
        let mut client = Client::open(usher).await;
        let answer = subscribe_with(&mut client, token, "1", topic).await;
        assert_eq!(answer.command, command, "{answer:?}");
        assert!(command == "RECEIPT" || answer.header("message").contains("with this token"));
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn visitors_per_token_are_limited() {
    let usher = start("queue.max_per_token = 2").await;
    let (token, topic) = (sign(&visitor("room")), visitor_topic("room"));
    let mut clients = two_of_three(&usher, &token, &topic).await;
    // Service tokens are not counted.
    for _ in 0..3 {
        let mut client = Client::open(&usher).await;
        let answer = subscribe_with(&mut client, &sign(&service()), "1", &topic).await;
        assert_eq!(answer.command, "RECEIPT", "{answer:?}");
        clients.push(client);
    }
}

#[tokio::test]
async fn watchers_per_token_are_limited() {
    let usher = start("queue.max_per_token = 2").await;
    let (token, topic) = (sign(&moderator("room")), state_topic("room"));
    let mut clients = two_of_three(&usher, &token, &topic).await;
    // After one has left, another is accepted.
    clients[0].send("UNSUBSCRIBE\nid:1\nreceipt:u\n\n\0").await;
    while clients[0].frame().await.command != "RECEIPT" {}
    let mut client = Client::open(&usher).await;
    let answer = subscribe_with(&mut client, &token, "1", &topic).await;
    assert_eq!(answer.command, "RECEIPT", "{answer:?}");
}

#[tokio::test]
async fn connections_per_address_are_limited() {
    let usher = start("queue.max_per_address = 3").await;
    let dial = async || dial_from(&usher, "192.0.2.1:4711").await;
    let silent = dial().await.unwrap();
    let mut connected = dial().await.unwrap();
    connected
        .connect_with(&format!("Bearer {}", sign(&moderator("room"))), "")
        .await;
    let mut waiting = dial().await.unwrap();
    let (token, topic) = (sign(&visitor("room")), visitor_topic("room"));
    let answer = subscribe_with(&mut waiting, &token, "1", &topic).await;
    assert_eq!(answer.command, "RECEIPT", "{answer:?}");
    let (status, message) = refused_handshake(dial().await);
    assert_eq!(status, 429);
    assert!(message.contains("queue.max_per_address"), "{message}");
    // Other addresses are not affected, and the loopback is not counted.
    let mut others = vec![dial_from(&usher, "192.0.2.2").await.unwrap()];
    for _ in 0..5 {
        others.push(dial_from(&usher, "127.0.0.1").await.unwrap());
    }
    silent.vanish();
    let _another = accepted(dial).await;
}

#[tokio::test]
async fn places_of_one_connection_count_for_its_address() {
    let usher = start("queue.max_per_address = 3").await;
    let mut client = dial_from(&usher, "192.0.2.1").await.unwrap();
    let token = sign(&service());
    for (id, command) in [
        ("1", "RECEIPT"),
        ("2", "RECEIPT"),
        ("3", "RECEIPT"),
        ("4", "ERROR"),
    ] {
        let topic = visitor_topic(&format!("room{id}"));
        let answer = subscribe_with(&mut client, &token, id, &topic).await;
        assert_eq!(answer.command, command, "{answer:?}");
        assert!(command == "RECEIPT" || answer.header("message").contains("address"));
    }
}

#[tokio::test]
async fn giving_up_the_first_of_several_places_frees_one_of_the_address() {
    let usher = start("queue.max_per_address = 3").await;
    let mut client = dial_from(&usher, "192.0.2.1").await.unwrap();
    let token = sign(&service());
    for id in ["1", "2", "3"] {
        let topic = visitor_topic(&format!("room{id}"));
        let answer = subscribe_with(&mut client, &token, id, &topic).await;
        assert_eq!(answer.command, "RECEIPT", "{answer:?}");
    }
    client.send("UNSUBSCRIBE\nid:1\nreceipt:u\n\n\0").await;
    assert_eq!(client.frame().await.command, "RECEIPT");
    client
        .send(&format!(
            "SUBSCRIBE\nid:4\nreceipt:s\ndestination:{}\n\n\0",
            visitor_topic("room4")
        ))
        .await;
    let answer = client.frame().await;
    assert_eq!(answer.command, "RECEIPT", "{answer:?}");
}

#[tokio::test]
async fn connections_are_reserved_for_requests() {
    let usher = start("server.max_connections = 40").await;
    let dial = async || Client::dial(&usher, "/waiting-queue/visitor/websocket", &[]).await;
    let mut crowd = Vec::new();
    let refusal = loop {
        match dial().await {
            Ok(client) => crowd.push(client),
            refused => break refused_handshake(refused),
        }
    };
    // One connection is used by the requests, and two are reserved.
    assert!((36..=38).contains(&crowd.len()), "{}", crowd.len());
    assert_eq!(refusal.0, 503);
    assert!(refusal.1.contains("server.max_connections"), "{refusal:?}");
    for _ in 0..5 {
        refused_handshake(dial().await);
        // A connection of its own, as Prosody makes for each request.
        let alone = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = alone
            .post(usher.url("/waiting-queue/golive"))
            .header("connection", "close")
            .bearer_auth(TOKEN)
            .json(&json!({ "conference": ROOM }));
        assert_eq!(Answer::of(request).await.status, StatusCode::OK);
    }
    crowd.truncate(30);
    let _another = accepted(dial).await;
}

#[tokio::test]
async fn expired_token_is_refused_at_subscribe() {
    let usher = start("auth.leeway = \"0s\"").await;
    let mut claims = visitor("room");
    let expiry = now().timestamp() + 2;
    claims["exp"] = expiry.into();
    let mut early = Client::wait_as(&usher, &claims).await;
    let mut late = Client::connect(&usher, &claims).await;
    while now().timestamp() < expiry {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let topic = visitor_topic("room");
    late.send(&format!("SUBSCRIBE\nid:1\ndestination:{topic}\n\n\0"))
        .await;
    let (error, _) = late.refused().await;
    assert!(error.header("message").contains("expired"), "{error:?}");
    // A visitor that subscribed in time continues to wait.
    usher.go_live(ROOM).await;
    early.released().await;
}

#[tokio::test]
async fn second_subscription_to_a_conference_shares_the_place_of_the_first() {
    let usher = start("").await;
    let mut client = Client::wait(&usher, "room").await;
    // In another spelling.
    let topic = "/secured/conference/visitor/topic.ROOM@conference.meet.example.com";
    client.subscribe("2", topic).await;
    usher.counts(1).await;
    usher.go_live(ROOM).await;
    let mut subscriptions = Vec::new();
    for _ in 0..2 {
        subscriptions.push(client.frame().await.header("subscription").to_owned());
    }
    subscriptions.sort();
    assert_eq!(subscriptions, ["1", "2"]);
    // A third one comes after the release.
    client.subscribe("3", topic).await;
    assert_eq!(client.frame().await.header("subscription"), "3");
}

#[tokio::test]
async fn place_outlives_the_first_of_two_subscriptions_to_a_conference() {
    let usher = start("").await;
    let mut client = Client::wait(&usher, "room").await;
    client.subscribe("2", &visitor_topic("room")).await;
    client.send("UNSUBSCRIBE\nid:1\nreceipt:r\n\n\0").await;
    assert_eq!(client.frame().await.command, "RECEIPT");
    usher.counts(1).await;
    usher.go_live(ROOM).await;
    assert_eq!(client.frame().await.header("subscription"), "2");
    client.send("UNSUBSCRIBE\nid:2\nreceipt:r\n\n\0").await;
    assert_eq!(client.frame().await.command, "RECEIPT");
    usher.counts(0).await;
}

#[tokio::test]
async fn ninth_subscription_is_refused() {
    let usher = start("").await;
    let mut client = Client::connect(&usher, &service()).await;
    let frames: Vec<_> = (0..10_000)
        .map(|n| {
            let topic = visitor_topic(&format!("room{n}"));
            format!("SUBSCRIBE\nid:{n}\ndestination:{topic}\nreceipt:{n}\n\n\0")
        })
        .collect();
    for some in frames.chunks(100) {
        let _ = client.try_send(Message::text(some.concat())).await;
    }
    for n in 0..8 {
        assert_eq!(client.frame().await.header("receipt-id"), n.to_string());
    }
    let (error, _) = client.refused().await;
    assert!(error.header("message").contains("too many"), "{error:?}");
    // Its places are free again.
    for _ in 0..500 {
        let body = usher.get("/waiting-queue/conferences").await.body;
        if body["conferences"] == json!([]) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("places are still occupied");
}

#[tokio::test]
async fn plain_request_or_unknown_path_is_no_websocket() {
    let usher = start("").await;
    usher
        .get("/waiting-queue/visitor/websocket")
        .await
        .refused(426);
    usher.get("/waiting-queue/visitor").await.refused(426);
    usher.get("/waiting-queue").await.refused(404);
    usher
        .get("/waiting-queue/visitor/elsewhere")
        .await
        .refused(404);
    let refused = Client::dial(&usher, "/waiting-queue/nowhere", &[]).await;
    assert!(matches!(refused, Err(Error::Http(answer)) if answer.status() == 404));
}

#[tokio::test]
async fn highest_offered_subprotocol_is_chosen() {
    let usher = start("").await;
    let offer = [("sec-websocket-protocol", "v10.stomp, v12.stomp, v11.stomp")];
    Client::dial(&usher, "/waiting-queue/visitor/websocket", &offer)
        .await
        .unwrap();
    // Without an offer, the client library rejects a response that names a subprotocol.
    let mut client = Client::open(&usher).await;
    assert_eq!(
        client
            .connect_with(&format!("Bearer {}", sign(&visitor("room"))), "")
            .await
            .command,
        "CONNECTED"
    );
}

#[tokio::test]
async fn each_stomp_version_is_supported() {
    let usher = start("").await;
    let token = sign(&visitor("room"));
    for (accepted, version) in [
        ("1.0", "1.0"),
        ("1.1", "1.1"),
        ("1.0,1.1,1.2", "1.2"),
        ("2.0,1.1", "1.1"),
    ] {
        let mut client = Client::open(&usher).await;
        client.send(&format!("CONNECT\naccept-version:{accepted}\nheart-beat:0,0\nAuthorization:Bearer {token}\n\n\0")).await;
        let connected = client.frame().await;
        assert_eq!(
            (connected.command.as_str(), connected.header("version")),
            ("CONNECTED", version)
        );
        client.subscribe("1", &visitor_topic("room")).await;
    }
    let mut client = Client::open(&usher).await;
    client
        .send(&format!(
            "STOMP\naccept-version:3.0\nhost:x\nAuthorization:Bearer {token}\n\n\0"
        ))
        .await;
    let (error, _) = client.refused().await;
    assert_eq!(error.header("version"), "1.0,1.1,1.2");
    // Without accept-version it is 1.0, which identifies subscriptions by destination.
    let mut client = Client::open(&usher).await;
    client
        .send(&format!("CONNECT\nAuthorization:Bearer {token}\n\n\0"))
        .await;
    assert_eq!(client.frame().await.header("version"), "1.0");
    let topic = visitor_topic("room");
    client
        .send(&format!(
            "SUBSCRIBE\ndestination:{topic}\n\n\0UNSUBSCRIBE\ndestination:{topic}\nreceipt:u\n\n\0"
        ))
        .await;
    assert_eq!(client.frame().await.header("receipt-id"), "u");
}

#[tokio::test]
async fn frames_may_be_split_and_joined_anywhere() {
    let usher = start("").await;
    let token = sign(&visitor("room"));
    let topic = visitor_topic("room");
    let bytes = format!(
        "\r\n\nCONNECT\r\naccept-version:1.2\r\nAuthorization:Bearer {token}\r\n\r\n\0\nSUBSCRIBE\nid:a\\cb\ndestination:{topic}\nid:second\n\n\0\n"
    );
    let mut client = Client::open(&usher).await;
    for piece in bytes.as_bytes().chunks(7) {
        client.send_bytes(piece).await;
    }
    assert_eq!(client.frame().await.command, "CONNECTED");
    usher.counts(1).await;
    usher.go_live(ROOM).await;
    let frame = client.frame().await;
    // The first of repeated headers counts, and the response is escaped like the request.
    assert_eq!(frame.header("subscription"), "a\\cb");
}

#[tokio::test]
async fn unsubscribe_and_disconnect_follow_stomp() {
    let usher = start("").await;
    let mut client = Client::wait(&usher, "room").await;
    usher.counts(1).await;
    client.send("UNSUBSCRIBE\nid:1\nreceipt:bye\n\n\0").await;
    assert_eq!(client.frame().await.header("receipt-id"), "bye");
    usher.counts(0).await;
    usher.go_live(ROOM).await;
    client.receives_nothing().await;
    client.send("DISCONNECT\nreceipt:last\n\n\0").await;
    let receipt = client.frame().await;
    assert_eq!(
        (receipt.command.as_str(), receipt.header("receipt-id")),
        ("RECEIPT", "last")
    );
    assert!(
        matches!(client.next().await, Incoming::Closed(Some(frame)) if u16::from(frame.code) == 1000)
    );
}

#[tokio::test]
async fn acknowledged_messages_carry_an_ack_header() {
    let usher = start("").await;
    usher.go_live(ROOM).await;
    let mut client = Client::connect(&usher, &visitor("room")).await;
    let topic = visitor_topic("room");
    client
        .send(&format!(
            "SUBSCRIBE\nid:1\nack:client-individual\ndestination:{topic}\n\n\0"
        ))
        .await;
    let message = client.frame().await;
    assert_eq!(message.command, "MESSAGE");
    let ack = message.header("ack").to_owned();
    assert!(!ack.is_empty() && !message.header("message-id").is_empty());
    client
        .send(&format!("ACK\nid:{ack}\nreceipt:a\n\n\0"))
        .await;
    assert_eq!(client.frame().await.header("receipt-id"), "a");
}

#[tokio::test]
async fn forbidden_frames_get_an_error_and_a_close() {
    let usher = start("").await;
    let topic = visitor_topic("room");
    let subscribe = |id: &str| format!("SUBSCRIBE\nid:{id}\ndestination:{topic}\n\n\0");
    let bad = [
        (
            "SEND\ndestination:/x\n\nhello\0".to_owned(),
            "clients send no messages",
        ),
        ("BEGIN\ntransaction:t\n\n\0".into(), "transactions"),
        ("CONNECT\naccept-version:1.2\n\n\0".into(), "begun already"),
        (
            "MESSAGE\ndestination:/x\n\n\0".into(),
            "frame of the server",
        ),
        ("HELLO\n\n\0".into(), "HELLO"),
        ("SUBSCRIBE\nid:1\n\n\0".into(), "destination"),
        (format!("SUBSCRIBE\ndestination:{topic}\n\n\0"), "id"),
        (
            format!("{}{}", subscribe("1"), subscribe("1")),
            "this id already",
        ),
        (
            format!("SUBSCRIBE\nid:1\nack:maybe\ndestination:{topic}\n\n\0"),
            "ack",
        ),
        ("UNSUBSCRIBE\nid:9\n\n\0".into(), "no subscription"),
        ("UNSUBSCRIBE\n\n\0".into(), "id"),
        ("SUBSCRIBE\nno colon here\n\n\0".into(), "colon"),
        ("SUBSCRIBE\nid:a\\tb\n\n\0".into(), "backslash"),
        (
            format!(
                "SUBSCRIBE\nid:{}\ndestination:{topic}\n\n\0",
                "x".repeat(300)
            ),
            "too long",
        ),
        (
            format!("SUBSCRIBE\nx:{}\n\n\0", "x".repeat(40_000)),
            "too large",
        ),
    ];
    for (frame, reason) in bad {
        let mut client = Client::connect(&usher, &visitor("room")).await;
        client.send(&frame).await;
        let (error, code) = client.refused().await;
        let shown: String = frame.chars().take(60).collect();
        assert!(
            error.header("message").contains(reason),
            "{shown:?}: {error:?}"
        );
        assert!(matches!(code, Some(1002 | 1008)), "{shown:?}: {code:?}");
    }
    usher.counts(0).await;
}

#[tokio::test]
async fn first_frame_must_be_connect() {
    let usher = start("queue.connect_timeout = \"300ms\"").await;
    let mut client = Client::open(&usher).await;
    client
        .send(&format!(
            "SUBSCRIBE\nid:1\ndestination:{}\n\n\0",
            visitor_topic("room")
        ))
        .await;
    assert!(
        client
            .refused()
            .await
            .0
            .header("message")
            .contains("CONNECT")
    );
    let mut silent = Client::open(&usher).await;
    assert!(
        silent
            .refused()
            .await
            .0
            .header("message")
            .contains("CONNECT")
    );
    // An incomplete frame is no CONNECT either.
    let mut slow = Client::open(&usher).await;
    slow.send("CONNECT\naccept").await;
    assert!(slow.refused().await.0.header("message").contains("CONNECT"));
}

#[tokio::test]
async fn large_messages_and_endless_headers_end_the_session() {
    let usher = start("").await;
    let mut client = Client::connect(&usher, &visitor("room")).await;
    let _ = client.try_send(Message::text("x".repeat(8 << 20))).await;
    while let Incoming::Frame(frame) = client.next().await {
        assert_eq!(frame.command, "ERROR");
    }
    let mut client = Client::open(&usher).await;
    let line = format!("{}:{}\n", "n".repeat(500), "v".repeat(500));
    client.send("CONNECT\n").await;
    for _ in 0..100 {
        let _ = client.try_send(Message::text(line.clone())).await;
    }
    assert!(
        client
            .refused()
            .await
            .0
            .header("message")
            .contains("too large")
    );
}

#[tokio::test]
async fn heart_beats_are_sent_and_silent_client_is_dropped() {
    let usher = start("queue.heart_beat = \"1s\"").await;
    let token = sign(&visitor("room"));
    let mut client = Client::open(&usher).await;
    client
        .send(&format!(
            "CONNECT\naccept-version:1.2\nheart-beat:1000,1000\nAuthorization:Bearer {token}\n\n\0"
        ))
        .await;
    assert_eq!(client.frame().await.header("heart-beat"), "1000,1000");
    client.subscribe("1", &visitor_topic("room")).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(900)).await;
        // As jigasi does: one line feed in a binary message.
        client.send_bytes(b"\n").await;
        usher.counts(1).await;
    }
    // The client sends no more heart-beats.
    assert!(matches!(client.next().await, Incoming::Closed(Some(_))));
    assert!(client.beats >= 3, "{} beats", client.beats);
    usher.counts(0).await;
}

#[tokio::test]
async fn slow_client_does_not_delay_others() {
    let usher = start("").await;
    let mut slow_clients = Vec::new();
    for _ in 0..20 {
        slow_clients.push(Client::wait(&usher, "room").await);
    }
    let mut others = all(50, |_| Client::wait(&usher, "room")).await;
    usher.go_live(ROOM).await;
    for other in &mut others {
        other.released().await;
    }
    drop(slow_clients);
}

/// The client sends frames that need a response and never reads: usher reads no more from it, and closes it.
#[tokio::test]
async fn flooding_client_is_dropped() {
    let usher = start("").await;
    let mut other = Client::wait(&usher, "another").await;
    let mut slow_client = Client::wait(&usher, "room").await;
    let ack = format!("ACK\nid:1\nreceipt:{}\n\n\0", "r".repeat(8000));
    let message = ack.repeat(8);
    let mut sent = 0;
    let flood = async {
        while slow_client
            .try_send(Message::text(message.clone()))
            .await
            .is_ok()
        {
            sent += message.len();
        }
    };
    let meanwhile = async {
        usher.go_live("another@conference.meet.example.com").await;
        other.released().await;
        for _ in 0..3000 {
            if usher.status(ROOM).await["visitorsWaiting"] == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it is still waiting: {}", usher.status(ROOM).await);
    };
    tokio::join!(flood, meanwhile);
    // Bounded by the kernel's buffers on both ends: usher stops reading what it can't answer.
    assert!(sent > 0 && sent < 64 << 20, "{sent} bytes");
}

#[tokio::test]
async fn endless_frame_ends_the_session() {
    let usher = start("").await;
    let header = format!("{}:{}\n", "n".repeat(500), "v".repeat(500));
    let body = "b".repeat(1000);
    for (begin, more) in [
        ("SUBSCRIBE\nid:1\n", &header),
        ("SEND\ndestination:/x\n\n", &body),
        ("SUBSCRIBE\nid:", &body),
        ("", &body),
    ] {
        let mut client = Client::wait(&usher, "room").await;
        client.send(begin).await;
        for _ in 0..100 {
            let _ = client.try_send(Message::text(more.clone())).await;
        }
        let (error, _) = client.refused().await;
        assert!(!error.header("message").is_empty(), "{begin:?}");
    }
    usher.counts(0).await;
}

#[tokio::test]
async fn incomplete_frame_does_not_count_as_activity() {
    let usher = start("queue.heart_beat = \"1s\"").await;
    let token = sign(&visitor("room"));
    let mut client = Client::open(&usher).await;
    client
        .send(&format!(
            "CONNECT\naccept-version:1.2\nheart-beat:1000,0\nAuthorization:Bearer {token}\n\n\0"
        ))
        .await;
    assert_eq!(client.frame().await.command, "CONNECTED");
    client.subscribe("1", &visitor_topic("room")).await;
    usher.counts(1).await;
    client.send("UNSUBSCRIBE\ni").await;
    assert!(
        matches!(client.next().await, Incoming::Closed(Some(frame)) if u16::from(frame.code) == 1008)
    );
    usher.counts(0).await;
}

#[tokio::test]
async fn shutdown_closes_sessions_without_error_frames() {
    let usher = start("").await;
    let mut clients = all(1000, |_| Client::wait(&usher, "room")).await;
    let stopping = usher.stop();
    let closing = async {
        for client in &mut clients {
            match client.next().await {
                Incoming::Closed(Some(frame)) => assert_eq!(u16::from(frame.code), 1012),
                other => panic!("no close: {other:?}"),
            }
        }
        drop(clients);
    };
    let begun = std::time::Instant::now();
    tokio::join!(stopping, closing);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn messages_stay_within_their_conference() {
    let usher = start("").await;
    let mut waiting = Vec::new();
    for n in 0..10 {
        waiting.push(Client::wait(&usher, &format!("room{n}")).await);
    }
    usher.go_live("room3@conference.meet.example.com").await;
    waiting.remove(3).released().await;
    tokio::time::sleep(QUIET).await;
    for mut other in waiting {
        other.receives_nothing().await;
    }
}
