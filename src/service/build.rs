//! Builds the parts of the service from the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::auth::Verifier;
use crate::auth::key_server::{KeyServerError, KeyServers};
use crate::auth::keys::{KeyError, KeySet, PublicKey};
use crate::auth::secret_file;
use crate::auth::service_token::{ServiceAuth, ServiceTokens};
use crate::config::Config;
use crate::domain::secret::Secret;
use crate::queue::Queue;
use crate::reservation::Reservations;
use crate::reservation::gateway::UpstreamError;
use crate::session::SessionContext;
use crate::session::limits::ConnectionLimits;
use crate::session::timer_wheel::TimerWheel;
use crate::store::{self, Store, StoreError};
use crate::text::without_bom;

/// A part of the service can't be built.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The database can't be used.
    #[error("the database at {url}: {error}")]
    Store {
        /// `database.url`.
        url: String,
        /// The cause.
        error: StoreError,
    },
    /// The generated secret can't be written or read.
    #[error("the secret file {path}: {error}; {}", secret_remedy(error))]
    Secret {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// The threads of the sessions can't be started.
    #[error(
        "the threads of the queue can't be started: {0}; raise the limit of processes (TasksMax in systemd)"
    )]
    Threads(std::io::Error),
    /// The client of the upstream can't be built.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A key server can't be used.
    #[error(transparent)]
    KeyServer(#[from] KeyServerError),
    /// A key can't be used.
    #[error("{key}: {error}")]
    Key {
        /// The key of the configuration.
        key: String,
        /// The cause.
        error: String,
    },
}

/// What to do about a secret file that can't be written or read.
fn secret_remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::InvalidData => {
            "remove the file, and usher creates a new secret, or set auth.secret"
        }
        std::io::ErrorKind::StorageFull => "free space on its disk",
        _ => "give usher's user the right to write it and its directory, or set auth.secret",
    }
}

/// Opens the reservations on the configured database.
///
/// # Errors
///
/// [`ServeError::Store`] if the database can't be used, [`ServeError::Upstream`] if the upstream can't.
pub async fn open(config: &Config) -> Result<Reservations, ServeError> {
    Ok(Reservations::new(
        open_store(config).await?,
        Arc::new(config.reservations.clone()),
    )?)
}

/// Copies the configured database to `file` without a migration, even if it is of an earlier version.
///
/// # Errors
///
/// [`ServeError::Store`]; the file does not exist then.
pub async fn back_up(config: &Config, file: &Path) -> Result<(), ServeError> {
    let made = store::back_up(&config.database.url, file).await;
    made.map_err(|error| store_failed(config, error))
}

async fn open_store(config: &Config) -> Result<Store, ServeError> {
    let opened = Store::open(&config.database.url, &config.xmpp.domain).await;
    opened.map_err(|error| store_failed(config, error))
}

/// Opens the database for the one process that serves it.
pub(super) async fn open_store_to_serve(config: &Config) -> Result<Store, ServeError> {
    let opened = Store::open_to_serve(&config.database.url, &config.xmpp.domain).await;
    opened.map_err(|error| store_failed(config, error))
}

fn store_failed(config: &Config, error: StoreError) -> ServeError {
    let url = config.database.url.clone();
    ServeError::Store { url, error }
}

pub(super) fn session_context(
    config: &Config,
    queue: Queue,
    auth: &ServiceAuth,
    limits: ConnectionLimits,
    timers: Arc<TimerWheel>,
) -> SessionContext {
    SessionContext {
        queue,
        verifier: auth.verifier.clone(),
        settings: Arc::new(config.queue.clone()),
        xmpp: Arc::new(config.xmpp.clone()),
        limits,
        timers,
    }
}

/// The shared secret: the configured one or, if no key is configured, one that is generated beside the database.
///
/// # Errors
///
/// [`ServeError::Secret`] if its file can't be read or written.
pub fn secret(config: &Config) -> Result<Option<Secret>, ServeError> {
    if config.auth.any_key() {
        return Ok(config.auth.secret.clone());
    }
    let Some(path) = secret_path(config) else {
        return Ok(None);
    };
    let (secret, is_new) =
        secret_file::load_or_create(&path).map_err(|error| ServeError::Secret {
            path: path.clone(),
            error,
        })?;
    if is_new {
        tracing::info!(file = %path.display(), "no key is configured; generated a random secret");
    }
    Ok(Some(secret))
}

/// The file of the generated secret. A database in memory has none.
fn secret_path(config: &Config) -> Option<PathBuf> {
    let database = store::sqlite::file_of(&config.database.url)?;
    Some(secret_file::path(&database))
}

/// The file in which [`secret`] would generate one, if it would.
#[must_use]
pub fn secret_to_create(config: &Config) -> Option<PathBuf> {
    let path = secret_path(config)?;
    (!config.auth.any_key() && !path.exists()).then_some(path)
}

/// Like [`secret`], but never generates one.
///
/// # Errors
///
/// [`ServeError::Secret`] if its file can't be read.
pub fn existing_secret(config: &Config) -> Result<Option<Secret>, ServeError> {
    match secret_to_create(config) {
        Some(_) => Ok(None),
        None => secret(config),
    }
}

/// The shared secret and the configured public keys.
///
/// # Errors
///
/// [`ServeError::Key`] for a file without a usable public key, or an unusable secret.
pub fn key_set(config: &Config, secret: Option<&Secret>) -> Result<KeySet, ServeError> {
    let mut keys = KeySet::new();
    if let Some(secret) = secret {
        let failed = |error: KeyError| ServeError::Key {
            key: "auth.secret".into(),
            error: error.to_string(),
        };
        let algorithm = config.auth.secret_algorithm;
        let with_secret = keys.with_secret_for(secret.expose(), algorithm);
        keys = with_secret.map_err(failed)?;
    }
    for (kid, file) in &config.auth.public_keys {
        let failed = |error: &dyn std::fmt::Display| ServeError::Key {
            key: format!("auth.public_keys.{kid}"),
            error: format!("{}: {error}", file.display()),
        };
        let pem = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
        let key = PublicKey::from_pem(without_bom(&pem)).map_err(|error| failed(&error))?;
        keys = keys.with_public_key(kid, key);
    }
    Ok(keys)
}

/// The configured key servers, if any.
///
/// # Errors
///
/// [`ServeError::KeyServer`] for an invalid URL or an unusable TLS setup.
pub fn key_servers(config: &Config) -> Result<Option<KeyServers>, ServeError> {
    Ok(KeyServers::new(&config.auth)?)
}

/// The verifier of tokens, with the configured keys and key servers.
///
/// # Errors
///
/// Those of [`key_set`] and [`key_servers`].
pub fn verifier(config: &Config, secret: Option<&Secret>) -> Result<Verifier, ServeError> {
    let keys = key_set(config, secret)?;
    let verifier = Verifier::new(keys, Arc::new(config.auth.clone()), &config.xmpp.domain);
    Ok(match key_servers(config)? {
        Some(servers) => verifier.with_key_servers(servers),
        None => verifier,
    })
}

/// The authorization of requests to the service's own endpoints.
///
/// # Errors
///
/// Those of [`verifier`].
pub fn service_auth(config: &Config, secret: Option<&Secret>) -> Result<ServiceAuth, ServeError> {
    let tokens = &config.auth.service.tokens;
    Ok(ServiceAuth {
        tokens: ServiceTokens::new(tokens),
        verifier: verifier(config, secret)?,
        open: tokens.is_empty() && !config.auth.any_key(),
    })
}
