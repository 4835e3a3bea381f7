//! JSON Web Key Sets (RFC 7517): the public keys in them that can verify tokens. Pure.
//!
//! Keys of a set that are for other purposes or of unknown kinds are ignored. So is a secret (`oct`), since all
//! readers of the set know it.

use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::keys::PublicKey;
use crate::text::without_bom;

/// The usable keys of a set, by their `kid`.
#[derive(Debug, Clone)]
pub(super) struct Jwks(Arc<[(String, Arc<PublicKey>)]>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl Jwks {
    /// Parses a set; `None` if it is none, or has no usable key.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let document: Document = serde_json::from_str(without_bom(text)).ok()?;
        let keys: Arc<[_]> = document.keys.into_iter().filter_map(usable).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The keys with this `kid`. Some issuers give one id to keys of several kinds (RFC 7517, section 4.5), or to
    /// the former and the next key.
    pub(super) fn find(&self, kid: &str) -> Vec<Arc<PublicKey>> {
        let named = self.0.iter().filter(|(name, _)| name == kid);
        named.map(|(_, key)| Arc::clone(key)).collect()
    }

    /// The keys by their `kid`.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &PublicKey)> {
        self.0.iter().map(|(kid, key)| (kid.as_str(), &**key))
    }
}

/// The id and the key, if it verifies signatures and is of a supported kind.
fn usable(entry: Value) -> Option<(String, Arc<PublicKey>)> {
    // RFC 9864 names the curve, which the library does not know as an algorithm.
    let is_ed25519 = entry.get("alg").is_some_and(|alg| alg == "Ed25519");
    let jwk: Jwk = serde_json::from_value(entry).ok()?;
    let common = &jwk.common;
    let for_signatures = |purpose: &PublicKeyUse| *purpose == PublicKeyUse::Signature;
    let verifies = |operations: &Vec<_>| operations.contains(&KeyOperations::Verify);
    if !common.public_key_use.as_ref().is_none_or(for_signatures)
        || !common.key_operations.as_ref().is_none_or(verifies)
    {
        return None;
    }
    let mut key = PublicKey::try_from(DecodingKey::from_jwk(&jwk).ok()?).ok()?;
    let curve = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(parameters) => Some(&parameters.curve),
        AlgorithmParameters::OctetKeyPair(parameters) => Some(&parameters.curve),
        _ => None,
    };
    if let Some(curve) = curve {
        key = key.restrict_to(match curve {
            EllipticCurve::P256 => Algorithm::ES256,
            EllipticCurve::P384 => Algorithm::ES384,
            EllipticCurve::Ed25519 => Algorithm::EdDSA,
            _ => return None,
        })?;
    }
    if let Some(algorithm) = common.key_algorithm.filter(|_| !is_ed25519) {
        key = key.restrict_to(algorithm.try_into().ok()?)?;
    }
    Some((jwk.common.key_id?, Arc::new(key)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_keys::Pair;
    use super::*;

    fn read(keys: Value) -> Option<Jwks> {
        Jwks::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn kids(jwks: &Jwks) -> Vec<&str> {
        jwks.keys().map(|(kid, _)| kid).collect()
    }

    /// The key with some members changed; `null` removes one.
    fn but(pair: &Pair, changes: &Value) -> Value {
        let mut key = pair.jwk("k");
        for (name, value) in changes.as_object().unwrap() {
            key[name] = value.clone();
        }
        key.as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        key
    }

    #[test]
    fn each_kind_of_key_has_the_algorithms_of_its_pem() {
        for pair in [Pair::rsa(), Pair::p256(), Pair::p384(), Pair::ed25519()] {
            let jwks = read(json!([pair.jwk("k")])).unwrap();
            let pem = PublicKey::from_pem(&pair.public_pem()).unwrap();
            let keys = jwks.find("k");
            assert_eq!(keys.len(), 1);
            assert_eq!(keys[0].algorithms(), pem.algorithms());
            assert!(jwks.find("K").is_empty() && jwks.find("").is_empty());
        }
    }

    #[test]
    fn alg_restricts_the_algorithms_of_a_key() {
        let rsa = Pair::rsa();
        let jwks = read(json!([but(&rsa, &json!({ "alg": "RS384" }))])).unwrap();
        assert_eq!(jwks.find("k")[0].algorithms(), [Algorithm::RS384]);
        for alg in ["HS256", "ES256", "RSA-OAEP", "none", "rs256", ""] {
            assert!(
                read(json!([but(&rsa, &json!({ "alg": alg }))])).is_none(),
                "{alg}"
            );
        }
        for alg in ["EdDSA", "Ed25519"] {
            assert!(read(json!([but(&Pair::ed25519(), &json!({ "alg": alg }))])).is_some());
        }
    }

    #[test]
    fn keys_for_other_purposes_are_ignored() {
        let rsa = Pair::rsa();
        for changes in [
            json!({ "use": "enc" }),
            json!({ "key_ops": ["encrypt"] }),
            json!({ "key_ops": [] }),
            json!({ "kid": null }),
            json!({ "kid": 7 }),
            json!({ "kty": "rsa" }),
            json!({ "n": null }),
            json!({ "n": "!" }),
            json!({ "n": "AQAB" }),
            json!({ "e": "" }),
        ] {
            assert!(read(json!([but(&rsa, &changes)])).is_none(), "{changes}");
        }
        for changes in [json!({ "use": "sig" }), json!({ "key_ops": ["verify"] })] {
            assert!(read(json!([but(&rsa, &changes)])).is_some(), "{changes}");
        }
        for changes in [
            json!({ "crv": "P-384" }),
            json!({ "crv": "secp256k1" }),
            json!({ "crv": null }),
            json!({ "y": "AAAA" }),
        ] {
            let key = but(&Pair::p256(), &changes);
            assert!(read(json!([key])).is_none(), "{changes}");
        }
    }

    #[test]
    fn secrets_in_a_set_are_ignored() {
        let secret = json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0", "alg": "HS256" });
        assert!(read(json!([secret])).is_none());
        let jwks = read(json!([secret, Pair::p256().jwk("k")])).unwrap();
        assert_eq!(kids(&jwks), ["k"]);
    }

    #[test]
    fn unknown_entries_do_not_affect_the_others() {
        let pair = Pair::p256();
        let strange = json!({ "kty": "AKP", "kid": "s", "alg": "ML-DSA-44", "pub": "AA" });
        let jwks = read(json!([
            strange,
            7,
            null,
            pair.jwk("a"),
            Pair::ed25519().jwk("b")
        ]))
        .unwrap();
        assert_eq!(kids(&jwks), ["a", "b"]);
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        let set = json!({ "keys": [Pair::p256().jwk("k")] }).to_string();
        assert!(Jwks::parse(format!("\u{feff}{set}").as_bytes()).is_some());
    }

    #[test]
    fn other_documents_are_rejected() {
        for text in [
            "",
            "{}",
            "[]",
            "{\"keys\":{}}",
            "{\"keys\":[]}",
            "<html>",
            "\u{0}",
        ] {
            assert!(Jwks::parse(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_modulus_with_leading_zeros_is_accepted() {
        let rsa = Pair::rsa();
        let plain = rsa.jwk("k");
        // Some issuers write the zero that DER needs; as base64 it takes three bytes to stay aligned.
        let padded = format!("AAAA{}", plain["n"].as_str().unwrap());
        assert!(read(json!([but(&rsa, &json!({ "n": padded }))])).is_some());
    }
}
