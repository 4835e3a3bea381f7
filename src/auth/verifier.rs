//! Verifies tokens: signature, time, issuer, audience.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

use super::claims::Claims;
use super::error::TokenError;
use super::grant::Grant;
use super::key_server::KeyServers;
use super::keys::{Key, KeySet, PublicKey};
use crate::config::Auth;
use crate::text::escape_for_message;

/// Longer tokens are rejected unread, in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// How many keys with the same `kid` are tried. Verifying a signature costs time, and anyone can cause it.
const MAX_KEYS_TRIED: usize = 4;

/// In a list of accepted issuers or audiences: any.
const ANY: &str = "*";

/// Verifies tokens.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: KeySet,
    key_servers: Option<Arc<KeyServers>>,
    config: Arc<Auth>,
    domain: Arc<str>,
}

/// A verified token; only [`Verifier::verify`] makes one.
#[derive(Debug, Clone)]
pub struct Verified {
    claims: Claims,
    grant: Grant,
    expiry: Expiry,
}

/// The end of a token's validity, the leeway included; in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expiry(f64);

impl Expiry {
    /// Whether the token is no longer valid.
    #[must_use]
    pub fn has_passed(self, now: DateTime<Utc>) -> bool {
        seconds(now) >= self.0
    }
}

impl Verified {
    /// The token's claims.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What the token allows.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The end of the token's validity.
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }
}

impl Verifier {
    /// A verifier without key servers, for tokens of this domain (`xmpp.domain`).
    pub fn new(keys: KeySet, config: Arc<Auth>, domain: &str) -> Self {
        Self {
            keys,
            key_servers: None,
            config,
            domain: domain.into(),
        }
    }

    /// Fetches the keys that are not configured from these servers.
    #[must_use]
    pub fn with_key_servers(self, servers: KeyServers) -> Self {
        Self {
            key_servers: Some(Arc::new(servers)),
            ..self
        }
    }

    /// Shares the key servers of `other`, with the keys that it has cached.
    #[must_use]
    pub fn with_key_servers_of(self, other: &Self) -> Self {
        Self {
            key_servers: other.key_servers.clone(),
            ..self
        }
    }

    /// Verifies that a token is signed with a known key by an algorithm of that key, is valid at `now`, and has
    /// an accepted issuer and audience.
    ///
    /// Waits only if the key must be fetched, and for at most a few seconds.
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
        match (self.keys.find(&header), &self.key_servers, &header.kid) {
            (Err(TokenError::UnknownKey { .. }), Some(servers), Some(kid)) => {
                // Boxed: the memory of a session is that of its largest future.
                Box::pin(self.verify_fetched(token, kid, header.alg, servers, now)).await
            }
            (found, _, _) => self.verify_signature(token, header.alg, found?, now),
        }
    }

    async fn verify_fetched(
        &self,
        token: &str,
        kid: &str,
        algorithm: Algorithm,
        servers: &KeyServers,
        now: DateTime<Utc>,
    ) -> Result<Verified, TokenError> {
        let keys = servers.find(kid, algorithm).await?;
        let verified = self.verify_by_any(token, algorithm, &keys, now);
        if !matches!(verified, Err(TokenError::BadSignature)) {
            return verified;
        }
        let replaced = servers.find_replaced(kid, algorithm, &keys).await;
        self.verify_by_any(token, algorithm, &replaced, now)
    }

    fn verify_by_any(
        &self,
        token: &str,
        algorithm: Algorithm,
        keys: &[Arc<PublicKey>],
        now: DateTime<Utc>,
    ) -> Result<Verified, TokenError> {
        let attempts = keys.iter().take(MAX_KEYS_TRIED);
        let mut attempts =
            attempts.map(|key| self.verify_signature(token, algorithm, key.key(), now));
        attempts
            .find(|result| !matches!(result, Err(TokenError::BadSignature)))
            .unwrap_or(Err(TokenError::BadSignature))
    }

    fn verify_signature(
        &self,
        token: &str,
        algorithm: Algorithm,
        key: &Key,
        now: DateTime<Utc>,
    ) -> Result<Verified, TokenError> {
        // The library's own checks of claims use the system's clock and accept missing claims.
        let mut signature_only = Validation::new(algorithm);
        signature_only.required_spec_claims.clear();
        signature_only.validate_exp = false;
        signature_only.validate_nbf = false;
        signature_only.validate_aud = false;
        let token: jsonwebtoken::TokenData<Map<String, Value>> =
            jsonwebtoken::decode(token, key.decoding(), &signature_only)
                .map_err(|error| signature_error(&error))?;
        let expiry = check_claims(&token.claims, &self.config, now)?;
        let claims = Claims::read(&token.claims);
        Ok(Verified {
            grant: Grant::new(&claims, &self.config, &self.domain),
            claims,
            expiry,
        })
    }
}

fn check_claims(
    claims: &Map<String, Value>,
    config: &Auth,
    now: DateTime<Utc>,
) -> Result<Expiry, TokenError> {
    let leeway = config.leeway.as_secs_f64();
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
        Some(Value::String(issuer)) if !accepts(&config.accepted_issuers, issuer) => {
            return Err(TokenError::IssuerRefused {
                issuer: escape_for_message(issuer),
            });
        }
        Some(Value::String(_)) => {}
        Some(_) => return Err(TokenError::BadClaim("iss")),
    }
    let audience_accepted = match claims.get("aud") {
        None => return Err(TokenError::MissingClaim("aud")),
        Some(Value::String(one)) => accepts(&config.accepted_audiences, one),
        Some(Value::Array(many)) => many
            .iter()
            .filter_map(Value::as_str)
            .any(|one| accepts(&config.accepted_audiences, one)),
        Some(_) => return Err(TokenError::BadClaim("aud")),
    };
    if audience_accepted {
        Ok(expiry)
    } else {
        Err(TokenError::AudienceRefused)
    }
}

/// Times in claims may be fractions of seconds; an f64 is exact to the microsecond.
fn seconds(now: DateTime<Utc>) -> f64 {
    now.timestamp_millis() as f64 / 1000.0
}

/// A claim in seconds since 1970. If present, it must be a number.
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
        // Valid JSON that is no known header: `none` and other unknown algorithms.
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

#[cfg(test)]
pub(super) mod tests;
