//! Names: of rooms, as Jitsi Meet rewrites them, of tenants and of owners.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Usher, in_seconds};
use crate::scripted::{Reply, Scripted, conference};
use crate::stomp::SECRET;

const BOOKED: &str = "reservations.policy = \"booked\"";
const PATH: &str = "/api/v1/bookings";

fn booking(room: &str, more: Value) -> Value {
    let mut body = json!({ "room": room, "end": in_seconds(3600) });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn room_is_stored_as_jitsi_meet_asks_for_it() {
    let usher = Usher::start(&format!(
        "{BOOKED}\nxmpp.public_url = \"https://jitsi.example.org:8443/\""
    ))
    .await;
    let password = json!({ "password": "s3cret" });
    for (typed, room, name, path) in [
        ("R&D", "rd", "rd", "/rd"),
        ("Q%26A", "q%26a", "q&a", "/q%26a"),
        (
            "Anna's (new) room!",
            "annas%20new%20room",
            "annas new room",
            "/annas%20new%20room",
        ),
        (
            "What's next?",
            "whats%20next",
            "whats next",
            "/whats%20next",
        ),
        ("a%28b%29", "a(b)", "a(b)", "/a%28b%29"),
    ] {
        let made = usher.book(&booking(typed, password.clone())).await;
        assert_eq!(made["room"], room, "{typed}");
        assert_eq!(made["room_name"], name, "{typed}");
        let url = format!("https://jitsi.example.org:8443{path}");
        assert_eq!(made["url"], url, "{typed}");
        let opened = usher.open(room).await;
        assert_eq!(opened.status, StatusCode::CREATED, "{}", opened.body);
        assert_eq!(opened.body["password"], "s3cret", "{typed}");
        let list = usher
            .get(&format!("{PATH}?room={}", urlencoded(typed)))
            .await;
        assert_eq!(list.body["bookings"], json!([made]), "{typed}");
        // The room of an answer can be sent back.
        let one = format!("{PATH}/{}", made["id"]);
        let same = json!({ "room": made["room"], "title": "same" });
        let changed = usher.json(Method::PATCH, &one, &same).await;
        assert_eq!(changed.body["room"], room, "{}", changed.body);
        let whole = json!({ "room": made["room"], "end": made["end"] });
        let replaced = usher.json(Method::PUT, &one, &whole).await;
        assert_eq!(replaced.body["room"], room, "{}", replaced.body);
    }
    for typed in ["a/b", "a\\b", "a?b", "a#b", "!!!", ".", ".."] {
        let answer = usher
            .json(Method::POST, PATH, &booking(typed, json!({})))
            .await;
        assert!(
            answer.refused(400).starts_with("room: "),
            "{typed}: {}",
            answer.body
        );
        assert_eq!(answer.body["fields"][0]["code"], "invalid_name", "{typed}");
    }
}

fn urlencoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test]
async fn url_of_a_booking_has_its_tenant_and_the_domain() {
    let usher = Usher::start("xmpp.domain = \"meet.example.org\"").await;
    let made = usher
        .book(&booking("Été", json!({ "tenant": "München" })))
        .await;
    assert_eq!(
        made["url"],
        "https://meet.example.org/m%c3%bcnchen/%c3%a9t%c3%a9"
    );
    assert_eq!(made["room_name"], "été");
}

#[tokio::test]
async fn display_name_never_stands_for_the_id_of_another_user() {
    let usher = Usher::start(BOOKED).await;
    for (n, (owner, identity, status)) in [
        ("u-17", [("user_id", "u-99"), ("user_name", "u-17")], 403),
        ("u-17", [("user_id", "u-17"), ("user_name", "Bob")], 201),
        ("u-17", [("moderator", "true"), ("user_name", "u-17")], 201),
        (
            "Alice Ames",
            [("user_id", "u-99"), ("user_name", "Alice Ames")],
            403,
        ),
        (
            "name:Alice Ames",
            [("user_id", "u-99"), ("user_name", "Alice Ames")],
            201,
        ),
        (
            "alice@example.com",
            [("user_id", "u-99"), ("user_name", "alice@example.com")],
            403,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let room = format!("room{n}");
        let owned = json!({ "owner": owner, "starters": "owner" });
        usher.book(&booking(&room, owned)).await;
        let answer = usher.open_as(&room, &identity).await;
        assert_eq!(
            answer.status, status,
            "{owner} {identity:?}: {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn owners_in_composed_and_decomposed_letters_are_the_same() {
    let usher = Usher::start(BOOKED).await;
    let (composed, decomposed) = ("m\u{fc}ller", "mu\u{308}ller");
    for (n, (owner, id)) in [(composed, decomposed), (decomposed, composed)]
        .iter()
        .enumerate()
    {
        let room = format!("room{n}");
        let owned = json!({ "owner": owner, "starters": "owner" });
        let made = usher.book(&booking(&room, owned)).await;
        assert_eq!(made["owner"], *owner);
        let answer = usher.open_as(&room, &[("user_id", id)]).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    }
    let upper = "M\u{dc}LLER@example.com";
    usher
        .book(&booking("mail", json!({ "owner": upper })))
        .await;
    for (owner, found) in [
        (composed.to_owned(), 2),
        (decomposed.to_owned(), 2),
        (format!("{decomposed}@Example.com"), 1),
        ("muller".to_owned(), 0),
    ] {
        let list = usher
            .get(&format!("{PATH}?owner={}", urlencoded(&owner)))
            .await;
        let list = list.body["bookings"].as_array().unwrap().len();
        assert_eq!(list, found, "{owner}");
    }
}

#[tokio::test]
async fn tenants_in_every_spelling_are_one_tenant() {
    let usher = Usher::start(BOOKED).await;
    let made = usher
        .book(&booking("room", json!({ "tenant": "Mu\u{308}nchen" })))
        .await;
    assert_eq!(made["tenant"], "m\u{fc}nchen");
    for tenant in ["M\u{dc}NCHEN", "m%C3%BCnchen"] {
        let body = booking("room", json!({ "tenant": tenant }));
        usher.json(Method::POST, PATH, &body).await.refused(409);
    }
    let opened = usher.open("[mu\u{308}nchen]room").await;
    assert_eq!(opened.status, StatusCode::CREATED, "{}", opened.body);
    usher.open("[m%c3%bcnchen]room").await.refused(409);
}

#[tokio::test]
async fn health_check_rooms_are_never_reserved_and_never_live() {
    let usher = Usher::start(&format!("auth.secret = \"{SECRET}\"")).await;
    for room in [
        "__jicofo-health-check",
        "__jicofo-health-check1",
        "[blue]__jicofo-health-check-2",
    ] {
        let answer = usher.open(room).await;
        answer.refused(403);
        assert_eq!(answer.body["code"], "health_check");
        let booked = usher
            .json(Method::POST, PATH, &booking(room, json!({})))
            .await;
        assert!(booked.refused(400).starts_with("room: "), "{}", booked.body);
    }
    for jid in [
        "__jicofo-health-check1@conference.meet.example.com",
        "__Jicofo-health-check1@conference.blue.meet.example.com",
    ] {
        let body = json!({ "conference": jid });
        let live = usher
            .json(Method::POST, "/waiting-queue/golive", &body)
            .await;
        live.refused(403);
        assert_eq!(live.body["code"], "health_check");
        let end = usher
            .json(Method::POST, "/waiting-queue/endlive", &body)
            .await;
        assert_eq!(end.status, StatusCode::OK);
    }
    let listed = usher.get("/waiting-queue/conferences").await;
    assert_eq!(listed.body["conferences"], json!([]));
}

#[tokio::test]
async fn gateway_requests_no_health_check_room() {
    let server = Scripted::start(|_| Reply::Json(201, conference(7, "room"))).await;
    let usher = Usher::start(&format!(
        "reservations.backend = \"upstream\"\nreservations.upstream.url = \"http://{}\"",
        server.address
    ))
    .await;
    usher.open("__jicofo-health-check1").await.refused(403);
    assert!(server.requests().is_empty());
}
