//! Keys from afar, seen from outside: service tokens as Prosody signs them, and a key server that is
//! good, bad or gone.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Answer, Usher, now};
use crate::scripted::{Say, Scripted};
use crate::stomp::{self, Client, Incoming, SECRET, visitor_topic};

/// As in Prosody's `asap_key_id`.
const KID: &str = "jitsi";
const BOOKINGS: &str = "/api/v1/bookings";

/// Prosody's key pair.
struct Asap {
    signing: EncodingKey,
    public: String,
}

impl Asap {
    fn new() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let private = pem("PRIVATE KEY", private.as_ref());
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self {
            signing: EncodingKey::from_rsa_pem(private.as_bytes()).unwrap(),
            public: pem("PUBLIC KEY", public.as_ref()),
        }
    }

    /// The token that stock Prosody and jigasi make.
    fn token(&self, kid: &str) -> String {
        signed(Algorithm::RS256, kid, &self.signing, &service())
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let body: String = base64(der)
        .as_bytes()
        .chunks(64)
        .map(|line| format!("{}\n", std::str::from_utf8(line).unwrap()))
        .collect();
    format!("-----BEGIN {label}-----\n{body}-----END {label}-----\n")
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4_usize {
            let letter = LETTERS[usize::try_from(number >> (18 - 6 * place) & 63).unwrap()];
            let padding = place > chunk.len();
            text.push(if padding { '=' } else { char::from(letter) });
        }
    }
    text
}

fn base64url(text: &str) -> String {
    let text = base64(text.as_bytes()).replace('+', "-").replace('/', "_");
    text.trim_end_matches('=').to_owned()
}

/// The claims of a service, and nothing else.
fn service() -> Value {
    let now = now().timestamp();
    json!({ "iss": "jitsi", "aud": "jitsi", "iat": now, "nbf": now, "exp": now + 60 })
}

fn signed(algorithm: Algorithm, kid: &str, key: &EncodingKey, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(kid.to_owned());
    encode(&header, claims, key).unwrap()
}

/// A key server with this one file.
struct KeyServer {
    address: SocketAddr,
    paths: Arc<Mutex<Vec<String>>>,
}

impl KeyServer {
    async fn with(kid: &str, pem: &str) -> Self {
        let digest = digest(&SHA256, kid.as_bytes());
        let name: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        Self::serving(200, format!("/asap/{name}.pem"), pem.to_owned(), 404).await
    }

    /// One that is ill.
    async fn failing(status: u16) -> Self {
        Self::serving(status, String::new(), String::new(), status).await
    }

    async fn serving(status: u16, at: String, body: String, otherwise: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let paths = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&paths);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else {
                        break;
                    };
                    request.push(byte);
                }
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, body) = if path == at {
                    (status, body.as_str())
                } else {
                    (otherwise, "no")
                };
                seen.lock().unwrap().push(path);
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, paths }
    }

    fn config(&self) -> String {
        format!("auth.key_server = \"http://{}/asap/\"", self.address)
    }

    fn requests(&self) -> usize {
        self.paths.lock().unwrap().len()
    }
}

/// A user's token, as a portal with a key pair signs it.
fn visitor(algorithm: Algorithm, signing: &EncodingKey) -> String {
    signed(algorithm, KID, signing, &stomp::visitor("room"))
}

/// CONNECT with a token.
async fn greet(usher: &Usher, token: &str) -> Client {
    let mut client = Client::open(usher).await;
    client
        .send(&format!(
            "CONNECT\naccept-version:1.2\nAuthorization:Bearer {token}\n\n\0"
        ))
        .await;
    client
}

/// The code of the close that comes, and nothing before it.
async fn closed(client: &mut Client) -> u16 {
    match client.next().await {
        Incoming::Closed(Some(frame)) => frame.code.into(),
        other => panic!("no close: {other:?}"),
    }
}

#[tokio::test]
async fn visitors_wait_with_tokens_signed_by_a_private_key() {
    let rsa = Asap::new();
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let private = pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref());
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let signing = EncodingKey::from_ec_pem(private.as_bytes()).unwrap();
    for (algorithm, public, signing) in [
        (Algorithm::RS256, rsa.public.clone(), &rsa.signing),
        (
            Algorithm::ES256,
            pem("PUBLIC KEY", public.as_ref()),
            &signing,
        ),
    ] {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("portal.pem");
        std::fs::write(&file, public).unwrap();
        let usher = Usher::start(&format!(
            "auth.public_keys = {{ {KID} = \"{}\" }}",
            file.display()
        ))
        .await;
        let mut client = greet(&usher, &visitor(algorithm, signing)).await;
        assert_eq!(client.frame().await.command, "CONNECTED", "{algorithm:?}");
        client.subscribe("1", &visitor_topic("room")).await;
        // The same claims, signed with another key of the same kind.
        let mut stranger = greet(&usher, &visitor(Algorithm::RS256, &Asap::new().signing)).await;
        let (error, _) = stranger.refused().await;
        assert!(error.header("message").contains("refused"), "{error:?}");
    }
}

/// Jitsi Meet's client gives up for good after a few ERRORs, and comes back after a close.
#[tokio::test]
async fn a_key_server_that_fails_closes_the_websocket_without_an_error() {
    let asap = Asap::new();
    let token = visitor(Algorithm::RS256, &asap.signing);
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone_at = gone.local_addr().unwrap();
    drop(gone);
    let ill = Scripted::start(|_| Say::Raw(500, "no".into())).await;
    let rubbish = Scripted::start(|_| Say::Raw(200, "<html>Welcome!</html>".into())).await;
    let slow = Scripted::start(|_| Say::Nothing).await;
    let mut sessions = Vec::new();
    for server in [gone_at, ill.address, rubbish.address, slow.address] {
        let usher = Usher::start(&format!("auth.key_server = \"http://{server}/\"")).await;
        let client = greet(&usher, &token).await;
        sessions.push((usher, client));
    }
    for (_usher, client) in &mut sessions {
        assert_eq!(closed(client).await, 1013);
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_key() {
    let slow = Scripted::start(|_| Say::Nothing).await;
    let usher = Usher::start(&format!("auth.key_server = \"http://{}/\"", slow.address)).await;
    let asap = Asap::new();
    let mut client = greet(&usher, &visitor(Algorithm::RS256, &asap.signing)).await;
    let digest = digest(&SHA256, KID.as_bytes());
    let name: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    slow.wait(&format!("GET /{name}.pem"), 1).await;
    let (_, code) = tokio::join!(usher.stop(), closed(&mut client));
    assert_eq!(code, 1012);
    assert_eq!(slow.lines().len(), 1, "the fetch was not over");
}

/// What the service makes of a token.
async fn shown(usher: &Usher, token: &str) -> Answer {
    let request = usher.client.request(Method::GET, usher.url(BOOKINGS));
    Answer::of(request.bearer_auth(token)).await
}

#[tokio::test]
async fn prosodys_token_is_accepted_by_its_key_on_the_key_server() {
    let asap = Asap::new();
    let server = KeyServer::with(KID, &asap.public).await;
    let usher = Usher::start(&server.config()).await;
    for _ in 0..3 {
        let answer = shown(&usher, &asap.token(KID)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(server.requests(), 1);
    // It is for the whole API.
    let request = usher.client.post(usher.url("/conference"));
    let form = [
        ("name", "room"),
        ("start_time", "2026-11-21T22:21:26.000Z"),
        ("mail_owner", ""),
    ];
    let opened = Answer::of(request.bearer_auth(asap.token(KID)).form(&form)).await;
    assert_eq!(opened.status, 201, "{}", opened.body);
}

/// Stock Prosody says so once in a room's life, with a token that it signs itself, and never that it is over.
#[tokio::test]
async fn jitsis_own_component_is_enough_to_go_live_and_the_ttl_to_end() {
    const ROOM: &str = "room@conference.meet.example.com";
    let asap = Asap::new();
    let server = KeyServer::with(KID, &asap.public).await;
    let more = format!("auth.secret = \"{SECRET}\"\nqueue.live_ttl = \"5s\"");
    let usher = Usher::start(&format!("{}\n{more}", server.config())).await;
    let mut early = Client::wait(&usher, "room").await;
    early.hears_nothing().await;
    let body = json!({ "conference": ROOM });
    let request = usher.client.post(usher.url("/waiting-queue/golive"));
    let answer = Answer::of(request.bearer_auth(asap.token(KID)).json(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let live = json!({ "conference": ROOM, "status": "live", "randomDelayMs": 0 });
    assert_eq!(early.told().await, live);
    assert_eq!(Client::wait(&usher, "room").await.told().await, live);
    let is_live = async || {
        let path = format!("/waiting-queue/conferences?conference={ROOM}");
        usher.get(&path).await.body["conferences"][0]["live"] == true
    };
    let mut looks = 0;
    while is_live().await {
        looks += 1;
        assert!(looks < 1000, "it never ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Client::wait(&usher, "room").await.hears_nothing().await;
}

#[tokio::test]
async fn static_tokens_ask_no_key_server() {
    let server = KeyServer::failing(500).await;
    let usher = Usher::start(&server.config()).await;
    assert_eq!(usher.get(BOOKINGS).await.status, 200);
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_token_of_another_key_is_refused() {
    let server = KeyServer::with(KID, &Asap::new().public).await;
    let usher = Usher::start(&server.config()).await;
    let answer = shown(&usher, &Asap::new().token(KID)).await;
    assert!(answer.refused(401).contains("signature"), "{}", answer.body);
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn a_public_key_is_no_secret_and_none_is_no_algorithm() {
    let asap = Asap::new();
    let server = KeyServer::with(KID, &asap.public).await;
    for secret in ["", "auth.secret = \"0123456789abcdef0123456789abcdef\""] {
        let usher = Usher::start(&format!("{}\n{secret}", server.config())).await;
        assert_eq!(shown(&usher, &asap.token(KID)).await.status, 200);
        for key in [asap.public.as_str(), asap.public.trim()] {
            let key = EncodingKey::from_secret(key.as_bytes());
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let forged = signed(algorithm, KID, &key, &service());
                shown(&usher, &forged).await.refused(401);
            }
        }
        for none in ["none", "None", "NONE", ""] {
            let header = json!({ "alg": none, "typ": "JWT", "kid": KID }).to_string();
            let start = format!(
                "{}.{}",
                base64url(&header),
                base64url(&service().to_string())
            );
            let genuine = asap.token(KID);
            let signature = genuine.rsplit('.').next().unwrap();
            for unsigned in [format!("{start}."), format!("{start}.{signature}")] {
                shown(&usher, &unsigned).await.refused(401);
            }
        }
    }
}

#[tokio::test]
async fn an_unknown_key_is_refused_by_its_name() {
    let asap = Asap::new();
    let server = KeyServer::with(KID, &asap.public).await;
    let usher = Usher::start(&server.config()).await;
    let answer = shown(&usher, &asap.token("other")).await;
    let message = answer.refused(401);
    assert!(message.contains("\"other\" is not known"), "{message}");
}

#[tokio::test]
async fn ids_that_are_paths_lead_nowhere() {
    let asap = Asap::new();
    let server = KeyServer::with(KID, &asap.public).await;
    let usher = Usher::start(&server.config()).await;
    let kids = [
        "../../etc/passwd",
        "../jitsi",
        "/etc/passwd",
        "jitsi.pem",
        "jitsi\u{0}",
    ];
    for kid in kids {
        shown(&usher, &asap.token(kid)).await.refused(401);
    }
    let paths = server.paths.lock().unwrap().clone();
    assert_eq!(paths.len(), kids.len());
    for path in paths {
        let digest = path
            .strip_prefix("/asap/")
            .and_then(|p| p.strip_suffix(".pem"));
        assert_eq!(digest.map(str::len), Some(64), "{path}");
    }
}

#[tokio::test]
async fn a_key_server_that_fails_or_is_gone_is_no_refusal() {
    let asap = Asap::new();
    let failing = KeyServer::failing(500).await.config();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!(
        "auth.key_server = \"http://{}\"",
        closed.local_addr().unwrap()
    );
    drop(closed);
    for config in [failing, gone] {
        let usher = Usher::start(&config).await;
        let answer = shown(&usher, &asap.token(KID)).await;
        let message = answer.refused(503);
        assert!(message.contains("could not be fetched"), "{message}");
        assert!(message.ends_with("try again."), "{message}");
        assert_eq!(answer.headers["retry-after"], "5");
        // Who shows a static token is served all the same.
        assert_eq!(usher.get(BOOKINGS).await.status, 200);
    }
}

#[tokio::test]
async fn a_users_token_is_no_service_token_whatever_signed_it() {
    let asap = Asap::new();
    let server = KeyServer::with(KID, &asap.public).await;
    let usher = Usher::start(&server.config()).await;
    let mut claims = service();
    claims["room"] = "*".into();
    let token = signed(Algorithm::RS256, KID, &asap.signing, &claims);
    let answer = shown(&usher, &token).await;
    assert!(
        answer.refused(401).contains("user's token"),
        "{}",
        answer.body
    );
}

/// Runs `usher check` while the servers here go on.
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
    let told = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), told)
}

#[tokio::test]
async fn check_says_whether_the_key_server_has_the_key_and_the_token_will_do() {
    let asap = Asap::new();
    let server = KeyServer::with(KID, &asap.public).await;
    let config = server.config();
    let token = asap.token(KID);
    let (code, told) = check(&config, &["--kid", KID, "--token", &token]).await;
    assert_eq!(code, Some(0), "{told}");
    for line in [
        "ok      auth.key_server: ",
        "ok      key \"jitsi\": from auth.key_server, for RS256",
        "ok      token: it is accepted as a service's",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }

    let other = Asap::new().token(KID);
    let (code, told) = check(&config, &["--kid", "other", "--token", &other]).await;
    assert_eq!(code, Some(1), "{told}");
    for line in [
        "ok      auth.key_server: ",
        "FAILED  key \"other\": auth.key_server: there is no such key; put it at http://",
        "FAILED  token: The service token is refused: the token's signature is wrong",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
}

#[tokio::test]
async fn check_says_what_ails_the_key_server() {
    let server = KeyServer::failing(500).await;
    let (code, told) = check(&server.config(), &[]).await;
    assert_eq!(code, Some(1), "{told}");
    let line = "it answers with status 500";
    assert!(
        told.contains("FAILED  auth.key_server: ") && told.contains(line),
        "{told}"
    );

    let server = KeyServer::with(KID, "<html>").await;
    let (code, told) = check(&server.config(), &["--kid", KID]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("its answer is not a PEM file"), "{told}");
}

#[tokio::test]
async fn check_knows_configured_keys_and_misses_others() {
    let (code, told) = check("", &["--kid", "none", "--token", "a.b.c"]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("FAILED  key \"none\": it is not in auth.public_keys"),
        "{told}"
    );
    assert!(
        told.contains("FAILED  token: The service token is refused"),
        "{told}"
    );

    let config = "auth.service.tokens = [\"0123456789abcdef\"]";
    let (code, told) = check(config, &["--token", "0123456789abcdef"]).await;
    assert_eq!(code, Some(0), "{told}");
}
