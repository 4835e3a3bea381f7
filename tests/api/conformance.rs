//! What the STOMP specifications ask of a session, from outside. `tests/conformance/stomp.md` says which
//! sentence each test is about.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::harness::Usher;
use crate::stomp::{
    Client, Frame, Incoming, SECRET, moderator, sign, state_topic, visitor, visitor_topic,
};

const VERSIONS: [&str; 3] = ["1.0", "1.1", "1.2"];

async fn start() -> Usher {
    start_with("").await
}

async fn start_with(more: &str) -> Usher {
    let more = format!("auth.secret = \"{SECRET}\"\nqueue.state_interval = \"100ms\"\n{more}");
    Usher::start(&more).await
}

/// A visitor's session in one version.
async fn session(usher: &Usher, version: &str) -> Client {
    let mut client = Client::open(usher).await;
    assert_eq!(
        greet(&mut client, "CONNECT", version).await.command,
        "CONNECTED"
    );
    client
}

async fn greet(client: &mut Client, command: &str, versions: &str) -> Frame {
    let token = sign(&visitor("room"));
    client
        .send(&format!("{command}\naccept-version:{versions}\nheart-beat:0,0\nAuthorization:Bearer {token}\n\n\0"))
        .await;
    client.frame().await
}

fn subscribe(id: &str, more: &str) -> String {
    format!(
        "SUBSCRIBE\nid:{id}\ndestination:{}\n{more}\n\0",
        visitor_topic("room")
    )
}

/// Sends a frame that is to be refused; the ERROR that comes, after which the socket must close.
async fn refused(client: &mut Client, frame: &str) -> Frame {
    client.send(frame).await;
    client.refused().await.0
}

async fn go_live(usher: &Usher) {
    let body = json!({ "conference": "room@conference.meet.example.com" });
    let answer = usher
        .json(reqwest::Method::POST, "/waiting-queue/golive", &body)
        .await;
    assert_eq!(answer.status, 200);
}

async fn end_live(usher: &Usher) {
    let body = json!({ "conference": "room@conference.meet.example.com" });
    let answer = usher
        .json(reqwest::Method::POST, "/waiting-queue/endlive", &body)
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn unknown_command_gets_an_error_and_the_socket_closes() {
    let usher = start().await;
    for version in VERSIONS {
        let error = refused(&mut session(&usher, version).await, "HELLO\n\n\0").await;
        assert!(error.header("message").contains("HELLO"), "{error:?}");
    }
}

#[tokio::test]
async fn frame_beyond_a_limit_gets_an_error_and_the_socket_closes() {
    let usher = start().await;
    let long = format!("SUBSCRIBE\nid:{}\n\n\0", "x".repeat(40_000));
    let many = format!("SUBSCRIBE\n{}\n\0", "a:b\n".repeat(100));
    let body = "SEND\ncontent-length:1000000\n\n".to_owned();
    for frame in [long, many, body] {
        refused(&mut session(&usher, "1.2").await, &frame).await;
    }
}

#[tokio::test]
async fn every_body_says_its_content_type() {
    let usher = start().await;
    go_live(&usher).await;
    let mut client = session(&usher, "1.2").await;
    client.send(&subscribe("1", "")).await;
    assert_eq!(
        client.frame().await.header("content-type"),
        "application/json"
    );
    let error = refused(&mut client, "SEND\n\n\0").await;
    assert_eq!(error.header("content-type"), "text/plain");
    assert_eq!(error.header("content-length"), error.body.len().to_string());
}

#[tokio::test]
async fn connect_needs_no_host() {
    let usher = start().await;
    for version in VERSIONS {
        // `session` sends none.
        session(&usher, version)
            .await
            .subscribe("1", &visitor_topic("room"))
            .await;
    }
    let mut client = Client::open(&usher).await;
    let named = client
        .connect_with(
            &format!("Bearer {}", sign(&visitor("room"))),
            "host:anything\n",
        )
        .await;
    assert_eq!(named.command, "CONNECTED");
}

#[tokio::test]
async fn refused_connect_is_told_why_and_the_socket_closes() {
    let usher = start().await;
    let mut client = Client::open(&usher).await;
    let error = refused(&mut client, "CONNECT\naccept-version:1.2\n\n\0").await;
    assert!(error.header("message").contains("token"), "{error:?}");
}

#[tokio::test]
async fn connected_names_the_session() {
    let usher = start().await;
    let mut names = BTreeSet::new();
    for version in VERSIONS {
        let connected = greet(&mut Client::open(&usher).await, "CONNECT", version).await;
        assert!(!connected.header("session").is_empty());
        names.insert(connected.header("session").to_owned());
    }
    assert_eq!(names.len(), VERSIONS.len());
}

#[tokio::test]
async fn session_speaks_the_highest_common_version() {
    let usher = start().await;
    for (accepted, version) in [
        ("1.0,1.1,1.2,2.0", "1.2"),
        ("1.1,1.0", "1.1"),
        ("9,1.0", "1.0"),
    ] {
        let mut client = Client::open(&usher).await;
        assert_eq!(
            greet(&mut client, "CONNECT", accepted)
                .await
                .header("version"),
            version
        );
        // In 1.0 a backslash is one; since 1.1 an undefined escape is fatal.
        client.send(&subscribe("a\\tb", "receipt:1\n")).await;
        let answer = client.frame().await.command;
        assert_eq!(answer, if version == "1.0" { "RECEIPT" } else { "ERROR" });
    }
}

#[tokio::test]
async fn client_of_unknown_versions_is_told_which_are_known() {
    let usher = start().await;
    let mut client = Client::open(&usher).await;
    let error = refused(&mut client, "CONNECT\naccept-version:3.0\n\n\0").await;
    assert_eq!(error.header("version"), "1.0,1.1,1.2");
    assert!(error.header("message").contains("1.2"), "{error:?}");
}

#[tokio::test]
async fn clients_may_come_and_go_quickly() {
    let usher = start().await;
    for n in 0..100 {
        let mut client = session(&usher, "1.2").await;
        match n % 3 {
            0 => client.vanish(),
            1 => client.close().await,
            _ => {
                client.send("DISCONNECT\n\n\0").await;
                assert!(matches!(client.next().await, Incoming::Closed(_)));
            }
        }
    }
    session(&usher, "1.2")
        .await
        .subscribe("1", &visitor_topic("room"))
        .await;
}

#[tokio::test]
async fn connected_offers_heart_beats() {
    let usher = start_with("queue.heart_beat = \"7s\"").await;
    for (version, offer) in [("1.0", ""), ("1.1", "7000,7000"), ("1.2", "7000,7000")] {
        let connected = greet(&mut Client::open(&usher).await, "CONNECT", version).await;
        assert_eq!(connected.header("heart-beat"), offer);
    }
}

#[tokio::test]
async fn clients_are_asked_for_heart_beats_that_a_hidden_tab_can_send() {
    for (config, offer) in [
        ("", "10000,75000"),
        ("queue.client_heart_beat = \"0s\"", "10000,0"),
        (
            "queue.heart_beat = \"7s\"\nqueue.client_heart_beat = \"70s\"",
            "7000,70000",
        ),
    ] {
        let usher = start_with(config).await;
        let connected = greet(&mut Client::open(&usher).await, "CONNECT", "1.2").await;
        assert_eq!(connected.header("heart-beat"), offer, "{config}");
    }
}

/// A session with heart-beats of a second both ways.
async fn beating(usher: &Usher, beats: &str) -> Client {
    let mut client = Client::open(usher).await;
    let token = sign(&visitor("room"));
    client
        .send(&format!(
            "CONNECT\naccept-version:1.2\nheart-beat:{beats}\nAuthorization:Bearer {token}\n\n\0"
        ))
        .await;
    assert_eq!(client.frame().await.command, "CONNECTED");
    client
}

#[tokio::test]
async fn quiet_session_gets_a_line_feed_in_each_interval() {
    let usher = start_with("queue.heart_beat = \"1s\"").await;
    let mut client = beating(&usher, "0,1000").await;
    let quiet = tokio::time::timeout(Duration::from_secs(4), client.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert!(
        (3..=5).contains(&client.beats),
        "{} beats in 4 seconds",
        client.beats
    );
}

#[tokio::test]
async fn client_that_falls_silent_is_gone_after_a_margin() {
    let usher = start_with("queue.heart_beat = \"1s\"").await;
    let mut client = beating(&usher, "1000,0").await;
    let silent_from = tokio::time::Instant::now();
    assert!(matches!(client.next().await, Incoming::Closed(Some(_))));
    let silent = silent_from.elapsed();
    assert!(
        silent > Duration::from_millis(1500),
        "no margin: {silent:?}"
    );
}

#[tokio::test]
async fn send_is_refused_and_the_socket_closes() {
    let usher = start().await;
    for version in VERSIONS {
        refused(
            &mut session(&usher, version).await,
            "SEND\ndestination:/a\n\nhello\0",
        )
        .await;
    }
}

#[tokio::test]
async fn refused_subscription_is_told_why_and_the_socket_closes() {
    let usher = start().await;
    for destination in [
        "/nowhere".to_owned(),
        visitor_topic("other"),
        state_topic("room"),
    ] {
        let frame = format!("SUBSCRIBE\nid:1\ndestination:{destination}\n\n\0");
        let error = refused(&mut session(&usher, "1.2").await, &frame).await;
        assert!(error.header("message").len() > 10);
    }
}

#[tokio::test]
async fn ack_mode_must_be_one_of_the_three() {
    let usher = start().await;
    for mode in ["auto", "client", "client-individual"] {
        let mut client = session(&usher, "1.2").await;
        client
            .send(&subscribe("1", &format!("ack:{mode}\nreceipt:1\n")))
            .await;
        assert_eq!(client.frame().await.command, "RECEIPT", "{mode}");
    }
    refused(
        &mut session(&usher, "1.2").await,
        &subscribe("1", "ack:perhaps\n"),
    )
    .await;
}

#[tokio::test]
async fn unacknowledged_message_is_not_sent_again() {
    let usher = start().await;
    go_live(&usher).await;
    let mut client = session(&usher, "1.2").await;
    client
        .send(&subscribe("1", "ack:client-individual\n"))
        .await;
    assert_eq!(client.frame().await.command, "MESSAGE");
    client.receives_nothing().await;
}

#[tokio::test]
async fn unsubscribed_client_gets_no_more_messages() {
    let usher = start().await;
    let mut client = session(&usher, "1.2").await;
    client.subscribe("1", &visitor_topic("room")).await;
    client.send("UNSUBSCRIBE\nid:1\nreceipt:u\n\n\0").await;
    assert_eq!(client.frame().await.header("receipt-id"), "u");
    go_live(&usher).await;
    client.receives_nothing().await;
}

#[tokio::test]
async fn disconnect_gets_its_receipt_then_the_socket_closes() {
    let usher = start().await;
    for version in VERSIONS {
        let mut client = session(&usher, version).await;
        client
            .send(&format!(
                "{}DISCONNECT\nreceipt:d\n\n\0",
                subscribe("1", "receipt:s\n")
            ))
            .await;
        assert_eq!(client.frame().await.header("receipt-id"), "s");
        assert_eq!(client.frame().await.header("receipt-id"), "d");
        assert!(matches!(client.next().await, Incoming::Closed(Some(_))));
    }
}

#[tokio::test]
async fn message_names_destination_subscription_and_a_unique_id() {
    let usher = start().await;
    for version in VERSIONS {
        let mut client = session(&usher, version).await;
        go_live(&usher).await;
        let mut ids = BTreeSet::new();
        for id in ["my id", "another"] {
            client.subscribe(id, &visitor_topic("room")).await;
            let message = client.frame().await;
            assert_eq!(message.command, "MESSAGE");
            assert_eq!(message.header("destination"), visitor_topic("room"));
            assert_eq!(message.header("subscription"), id);
            ids.insert(message.header("message-id").to_owned());
            client.send(&format!("UNSUBSCRIBE\nid:{id}\n\n\0")).await;
        }
        assert_eq!(ids.len(), 2);
        end_live(&usher).await;
    }
}

#[tokio::test]
async fn message_to_be_acknowledged_says_how() {
    let usher = start().await;
    go_live(&usher).await;
    for (mode, has_ack) in [
        ("auto", false),
        ("client", true),
        ("client-individual", true),
    ] {
        let mut client = session(&usher, "1.2").await;
        client.send(&subscribe("1", &format!("ack:{mode}\n"))).await;
        assert_eq!(
            client.frame().await.headers.contains_key("ack"),
            has_ack,
            "{mode}"
        );
    }
}

#[tokio::test]
async fn every_frame_that_asks_for_a_receipt_gets_it() {
    let usher = start().await;
    let mut client = session(&usher, "1.2").await;
    for (n, frame) in [
        format!("SUBSCRIBE\nid:1\ndestination:{}\n", visitor_topic("room")),
        "ACK\nid:1\n".into(),
        "NACK\nid:1\n".into(),
        "UNSUBSCRIBE\nid:1\n".into(),
        "DISCONNECT\n".into(),
    ]
    .iter()
    .enumerate()
    {
        client
            .send(&format!("{frame}receipt:number\\c {n}\n\n\0"))
            .await;
        let receipt = client.frame().await;
        assert_eq!(receipt.command, "RECEIPT");
        assert_eq!(receipt.header("receipt-id"), format!("number\\c {n}"));
        assert!(receipt.body.is_empty());
    }
}

#[tokio::test]
async fn every_error_is_followed_by_a_close() {
    let usher = start().await;
    // `refused` sees to the close.
    for frame in [
        "SEND\n\n\0",
        "nonsense\n",
        "SUBSCRIBE\nid\n\n\0",
        "CONNECTED\n\n\0",
        "\0",
    ] {
        refused(&mut session(&usher, "1.1").await, frame).await;
    }
}

#[tokio::test]
async fn every_error_says_why() {
    let usher = start().await;
    for frame in [
        "SEND\n\n\0",
        "nonsense\n",
        "SUBSCRIBE\nid\n\n\0",
        "UNSUBSCRIBE\nid:1\n\n\0",
    ] {
        let error = refused(&mut session(&usher, "1.2").await, frame).await;
        assert_eq!(error.header("message"), error.body);
        assert!(error.body.len() > 10);
    }
}

#[tokio::test]
async fn error_carries_the_receipt_of_the_frame_at_fault() {
    let usher = start().await;
    let error = refused(&mut session(&usher, "1.2").await, "SEND\nreceipt:r 7\n\n\0").await;
    assert_eq!(error.header("receipt-id"), "r 7");
}

#[tokio::test]
async fn a_moderators_session_is_bound_by_the_same_rules() {
    let usher = start().await;
    let mut client = Client::connect(&usher, &moderator("room")).await;
    client.subscribe("s", &state_topic("room")).await;
    assert_eq!(client.count().await, 0);
    refused(&mut client, "SEND\n\n\0").await;
}
