//! Keys from HTTP servers that a script controls.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use jsonwebtoken::Algorithm;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, pause, resume, sleep};

use super::super::fetch::DOCUMENT_MAX_BYTES;
use super::super::keys::KeySet;
use super::super::service_token::sign;
use super::super::test_keys::{Pair, pem};
use super::super::verifier::{Verified, Verifier};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const TEN_SECONDS: Duration = Duration::from_secs(10);
/// More than two retries take.
const SOON: Duration = Duration::from_secs(6);

/// How a server handles a request.
#[derive(Clone)]
enum Reply {
    Body(u16, Vec<u8>),
    /// A status with a `Location`.
    Redirect(u16, String),
    /// This number of bytes, without a `Content-Length`.
    Unbounded(usize),
    /// The beginning of a response, and then nothing.
    Stalled,
    Silence,
}

fn ok(text: impl Into<Vec<u8>>) -> Reply {
    Reply::Body(200, text.into())
}

fn status(status: u16) -> Reply {
    Reply::Body(status, b"no".to_vec())
}

/// A key server. Its script receives the path and the number of the request, from 0.
struct Server {
    address: SocketAddr,
    paths: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(script: impl Fn(&str, usize) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let paths = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&paths);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let path = path_of(&mut stream).await;
                let number = seen.lock().unwrap().len();
                let reply = script(&path, number);
                seen.lock().unwrap().push(path);
                tokio::spawn(async move {
                    // The client may have disconnected.
                    let _ = answer(&mut stream, reply).await;
                });
            }
        });
        Self { address, paths }
    }

    async fn always(reply: Reply) -> Self {
        Self::start(move |_, _| reply.clone()).await
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }

    fn requests(&self) -> usize {
        self.paths().len()
    }

    fn asap(&self) -> KeyServers {
        servers(Some(&self.url()), None).unwrap()
    }

    fn jwks(&self) -> KeyServers {
        servers(None, Some(&self.url())).unwrap()
    }
}

fn servers(asap: Option<&str>, jwks: Option<&str>) -> Result<KeyServers, KeyServerError> {
    let config = Auth {
        key_server: asap.map(str::to_owned),
        jwks_url: jwks.map(str::to_owned),
        key_cache: HOUR,
        ..Auth::default()
    };
    KeyServers::new(&config).map(Option::unwrap)
}

async fn path_of(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            break;
        };
        request.push(byte);
    }
    let request = String::from_utf8(request).unwrap();
    request.split(' ').nth(1).unwrap_or_default().to_owned()
}

async fn answer(stream: &mut TcpStream, reply: Reply) -> std::io::Result<()> {
    match reply {
        Reply::Body(status, body) => {
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await
        }
        Reply::Redirect(status, location) => {
            let head =
                format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await
        }
        Reply::Unbounded(bytes) => {
            let head = b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n";
            stream.write_all(head).await?;
            stream.write_all(&vec![b'x'; bytes]).await
        }
        Reply::Stalled => {
            let head = b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\n-----BEGIN";
            stream.write_all(head).await?;
            sleep(HOUR).await;
            Ok(())
        }
        Reply::Silence => {
            sleep(HOUR).await;
            Ok(())
        }
    }
}

/// Advances tokio's clock.
async fn wait(time: Duration) {
    pause();
    advance(time).await;
    resume();
}

fn unknown(kid: &str) -> TokenError {
    TokenError::UnknownKey {
        kid: escape_for_message(kid),
    }
}

fn not_yet(kid: &str) -> TokenError {
    TokenError::KeyNotFoundYet {
        kid: escape_for_message(kid),
    }
}

fn unavailable(kid: &str) -> TokenError {
    TokenError::KeyServerUnavailable {
        kid: escape_for_message(kid),
    }
}

fn set(keys: &[(&str, &Pair)]) -> Reply {
    let keys: Vec<_> = keys.iter().map(|(kid, pair)| pair.jwk(kid)).collect();
    ok(json!({ "keys": keys }).to_string())
}

const NOW: i64 = 1_800_000_000;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(NOW, 0).unwrap()
}

fn claims() -> serde_json::Value {
    json!({ "iss": "jitsi", "aud": "jitsi", "exp": NOW + 60 })
}

/// The only key with this id, for whichever of two algorithms.
async fn find(servers: &KeyServers, kid: &str) -> Result<Arc<PublicKey>, TokenError> {
    let found = match servers.find(kid, Algorithm::ES256).await {
        Err(TokenError::AlgorithmRefused) => servers.find(kid, Algorithm::ES384).await,
        found => found,
    };
    found.map(|keys| {
        assert_eq!(keys.len(), 1);
        Arc::clone(&keys[0])
    })
}

fn verifier(servers: KeyServers) -> Verifier {
    let keys = KeySet::new().with_secret("a secret of 32 bytes, or nearly so");
    verifier_with(keys.unwrap(), servers)
}

fn verifier_with(keys: KeySet, servers: KeyServers) -> Verifier {
    let config = Auth {
        leeway: Duration::ZERO,
        ..Auth::default()
    };
    Verifier::new(keys, Arc::new(config), "meet.example.com").with_key_servers(servers)
}

async fn verify(servers: KeyServers, token: &str) -> Result<Verified, TokenError> {
    verifier(servers).verify(token, now()).await
}

#[tokio::test]
async fn a_key_is_found_under_the_digest_of_its_id() {
    let pair = Pair::rsa();
    let server = Server::always(ok(pair.public_pem())).await;
    let token = pair.sign(Algorithm::RS256, Some("test"), &claims());
    let verified = verify(server.asap(), &token).await.unwrap();
    assert_eq!(verified.claims().iss.as_deref(), Some("jitsi"));
    assert_eq!(
        server.paths(),
        ["/keys/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.pem"]
    );
}

#[tokio::test]
async fn a_fetched_certificate_counts_as_its_key() {
    let pair = Pair::rsa();
    let server = Server::always(ok(pair.certificate_pem())).await;
    let token = pair.sign(Algorithm::RS256, Some("k"), &claims());
    assert!(verify(server.asap(), &token).await.is_ok());
}

#[tokio::test]
async fn a_fetched_key_determines_the_algorithm() {
    let (rsa, ec) = (Pair::rsa(), Pair::p256());
    let server = Server::always(ok(rsa.public_pem())).await;
    let verifier = verifier(server.asap());
    let token = ec.sign(Algorithm::ES256, Some("k"), &claims());
    let refused = verifier.verify(&token, now()).await.unwrap_err();
    assert_eq!(refused, TokenError::AlgorithmRefused);
    let token = Pair::rsa().sign(Algorithm::RS256, Some("k"), &claims());
    let refused = verifier.verify(&token, now()).await.unwrap_err();
    assert_eq!(refused, TokenError::BadSignature);
    // Its text as a secret, which is what an HS256 token would need.
    let token = sign(&rsa.public_pem(), &claims(), Some("k")).unwrap();
    let refused = verifier.verify(&token, now()).await.unwrap_err();
    assert_eq!(refused, TokenError::BadSignature);
    // The second one is for the wrong signature.
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn tokens_with_configured_keys_send_no_request() {
    let (here, afar) = (Pair::p256(), Pair::p256());
    let server = Server::always(ok(afar.public_pem())).await;
    let key = PublicKey::from_pem(&here.public_pem()).unwrap();
    let keys = KeySet::new().with_public_key("k", key);
    let verifier = verifier_with(keys, server.asap());
    let token = here.sign(Algorithm::ES256, Some("k"), &claims());
    assert!(verifier.verify(&token, now()).await.is_ok());
    let token = here.sign(Algorithm::ES256, None, &claims());
    let refused = verifier.verify(&token, now()).await.unwrap_err();
    assert_eq!(refused, TokenError::NoKeyNamed);
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn an_absent_key_is_requested_once_in_ten_seconds_and_unknown_after_the_second_look() {
    for code in [404, 403, 410, 401, 400, 204] {
        let server = Server::always(status(code)).await;
        let servers = server.asap();
        for _ in 0..10 {
            assert_eq!(
                find(&servers, "k").await.unwrap_err(),
                not_yet("k"),
                "{code}"
            );
        }
        assert_eq!(server.requests(), 1, "{code}");
        wait(TEN_SECONDS).await;
        for _ in 0..10 {
            assert_eq!(find(&servers, "k").await.unwrap_err(), unknown("k"));
        }
        assert_eq!(server.requests(), 2, "{code}");
    }
}

#[tokio::test]
async fn a_key_that_is_published_late_is_found_within_ten_seconds() {
    let (old, new) = (Pair::p256(), Pair::p256());
    let sets = [set(&[("old", &old)]), set(&[("old", &old), ("new", &new)])];
    let pem = new.public_pem();
    let jwks = Server::start(move |_, number| sets[number.min(1)].clone()).await;
    let asap = Server::start(move |_, number| match number {
        0 => status(404),
        _ => ok(pem.clone()),
    })
    .await;
    for (servers, server) in [(jwks.jwks(), &jwks), (asap.asap(), &asap)] {
        let error = find(&servers, "new").await.unwrap_err();
        assert_eq!(error, not_yet("new"));
        assert!(error.is_worth_a_retry() && !error.is_temporary());
        assert!(!unknown("new").is_worth_a_retry());
        wait(TEN_SECONDS).await;
        assert!(find(&servers, "new").await.is_ok());
        assert_eq!(server.requests(), 2);
    }
}

#[tokio::test]
async fn a_key_that_was_replaced_under_its_id_is_fetched_at_a_wrong_signature() {
    let (old, new) = (Pair::p256(), Pair::p256());
    let [by_old, by_new] =
        [&old, &new].map(|pair| pair.sign(Algorithm::ES256, Some("k"), &claims()));
    let sets = [set(&[("k", &old)]), set(&[("k", &new)])];
    let pems = [old.public_pem(), new.public_pem()];
    let jwks = Server::start(move |_, number| sets[number.min(1)].clone()).await;
    let asap = Server::start(move |_, number| ok(pems[number.min(1)].clone())).await;
    for (servers, server) in [(jwks.jwks(), &jwks), (asap.asap(), &asap)] {
        let verifier = Arc::new(verifier(servers));
        assert!(verifier.verify(&by_old, now()).await.is_ok());
        let mut waiting = JoinSet::new();
        for _ in 0..50 {
            let (verifier, token) = (Arc::clone(&verifier), by_new.clone());
            waiting.spawn(async move { verifier.verify(&token, now()).await.is_ok() });
        }
        assert_eq!(waiting.join_all().await, [true; 50]);
        assert_eq!(server.requests(), 2);
    }
}

#[tokio::test]
async fn wrong_signatures_cause_one_request_in_ten_seconds() {
    let (pair, forger) = (Pair::p256(), Pair::p256());
    let genuine = pair.sign(Algorithm::ES256, Some("k"), &claims());
    let forged = forger.sign(Algorithm::ES256, Some("k"), &claims());
    let jwks = Server::always(set(&[("k", &pair)])).await;
    let asap = Server::always(ok(pair.public_pem())).await;
    for (servers, server) in [(jwks.jwks(), &jwks), (asap.asap(), &asap)] {
        let verifier = verifier(servers);
        for requests in [2, 3] {
            for _ in 0..100 {
                let refused = verifier.verify(&forged, now()).await.unwrap_err();
                assert_eq!(refused, TokenError::BadSignature);
            }
            assert!(verifier.verify(&genuine, now()).await.is_ok());
            assert_eq!(server.requests(), requests);
            wait(TEN_SECONDS).await;
        }
    }
}

#[tokio::test]
async fn a_wrong_signature_does_not_remove_a_key_whose_server_fails() {
    let (pair, forger) = (Pair::p256(), Pair::p256());
    let pem = pair.public_pem();
    let server = Server::start(move |_, number| match number {
        0 => ok(pem.clone()),
        _ => status(500),
    })
    .await;
    let verifier = verifier(server.asap());
    let genuine = pair.sign(Algorithm::ES256, Some("k"), &claims());
    let forged = forger.sign(Algorithm::ES256, Some("k"), &claims());
    assert!(verifier.verify(&genuine, now()).await.is_ok());
    assert!(verifier.verify(&forged, now()).await.is_err());
    assert!(verifier.verify(&genuine, now()).await.is_ok());
}

#[tokio::test]
async fn keys_with_one_id_are_chosen_by_the_algorithm_and_the_signature() {
    let (rsa, ec, next) = (Pair::rsa(), Pair::p256(), Pair::p256());
    let server = Server::always(set(&[("k", &rsa), ("k", &ec), ("k", &next)])).await;
    let verifier = verifier(server.jwks());
    for (algorithm, pair) in [
        (Algorithm::ES256, &ec),
        (Algorithm::RS256, &rsa),
        (Algorithm::ES256, &next),
    ] {
        let token = pair.sign(algorithm, Some("k"), &claims());
        assert!(
            verifier.verify(&token, now()).await.is_ok(),
            "{algorithm:?}"
        );
    }
    assert_eq!(server.requests(), 1);
    let token = Pair::p384().sign(Algorithm::ES384, Some("k"), &claims());
    let refused = verifier.verify(&token, now()).await.unwrap_err();
    assert_eq!(refused, TokenError::AlgorithmRefused);
}

#[tokio::test]
async fn a_key_of_the_right_algorithm_is_looked_for_on_both_servers() {
    let (rsa, ec) = (Pair::rsa(), Pair::p256());
    let jwks = Server::always(set(&[("k", &rsa)])).await;
    let asap = Server::always(ok(ec.public_pem())).await;
    let verifier = verifier(servers(Some(&asap.url()), Some(&jwks.url())).unwrap());
    for (algorithm, pair) in [(Algorithm::ES256, &ec), (Algorithm::RS256, &rsa)] {
        let token = pair.sign(algorithm, Some("k"), &claims());
        assert!(
            verifier.verify(&token, now()).await.is_ok(),
            "{algorithm:?}"
        );
    }
}

#[tokio::test]
async fn a_failed_request_is_retried_after_a_pause() {
    let pem = Pair::p256().public_pem();
    let server = Server::start(move |_, number| match number {
        0 => status(500),
        1 => status(429),
        _ => ok(pem.clone()),
    })
    .await;
    let start = Instant::now();
    assert!(find(&server.asap(), "k").await.is_ok());
    assert_eq!(server.requests(), 3);
    let took = start.elapsed();
    assert!(
        Duration::from_millis(300) <= took && took < SOON,
        "{took:?}"
    );
}

#[tokio::test]
async fn retries_are_limited() {
    let server = Server::always(status(503)).await;
    let servers = server.asap();
    for _ in 0..10 {
        assert_eq!(find(&servers, "k").await.unwrap_err(), unavailable("k"));
    }
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn a_slow_server_times_out() {
    for reply in [Reply::Silence, Reply::Stalled] {
        let server = Server::always(reply).await;
        let servers = server.asap();
        pause();
        let start = Instant::now();
        assert_eq!(find(&servers, "k").await.unwrap_err(), unavailable("k"));
        let took = start.elapsed();
        resume();
        assert!(
            took > Duration::from_secs(3) && took < Duration::from_secs(9),
            "{took:?}"
        );
    }
}

#[tokio::test]
async fn an_unreachable_server_is_a_temporary_error() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    for servers in [
        servers(Some(&url), None).unwrap(),
        servers(None, Some(&url)).unwrap(),
    ] {
        let error = find(&servers, "k").await.unwrap_err();
        assert_eq!(error, unavailable("k"));
        assert!(error.is_temporary() && error.is_worth_a_retry());
        assert!(!unknown("k").is_temporary());
        assert!(error.to_string().ends_with("try again"));
    }
}

#[tokio::test]
async fn an_invalid_document_is_a_failure() {
    let private = pem("PRIVATE KEY", b"nonsense");
    for body in ["", "<html>", "\u{0}\u{1}", &private] {
        let server = Server::always(ok(body)).await;
        for servers in [server.asap(), server.jwks()] {
            assert_eq!(find(&servers, "k").await.unwrap_err(), unavailable("k"));
            assert_eq!(find(&servers, "k").await.unwrap_err(), unavailable("k"));
        }
        assert_eq!(server.requests(), 2, "{body:?}");
    }
    let server = Server::always(ok(vec![0xff; 100])).await;
    assert_eq!(
        find(&server.asap(), "k").await.unwrap_err(),
        unavailable("k")
    );
}

#[tokio::test]
async fn a_response_over_the_size_limit_is_rejected() {
    let pem = Pair::p256().public_pem();
    let padded = |bytes: usize| {
        let mut body = pem.clone().into_bytes();
        body.resize(bytes, b'\n');
        body
    };
    let server = Server::always(ok(padded(DOCUMENT_MAX_BYTES))).await;
    assert!(find(&server.asap(), "k").await.is_ok());
    for reply in [
        ok(padded(DOCUMENT_MAX_BYTES + 1)),
        Reply::Unbounded(64 * 1024 * 1024),
    ] {
        let server = Server::always(reply).await;
        assert_eq!(
            find(&server.asap(), "k").await.unwrap_err(),
            unavailable("k")
        );
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test]
async fn redirections_are_not_followed() {
    let elsewhere = Server::always(ok(Pair::p256().public_pem())).await;
    for location in [
        elsewhere.url(),
        "/other".into(),
        "file:///etc/passwd".into(),
    ] {
        for code in [301, 302, 307, 308] {
            let server = Server::always(Reply::Redirect(code, location.clone())).await;
            assert_eq!(
                find(&server.asap(), "k").await.unwrap_err(),
                unavailable("k")
            );
            assert_eq!(server.requests(), 1);
        }
    }
    assert_eq!(elsewhere.requests(), 0);
}

#[tokio::test]
async fn key_ids_with_paths_stay_below_the_servers_path() {
    let server = Server::always(status(404)).await;
    let servers = server.asap();
    let long = "x".repeat(10_000);
    let kids = [
        "../../etc/passwd",
        "/",
        "a?b=c",
        "a#b",
        "http://evil.example/",
        "",
        "\r\nX: y",
        &long,
    ];
    for kid in kids {
        assert_eq!(find(&servers, kid).await.unwrap_err(), not_yet(kid));
    }
    let paths = server.paths();
    assert_eq!(paths.len(), kids.len());
    for path in paths {
        let digest = path
            .strip_prefix("/keys/")
            .and_then(|path| path.strip_suffix(".pem"));
        let digest = digest.unwrap();
        assert_eq!(digest.len(), 64, "{path}");
        assert!(
            digest.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_hundred_concurrent_tokens_cause_one_request() {
    let pem = Pair::p256().public_pem();
    let server = Server::always(ok(pem)).await;
    let servers = Arc::new(server.asap());
    let mut waiting = JoinSet::new();
    for _ in 0..100 {
        let servers = Arc::clone(&servers);
        waiting.spawn(async move { find(&servers, "k").await.is_ok() });
    }
    assert_eq!(waiting.join_all().await, [true; 100]);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn an_expired_key_is_fetched_again() {
    let (old, new) = (Pair::p256(), Pair::p256());
    let pems = [old.public_pem(), new.public_pem()];
    let server = Server::start(move |_, number| ok(pems[number.min(1)].clone())).await;
    let verifier = verifier(server.asap());
    let [by_old, by_new] =
        [&old, &new].map(|pair| pair.sign(Algorithm::ES256, Some("k"), &claims()));
    assert!(verifier.verify(&by_old, now()).await.is_ok());
    wait(HOUR - MINUTE).await;
    assert!(verifier.verify(&by_old, now()).await.is_ok());
    assert_eq!(server.requests(), 1);
    wait(MINUTE).await;
    assert!(verifier.verify(&by_new, now()).await.is_ok());
    let refused = verifier.verify(&by_old, now()).await.unwrap_err();
    assert_eq!(refused, TokenError::BadSignature);
    // The third one is for the wrong signature.
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn a_stale_key_is_used_for_one_more_period_while_the_server_fails() {
    let pem = Pair::p256().public_pem();
    let server = Server::start(move |_, number| match number {
        0 => ok(pem.clone()),
        _ => status(502),
    })
    .await;
    let servers = server.asap();
    assert!(find(&servers, "k").await.is_ok());
    wait(HOUR * 3 / 2).await;
    assert!(find(&servers, "k").await.is_ok());
    assert_eq!(server.requests(), 4);
    wait(HOUR / 2).await;
    assert_eq!(find(&servers, "k").await.unwrap_err(), unavailable("k"));
}

#[tokio::test]
async fn a_flood_of_invented_ids_is_limited_and_blocks_no_cached_key() {
    let pem = Pair::p256().public_pem();
    let known = hex(&cache_key("known"));
    let server = Server::start(move |path, _| {
        if path.contains(&known) {
            ok(pem.clone())
        } else {
            status(404)
        }
    })
    .await;
    let servers = server.asap();
    assert!(find(&servers, "known").await.is_ok());
    let (mut refused, mut undecided) = (0, 0);
    for number in 0..1000 {
        match find(&servers, &format!("made up {number}")).await {
            Err(TokenError::KeyNotFoundYet { .. }) => refused += 1,
            Err(TokenError::KeyServerUnavailable { .. }) => undecided += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused + undecided, 1000);
    assert!((31..50).contains(&refused), "{refused}");
    assert_eq!(server.requests(), 1 + refused);
    wait(HOUR).await;
    assert!(find(&servers, "known").await.is_ok());
}

#[tokio::test]
async fn keys_of_a_set_are_found_by_their_id() {
    let pairs = [Pair::rsa(), Pair::p256(), Pair::p384(), Pair::ed25519()];
    let algorithms = [
        Algorithm::RS256,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ];
    let kids = ["a", "b", "c", "d"];
    let keys: Vec<_> = kids.into_iter().zip(&pairs).collect();
    let server = Server::always(set(&keys)).await;
    let verifier = verifier(server.jwks());
    for ((kid, pair), algorithm) in keys.into_iter().zip(algorithms) {
        let token = pair.sign(algorithm, Some(kid), &claims());
        assert!(
            verifier.verify(&token, now()).await.is_ok(),
            "{algorithm:?}"
        );
    }
    assert_eq!(server.paths(), ["/keys"]);
}

#[tokio::test]
async fn a_new_key_of_a_set_is_found_within_ten_seconds_and_a_removed_one_until_it_expires() {
    let (old, new) = (Pair::p256(), Pair::p256());
    let sets = [set(&[("old", &old)]), set(&[("new", &new)])];
    let server = Server::start(move |_, number| sets[number.min(1)].clone()).await;
    let servers = server.jwks();
    assert!(find(&servers, "old").await.is_ok());
    for _ in 0..1000 {
        assert_eq!(find(&servers, "new").await.unwrap_err(), not_yet("new"));
    }
    assert_eq!(server.requests(), 1);
    wait(TEN_SECONDS).await;
    assert!(find(&servers, "old").await.is_ok());
    assert_eq!(server.requests(), 1);
    assert!(find(&servers, "new").await.is_ok());
    assert_eq!(find(&servers, "old").await.unwrap_err(), not_yet("old"));
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn keys_of_a_set_stay_valid_while_its_server_fails() {
    for failing in [status(500), status(404), ok("<html>")] {
        let set = set(&[("k", &Pair::p256())]);
        let server = Server::start(move |_, number| match number {
            0 => set.clone(),
            _ => failing.clone(),
        })
        .await;
        let servers = server.jwks();
        assert!(find(&servers, "k").await.is_ok());
        wait(MINUTE).await;
        assert_eq!(find(&servers, "x").await.unwrap_err(), unavailable("x"));
        assert!(find(&servers, "k").await.is_ok());
        wait(HOUR).await;
        assert!(find(&servers, "k").await.is_ok());
        wait(HOUR).await;
        assert_eq!(find(&servers, "k").await.unwrap_err(), unavailable("k"));
    }
}

#[tokio::test]
async fn keys_are_found_in_a_set_and_on_a_key_server() {
    let (listed, served) = (Pair::p256(), Pair::p384());
    let jwks = Server::always(set(&[("listed", &listed)])).await;
    let (pem, name) = (served.public_pem(), hex(&cache_key("served")));
    let asap = Server::start(move |path, _| {
        if path.contains(&name) {
            ok(pem.clone())
        } else {
            status(404)
        }
    })
    .await;
    let servers = servers(Some(&asap.url()), Some(&jwks.url())).unwrap();
    let found = find(&servers, "listed").await.unwrap();
    assert_eq!(found.algorithms(), [Algorithm::ES256]);
    let found = find(&servers, "served").await.unwrap();
    assert_eq!(found.algorithms(), [Algorithm::ES384]);
    assert_eq!(
        find(&servers, "neither").await.unwrap_err(),
        not_yet("neither")
    );
    assert_eq!(asap.requests(), 2);
}

#[tokio::test]
async fn a_probe_reports_the_state_of_the_server() {
    let pair = Pair::p256();
    for (reply, sound) in [
        (status(404), true),
        (status(403), true),
        (ok(pair.public_pem()), false),
        (Reply::Redirect(302, "/".into()), false),
        (status(500), false),
    ] {
        let server = Server::always(reply).await;
        let results = server.asap().probe().await;
        assert_eq!(results.len(), 1);
        assert_eq!(results[0].0, "auth.key_server");
        assert_eq!(results[0].1.is_ok(), sound, "{results:?}");
    }
    let server = Server::always(set(&[("k", &pair)])).await;
    let results = server.jwks().probe().await;
    assert_eq!(results, [("auth.jwks_url", Ok("\"k\" (ES256)".to_owned()))]);
    let results = server.jwks().probe_key("k").await;
    assert_eq!(results, [("auth.jwks_url", Ok("ES256".to_owned()))]);
    let results = server.jwks().probe_key("x").await;
    assert!(results[0].1.as_ref().unwrap_err().contains("no usable key"));
    let server = Server::always(ok(pair.certificate_pem())).await;
    let results = server.asap().probe_key("k").await;
    assert_eq!(results, [("auth.key_server", Ok("ES256".to_owned()))]);
}

#[test]
fn an_invalid_url_is_rejected() {
    let error = servers(Some("https://[::"), None).unwrap_err();
    assert_eq!(error.config_key, "auth.key_server");
    let error = servers(None, Some("keys")).unwrap_err();
    assert_eq!(error.config_key, "auth.jwks_url");
    assert!(servers(None, Some("https://localhost/jwks")).is_ok());
}
