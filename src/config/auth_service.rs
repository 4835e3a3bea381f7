//! `[auth.service]`: the tokens of Prosody and jigasi.

use super::input::Invalid;
use super::reader::{Content, Located, Reader};
use super::value::text_value;
use crate::domain::scope::{Scope, Scopes};
use crate::domain::secret::Secret;

/// `[auth.service]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Fixed tokens that services present as `Authorization: Bearer …`. Given as `tokens` or, better, one per
    /// line in a file (`tokens_file`); the scopes of a token follow it after a blank. None by default.
    pub tokens: Vec<ServiceToken>,
    /// Issuers (`iss`) whose tokens without room and user are service tokens. With none, only the fixed tokens
    /// are valid.
    pub issuers: Vec<String>,
}

/// A fixed token and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceToken {
    /// The token.
    pub token: Secret,
    /// Its scopes: all, if none is named.
    pub scopes: Scopes,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            issuers: vec!["jitsi".to_owned()],
        }
    }
}

impl Service {
    pub(super) fn read(read: &mut Reader<'_>) -> Self {
        let mut it = Self::default();
        read.set_list::<ServiceIssuer, _>("auth.service.issuers", &mut it.issuers);
        it.tokens = tokens(read).unwrap_or_default();
        it
    }
}

fn tokens(read: &mut Reader<'_>) -> Option<Vec<ServiceToken>> {
    let inline = read
        .list::<Token>("auth.service.tokens")
        // An empty list in the file has no meaning; one in the variable removes the file's tokens.
        .filter(|list| !list.value.is_empty() || list.origin.line.is_none());
    let file = read.get_path("auth.service.tokens_file");
    match read.exclusive(inline, file)? {
        Content::Inline(list) => {
            let tokens = list.value.into_iter();
            Some(tokens.map(|entry| entry.value.0).collect())
        }
        Content::File(found) => tokens_of_file(read, &found),
    }
}

fn tokens_of_file(read: &mut Reader<'_>, found: &Located<String>) -> Option<Vec<ServiceToken>> {
    let text = read.secret_file(found)?;
    let path = read.path(&found.value);
    let mut tokens = Vec::new();
    let mut empty = true;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        empty = false;
        match token(line.to_owned()) {
            Ok(token) => tokens.push(token),
            Err(Invalid { message, hint }) => {
                let message = format!("line {} of {}: {message}", index + 1, path.display());
                read.report(&found.origin, Invalid::new(message, hint));
            }
        }
    }
    if empty {
        let path = path.display();
        let hint = format!(
            "Write a random token into it, and give Prosody the same one: openssl rand -hex 32 > {path}"
        );
        read.report_empty_file(found, hint);
    }
    Some(tokens)
}

text_value!(
    /// A token that an HTTP header can carry, and its scopes.
    Token(ServiceToken),
    token
);

/// `TOKEN` or `TOKEN scope scope`. No issue repeats the token, or a word after it, which may be a part of the token.
fn token(text: String) -> Result<ServiceToken, Invalid> {
    let mut words = text.split(' ');
    let token = words.next().unwrap_or_default();
    let scopes: Option<Vec<_>> = words.map(Scope::named).collect();
    match scopes {
        Some(scopes) if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(ServiceToken {
            token: Secret::new(token.to_owned()),
            scopes: if scopes.is_empty() {
                Scopes::ALL
            } else {
                scopes.into_iter().fold(Scopes::NONE, Scopes::with)
            },
        }),
        _ => Err(Invalid::new(
            "a token has a space without the name of a scope behind it, or another character that an HTTP header cannot carry",
            "Use letters and digits, as openssl rand -hex 32 writes them; behind the token, after a space each, \
             only scopes: prosody, queue, bookings, decisions, operate, metrics.",
        )),
    }
}

text_value!(ServiceIssuer(String), service_issuer);

fn service_issuer(issuer: String) -> Result<String, Invalid> {
    if issuer == "*" {
        return Err(Invalid::new(
            "with \"*\", every issuer of tokens could act as a service",
            "Write the issuers that Prosody and jigasi use in their tokens.",
        ));
    }
    Ok(issuer)
}

#[cfg(test)]
mod tests {
    use super::super::value::tests::{decoded, rejects};
    use super::*;

    #[test]
    fn service_token_fits_into_a_header() {
        let (wrong, hint) = ("an HTTP header cannot carry", "letters and digits");
        rejects::<Token>(&[
            ("'a b'", wrong, hint),
            ("\"a\\u0007\"", wrong, hint),
            ("'café'", wrong, hint),
            ("''", "is empty", "Give it a value"),
        ]);
    }

    #[test]
    fn scopes_follow_the_token() {
        let all = decoded::<Token>("'abc'").unwrap().0;
        assert_eq!((all.token.expose(), all.scopes), ("abc", Scopes::ALL));
        let two = decoded::<Token>("'abc queue metrics'").unwrap().0;
        assert_eq!(two.token.expose(), "abc");
        assert_eq!(two.scopes, Scopes::of_list("queue metrics"));
        let (wrong, hint) = ("the name of a scope", "prosody, queue, bookings");
        rejects::<Token>(&[
            ("'abc book'", wrong, hint),
            ("'abc Queue'", wrong, hint),
            ("'abc  queue'", wrong, hint),
            ("'abc queue '", wrong, hint),
        ]);
    }

    #[test]
    fn service_issuer_has_a_name() {
        rejects::<ServiceIssuer>(&[
            ("'*'", "act as a service", "Write the issuers"),
            ("''", "is empty", "Give it a value"),
        ]);
    }
}
