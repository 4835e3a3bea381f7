//! Tokens signed with private keys, as Prosody and portals sign them, and key servers that work, fail or are
//! unreachable.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use self::test_keys::{Pair, base64url};
use crate::harness::{Answer, Usher, now};
use crate::scripted::{Reply, Scripted};
use crate::stomp::{self, Client, Incoming, SECRET, visitor_topic};

#[expect(dead_code, reason = "the unit tests use the rest of it")]
#[path = "../../src/auth/test_keys.rs"]
mod test_keys;

/// As in Prosody's `asap_key_id`.
const KID: &str = "jitsi";
const BOOKINGS: &str = "/api/v1/bookings";

/// The claims of a service token.
fn service() -> Value {
    let now = now().timestamp();
    json!({ "iss": "jitsi", "aud": "jitsi", "iat": now, "nbf": now, "exp": now + 60 })
}

/// The token that stock Prosody and jigasi sign.
fn service_token(pair: &Pair, kid: &str) -> String {
    pair.sign(Algorithm::RS256, Some(kid), &service())
}

/// An ASAP key server with one key.
async fn key_server(kid: &str, pem: &str) -> Scripted {
    let (path, pem) = (format!("/asap/{}.pem", hex_digest(kid)), pem.to_owned());
    Scripted::start(move |request| {
        if request.path == path {
            Reply::Raw(200, pem.clone())
        } else {
            Reply::Raw(404, "no".into())
        }
    })
    .await
}

async fn failing_key_server() -> Scripted {
    Scripted::start(|_| Reply::Raw(500, "no".into())).await
}

fn config(server: &Scripted) -> String {
    format!("auth.key_server = \"http://{}/asap/\"", server.address)
}

fn hex_digest(kid: &str) -> String {
    let digest = digest(&SHA256, kid.as_bytes());
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// A user's token, as a portal with a key pair signs it.
fn visitor(algorithm: Algorithm, pair: &Pair) -> String {
    pair.sign(algorithm, Some(KID), &stomp::visitor("room"))
}

/// Sends CONNECT with a token.
async fn connect(usher: &Usher, token: &str) -> Client {
    let mut client = Client::open(usher).await;
    client
        .send(&format!(
            "CONNECT\naccept-version:1.2\nAuthorization:Bearer {token}\n\n\0"
        ))
        .await;
    client
}

/// The code of the close frame, which must be the next message.
async fn closed(client: &mut Client) -> u16 {
    match client.next().await {
        Incoming::Closed(Some(frame)) => frame.code.into(),
        other => panic!("no close: {other:?}"),
    }
}

#[tokio::test]
async fn visitors_wait_with_tokens_signed_by_a_private_key() {
    for (algorithm, pair) in [
        (Algorithm::RS256, Pair::rsa()),
        (Algorithm::ES256, Pair::p256()),
    ] {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("portal.pem");
        std::fs::write(&file, pair.public_pem()).unwrap();
        let usher = Usher::start(&format!(
            "auth.public_keys = {{ {KID} = \"{}\" }}",
            file.display()
        ))
        .await;
        let mut client = connect(&usher, &visitor(algorithm, &pair)).await;
        assert_eq!(client.frame().await.command, "CONNECTED", "{algorithm:?}");
        client.subscribe("1", &visitor_topic("room")).await;
        // The same claims, signed with another key.
        let mut other = connect(&usher, &visitor(Algorithm::RS256, &Pair::rsa())).await;
        let (error, _) = other.refused().await;
        assert!(error.header("message").contains("refused"), "{error:?}");
    }
}

/// Jitsi Meet's client stops after a few ERRORs, and reconnects after a close.
#[tokio::test]
async fn a_failing_key_server_closes_the_websocket_without_an_error() {
    let asap = Pair::rsa();
    let token = visitor(Algorithm::RS256, &asap);
    let unreachable = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unreachable_at = unreachable.local_addr().unwrap();
    drop(unreachable);
    let failing = Scripted::start(|_| Reply::Raw(500, "no".into())).await;
    let invalid = Scripted::start(|_| Reply::Raw(200, "<html>Welcome!</html>".into())).await;
    let slow = Scripted::start(|_| Reply::Nothing).await;
    let mut sessions = Vec::new();
    for server in [
        unreachable_at,
        failing.address,
        invalid.address,
        slow.address,
    ] {
        let usher = Usher::start(&format!("auth.key_server = \"http://{server}/\"")).await;
        let client = connect(&usher, &token).await;
        sessions.push((usher, client));
    }
    for (_usher, client) in &mut sessions {
        assert_eq!(closed(client).await, 1013);
    }
}

/// A portal that signs with a new key before it publishes it: no ERROR meanwhile, and soon the visitor waits.
#[tokio::test]
async fn a_key_that_is_published_late_costs_a_visitor_no_error() {
    let (old, new) = (Pair::p256(), Pair::p256());
    let published = Arc::new(AtomicBool::new(false));
    let (both, is_published) = ([old.jwk("old"), new.jwk(KID)], Arc::clone(&published));
    let server = Scripted::start(move |_| {
        let keys = if is_published.load(Ordering::SeqCst) {
            &both[..]
        } else {
            &both[..1]
        };
        Reply::Raw(200, json!({ "keys": keys }).to_string())
    })
    .await;
    let usher = Usher::start(&format!("auth.jwks_url = \"http://{}/\"", server.address)).await;
    let token = visitor(Algorithm::ES256, &new);
    assert_eq!(closed(&mut connect(&usher, &token).await).await, 1013);
    published.store(true, Ordering::SeqCst);
    let start = Instant::now();
    loop {
        let mut client = connect(&usher, &token).await;
        match client.next().await {
            Incoming::Closed(Some(frame)) => assert_eq!(u16::from(frame.code), 1013),
            Incoming::Closed(None) => panic!("no close frame"),
            Incoming::Frame(frame) => {
                assert_eq!(frame.command, "CONNECTED", "{frame:?}");
                break;
            }
        }
        // Five times the ten seconds after which the set is fetched again.
        assert!(start.elapsed() < Duration::from_secs(50));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(server.lines().len() <= 7, "{:?}", server.lines());
}

#[tokio::test]
async fn tokens_by_the_secret_have_its_one_algorithm() {
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let token =
        |algorithm| jsonwebtoken::encode(&Header::new(algorithm), &service(), &secret).unwrap();
    for (more, accepted) in [
        ("", Algorithm::HS256),
        ("auth.secret_algorithm = \"HS512\"", Algorithm::HS512),
    ] {
        let usher = Usher::start(&format!("auth.secret = \"{SECRET}\"\n{more}")).await;
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let answer = request_with(&usher, &token(algorithm)).await;
            let expected = if algorithm == accepted { 200 } else { 401 };
            assert_eq!(answer.status, expected, "{algorithm:?}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_key() {
    let slow = Scripted::start(|_| Reply::Nothing).await;
    let usher = Usher::start(&format!("auth.key_server = \"http://{}/\"", slow.address)).await;
    let asap = Pair::rsa();
    let mut client = connect(&usher, &visitor(Algorithm::RS256, &asap)).await;
    slow.wait(&format!("GET /{}.pem", hex_digest(KID)), 1).await;
    let (_, code) = tokio::join!(usher.stop(), closed(&mut client));
    assert_eq!(code, 1012);
    assert_eq!(slow.lines().len(), 1, "the fetch was not over");
}

/// The response to a request with this token.
async fn request_with(usher: &Usher, token: &str) -> Answer {
    let request = usher.client.request(Method::GET, usher.url(BOOKINGS));
    Answer::of(request.bearer_auth(token)).await
}

#[tokio::test]
async fn prosodys_token_is_verified_with_its_key_on_the_key_server() {
    let asap = Pair::rsa();
    let server = key_server(KID, &asap.public_pem()).await;
    let usher = Usher::start(&config(&server)).await;
    for _ in 0..3 {
        let answer = request_with(&usher, &service_token(&asap, KID)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(server.lines().len(), 1);
    // The token is valid for the whole API.
    let request = usher.client.post(usher.url("/conference"));
    let form = [
        ("name", "room"),
        ("start_time", "2026-11-21T22:21:26.000Z"),
        ("mail_owner", ""),
    ];
    let opened = Answer::of(request.bearer_auth(service_token(&asap, KID)).form(&form)).await;
    assert_eq!(opened.status, 201, "{}", opened.body);
}

/// Stock Prosody sends golive once per room, with a token that it signs, and never endlive.
#[tokio::test]
async fn jitsis_component_starts_the_live_state_and_the_ttl_ends_it() {
    const ROOM: &str = "room@conference.meet.example.com";
    let asap = Pair::rsa();
    let server = key_server(KID, &asap.public_pem()).await;
    let more = format!("auth.secret = \"{SECRET}\"\nqueue.live_ttl = \"5s\"");
    let usher = Usher::start(&format!("{}\n{more}", config(&server))).await;
    let mut visitor = Client::wait(&usher, "room").await;
    visitor.receives_nothing().await;
    let body = json!({ "conference": ROOM });
    let request = usher.client.post(usher.url("/waiting-queue/golive"));
    let answer = Answer::of(request.bearer_auth(service_token(&asap, KID)).json(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let live = json!({ "conference": ROOM, "status": "live", "randomDelayMs": 0 });
    assert_eq!(visitor.released().await, live);
    assert_eq!(Client::wait(&usher, "room").await.released().await, live);
    let is_live = async || {
        let path = format!("/waiting-queue/conferences?conference={ROOM}");
        usher.get(&path).await.body["conferences"][0]["live"] == true
    };
    let mut polls = 0;
    while is_live().await {
        polls += 1;
        assert!(polls < 1000, "the live state did not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Client::wait(&usher, "room").await.receives_nothing().await;
}

#[tokio::test]
async fn static_tokens_send_no_request_to_the_key_server() {
    let server = failing_key_server().await;
    let usher = Usher::start(&config(&server)).await;
    assert_eq!(usher.get(BOOKINGS).await.status, 200);
    assert_eq!(server.lines().len(), 0);
}

#[tokio::test]
async fn a_token_of_another_key_is_rejected() {
    let server = key_server(KID, &Pair::rsa().public_pem()).await;
    let usher = Usher::start(&config(&server)).await;
    let answer = request_with(&usher, &service_token(&Pair::rsa(), KID)).await;
    assert!(answer.refused(401).contains("signature"), "{}", answer.body);
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn a_public_key_is_no_secret_and_none_is_no_algorithm() {
    let asap = Pair::rsa();
    let server = key_server(KID, &asap.public_pem()).await;
    for secret in ["", "auth.secret = \"0123456789abcdef0123456789abcdef\""] {
        let usher = Usher::start(&format!("{}\n{secret}", config(&server))).await;
        assert_eq!(
            request_with(&usher, &service_token(&asap, KID))
                .await
                .status,
            200
        );
        let pem = asap.public_pem();
        for key in [pem.as_str(), pem.trim()] {
            let key = EncodingKey::from_secret(key.as_bytes());
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let mut header = Header::new(algorithm);
                header.kid = Some(KID.to_owned());
                let forged = jsonwebtoken::encode(&header, &service(), &key).unwrap();
                request_with(&usher, &forged).await.refused(401);
            }
        }
        for none in ["none", "None", "NONE", ""] {
            let header = json!({ "alg": none, "typ": "JWT", "kid": KID }).to_string();
            let start = format!(
                "{}.{}",
                base64url(&header),
                base64url(&service().to_string())
            );
            let genuine = service_token(&asap, KID);
            let signature = genuine.rsplit('.').next().unwrap();
            for unsigned in [format!("{start}."), format!("{start}.{signature}")] {
                request_with(&usher, &unsigned).await.refused(401);
            }
        }
    }
}

#[tokio::test]
async fn an_unknown_key_is_named_in_the_error() {
    let asap = Pair::rsa();
    let server = key_server(KID, &asap.public_pem()).await;
    let usher = Usher::start(&config(&server)).await;
    let answer = request_with(&usher, &service_token(&asap, "other")).await;
    let message = answer.refused(401);
    assert!(message.contains("\"other\" is not known"), "{message}");
}

#[tokio::test]
async fn key_ids_with_paths_request_only_digests() {
    let asap = Pair::rsa();
    let server = key_server(KID, &asap.public_pem()).await;
    let usher = Usher::start(&config(&server)).await;
    let kids = [
        "../../etc/passwd",
        "../jitsi",
        "/etc/passwd",
        "jitsi.pem",
        "jitsi\u{0}",
    ];
    for kid in kids {
        request_with(&usher, &service_token(&asap, kid))
            .await
            .refused(401);
    }
    let lines = server.lines();
    assert_eq!(lines.len(), kids.len());
    for path in lines {
        let digest = path
            .strip_prefix("GET /asap/")
            .and_then(|p| p.strip_suffix(".pem"));
        assert_eq!(digest.map(str::len), Some(64), "{path}");
    }
}

#[tokio::test]
async fn a_failing_or_unreachable_key_server_is_a_503() {
    let asap = Pair::rsa();
    let server = failing_key_server().await;
    let failing = config(&server);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unreachable = format!(
        "auth.key_server = \"http://{}\"",
        closed.local_addr().unwrap()
    );
    drop(closed);
    for config in [failing, unreachable] {
        let usher = Usher::start(&config).await;
        let answer = request_with(&usher, &service_token(&asap, KID)).await;
        let message = answer.refused(503);
        assert!(message.contains("could not be fetched"), "{message}");
        assert!(message.ends_with("try again."), "{message}");
        assert_eq!(answer.headers["retry-after"], "5");
        // Requests with a static token are not affected.
        assert_eq!(usher.get(BOOKINGS).await.status, 200);
    }
}

#[tokio::test]
async fn a_users_token_is_no_service_token() {
    let asap = Pair::rsa();
    let server = key_server(KID, &asap.public_pem()).await;
    let usher = Usher::start(&config(&server)).await;
    let mut claims = service();
    claims["room"] = "*".into();
    let token = asap.sign(Algorithm::RS256, Some(KID), &claims);
    let answer = request_with(&usher, &token).await;
    assert!(
        answer.refused(401).contains("user's token"),
        "{}",
        answer.body
    );
}

/// Runs `usher check` while the test's servers run.
pub(crate) async fn check(config: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_usher"));
    command
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .env_clear();
    command.arg("check").args(arguments);
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output: Output = ran.await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text)
}

#[tokio::test]
async fn check_reports_keys_on_the_key_server_and_tests_a_token() {
    let asap = Pair::rsa();
    let server = key_server(KID, &asap.public_pem()).await;
    let config = config(&server);
    let token = service_token(&asap, KID);
    let (code, output) = check(&config, &["--kid", KID, "--token", &token]).await;
    assert_eq!(code, Some(0), "{output}");
    for line in [
        "ok      auth.key_server: ",
        "ok      key \"jitsi\": from auth.key_server, for RS256",
        "ok      token: it is accepted as a service token",
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }

    let other = service_token(&Pair::rsa(), KID);
    let (code, output) = check(&config, &["--kid", "other", "--token", &other]).await;
    assert_eq!(code, Some(1), "{output}");
    for line in [
        "ok      auth.key_server: ",
        "FAILED  key \"other\": auth.key_server: there is no such key; put it at http://",
        "FAILED  token: The service token is refused: the token's signature is wrong",
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }
}

#[tokio::test]
async fn check_reports_a_failing_key_server() {
    let server = failing_key_server().await;
    let (code, output) = check(&config(&server), &[]).await;
    assert_eq!(code, Some(1), "{output}");
    let line = "it answers with status 500";
    assert!(
        output.contains("FAILED  auth.key_server: ") && output.contains(line),
        "{output}"
    );

    let server = key_server(KID, "<html>").await;
    let (code, output) = check(&config(&server), &["--kid", KID]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("its answer is not a PEM file"), "{output}");
}

#[tokio::test]
async fn check_reports_configured_and_missing_keys() {
    let (code, output) = check("", &["--kid", "none", "--token", "a.b.c"]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(
        output.contains("FAILED  key \"none\": it is not in auth.public_keys"),
        "{output}"
    );
    assert!(
        output.contains("FAILED  token: The service token is refused"),
        "{output}"
    );

    let config = "auth.service.tokens = [\"0123456789abcdef\"]";
    let (code, output) = check(config, &["--token", "0123456789abcdef"]).await;
    assert_eq!(code, Some(0), "{output}");
}
