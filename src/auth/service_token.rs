//! Service tokens, which Prosody and jigasi present: static ones and JWTs.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::Value;

use super::error::TokenError;
use super::verifier::Verifier;
use crate::config::SecretAlgorithm;
use crate::domain::secret::Secret;
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

/// The static service tokens, which are compared and not decoded. Only their digests are stored.
#[derive(Clone)]
pub struct ServiceTokens {
    digests: Vec<Digest>,
}

impl ServiceTokens {
    /// The set of these tokens, without empty ones.
    pub fn new(tokens: &[Secret]) -> Self {
        let digests = tokens
            .iter()
            .map(Secret::expose)
            .filter(|token| !token.is_empty())
            .map(|token| digest(&SHA256, token.as_bytes()))
            .collect();
        Self { digests }
    }

    /// Whether this is one of the tokens. The duration depends only on the length of the presented token and on
    /// the number of tokens.
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
    /// Authorizes a request by the value of its `Authorization` header, or else by its caller. Waits only for a key
    /// that has to be fetched.
    pub(crate) async fn authorize(
        &self,
        authorization: Option<&[u8]>,
        caller: Caller,
        now: DateTime<Utc>,
    ) -> Result<(), AuthError> {
        let checked = match authorization {
            Some(header) => match bearer(header) {
                Some(token) => self.verify_token(token, now).await,
                None => Err(AuthError::NotBearer),
            },
            None if self.open => match caller {
                Caller::Local => Ok(()),
                Caller::Proxied => Err(AuthError::Missing),
                Caller::OtherOrigin => Err(AuthError::OtherOrigin),
                Caller::OtherHost(host) => Err(AuthError::OtherHost {
                    host: escape_for_message(&host),
                }),
            },
            None => Err(AuthError::Missing),
        };
        checked.inspect_err(|error| metrics::token_refused("http", error.code()))
    }

    /// Verifies that a token is a service token.
    ///
    /// # Errors
    ///
    /// [`AuthError::NotConfigured`], [`AuthError::NotAService`] or [`AuthError::Token`].
    pub async fn verify_token(&self, token: &str, now: DateTime<Utc>) -> Result<(), AuthError> {
        if self.tokens.matches(token) {
            return Ok(());
        }
        // The verifier would report a wrong static token as a malformed JWT.
        if token.split('.').count() != 3 {
            return Err(AuthError::NotConfigured);
        }
        let verified = self.verifier.verify(token, now).await?;
        if verified.grant().is_service() {
            Ok(())
        } else {
            Err(AuthError::NotAService)
        }
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
    /// The JWT is not valid, or can't be verified for now.
    #[error(
        "The service token {}: {_0}.",
        if _0.is_temporary() { "could not be checked" } else { "is refused" }
    )]
    Token(#[from] TokenError),
}

impl AuthError {
    /// The reason as a label of metrics.
    fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::OtherOrigin => "other_origin",
            Self::OtherHost { .. } => "other_host",
            Self::NotBearer => "not_bearer",
            Self::NotConfigured => "not_configured",
            Self::NotAService => "not_a_service",
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
        let tokens = ["one", "", "two"].map(|token| Secret::new(token.into()));
        let tokens = ServiceTokens::new(&tokens);
        assert!(tokens.matches("one") && tokens.matches("two"));
        for other in ["", "on", "one ", "ONE", "onetwo"] {
            assert!(!tokens.matches(other), "{other:?}");
        }
        assert!(!ServiceTokens::new(&[]).matches(""));
        assert_eq!(format!("{tokens:?}"), "ServiceTokens(2)");
    }
}
