//! Keys that are fetched by `kid`: from an ASAP key server, which has a file for each, and from a JSON Web Key Set.
//!
//! A key is cached for `auth.key_cache`, so a revoked key stays valid for up to that long. While its server fails,
//! it is used for one more such period.
//!
//! A portal may sign with a new key a moment before it publishes it. So a key that is missing is looked for again
//! after some seconds, and is unknown only if the second look misses it, too; and a key whose signature does not
//! match is fetched once more.

use std::fmt::Write;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::Algorithm;
use reqwest::Url;
use tokio::time::Instant;

use super::error::TokenError;
use super::fetch::{Fetcher, Response};
use super::jwks::Jwks;
use super::key_cache::{ABSENT_TTL, CacheKey, Fetched, KeyCache, Lookup};
use super::key_misses::KeyMisses;
use super::keys::PublicKey;
use crate::config::Auth;
use crate::text::{escape_for_message, without_bom};

/// The random bytes of a `kid` that no server has.
const PROBE_BYTES: usize = 16;

/// The servers that keys are fetched from: an ASAP key server, with a key at
/// `{url}/{SHA-256 of the kid in hexadecimal digits}.pem`, and a JSON Web Key Set.
#[derive(Debug)]
pub struct KeyServers {
    asap: Option<KeySource<Arc<PublicKey>>>,
    jwks: Option<KeySource<Jwks>>,
    misses: KeyMisses,
}

/// Why a server can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{config_key}: {message}")]
pub struct KeyServerError {
    /// The key of the configuration.
    pub config_key: &'static str,
    /// The error.
    pub message: String,
}

/// A server and the documents that were fetched from it.
#[derive(Debug)]
struct KeySource<T> {
    /// The key of the configuration, for messages.
    config_key: &'static str,
    url: Url,
    fetcher: Fetcher,
    cache: Arc<KeyCache<T>>,
    /// Whether the last request failed: the log shows each change once.
    failing: Arc<AtomicBool>,
}

impl KeyServers {
    /// The configured servers, if any.
    ///
    /// # Errors
    ///
    /// [`KeyServerError`] for an invalid URL or an unusable TLS setup.
    pub fn new(config: &Auth) -> Result<Option<Self>, KeyServerError> {
        let asap = config.key_server.as_ref().map(|url| {
            let directory = format!("{}/", url.trim_end_matches('/'));
            KeySource::new("auth.key_server", &directory, config.key_cache)
        });
        let jwks = config.jwks_url.as_ref();
        let jwks = jwks.map(|url| KeySource::new("auth.jwks_url", url, config.key_cache));
        if asap.is_none() && jwks.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            asap: asap.transpose()?,
            jwks: jwks.transpose()?,
            misses: KeyMisses::default(),
        }))
    }

    /// The keys with this `kid` that fit the algorithm: mostly one.
    ///
    /// # Errors
    ///
    /// [`TokenError::KeyServerUnavailable`] if a server failed and no other had it. Else
    /// [`TokenError::AlgorithmRefused`] if the key is for another algorithm, [`TokenError::KeyNotFoundYet`] if no
    /// server has such a key so far, and [`TokenError::UnknownKey`] if that has been so for some seconds.
    pub(super) async fn find(
        &self,
        kid: &str,
        algorithm: Algorithm,
    ) -> Result<Vec<Arc<PublicKey>>, TokenError> {
        let cache_key = cache_key(kid);
        let fits = |key: &Arc<PublicKey>| key.algorithms().contains(&algorithm);
        let cached = |asap: &KeySource<_>| asap.cache.get_cached(&cache_key);
        if let Some(key) = self.asap.as_ref().and_then(cached).filter(fits) {
            return Ok(vec![key]);
        }
        let (mut definitive, mut named) = (true, false);
        if let Some(jwks) = &self.jwks {
            let lookup = jwks.find(kid, fits).await;
            definitive &= lookup.definitive;
            let mut keys = lookup.value.unwrap_or_default();
            named |= !keys.is_empty();
            keys.retain(fits);
            if !keys.is_empty() {
                return Ok(keys);
            }
        }
        if let Some(asap) = &self.asap {
            let lookup = asap.find(cache_key).await;
            definitive &= lookup.definitive;
            named |= lookup.value.is_some();
            if let Some(key) = lookup.value.filter(fits) {
                return Ok(vec![key]);
            }
        }
        let kid = escape_for_message(kid);
        Err(if !definitive {
            TokenError::KeyServerUnavailable { kid }
        } else if named {
            TokenError::AlgorithmRefused
        } else if self.misses.are_confirmed(cache_key, Instant::now()) {
            TokenError::UnknownKey { kid }
        } else {
            TokenError::KeyNotFoundYet { kid }
        })
    }

    /// The keys with this `kid` that replaced those `tried`, whose signatures do not match: fetched again, if the
    /// limits allow it.
    pub(super) async fn find_replaced(
        &self,
        kid: &str,
        algorithm: Algorithm,
        tried: &[Arc<PublicKey>],
    ) -> Vec<Arc<PublicKey>> {
        let cache_key = cache_key(kid);
        match (&self.asap, &self.jwks) {
            (Some(asap), _) if asap.cache.get_cached(&cache_key).is_some() => {
                let fetch = || asap.fetch(asap.key_url(&cache_key));
                asap.cache.recheck(cache_key, fetch).await;
            }
            (_, Some(jwks)) => jwks.recheck().await,
            _ => {}
        }
        let mut keys = self.find(kid, algorithm).await.unwrap_or_default();
        keys.retain(|key| !tried.iter().any(|one| Arc::ptr_eq(one, key)));
        keys
    }

    /// Sends a request to each server, for `usher check`. A result has the key of the configuration, and a
    /// description or an error.
    pub async fn probe(&self) -> Vec<(&'static str, Result<String, String>)> {
        let mut results = Vec::new();
        if let Some(asap) = &self.asap {
            results.push((asap.config_key, asap.probe().await));
        }
        if let Some(jwks) = &self.jwks {
            results.push((jwks.config_key, jwks.probe().await));
        }
        results
    }

    /// Fetches one key from each server, for `usher check`.
    pub async fn probe_key(&self, kid: &str) -> Vec<(&'static str, Result<String, String>)> {
        let mut results = Vec::new();
        if let Some(asap) = &self.asap {
            let url = asap.key_url(&cache_key(kid));
            let key = asap.fetch_document(url.clone()).await.and_then(|key| {
                key.ok_or_else(|| format!("there is no such key; put it at {url}"))
            });
            results.push((asap.config_key, key.map(|key| describe(&key))));
        }
        if let Some(jwks) = &self.jwks {
            let set = jwks.fetch_document(jwks.url.clone()).await;
            let key = set.and_then(|set| {
                let keys = set.map(|set| set.find(kid)).unwrap_or_default();
                match keys.as_slice() {
                    [] => Err("the set has no usable key with this id".to_owned()),
                    keys => Ok(keys
                        .iter()
                        .map(|key| describe(key))
                        .collect::<Vec<_>>()
                        .join(", ")),
                }
            });
            results.push((jwks.config_key, key));
        }
        results
    }
}

/// A document with one or more keys.
trait KeyDocument: Clone + Send + Sync + 'static {
    /// A description of a valid document.
    const EXPECTED: &'static str;

    /// Whether a status such as 404 means that there is no such key; otherwise it is an error of the server.
    const MAY_BE_ABSENT: bool;

    fn parse(body: &[u8]) -> Option<Self>;
}

impl KeyDocument for Arc<PublicKey> {
    const EXPECTED: &'static str =
        "a PEM file with a public key (RSA of 2048 bits, P-256, P-384, Ed25519) or a certificate";
    const MAY_BE_ABSENT: bool = true;

    fn parse(body: &[u8]) -> Option<Self> {
        let pem = std::str::from_utf8(body).ok()?;
        PublicKey::from_pem(without_bom(pem)).ok().map(Arc::new)
    }
}

impl KeyDocument for Jwks {
    const EXPECTED: &'static str = "a JSON Web Key Set with a public key that can verify tokens";
    const MAY_BE_ABSENT: bool = false;

    fn parse(body: &[u8]) -> Option<Self> {
        Self::parse(body)
    }
}

impl<T: KeyDocument> KeySource<T> {
    fn new(config_key: &'static str, url: &str, ttl: Duration) -> Result<Self, KeyServerError> {
        let failed = |message| KeyServerError {
            config_key,
            message,
        };
        let parsed = Url::parse(url).map_err(|error| failed(format!("{url}: {error}")))?;
        let fetcher = Fetcher::new(&parsed).map_err(|error| {
            failed(format!(
                "{error}; install the system's root certificates (ca-certificates)"
            ))
        })?;
        Ok(Self {
            config_key,
            url: parsed,
            fetcher,
            cache: Arc::new(KeyCache::new(ttl)),
            failing: Arc::default(),
        })
    }

    /// Fetches a document: `None` if the server has no such document.
    fn fetch_document(
        &self,
        url: Url,
    ) -> impl Future<Output = Result<Option<T>, String>> + Send + 'static {
        let fetcher = self.fetcher.clone();
        async move {
            match fetcher.get(url).await {
                Ok(Response::Found(body)) => match T::parse(&body) {
                    Some(document) => Ok(Some(document)),
                    None => Err(format!("its answer is not {}", T::EXPECTED)),
                },
                Ok(Response::Other(status)) if T::MAY_BE_ABSENT && !status.is_redirection() => {
                    Ok(None)
                }
                Ok(Response::Other(status)) => Err(format!("it answers with status {status}")),
                Err(error) => Err(error.to_string()),
            }
        }
    }

    /// Fetches a document for the cache, and logs when the server begins or ceases to fail.
    fn fetch(&self, url: Url) -> impl Future<Output = Fetched<T>> + Send + 'static {
        let fetch = self.fetch_document(url);
        let (failing, config_key) = (Arc::clone(&self.failing), self.config_key);
        async move {
            let result = fetch.await;
            let was_failing = failing.swap(result.is_err(), Ordering::Relaxed);
            match result {
                Ok(document) => {
                    if was_failing {
                        tracing::info!("{config_key}: keys can be fetched again");
                    }
                    document.map_or(Fetched::Absent, Fetched::Found)
                }
                Err(error) => {
                    if was_failing {
                        tracing::debug!("{config_key}: a key could not be fetched: {error}");
                    } else {
                        tracing::warn!(
                            "{config_key}: a key could not be fetched: {error}; run usher check for details"
                        );
                    }
                    Fetched::Failed
                }
            }
        }
    }
}

impl KeySource<Arc<PublicKey>> {
    async fn find(&self, key: CacheKey) -> Lookup<Arc<PublicKey>> {
        let fetch = || self.fetch(self.key_url(&key));
        self.cache.get(key, Duration::MAX, fetch).await
    }

    /// The URL has only a digest of the key id, which comes from a token that is not verified yet.
    fn key_url(&self, key: &CacheKey) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(&format!("{}.pem", hex(key)));
        }
        url
    }

    /// Requests a key that the server can't have.
    async fn probe(&self) -> Result<String, String> {
        let mut random = [0; PROBE_BYTES];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| "the system provides no random bytes".to_owned())?;
        let server = &self.url;
        match self
            .fetcher
            .get(self.key_url(&cache_key(&hex(&random))))
            .await
        {
            Ok(Response::Other(status)) if !status.is_redirection() => {
                Ok(format!("{server} answers (try --kid KID)"))
            }
            Ok(Response::Other(status)) => Err(format!(
                "{server} redirects ({status}), which is not followed; set the URL that it redirects to"
            )),
            Ok(Response::Found(_)) => Err(format!(
                "{server} answers with status 200 for a key that does not exist; set the URL below which {{sha256 of kid}}.pem is found"
            )),
            Err(error) => Err(format!("{server}: {error}; start it, or correct the URL")),
        }
    }
}

impl KeySource<Jwks> {
    /// The keys with this `kid`. If none `fits`, the key may be new: the set is fetched again if it is older than
    /// some seconds. More requests would let anyone flood the server with invented ids.
    async fn find(
        &self,
        kid: &str,
        fits: impl Fn(&Arc<PublicKey>) -> bool,
    ) -> Lookup<Vec<Arc<PublicKey>>> {
        let (mut keys, mut definitive) = (Vec::new(), false);
        for max_age in [Duration::MAX, ABSENT_TTL] {
            let fetch = || self.fetch(self.url.clone());
            let set = self.cache.get(cache_key(""), max_age, fetch).await;
            definitive = set.definitive;
            keys = set.value.map(|set| set.find(kid)).unwrap_or_default();
            if keys.iter().any(&fits) {
                break;
            }
        }
        let value = (!keys.is_empty()).then_some(keys);
        Lookup { value, definitive }
    }

    async fn recheck(&self) {
        let fetch = || self.fetch(self.url.clone());
        self.cache.recheck(cache_key(""), fetch).await;
    }

    async fn probe(&self) -> Result<String, String> {
        let set = self.fetch_document(self.url.clone()).await;
        let set = set.map_err(|error| format!("{}: {error}; correct the URL", self.url))?;
        let keys = set.iter().flat_map(Jwks::keys);
        let named =
            keys.map(|(kid, key)| format!("\"{}\" ({})", escape_for_message(kid), describe(key)));
        Ok(named.collect::<Vec<_>>().join(", "))
    }
}

/// The algorithms of a key.
fn describe(key: &PublicKey) -> String {
    let names = key.algorithms().iter().map(|one| format!("{one:?}"));
    names.collect::<Vec<_>>().join(" ")
}

fn cache_key(kid: &str) -> CacheKey {
    let mut key = CacheKey::default();
    key.copy_from_slice(digest(&SHA256, kid.as_bytes()).as_ref());
    key
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
