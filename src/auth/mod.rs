//! Tokens: JWTs as Jitsi Meet's deployments sign them, verified; and the fixed service tokens.
//!
//! [`Verifier`] says whether a token is genuine and good now, [`grant::Grant`] what its bearer may do.
//! The keys are [here](keys) or [afar](key_server).

mod fetch;
pub mod grant;
mod jwks;
mod key_cache;
pub mod key_server;
pub mod keys;
pub mod secret_file;
pub mod service_token;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use chrono::{DateTime, Utc};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde_json::{Map, Value};

use self::key_server::KeyServers;
use self::keys::{Key, KeySet};
use crate::text::escape_for_message;

/// Longer tokens are refused unread, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// In a list of accepted issuers or audiences: any.
const ANY: &str = "*";

/// Why a token is refused. The messages are for the person who set the issuer of tokens up; they never
/// hold the token, and only the beginning of what it claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token is longer than [`MAX_TOKEN_BYTES`].
    #[error("the token is longer than {max} bytes; put less into it")]
    TooLong {
        /// The most bytes a token may have.
        max: usize,
    },
    /// Not a JWT.
    #[error("this is not a JSON Web Token; send one as \"Authorization: Bearer TOKEN\"")]
    Malformed,
    /// The token's header names an algorithm that its key isn't for, or that isn't taken at all.
    #[error(
        "the token's algorithm is not accepted for its key; sign it with the secret or key configured here"
    )]
    AlgorithmRefused,
    /// The header asks for an extension (`crit`) that isn't known here.
    #[error("the token's header asks for an extension (crit) that is not supported; leave it out")]
    ExtensionRefused,
    /// The header names a key that isn't configured and, if there is a key server, isn't there.
    #[error(
        "the token's key \"{kid}\" is not known here; add it to auth.public_keys or to the key server, or correct the token's kid"
    )]
    UnknownKey {
        /// The beginning of the key id, fit for a message.
        kid: String,
    },
    /// Whether the key exists can't be told: its server doesn't answer, or too much is asked of it.
    /// That says nothing about the token.
    #[error(
        "the token's key \"{kid}\" could not be fetched from the key server just now; try again"
    )]
    KeyServerUnavailable {
        /// The beginning of the key id, fit for a message.
        kid: String,
    },
    /// Signed with a private key, but the header does not say which.
    #[error("the token's header does not name its key; add kid")]
    NoKeyNamed,
    /// The signature does not match: altered, or signed with another key.
    #[error("the token's signature is wrong; sign it with the secret or key configured here")]
    BadSignature,
    /// The time in `exp` is past.
    #[error("the token has expired; get a new one")]
    Expired,
    /// The time in `nbf` is yet to come.
    #[error("the token is not valid yet; try later, or correct the clock of whoever issued it")]
    NotYetValid,
    /// `iss` isn't in the accepted list.
    #[error(
        "the token's issuer \"{issuer}\" is not accepted; add it to auth.accepted_issuers or correct iss"
    )]
    IssuerRefused {
        /// The beginning of the issuer, fit for a message.
        issuer: String,
    },
    /// No `aud` is in the accepted list.
    #[error(
        "the token is for another audience; add its aud to auth.accepted_audiences or correct aud"
    )]
    AudienceRefused,
    /// A claim that must be there isn't.
    #[error("the token has no claim \"{0}\"; add it")]
    MissingClaim(&'static str),
    /// A claim that decides about the token has a value of the wrong type.
    #[error("the token's claim \"{0}\" has the wrong type; correct it")]
    BadClaim(&'static str),
    /// The signature is right, but what is signed isn't an object with claims of the right types.
    #[error("the token's claims are no JSON object, or have wrong types; correct them")]
    BadClaims,
    /// A token could not be made.
    #[error("the token could not be signed; check the secret and the claims")]
    NotSigned,
}

impl TokenError {
    /// The reason as a label of metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::Malformed => "malformed",
            Self::AlgorithmRefused => "algorithm",
            Self::ExtensionRefused => "extension",
            Self::UnknownKey { .. } => "unknown_key",
            Self::KeyServerUnavailable { .. } => "key_server_unavailable",
            Self::NoKeyNamed => "no_key_named",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuerRefused { .. } => "issuer",
            Self::AudienceRefused => "audience",
            Self::MissingClaim(_) => "missing_claim",
            Self::BadClaim(_) | Self::BadClaims => "bad_claim",
            Self::NotSigned => "not_signed",
        }
    }

    /// Whether the token isn't refused, but couldn't be judged right now: the same one may be good in
    /// a few seconds.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::KeyServerUnavailable { .. })
    }
}

/// What a token says, as far as it concerns us. Everything is optional, and what has the wrong type
/// counts as not there; other claims are ignored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claims {
    /// `iss`: who made the token.
    pub iss: Option<String>,
    /// `aud`: whom it is for; one string or a list of them.
    pub aud: Vec<String>,
    /// `exp`: when it expires, in seconds since 1970.
    pub exp: Option<f64>,
    /// `nbf`: when it becomes valid, in seconds since 1970.
    pub nbf: Option<f64>,
    /// `iat`: when it was made, in seconds since 1970.
    pub iat: Option<f64>,
    /// `sub`: the tenant or the domain it is for.
    pub sub: Option<String>,
    /// `room`: the room it is for, a pattern, or `*`.
    pub room: Option<String>,
    /// `context`: who bears it.
    pub context: Context,
    /// Whether the token has none of `room`, `sub` and `context`, of whatever type, as the tokens of
    /// services do.
    pub bare: bool,
}

/// The claim `context`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    /// `context.user`.
    pub user: User,
    /// `context.group`.
    pub group: Option<String>,
    /// `context.room.regex`: whether the claim `room` is a pattern. `true` or `"true"`.
    pub room_is_regex: bool,
    /// `context.features`, as it is.
    pub features: Map<String, Value>,
}

/// The claim `context.user`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user's id in the system that issued the token.
    pub id: Option<String>,
    /// The user's e-mail address.
    pub email: Option<String>,
    /// The name to show.
    pub name: Option<String>,
    /// `visitor`, or what else the issuer writes.
    pub role: Option<String>,
    /// Whether the user is a moderator: `true` or `"true"`.
    pub moderator: bool,
    /// `owner`, `member`, ….
    pub affiliation: Option<String>,
}

impl Claims {
    fn read(claims: &Map<String, Value>) -> Self {
        let context = object(claims, "context");
        let user = object(&context, "user");
        Self {
            iss: text(claims, "iss"),
            aud: match claims.get("aud") {
                Some(Value::String(one)) => vec![one.clone()],
                Some(Value::Array(many)) => many
                    .iter()
                    .filter_map(|one| one.as_str().map(str::to_owned))
                    .collect(),
                _ => Vec::new(),
            },
            exp: claims.get("exp").and_then(Value::as_f64),
            nbf: claims.get("nbf").and_then(Value::as_f64),
            iat: claims.get("iat").and_then(Value::as_f64),
            sub: text(claims, "sub"),
            room: text(claims, "room"),
            bare: ["room", "sub", "context"]
                .iter()
                .all(|name| !claims.contains_key(*name)),
            context: Context {
                user: User {
                    // Some issuers number their users.
                    id: text(&user, "id").or_else(|| {
                        let id = user.get("id").filter(|id| id.is_number());
                        id.map(Value::to_string)
                    }),
                    email: text(&user, "email"),
                    name: text(&user, "name"),
                    role: text(&user, "role"),
                    moderator: truth(&user, "moderator"),
                    affiliation: text(&user, "affiliation"),
                },
                group: text(&context, "group"),
                room_is_regex: truth(&object(&context, "room"), "regex"),
                features: object(&context, "features"),
            },
        }
    }
}

fn text(map: &Map<String, Value>, name: &str) -> Option<String> {
    map.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn object(map: &Map<String, Value>, name: &str) -> Map<String, Value> {
    map.get(name)
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

fn truth(map: &Map<String, Value>, name: &str) -> bool {
    match map.get(name) {
        Some(Value::Bool(truth)) => *truth,
        Some(Value::String(text)) => text == "true",
        _ => false,
    }
}

/// Which genuine tokens are accepted.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The accepted values of `iss`; `*` accepts any. None accept nothing.
    pub issuers: Vec<String>,
    /// The accepted values of `aud`, of which the token must hold one; `*` accepts any. None accept
    /// nothing.
    pub audiences: Vec<String>,
    /// By how much the clocks of issuers may differ from ours.
    pub leeway: Duration,
}

/// Verifies tokens.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: KeySet,
    remote: Option<Arc<KeyServers>>,
    rules: Rules,
}

/// A token that was verified. There is no other way to one of these.
#[derive(Debug, Clone)]
pub struct Verified {
    claims: Claims,
    expiry: Expiry,
}

/// When a token stops being good, the leeway included; in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expiry(f64);

impl Expiry {
    /// Whether it has come.
    #[must_use]
    pub fn has_passed(self, now: DateTime<Utc>) -> bool {
        seconds(now) >= self.0
    }
}

impl Verified {
    /// What the token says.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// When that stops to hold.
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }
}

impl Verifier {
    /// Verifies with these keys, by these rules.
    pub fn new(keys: KeySet, rules: Rules) -> Self {
        Self {
            keys,
            remote: None,
            rules,
        }
    }

    /// Verifies with the keys of these servers, too: those that aren't here.
    #[must_use]
    pub fn with_remote(self, remote: KeyServers) -> Self {
        Self {
            remote: Some(Arc::new(remote)),
            ..self
        }
    }

    /// Fetches keys as `other` does, with what that has fetched already.
    #[must_use]
    pub fn fetching_as(self, other: &Self) -> Self {
        Self {
            remote: other.remote.clone(),
            ..self
        }
    }

    /// Whether a token is genuine and good at this moment: signed with a key of ours by an algorithm the
    /// key is for, not expired, valid already, from an accepted issuer for an accepted audience.
    ///
    /// It waits only if the key has to be fetched, and not for long then. `now` is when it was asked.
    ///
    /// # Errors
    /// Any [`TokenError`] but [`TokenError::NotSigned`], for the first thing that is wrong.
    pub async fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Verified, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong {
                max: MAX_TOKEN_BYTES,
            });
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| header_error(&error))?;
        if header.crit.is_some() {
            return Err(TokenError::ExtensionRefused);
        }
        match (self.keys.find(&header), &self.remote, &header.kid) {
            (Err(TokenError::UnknownKey { .. }), Some(remote), Some(kid)) => {
                let fetched = remote.find(kid).await?;
                let key = fetched.key().allowing(header.alg)?;
                self.verify_signature(token, header.alg, key, now)
            }
            (found, _, _) => self.verify_signature(token, header.alg, found?, now),
        }
    }

    fn verify_signature(
        &self,
        token: &str,
        algorithm: Algorithm,
        key: &Key,
        now: DateTime<Utc>,
    ) -> Result<Verified, TokenError> {
        // Its own checks of claims are off: they go by its own clock and accept what isn't there.
        let mut signature_only = Validation::new(algorithm);
        signature_only.required_spec_claims.clear();
        signature_only.validate_exp = false;
        signature_only.validate_nbf = false;
        signature_only.validate_aud = false;
        let token: jsonwebtoken::TokenData<Map<String, Value>> =
            jsonwebtoken::decode(token, key.decoding(), &signature_only)
                .map_err(|error| signature_error(&error))?;
        let expiry = self.rules.check(&token.claims, now)?;
        Ok(Verified {
            expiry,
            claims: Claims::read(&token.claims),
        })
    }
}

impl Rules {
    fn check(&self, claims: &Map<String, Value>, now: DateTime<Utc>) -> Result<Expiry, TokenError> {
        let leeway = self.leeway.as_secs_f64();
        let exp = time(claims, "exp")?.ok_or(TokenError::MissingClaim("exp"))?;
        let expiry = Expiry(exp + leeway);
        if expiry.has_passed(now) {
            return Err(TokenError::Expired);
        }
        if time(claims, "nbf")?.is_some_and(|nbf| seconds(now) + leeway < nbf) {
            return Err(TokenError::NotYetValid);
        }
        match claims.get("iss") {
            None => return Err(TokenError::MissingClaim("iss")),
            Some(Value::String(issuer)) if !accepts(&self.issuers, issuer) => {
                return Err(TokenError::IssuerRefused {
                    issuer: escape_for_message(issuer),
                });
            }
            Some(Value::String(_)) => {}
            Some(_) => return Err(TokenError::BadClaim("iss")),
        }
        let audience_accepted = match claims.get("aud") {
            None => return Err(TokenError::MissingClaim("aud")),
            Some(Value::String(one)) => accepts(&self.audiences, one),
            Some(Value::Array(many)) => many
                .iter()
                .filter_map(Value::as_str)
                .any(|one| accepts(&self.audiences, one)),
            Some(_) => return Err(TokenError::BadClaim("aud")),
        };
        if audience_accepted {
            Ok(expiry)
        } else {
            Err(TokenError::AudienceRefused)
        }
    }
}

/// Claimed times may be fractions of seconds; in an f64 they are exact to the microsecond.
fn seconds(now: DateTime<Utc>) -> f64 {
    now.timestamp_millis() as f64 / 1000.0
}

/// A time in seconds since 1970; if it is there, it must be a number.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, TokenError> {
    claims
        .get(name)
        .map(|time| time.as_f64().ok_or(TokenError::BadClaim(name)))
        .transpose()
}

fn accepts(accepted: &[String], value: &str) -> bool {
    accepted.iter().any(|one| one == value || one == ANY)
}

fn header_error(error: &Error) -> TokenError {
    match error.kind() {
        // Sound JSON that isn't a header for us: `none` and other unknown algorithms end here.
        ErrorKind::Json(json) if json.is_data() => TokenError::AlgorithmRefused,
        _ => TokenError::Malformed,
    }
}

fn signature_error(error: &Error) -> TokenError {
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::BadSignature,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => {
            TokenError::AlgorithmRefused
        }
        ErrorKind::Json(_) | ErrorKind::Utf8(_) => TokenError::BadClaims,
        _ => TokenError::Malformed,
    }
}

/// Makes a token: HS256 with this secret, these claims (a JSON object) and, if given, a `kid`.
///
/// # Errors
/// [`TokenError::NotSigned`] if the secret is empty, the claims aren't an object, or the library fails.
pub fn sign(secret: &str, claims: &Value, kid: Option<&str>) -> Result<String, TokenError> {
    if secret.is_empty() || !claims.is_object() {
        return Err(TokenError::NotSigned);
    }
    let mut header = Header::new(Algorithm::HS256);
    header.kid = kid.map(str::to_owned);
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&header, claims, &key).map_err(|_| TokenError::NotSigned)
}

/// The fixed tokens of services, which are compared and not decoded. Only their digests are kept.
#[derive(Clone)]
pub struct ServiceTokens {
    digests: Vec<Digest>,
}

impl ServiceTokens {
    /// These tokens. An empty one would let everybody in and is left out.
    pub fn new(tokens: Vec<String>) -> Self {
        let digests = tokens
            .iter()
            .filter(|token| !token.is_empty())
            .map(|token| digest(&SHA256, token.as_bytes()))
            .collect();
        Self { digests }
    }

    /// Whether this is one of the tokens. How long it takes depends on the length of what is presented
    /// and on the number of tokens only.
    pub fn matches(&self, presented: &str) -> bool {
        let presented = digest(&SHA256, presented.as_bytes());
        self.digests.iter().fold(false, |found, token| {
            found | verify_slices_are_equal(token.as_ref(), presented.as_ref()).is_ok()
        })
    }
}

impl std::fmt::Debug for ServiceTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServiceTokens({})", self.digests.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::keys::PublicKey;
    use super::keys::test_keys::{Pair, base64url};
    use super::*;

    const SECRET: &str = "a secret of some length, 32 bytes";
    const NOW: i64 = 1_800_000_000;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(NOW, 0).unwrap()
    }

    fn rules() -> Rules {
        Rules {
            issuers: vec!["jitsi".into()],
            audiences: vec!["jitsi".into(), "other".into()],
            leeway: Duration::from_secs(10),
        }
    }

    fn verifier() -> Verifier {
        Verifier::new(KeySet::new().with_secret(SECRET).unwrap(), rules())
    }

    fn with_key(kid: &str, pair: &Pair) -> Verifier {
        let key = PublicKey::from_pem(&pair.public_pem()).unwrap();
        let keys = KeySet::new().with_secret(SECRET).unwrap();
        Verifier::new(keys.with_public_key(kid, key), rules())
    }

    fn claims() -> Value {
        json!({"iss": "jitsi", "aud": "jitsi", "exp": NOW + 60})
    }

    /// The claims above with some changed; `null` takes one away.
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

    /// Verifies with what is at hand: if that had to wait, it would not come to an end.
    pub(super) trait AtOnce {
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

    fn refused(claims: &Value) -> TokenError {
        verify(claims).unwrap_err()
    }

    #[test]
    fn a_good_token_is_verified_and_read() {
        let claims = claims_but(json!({
            "aud": ["x", "other"], "nbf": NOW, "iat": NOW, "sub": "meet.example.com", "room": "room1",
            "jti": "ignored",
            "context": {
                "user": {"id": 7, "email": "a@b.c", "name": "Ann", "role": "visitor", "moderator": "true",
                    "affiliation": "owner", "avatar": "ignored"},
                "group": "g", "room": {"regex": true}, "features": {"list-visitors": true},
            },
        }));
        let verified = verify(&claims).unwrap();
        let read = verified.claims();
        assert_eq!(read.iss.as_deref(), Some("jitsi"));
        assert_eq!(read.aud, ["x", "other"]);
        assert_eq!(read.sub.as_deref(), Some("meet.example.com"));
        assert_eq!(read.room.as_deref(), Some("room1"));
        assert!(!read.bare && read.context.room_is_regex);
        assert_eq!(read.context.group.as_deref(), Some("g"));
        assert_eq!(read.context.features["list-visitors"], true);
        let user = &read.context.user;
        assert_eq!(user.id.as_deref(), Some("7"));
        assert_eq!(user.email.as_deref(), Some("a@b.c"));
        assert_eq!(user.name.as_deref(), Some("Ann"));
        assert_eq!(user.role.as_deref(), Some("visitor"));
        assert_eq!(user.affiliation.as_deref(), Some("owner"));
        assert!(user.moderator);
    }

    #[test]
    fn wrong_types_in_optional_claims_count_as_not_there() {
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
            assert_eq!(read.context, Context::default());
            assert_eq!((&read.room, &read.sub, read.iat), (&None, &None, None));
            assert!(!read.bare);
        }
        assert!(verify(&claims()).unwrap().claims().bare);
        assert_eq!(
            refused(&claims_but(json!({"sub": []}))),
            TokenError::BadClaims
        );
    }

    #[test]
    fn times_hold_with_the_leeway_and_no_longer() {
        let expiry = verify(&claims_but(json!({"exp": NOW - 9})))
            .unwrap()
            .expiry();
        let at = |instant| DateTime::from_timestamp(instant, 0).unwrap();
        assert!(!expiry.has_passed(at(NOW)) && expiry.has_passed(at(NOW + 1)));
        assert!(verify(&claims_but(json!({"exp": NOW as f64 - 9.5}))).is_ok());
        assert_eq!(
            refused(&claims_but(json!({"exp": NOW - 10}))),
            TokenError::Expired
        );
        assert_eq!(
            refused(&claims_but(json!({"exp": -1}))),
            TokenError::Expired
        );
        assert!(verify(&claims_but(json!({"nbf": NOW + 10}))).is_ok());
        assert_eq!(
            refused(&claims_but(json!({"nbf": NOW + 11}))),
            TokenError::NotYetValid
        );
        assert_eq!(
            refused(&claims_but(json!({"exp": null}))),
            TokenError::MissingClaim("exp")
        );
        assert_eq!(
            refused(&claims_but(json!({"exp": "9999999999"}))),
            TokenError::BadClaim("exp")
        );
        assert_eq!(
            refused(&claims_but(json!({"nbf": "0"}))),
            TokenError::BadClaim("nbf")
        );
    }

    #[test]
    fn issuers_and_audiences_must_be_accepted() {
        assert_eq!(
            refused(&claims_but(json!({"iss": "evil\n"}))),
            TokenError::IssuerRefused {
                issuer: "evil\\u{a}".into()
            }
        );
        assert_eq!(
            refused(&claims_but(json!({"iss": null}))),
            TokenError::MissingClaim("iss")
        );
        assert_eq!(
            refused(&claims_but(json!({"iss": ["jitsi"]}))),
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
                refused(&claims_but(json!({"aud": aud}))),
                TokenError::AudienceRefused
            );
        }
        assert_eq!(
            refused(&claims_but(json!({"aud": null}))),
            TokenError::MissingClaim("aud")
        );
        assert_eq!(
            refused(&claims_but(json!({"aud": {}}))),
            TokenError::BadClaim("aud")
        );
    }

    #[test]
    fn a_star_accepts_any_issuer_and_audience_and_nothing_accepts_none() {
        let token = sign(SECRET, &claims_but(json!({"iss": "x", "aud": "y"})), None).unwrap();
        let keys = KeySet::new().with_secret(SECRET).unwrap();
        let any = Rules {
            issuers: vec!["*".into()],
            audiences: vec!["*".into()],
            ..rules()
        };
        assert!(
            Verifier::new(keys.clone(), any)
                .verify_now(&token, now())
                .is_ok()
        );
        let none = Verifier::new(keys, Rules::default());
        assert!(matches!(
            none.verify_now(&token, now()),
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
    fn a_certificate_stands_for_its_key() {
        let pair = Pair::rsa();
        let key = PublicKey::from_pem(&pair.certificate_pem()).unwrap();
        let verifier = Verifier::new(KeySet::new().with_public_key("k", key), rules());
        let token = pair.sign(Algorithm::RS256, Some("k"), &claims());
        assert!(verifier.verify_now(&token, now()).is_ok());
    }

    #[test]
    fn another_key_does_not_verify() {
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
    fn a_public_key_is_never_a_secret() {
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
        let without_secret = Verifier::new(KeySet::new().with_public_key("k", key), rules());
        let token = sign(&pair.public_pem(), &claims(), None).unwrap();
        assert_eq!(
            without_secret.verify_now(&token, now()).unwrap_err(),
            TokenError::AlgorithmRefused
        );
    }

    #[test]
    fn a_key_of_another_kind_refuses_the_algorithm() {
        let verifier = with_key("k", &Pair::p384());
        let token = Pair::p256().sign(Algorithm::ES256, Some("k"), &claims());
        assert_eq!(
            verifier.verify_now(&token, now()).unwrap_err(),
            TokenError::AlgorithmRefused
        );
    }

    #[test]
    fn unsigned_tokens_are_refused() {
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
    fn an_extension_nobody_knows_is_refused() {
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
    fn what_is_no_token_is_malformed() {
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
    fn messages_hold_little_of_what_the_token_says() {
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

    #[test]
    fn only_objects_are_minted_and_only_with_a_secret() {
        assert_eq!(sign("", &claims(), None), Err(TokenError::NotSigned));
        assert_eq!(sign(SECRET, &json!([]), None), Err(TokenError::NotSigned));
    }

    #[test]
    fn service_tokens_match_themselves_only() {
        let tokens = ServiceTokens::new(vec!["one".into(), String::new(), "two".into()]);
        assert!(tokens.matches("one") && tokens.matches("two"));
        for other in ["", "on", "one ", "ONE", "onetwo"] {
            assert!(!tokens.matches(other), "{other:?}");
        }
        assert!(!ServiceTokens::new(Vec::new()).matches(""));
        assert_eq!(format!("{tokens:?}"), "ServiceTokens(2)");
    }

    proptest! {
        #[test]
        fn no_changed_token_verifies(at in any::<prop::sample::Index>(), by in 1..64_u8) {
            let mut token = sign(SECRET, &claims(), None).unwrap().into_bytes();
            let at = at.index(token.len());
            token[at] = (token[at] ^ by) & 0x7f;
            let token = String::from_utf8(token).unwrap();
            prop_assert!(verifier().verify_now(&token, now()).is_err());
        }

        #[test]
        fn nothing_makes_it_panic(text in any::<String>(), header in "\\PC{0,20}", body in "\\PC{0,20}") {
            let _ = verifier().verify_now(&text, now());
            let token = format!("{}.{}.x", base64url(&header), base64url(&body));
            prop_assert!(verifier().verify_now(&token, now()).is_err());
        }
    }
}
