//! The protocol of usher's modules for Prosody under bad input and faults; `/api/v1/conferences`.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::harness::{Answer, Usher};
use crate::prosody::{Modules, booking, eventually, post, request, room, soon};
use crate::queue::ROOM;
use crate::scripted::{Reply, Scripted, conference};
use crate::stomp::{Client, SECRET};

fn gateway_to(server: &Scripted, extra: &str) -> String {
    format!(
        "reservations.backend = \"upstream\"\n[reservations.upstream]\nurl = \"http://{}\"\nretry_count = 0\n{extra}",
        server.address
    )
}

fn named(name: &str) -> String {
    format!("{name}@conference.meet.example.com")
}

fn create(id: &str, name: &str) -> Value {
    request(id, "iq", json!({ "room": named(name) }))
}

#[tokio::test]
async fn a_gateway_that_hangs_for_one_room_holds_up_no_other() {
    let server = Scripted::start(|request| match request.body.contains("name=slow") {
        true => Reply::Nothing,
        false => Reply::Json(201, conference(8, "quick")),
    })
    .await;
    let usher = Usher::start(&gateway_to(&server, "deadline = \"3s\"")).await;
    let mut modules = Modules::new("one");
    modules.options["timeout"] = json!(1);
    modules.connect(&usher).await;
    let begun = Instant::now();
    let both = json!({ "requests": [create("r1", "slow"), create("r2", "quick")] });
    let answer = modules.post(&usher, both).await;
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        answer["decisions"],
        json!([{ "id": "r2", "action": "allow" }])
    );
    assert_eq!(answer["pending"], json!(["r1"]));
    assert_eq!(answer["rooms"].as_array().unwrap().len(), 1, "{answer}");
    // A POST of its own is not held up either.
    let next = json!({ "requests": [create("r3", "quick")] });
    let answer = modules.post(&usher, next).await;
    assert_eq!(answer["decisions"][0]["action"], "allow");
    // The decision that took longer arrives in a long poll, once.
    let late = timeout(Duration::from_secs(15), modules.begin_poll(&usher, 0));
    let late = late.await.unwrap().unwrap();
    assert_eq!(late["decisions"][0]["id"], "r1");
    assert_eq!(late["decisions"][0]["action"], "fail");
    let after = late["revision"].as_u64().unwrap();
    let again = timeout(Duration::from_millis(300), modules.poll(&usher, after)).await;
    assert!(again.is_err(), "{again:?}");
}

#[tokio::test]
async fn a_late_decision_has_the_directive_of_its_room_and_a_repeated_request_joins_it() {
    let server = Scripted::start(|_| Reply::Json(201, conference(8, "room"))).await;
    let usher = Usher::start(&gateway_to(&server, "")).await;
    let mut modules = Modules::new("one");
    modules.options["timeout"] = json!(0);
    server.hold.send_replace(true);
    for _ in 0..2 {
        let answer = modules.ask(&usher, json!({})).await;
        assert_eq!(answer["pending"], json!(["r1"]));
        assert_eq!(answer["decisions"], json!([]));
    }
    let poll = modules.begin_poll(&usher, 0);
    server.hold.send_replace(false);
    let answer = soon(poll).await;
    assert_eq!(
        answer["decisions"],
        json!([{ "id": "r1", "action": "allow" }])
    );
    assert_eq!(answer["rooms"][0]["room"], ROOM);
    assert_eq!(server.lines(), ["POST /conference"]);
}

#[tokio::test]
async fn a_room_of_an_upstream_ends_there_when_it_is_gone() {
    let server = Scripted::start(|request| match request.method.as_str() {
        "DELETE" => Reply::Json(204, Value::Null),
        _ => Reply::Json(201, conference(8, "room")),
    })
    .await;
    let usher = Usher::start(&gateway_to(&server, "")).await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    modules.report(&usher, json!({})).await;
    let gone = json!({ "gone": [{ "room": ROOM, "seq": modules.seq + 1 }] });
    modules.post(&usher, gone).await;
    server.wait("DELETE /conference/8", 1).await;
}

#[tokio::test]
async fn a_gateway_that_fails_gives_no_decision_and_is_asked_again_for_a_room_that_was_let_in() {
    let server = Scripted::start(|_| Reply::Json(503, json!({ "message": "down" }))).await;
    let usher = Usher::start(&gateway_to(&server, "failures_max = 100")).await;
    let mut modules = Modules::new("one");
    let answer = modules.ask(&usher, json!({})).await;
    assert_eq!(answer["decisions"][0]["action"], "fail");
    assert_eq!(answer["decisions"][0]["code"], 503);
    // usher_on_failure = "allow": the room is there although it was not decided.
    assert_eq!(modules.report(&usher, json!({})).await, Value::Null);
    server.set_script(|_| Reply::Json(201, conference(8, "room")));
    let poll = timeout(Duration::from_secs(20), modules.begin_poll(&usher, 0));
    let answer = poll.await.unwrap().unwrap();
    assert_eq!(answer["rooms"][0]["live"], true);
}

#[tokio::test]
async fn another_protocol_and_bad_members_are_refused_as_a_whole() {
    let usher = Usher::start("").await;
    let mut modules = Modules::new("one");
    for (members, words) in [
        (json!({ "protocol": 2 }), "version 1, not 2"),
        (json!({ "instance": "" }), "1 to 64 characters"),
        (json!({ "instance": "a b" }), "1 to 64 characters"),
        (json!({ "rooms": {} }), "rooms: "),
        (json!({ "rooms": [{ "room": 7 }] }), "rooms: "),
        (
            json!({ "requests": [{ "id": "r1", "kind": "other", "room": ROOM }] }),
            "requests: ",
        ),
        (json!({ "seq": -1 }), "seq: "),
    ] {
        let message = modules.message(members.clone());
        let answer = post(&usher, &message).await;
        let message = answer.refused(400);
        assert!(message.contains(words), "{members}: {message}");
    }
    assert_eq!(
        usher.get("/api/v1/prosody/instances").await.body["instances"],
        json!([])
    );
    let missing = usher.get("/api/v1/prosody/rooms").await;
    assert!(missing.refused(400).contains("instance"));
    let unknown = usher
        .get("/api/v1/prosody/rooms?instance=other&after=1.7e%2B12")
        .await;
    assert!(unknown.refused(410).contains("report all rooms"));
    assert!(unknown.body["now"].is_f64());
}

#[tokio::test]
async fn the_protocol_requires_a_service_token() {
    let usher = Usher::start("").await;
    for (method, path) in [
        (Method::POST, "/api/v1/prosody/events"),
        (Method::GET, "/api/v1/prosody/rooms?instance=one"),
        (Method::GET, "/api/v1/prosody/instances"),
        (Method::GET, "/api/v1/conferences"),
        (Method::DELETE, "/api/v1/conferences/7"),
    ] {
        let answer = Answer::of(usher.client.request(method, usher.url(path))).await;
        answer.refused(401);
    }
}

#[tokio::test]
async fn a_room_that_cannot_be_is_rejected_alone() {
    let usher = Usher::start("").await;
    let mut modules = Modules::new("one");
    let health = "__jicofo-health-check-1@conference.meet.example.com";
    let rooms = [
        room("no-address", json!({})),
        room("room@conference.evil.org", json!({})),
        room(health, json!({})),
        room("[acme]standup@conference.meet.example.com", json!({})),
        // Another spelling of the same room.
        room(
            "standup@conference.acme.meet.example.com",
            json!({ "occupants": 9 }),
        ),
    ];
    let answer = modules.post(&usher, json!({ "rooms": rooms })).await;
    let rejected = answer["rejected"].as_array().unwrap();
    let names: Vec<_> = rejected
        .iter()
        .map(|it| it["room"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["no-address", "room@conference.evil.org"]);
    assert!(
        rejected[1]["message"]
            .as_str()
            .unwrap()
            .contains("is not a room of")
    );
    let directives = answer["rooms"].as_array().unwrap();
    assert_eq!(directives.len(), 1, "{answer}");
    assert_eq!(
        directives[0]["room"],
        "[acme]standup@conference.meet.example.com"
    );
    let foreign = request("r1", "iq", json!({ "room": "room@conference.evil.org" }));
    let exempt = request("r2", "iq", json!({ "room": health }));
    let answer = modules
        .post(&usher, json!({ "requests": [foreign, exempt] }))
        .await;
    let actions: Vec<_> = answer["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["action"])
        .collect();
    assert_eq!(actions, ["refuse", "allow"]);
}

#[tokio::test]
async fn five_thousand_rooms_are_reported_at_once() {
    let usher = Usher::start("").await;
    let mut modules = Modules::new("one");
    let rooms: Vec<_> = (0..5000)
        .map(|number| {
            room(
                &named(&format!("room-{number}")),
                json!({ "meetingId": "0c7b6a5e-6a5e-4a5e-8a5e-0c7b6a5e6a5e" }),
            )
        })
        .collect();
    let begun = Instant::now();
    let answer = modules
        .post(&usher, json!({ "all": true, "rooms": rooms }))
        .await;
    assert_eq!(answer["rooms"].as_array().unwrap().len(), 5000);
    let running = usher.get("/api/v1/conferences").await.body;
    let running = running["conferences"].as_array().unwrap();
    assert_eq!(running.len(), 5000);
    assert!(
        running
            .iter()
            .all(|it| it["live"] == true && it["id"].is_i64())
    );
    let answer = modules.connect(&usher).await;
    assert_eq!(answer["rooms"], json!([]));
    let running = usher.get("/api/v1/conferences").await.body;
    assert_eq!(running["conferences"], json!([]));
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let usher = Usher::start("").await;
    let body = vec![b' '; 4 * 1024 * 1024 + 1];
    let post = usher
        .request(Method::POST, "/api/v1/prosody/events")
        .body(body);
    Answer::of(post).await.refused(413);
    // Other paths keep their limit.
    let body = vec![b' '; 64 * 1024 + 1];
    let post = usher.request(Method::POST, "/api/v1/bookings").body(body);
    Answer::of(post).await.refused(413);
}

#[tokio::test]
async fn two_prosodys_end_only_their_own_rooms() {
    let usher = Usher::start("").await;
    let (mut one, mut two) = (Modules::new("one"), Modules::new("two"));
    one.ask(&usher, json!({})).await;
    one.report(&usher, json!({})).await;
    let other = named("other");
    two.post(
        &usher,
        json!({ "all": true, "rooms": [room(&other, json!({}))] }),
    )
    .await;
    let gone = json!({ "gone": [{ "room": ROOM, "seq": 9 }] });
    two.post(&usher, gone).await;
    let running = usher.get("/api/v1/conferences").await.body;
    assert_eq!(
        running["conferences"].as_array().unwrap().len(),
        2,
        "{running}"
    );
    // A changed booking reaches the Prosody that has the room.
    let poll = two.begin_poll(&usher, 0);
    usher
        .book(&booking(json!({ "room": "other", "password": "x" })))
        .await;
    assert_eq!(soon(poll).await["rooms"][0]["password"], "x");
}

#[tokio::test]
async fn another_module_may_reserve_conferences() {
    let usher = Usher::start("").await;
    usher.book(&booking(json!({ "waiting_queue": true }))).await;
    let id = usher.open("room").await.id();
    let mut modules = Modules::new("one");
    modules.features = vec!["queue", "metadata"];
    let directive = modules.report(&usher, json!({})).await;
    assert_eq!(directive["live"], false);
    assert_eq!(directive["schedule"], json!([]));
    let decided = json!({ "live": true, "live_is_ours": false });
    modules.report(&usher, decided).await;
    assert_eq!(usher.status(ROOM).await["live"], true);
    // Not even a room that is not booked is allocated.
    let other = modules
        .post(
            &usher,
            json!({ "rooms": [room(&named("other"), json!({}))] }),
        )
        .await;
    assert_eq!(other["rooms"][0]["live"], true);
    let gone = json!({ "gone": [{ "room": ROOM, "seq": modules.seq + 1 }] });
    modules.post(&usher, gone).await;
    assert_eq!(usher.status(ROOM).await["live"], false);
    let running = usher.get("/api/v1/conferences").await.body;
    let ids: Vec<_> = running["conferences"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it["id"].as_i64())
        .collect();
    assert_eq!(ids, [id]);
}

#[tokio::test]
async fn a_lobby_that_jitsi_does_not_have_refuses_the_room_if_configured() {
    for (config, action) in [
        ("", "allow"),
        ("prosody.without_lobby = \"refuse\"", "refuse"),
    ] {
        let usher = Usher::start(config).await;
        usher.book(&booking(json!({ "lobby": true }))).await;
        let mut modules = Modules::new("one");
        modules.features = vec!["reservations", "queue", "metadata"];
        let answer = modules.ask(&usher, json!({})).await;
        assert_eq!(answer["decisions"][0]["action"], action, "{answer}");
        let running = usher.get("/api/v1/conferences").await.body;
        let count = running["conferences"].as_array().unwrap().len();
        assert_eq!(count, usize::from(action == "allow"));
    }
}

#[tokio::test]
async fn the_list_of_conferences_has_what_runs_and_who_is_in() {
    let usher = Usher::start(&format!("auth.secret = \"{SECRET}\"")).await;
    let options = json!({
        "title": "Physics 1", "owner": "alice@example.com", "waiting_queue": true,
    });
    let booked = usher.book(&booking(options)).await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    let counts = json!({
        "occupants": 12, "moderators": 1.0, "visitors": 40, "meetingId": "m-1", "live": false,
    });
    modules.report(&usher, counts).await;
    let _visitor = Client::wait(&usher, "room").await;
    usher.open("stock").await;
    let list = usher.get("/api/v1/conferences").await.body;
    let list = list["conferences"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    let one = &list[0];
    for (member, value) in [
        ("conference", json!(ROOM)),
        ("room", json!("room")),
        ("title", json!("Physics 1")),
        ("owner", json!("alice@example.com")),
        ("mail_owner", json!("5fd2@meet.example.com")),
        ("booking", booked["id"].clone()),
        ("waiting_queue", json!(true)),
        ("live", json!(false)),
        ("visitors_waiting", json!(1)),
        ("reported", json!(true)),
        ("occupants", json!(12)),
        ("moderators", json!(1)),
        ("visitors", json!(40)),
        ("meeting_id", json!("m-1")),
        ("end", booked["end"].clone()),
    ] {
        assert_eq!(one[member], value, "{member}");
    }
    assert_eq!(list[1]["reported"], false);
    assert!(list[1].get("occupants").is_none());
    for id in [
        one["id"].to_string(),
        format!("{}.0", one["id"]),
        ROOM.to_owned(),
    ] {
        let found = usher.get(&format!("/api/v1/conferences/{id}")).await;
        assert_eq!(&found.body, one, "{id}");
    }
    let filtered = usher.get("/api/v1/conferences?room=Stock").await.body;
    assert_eq!(filtered["conferences"].as_array().unwrap().len(), 1);
    usher.get("/api/v1/conferences/999").await.refused(404);
    usher.get("/api/v1/conferences?limit=1").await.refused(400);
}

#[tokio::test]
async fn an_operator_ends_a_conference_and_prosody_closes_the_room() {
    let usher = Usher::start("").await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    modules.report(&usher, json!({})).await;
    let poll = modules.begin_poll(&usher, 0);
    let path = format!("/api/v1/conferences/{ROOM}");
    assert_eq!(usher.delete(&path).await.status, StatusCode::NO_CONTENT);
    let answer = soon(poll).await;
    let close = answer["rooms"][0]["schedule"][0]["close"].as_str().unwrap();
    assert!(close.contains("an operator ended it"), "{close}");
    assert_eq!(usher.status(ROOM).await["live"], false);
    // Reports of the room until it is closed open nothing.
    let directive = modules.report(&usher, json!({})).await;
    assert!(directive["schedule"][0]["close"].is_string());
    let gone = json!({ "gone": [{ "room": ROOM, "seq": modules.seq + 1 }] });
    modules.post(&usher, gone).await;
    eventually("the room is still there", async || {
        usher.delete(&path).await.status == StatusCode::NOT_FOUND
    })
    .await;
    // The room can be opened again.
    let answer = modules.ask(&usher, json!({})).await;
    assert_eq!(answer["decisions"][0]["action"], "allow");
}

#[tokio::test]
async fn a_conference_behind_the_stock_module_cannot_be_ended_from_here() {
    let usher = Usher::start("").await;
    let id = usher.open("room").await.id();
    let answer = usher.delete(&format!("/api/v1/conferences/{id}")).await;
    assert!(answer.refused(409).contains("can't be told to close"));
    let still = usher.get(&format!("/conference/{id}")).await;
    assert_eq!(still.status, StatusCode::OK);
}
