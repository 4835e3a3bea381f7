//! KeyServers keys against servers that are made of a socket and a script.

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
use super::super::keys::test_keys::{Pair, pem};
use super::super::{Rules, TokenError, Verified, Verifier, sign};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
/// Within this, what fails once and then goes well is done.
const SOON: Duration = Duration::from_secs(6);

/// What a server does with a request.
#[derive(Clone)]
enum Reply {
    Says(u16, Vec<u8>),
    /// A status with a `Location`.
    Sends(u16, String),
    /// So many bytes, without saying how many there will be.
    Pours(usize),
    /// The beginning of an answer, and then nothing.
    Stalls,
    Silence,
}

fn says(text: impl Into<Vec<u8>>) -> Reply {
    Reply::Says(200, text.into())
}

fn status(status: u16) -> Reply {
    Reply::Says(status, b"no".to_vec())
}

/// A key server: its script takes the path and the number of the request, from 0.
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
                    // Who asked may have left.
                    let _ = answer(&mut stream, reply).await;
                });
            }
        });
        Self { address, paths }
    }

    /// One that always says the same.
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
        KeyServers::new(HOUR).with_key_server(&self.url()).unwrap()
    }

    fn jwks(&self) -> KeyServers {
        KeyServers::new(HOUR).with_jwks(&self.url()).unwrap()
    }
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
        Reply::Says(status, body) => {
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await
        }
        Reply::Sends(status, location) => {
            let head =
                format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await
        }
        Reply::Pours(bytes) => {
            let head = b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n";
            stream.write_all(head).await?;
            stream.write_all(&vec![b'x'; bytes]).await
        }
        Reply::Stalls => {
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

/// Lets time pass on the clock that caches and deadlines go by.
async fn pass(time: Duration) {
    pause();
    advance(time).await;
    resume();
}

fn unknown(kid: &str) -> TokenError {
    TokenError::UnknownKey {
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
    says(json!({ "keys": keys }).to_string())
}

const NOW: i64 = 1_800_000_000;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(NOW, 0).unwrap()
}

fn claims() -> serde_json::Value {
    json!({ "iss": "jitsi", "aud": "jitsi", "exp": NOW + 60 })
}

fn verifier(remote: KeyServers) -> Verifier {
    let rules = Rules {
        issuers: vec!["jitsi".into()],
        audiences: vec!["jitsi".into()],
        leeway: Duration::ZERO,
    };
    let keys = KeySet::new().with_secret("a secret of 32 bytes, or nearly so");
    Verifier::new(keys.unwrap(), rules).with_remote(remote)
}

async fn verify(remote: KeyServers, token: &str) -> Result<Verified, TokenError> {
    verifier(remote).verify(token, now()).await
}

#[tokio::test]
async fn a_key_is_found_under_the_digest_of_its_id() {
    let pair = Pair::rsa();
    let server = Server::always(says(pair.public_pem())).await;
    let token = pair.sign(Algorithm::RS256, Some("test"), &claims());
    let verified = verify(server.asap(), &token).await.unwrap();
    assert_eq!(verified.claims().iss.as_deref(), Some("jitsi"));
    assert_eq!(
        server.paths(),
        ["/keys/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.pem"]
    );
}

#[tokio::test]
async fn a_certificate_stands_for_its_key_there_too() {
    let pair = Pair::rsa();
    let server = Server::always(says(pair.certificate_pem())).await;
    let token = pair.sign(Algorithm::RS256, Some("k"), &claims());
    assert!(verify(server.asap(), &token).await.is_ok());
}

#[tokio::test]
async fn the_key_that_was_fetched_fixes_the_algorithm() {
    let (rsa, ec) = (Pair::rsa(), Pair::p256());
    let server = Server::always(says(rsa.public_pem())).await;
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
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn tokens_for_local_keys_ask_nobody() {
    let (here, afar) = (Pair::p256(), Pair::p256());
    let server = Server::always(says(afar.public_pem())).await;
    let key = PublicKey::from_pem(&here.public_pem()).unwrap();
    let keys = KeySet::new().with_public_key("k", key);
    let rules = Rules {
        issuers: vec!["*".into()],
        audiences: vec!["*".into()],
        leeway: Duration::ZERO,
    };
    let verifier = Verifier::new(keys, rules).with_remote(server.asap());
    let token = here.sign(Algorithm::ES256, Some("k"), &claims());
    assert!(verifier.verify(&token, now()).await.is_ok());
    let token = here.sign(Algorithm::ES256, None, &claims());
    let refused = verifier.verify(&token, now()).await.unwrap_err();
    assert_eq!(refused, TokenError::NoKeyNamed);
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_key_that_is_not_there_is_unknown_and_asked_for_once_a_minute() {
    for code in [404, 403, 410, 401, 400, 204] {
        let server = Server::always(status(code)).await;
        let remote = server.asap();
        for _ in 0..10 {
            assert_eq!(remote.find("k").await.unwrap_err(), unknown("k"), "{code}");
        }
        assert_eq!(server.requests(), 1, "{code}");
        pass(MINUTE).await;
        assert_eq!(remote.find("k").await.unwrap_err(), unknown("k"));
        assert_eq!(server.requests(), 2, "{code}");
    }
}

#[tokio::test]
async fn a_server_that_fails_once_is_asked_again_after_a_pause() {
    let pem = Pair::p256().public_pem();
    let server = Server::start(move |_, number| match number {
        0 => status(500),
        1 => status(429),
        _ => says(pem.clone()),
    })
    .await;
    let start = Instant::now();
    assert!(server.asap().find("k").await.is_ok());
    assert_eq!(server.requests(), 3);
    let took = start.elapsed();
    assert!(
        Duration::from_millis(300) <= took && took < SOON,
        "{took:?}"
    );
}

#[tokio::test]
async fn a_server_that_goes_on_failing_is_not_asked_without_end() {
    let server = Server::always(status(503)).await;
    let remote = server.asap();
    for _ in 0..10 {
        assert_eq!(remote.find("k").await.unwrap_err(), unavailable("k"));
    }
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn a_slow_server_is_not_waited_for_long() {
    for reply in [Reply::Silence, Reply::Stalls] {
        let server = Server::always(reply).await;
        let remote = server.asap();
        pause();
        let start = Instant::now();
        assert_eq!(remote.find("k").await.unwrap_err(), unavailable("k"));
        let took = start.elapsed();
        resume();
        assert!(
            took > Duration::from_secs(3) && took < Duration::from_secs(9),
            "{took:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_no_reason_to_refuse() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    for remote in [
        KeyServers::new(HOUR).with_key_server(&url).unwrap(),
        KeyServers::new(HOUR).with_jwks(&url).unwrap(),
    ] {
        let error = remote.find("k").await.unwrap_err();
        assert_eq!(error, unavailable("k"));
        assert!(error.is_temporary() && !unknown("k").is_temporary());
        assert!(error.to_string().ends_with("try again"));
    }
}

#[tokio::test]
async fn rubbish_is_no_key_and_not_asked_for_again_at_once() {
    let private = pem("PRIVATE KEY", b"nonsense");
    for body in ["", "<html>", "\u{0}\u{1}", &private] {
        let server = Server::always(says(body)).await;
        for remote in [server.asap(), server.jwks()] {
            assert_eq!(remote.find("k").await.unwrap_err(), unavailable("k"));
            assert_eq!(remote.find("k").await.unwrap_err(), unavailable("k"));
        }
        assert_eq!(server.requests(), 2, "{body:?}");
    }
    let server = Server::always(says(vec![0xff; 100])).await;
    assert_eq!(server.asap().find("k").await.unwrap_err(), unavailable("k"));
}

#[tokio::test]
async fn a_huge_answer_is_not_read() {
    let pem = Pair::p256().public_pem();
    let padded = |bytes: usize| {
        let mut body = pem.clone().into_bytes();
        body.resize(bytes, b'\n');
        body
    };
    let server = Server::always(says(padded(DOCUMENT_MAX_BYTES))).await;
    assert!(server.asap().find("k").await.is_ok());
    for reply in [
        says(padded(DOCUMENT_MAX_BYTES + 1)),
        Reply::Pours(64 * 1024 * 1024),
    ] {
        let server = Server::always(reply).await;
        assert_eq!(server.asap().find("k").await.unwrap_err(), unavailable("k"));
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test]
async fn redirections_are_not_followed() {
    let elsewhere = Server::always(says(Pair::p256().public_pem())).await;
    for location in [
        elsewhere.url(),
        "/other".into(),
        "file:///etc/passwd".into(),
    ] {
        for code in [301, 302, 307, 308] {
            let server = Server::always(Reply::Sends(code, location.clone())).await;
            assert_eq!(server.asap().find("k").await.unwrap_err(), unavailable("k"));
            assert_eq!(server.requests(), 1);
        }
    }
    assert_eq!(elsewhere.requests(), 0);
}

#[tokio::test]
async fn ids_with_paths_in_them_stay_below_the_servers_path() {
    let server = Server::always(status(404)).await;
    let remote = server.asap();
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
        assert_eq!(remote.find(kid).await.unwrap_err(), unknown(kid));
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
async fn a_hundred_who_wait_for_a_key_make_one_request() {
    let pem = Pair::p256().public_pem();
    let server = Server::always(says(pem)).await;
    let remote = Arc::new(server.asap());
    let mut waiting = JoinSet::new();
    for _ in 0..100 {
        let remote = Arc::clone(&remote);
        waiting.spawn(async move { remote.find("k").await.is_ok() });
    }
    assert_eq!(waiting.join_all().await, [true; 100]);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_key_is_fetched_again_when_it_has_expired_and_then_is_the_new_one() {
    let (old, new) = (Pair::p256(), Pair::p256());
    let pems = [old.public_pem(), new.public_pem()];
    let server = Server::start(move |_, number| says(pems[number.min(1)].clone())).await;
    let verifier = verifier(server.asap());
    let [by_old, by_new] =
        [&old, &new].map(|pair| pair.sign(Algorithm::ES256, Some("k"), &claims()));
    assert!(verifier.verify(&by_old, now()).await.is_ok());
    pass(HOUR - MINUTE).await;
    assert!(verifier.verify(&by_old, now()).await.is_ok());
    assert_eq!(server.requests(), 1);
    pass(MINUTE).await;
    assert!(verifier.verify(&by_new, now()).await.is_ok());
    let refused = verifier.verify(&by_old, now()).await.unwrap_err();
    assert_eq!(refused, TokenError::BadSignature);
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_known_key_outlives_its_server_by_as_long_again() {
    let pem = Pair::p256().public_pem();
    let server = Server::start(move |_, number| match number {
        0 => says(pem.clone()),
        _ => status(502),
    })
    .await;
    let remote = server.asap();
    assert!(remote.find("k").await.is_ok());
    pass(HOUR * 3 / 2).await;
    assert!(remote.find("k").await.is_ok());
    assert_eq!(server.requests(), 4);
    pass(HOUR / 2).await;
    assert_eq!(remote.find("k").await.unwrap_err(), unavailable("k"));
}

#[tokio::test]
async fn a_flood_of_made_up_ids_asks_little_and_keeps_no_known_key_out() {
    let pem = Pair::p256().public_pem();
    let known = hex(&name_of("known"));
    let server = Server::start(move |path, _| {
        if path.contains(&known) {
            says(pem.clone())
        } else {
            status(404)
        }
    })
    .await;
    let remote = server.asap();
    assert!(remote.find("known").await.is_ok());
    let (mut refused, mut undecided) = (0, 0);
    for number in 0..1000 {
        match remote.find(&format!("made up {number}")).await {
            Err(TokenError::UnknownKey { .. }) => refused += 1,
            Err(TokenError::KeyServerUnavailable { .. }) => undecided += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused + undecided, 1000);
    assert!((31..50).contains(&refused), "{refused}");
    assert_eq!(server.requests(), 1 + refused);
    pass(HOUR).await;
    assert!(remote.find("known").await.is_ok());
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
async fn a_new_key_of_a_set_is_seen_within_a_minute_and_a_withdrawn_one_when_it_expires() {
    let (old, new) = (Pair::p256(), Pair::p256());
    let sets = [set(&[("old", &old)]), set(&[("new", &new)])];
    let server = Server::start(move |_, number| sets[number.min(1)].clone()).await;
    let remote = server.jwks();
    assert!(remote.find("old").await.is_ok());
    for _ in 0..1000 {
        assert_eq!(remote.find("new").await.unwrap_err(), unknown("new"));
    }
    assert_eq!(server.requests(), 1);
    pass(MINUTE).await;
    assert!(remote.find("old").await.is_ok());
    assert_eq!(server.requests(), 1);
    assert!(remote.find("new").await.is_ok());
    assert_eq!(remote.find("old").await.unwrap_err(), unknown("old"));
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_set_that_fails_leaves_its_keys_and_says_nothing_about_others() {
    for failing in [status(500), status(404), says("<html>")] {
        let set = set(&[("k", &Pair::p256())]);
        let server = Server::start(move |_, number| match number {
            0 => set.clone(),
            _ => failing.clone(),
        })
        .await;
        let remote = server.jwks();
        assert!(remote.find("k").await.is_ok());
        pass(MINUTE).await;
        assert_eq!(remote.find("x").await.unwrap_err(), unavailable("x"));
        assert!(remote.find("k").await.is_ok());
        pass(HOUR).await;
        assert!(remote.find("k").await.is_ok());
        pass(HOUR).await;
        assert_eq!(remote.find("k").await.unwrap_err(), unavailable("k"));
    }
}

#[tokio::test]
async fn with_a_set_and_a_key_server_either_has_keys() {
    let (listed, served) = (Pair::p256(), Pair::p384());
    let jwks = Server::always(set(&[("listed", &listed)])).await;
    let (pem, name) = (served.public_pem(), hex(&name_of("served")));
    let asap = Server::start(move |path, _| {
        if path.contains(&name) {
            says(pem.clone())
        } else {
            status(404)
        }
    })
    .await;
    let remote = asap.asap().with_jwks(&jwks.url()).unwrap();
    let found = remote.find("listed").await.unwrap();
    assert_eq!(found.algorithms(), [Algorithm::ES256]);
    let found = remote.find("served").await.unwrap();
    assert_eq!(found.algorithms(), [Algorithm::ES384]);
    assert_eq!(
        remote.find("neither").await.unwrap_err(),
        unknown("neither")
    );
    assert_eq!(asap.requests(), 2);
}

#[tokio::test]
async fn probing_tells_what_a_server_is_like() {
    let pair = Pair::p256();
    for (reply, sound) in [
        (status(404), true),
        (status(403), true),
        (says(pair.public_pem()), false),
        (Reply::Sends(302, "/".into()), false),
        (status(500), false),
    ] {
        let server = Server::always(reply).await;
        let findings = server.asap().probe().await;
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].0, "auth.key_server");
        assert_eq!(findings[0].1.is_ok(), sound, "{findings:?}");
    }
    let server = Server::always(set(&[("k", &pair)])).await;
    let findings = server.jwks().probe().await;
    assert_eq!(
        findings,
        [("auth.jwks_url", Ok("\"k\" (ES256)".to_owned()))]
    );
    let findings = server.jwks().probe_key("k").await;
    assert_eq!(findings, [("auth.jwks_url", Ok("ES256".to_owned()))]);
    let findings = server.jwks().probe_key("x").await;
    assert!(
        findings[0]
            .1
            .as_ref()
            .unwrap_err()
            .contains("no usable key")
    );
    let server = Server::always(says(pair.certificate_pem())).await;
    let findings = server.asap().probe_key("k").await;
    assert_eq!(findings, [("auth.key_server", Ok("ES256".to_owned()))]);
}

#[test]
fn a_url_that_is_none_is_refused() {
    assert!(
        KeyServers::new(HOUR)
            .with_key_server("https://[::")
            .is_err()
    );
    assert!(KeyServers::new(HOUR).with_jwks("keys").is_err());
    assert!(
        KeyServers::new(HOUR)
            .with_jwks("https://localhost/jwks")
            .is_ok()
    );
}
