//! Service tokens, which Prosody and jigasi present: static ones and JWTs.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::Value;

use super::error::TokenError;
use super::verifier::Verifier;
use crate::config::{SecretAlgorithm, ServiceToken};
use crate::domain::scope::{Scope, Scopes};
use crate::metrics;
use crate::text::escape_for_message;

/// Signs a token by HS256 with this secret, these claims (a JSON object) and an optional `kid`.
///
/// # Errors
/// [`TokenError::NotSigned`] if the secret is empty, the claims aren't an object, or the library fails.
pub fn sign(secret: &str, claims: &Value, kid: Option<&str>) -> Result<String, TokenError> {
    sign_by(SecretAlgorithm::Hs256, secret, claims, kid)
}

/// The same by this algorithm.
///
/// # Errors
/// As [`sign`].
pub fn sign_by(
    algorithm: SecretAlgorithm,
    secret: &str,
    claims: &Value,
    kid: Option<&str>,
) -> Result<String, TokenError> {
    if secret.is_empty() || !claims.is_object() {
        return Err(TokenError::NotSigned);
    }
    let mut header = Header::new(match algorithm {
        SecretAlgorithm::Hs256 => Algorithm::HS256,
        SecretAlgorithm::Hs384 => Algorithm::HS384,
        SecretAlgorithm::Hs512 => Algorithm::HS512,
    });
    header.kid = kid.map(str::to_owned);
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&header, claims, &key).map_err(|_| TokenError::NotSigned)
}

/// The static service tokens, which are compared and not decoded. Only their digests are stored, with what they
/// allow.
#[derive(Clone)]
pub struct ServiceTokens {
    known: Vec<(Digest, Scopes)>,
}

impl ServiceTokens {
    /// The set of these tokens, without empty ones.
    pub fn new(tokens: &[ServiceToken]) -> Self {
        let known = tokens
            .iter()
            .map(|known| (known.token.expose(), known.scopes))
            .filter(|(token, _)| !token.is_empty())
            .map(|(token, scopes)| (digest(&SHA256, token.as_bytes()), scopes))
            .collect();
        Self { known }
    }

    /// The scopes of this token, if it is one of these; of one that is listed twice, the first. The duration depends
    /// only on the length of the presented token and on the number of tokens.
    pub fn scopes_of(&self, presented: &str) -> Option<Scopes> {
        let presented = digest(&SHA256, presented.as_bytes());
        self.known.iter().fold(None, |found, (token, scopes)| {
            let is_equal = verify_slices_are_equal(token.as_ref(), presented.as_ref()).is_ok();
            found.or(is_equal.then_some(*scopes))
        })
    }
}

impl std::fmt::Debug for ServiceTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServiceTokens({})", self.known.len())
    }
}

/// Authorizes services by their tokens.
#[derive(Debug)]
pub struct ServiceAuth {
    /// Static tokens (`auth.service.tokens`).
    pub tokens: ServiceTokens,
    /// Checks JWT service tokens.
    pub verifier: Verifier,
    /// Whether a request of a program of this machine is authorized without a token: no key and no token is
    /// configured, and the configuration allows only a listener on the loopback then.
    pub open: bool,
}

/// Where a request from the loopback comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A program of this machine.
    Local,
    /// A client of a proxy of this machine.
    Proxied,
    /// Possibly a page of another origin, in a browser of this machine.
    OtherOrigin,
    /// Possibly a page whose name, this one, resolves to the loopback.
    OtherHost(String),
}

impl ServiceAuth {
    /// Authorizes a request by the value of its `Authorization` header, or else by its caller. One of the scopes
    /// `any_of` is required. Waits only for a key that has to be fetched.
    pub(crate) async fn authorize(
        &self,
        authorization: Option<&[u8]>,
        caller: Caller,
        any_of: &'static [Scope],
        now: DateTime<Utc>,
    ) -> Result<(), AuthError> {
        let checked = match authorization {
            Some(header) => match bearer(header) {
                Some(token) => self.verify_token(token, now).await,
                None => Err(AuthError::NotBearer),
            },
            None if self.open => match caller {
                Caller::Local => Ok(Scopes::ALL),
                Caller::Proxied => Err(AuthError::Missing),
                Caller::OtherOrigin => Err(AuthError::OtherOrigin),
                Caller::OtherHost(host) => Err(AuthError::OtherHost {
                    host: escape_for_message(&host),
                }),
            },
            None => Err(AuthError::Missing),
        };
        let checked = checked.and_then(|scopes| match scopes.include_one_of(any_of) {
            true => Ok(()),
            false => Err(AuthError::ScopeMissing(any_of)),
        });
        checked.inspect_err(|error| metrics::token_refused("http", error.code()))
    }

    /// Verifies that a token is a service token; returns its scopes.
    ///
    /// # Errors
    ///
    /// [`AuthError::NotConfigured`], [`AuthError::NotAService`] or [`AuthError::Token`].
    pub async fn verify_token(&self, token: &str, now: DateTime<Utc>) -> Result<Scopes, AuthError> {
        if let Some(scopes) = self.tokens.scopes_of(token) {
            return Ok(scopes);
        }
        // The verifier would report a wrong static token as a malformed JWT.
        if token.split('.').count() != 3 {
            return Err(AuthError::NotConfigured);
        }
        let verified = self.verifier.verify(token, now).await?;
        verified.grant().scopes().ok_or(AuthError::NotAService)
    }
}

/// Why a request is not authorized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no token.
    #[error(
        "A service token is required: send \"Authorization: Bearer …\" with one of auth.service.tokens, or one made by \"usher token --service\"."
    )]
    Missing,
    /// A page of another origin may have caused a request without a token.
    #[error(
        "While no service token is configured, requests of web pages are refused; configure auth.service.tokens and send one of them."
    )]
    OtherOrigin,
    /// The `Host` of a request without a token is not this machine.
    #[error(
        "While no service token is configured, the Host must be localhost, 127.0.0.1 or [::1], but it is \"{host}\"; use one of these, or configure auth.service.tokens and send one of them."
    )]
    OtherHost {
        /// The beginning of the host, fit for a message.
        host: String,
    },
    /// The header is no bearer token.
    #[error("The Authorization header must be \"Bearer\", a blank and the token.")]
    NotBearer,
    /// The token is no JWT, and none of the static tokens.
    #[error("The service token is not one of auth.service.tokens; compare the two.")]
    NotConfigured,
    /// The token is valid, but a user's.
    #[error(
        "This is a user's token; a service token has no room, sub or context, and an issuer in auth.service.issuers."
    )]
    NotAService,
    /// The token is a service's and has none of the scopes that the request requires.
    #[error(
        "The service token lacks the scope {}; add it to the token (\"TOKEN scope scope\" in auth.service.tokens, or the claim scope of a JWT), or use another token.",
        Scope::list(_0)
    )]
    ScopeMissing(&'static [Scope]),
    /// The JWT is not valid, or can't be verified for now.
    #[error(
        "The service token {}: {_0}.",
        if _0.is_temporary() { "could not be checked" } else { "is refused" }
    )]
    Token(#[from] TokenError),
}

impl AuthError {
    /// The reason as a label of metrics, and in codes of errors.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::OtherOrigin => "other_origin",
            Self::OtherHost { .. } => "other_host",
            Self::NotBearer => "not_bearer",
            Self::NotConfigured => "not_configured",
            Self::NotAService => "not_a_service",
            Self::ScopeMissing(_) => "scope",
            Self::Token(error) => error.code(),
        }
    }
}

/// The token of a `Bearer` header; the scheme in any case (RFC 9110, section 11.1).
fn bearer(header: &[u8]) -> Option<&str> {
    let header = std::str::from_utf8(header)
        .ok()
        .filter(|text| text.is_ascii())?;
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::secret::Secret;

    #[test]
    fn only_objects_are_signed_and_only_with_a_secret() {
        assert_eq!(sign("", &json!({}), None), Err(TokenError::NotSigned));
        assert_eq!(
            sign("a secret", &json!([]), None),
            Err(TokenError::NotSigned)
        );
    }

    #[test]
    fn static_tokens_match_only_themselves() {
        let known = |token: &str, scopes| ServiceToken {
            token: Secret::new(token.into()),
            scopes,
        };
        let queue = Scopes::of_list("queue");
        let tokens = [
            known("one", Scopes::ALL),
            known("", Scopes::ALL),
            known("two", queue),
        ];
        let tokens = ServiceTokens::new(&tokens);
        assert_eq!(tokens.scopes_of("one"), Some(Scopes::ALL));
        assert_eq!(tokens.scopes_of("two"), Some(queue));
        for other in ["", "on", "one ", "ONE", "onetwo"] {
            assert_eq!(tokens.scopes_of(other), None, "{other:?}");
        }
        assert_eq!(ServiceTokens::new(&[]).scopes_of(""), None);
        assert_eq!(format!("{tokens:?}"), "ServiceTokens(2)");
    }
}
