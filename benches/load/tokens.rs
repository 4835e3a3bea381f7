//! Who comes to usher, and with which token. All are made before anything is measured.

use std::net::SocketAddr;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::server::SECRET;
use super::worker::{Kind, Visitor};

const KID: &str = "benchmark";

/// What signs tokens.
pub(crate) enum Signer {
    Shared,
    Pair { key: EncodingKey, public: String },
}

impl Signer {
    /// A key pair of this run's own.
    pub(crate) fn pair() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self::Pair {
            key: EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes())
                .unwrap(),
            public: pem("PUBLIC KEY", public.as_ref()),
        }
    }

    /// The public half, if there is one, and the line of configuration that makes usher use the file.
    pub(crate) fn file(&self) -> Option<(&str, &str, &str)> {
        match self {
            Self::Shared => None,
            Self::Pair { public, .. } => Some((
                "public.pem",
                public,
                "auth.public_keys = { benchmark = \"public.pem\" }",
            )),
        }
    }

    fn sign(&self, claims: &Value) -> String {
        match self {
            Self::Shared => usher::token::mint(SECRET, claims, Some("usher")).unwrap(),
            Self::Pair { key, .. } => {
                let mut header = Header::new(Algorithm::RS256);
                header.kid = Some(KID.to_owned());
                jsonwebtoken::encode(&header, claims, key).unwrap()
            }
        }
    }
}

/// Visitors of one conference, with tokens of their own.
pub(crate) fn visitors(
    address: SocketAddr,
    room: &str,
    count: usize,
    signer: &Signer,
) -> Vec<Visitor> {
    people(address, room, count, signer, Kind::Waits)
}

/// People of any kind.
pub(crate) fn people(
    address: SocketAddr,
    room: &str,
    count: usize,
    signer: &Signer,
    kind: Kind,
) -> Vec<Visitor> {
    let (end, user) = match kind {
        Kind::Watches => ("state", json!({ "moderator": true })),
        Kind::Waits | Kind::Deaf => ("visitor", json!({ "role": "visitor" })),
    };
    let one = |n| {
        let claims = json!({
            "iss": "jitsi", "aud": "jitsi", "exp": 4_000_000_000_u64, "jti": format!("{kind:?}{n}"),
            "room": room, "sub": "meet.example.com", "context": { "user": user },
        });
        let token = signer.sign(&claims);
        Visitor {
            kind,
            address,
            path: Some(format!("/waiting-queue/{end}/websocket")),
            says: stomp(
                &format!("Authorization:Bearer {token}"),
                &format!("/secured/conference/{end}/topic.{room}@conference.meet.example.com"),
            ),
        }
    };
    (0..count).map(one).collect()
}

/// What somebody says who waits for a topic: CONNECT, with a header that lets them in, and SUBSCRIBE.
pub(crate) fn stomp(entry: &str, destination: &str) -> Vec<String> {
    vec![
        connect(entry),
        format!("SUBSCRIBE\nid:1\ndestination:{destination}\nreceipt:r\n\n\0"),
    ]
}

pub(crate) fn connect(entry: &str) -> String {
    format!("CONNECT\naccept-version:1.2,1.1\nheart-beat:10000,10000\n{entry}\n\n\0")
}

fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}-----END {label}-----\n",
        base64(der)
    )
}

/// Base64 in lines of 64.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for line in bytes.chunks(48) {
        for three in line.chunks(3) {
            let mut bits = [0; 4];
            bits[1..=three.len()].copy_from_slice(three);
            let bits = u32::from_be_bytes(bits);
            for place in 0..4_usize {
                let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
                let padding = place > three.len();
                text.push(if padding { '=' } else { char::from(letter) });
            }
        }
        text.push('\n');
    }
    text
}
