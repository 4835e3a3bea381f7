//! `[auth.service]`: the tokens of Prosody and jigasi.

use serde::Deserialize;

use super::input::Invalid;
use super::reader::{Content, Located, Reader};
use super::value::Text;
use crate::domain::secret::Secret;

/// `[auth.service]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Fixed tokens that services present as `Authorization: Bearer …`. Given as `tokens` or, better, one per
    /// line in a file (`tokens_file`). None by default.
    pub tokens: Vec<Secret>,
    /// Issuers (`iss`) whose tokens without room and user are service tokens. With none, only the fixed tokens
    /// are valid.
    pub issuers: Vec<String>,
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
        let default = Self::default();
        let issuers = read.list::<ServiceIssuer>("auth.service.issuers");
        let issuers = issuers.map(|list| list.value.into_iter().map(|entry| entry.value.0));
        Self {
            tokens: tokens(read).unwrap_or(default.tokens),
            issuers: issuers.map_or(default.issuers, Iterator::collect),
        }
    }
}

fn tokens(read: &mut Reader<'_>) -> Option<Vec<Secret>> {
    let inline = read
        .list::<Token>("auth.service.tokens")
        // An empty list in the file has no meaning; an empty variable removes the file's tokens.
        .filter(|list| !list.value.is_empty() || list.origin.line.is_none());
    let file = read.get_path("auth.service.tokens_file");
    match read.exclusive(inline, file)? {
        Content::Inline(list) => {
            let tokens = list.value.into_iter();
            Some(tokens.map(|entry| Secret::new(entry.value.0)).collect())
        }
        Content::File(found) => tokens_of_file(read, &found),
    }
}

fn tokens_of_file(read: &mut Reader<'_>, found: &Located<String>) -> Option<Vec<Secret>> {
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
        match Token::parse(line) {
            Ok(Token(token)) => tokens.push(Secret::new(token)),
            Err(Invalid { message, hint }) => {
                let message = format!("line {} of {}: {message}", index + 1, path.display());
                read.report(&found.origin, Invalid::new(message, hint));
            }
        }
    }
    if empty {
        read.report_empty_file(found);
    }
    Some(tokens)
}

/// A token that an HTTP header can carry.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Token(String);

impl Token {
    /// No issue repeats the token.
    fn parse(token: &str) -> Result<Self, Invalid> {
        let message = if token.is_empty() {
            "a token is empty"
        } else if token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(token.to_owned()));
        } else {
            "a token has a space or another character that an HTTP header cannot carry"
        };
        let hint = "Use letters and digits, as openssl rand -hex 32 writes them.";
        Err(Invalid::new(message, hint))
    }
}

impl TryFrom<String> for Token {
    type Error = Invalid;

    fn try_from(token: String) -> Result<Self, Invalid> {
        Self::parse(&token)
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "Text")]
struct ServiceIssuer(String);

impl TryFrom<Text> for ServiceIssuer {
    type Error = Invalid;

    fn try_from(issuer: Text) -> Result<Self, Invalid> {
        let issuer = String::from(issuer);
        if issuer == "*" {
            return Err(Invalid::new(
                "with \"*\", every issuer of tokens could act as a service",
                "Write the issuers that Prosody and jigasi use in their tokens.",
            ));
        }
        Ok(Self(issuer))
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::tests::rejects;
    use super::*;

    #[test]
    fn service_token_fits_into_a_header() {
        let (wrong, hint) = ("an HTTP header cannot carry", "letters and digits");
        rejects::<Token>(&[
            ("'a b'", wrong, hint),
            ("\"a\\u0007\"", wrong, hint),
            ("'café'", wrong, hint),
            ("''", "is empty", "openssl"),
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
