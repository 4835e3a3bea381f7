//! JSON Web Key Sets (RFC 7517): the public keys in them that can verify tokens. Pure.
//!
//! A set may hold keys for other purposes and of kinds yet to come: what can't be used here is left
//! out, and the rest counts. A secret (`oct`) is never taken: whoever can read the set has it.

use std::str::FromStr;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::keys::PublicKey;

/// The usable keys of a set, by their `kid`.
#[derive(Debug, Clone)]
pub(super) struct Jwks(Arc<[(String, Arc<PublicKey>)]>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// What is read of a key, as RFC 7517, 7518 (RSA, EC) and 8037 (OKP) name it.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwks {
    /// Reads a set; `None` if it isn't one, or has no key that can be used here.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let document: Document = serde_json::from_slice(text).ok()?;
        let keys: Arc<[_]> = document
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
            .filter_map(|key| Some((key.kid.clone(), Arc::new(usable(&key)?))))
            .collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The key with this `kid`: the first, should there be several.
    pub(super) fn find(&self, kid: &str) -> Option<Arc<PublicKey>> {
        let mut keys = self.0.iter();
        let found = keys.find(|(name, _)| name == kid);
        found.map(|(_, key)| Arc::clone(key))
    }

    /// The keys and what they are called.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &PublicKey)> {
        self.0.iter().map(|(kid, key)| (kid.as_str(), &**key))
    }
}

/// The key, if it is one for signatures, of a kind that is known here.
fn usable(key: &Jwk) -> Option<PublicKey> {
    let other_purpose = key
        .purpose
        .as_deref()
        .is_some_and(|purpose| purpose != "sig");
    let verifies = |operations: &Vec<String>| operations.iter().any(|one| one == "verify");
    if other_purpose || !key.key_ops.as_ref().is_none_or(verifies) {
        return None;
    }
    let [n, e, x, y] = [&key.n, &key.e, &key.x, &key.y].map(Option::as_deref);
    let (decoding, of_the_curve) = match (key.kty.as_str(), key.crv.as_deref()) {
        ("RSA", _) => (DecodingKey::from_rsa_components(n?, e?), None),
        ("EC", Some("P-256")) => (
            DecodingKey::from_ec_components(x?, y?),
            Some(Algorithm::ES256),
        ),
        ("EC", Some("P-384")) => (
            DecodingKey::from_ec_components(x?, y?),
            Some(Algorithm::ES384),
        ),
        ("OKP", Some("Ed25519")) => (DecodingKey::from_ed_components(x?), Some(Algorithm::EdDSA)),
        _ => return None,
    };
    let mut public = PublicKey::of(decoding.ok()?).ok()?;
    if let Some(algorithm) = of_the_curve {
        public = public.for_only(algorithm)?;
    }
    match key.alg.as_deref() {
        None => Some(public),
        // RFC 9864 names the curve.
        Some("Ed25519") => public.for_only(Algorithm::EdDSA),
        Some(name) => public.for_only(Algorithm::from_str(name).ok()?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::keys::test_keys::Pair;
    use super::*;

    fn read(keys: Value) -> Option<Jwks> {
        Jwks::read(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn kids(jwks: &Jwks) -> Vec<&str> {
        jwks.keys().map(|(kid, _)| kid).collect()
    }

    /// The key with some members changed; `null` takes one away.
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
            let key = jwks.find("k").unwrap();
            assert_eq!(key.algorithms(), pem.algorithms());
            assert!(jwks.find("K").is_none() && jwks.find("").is_none());
        }
    }

    #[test]
    fn alg_narrows_what_a_key_is_for() {
        let rsa = Pair::rsa();
        let jwks = read(json!([but(&rsa, &json!({ "alg": "RS384" }))])).unwrap();
        let key = jwks.find("k").unwrap();
        assert_eq!(key.algorithms(), [Algorithm::RS384]);
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
    fn keys_for_other_purposes_are_left_out() {
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
    fn a_secret_is_never_taken_from_a_set() {
        let secret = json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0", "alg": "HS256" });
        assert!(read(json!([secret])).is_none());
        let jwks = read(json!([secret, Pair::p256().jwk("k")])).unwrap();
        assert_eq!(kids(&jwks), ["k"]);
    }

    #[test]
    fn what_is_unknown_does_not_spoil_the_rest() {
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
    fn what_is_no_set_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "{\"keys\":{}}",
            "{\"keys\":[]}",
            "<html>",
            "\u{0}",
        ] {
            assert!(Jwks::read(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_modulus_with_a_leading_zero_is_the_same_key() {
        let rsa = Pair::rsa();
        let plain = rsa.jwk("k");
        // Some issuers write the zero that DER needs; as base64 it takes three bytes to stay aligned.
        let padded = format!("AAAA{}", plain["n"].as_str().unwrap());
        assert!(read(json!([but(&rsa, &json!({ "n": padded }))])).is_some());
    }
}
