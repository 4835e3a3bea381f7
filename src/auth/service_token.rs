//! Who may call the service's own endpoints: holders of a service token.

use chrono::{DateTime, Utc};

use super::grant::{Grant, Rules};
use super::{ServiceTokens, TokenError, Verifier};
use crate::metrics;

/// The service tokens that are accepted.
#[derive(Debug)]
pub struct ServiceAuth {
    /// Static tokens (`auth.service.tokens`).
    pub tokens: ServiceTokens,
    /// Checks JWT service tokens.
    pub verifier: Verifier,
    /// What makes a JWT a service token.
    pub rules: Rules,
    /// Whether a request without a token is authorized: no key and no token is configured, and the
    /// configuration allows only a listener on the loopback then. Requests of a proxy come from the
    /// loopback too; they are never authorized without a token.
    pub open: bool,
}

impl ServiceAuth {
    /// Authorizes a request by the value of its `Authorization` header; `proxied` means that a proxy
    /// forwarded the request. Waits only for a key that has to be fetched.
    pub(crate) async fn authorize(
        &self,
        authorization: Option<&[u8]>,
        proxied: bool,
        now: DateTime<Utc>,
    ) -> Result<(), AuthError> {
        let checked = match authorization {
            Some(header) => match bearer(header) {
                Some(token) => self.verify_token(token, now).await,
                None => Err(AuthError::NotBearer),
            },
            None if self.open && !proxied => Ok(()),
            None => Err(AuthError::Missing),
        };
        checked.inspect_err(|error| metrics::token_refused("http", error.code()))
    }

    /// Whether a token makes its bearer a service. `usher check --token` asks the same.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn verify_token(&self, token: &str, now: DateTime<Utc>) -> Result<(), AuthError> {
        if self.tokens.matches(token) {
            return Ok(());
        }
        // A static token that is merely wrong looks to the verifier like a malformed JWT.
        if token.split('.').count() != 3 {
            return Err(AuthError::NotConfigured);
        }
        let verified = self.verifier.verify(token, now).await?;
        if Grant::of(&verified, &self.rules).is_service() {
            Ok(())
        } else {
            Err(AuthError::NotAService)
        }
    }
}

/// Why a request isn't let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is none, and one is needed.
    #[error(
        "A service token is required: send \"Authorization: Bearer …\" with one of auth.service.tokens, or one made by \"usher token --service\"."
    )]
    Missing,
    /// The header is no bearer token.
    #[error("The Authorization header must be \"Bearer\", a blank and the token.")]
    NotBearer,
    /// It is no JWT, and none of the static tokens.
    #[error("The service token is not one of auth.service.tokens; compare the two.")]
    NotConfigured,
    /// It is genuine, but says that somebody else bears it.
    #[error(
        "This is a user's token; a service token has no room, sub or context, and an issuer in auth.service.issuers."
    )]
    NotAService,
    /// It isn't genuine, isn't good now, or can't be checked just now.
    #[error(
        "The service token {}: {_0}.",
        if _0.is_temporary() { "could not be checked" } else { "is refused" }
    )]
    Token(#[from] TokenError),
}

impl AuthError {
    /// One word for it.
    fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
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
