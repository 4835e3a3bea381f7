use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::super::keys::PublicKey;
use super::super::service_token::sign;
use super::super::test_keys::{Pair, base64url};
use super::*;

const SECRET: &str = "a secret of some length, 32 bytes";
const NOW: i64 = 1_800_000_000;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(NOW, 0).unwrap()
}

fn config() -> Arc<Auth> {
    Arc::new(Auth {
        accepted_issuers: vec!["jitsi".into()],
        accepted_audiences: vec!["jitsi".into(), "other".into()],
        leeway: Duration::from_secs(10),
        ..Auth::default()
    })
}

fn verifier_of(keys: KeySet) -> Verifier {
    Verifier::new(keys, config(), "meet.example.com")
}

fn verifier() -> Verifier {
    verifier_of(KeySet::new().with_secret(SECRET).unwrap())
}

fn with_key(kid: &str, pair: &Pair) -> Verifier {
    let key = PublicKey::from_pem(&pair.public_pem()).unwrap();
    let keys = KeySet::new().with_secret(SECRET).unwrap();
    verifier_of(keys.with_public_key(kid, key))
}

fn claims() -> Value {
    json!({"iss": "jitsi", "aud": "jitsi", "exp": NOW + 60})
}

/// The claims above with some changed; `null` removes one.
fn claims_but(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// Verifies without waiting.
trait AtOnce {
    fn verify_now(&self, token: &str, now: DateTime<Utc>) -> Result<Verified, TokenError>;
}

impl AtOnce for Verifier {
    fn verify_now(&self, token: &str, now: DateTime<Utc>) -> Result<Verified, TokenError> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(self.verify(token, now)).poll(&mut context) {
            std::task::Poll::Ready(verified) => verified,
            std::task::Poll::Pending => panic!("it waits"),
        }
    }
}

fn verify(claims: &Value) -> Result<Verified, TokenError> {
    verifier().verify_now(&sign(SECRET, claims, None).unwrap(), now())
}

fn error(claims: &Value) -> TokenError {
    verify(claims).unwrap_err()
}

#[test]
fn claims_of_a_valid_token_are_read() {
    let claims = claims_but(json!({
        "aud": ["x", "other"], "nbf": NOW, "iat": NOW, "sub": "meet.example.com", "room": "room1",
        "jti": "ignored",
        "context": {
            "user": {"id": 7, "email": "a@b.c", "name": "Ann", "role": "visitor", "moderator": "true",
                "affiliation": "ignored", "avatar": "ignored"},
            "group": "g", "room": {"regex": true}, "features": {"list-visitors": true},
        },
    }));
    let verified = verify(&claims).unwrap();
    let read = verified.claims();
    assert_eq!(read.iss.as_deref(), Some("jitsi"));
    assert_eq!(read.sub.as_deref(), Some("meet.example.com"));
    assert_eq!(read.room.as_deref(), Some("room1"));
    assert!(!read.has_no_user_claims && read.context.room_is_regex);
    assert_eq!(read.context.group.as_deref(), Some("g"));
    assert_eq!(read.context.features["list-visitors"], true);
    let user = &read.context.user;
    assert_eq!(user.id.as_deref(), Some("7"));
    assert_eq!(user.email.as_deref(), Some("a@b.c"));
    assert_eq!(user.name.as_deref(), Some("Ann"));
    assert_eq!(user.role.as_deref(), Some("visitor"));
    assert!(user.moderator);
}

#[test]
fn optional_claims_of_a_wrong_type_count_as_missing() {
    for context in [
        json!(7),
        json!({"user": [], "room": "x", "features": 1, "group": {}}),
        json!({"user": {"id": {}, "role": 1, "moderator": 1, "name": null}}),
    ] {
        let verified = verify(&claims_but(json!({
            "context": context, "room": 5, "sub": null, "iat": "x",
        })))
        .unwrap();
        let read = verified.claims();
        assert_eq!(read.context, crate::auth::Context::default());
        assert_eq!((&read.room, &read.sub), (&None, &None));
        assert!(!read.has_no_user_claims);
    }
    assert!(verify(&claims()).unwrap().claims().has_no_user_claims);
    assert_eq!(
        error(&claims_but(json!({"sub": []}))),
        TokenError::BadClaims
    );
}

#[test]
fn times_are_checked_with_the_leeway() {
    let expiry = verify(&claims_but(json!({"exp": NOW - 9})))
        .unwrap()
        .expiry();
    let at = |instant| DateTime::from_timestamp(instant, 0).unwrap();
    assert!(!expiry.has_passed(at(NOW)) && expiry.has_passed(at(NOW + 1)));
    assert!(verify(&claims_but(json!({"exp": NOW as f64 - 9.5}))).is_ok());
    assert_eq!(
        error(&claims_but(json!({"exp": NOW - 10}))),
        TokenError::Expired
    );
    assert_eq!(error(&claims_but(json!({"exp": -1}))), TokenError::Expired);
    assert!(verify(&claims_but(json!({"nbf": NOW + 10}))).is_ok());
    assert_eq!(
        error(&claims_but(json!({"nbf": NOW + 11}))),
        TokenError::NotYetValid
    );
    assert_eq!(
        error(&claims_but(json!({"exp": null}))),
        TokenError::MissingClaim("exp")
    );
    assert_eq!(
        error(&claims_but(json!({"exp": "9999999999"}))),
        TokenError::BadClaim("exp")
    );
    assert_eq!(
        error(&claims_but(json!({"nbf": "0"}))),
        TokenError::BadClaim("nbf")
    );
}

#[test]
fn issuers_and_audiences_must_be_accepted() {
    assert_eq!(
        error(&claims_but(json!({"iss": "evil\n"}))),
        TokenError::IssuerRefused {
            issuer: "evil\\u{a}".into()
        }
    );
    assert_eq!(
        error(&claims_but(json!({"iss": null}))),
        TokenError::MissingClaim("iss")
    );
    assert_eq!(
        error(&claims_but(json!({"iss": ["jitsi"]}))),
        TokenError::BadClaim("iss")
    );
    for aud in [
        json!("x"),
        json!("*"),
        json!([]),
        json!(["x"]),
        json!([1, ["jitsi"]]),
    ] {
        assert_eq!(
            error(&claims_but(json!({"aud": aud}))),
            TokenError::AudienceRefused
        );
    }
    assert_eq!(
        error(&claims_but(json!({"aud": null}))),
        TokenError::MissingClaim("aud")
    );
    assert_eq!(
        error(&claims_but(json!({"aud": {}}))),
        TokenError::BadClaim("aud")
    );
}

#[test]
fn a_star_accepts_any_issuer_and_audience_and_an_empty_list_none() {
    let token = sign(SECRET, &claims_but(json!({"iss": "x", "aud": "y"})), None).unwrap();
    let keys = KeySet::new().with_secret(SECRET).unwrap();
    let accepting = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
        let config = Auth {
            accepted_issuers: names.clone(),
            accepted_audiences: names,
            ..Auth::default()
        };
        Verifier::new(keys.clone(), Arc::new(config), "meet.example.com")
    };
    assert!(accepting(&["*"]).verify_now(&token, now()).is_ok());
    assert!(matches!(
        accepting(&[]).verify_now(&token, now()),
        Err(TokenError::IssuerRefused { .. })
    ));
}

#[test]
fn each_kind_of_key_verifies_its_own_algorithms() {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS512, RS256, RS384, RS512};
    for (pair, algorithms) in [
        (Pair::rsa(), vec![RS256, RS384, RS512, PS256, PS512]),
        (Pair::p256(), vec![ES256]),
        (Pair::p384(), vec![ES384]),
        (Pair::ed25519(), vec![EdDSA]),
    ] {
        let verifier = with_key("k", &pair);
        for algorithm in algorithms {
            let token = pair.sign(algorithm, Some("k"), &claims());
            assert!(verifier.verify_now(&token, now()).is_ok(), "{algorithm:?}");
            let unknown = pair.sign(algorithm, Some("K"), &claims());
            assert_eq!(
                verifier.verify_now(&unknown, now()).unwrap_err(),
                TokenError::UnknownKey { kid: "K".into() }
            );
            let unnamed = pair.sign(algorithm, None, &claims());
            assert_eq!(
                verifier.verify_now(&unnamed, now()).unwrap_err(),
                TokenError::NoKeyNamed
            );
        }
    }
}

#[test]
fn a_certificate_counts_as_its_key() {
    let pair = Pair::rsa();
    let key = PublicKey::from_pem(&pair.certificate_pem()).unwrap();
    let verifier = verifier_of(KeySet::new().with_public_key("k", key));
    let token = pair.sign(Algorithm::RS256, Some("k"), &claims());
    assert!(verifier.verify_now(&token, now()).is_ok());
}

#[test]
fn tokens_of_other_keys_are_rejected() {
    let token = Pair::p256().sign(Algorithm::ES256, Some("k"), &claims());
    let verifier = with_key("k", &Pair::p256());
    assert_eq!(
        verifier.verify_now(&token, now()).unwrap_err(),
        TokenError::BadSignature
    );
    let other = sign("another secret", &claims(), None).unwrap();
    assert_eq!(
        verifier.verify_now(&other, now()).unwrap_err(),
        TokenError::BadSignature
    );
}

#[test]
fn a_public_key_is_never_used_as_a_secret() {
    let pair = Pair::rsa();
    let verifier = with_key("k", &pair);
    for known in [pair.public_pem(), pair.public_pem().trim().to_owned()] {
        let named = sign(&known, &claims(), Some("k")).unwrap();
        assert_eq!(
            verifier.verify_now(&named, now()).unwrap_err(),
            TokenError::AlgorithmRefused
        );
        for kid in [None, Some("x")] {
            let token = sign(&known, &claims(), kid).unwrap();
            assert_eq!(
                verifier.verify_now(&token, now()).unwrap_err(),
                TokenError::BadSignature
            );
        }
    }
    let key = PublicKey::from_pem(&pair.public_pem()).unwrap();
    let without_secret = verifier_of(KeySet::new().with_public_key("k", key));
    let token = sign(&pair.public_pem(), &claims(), None).unwrap();
    assert_eq!(
        without_secret.verify_now(&token, now()).unwrap_err(),
        TokenError::AlgorithmRefused
    );
}

#[test]
fn a_key_of_another_kind_rejects_the_algorithm() {
    let verifier = with_key("k", &Pair::p384());
    let token = Pair::p256().sign(Algorithm::ES256, Some("k"), &claims());
    assert_eq!(
        verifier.verify_now(&token, now()).unwrap_err(),
        TokenError::AlgorithmRefused
    );
}

#[test]
fn unsigned_tokens_are_rejected() {
    let body = base64url(&claims().to_string());
    let signed = sign(SECRET, &claims(), None).unwrap();
    let signature = signed.rsplit('.').next().unwrap();
    for alg in ["none", "None", "NONE", "hs256", "ES512", ""] {
        let header = base64url(&format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#));
        for signature in ["", signature] {
            let token = format!("{header}.{body}.{signature}");
            assert_eq!(
                verifier().verify_now(&token, now()).unwrap_err(),
                TokenError::AlgorithmRefused,
                "{alg}"
            );
        }
    }
    let stripped = signed.replace(signature, "");
    assert_eq!(
        verifier().verify_now(&stripped, now()).unwrap_err(),
        TokenError::BadSignature
    );
}

#[test]
fn unknown_extensions_are_rejected() {
    let header = base64url(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#);
    let token = format!("{header}.e30.x");
    assert_eq!(
        verifier().verify_now(&token, now()).unwrap_err(),
        TokenError::ExtensionRefused
    );
}

#[test]
fn a_hmac_token_may_name_a_key() {
    let token = sign(SECRET, &claims(), Some("jitsi/service")).unwrap();
    assert!(verifier().verify_now(&token, now()).is_ok());
}

#[test]
fn other_texts_are_malformed_tokens() {
    for text in [
        "",
        ".",
        "..",
        "a.b.c",
        "a.b.c.d",
        "Bearer x",
        "e30",
        "bnVsbA.e30.x",
    ] {
        let error = verifier().verify_now(text, now()).unwrap_err();
        assert!(
            matches!(error, TokenError::Malformed | TokenError::AlgorithmRefused),
            "{text}: {error:?}"
        );
    }
    let long = "a".repeat(MAX_TOKEN_BYTES + 1);
    assert_eq!(
        verifier().verify_now(&long, now()).unwrap_err(),
        TokenError::TooLong {
            max: MAX_TOKEN_BYTES
        }
    );
    let deep = format!("{}{}", "[".repeat(3000), "]".repeat(3000));
    let header = base64url(r#"{"alg":"HS256"}"#);
    let token = format!("{header}.{}.eA", base64url(&deep));
    assert_eq!(
        verifier().verify_now(&token, now()).unwrap_err(),
        TokenError::BadSignature
    );
}

#[test]
fn messages_truncate_and_escape_claims() {
    let pair = Pair::p256();
    let token = pair.sign(
        Algorithm::ES256,
        Some(&format!("\r\n{}", "k".repeat(900))),
        &claims(),
    );
    let message = verifier()
        .verify_now(&token, now())
        .unwrap_err()
        .to_string();
    assert!(message.len() < 250 && !message.contains('\n'), "{message}");
}

proptest! {
    #[test]
    fn changed_tokens_are_rejected(at in any::<prop::sample::Index>(), by in 1..64_u8) {
        let mut token = sign(SECRET, &claims(), None).unwrap().into_bytes();
        let at = at.index(token.len());
        token[at] = (token[at] ^ by) & 0x7f;
        let token = String::from_utf8(token).unwrap();
        prop_assert!(verifier().verify_now(&token, now()).is_err());
    }

    #[test]
    fn verification_never_panics(text in any::<String>(), header in "\\PC{0,20}", body in "\\PC{0,20}") {
        let _ = verifier().verify_now(&text, now());
        let token = format!("{}.{}.x", base64url(&header), base64url(&body));
        prop_assert!(verifier().verify_now(&token, now()).is_err());
    }
}
