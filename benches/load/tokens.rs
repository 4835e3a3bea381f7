//! The clients that connect to usher, and their tokens. All tokens are signed before a measurement starts.

use std::net::SocketAddr;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::server::SECRET;
use super::worker::{Client, Kind};

const KID: &str = "benchmark";

/// The key that signs tokens.
pub(crate) enum Signer {
    SharedSecret,
    KeyPair { key: EncodingKey, public: String },
}

impl Signer {
    /// Generates an RSA key pair.
    pub(crate) fn rsa() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self::KeyPair {
            key: EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes())
                .unwrap(),
            public: pem("PUBLIC KEY", public.as_ref()),
        }
    }

    /// The public key as a file, with the configuration line that makes usher use it.
    pub(crate) fn file(&self) -> Option<(&str, &str, &str)> {
        match self {
            Self::SharedSecret => None,
            Self::KeyPair { public, .. } => Some((
                "public.pem",
                public,
                "auth.public_keys = { benchmark = \"public.pem\" }",
            )),
        }
    }

    fn sign(&self, claims: &Value) -> String {
        match self {
            Self::SharedSecret => usher::auth::sign(SECRET, claims, Some("usher")).unwrap(),
            Self::KeyPair { key, .. } => {
                let mut header = Header::new(Algorithm::RS256);
                header.kid = Some(KID.to_owned());
                jsonwebtoken::encode(&header, claims, key).unwrap()
            }
        }
    }
}

/// Visitors of one conference, each with its own token.
pub(crate) fn visitors(
    address: SocketAddr,
    room: &str,
    count: usize,
    signer: &Signer,
) -> Vec<Client> {
    clients_of_kind(address, room, count, signer, Kind::Waiting)
}

/// Clients of one kind, each with its own token.
pub(crate) fn clients_of_kind(
    address: SocketAddr,
    room: &str,
    count: usize,
    signer: &Signer,
    kind: Kind,
) -> Vec<Client> {
    let (topic, user) = match kind {
        Kind::Watching => ("state", json!({ "moderator": true })),
        Kind::Waiting | Kind::NotReading => ("visitor", json!({ "role": "visitor" })),
    };
    let client = |n| {
        let claims = json!({
            "iss": "jitsi", "aud": "jitsi", "exp": 4_000_000_000_u64, "jti": format!("{kind:?}{n}"),
            "room": room, "sub": "meet.example.com", "context": { "user": user },
        });
        let token = signer.sign(&claims);
        Client {
            kind,
            address,
            path: Some(format!("/waiting-queue/{topic}/websocket")),
            frames: stomp_frames(
                &format!("Authorization:Bearer {token}"),
                &format!("/secured/conference/{topic}/topic.{room}@conference.meet.example.com"),
            ),
        }
    };
    (0..count).map(client).collect()
}

/// The STOMP frames of a client: CONNECT with these headers, and SUBSCRIBE.
pub(crate) fn stomp_frames(login: &str, destination: &str) -> Vec<String> {
    vec![
        connect(login),
        format!("SUBSCRIBE\nid:1\ndestination:{destination}\nreceipt:r\n\n\0"),
    ]
}

pub(crate) fn connect(login: &str) -> String {
    format!("CONNECT\naccept-version:1.2,1.1\nheart-beat:10000,10000\n{login}\n\n\0")
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
            for index in 0..4_usize {
                let letter = LETTERS[(bits >> (18 - 6 * index) & 63) as usize];
                let padding = index > three.len();
                text.push(if padding { '=' } else { char::from(letter) });
            }
        }
        text.push('\n');
    }
    text
}
