//! Key pairs that are made while the tests run, and the texts that hold them. tests/api uses this file, too.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rcgen::{
    CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData as _,
};

/// A key pair, and its halves as jsonwebtoken needs them.
pub(crate) struct Pair {
    key: KeyPair,
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl Pair {
    pub(crate) fn rsa() -> Self {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        Self {
            signing: EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).unwrap(),
            verifying: DecodingKey::from_rsa_pem(key.public_key_pem().as_bytes()).unwrap(),
            key,
        }
    }

    pub(crate) fn p256() -> Self {
        Self::ec(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::ec(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap())
    }

    fn ec(key: KeyPair) -> Self {
        Self {
            signing: EncodingKey::from_ec_der(key.serialized_der()),
            verifying: DecodingKey::from_ec_pem(key.public_key_pem().as_bytes()).unwrap(),
            key,
        }
    }

    pub(crate) fn ed25519() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        Self {
            signing: EncodingKey::from_ed_der(key.serialized_der()),
            verifying: DecodingKey::from_ed_pem(key.public_key_pem().as_bytes()).unwrap(),
            key,
        }
    }

    /// The public key as a JSON Web Key.
    pub(crate) fn jwk(&self, kid: &str) -> serde_json::Value {
        let mut jwk = Jwk::from_decoding_key(&self.verifying, None).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    /// The public key in DER (SubjectPublicKeyInfo).
    pub(crate) fn public_der(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    pub(crate) fn public_pem(&self) -> String {
        self.key.public_key_pem()
    }

    /// A certificate of the public key, issued by an RSA key.
    pub(crate) fn certificate_pem(&self) -> String {
        let issuer_key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let issuer = Issuer::new(CertificateParams::default(), issuer_key);
        let certificate = CertificateParams::default().signed_by(&self.key, &issuer);
        certificate.unwrap().pem()
    }

    pub(crate) fn sign(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        claims: &serde_json::Value,
    ) -> String {
        let mut header = Header::new(algorithm);
        header.kid = kid.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.signing).unwrap()
    }
}

pub(crate) fn pem(label: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// Base64 as in tokens.
pub(crate) fn base64url(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}
