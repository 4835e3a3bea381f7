//! The waiting queue from outside: who waits, who is told, and when.

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

    /// Waits until so many wait.
    pub(crate) async fn counts(&self, waiting: u64) {
        for _ in 0..500 {
            if self.status(ROOM).await["visitorsWaiting"] == waiting {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{waiting} were to wait: {}", self.status(ROOM).await);
    }
}

#[tokio::test]
async fn a_visitor_waits_until_live_and_a_late_one_is_told_at_once() {
    let usher = start("").await;
    let mut early = Client::wait(&usher, "room").await;
    early.hears_nothing().await;
    usher.go_live(ROOM).await;
    let told = early.told().await;
    assert_eq!(
        told,
        json!({ "conference": ROOM, "status": "live", "randomDelayMs": 0 })
    );
    let mut late = Client::wait(&usher, "room").await;
    assert_eq!(late.told().await, told);
    early.hears_nothing().await;
}

#[tokio::test]
async fn after_the_end_the_next_visitor_waits_again() {
    let usher = start("").await;
    usher.go_live(ROOM).await;
    usher.end_live(ROOM).await;
    let mut visitor = Client::wait(&usher, "room").await;
    visitor.hears_nothing().await;
    usher.go_live(ROOM).await;
    visitor.told().await;
}

#[tokio::test]
async fn a_moderator_is_told_how_many_wait_at_once_and_when_it_changes() {
    let usher = start("").await;
    let mut host = Client::connect(&usher, &moderator("room")).await;
    host.subscribe("s", &state_topic("room")).await;
    assert_eq!(host.count().await, 0);
    let first = Client::wait(&usher, "room").await;
    assert_eq!(host.count().await, 1);
    let second = Client::wait(&usher, "room").await;
    assert_eq!(host.count().await, 2);
    // Nothing changes, nothing is said.
    host.hears_nothing().await;
    first.close().await;
    assert_eq!(host.count().await, 1);
    second.vanish();
    assert_eq!(host.count().await, 0);
}

#[tokio::test]
async fn both_topics_share_a_socket_and_every_path_leads_to_it() {
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
async fn one_conference_is_one_however_it_is_written() {
    let usher = start("").await;
    let mut claims = visitor("room");
    claims["sub"] = "acme".into();
    let mut client = Client::connect(&usher, &claims).await;
    let topic = "/secured/conference/visitor/topic.Room@conference.acme.meet.example.com";
    client.subscribe("1", topic).await;
    usher.go_live(ROOM).await;
    client.hears_nothing().await;
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
async fn a_pace_releases_in_order_of_arrival() {
    let usher = start("queue.release_per_second = 2").await;
    let mut visitors = Vec::new();
    for _ in 0..5 {
        visitors.push(Client::wait(&usher, "room").await);
    }
    let begun = tokio::time::Instant::now();
    usher.go_live(ROOM).await;
    let mut seconds = Vec::new();
    for visitor in &mut visitors {
        assert_eq!(visitor.told().await["randomDelayMs"], 1000);
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
async fn who_comes_back_in_time_keeps_their_place() {
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
    first.told().await;
    second.told().await;
    let after = begun.elapsed();
    assert!(
        after >= Duration::from_millis(900),
        "the second came in with the first: {after:?}"
    );
}

#[tokio::test]
async fn a_restart_keeps_the_order_of_those_who_come_back() {
    let mut usher = start("").await;
    // One token for each: signed again a second later, it would be another.
    let same = visitor("room");
    let come = async |usher: &Usher, name: &str| {
        let mut claims = same.clone();
        claims["jti"] = name.into();
        let mut client = Client::connect(usher, &claims).await;
        client.subscribe("1", &visitor_topic("room")).await;
        client
    };
    let more = format!("auth.secret = \"{SECRET}\"\nqueue.release_per_second = 1");
    let mut waiting = Vec::new();
    for name in ["first", "second", "third"] {
        waiting.push(come(&usher, name).await);
    }
    usher.counts(3).await;
    usher = Usher::start_in(usher.stop().await, &more).await;
    drop(waiting);
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    // Nobody comes back in order, and somebody new is quicker than all.
    for name in ["new", "third", "second", "first"] {
        let mut client = come(&usher, name).await;
        let told = std::sync::Arc::clone(&told);
        tasks.push(tokio::spawn(async move {
            client.told().await;
            told.lock().unwrap().push(name);
        }));
    }
    usher.counts(4).await;
    usher.go_live(ROOM).await;
    for task in tasks {
        task.await.unwrap();
    }
    let told = told.lock().unwrap().clone();
    assert_eq!(told, ["first", "second", "third", "new"]);
}

#[tokio::test]
async fn being_live_survives_a_restart_and_ends_by_itself() {
    let usher = start("queue.live_ttl = \"5s\"").await;
    usher.go_live(ROOM).await;
    let dir = usher.stop().await;
    let more = format!("auth.secret = \"{SECRET}\"\nqueue.live_ttl = \"5s\"");
    let usher = Usher::start_in(dir, &more).await;
    Client::wait(&usher, "room").await.told().await;
    for _ in 0..500 {
        if usher.status(ROOM).await["live"] == false {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Client::wait(&usher, "room").await.hears_nothing().await;
}

#[tokio::test]
async fn the_end_of_the_conference_ends_being_live() {
    let usher = start("").await;
    let conference = usher.open("room").await.id();
    usher.go_live(ROOM).await;
    usher.delete(&format!("/conference/{conference}")).await;
    for _ in 0..200 {
        if usher.status(ROOM).await["live"] == false {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still live: {}", usher.status(ROOM).await);
}

#[tokio::test]
async fn a_conference_that_is_live_already_is_allocated_as_such() {
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
async fn a_booking_can_go_live_by_itself() {
    let usher = start("").await;
    let mut booking = json!({
        "room": "room", "start": in_seconds(5), "end": in_seconds(60), "waiting_queue": true, "auto_live": 0,
    });
    usher.book(&booking).await;
    let mut visitor = Client::wait(&usher, "room").await;
    assert_eq!(usher.status(ROOM).await["waitingQueue"], true);
    visitor.hears_nothing().await;
    visitor.told().await;
    // Once, and not again after somebody ended it.
    usher.end_live(ROOM).await;
    Client::wait(&usher, "room").await.hears_nothing().await;
    booking["room"] = "other".into();
    booking["waiting_queue"] = false.into();
    let refused = usher.json(Method::POST, "/api/v1/bookings", &booking).await;
    assert!(refused.refused(400).starts_with("auto_live: "));
}

#[tokio::test]
async fn going_live_takes_a_conference_and_a_service_token() {
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
async fn conferences_are_listed_for_dashboards_and_shims() {
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
async fn a_service_token_may_wait_for_any_conference() {
    let usher = start("").await;
    let mut jigasi = Client::connect(&usher, &service()).await;
    jigasi.subscribe("1", &visitor_topic("room")).await;
    usher.go_live(ROOM).await;
    jigasi.told().await;
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
async fn a_token_that_does_not_fit_is_refused_with_the_reason() {
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
async fn a_token_that_is_not_good_is_refused_at_connect() {
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
    tokens.push("x".repeat(20_000));
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
            error.header("message").contains("neither wait nor watch"),
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
async fn the_sample_may_repeat_its_token_with_subscribe() {
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

/// A WebSocket from an address, as a proxy on the loopback tells of it.
async fn dial_from(usher: &Usher, address: &str) -> Result<Client, Error> {
    let headers = [("x-forwarded-for", address)];
    Client::dial(usher, "/waiting-queue/visitor/websocket", &headers).await
}

/// CONNECT and SUBSCRIBE on it; what comes back of the latter.
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

/// The refusal of a handshake: its status and message.
fn turned_away(outcome: Result<Client, Error>) -> (u16, String) {
    let Err(Error::Http(response)) = outcome else {
        panic!("let in, or worse");
    };
    let body: Value = serde_json::from_slice(response.body().as_deref().unwrap()).unwrap();
    let message = body["message"].as_str().unwrap().to_owned();
    (response.status().as_u16(), message)
}

/// Waits until a WebSocket is let in, as one before it has left.
async fn let_in(dial: impl AsyncFn() -> Result<Client, Error>) -> Client {
    for _ in 0..500 {
        if let Ok(client) = dial().await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nobody is let in");
}

/// Three come with one token, and two of them may.
async fn two_get_in(usher: &Usher, token: &str, topic: &str) -> Vec<Client> {
    let mut inside = Vec::new();
    for command in ["RECEIPT", "RECEIPT", "ERROR"] {
        let mut client = Client::open(usher).await;
        let answer = subscribe_with(&mut client, token, "1", topic).await;
        assert_eq!(answer.command, command, "{answer:?}");
        assert!(command == "RECEIPT" || answer.header("message").contains("with this token"));
        inside.push(client);
    }
    inside
}

#[tokio::test]
async fn no_more_wait_with_a_token_than_may() {
    let usher = start("queue.max_per_token = 2").await;
    let (token, topic) = (sign(&visitor("room")), visitor_topic("room"));
    let mut inside = two_get_in(&usher, &token, &topic).await;
    // Service tokens are not counted.
    for _ in 0..3 {
        let mut client = Client::open(&usher).await;
        let answer = subscribe_with(&mut client, &sign(&service()), "1", &topic).await;
        assert_eq!(answer.command, "RECEIPT", "{answer:?}");
        inside.push(client);
    }
}

#[tokio::test]
async fn no_more_watch_with_a_token_than_may() {
    let usher = start("queue.max_per_token = 2").await;
    let (token, topic) = (sign(&moderator("room")), state_topic("room"));
    let mut inside = two_get_in(&usher, &token, &topic).await;
    // One leaves, and another may come.
    inside[0].send("UNSUBSCRIBE\nid:1\nreceipt:u\n\n\0").await;
    while inside[0].frame().await.command != "RECEIPT" {}
    let mut client = Client::open(&usher).await;
    let answer = subscribe_with(&mut client, &token, "1", &topic).await;
    assert_eq!(answer.command, "RECEIPT", "{answer:?}");
}

#[tokio::test]
async fn no_more_connect_from_an_address_than_may_whatever_they_do_there() {
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
    let (status, message) = turned_away(dial().await);
    assert_eq!(status, 429);
    assert!(message.contains("queue.max_per_address"), "{message}");
    // Others are not concerned, and the loopback is nobody.
    let mut others = vec![dial_from(&usher, "192.0.2.2").await.unwrap()];
    for _ in 0..5 {
        others.push(dial_from(&usher, "127.0.0.1").await.unwrap());
    }
    silent.vanish();
    let _another = let_in(dial).await;
}

#[tokio::test]
async fn one_connection_waits_no_more_often_than_its_address_may() {
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
async fn a_crowd_does_not_keep_prosody_out() {
    let usher = start("server.max_connections = 40").await;
    let dial = async || Client::dial(&usher, "/waiting-queue/visitor/websocket", &[]).await;
    let mut crowd = Vec::new();
    let refusal = loop {
        match dial().await {
            Ok(client) => crowd.push(client),
            refused => break turned_away(refused),
        }
    };
    // One is the requests' own, and two are kept.
    assert!((36..=38).contains(&crowd.len()), "{}", crowd.len());
    assert_eq!(refusal.0, 503);
    assert!(refusal.1.contains("server.max_connections"), "{refusal:?}");
    for _ in 0..5 {
        turned_away(dial().await);
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
    let _another = let_in(dial).await;
}

#[tokio::test]
async fn a_token_must_be_good_still_when_something_is_subscribed_to() {
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
    // Who came in time goes on waiting.
    usher.go_live(ROOM).await;
    early.told().await;
}

#[tokio::test]
async fn a_session_waits_once_for_a_conference() {
    let usher = start("").await;
    let mut client = Client::wait(&usher, "room").await;
    // However it is written.
    let topic = "/secured/conference/visitor/topic.ROOM@conference.meet.example.com";
    client
        .send(&format!("SUBSCRIBE\nid:2\ndestination:{topic}\n\n\0"))
        .await;
    let (error, _) = client.refused().await;
    assert!(
        error.header("message").contains("one subscription"),
        "{error:?}"
    );
    usher.counts(0).await;
}

#[tokio::test]
async fn ten_thousand_subscriptions_end_at_the_ninth() {
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
    panic!("places are still taken");
}

#[tokio::test]
async fn an_unlisted_path_or_a_plain_request_is_no_websocket() {
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
async fn the_best_offered_subprotocol_is_taken() {
    let usher = start("").await;
    let offer = [("sec-websocket-protocol", "v10.stomp, v12.stomp, v11.stomp")];
    Client::dial(&usher, "/waiting-queue/visitor/websocket", &offer)
        .await
        .unwrap();
    // Without a known one the library refuses an answer that names one.
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
async fn each_version_is_spoken() {
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
    // Without accept-version it is 1.0, which tells subscriptions apart by destination.
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
async fn frames_may_be_cut_and_joined_anywhere() {
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
    // The first of repeated headers counts, and escapes are put back.
    assert_eq!(frame.header("subscription"), "a\\cb");
}

#[tokio::test]
async fn unsubscribing_and_disconnecting_do_what_stomp_says() {
    let usher = start("").await;
    let mut client = Client::wait(&usher, "room").await;
    usher.counts(1).await;
    client.send("UNSUBSCRIBE\nid:1\nreceipt:bye\n\n\0").await;
    assert_eq!(client.frame().await.header("receipt-id"), "bye");
    usher.counts(0).await;
    usher.go_live(ROOM).await;
    client.hears_nothing().await;
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
async fn what_a_client_may_not_do_is_an_error_and_the_end() {
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
        ("MESSAGE\ndestination:/x\n\n\0".into(), "servers"),
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
async fn nothing_comes_before_connect() {
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
    // Half a frame and heart-beats are not CONNECT either.
    let mut slow = Client::open(&usher).await;
    slow.send("CONNECT\naccept").await;
    assert!(slow.refused().await.0.header("message").contains("CONNECT"));
}

#[tokio::test]
async fn large_messages_end_the_session_and_endless_heads_do_not_fill_memory() {
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
async fn heart_beats_are_sent_and_a_silent_client_is_gone_from_the_count() {
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
    // Now it falls silent.
    assert!(matches!(client.next().await, Incoming::Closed(Some(_))));
    assert!(client.beats >= 3, "{} beats", client.beats);
    usher.counts(0).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_nobody_up() {
    let usher = start("").await;
    let mut deaf = Vec::new();
    for _ in 0..20 {
        deaf.push(Client::wait(&usher, "room").await);
    }
    let mut others = all(50, |_| Client::wait(&usher, "room")).await;
    usher.go_live(ROOM).await;
    for other in &mut others {
        other.told().await;
    }
    drop(deaf);
}

/// It pumps frames that are to be answered, and never reads: it is not listened to any more, and then dropped.
#[tokio::test]
async fn a_client_that_pumps_and_reads_nothing_is_dropped() {
    let usher = start("").await;
    let slow = async || {
        let text = usher.request(Method::GET, "/metrics").send().await.unwrap();
        let text = text.text().await.unwrap();
        let line = "usher_sessions_ended_total{reason=\"slow\"} ";
        let value = text.lines().find_map(|found| found.strip_prefix(line));
        value.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    let before = slow().await;
    let mut other = Client::wait(&usher, "another").await;
    let mut deaf = Client::wait(&usher, "room").await;
    let ack = format!("ACK\nid:1\nreceipt:{}\n\n\0", "r".repeat(8000));
    let message = ack.repeat(8);
    let mut pumped = 0;
    let pump = async {
        while deaf.try_send(Message::text(message.clone())).await.is_ok() {
            pumped += message.len();
        }
    };
    let meanwhile = async {
        usher.go_live("another@conference.meet.example.com").await;
        other.told().await;
        for _ in 0..1500 {
            if slow().await > before && usher.status(ROOM).await["visitorsWaiting"] == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it waits still: {}", usher.status(ROOM).await);
    };
    tokio::join!(pump, meanwhile);
    // As much as the kernel takes for both ends, and no more: usher reads nothing that it can't answer.
    assert!(pumped > 0 && pumped < 64 << 20, "{pumped} bytes");
}

#[tokio::test]
async fn frames_without_an_end_are_cut_off() {
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
async fn half_a_frame_and_silence_is_silence() {
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
async fn on_shutdown_everybody_gets_a_close_and_no_error() {
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
async fn many_conferences_do_not_hear_each_other() {
    let usher = start("").await;
    let mut waiting = Vec::new();
    for n in 0..10 {
        waiting.push(Client::wait(&usher, &format!("room{n}")).await);
    }
    usher.go_live("room3@conference.meet.example.com").await;
    waiting.remove(3).told().await;
    tokio::time::sleep(QUIET).await;
    for mut other in waiting {
        other.hears_nothing().await;
    }
}
