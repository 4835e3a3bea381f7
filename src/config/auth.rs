//! Reads `[auth]`: whose tokens are believed, and the secrets that are kept in files.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::files;
use super::reader::{Found, Place, Reader};
use super::sections::{DAY, MINUTE, SECOND, exact_web_address, web_address};
use super::{Auth, Service, defaults};
use crate::domain::secret::Secret;

pub(super) fn auth(read: &mut Reader<'_>) -> Auth {
    Auth {
        secret: secret(read),
        public_keys: public_keys(read),
        key_server: web_address(read, "auth.key_server"),
        jwks_url: exact_web_address(read, "auth.jwks_url").map(|found| found.value),
        key_cache: read.duration("auth.key_cache", defaults::KEY_CACHE, SECOND..=7 * DAY),
        accepted_issuers: accepted(read, "auth.accepted_issuers", defaults::ACCEPTED_ISSUER),
        accepted_audiences: accepted(read, "auth.accepted_audiences", defaults::ACCEPTED_AUDIENCE),
        verify_domain: read.flag("auth.verify_domain", defaults::VERIFY_DOMAIN),
        leeway: read.duration(
            "auth.leeway",
            defaults::LEEWAY,
            Duration::ZERO..=10 * MINUTE,
        ),
        service: Service {
            tokens: service_tokens(read),
            issuers: service_issuers(read),
        },
    }
}

/// What a value was given as: itself, or a file that holds it.
pub(super) enum Given<T> {
    Inline(Found<T>),
    File(Found<String>),
}

/// The environment wins over the file; two in the same place are a mistake.
pub(super) fn one_of<T>(
    read: &mut Reader<'_>,
    inline: Option<Found<T>>,
    file: Option<Found<String>>,
) -> Option<Given<T>> {
    match (inline, file) {
        (Some(inline), Some(file)) => {
            match (inline.place.in_environment(), file.place.in_environment()) {
                (true, false) => Some(Given::Inline(inline)),
                (false, true) => Some(Given::File(file)),
                _ => {
                    read.mistake(
                        &file.place,
                        format!("is set, and {} too", inline.place.key),
                        "Keep one of the two; a secret is safer in the file.",
                    );
                    None
                }
            }
        }
        (Some(inline), None) => Some(Given::Inline(inline)),
        (None, Some(file)) => Some(Given::File(file)),
        (None, None) => None,
    }
}

fn secret(read: &mut Reader<'_>) -> Option<Secret> {
    let inline = read.filled_text("auth.secret");
    let file = read.filled_text("auth.secret_file");
    match one_of(read, inline, file)? {
        Given::Inline(found) => Some(Secret::new(found.value)),
        Given::File(found) => {
            let text = read.secret_file(&found)?;
            let secret = text.trim_end_matches(['\n', '\r']);
            if secret.trim().is_empty() {
                empty_file(read, &found);
                return None;
            }
            Some(Secret::new(secret.to_owned()))
        }
    }
}

fn empty_file(read: &mut Reader<'_>, found: &Found<String>) {
    let path = read.path(&found.value);
    read.mistake(
        &found.place,
        format!("{} is empty", path.display()),
        format!(
            "Put something random into it: openssl rand -hex 32 > {}",
            path.display()
        ),
    );
}

fn service_tokens(read: &mut Reader<'_>) -> Vec<Secret> {
    let inline = read
        .texts("auth.service.tokens")
        // An empty list in the file says nothing; an empty variable takes the file's tokens away.
        .filter(|list| !list.value.is_empty() || list.place.in_environment());
    let file = read.filled_text("auth.service.tokens_file");
    match one_of(read, inline, file) {
        Some(Given::Inline(list)) => {
            let check = |Found { value, place }| token(read, &place, "one of the tokens", value);
            list.value.into_iter().filter_map(check).collect()
        }
        Some(Given::File(found)) => tokens_of_file(read, &found),
        None => Vec::new(),
    }
}

fn tokens_of_file(read: &mut Reader<'_>, found: &Found<String>) -> Vec<Secret> {
    let Some(text) = read.secret_file(found) else {
        return Vec::new();
    };
    let path = read.path(&found.value);
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .collect();
    if lines.is_empty() {
        empty_file(read, found);
    }
    lines
        .into_iter()
        .filter_map(|(number, line)| {
            let which = format!("the token in line {number} of {}", path.display());
            token(read, &found.place, &which, line.to_owned())
        })
        .collect()
}

fn token(read: &mut Reader<'_>, place: &Place, which: &str, token: String) -> Option<Secret> {
    let problem = if token.is_empty() {
        "is empty"
    } else if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(Secret::new(token));
    } else {
        "has a space or another character in it that an HTTP header can't carry"
    };
    read.mistake(
        place,
        format!("{which} {problem}"),
        "Use letters and digits, as openssl rand -hex 32 writes them.",
    );
    None
}

fn service_issuers(read: &mut Reader<'_>) -> Vec<String> {
    let Some(issuers) = names(read, "auth.service.issuers") else {
        return vec![defaults::SERVICE_ISSUER.to_owned()];
    };
    if issuers.value.iter().any(|issuer| issuer == "*") {
        read.mistake(
            &issuers.place,
            "\"*\" would let everybody who can issue a token act as a service",
            "Name the issuers that Prosody and jigasi put into their tokens.",
        );
    }
    issuers.value
}

fn public_keys(read: &mut Reader<'_>) -> BTreeMap<String, PathBuf> {
    let mut keys = BTreeMap::new();
    for (kid, Found { value, place }) in read.table("auth.public_keys") {
        let path = read.path(&value);
        match files::check_readable(&path) {
            Ok(()) => {
                keys.insert(kid, path);
            }
            Err(error) => read.unreadable(&place, &path, &error),
        }
    }
    // A key that is named by itself wins over the file of its name.
    for (kid, path) in keys_of_directory(read) {
        keys.entry(kid).or_insert(path);
    }
    keys
}

/// `KID.pem` for each key. There may be none yet: the package makes the directory before there are keys.
fn keys_of_directory(read: &mut Reader<'_>) -> Vec<(String, PathBuf)> {
    let Some(found) = read.filled_text("auth.public_keys_dir") else {
        return Vec::new();
    };
    let directory = read.path(&found.value);
    let files = match files::list(&directory) {
        Ok(files) => files,
        Err(error) => {
            read.unreadable(&found.place, &directory, &error);
            return Vec::new();
        }
    };
    let mut keys = Vec::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(kid) = name.strip_suffix(".pem").filter(|kid| !kid.is_empty()) else {
            continue;
        };
        match files::check_readable(&path) {
            Ok(()) => keys.push((kid.to_owned(), path)),
            Err(error) => read.unreadable(&found.place, &path, &error),
        }
    }
    keys
}

fn accepted(read: &mut Reader<'_>, key: &'static str, default: &str) -> Vec<String> {
    let Some(list) = names(read, key) else {
        return vec![default.to_owned()];
    };
    // An entry that was refused has been named already.
    if list.value.is_empty() && !read.has_mistakes_at(key) {
        read.mistake(
            &list.place,
            "is empty, so that no token would be accepted",
            format!("Name one at least: [\"{default}\"], or [\"*\"] for any."),
        );
    }
    list.value
}

/// A list of texts, none of them empty.
fn names(read: &mut Reader<'_>, key: &'static str) -> Option<Found<Vec<String>>> {
    let Found { value, place } = read.texts(key)?;
    let mut names = Vec::new();
    for entry in value {
        if entry.value.trim().is_empty() {
            read.mistake(&entry.place, "has an empty entry", "Remove the entry.");
        } else {
            names.push(entry.value);
        }
    }
    Some(Found {
        value: names,
        place,
    })
}

/// Secrets that could be better, keys that others on the way could change.
pub(super) fn notices(auth: &Auth) -> Vec<String> {
    let mut notices = Vec::new();
    if auth.secret.as_ref().is_some_and(is_short) {
        notices.push(short("auth.secret"));
    }
    if auth.service.tokens.iter().any(is_short) {
        notices.push(short("auth.service.tokens"));
    }
    for (key, url) in [
        ("auth.key_server", &auth.key_server),
        ("auth.jwks_url", &auth.jwks_url),
    ] {
        if url.as_deref().is_some_and(is_open_to_others) {
            notices.push(format!(
                "{key}: whoever is on the way there can hand out keys of their own and sign \
                 tokens with them: use https"
            ));
        }
    }
    notices
}

/// Whether what is fetched from there crosses a network in the clear.
pub(super) fn is_open_to_others(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let here = address.map_or(host == "localhost", |ip| ip.to_canonical().is_loopback());
    url.scheme() == "http" && !here
}

fn is_short(secret: &Secret) -> bool {
    secret.expose().len() < defaults::SECRET_SHORT_BYTES
}

fn short(key: &str) -> String {
    format!(
        "{key} is short enough to be guessed: use at least 32 random characters, \
         as openssl rand -hex 32 writes them"
    )
}
