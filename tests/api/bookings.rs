//! Bookings over the API, and their effect on requests for rooms.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, Usher, all, in_seconds, now};

const BOOKED: &str = "reservations.policy = \"booked\"";
const PATH: &str = "/api/v1/bookings";

/// A booking of one hour that starts `from` seconds from now.
fn hour(room: &str, from: i64) -> Value {
    json!({ "room": room, "start": in_seconds(from), "end": in_seconds(from + 3600) })
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn booking_is_made_read_changed_and_cancelled() {
    let usher = Usher::start("").await;
    let sent = with(
        hour("Été 2026", 600),
        json!({
            "tenant": "Acme", "title": "Summer", "owner": "alice@example.com", "max_occupants": 12,
            "lobby": true, "waiting_queue": true, "starters": "owner",
        }),
    );
    let made = usher.book(&sent).await;
    assert_eq!(made["room"], "%c3%a9t%c3%a9%202026");
    assert_eq!(made["tenant"], "acme");
    for field in [
        "title",
        "owner",
        "max_occupants",
        "lobby",
        "waiting_queue",
        "starters",
    ] {
        assert_eq!(made[field], sent[field], "{field}");
    }
    let path = format!("{PATH}/{}", made["id"]);
    assert_eq!(usher.get(&path).await.body, made);

    let changes = json!({ "title": "Autumn", "max_occupants": null });
    let changed = usher.json(Method::PATCH, &path, &changes).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    assert_eq!(changed.body["title"], "Autumn");
    assert!(changed.body.get("max_occupants").is_none());
    assert_eq!(changed.body["owner"], "alice@example.com");

    let whole = usher
        .json(Method::PUT, &path, &hour("Été 2026", 1200))
        .await;
    assert_eq!(whole.status, StatusCode::OK, "{}", whole.body);
    assert!(whole.body.get("title").is_none() && whole.body.get("tenant").is_none());

    assert_eq!(usher.delete(&path).await.status, StatusCode::NO_CONTENT);
    usher.get(&path).await.refused(404);
    usher.delete(&path).await.refused(404);
    usher
        .json(Method::PATCH, &path, &changes)
        .await
        .refused(404);
}

#[tokio::test]
async fn new_booking_has_a_location_header() {
    let usher = Usher::start("").await;
    let answer = usher.json(Method::POST, PATH, &hour("room", 60)).await;
    assert_eq!(
        answer.headers["location"],
        format!("{PATH}/{}", answer.id()).as_str()
    );
}

#[tokio::test]
async fn password_is_never_returned() {
    let usher = Usher::start(BOOKED).await;
    let made = usher
        .book(&with(hour("room", 0), json!({ "password": "hunter2" })))
        .await;
    assert_eq!(made["password_set"], true);
    let path = format!("{PATH}/{}", made["id"]);
    let renamed = usher
        .json(Method::PATCH, &path, &json!({ "title": "t" }))
        .await;
    for shown in [
        &made,
        &usher.get(&path).await.body,
        &usher.get(PATH).await.body,
        &renamed.body,
    ] {
        assert!(!shown.to_string().contains("hunter2"), "{shown}");
    }
    // Only Prosody receives it.
    assert_eq!(usher.open("room").await.body["password"], "hunter2");
    assert!(!format!("{:?}", usher.decisions("").await).contains("hunter2"));
    let cleared = usher
        .json(Method::PATCH, &path, &json!({ "password": null }))
        .await;
    assert_eq!(cleared.body["password_set"], false);
}

#[tokio::test]
async fn malformed_bookings_name_the_field() {
    let usher = Usher::start("").await;
    let bad = [
        (json!({ "start": in_seconds(0) }), "room"),
        (with(hour("", 0), json!({})), "room"),
        (with(hour("room", 0), json!({ "room": 7 })), "room"),
        (with(hour("a\u{0}b", 0), json!({})), "room"),
        (with(hour("[x]room", 0), json!({ "tenant": "y" })), "room"),
        (with(hour("[x.y]room", 0), json!({})), "room"),
        (with(hour("room", 0), json!({ "tenant": "x.y" })), "tenant"),
        (
            with(hour("room", 0), json!({ "start": "tomorrow" })),
            "start",
        ),
        (
            with(hour("room", 0), json!({ "start": "2026-12-01T14:00:00" })),
            "start",
        ),
        (
            with(hour("room", 0), json!({ "end": in_seconds(-10) })),
            "end",
        ),
        (
            json!({ "room": "room", "start": in_seconds(-7200), "end": in_seconds(-3600) }),
            "end",
        ),
        (
            with(hour("room", 0), json!({ "max_occupants": 0 })),
            "max_occupants",
        ),
        (
            with(hour("room", 0), json!({ "max_occupants": "5" })),
            "max_occupants",
        ),
        (with(hour("room", 0), json!({ "lobby": "yes" })), "lobby"),
        (with(hour("room", 0), json!({ "password": "" })), "password"),
        (
            with(hour("room", 0), json!({ "title": "x".repeat(201) })),
            "title",
        ),
        (
            with(hour("room", 0), json!({ "starters": "everybody" })),
            "starters",
        ),
        (
            with(hour("room", 0), json!({ "starters": "owner" })),
            "owner",
        ),
        (with(hour("room", 0), json!({ "strat": 1 })), "strat"),
    ];
    for (body, field) in bad {
        let answer = usher.json(Method::POST, PATH, &body).await;
        let message = answer.refused(400);
        assert!(
            message.starts_with(&format!("{field}: ")),
            "{body}: {message}"
        );
    }
    assert_eq!(usher.get(PATH).await.body["bookings"], json!([]));
    let request = || usher.request(Method::POST, PATH);
    let send = crate::harness::Answer::of;
    send(
        request()
            .header("Content-Type", "application/json")
            .body("{"),
    )
    .await
    .refused(400);
    send(
        request()
            .header("Content-Type", "application/json")
            .body("[]"),
    )
    .await
    .refused(400);
    send(request().form(&[("room", "a")])).await.refused(415);
    send(request().json(&json!({ "room": "x".repeat(1_000_000) })))
        .await
        .refused(413);
}

#[tokio::test]
async fn duplicate_member_is_refused_by_name() {
    let usher = Usher::start("").await;
    let body = r#"{ "room": "a", "title": "x", "room": "b" }"#;
    let request = usher.request(Method::POST, PATH).body(body);
    let answer = Answer::of(request.header("Content-Type", "application/json")).await;
    assert!(
        answer.refused(400).starts_with("room: is given more"),
        "{}",
        answer.body
    );
    assert_eq!(usher.get(PATH).await.body["bookings"], json!([]));
}

#[tokio::test]
async fn value_above_a_maximum_is_refused_with_the_maximum() {
    let usher = Usher::start("").await;
    let far = "9999-12-31T23:59:59Z";
    for (more, field, bound) in [
        (
            json!({ "max_occupants": 100_001 }),
            "max_occupants",
            "100000",
        ),
        (
            json!({ "max_occupants": 5_000_000_000_u64 }),
            "max_occupants",
            "100000",
        ),
        (
            json!({ "waiting_queue": true, "auto_live": 5_000_000_000_u64 }),
            "auto_live",
            "1440",
        ),
        (json!({ "end": far }), "end", "a hundred years"),
    ] {
        let body = with(hour("room", 0), more);
        let answer = usher.json(Method::POST, PATH, &body).await;
        let message = answer.refused(400);
        assert!(
            message.starts_with(&format!("{field}: ")) && message.contains(bound),
            "{body}: {message}"
        );
    }
}

#[tokio::test]
async fn tenant_is_matched_in_every_spelling_and_returned_unencoded() {
    let usher = Usher::start("").await;
    let made = usher
        .book(&with(hour("room", 0), json!({ "tenant": "München" })))
        .await;
    assert_eq!(made["tenant"], "münchen");
    usher.book(&hour("other", 0)).await;
    usher.open("[münchen]room").await;
    usher.open("other").await;
    for query in [
        "tenant=m%C3%BCnchen",
        "tenant=M%C3%9CNCHEN",
        "tenant=Mu%CC%88nchen",
        "room=%5BM%C3%BCnchen%5Droom",
        "room=room&tenant=m%C3%BCnchen",
    ] {
        let list = usher.get(&format!("{PATH}?{query}")).await;
        assert_eq!(list.body["bookings"], json!([made]), "{query}");
        let decisions = usher.decisions(query).await;
        assert_eq!(decisions.len(), 1, "{query}");
        assert_eq!(decisions[0]["tenant"], "münchen", "{query}");
    }
    for path in [PATH, "/api/v1/decisions"] {
        for (query, field) in [
            ("tenant=a%2Fb", "tenant"),
            ("room=room&tenant=a.b", "tenant"),
            ("room=%5Ba.b%5Droom", "room"),
            ("room=%5Ba%5Droom&tenant=b", "room"),
        ] {
            let answer = usher.get(&format!("{path}?{query}")).await;
            let message = answer.refused(400);
            assert!(message.starts_with(&format!("{field}: ")), "{message}");
        }
    }
}

#[tokio::test]
async fn changed_room_keeps_its_tenant_unless_its_name_has_another() {
    let usher = Usher::start("").await;
    let made = usher
        .book(&with(hour("room", 0), json!({ "tenant": "blue" })))
        .await;
    let path = format!("{PATH}/{}", made["id"]);
    for (change, room, tenant) in [
        (json!({ "room": "other" }), "other", json!("blue")),
        (json!({ "room": "[green]hall" }), "hall", json!("green")),
        (json!({ "tenant": "red" }), "hall", json!("red")),
        (json!({ "room": "[red]hall" }), "hall", json!("red")),
        (json!({ "tenant": null }), "hall", json!(null)),
        (json!({ "room": "attic" }), "attic", json!(null)),
    ] {
        let changed = usher.json(Method::PATCH, &path, &change).await;
        assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
        assert_eq!(changed.body["room"], room, "{change}");
        assert_eq!(changed.body["tenant"], tenant, "{change}");
    }
    let both = json!({ "room": "[red]hall", "tenant": "blue" });
    let answer = usher.json(Method::PATCH, &path, &both).await;
    assert!(answer.refused(400).contains("the tenant given is"));
}

#[tokio::test]
async fn change_of_a_past_booking_is_refused_with_its_end() {
    let usher = Usher::start("").await;
    let body = json!({ "room": "room", "end": in_seconds(2) });
    let made = usher.book(&body).await;
    let path = format!("{PATH}/{}", made["id"]);
    let end: DateTime<Utc> = made["end"].as_str().unwrap().parse().unwrap();
    tokio::time::sleep((end - now()).to_std().unwrap_or_default()).await;
    let title = json!({ "title": "late" });
    let answer = usher.json(Method::PATCH, &path, &title).await;
    let message = answer.refused(400);
    let expected = format!("Booking {} has been over since", made["id"]);
    assert!(message.starts_with(&expected), "{message}");
    let longer = json!({ "title": "late", "end": in_seconds(600) });
    let answer = usher.json(Method::PATCH, &path, &longer).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
}

#[tokio::test]
async fn overlap_is_refused_with_the_other_booking() {
    let usher = Usher::start("").await;
    let first = usher
        .book(&with(hour("Café", 3600), json!({ "title": "Tea" })))
        .await;
    for (from, length) in [
        (3600, 3600),
        (0, 3610),
        (7190, 60),
        (0, 100_000),
        (4000, 60),
    ] {
        let body = json!({ "room": "caf%C3%A9", "start": in_seconds(from), "end": in_seconds(from + length) });
        let answer = usher.json(Method::POST, PATH, &body).await;
        let message = answer.refused(409);
        assert!(
            message.contains("Tea") && message.contains("café"),
            "{message}"
        );
        assert_eq!(answer.body["conflicting_booking"], first["id"]);
    }
    usher
        .json(
            Method::POST,
            PATH,
            &json!({ "room": "café", "start": in_seconds(0) }),
        )
        .await
        .refused(409);
    // Ends are exclusive, and a room of another tenant is another room.
    let next = json!({ "room": "café", "start": first["end"], "end": in_seconds(90_000) });
    let next = usher.book(&next).await;
    usher
        .book(&with(hour("café", 3600), json!({ "tenant": "acme" })))
        .await;
    let path = format!("{PATH}/{}", next["id"]);
    let back = json!({ "start": in_seconds(4000) });
    let answer = usher.json(Method::PATCH, &path, &back).await;
    assert!(answer.refused(409).contains("Tea"));
    // A booking does not overlap itself.
    let longer = json!({ "end": in_seconds(95_000) });
    assert_eq!(
        usher.json(Method::PATCH, &path, &longer).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn concurrent_bookings_of_one_hour_make_one_booking() {
    let usher = Usher::start("").await;
    let body = hour("room", 60);
    let answers = all(50, |_| usher.json(Method::POST, PATH, &body)).await;
    let made = answers
        .iter()
        .filter(|a| a.status == StatusCode::CREATED)
        .count();
    let refused = answers
        .iter()
        .filter(|a| a.status == StatusCode::CONFLICT)
        .count();
    assert_eq!((made, refused), (1, 49));
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let usher = Usher::start("").await;
    for n in 0..7 {
        let owner = if n % 2 == 0 {
            "even@example.com"
        } else {
            "odd@example.com"
        };
        usher
            .book(&with(
                hour(&format!("room{n}"), n * 1000),
                json!({ "owner": owner }),
            ))
            .await;
    }
    usher
        .book(&with(hour("room0", 50_000), json!({ "tenant": "acme" })))
        .await;
    let list = async |query: &str| {
        let answer = usher.get(&format!("{PATH}?{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let rooms = answer.body["bookings"].as_array().unwrap().iter();
        let rooms: Vec<_> = rooms
            .map(|b| b["room"].as_str().unwrap().to_owned())
            .collect();
        (rooms, answer.body.get("next").cloned())
    };
    assert_eq!(list("room=ROOM3").await.0, ["room3"]);
    assert_eq!(
        list("owner=odd@example.com").await.0,
        ["room1", "room3", "room5"]
    );
    // The case of an e-mail address does not matter, as for opening the room.
    assert_eq!(
        list("owner=Odd@Example.COM").await.0,
        ["room1", "room3", "room5"]
    );
    assert!(list("owner=odd").await.0.is_empty());
    assert_eq!(list("tenant=acme").await.0, ["room0"]);
    assert_eq!(list("room=room0").await.0, ["room0", "room0"]);
    let (from, to) = (in_seconds(3600 + 4500), in_seconds(60_000));
    assert_eq!(
        list(&format!("from={from}&to={to}")).await.0,
        ["room5", "room6", "room0"]
    );

    let (mut seen, mut query) = (Vec::new(), "limit=3".to_owned());
    loop {
        let (rooms, next) = list(&query).await;
        assert!(rooms.len() <= 3);
        seen.extend(rooms);
        let Some(next) = next else { break };
        query = format!("limit=3&after={}", next.as_str().unwrap());
    }
    assert_eq!(seen.len(), 8);
    seen.dedup();
    assert_eq!(seen.len(), 8);

    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("from=now", "from"),
        ("rom=a", "rom"),
        ("after=x", "after"),
        ("room=%ff", "room"),
    ] {
        let answer = usher.get(&format!("{PATH}?{query}")).await;
        assert!(
            answer.refused(400).starts_with(&format!("{field}: ")),
            "{}",
            answer.body
        );
    }
}

#[tokio::test]
async fn conference_has_the_end_and_options_of_its_booking() {
    let usher = Usher::start(BOOKED).await;
    usher
        .book(&with(
            hour("Café", 300),
            json!({ "max_occupants": 3, "lobby": true, "waiting_queue": true }),
        ))
        .await;
    let answer = usher.open("caf%c3%a9").await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let left = answer.end() - now();
    assert!(
        (left - TimeDelta::seconds(3900)).abs() < TimeDelta::seconds(5),
        "{left}"
    );
    assert_eq!(answer.body["max_occupants"], 3);
    assert_eq!(answer.body["lobby"], true);
    assert_eq!(answer.body["waiting_queue"], true);
}

#[tokio::test]
async fn refusals_name_the_remedy_and_are_recorded() {
    let usher = Usher::start(BOOKED).await;
    let unbooked = usher.open("nobody's").await;
    unbooked.refused(400);
    let unbooked = usher.open("nobodys").await;
    assert!(unbooked.refused(403).contains("not booked"));
    usher.book(&hour("later", 7200)).await;
    let early = usher.open("later").await;
    assert!(
        early.refused(403).contains("you can open it from"),
        "{}",
        early.body
    );
    usher
        .book(&with(
            hour("alices", 0),
            json!({ "owner": "alice@example.com", "starters": "owner" }),
        ))
        .await;
    let guest = [
        ("user_id", "bob"),
        ("user_email", "bob@example.com"),
        ("moderator", "true"),
    ];
    usher.open_as("alices", &guest).await.refused(403);
    let owner = [("user_email", "Alice@example.com")];
    assert_eq!(
        usher.open_as("alices", &owner).await.status,
        StatusCode::CREATED
    );
    assert_eq!(
        usher.open_as("alices", &guest).await.status,
        StatusCode::CONFLICT
    );

    let log = usher.decisions("room=ALICES").await;
    let seen: Vec<_> = log
        .iter()
        .map(|d| {
            (
                d["outcome"].as_str().unwrap(),
                d["reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("conflict", "running"),
            ("allowed", "booked"),
            ("refused", "not_owner")
        ]
    );
    assert_eq!(log[2]["user_email"], "bob@example.com");
    assert!(log[2]["sentence"].as_str().unwrap().contains("alices"));
    assert_eq!(usher.decisions("").await.len(), 5);
    assert_eq!(usher.decisions("limit=2").await.len(), 2);
}

#[tokio::test]
async fn owner_is_matched_by_address_id_jid_or_marked_name() {
    let usher = Usher::start(BOOKED).await;
    // Every request has the JID.
    let identity = [("user_id", "u-17"), ("user_name", "Alice Ames")];
    for (n, (owner, matches)) in [
        ("u-17", true),
        ("name:Alice Ames", true),
        ("ABC@meet.example.com", true),
        ("U-17", false),
        ("Alice Ames", false),
        ("name:alice ames", false),
        ("abc", false),
        ("u-1", false),
    ]
    .into_iter()
    .enumerate()
    {
        let room = format!("room{n}");
        let booking = json!({ "owner": owner, "starters": "owner" });
        usher.book(&with(hour(&room, 0), booking)).await;
        let status = usher.open_as(&room, &identity).await.status;
        let expected = if matches {
            StatusCode::CREATED
        } else {
            StatusCode::FORBIDDEN
        };
        assert_eq!(status, expected, "{owner}");
        let path = format!("{PATH}?owner={}", owner.replace(' ', "%20"));
        let list = usher.get(&path).await;
        assert_eq!(list.body["bookings"][0]["owner"], owner);
    }
    let list = usher.get(&format!("{PATH}?owner=u-17")).await;
    assert_eq!(list.body["bookings"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn unbooked_conference_ends_before_the_next_booking() {
    let usher = Usher::start("").await;
    let booking = usher.book(&hour("room", 1800)).await;
    let answer = usher.open("room").await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let start: DateTime<Utc> = booking["start"].as_str().unwrap().parse().unwrap();
    assert_eq!(answer.end(), start - TimeDelta::minutes(10));
    assert!(answer.body.get("max_occupants").is_none());
}

#[tokio::test]
async fn running_conference_follows_its_changed_booking() {
    let usher = Usher::start(BOOKED).await;
    let booking = usher.book(&hour("room", 0)).await;
    let path = format!("{PATH}/{}", booking["id"]);
    let conference = format!("/conference/{}", usher.open("room").await.id());
    for end in [7200, 1800] {
        let end = in_seconds(end);
        usher
            .json(
                Method::PATCH,
                &path,
                &json!({ "end": end, "max_occupants": 9 }),
            )
            .await;
        let running = usher.get(&conference).await;
        let expected: DateTime<Utc> = end.parse().unwrap();
        assert!((running.end() - expected).abs() <= TimeDelta::seconds(1));
        assert_eq!(running.body["max_occupants"], 9);
    }
    usher.delete(&path).await;
    let over = usher.get(&conference).await;
    let message = over.refused(404);
    assert!(
        message.contains("\"room\"") && message.contains("cancelled"),
        "{message}"
    );
    assert!(over.body["ended_at"].is_string());
}

#[tokio::test]
async fn closed_room_opens_again_within_its_booking() {
    let usher = Usher::start(BOOKED).await;
    usher.book(&hour("room", 0)).await;
    let first = usher.open("room").await;
    usher.delete(&format!("/conference/{}", first.id())).await;
    let second = usher.open("room").await;
    assert_eq!(second.status, StatusCode::CREATED);
    assert_eq!(second.end(), first.end());
}

#[tokio::test]
async fn permanent_booking_has_no_end() {
    let usher = Usher::start(BOOKED).await;
    let booking = usher.book(&json!({ "room": "lounge" })).await;
    assert!(booking.get("end").is_none());
    let answer = usher.open("lounge").await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert!(answer.end() - now() > TimeDelta::days(300));
    // usher's Prosody module accepts less than 10,000,000,000 seconds.
    assert!(answer.body["duration"].as_i64().unwrap() < 10_000_000_000);
}

#[tokio::test]
async fn visitor_of_a_queued_booking_is_sent_to_the_queue() {
    let usher = Usher::start(BOOKED).await;
    usher
        .book(&with(hour("event", 7200), json!({ "waiting_queue": true })))
        .await;
    let visitor = usher.open_as("event", &[("role", "visitor")]).await;
    assert_eq!(visitor.status, StatusCode::ACCEPTED);
    assert_eq!(visitor.body["waiting_queue"], true);
    usher.open("event").await.refused(403);
    assert_eq!(usher.decisions("room=event").await[1]["outcome"], "queued");
}
