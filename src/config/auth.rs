//! `[auth]`: which tokens are valid.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::auth_service::Service;
use super::files;
use super::input::Invalid;
use super::reader::{Content, Reader};
use super::value::{BaseUrl, DAY, MINUTE, SECOND, Text, Time, WebUrl, is_plaintext_remote};
use crate::domain::secret::Secret;

/// The algorithm of tokens that are signed with the secret: one, as Prosody has one (`signature_algorithm`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SecretAlgorithm {
    /// `HS256`: HMAC with SHA-256.
    Hs256,
    /// `HS384`: HMAC with SHA-384.
    Hs384,
    /// `HS512`: HMAC with SHA-512.
    Hs512,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// The secret shared with Prosody (`app_secret`). Given as `secret` or, better, in a file (`secret_file`). No
    /// default.
    pub secret: Option<Secret>,
    /// The algorithm of tokens that are signed with the secret.
    pub secret_algorithm: SecretAlgorithm,
    /// Public keys for RS256 tokens, by key id (`kid`): PEM files, relative to the directory of the
    /// configuration file. They include the files of `public_keys_dir`, `{key id}.pem`.
    pub public_keys: BTreeMap<String, PathBuf>,
    /// The URL of an ASAP key server for key ids that are not in `public_keys`; each key has its file there,
    /// `{SHA-256 of the key id}.pem`. No default.
    pub key_server: Option<String>,
    /// The URL of a JSON Web Key Set for key ids that are not in `public_keys`. No default.
    pub jwks_url: Option<String>,
    /// How long keys of these two are cached: from `1s` to `7d`. A revoked key stays valid for up to this long.
    /// If the server is unreachable, cached keys are used for one more such period.
    pub key_cache: Duration,
    /// Accepted issuers (`iss`). `*` accepts all.
    pub accepted_issuers: Vec<String>,
    /// Accepted audiences (`aud`). `*` accepts all.
    pub accepted_audiences: Vec<String>,
    /// Whether a token's `sub` must be the tenant or the domain. If not, a token for a room is valid for the
    /// room of that name in every tenant.
    pub verify_domain: bool,
    /// The tolerated clock difference between usher and the issuers of tokens: at most `10m`. Expired tokens
    /// are accepted for this much longer.
    pub leeway: Duration,
    /// `[auth.service]`
    pub service: Service,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            secret: None,
            secret_algorithm: SecretAlgorithm::Hs256,
            public_keys: BTreeMap::new(),
            key_server: None,
            jwks_url: None,
            key_cache: Duration::from_secs(60 * 60),
            accepted_issuers: vec!["jitsi".to_owned()],
            accepted_audiences: vec!["jitsi".to_owned()],
            verify_domain: true,
            leeway: Duration::from_secs(10),
            service: Service::default(),
        }
    }
}

/// A reload applies every key of `[auth]` and `[auth.service]`.
impl Auth {
    /// The keys with which a service token can be verified.
    pub(super) const CREDENTIALS: [&str; 8] = [
        "auth.secret",
        "auth.secret_file",
        "auth.public_keys",
        "auth.public_keys_dir",
        "auth.key_server",
        "auth.jwks_url",
        "auth.service.tokens",
        "auth.service.tokens_file",
    ];

    /// Whether there is any key that a JWT could be verified with.
    pub fn any_key(&self) -> bool {
        self.secret.is_some()
            || !self.public_keys.is_empty()
            || self.key_server.is_some()
            || self.jwks_url.is_some()
    }

    pub(super) fn read(read: &mut Reader<'_>) -> Self {
        let mut it = Self {
            secret: secret(read),
            public_keys: public_keys(read),
            service: Service::read(read),
            ..Self::default()
        };
        read.set::<SecretAlgorithm, _>("auth.secret_algorithm", &mut it.secret_algorithm);
        let key_server = read.get::<BaseUrl>("auth.key_server");
        it.key_server = key_server.map(|found| found.value.into());
        let jwks_url = read.get::<WebUrl>("auth.jwks_url");
        it.jwks_url = jwks_url.map(|found| found.value.into());
        read.set::<Time<SECOND, { 7 * DAY }>, _>("auth.key_cache", &mut it.key_cache);
        accepted(read, "auth.accepted_issuers", &mut it.accepted_issuers);
        accepted(read, "auth.accepted_audiences", &mut it.accepted_audiences);
        read.set::<bool, _>("auth.verify_domain", &mut it.verify_domain);
        read.set::<Time<0, { 10 * MINUTE }>, _>("auth.leeway", &mut it.leeway);
        it
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.secret.as_ref().is_some_and(is_short) {
            warnings.push(short("auth.secret"));
        }
        if self.service.tokens.iter().any(|it| is_short(&it.token)) {
            warnings.push(short("auth.service.tokens"));
        }
        for (key, url) in [
            ("auth.key_server", &self.key_server),
            ("auth.jwks_url", &self.jwks_url),
        ] {
            if url.as_deref().is_some_and(is_plaintext_remote) {
                warnings.push(format!(
                    "{key}: an attacker on the network can replace the keys and sign tokens: use https"
                ));
            }
        }
        warnings
    }
}

fn secret(read: &mut Reader<'_>) -> Option<Secret> {
    let inline = read.get::<Text>("auth.secret");
    let file = read.get_path("auth.secret_file");
    match read.exclusive(inline, file)? {
        Content::Inline(found) => Some(Secret::new(found.value.into())),
        Content::File(found) => {
            let text = read.secret_file(&found)?;
            let secret = text.trim_end_matches(['\n', '\r']);
            if secret.trim().is_empty() {
                let hint = "Write Prosody's app_secret into it, on one line.";
                read.report_empty_file(&found, hint);
                return None;
            }
            if secret.contains(['\n', '\r']) {
                read.warn(&found, "has several lines, and all of them are the secret");
            } else if secret.trim() != secret {
                read.warn(
                    &found,
                    "begins or ends with a space, which is a part of the secret",
                );
            }
            Some(Secret::new(secret.to_owned()))
        }
    }
}

fn public_keys(read: &mut Reader<'_>) -> BTreeMap<String, PathBuf> {
    let mut keys = BTreeMap::new();
    for (kid, found) in read.table::<String>("auth.public_keys") {
        if let Some(path) = read.readable_path(&found) {
            keys.insert(kid, path);
        }
    }
    // A key of the table has precedence over the file of its name.
    for (kid, path) in keys_of_directory(read).unwrap_or_default() {
        keys.entry(kid).or_insert(path);
    }
    keys
}

/// The files `KID.pem`. There may be none: the package creates the directory.
fn keys_of_directory(read: &mut Reader<'_>) -> Option<Vec<(String, PathBuf)>> {
    let found = read.get_path("auth.public_keys_dir")?;
    let directory = read.path(&found.value);
    let files = read.readable(&found.origin, &directory, files::list(&directory))?;
    let mut keys = Vec::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(kid) = name.strip_suffix(".pem").filter(|kid| !kid.is_empty()) else {
            continue;
        };
        let kid = kid.to_owned();
        let checked = files::check_readable(&path);
        if read.readable(&found.origin, &path, checked).is_some() {
            keys.push((kid, path));
        }
    }
    Some(keys)
}

fn accepted(read: &mut Reader<'_>, key: &'static str, names: &mut Vec<String>) {
    let hint = format!("Write at least one: {names:?}, or [\"*\"] for all.");
    read.set_list::<Text, _>(key, names);
    if names.is_empty()
        && !read.has_issue(key)
        && let Some(origin) = read.origin(key)
    {
        let message = "is empty, so that no token would be accepted";
        read.report(&origin, Invalid::new(message, hint));
    }
}

/// A shorter secret or token causes a warning.
const SECRET_SHORT_BYTES: usize = 16;

fn is_short(secret: &Secret) -> bool {
    secret.expose().len() < SECRET_SHORT_BYTES
}

fn short(key: &str) -> String {
    format!(
        "{key} is short, so that it can be guessed: use at least 32 random characters, \
         as openssl rand -hex 32 writes them"
    )
}
