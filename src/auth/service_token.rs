//! Who may call the service's own endpoints: holders of a service token.

use chrono::{DateTime, Utc};
use warp::http::HeaderMap;
use warp::http::header::AUTHORIZATION;

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
    /// Callers without a token are let in: nothing was configured to check one with, and the
    /// configuration saw to it that the listener is on the loopback then. A proxy's requests come from
    /// there too, but say so in a header, and are not let in.
    pub open: bool,
}

impl ServiceAuth {
    /// Lets a request in, or says why not. Waits only for a key that has to be fetched.
    pub(crate) async fn authorize(
        &self,
        headers: &HeaderMap,
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let admitted = self.check(headers, now).await;
        admitted.inspect_err(|refusal| metrics::token_refused("http", refusal.word()))
    }

    async fn check(&self, headers: &HeaderMap, now: DateTime<Utc>) -> Result<(), Refusal> {
        let Some(header) = headers.get(AUTHORIZATION) else {
            if self.open && !is_proxied(headers) {
                return Ok(());
            }
            return Err(Refusal::Missing);
        };
        let token = header
            .to_str()
            .ok()
            .and_then(bearer)
            .ok_or(Refusal::NotBearer)?;
        self.verify_token(token, now).await
    }

    /// Whether a token makes its bearer a service. `usher check --token` asks the same.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn verify_token(&self, token: &str, now: DateTime<Utc>) -> Result<(), Refusal> {
        if self.tokens.matches(token) {
            return Ok(());
        }
        // A static token that is merely wrong looks to the verifier like a malformed JWT.
        if token.split('.').count() != 3 {
            return Err(Refusal::NotConfigured);
        }
        let verified = self.verifier.verify(token, now).await?;
        if Grant::of(&verified, &self.rules).is_service() {
            Ok(())
        } else {
            Err(Refusal::NotAService)
        }
    }
}

/// Why a request isn't let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
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

impl Refusal {
    /// One word for it.
    fn word(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NotBearer => "not_bearer",
            Self::NotConfigured => "not_configured",
            Self::NotAService => "not_a_service",
            Self::Token(error) => error.word(),
        }
    }
}

/// Whether a proxy says that it speaks for somebody else.
pub(crate) fn is_proxied(headers: &HeaderMap) -> bool {
    let proxied = ["forwarded", "x-forwarded-for", "x-real-ip"];
    proxied.iter().any(|name| headers.contains_key(*name))
}

/// The token of a `Bearer` header; the scheme in any case (RFC 9110, section 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
