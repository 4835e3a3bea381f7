//! Why a token is rejected.

/// Why a token is rejected. The messages are for the administrator of the token's issuer; they never hold the
/// token, and only the beginning of a claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token is longer than `MAX_TOKEN_BYTES`.
    #[error("the token is longer than {max} bytes; put less into it")]
    TooLong {
        /// The most bytes a token may have.
        max: usize,
    },
    /// Not a JWT.
    #[error("this is not a JSON Web Token; send one as \"Authorization: Bearer TOKEN\"")]
    Malformed,
    /// The token's header names an algorithm that is not supported, or not for its key.
    #[error(
        "the token's algorithm is not accepted for its key; sign it with the secret or key configured here, and for a secret by auth.secret_algorithm"
    )]
    AlgorithmRefused,
    /// The header requires an extension (`crit`).
    #[error("the token's header requires an extension (crit) that is not supported; leave it out")]
    ExtensionRefused,
    /// The header names a key that is not configured and not on the key server.
    #[error(
        "the token's key \"{kid}\" is not known here; add it to auth.public_keys or to the key server, or correct the token's kid"
    )]
    UnknownKey {
        /// The beginning of the key id, fit for a message.
        kid: String,
    },
    /// The key servers do not have the key that the header names, so far: they are asked again in a few seconds.
    #[error(
        "the token's key \"{kid}\" is not known here yet; add it to auth.public_keys or to the key server, or correct the token's kid"
    )]
    KeyNotFoundYet {
        /// The beginning of the key id, fit for a message.
        kid: String,
    },
    /// The key server does not respond, or the rate limit for unknown keys is reached. The token may be valid.
    #[error(
        "the token's key \"{kid}\" could not be fetched from the key server just now; try again"
    )]
    KeyServerUnavailable {
        /// The beginning of the key id, fit for a message.
        kid: String,
    },
    /// Signed with a private key, but the header has no `kid`.
    #[error("the token's header does not name its key; add kid")]
    NoKeyNamed,
    /// The signature does not match: altered, or signed with another key.
    #[error("the token's signature is wrong; sign it with the secret or key configured here")]
    BadSignature,
    /// The time in `exp` is past.
    #[error("the token has expired; get a new one")]
    Expired,
    /// The time in `nbf` is in the future.
    #[error("the token is not valid yet; try later, or correct the clock of its issuer")]
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
    /// A required claim is missing.
    #[error("the token has no claim \"{0}\"; add it")]
    MissingClaim(&'static str),
    /// A required claim has a value of the wrong type.
    #[error("the token's claim \"{0}\" has the wrong type; correct it")]
    BadClaim(&'static str),
    /// The signature matches, but the payload is no JSON object, or a registered claim has the wrong type.
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
            Self::UnknownKey { .. } | Self::KeyNotFoundYet { .. } => "unknown_key",
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

    /// Whether the token could not be verified for now: the same token may be accepted in a few seconds.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::KeyServerUnavailable { .. })
    }

    /// Whether a client should try the same token again soon: [`Self::is_temporary`], or its key may be published
    /// in these seconds, as at a rotation.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        self.is_temporary() || matches!(self, Self::KeyNotFoundYet { .. })
    }
}
