//! Tokens: JWTs as Jitsi Meet's deployments sign them, and static service tokens.
//!
//! A [`Verifier`] verifies a token with keys that are [configured](keys) or [fetched](key_server); a
//! [`grant::Grant`] is what the token allows.

mod claims;
mod error;
mod fetch;
pub mod grant;
mod jwks;
mod key_cache;
mod key_misses;
pub mod key_server;
pub mod keys;
mod room_pattern;
pub mod secret_file;
pub mod service_token;
#[cfg(test)]
mod test_keys;
mod verifier;

pub use claims::{Claims, Context, User};
pub use error::TokenError;
pub use service_token::{sign, sign_by};
pub use verifier::{Expiry, Verified, Verifier};
