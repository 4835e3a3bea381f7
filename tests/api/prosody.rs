//! The protocol of usher's modules for Prosody as Prosody uses it: reports, requests, directives, long polls.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Answer, Usher, in_seconds, now};
use crate::queue::ROOM;

/// Liveness only: the benchmark measures how fast a change is delivered.
const SOON: Duration = Duration::from_secs(2);

/// Prosody with usher's modules: one instance.
pub(crate) struct Modules {
    instance: String,
    pub(crate) seq: u64,
    pub(crate) features: Vec<&'static str>,
    pub(crate) options: Value,
}

impl Modules {
    pub(crate) fn new(instance: &str) -> Self {
        Self {
            instance: instance.into(),
            seq: 0,
            features: vec!["reservations", "queue", "metadata", "lobby"],
            options: json!({ "timeout": 5, "warn_before": 300, "create_timeout": 60 }),
        }
    }

    pub(crate) fn message(&mut self, members: Value) -> Value {
        self.seq += 1;
        let mut message = json!({
            "protocol": 1, "shim": "0.2.0", "instance": self.instance, "seq": self.seq,
            "features": self.features, "options": self.options,
        });
        for (name, member) in members.as_object().unwrap() {
            message[name] = member.clone();
        }
        message
    }

    pub(crate) async fn post(&mut self, usher: &Usher, members: Value) -> Value {
        let message = self.message(members);
        let answer = post(usher, &message).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.body
    }

    /// Reports all rooms, as after a start.
    pub(crate) async fn connect(&mut self, usher: &Usher) -> Value {
        self.post(usher, json!({ "all": true })).await
    }

    /// Reports a room with an occupant; returns its directive.
    pub(crate) async fn report(&mut self, usher: &Usher, more: Value) -> Value {
        let answer = self
            .post(usher, json!({ "rooms": [room(ROOM, more)] }))
            .await;
        answer["rooms"][0].clone()
    }

    /// A user requests a conference; returns the answer.
    pub(crate) async fn ask(&mut self, usher: &Usher, more: Value) -> Value {
        let request = request("r1", "iq", more);
        self.post(usher, json!({ "requests": [request] })).await
    }

    pub(crate) async fn poll(&self, usher: &Usher, after: u64) -> Value {
        let answer = poll(usher, &self.instance, after).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.body
    }

    /// The revision after which nothing has changed yet.
    async fn revision(&self, usher: &Usher) -> u64 {
        // A decision or directive that is left would be in the next poll; a POST has no revision, so ask with 0.
        let waiting = timeout(Duration::from_millis(100), self.poll(usher, 0)).await;
        waiting.map_or(0, |answer| answer["revision"].as_u64().unwrap())
    }

    /// A long poll, begun now.
    pub(crate) fn begin_poll(&self, usher: &Usher, after: u64) -> JoinHandle<Value> {
        let path = format!(
            "/api/v1/prosody/rooms?instance={}&after={after}",
            self.instance
        );
        let request = usher.request(Method::GET, &path);
        tokio::spawn(async move { Answer::of(request).await.body })
    }
}

pub(crate) async fn post(usher: &Usher, message: &Value) -> Answer {
    usher
        .json(Method::POST, "/api/v1/prosody/events", message)
        .await
}

async fn poll(usher: &Usher, instance: &str, after: u64) -> Answer {
    let path = format!("/api/v1/prosody/rooms?instance={instance}&after={after}");
    usher.get(&path).await
}

fn merge(mut value: Value, more: Value) -> Value {
    for (name, member) in more.as_object().unwrap() {
        value[name] = member.clone();
    }
    value
}

/// A report of a room with one occupant.
pub(crate) fn room(jid: &str, more: Value) -> Value {
    merge(
        json!({ "room": jid, "occupied": true, "occupants": 1 }),
        more,
    )
}

pub(crate) fn request(id: &str, kind: &str, more: Value) -> Value {
    merge(
        json!({
            "id": id, "kind": kind, "room": ROOM, "from": "5fd2@meet.example.com",
            "user": { "id": "u-17", "email": "alice@example.com", "name": "Alice" },
        }),
        more,
    )
}

fn visitor() -> Value {
    json!({ "user": { "id": "v-1", "role": "visitor" } })
}

pub(crate) fn booking(more: Value) -> Value {
    merge(
        json!({ "room": "room", "start": in_seconds(-60), "end": in_seconds(3600) }),
        more,
    )
}

pub(crate) async fn soon(poll: JoinHandle<Value>) -> Value {
    timeout(SOON, poll).await.expect("no answer").unwrap()
}

async fn conference(usher: &Usher) -> Value {
    let answer = usher.get("/api/v1/conferences").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.body["conferences"][0].clone()
}

pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_allowed_request_has_the_directive_of_its_room() {
    let usher = Usher::start("").await;
    usher
        .book(&booking(
            json!({ "password": "s3cret", "max_occupants": 30, "lobby": true }),
        ))
        .await;
    let mut modules = Modules::new("one");
    modules.connect(&usher).await;
    let answer = modules.ask(&usher, json!({})).await;
    assert_eq!(
        answer["decisions"],
        json!([{ "id": "r1", "action": "allow" }])
    );
    let directive = &answer["rooms"][0];
    assert_eq!(directive["room"], ROOM);
    assert_eq!(directive["password"], "s3cret");
    assert_eq!(directive["max_occupants"], 30);
    assert_eq!(directive["lobby"], true);
    assert_eq!(directive["metadata"], json!({ "lobbyEnabled": true }));
    assert_eq!(directive["live"], true);
    let schedule = directive["schedule"].as_array().unwrap();
    assert_eq!(schedule.len(), 3);
    let end = schedule[2]["at"].as_i64().unwrap();
    assert_eq!(schedule[0]["timer"], true);
    assert_eq!(schedule[0]["ends_at"], end);
    assert_eq!(schedule[1]["at"], end - 300);
    assert!((now().timestamp() + 3600 - end).abs() < 5);
    assert!((answer["now"].as_f64().unwrap() - now().timestamp() as f64).abs() < 5.0);
}

#[tokio::test]
async fn the_rules_of_a_booking_are_directed_and_follow_its_changes() {
    let usher = Usher::start("").await;
    let rules = json!({
        "owner": "alice@example.com", "live_starters": "owner", "live_from_start": true,
        "soft_limit": 20, "moderators": ["u-17"], "waiting_queue": true,
    });
    let booked = usher.book(&booking(rules)).await;
    assert_eq!(booked["live_starters"], "owner");
    assert_eq!(booked["moderators"], json!(["u-17"]));
    let mut modules = Modules::new("one");
    let answer = modules.ask(&usher, json!({})).await;
    let directive = &answer["rooms"][0];
    assert_eq!(directive["go_live"]["owner"], "alice@example.com");
    assert!(directive["go_live"]["from"].as_i64().unwrap() <= now().timestamp());
    assert_eq!(directive["metadata"]["participantsSoftLimit"], 20);
    assert_eq!(directive["moderators"], json!(["u-17"]));
    modules.report(&usher, json!({})).await;
    let poll = modules.begin_poll(&usher, 0);
    let path = format!("/api/v1/bookings/{}", booked["id"]);
    let change = json!({ "owner": "bob@example.com", "live_from_start": null, "moderators": [] });
    let changed = usher.json(Method::PATCH, &path, &change).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    let answer = soon(poll).await;
    let directive = &answer["rooms"][0];
    assert_eq!(directive["go_live"], json!({ "owner": "bob@example.com" }));
    assert!(directive.get("moderators").is_none());
    let unowned = json!({ "room": "other", "live_starters": "owner" });
    let refused = usher.json(Method::POST, "/api/v1/bookings", &unowned).await;
    assert!(refused.refused(400).contains("only the owner may go live"));
}

#[tokio::test]
async fn a_refusal_is_for_the_user_who_asked() {
    let usher = Usher::start("").await;
    usher
        .book(&booking(
            json!({ "owner": "alice@example.com", "starters": "owner" }),
        ))
        .await;
    let mut modules = Modules::new("one");
    let bob = json!({ "user": { "email": "bob@example.com" } });
    let answer = modules.ask(&usher, bob).await;
    let decision = &answer["decisions"][0];
    assert_eq!(
        (&decision["action"], &decision["code"]),
        (&json!("refuse"), &json!(403))
    );
    let text = decision["text"].as_str().unwrap();
    assert!(text.contains("only the person who booked it"), "{text}");
    assert_eq!(answer["rooms"], json!([]));
    let answer = modules.ask(&usher, json!({})).await;
    assert_eq!(answer["decisions"][0]["action"], "allow");
}

#[tokio::test]
async fn a_whole_number_as_user_id_is_read_as_lua_writes_it() {
    let usher = Usher::start("").await;
    usher
        .book(&booking(json!({ "owner": "1001", "starters": "owner" })))
        .await;
    let mut modules = Modules::new("one");
    let answer = modules
        .ask(&usher, json!({ "user": { "id": 1001.0 } }))
        .await;
    assert_eq!(answer["decisions"][0]["action"], "allow");
}

#[tokio::test]
async fn a_visitor_of_a_conference_with_a_queue_goes_to_the_queue_and_makes_no_room() {
    let usher = Usher::start("").await;
    usher.book(&booking(json!({ "waiting_queue": true }))).await;
    let mut modules = Modules::new("one");
    let answer = modules.ask(&usher, visitor()).await;
    assert_eq!(answer["decisions"][0]["action"], "queue");
    let create = request("r2", "create", visitor());
    let answer = modules.post(&usher, json!({ "requests": [create] })).await;
    assert_eq!(answer["decisions"][0]["action"], "refuse");
    assert_eq!(conference(&usher).await, Value::Null);
}

#[tokio::test]
async fn a_room_that_the_focus_makes_waits_for_its_owner() {
    let usher = Usher::start("").await;
    usher
        .book(&booking(
            json!({ "owner": "alice@example.com", "starters": "owner" }),
        ))
        .await;
    let mut modules = Modules::new("one");
    let focus = json!({ "from": "", "user": {} });
    let create = request("r1", "create", focus);
    let answer = modules.post(&usher, json!({ "requests": [create] })).await;
    assert_eq!(answer["decisions"][0]["action"], "await_owner");
    let text = answer["rooms"][0]["await_owner"].as_str().unwrap();
    assert!(text.contains("Wait for them"), "{text}");
    let empty = json!({ "occupied": false, "occupants": 0 });
    let directive = modules.report(&usher, empty).await;
    assert!(directive["await_owner"].is_string());

    let bob = json!({ "user": { "email": "bob@example.com" } });
    let join = request("r2", "join", bob);
    let answer = modules.post(&usher, json!({ "requests": [join] })).await;
    assert_eq!(answer["decisions"][0]["action"], "refuse");
    let join = request("r3", "join", json!({}));
    let answer = modules.post(&usher, json!({ "requests": [join] })).await;
    assert_eq!(answer["decisions"][0]["action"], "allow");
    assert!(answer["rooms"][0].get("await_owner").is_none());
}

#[tokio::test]
async fn a_room_whose_owner_does_not_come_is_closed() {
    let usher = Usher::start("").await;
    usher
        .book(&booking(
            json!({ "owner": "alice@example.com", "starters": "owner" }),
        ))
        .await;
    let mut modules = Modules::new("one");
    modules.options["create_timeout"] = json!(1);
    let create = request("r1", "create", json!({ "from": "", "user": {} }));
    modules.post(&usher, json!({ "requests": [create] })).await;
    let empty = json!({ "occupied": false, "occupants": 0 });
    modules.report(&usher, empty).await;
    let poll = modules.begin_poll(&usher, 0);
    let answer = timeout(Duration::from_secs(10), poll)
        .await
        .unwrap()
        .unwrap();
    let close = answer["rooms"][0]["schedule"][0]["close"].as_str().unwrap();
    assert!(close.contains("Wait for them"), "{close}");
}

#[tokio::test]
async fn a_visitor_in_the_queue_makes_no_room_by_way_of_the_focus() {
    let usher = Usher::start("").await;
    let options = json!({
        "owner": "alice@example.com", "starters": "owner", "waiting_queue": true,
    });
    usher.book(&booking(options)).await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, visitor()).await;
    let create = request("r2", "create", json!({ "from": "", "user": {} }));
    let answer = modules.post(&usher, json!({ "requests": [create] })).await;
    assert_eq!(answer["decisions"][0]["action"], "refuse");
}

#[tokio::test]
async fn a_changed_booking_reaches_the_long_poll() {
    let usher = Usher::start("").await;
    let booked = usher.book(&booking(json!({}))).await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    let before = modules.report(&usher, json!({})).await;
    let after = modules.revision(&usher).await;
    let poll = modules.begin_poll(&usher, after);
    let path = format!("/api/v1/bookings/{}", booked["id"]);
    let change = json!({ "end": in_seconds(7200), "password": "new" });
    let changed = usher.json(Method::PATCH, &path, &change).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    let answer = soon(poll).await;
    let directive = &answer["rooms"][0];
    assert_eq!(directive["password"], "new");
    let end = directive["schedule"][2]["at"].as_i64().unwrap();
    assert!((now().timestamp() + 7200 - end).abs() < 5);
    assert!(directive["revision"].as_u64() > before["revision"].as_u64());
    // The next poll begins after this answer: there is nothing more.
    let next = answer["revision"].as_u64().unwrap();
    let waiting = timeout(Duration::from_millis(300), modules.poll(&usher, next)).await;
    assert!(waiting.is_err(), "{waiting:?}");
}

#[tokio::test]
async fn a_cancelled_booking_closes_the_room() {
    let usher = Usher::start("").await;
    let booked = usher.book(&booking(json!({}))).await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    modules.report(&usher, json!({})).await;
    let poll = modules.begin_poll(&usher, 0);
    let path = format!("/api/v1/bookings/{}", booked["id"]);
    assert_eq!(usher.delete(&path).await.status, StatusCode::NO_CONTENT);
    let answer = soon(poll).await;
    let entry = &answer["rooms"][0]["schedule"][0];
    let close = entry["close"].as_str().unwrap();
    assert!(close.contains("its booking was cancelled"), "{close}");
    assert!(entry["at"].as_i64().unwrap() <= now().timestamp() + 1);
}

#[tokio::test]
async fn a_conference_that_goes_live_automatically_reaches_the_long_poll() {
    let usher = Usher::start("").await;
    let options = json!({
        "start": in_seconds(-55), "waiting_queue": true, "auto_live": 1,
    });
    usher.book(&booking(options)).await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    let held = modules.report(&usher, json!({})).await;
    assert_eq!(held["live"], false);
    let poll = modules.begin_poll(&usher, 0);
    let answer = timeout(Duration::from_secs(20), poll)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer["rooms"][0]["live"], true);
}

#[tokio::test]
async fn an_unbooked_room_is_live_with_its_first_occupant_and_ends_with_the_room() {
    let usher = Usher::start("").await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    let empty = json!({ "occupied": false, "occupants": 0 });
    assert_eq!(modules.report(&usher, empty).await["live"], true);
    assert_eq!(usher.status(ROOM).await["live"], false);
    modules.report(&usher, json!({ "live": true })).await;
    assert_eq!(usher.status(ROOM).await["live"], true);
    let gone = json!({ "gone": [{ "room": ROOM, "seq": modules.seq + 1 }] });
    modules.post(&usher, gone).await;
    assert_eq!(usher.status(ROOM).await["live"], false);
    assert_eq!(conference(&usher).await, Value::Null);
}

#[tokio::test]
async fn a_moderator_goes_live_and_the_queue_is_released() {
    let usher = Usher::start("").await;
    usher.book(&booking(json!({ "waiting_queue": true }))).await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    assert_eq!(
        modules.report(&usher, json!({ "live": false })).await["live"],
        false
    );
    assert_eq!(usher.status(ROOM).await["live"], false);
    let decided = json!({ "live": true, "live_is_ours": false });
    assert_eq!(modules.report(&usher, decided).await["live"], true);
    assert_eq!(usher.status(ROOM).await["live"], true);
    let decided = json!({ "live": false, "live_is_ours": false });
    assert_eq!(modules.report(&usher, decided).await["live"], false);
    assert_eq!(usher.status(ROOM).await["live"], false);
}

#[tokio::test]
async fn golive_of_an_operator_reaches_the_room() {
    let usher = Usher::start("").await;
    usher.book(&booking(json!({ "waiting_queue": true }))).await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    modules.report(&usher, json!({ "live": false })).await;
    let poll = modules.begin_poll(&usher, 0);
    usher.go_live(ROOM).await;
    assert_eq!(soon(poll).await["rooms"][0]["live"], true);
}

#[tokio::test]
async fn the_end_of_a_room_comes_before_the_request_of_the_next() {
    let usher = Usher::start("reservations.default_duration = \"1h\"").await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    modules.report(&usher, json!({})).await;
    let first = conference(&usher).await["id"].clone();
    let gone = json!({ "room": ROOM, "seq": modules.seq + 1 });
    let next = request("r2", "iq", json!({}));
    let members = json!({ "gone": [gone], "requests": [next] });
    let answer = modules.post(&usher, members).await;
    assert_eq!(answer["decisions"][0]["action"], "allow");
    let second = conference(&usher).await["id"].clone();
    assert!(second.as_i64() > first.as_i64(), "{first} {second}");
    // Repeated in a later POST, the former end does not end the next conference.
    modules.post(&usher, json!({ "gone": [gone] })).await;
    assert_eq!(conference(&usher).await["id"], second);
}

#[tokio::test]
async fn an_earlier_report_that_arrives_later_is_ignored() {
    let usher = Usher::start("").await;
    usher.book(&booking(json!({ "waiting_queue": true }))).await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    let early = modules.message(json!({ "rooms": [room(ROOM, json!({ "live": false }))] }));
    let decided = json!({ "live": true, "live_is_ours": false });
    modules.report(&usher, decided).await;
    post(&usher, &early).await;
    assert_eq!(usher.status(ROOM).await["live"], true);
    // Nor does it bring back a room that is gone.
    let gone = json!({ "gone": [{ "room": ROOM, "seq": modules.seq + 1 }] });
    modules.post(&usher, gone).await;
    post(&usher, &early).await;
    assert_eq!(conference(&usher).await, Value::Null);
}

#[tokio::test]
async fn a_room_missing_in_a_list_of_all_is_gone() {
    let usher = Usher::start("").await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    modules.report(&usher, json!({})).await;
    assert_eq!(conference(&usher).await["live"], true);
    modules.connect(&usher).await;
    assert_eq!(conference(&usher).await, Value::Null);
}

#[tokio::test]
async fn rooms_that_were_opened_while_usher_was_away_are_allocated_or_closed() {
    let usher = Usher::start("reservations.policy = \"booked\"").await;
    usher.book(&booking(json!({}))).await;
    let mut modules = Modules::new("one");
    let other = "other@conference.meet.example.com";
    let rooms = [room(ROOM, json!({})), room(other, json!({}))];
    let answer = modules
        .post(&usher, json!({ "all": true, "rooms": rooms }))
        .await;
    assert_eq!(answer["rooms"][0]["live"], true);
    let close = answer["rooms"][1]["schedule"][0]["close"].as_str().unwrap();
    assert!(close.contains("is not booked"), "{close}");
    let running = usher.get("/api/v1/conferences").await.body;
    let rooms = running["conferences"].as_array().unwrap();
    let with_id: Vec<_> = rooms.iter().filter(|it| it.get("id").is_some()).collect();
    assert_eq!(with_id.len(), 1, "{running}");
    assert_eq!(with_id[0]["room"], "room");
}

#[tokio::test]
async fn an_allowed_room_that_never_appears_ends() {
    let usher = Usher::start("").await;
    let mut modules = Modules::new("one");
    modules.options["create_timeout"] = json!(1);
    modules.ask(&usher, json!({})).await;
    assert!(conference(&usher).await["id"].is_i64());
    eventually("the conference did not end", async || {
        conference(&usher).await.is_null()
    })
    .await;
}

#[tokio::test]
async fn an_absent_prosody_ends_what_it_opened_and_nothing_else() {
    let usher = Usher::start("prosody.absent_after = \"1s\"").await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    modules.report(&usher, json!({})).await;
    assert_eq!(usher.open("stock").await.status, StatusCode::CREATED);
    usher.go_live("stock@conference.meet.example.com").await;
    eventually("the conference did not end", async || {
        conference(&usher).await["room"] == "stock"
    })
    .await;
    assert_eq!(conference(&usher).await["live"], true);
    assert!(!poll(&usher, "one", 0).await.refused(410).is_empty());
}

#[tokio::test]
async fn an_open_long_poll_keeps_an_instance_present() {
    let usher = Usher::start("prosody.absent_after = \"1s\"").await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    modules.report(&usher, json!({})).await;
    let poll = modules.begin_poll(&usher, 0);
    sleep(Duration::from_secs(3)).await;
    assert!(conference(&usher).await["id"].is_i64());
    poll.abort();
}

#[tokio::test]
async fn a_restarted_prosody_keeps_the_rooms_that_it_reports() {
    let usher = Usher::start("prosody.absent_after = \"2s\"").await;
    let mut before = Modules::new("before");
    before.ask(&usher, json!({})).await;
    before.report(&usher, json!({})).await;
    let id = conference(&usher).await["id"].clone();
    let mut after = Modules::new("after");
    let all = json!({ "all": true, "rooms": [room(ROOM, json!({}))] });
    let answer = after.post(&usher, all).await;
    assert_eq!(answer["rooms"][0]["live"], true);
    let poll = after.begin_poll(&usher, 0);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(conference(&usher).await["id"], id);
    let instances = usher.get("/api/v1/prosody/instances").await.body;
    let names = &instances["instances"];
    assert_eq!(names.as_array().unwrap().len(), 1, "{instances}");
    assert_eq!(names[0]["instance"], "after");
    assert_eq!(names[0]["shim"], "0.2.0");
    poll.abort();
}

#[tokio::test]
async fn after_a_restart_of_usher_the_modules_report_everything_and_nothing_changes() {
    let usher = Usher::start("prosody.absent_after = \"3s\"").await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    let before = modules.report(&usher, json!({})).await;
    let id = conference(&usher).await["id"].clone();
    let poll_before = modules.begin_poll(&usher, 0);
    sleep(Duration::from_millis(300)).await;
    let dir = usher.stop().await;
    // A long poll does not delay the stop, and is answered.
    assert_eq!(soon(poll_before).await["rooms"], json!([]));

    let usher = Usher::start_in(dir, "prosody.absent_after = \"3s\"").await;
    assert_eq!(poll(&usher, "one", 7).await.status, StatusCode::GONE);
    // Without "all", a POST is answered as usual.
    let answer = modules
        .post(
            &usher,
            json!({ "requests": [request("r2", "iq", json!({}))] }),
        )
        .await;
    assert_eq!(answer["send_all"], true);
    assert_eq!(answer["decisions"][0]["action"], "allow");
    let all = json!({ "all": true, "rooms": [room(ROOM, json!({}))] });
    let answer = modules.post(&usher, all).await;
    assert!(answer.get("send_all").is_none());
    let directive = &answer["rooms"][0];
    assert_eq!(directive["schedule"], before["schedule"]);
    assert!(directive["revision"].as_u64() > before["revision"].as_u64());
    assert_eq!(conference(&usher).await["id"], id);
    assert_eq!(conference(&usher).await["live"], true);
}

#[tokio::test]
async fn what_no_prosody_reports_after_a_restart_of_usher_ends() {
    let usher = Usher::start("").await;
    let mut modules = Modules::new("one");
    modules.ask(&usher, json!({})).await;
    modules.report(&usher, json!({})).await;
    assert_eq!(usher.open("stock").await.status, StatusCode::CREATED);
    let dir = usher.stop().await;
    let usher = Usher::start_in(dir, "prosody.absent_after = \"1s\"").await;
    assert_eq!(conference(&usher).await["room"], "room");
    eventually("the conference did not end", async || {
        conference(&usher).await["room"] == "stock"
    })
    .await;
}
