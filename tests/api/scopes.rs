//! What each scope of a service token allows: every endpoint with every scope.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex::Regex;
use reqwest::{Method, StatusCode};

use crate::harness::{Answer, Usher};
use crate::process::{run, stderr, stdout};
use crate::stomp::{Client, SECRET, service, sign, visitor_topic};

const SCOPES: [&str; 6] = [
    "prosody",
    "queue",
    "bookings",
    "decisions",
    "operate",
    "metrics",
];

/// An endpoint: the route as `src/http` writes it, a path of it, its methods, and the scopes of which it requires one.
/// `operate` includes all of them; with none, every client is allowed.
type Endpoint = (
    &'static str,
    &'static str,
    &'static [Method],
    &'static [&'static str],
);

const ENDPOINTS: &[Endpoint] = &[
    (
        r#""conference""#,
        "/conference",
        &[Method::POST],
        &["prosody"],
    ),
    (
        r#""conference" / String"#,
        "/conference/7",
        &[Method::GET, Method::DELETE],
        &["prosody"],
    ),
    (
        r#""api" / "v1" / "bookings""#,
        "/api/v1/bookings",
        &[Method::GET, Method::POST],
        &["bookings"],
    ),
    (
        r#""api" / "v1" / "bookings" / String"#,
        "/api/v1/bookings/7",
        &[Method::GET, Method::PUT, Method::PATCH, Method::DELETE],
        &["bookings"],
    ),
    (
        r#""api" / "v1" / "conferences""#,
        "/api/v1/conferences",
        &[Method::GET],
        &["queue"],
    ),
    (
        r#""api" / "v1" / "conferences" / String"#,
        "/api/v1/conferences/7",
        &[Method::GET],
        &["queue"],
    ),
    (
        r#""api" / "v1" / "conferences" / String"#,
        "/api/v1/conferences/7",
        &[Method::DELETE],
        &["operate"],
    ),
    (
        r#""api" / "v1" / "prosody" / "events""#,
        "/api/v1/prosody/events",
        &[Method::POST],
        &["prosody"],
    ),
    (
        r#""api" / "v1" / "prosody" / "rooms""#,
        "/api/v1/prosody/rooms",
        &[Method::GET],
        &["prosody"],
    ),
    (
        r#""api" / "v1" / "prosody" / "instances""#,
        "/api/v1/prosody/instances",
        &[Method::GET],
        &["prosody"],
    ),
    (
        r#""api" / "v1" / "decisions""#,
        "/api/v1/decisions",
        &[Method::GET],
        &["decisions"],
    ),
    (
        r#""api" / "v1" / "outbox""#,
        "/api/v1/outbox",
        &[Method::GET],
        &["decisions"],
    ),
    (
        r#""golive""#,
        "/waiting-queue/golive",
        &[Method::POST],
        &["prosody", "queue"],
    ),
    (
        r#""endlive""#,
        "/waiting-queue/endlive",
        &[Method::POST],
        &["prosody", "queue"],
    ),
    (
        r#""conferences""#,
        "/waiting-queue/conferences",
        &[Method::GET],
        &["queue"],
    ),
    (r#""metrics""#, "/metrics", &[Method::GET], &["metrics"]),
    (r#""health""#, "/health", &[Method::GET], &[]),
    (r#""ready""#, "/ready", &[Method::GET], &[]),
    (
        r#""about" / "health""#,
        "/about/health",
        &[Method::GET],
        &[],
    ),
    (
        r#""about" / "version""#,
        "/about/version",
        &[Method::GET],
        &[],
    ),
    (
        r#""websocket""#,
        "/waiting-queue/visitor/websocket",
        &[Method::GET],
        &[],
    ),
];

/// The static token of a scope in these tests.
fn token(scope: &str) -> String {
    format!("0123456789abcdef-{scope}")
}

/// A service with a static token for each scope, and with a key for JWTs.
async fn start() -> Usher {
    let mut tokens: Vec<_> = SCOPES
        .iter()
        .map(|scope| format!("\"{} {scope}\"", token(scope)))
        .collect();
    tokens.push(format!("\"{}\"", token("all")));
    tokens.push(format!("\"{} queue metrics\"", token("two")));
    let tokens = tokens.join(", ");
    Usher::start(&format!(
        "auth.secret = \"{SECRET}\"\nauth.service.tokens = [{tokens}]"
    ))
    .await
}

fn jwt(scope: &str) -> String {
    let mut claims = service();
    claims["scope"] = scope.into();
    sign(&claims)
}

/// The status of a request without a body, and the scope that an error names as missing.
async fn ask(
    usher: &Usher,
    (method, path): (&Method, &str),
    token: &str,
) -> (StatusCode, Option<String>) {
    let request = usher.client.request(method.clone(), usher.url(path));
    let response = request.bearer_auth(token).send().await.unwrap();
    let status = response.status();
    let challenge = response.headers().get("www-authenticate");
    let challenge = challenge.map(|it| it.to_str().unwrap().to_owned());
    if status != StatusCode::FORBIDDEN {
        return (status, None);
    }
    let answer = Answer::from(response).await;
    let scope = answer.body["scope"].as_str().unwrap().to_owned();
    assert_eq!(answer.body["code"], "insufficient_scope", "{}", answer.body);
    for name in scope.split(' ') {
        let message = answer.refused(403);
        assert!(message.contains(&format!("\"{name}\"")), "{message}");
    }
    let expected = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
    assert_eq!(challenge.as_deref(), Some(expected.as_str()));
    (status, Some(scope))
}

#[tokio::test]
async fn every_endpoint_admits_exactly_its_scopes() {
    let usher = start().await;
    for (_, path, methods, required) in ENDPOINTS {
        for method in *methods {
            for scope in SCOPES {
                let admitted =
                    required.is_empty() || required.contains(&scope) || scope == "operate";
                for token in [token(scope), jwt(scope), jwt(&format!("openid {scope}"))] {
                    let (status, missing) = ask(&usher, (method, path), &token).await;
                    assert_ne!(status, StatusCode::UNAUTHORIZED, "{method} {path} {scope}");
                    assert_eq!(missing.is_none(), admitted, "{method} {path} {scope}");
                    if let Some(missing) = missing {
                        assert_eq!(missing, required.join(" "), "{method} {path} {scope}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn token_without_scopes_has_all_and_one_with_unknown_scopes_has_none() {
    let usher = start().await;
    for (_, path, methods, required) in ENDPOINTS {
        for method in *methods {
            for token in [token("all"), sign(&service())] {
                let (_, missing) = ask(&usher, (method, path), &token).await;
                assert_eq!(missing, None, "{method} {path}");
            }
            for token in [jwt("openid profile"), jwt("")] {
                let (_, missing) = ask(&usher, (method, path), &token).await;
                assert_eq!(missing.is_none(), required.is_empty(), "{method} {path}");
            }
        }
    }
    let queue = (&Method::GET, "/waiting-queue/conferences");
    assert_eq!(ask(&usher, queue, &token("two")).await.1, None);
    let bookings = (&Method::GET, "/api/v1/bookings");
    let (_, missing) = ask(&usher, bookings, &token("two")).await;
    assert_eq!(missing.as_deref(), Some("bookings"));
}

/// Every route in `src/http` is in [`ENDPOINTS`].
#[test]
fn the_walk_knows_every_route() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let route = Regex::new(r"warp::path!\(([^)]*)\)").unwrap();
    let mut found = BTreeSet::new();
    let mut directories = vec![source];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = fs::read_to_string(path).unwrap();
            found.extend(route.captures_iter(&text).map(|it| it[1].to_owned()));
        }
    }
    let known: BTreeSet<_> = ENDPOINTS
        .iter()
        .map(|(route, ..)| (*route).to_owned())
        .collect();
    assert_eq!(found, known);
}

#[tokio::test]
async fn service_waits_for_callers_with_the_scope_prosody() {
    let usher = start().await;
    for scope in ["prosody", "operate", "queue prosody"] {
        let mut claims = service();
        claims["scope"] = scope.into();
        let mut jigasi = Client::connect(&usher, &claims).await;
        jigasi.subscribe("1", &visitor_topic("room")).await;
    }
    for scope in ["queue", "bookings", ""] {
        let mut client = Client::open(&usher).await;
        let frame = client
            .connect_with(&format!("Bearer {}", jwt(scope)), "")
            .await;
        assert_eq!(frame.command, "ERROR", "{scope}: {frame:?}");
        assert!(
            frame.header("message").contains("scope prosody"),
            "{frame:?}"
        );
    }
}

#[tokio::test]
async fn token_of_the_command_line_has_the_scopes_that_it_names() {
    let dir = tempfile::TempDir::new().unwrap();
    let secret = format!("auth.secret = \"{SECRET}\"");
    fs::write(dir.path().join("config.toml"), secret).unwrap();
    let sign = |scopes: &[&'static str]| {
        let scopes = scopes.iter().flat_map(|scope| ["--scope", scope]);
        let arguments: Vec<_> = ["token", "--service"].into_iter().chain(scopes).collect();
        run(dir.path(), &arguments)
    };
    let token = stdout(&sign(&["queue", "bookings"])).trim().to_owned();
    let service = start().await;
    let list = (&Method::GET, "/api/v1/bookings");
    assert_eq!(ask(&service, list, &token).await.0, StatusCode::OK);
    let log = (&Method::GET, "/api/v1/decisions");
    assert_eq!(
        ask(&service, log, &token).await.1.as_deref(),
        Some("decisions")
    );
    let wrong = sign(&["everything"]);
    let error = stderr(&wrong);
    assert!(
        !wrong.status.success() && error.contains("\"prosody\""),
        "{error}"
    );
}
