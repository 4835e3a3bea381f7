//! Live conferences: their state ends with the conference, before the answer that ends it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Usher, in_seconds};
use crate::process::run;
use crate::queue::{ROOM, start};

/// Waits with a queue until the conference goes live, and is opened and live.
async fn live_conference(usher: &Usher, booking: &Value) -> (i64, i64) {
    let booking = usher.book(booking).await["id"].as_i64().unwrap();
    let allocation = usher.open("room").await.id();
    usher.go_live(ROOM).await;
    assert_eq!(usher.status(ROOM).await["live"], true);
    (booking, allocation)
}

async fn is_waiting_again(usher: &Usher, what: &str) {
    assert_eq!(usher.status(ROOM).await["live"], false, "{what}");
}

#[tokio::test]
async fn live_state_ends_before_the_answer_that_ends_the_conference() {
    let usher = start("reservations.policy = \"open\"").await;
    let booking = json!({ "room": "room", "end": in_seconds(600), "waiting_queue": true });
    for round in 0..5 {
        let (id, allocation) = live_conference(&usher, &booking).await;
        usher.delete(&format!("/conference/{allocation}")).await;
        is_waiting_again(&usher, "DELETE").await;
        let opened = usher.open("room").await;
        assert_eq!(opened.body.get("live"), None, "{round}: {}", opened.body);
        usher.go_live(ROOM).await;
        usher.delete(&format!("/api/v1/bookings/{id}")).await;
        is_waiting_again(&usher, "a cancelled booking").await;
    }
    for change in [
        json!({ "start": in_seconds(3000), "end": in_seconds(4000) }),
        json!({ "room": "another" }),
    ] {
        let (id, _) = live_conference(&usher, &booking).await;
        let path = format!("/api/v1/bookings/{id}");
        let changed = usher.json(Method::PATCH, &path, &change).await;
        assert_eq!(changed.status, 200, "{}", changed.body);
        is_waiting_again(&usher, &change.to_string()).await;
        usher.delete(&path).await;
    }
}

#[tokio::test]
async fn live_state_ends_with_the_booking_before_the_next_request_is_answered() {
    let usher = start("reservations.policy = \"open\"").await;
    let booking = json!({ "room": "room", "end": in_seconds(2), "waiting_queue": true });
    live_conference(&usher, &booking).await;
    loop {
        let opened = usher.open("room").await;
        if opened.status == 201 {
            assert_eq!(opened.body.get("live"), None, "{}", opened.body);
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    is_waiting_again(&usher, "the end of the booking").await;
}

#[tokio::test]
async fn live_state_without_an_open_room_ends_with_its_booking() {
    let usher = start("").await;
    let booking = json!({ "room": "room", "end": in_seconds(600), "waiting_queue": true });
    for change in [
        None,
        Some(json!({ "start": in_seconds(3000), "end": in_seconds(4000) })),
        Some(json!({ "room": "another" })),
    ] {
        let id = usher.book(&booking).await["id"].as_i64().unwrap();
        usher.go_live(ROOM).await;
        let path = format!("/api/v1/bookings/{id}");
        if let Some(change) = &change {
            usher.json(Method::PATCH, &path, change).await;
            is_waiting_again(&usher, &change.to_string()).await;
        }
        usher.delete(&path).await;
        is_waiting_again(&usher, "a cancelled booking").await;
    }
    // A booking of another time does not end it.
    usher.go_live(ROOM).await;
    let later = json!({ "room": "room", "start": in_seconds(8000), "end": in_seconds(9000) });
    let id = usher.book(&later).await["id"].as_i64().unwrap();
    usher.delete(&format!("/api/v1/bookings/{id}")).await;
    assert_eq!(usher.status(ROOM).await["live"], true);
}

#[tokio::test]
async fn cancelling_on_the_command_line_ends_the_live_state_of_the_running_service() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().to_owned();
    let text = format!(
        "server.listen = \"127.0.0.1:0\"\ndatabase.url = \"sqlite:{}\"\n",
        path.join("usher.db").display()
    );
    std::fs::write(path.join("config.toml"), text).unwrap();
    let usher = Usher::start_in(dir, "").await;
    let booking = json!({ "room": "room", "end": in_seconds(600), "waiting_queue": true });
    let (id, _) = live_conference(&usher, &booking).await;
    let done =
        tokio::task::spawn_blocking(move || run(&path, &["bookings", "cancel", &id.to_string()]));
    let done = done.await.unwrap();
    assert!(done.status.success(), "{done:?}");
    // A second, not the thirty that a whole comparison would wait.
    for _ in 0..500 {
        if usher.status(ROOM).await["live"] == false {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still live: {}", usher.status(ROOM).await);
}
