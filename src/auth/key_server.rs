//! Keys from afar: found by `kid` at an ASAP key server, which has a file for each, and in a JSON Web
//! Key Set, which holds them all.
//!
//! A key is taken as current for `auth.key_cache`, so one that is withdrawn counts for so much longer.
//! While its server is down it stands in for as long again, and no longer.

use std::fmt::Write;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use reqwest::Url;

use super::TokenError;
use super::fetch::{Answer, Fetcher};
use super::jwks::Jwks;
use super::key_cache::{ABSENT_KEPT, KeyCache, Name, Outcome};
use super::keys::PublicKey;
use crate::text::escape_for_message;

/// Random bytes in a `kid` that no server can have.
const PROBE_BYTES: usize = 16;

/// The servers that keys are fetched from.
#[derive(Debug)]
pub struct KeyServers {
    asap: Option<Source<Arc<PublicKey>>>,
    jwks: Option<Source<Jwks>>,
    kept: Duration,
}

/// Why a server can't be used. The text names no key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyServerError(String);

/// One of the two kinds of server, and what was had from it.
#[derive(Debug)]
struct Source<T> {
    /// What it is called in messages: the key of the configuration.
    key: &'static str,
    url: Url,
    fetcher: Fetcher,
    shelf: Arc<KeyCache<T>>,
    /// So that the log tells of each change once.
    failing: Arc<AtomicBool>,
}

impl KeyServers {
    /// No servers. What is found is taken as current for so long.
    #[must_use]
    pub fn new(kept: Duration) -> Self {
        Self {
            asap: None,
            jwks: None,
            kept,
        }
    }

    /// With an ASAP key server: `{url}/{SHA-256 of the kid in hexadecimal digits}.pem`.
    ///
    /// # Errors
    ///
    /// [`KeyServerError`] if it can't be asked.
    pub fn with_key_server(mut self, url: &str) -> Result<Self, KeyServerError> {
        let url = format!("{}/", url.trim_end_matches('/'));
        self.asap = Some(Source::new("auth.key_server", &url, self.kept)?);
        Ok(self)
    }

    /// With a JSON Web Key Set.
    ///
    /// # Errors
    ///
    /// [`KeyServerError`] if it can't be asked.
    pub fn with_jwks(mut self, url: &str) -> Result<Self, KeyServerError> {
        self.jwks = Some(Source::new("auth.jwks_url", url, self.kept)?);
        Ok(self)
    }

    /// The key that a token names.
    ///
    /// # Errors
    ///
    /// [`TokenError::UnknownKey`] if every server says that it has no such key,
    /// [`TokenError::KeyServerUnavailable`] if one couldn't say, and none had it.
    pub(super) async fn find(&self, kid: &str) -> Result<Arc<PublicKey>, TokenError> {
        let name = name_of(kid);
        if let Some(key) = self.asap.as_ref().and_then(|s| s.shelf.at_hand(&name)) {
            return Ok(key);
        }
        let mut sure = true;
        if let Some(jwks) = &self.jwks {
            match jwks.find(kid, self.kept).await {
                (Some(key), _) => return Ok(key),
                (None, current) => sure &= current,
            }
        }
        if let Some(asap) = &self.asap {
            let look = asap.find(name, self.kept).await;
            match look {
                (Some(key), _) => return Ok(key),
                (None, current) => sure &= current,
            }
        }
        let kid = escape_for_message(kid);
        Err(if sure {
            TokenError::UnknownKey { kid }
        } else {
            TokenError::KeyServerUnavailable { kid }
        })
    }

    /// Asks each server now, whatever is known, and says how that went: for `usher check`. The first
    /// part of a finding is the key of the configuration.
    pub async fn probe(&self) -> Vec<(&'static str, Result<String, String>)> {
        let mut findings = Vec::new();
        if let Some(asap) = &self.asap {
            findings.push((asap.key, asap.probe().await));
        }
        if let Some(jwks) = &self.jwks {
            findings.push((jwks.key, jwks.probe().await));
        }
        findings
    }

    /// Fetches one key now, from each server, and says how that went: for `usher check`.
    pub async fn probe_key(&self, kid: &str) -> Vec<(&'static str, Result<String, String>)> {
        let mut findings = Vec::new();
        if let Some(asap) = &self.asap {
            let found = asap.ask_now(asap.address_of(&name_of(kid))).await;
            let said = found.and_then(|key| key.ok_or_else(|| asap.not_there(kid)));
            findings.push((asap.key, said.map(|key| described(&key))));
        }
        if let Some(jwks) = &self.jwks {
            let found = jwks.ask_now(jwks.url.clone()).await;
            let found = found.map(|set| set.and_then(|set| set.find(kid)));
            let said = found.and_then(|key| {
                key.ok_or_else(|| "the set has no usable key of that name".to_owned())
            });
            findings.push((jwks.key, said.map(|key| described(&key))));
        }
        findings
    }
}

/// A document that keys are read from.
trait Document: Clone + Send + Sync + 'static {
    /// What it has to be, in a sentence.
    const WANTED: &'static str;

    /// Whether any status but 200 says that there is no such document. Otherwise it says that the
    /// server is set up wrongly.
    const MAY_BE_ABSENT: bool;

    /// Reads it.
    fn read(body: &[u8]) -> Option<Self>;
}

impl Document for Arc<PublicKey> {
    const WANTED: &'static str =
        "a PEM file with a public key (RSA of 2048 bits, P-256, P-384, Ed25519) or a certificate";
    const MAY_BE_ABSENT: bool = true;

    fn read(body: &[u8]) -> Option<Self> {
        let pem = std::str::from_utf8(body).ok()?;
        PublicKey::from_pem(pem).ok().map(Arc::new)
    }
}

impl Document for Jwks {
    const WANTED: &'static str = "a JSON Web Key Set with a public key that can verify tokens";
    const MAY_BE_ABSENT: bool = false;

    fn read(body: &[u8]) -> Option<Self> {
        Self::read(body)
    }
}

impl<T: Document> Source<T> {
    fn new(key: &'static str, url: &str, kept: Duration) -> Result<Self, KeyServerError> {
        let url = Url::parse(url).map_err(|error| KeyServerError(format!("{url}: {error}")))?;
        let fetcher = Fetcher::new(&url).map_err(|error| {
            KeyServerError(format!(
                "{error}; install the system's root certificates (ca-certificates)"
            ))
        })?;
        Ok(Self {
            key,
            url,
            fetcher,
            shelf: Arc::new(KeyCache::new(kept)),
            failing: Arc::default(),
        })
    }

    /// Asks for a document: there, not there, or what is wrong.
    fn ask_now(
        &self,
        url: Url,
    ) -> impl Future<Output = Result<Option<T>, String>> + Send + 'static {
        let fetcher = self.fetcher.clone();
        async move {
            match fetcher.get(url).await {
                Ok(Answer::Found(body)) => match T::read(&body) {
                    Some(document) => Ok(Some(document)),
                    None => Err(format!("its answer is not {}", T::WANTED)),
                },
                Ok(Answer::Not(status)) if T::MAY_BE_ABSENT && !status.is_redirection() => Ok(None),
                Ok(Answer::Not(status)) => Err(format!("it answers with status {status}")),
                Err(error) => Err(error.to_string()),
            }
        }
    }

    /// The same for the shelf; the log hears when things change.
    fn ask(&self, url: Url) -> impl Future<Output = Outcome<T>> + Send + 'static {
        let (asking, failing, key) = (self.ask_now(url), Arc::clone(&self.failing), self.key);
        async move {
            match asking.await {
                Ok(found) => {
                    if failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("{key}: keys can be fetched again");
                    }
                    found.map_or(Outcome::Absent, Outcome::Found)
                }
                Err(reason) => {
                    if failing.swap(true, Ordering::Relaxed) {
                        tracing::debug!("{key}: a key could not be fetched: {reason}");
                    } else {
                        tracing::warn!(
                            "{key}: a key could not be fetched: {reason}; usher check tells more"
                        );
                    }
                    Outcome::Failed
                }
            }
        }
    }
}

impl Source<Arc<PublicKey>> {
    async fn find(&self, name: Name, kept: Duration) -> (Option<Arc<PublicKey>>, bool) {
        let ask = || self.ask(self.address_of(&name));
        let look = self.shelf.get(name, kept, ask).await;
        (look.value, look.current)
    }

    /// Only a digest of what the token says gets into the URL, and so nothing that means anything
    /// in one.
    fn address_of(&self, name: &Name) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(&format!("{}.pem", hex(name)));
        }
        url
    }

    fn not_there(&self, kid: &str) -> String {
        format!(
            "there is no such key; put it at {}",
            self.address_of(&name_of(kid))
        )
    }

    /// A key that can't be there should be said not to be.
    async fn probe(&self) -> Result<String, String> {
        let mut random = [0; PROBE_BYTES];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| "the system gives no random bytes".to_owned())?;
        let url = self.address_of(&name_of(&hex(&random)));
        match self.fetcher.get(url).await {
            Ok(Answer::Not(status)) if !status.is_redirection() => {
                Ok(format!("{} answers (try --kid KID)", self.url))
            }
            Ok(Answer::Not(status)) => Err(format!(
                "{} redirects ({status}), which is not followed; set where it leads to",
                self.url
            )),
            Ok(Answer::Found(_)) => Err(format!(
                "{} answers with status 200 for a key that can't be there; set the URL that {{sha256 of kid}}.pem is found below",
                self.url
            )),
            Err(error) => Err(format!(
                "{}: {error}; start it, or correct the URL",
                self.url
            )),
        }
    }
}

impl Source<Jwks> {
    /// A key that isn't in the set may have come since, but who asks is asked on behalf of strangers:
    /// the set is no older than a minute then, and isn't fetched more often.
    async fn find(&self, kid: &str, kept: Duration) -> (Option<Arc<PublicKey>>, bool) {
        let mut current = false;
        for max_age in [kept, ABSENT_KEPT] {
            let ask = || self.ask(self.url.clone());
            let look = self.shelf.get(name_of(""), max_age, ask).await;
            if let Some(key) = look.value.and_then(|set| set.find(kid)) {
                return (Some(key), look.current);
            }
            current = look.current;
        }
        (None, current)
    }

    async fn probe(&self) -> Result<String, String> {
        let set = self.ask_now(self.url.clone()).await;
        let set = set.map_err(|error| format!("{}: {error}; correct the URL", self.url))?;
        let keys = set.iter().flat_map(Jwks::keys);
        let named =
            keys.map(|(kid, key)| format!("\"{}\" ({})", escape_for_message(kid), described(key)));
        Ok(named.collect::<Vec<_>>().join(", "))
    }
}

/// The algorithms of a key: what it is, to those who sign.
fn described(key: &PublicKey) -> String {
    let names = key.algorithms().iter().map(|one| format!("{one:?}"));
    names.collect::<Vec<_>>().join(" ")
}

fn name_of(kid: &str) -> Name {
    let mut name = Name::default();
    name.copy_from_slice(digest(&SHA256, kid.as_bytes()).as_ref());
    name
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
