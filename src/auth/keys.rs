//! The keys that tokens are verified with: the deployment's secret, and public keys by their id.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Header};

use super::TokenError;
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

/// An RSA modulus of 2048 bits has so many bytes (a key in DER has more), and nothing shorter is taken.
const MIN_RSA_BYTES: usize = 256;

/// Points of the two curves as SEC 1 writes them uncompressed, in bytes.
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;

/// Why something can't be a key. For whoever wrote the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The secret is empty: everybody could sign.
    #[error("the token secret is empty; give the app_secret that Prosody has")]
    EmptySecret,
    /// The text isn't a key of a kind that is known here.
    #[error(
        "not a public key; give a PEM file with an RSA, EC (P-256, P-384) or Ed25519 public key, or a certificate with one"
    )]
    NotAPublicKey,
    /// An RSA key that can be broken.
    #[error("the RSA key has fewer than 2048 bits; make a longer one")]
    ShortRsaKey,
}

/// A public key, with the algorithms it may verify. The key decides, never the token.
#[derive(Debug, Clone)]
pub struct PublicKey(Key);

/// A key with the algorithms it may be used for.
#[derive(Debug, Clone)]
pub(super) struct Key {
    decoding: DecodingKey,
    algorithms: &'static [Algorithm],
}

impl Key {
    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    pub(super) fn allowing(&self, algorithm: Algorithm) -> Result<&Self, TokenError> {
        if self.algorithms.contains(&algorithm) {
            Ok(self)
        } else {
            Err(TokenError::AlgorithmRefused)
        }
    }
}

impl PublicKey {
    /// Reads a PEM text: an RSA (RS256 to RS512, PS256 to PS512), P-256 (ES256), P-384 (ES384) or
    /// Ed25519 (EdDSA) public key, or a certificate that holds one. A certificate stands for its key:
    /// its dates and its issuer aren't looked at, as in Prosody. One of another kind that is signed
    /// *with* Ed25519 isn't understood; give its public key instead.
    ///
    /// # Errors
    /// [`KeyError::NotAPublicKey`] or [`KeyError::ShortRsaKey`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let pem = pem.as_bytes();
        let decoding = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|_| KeyError::NotAPublicKey)?;
        Self::of(decoding)
    }

    /// Makes sure that it is a key indeed, and long enough.
    pub(super) fn of(decoding: DecodingKey) -> Result<Self, KeyError> {
        let family = decoding.family();
        let (parsed, algorithms): (_, &'static [Algorithm]) = match (family, decoding.kind()) {
            (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) => {
                long_enough(der)?;
                (ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der), RSA)
            }
            (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                if [n, e].iter().any(|number| number.first() == Some(&0)) {
                    // Sloppy, yet common; the library refuses it.
                    let (n, e) = (without_zeros(n), without_zeros(e));
                    return Self::of(DecodingKey::from_rsa_raw_components(n, e));
                }
                long_enough(n)?;
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

    /// The same key for this algorithm alone, if it is one of its own.
    pub(super) fn for_only(self, algorithm: Algorithm) -> Option<Self> {
        let mut algorithms = self.0.algorithms.iter();
        let only = algorithms.find(|own| **own == algorithm)?;
        Some(Self(Key {
            algorithms: std::slice::from_ref(only),
            ..self.0
        }))
    }

    /// The algorithms it may verify.
    #[must_use]
    pub fn algorithms(&self) -> &[Algorithm] {
        self.0.algorithms
    }

    pub(super) fn key(&self) -> &Key {
        &self.0
    }
}

fn long_enough(rsa: &[u8]) -> Result<(), KeyError> {
    if rsa.len() < MIN_RSA_BYTES {
        return Err(KeyError::ShortRsaKey);
    }
    Ok(())
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// All keys of this deployment: at most one secret, and public keys by `kid`.
///
/// A lookup that ends in [`TokenError::UnknownKey`] is where a key server is asked, if there is one.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    secret: Option<Key>,
    public_keys: BTreeMap<String, PublicKey>,
}

impl KeySet {
    /// A set without any key, which verifies nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the secret that HS256, HS384 and HS512 tokens are signed with (Prosody's `app_secret`).
    ///
    /// # Errors
    /// [`KeyError::EmptySecret`].
    pub fn with_secret(mut self, secret: &str) -> Result<Self, KeyError> {
        if secret.is_empty() {
            return Err(KeyError::EmptySecret);
        }
        self.secret = Some(Key {
            decoding: DecodingKey::from_secret(secret.as_bytes()),
            algorithms: HMAC,
        });
        Ok(self)
    }

    /// With a public key for tokens whose header names exactly this `kid`.
    pub fn with_public_key(mut self, kid: &str, key: PublicKey) -> Self {
        self.public_keys.insert(kid.to_owned(), key);
        self
    }

    /// The key a token must have been signed with, going by its header.
    ///
    /// An HMAC token is for the secret, whatever its `kid`, unless that is a public key's; all others
    /// are for the public key with their `kid`, and never for the only one there is.
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
        key.allowing(header.alg)
    }
}

#[cfg(test)]
pub(super) mod test_keys {
    //! Keys made while the tests run, and the texts to hold them.

    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    };
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

    const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    /// A key pair: what signs, and its public half.
    pub(crate) struct Pair {
        pub(crate) signing: EncodingKey,
        pub(crate) spki: Vec<u8>,
    }

    impl Pair {
        pub(crate) fn rsa() -> Self {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
            let private = pem("PRIVATE KEY", pkcs8.as_ref());
            let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            Self {
                signing: EncodingKey::from_rsa_pem(private.as_bytes()).unwrap(),
                spki: spki.as_ref().to_vec(),
            }
        }

        pub(crate) fn p256() -> Self {
            Self::ec(&ECDSA_P256_SHA256_FIXED_SIGNING)
        }

        pub(crate) fn p384() -> Self {
            Self::ec(&ECDSA_P384_SHA384_FIXED_SIGNING)
        }

        fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> Self {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let pkcs8 = pair.to_pkcs8v1().unwrap();
            let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            Self {
                signing: EncodingKey::from_ec_der(pkcs8.as_ref()),
                spki: spki.as_ref().to_vec(),
            }
        }

        pub(crate) fn ed25519() -> Self {
            let pair = Ed25519KeyPair::generate().unwrap();
            let pkcs8 = pair.to_pkcs8().unwrap();
            let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            Self {
                signing: EncodingKey::from_ed_der(pkcs8.as_ref()),
                spki: spki.as_ref().to_vec(),
            }
        }

        /// The public half as a JSON Web Key.
        pub(crate) fn jwk(&self, kid: &str) -> serde_json::Value {
            let url = |bytes: &[u8]| base64url_bytes(bytes);
            let point = |bytes: usize| &self.spki[self.spki.len() - bytes..];
            match self.spki.len() {
                44 => serde_json::json!({
                    "kty": "OKP", "kid": kid, "crv": "Ed25519", "x": url(point(32)),
                }),
                91 => serde_json::json!({
                    "kty": "EC", "kid": kid, "crv": "P-256",
                    "x": url(&point(64)[..32]), "y": url(point(32)),
                }),
                120 => serde_json::json!({
                    "kty": "EC", "kid": kid, "crv": "P-384",
                    "x": url(&point(96)[..48]), "y": url(point(48)),
                }),
                // 2048 bits: the modulus, two bytes of DER, and 65537.
                _ => serde_json::json!({
                    "kty": "RSA", "kid": kid, "e": "AQAB", "n": url(&point(261)[..256]),
                }),
            }
        }

        pub(crate) fn public_pem(&self) -> String {
            pem("PUBLIC KEY", &self.spki)
        }

        /// As much of a certificate as has to be there: version, serial number, algorithm, names,
        /// dates, the key, and a signature nobody checks.
        pub(crate) fn certificate_pem(&self) -> String {
            let sha256_with_rsa = der(
                0x30,
                &[
                    0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 0x05, 0,
                ],
            );
            let common_name = [0x06, 3, 0x55, 4, 3, 0x0c, 1, b'x'];
            let name = der(0x30, &der(0x31, &der(0x30, &common_name)));
            let date = der(0x17, b"200101000000Z");
            let inner = [
                der(0xa0, &[0x02, 1, 2]),
                vec![0x02, 1, 1],
                sha256_with_rsa.clone(),
                name.clone(),
                der(0x30, &[date.clone(), date].concat()),
                name,
                self.spki.clone(),
            ];
            let signature = der(0x03, &[0; 257]);
            let outer = [der(0x30, &inner.concat()), sha256_with_rsa, signature];
            pem("CERTIFICATE", &der(0x30, &outer.concat()))
        }

        pub(crate) fn sign(
            &self,
            algorithm: Algorithm,
            kid: Option<&str>,
            claims: &serde_json::Value,
        ) -> String {
            let mut header = Header::new(algorithm);
            header.kid = kid.map(str::to_owned);
            encode(&header, claims, &self.signing).unwrap()
        }
    }

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        let length = match (high, low) {
            (0, ..128) => vec![low],
            (0, _) => vec![0x81, low],
            _ => vec![0x82, high, low],
        };
        [&[tag], &length[..], content].concat()
    }

    pub(crate) fn pem(label: &str, bytes: &[u8]) -> String {
        let text = base64(bytes);
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            lines.join("\n")
        )
    }

    fn base64(bytes: &[u8]) -> String {
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let mut three = [0; 3];
            three[..chunk.len()].copy_from_slice(chunk);
            let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
            for place in 0..4_usize {
                let index = usize::try_from(number >> (18 - 6 * place) & 63).unwrap();
                text.push(if place <= chunk.len() {
                    char::from(STANDARD[index])
                } else {
                    '='
                });
            }
        }
        text
    }

    /// Base64 as in tokens.
    pub(crate) fn base64url(text: &str) -> String {
        base64url_bytes(text.as_bytes())
    }

    fn base64url_bytes(bytes: &[u8]) -> String {
        base64(bytes)
            .replace('+', "-")
            .replace('/', "_")
            .replace('=', "")
    }
}

#[cfg(test)]
mod tests {
    use super::test_keys::{Pair, pem};
    use super::*;

    fn algorithms(pem: &str) -> Result<&'static [Algorithm], KeyError> {
        PublicKey::from_pem(pem).map(|PublicKey(key)| key.algorithms)
    }

    #[test]
    fn the_kind_of_key_fixes_the_algorithms() {
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
    fn what_is_no_public_key_is_refused() {
        let spki = Pair::p256().spki;
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
            pem("PRIVATE KEY", &ed25519.spki),
            pem("CERTIFICATE REQUEST", &spki),
        ] {
            assert_eq!(algorithms(&text), Err(KeyError::NotAPublicKey), "{text}");
        }
    }

    #[test]
    fn short_rsa_keys_are_refused() {
        // A PKCS#1 key with a modulus of 1024 bits.
        let modulus = [&[0x02, 0x81, 129, 0][..], &[0xff; 128]].concat();
        let content = [&modulus[..], &[0x02, 3, 1, 0, 1]].concat();
        let key = [&[0x30, 0x81, 137][..], &content].concat();
        assert_eq!(content.len(), 137);
        assert_eq!(
            algorithms(&pem("RSA PUBLIC KEY", &key)),
            Err(KeyError::ShortRsaKey)
        );
    }

    #[test]
    fn an_empty_secret_is_refused() {
        assert_eq!(
            KeySet::new().with_secret("").unwrap_err(),
            KeyError::EmptySecret
        );
    }

    #[test]
    fn nothing_prints_the_secret() {
        let keys = KeySet::new().with_secret("hush").unwrap();
        let printed = format!("{keys:?}");
        assert!(
            !printed.contains("hush") && !printed.contains("104, 117"),
            "{printed}"
        );
    }
}
