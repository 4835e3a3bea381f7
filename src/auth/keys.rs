//! The keys that verify tokens: the deployment's secret, and public keys by key id (`kid`).

use std::collections::BTreeMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Header};

use super::error::TokenError;
use crate::config::SecretAlgorithm;
use crate::text::escape_for_message;

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The bytes of an RSA modulus of 2048 bits; a key in DER has more. Shorter keys are rejected.
const MIN_RSA_BYTES: usize = 256;

/// The bytes of an uncompressed point (SEC 1) of each curve.
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;

/// Why a key is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The secret is empty, so that anyone could sign.
    #[error("the token secret is empty; give the app_secret that Prosody has")]
    EmptySecret,
    /// The text is no key of a supported kind.
    #[error(
        "not a public key; give a PEM file with an RSA, EC (P-256, P-384) or Ed25519 public key, or a certificate with one"
    )]
    NotAPublicKey,
    /// An RSA key of less than 2048 bits is not secure.
    #[error("the RSA key has fewer than 2048 bits; make a longer one")]
    ShortRsaKey,
}

/// A public key and the algorithms that it verifies. The key determines the algorithm, not the token.
#[derive(Debug, Clone)]
pub struct PublicKey(Key);

/// A key and its algorithms.
#[derive(Debug, Clone)]
pub(super) struct Key {
    decoding: DecodingKey,
    algorithms: &'static [Algorithm],
}

impl Key {
    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    pub(super) fn for_algorithm(&self, algorithm: Algorithm) -> Result<&Self, TokenError> {
        if self.algorithms.contains(&algorithm) {
            Ok(self)
        } else {
            Err(TokenError::AlgorithmRefused)
        }
    }
}

impl PublicKey {
    /// Reads a PEM text: an RSA (RS256 to RS512, PS256 to PS512), P-256 (ES256), P-384 (ES384) or
    /// Ed25519 (EdDSA) public key, or a certificate with one. The dates and the issuer of a certificate are
    /// ignored, as in Prosody. A certificate of another kind of key that is signed by Ed25519 is not supported.
    ///
    /// # Errors
    /// [`KeyError::NotAPublicKey`] or [`KeyError::ShortRsaKey`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let pem = pem.as_bytes();
        let decoding = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|_| KeyError::NotAPublicKey)?;
        decoding.try_into()
    }

    /// The same key for this algorithm alone, if the key supports it.
    pub(super) fn restrict_to(self, algorithm: Algorithm) -> Option<Self> {
        let mut algorithms = self.0.algorithms.iter();
        let only = algorithms.find(|own| **own == algorithm)?;
        Some(Self(Key {
            algorithms: std::slice::from_ref(only),
            ..self.0
        }))
    }

    /// The algorithms that the key verifies.
    #[must_use]
    pub fn algorithms(&self) -> &[Algorithm] {
        self.0.algorithms
    }

    pub(super) fn key(&self) -> &Key {
        &self.0
    }
}

impl TryFrom<DecodingKey> for PublicKey {
    type Error = KeyError;

    /// Checks the kind and the length of the key.
    fn try_from(decoding: DecodingKey) -> Result<Self, KeyError> {
        let family = decoding.family();
        let (parsed, algorithms): (_, &'static [Algorithm]) = match (family, decoding.kind()) {
            (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) => {
                check_rsa_length(der)?;
                (ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der), RSA)
            }
            (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                if [n, e].iter().any(|number| number.first() == Some(&0)) {
                    // Some issuers write leading zeros, which the library rejects.
                    let (n, e) = (without_zeros(n), without_zeros(e));
                    return DecodingKey::from_rsa_raw_components(n, e).try_into();
                }
                check_rsa_length(n)?;
                let components = RsaPublicKeyComponents { n, e };
                (
                    components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256),
                    RSA,
                )
            }
            (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => match point.len() {
                P256_POINT_BYTES => (
                    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point),
                    &[Algorithm::ES256],
                ),
                P384_POINT_BYTES => (
                    ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point),
                    &[Algorithm::ES384],
                ),
                _ => return Err(KeyError::NotAPublicKey),
            },
            (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) => {
                (ParsedPublicKey::new(&ED25519, point), &[Algorithm::EdDSA])
            }
            _ => return Err(KeyError::NotAPublicKey),
        };
        parsed.map_err(|_| KeyError::NotAPublicKey)?;
        Ok(Self(Key {
            decoding,
            algorithms,
        }))
    }
}

fn check_rsa_length(rsa: &[u8]) -> Result<(), KeyError> {
    if rsa.len() < MIN_RSA_BYTES {
        return Err(KeyError::ShortRsaKey);
    }
    Ok(())
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// The configured keys: at most one secret, and public keys by `kid`.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    secret: Option<Key>,
    public_keys: BTreeMap<String, PublicKey>,
}

impl KeySet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the secret for HS256 tokens (Prosody's `app_secret`). Prosody accepts one algorithm, too.
    ///
    /// # Errors
    /// [`KeyError::EmptySecret`].
    pub fn with_secret(mut self, secret: &str) -> Result<Self, KeyError> {
        if secret.is_empty() {
            return Err(KeyError::EmptySecret);
        }
        self.secret = Some(Key {
            decoding: DecodingKey::from_secret(secret.as_bytes()),
            algorithms: &[Algorithm::HS256],
        });
        Ok(self)
    }

    /// The same for this algorithm instead of HS256.
    ///
    /// # Errors
    /// [`KeyError::EmptySecret`].
    pub fn with_secret_for(
        self,
        secret: &str,
        algorithm: SecretAlgorithm,
    ) -> Result<Self, KeyError> {
        let mut keys = self.with_secret(secret)?;
        if let Some(secret) = &mut keys.secret {
            secret.algorithms = match algorithm {
                SecretAlgorithm::Hs256 => &[Algorithm::HS256],
                SecretAlgorithm::Hs384 => &[Algorithm::HS384],
                SecretAlgorithm::Hs512 => &[Algorithm::HS512],
            };
        }
        Ok(keys)
    }

    /// Adds a public key for tokens whose header has exactly this `kid`.
    pub fn with_public_key(mut self, kid: &str, key: PublicKey) -> Self {
        self.public_keys.insert(kid.to_owned(), key);
        self
    }

    /// The key for a token with this header.
    ///
    /// An HMAC token needs the secret, whatever its `kid`, unless that is a public key's; any other token needs
    /// the public key with its `kid`, even if there is only one.
    pub(super) fn find(&self, header: &Header) -> Result<&Key, TokenError> {
        let kid = header.kid.as_deref();
        let named = kid.and_then(|kid| self.public_keys.get(kid));
        let key = match (named, kid) {
            (Some(PublicKey(key)), _) => key,
            (None, _) if HMAC.contains(&header.alg) => {
                self.secret.as_ref().ok_or(TokenError::AlgorithmRefused)?
            }
            (None, Some(kid)) => {
                return Err(TokenError::UnknownKey {
                    kid: escape_for_message(kid),
                });
            }
            (None, None) => return Err(TokenError::NoKeyNamed),
        };
        key.for_algorithm(header.alg)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_keys::{Pair, pem};
    use super::*;

    fn algorithms(pem: &str) -> Result<&'static [Algorithm], KeyError> {
        PublicKey::from_pem(pem).map(|PublicKey(key)| key.algorithms)
    }

    #[test]
    fn the_kind_of_key_determines_the_algorithms() {
        for (pair, expected) in [
            (Pair::rsa(), RSA),
            (Pair::p256(), &[Algorithm::ES256]),
            (Pair::p384(), &[Algorithm::ES384]),
            (Pair::ed25519(), &[Algorithm::EdDSA]),
        ] {
            assert_eq!(algorithms(&pair.public_pem()), Ok(expected));
            assert_eq!(algorithms(&pair.certificate_pem()), Ok(expected));
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        let spki = Pair::p256().public_der();
        let ed25519 = Pair::ed25519();
        let cut_off = &spki[..spki.len() - 1];
        let mut off_the_curve = spki.clone();
        *off_the_curve.last_mut().unwrap() ^= 1;
        for text in [
            String::new(),
            "secret".into(),
            pem("PUBLIC KEY", b"nonsense"),
            pem("PUBLIC KEY", cut_off),
            pem("PUBLIC KEY", &off_the_curve),
            pem("PRIVATE KEY", &ed25519.public_der()),
            pem("CERTIFICATE REQUEST", &spki),
        ] {
            assert_eq!(algorithms(&text), Err(KeyError::NotAPublicKey), "{text}");
        }
    }

    #[test]
    fn short_rsa_keys_are_rejected() {
        // 1024 bits.
        let short = "-----BEGIN RSA PUBLIC KEY-----\n\
             MIGJAoGBAKy1atTuAKJPU6Mm51nDNmuz7PXqcgAR4V9qd+DkouL2/g26DDDvpQV1\n\
             9MkKvkWLUXQxqNsvBMA721KSkQP+bfRW+40LvdvyImPQv2dBZtDsSDkbcUNoeiv+\n\
             rvW1GZYn5TiYRMYArTAYT8qaNPOem18kXPmBqXLNy2cLuH5S2pqFAgMBAAE=\n\
             -----END RSA PUBLIC KEY-----";
        assert_eq!(algorithms(short), Err(KeyError::ShortRsaKey));
    }

    #[test]
    fn an_empty_secret_is_rejected() {
        assert_eq!(
            KeySet::new().with_secret("").unwrap_err(),
            KeyError::EmptySecret
        );
    }

    #[test]
    fn the_secret_is_not_printed() {
        let keys = KeySet::new().with_secret("hush").unwrap();
        let printed = format!("{keys:?}");
        assert!(
            !printed.contains("hush") && !printed.contains("104, 117"),
            "{printed}"
        );
    }
}
