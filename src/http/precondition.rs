//! Conditional requests (RFC 9110, section 13), and requests that may be repeated (`Idempotency-Key`).

use aws_lc_rs::digest::{SHA256, digest};
use warp::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use warp::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::error::ApiError;
use super::request::Request;
use crate::reservation::RequestKey;

/// The header that identifies a request and its repetitions.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest value of it, in bytes.
const KEY_MAX: usize = 255;

/// The entity tag of a version.
pub(super) fn etag(version: i64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// What a request requires of the version that it finds.
#[derive(Debug)]
pub(super) struct Precondition {
    if_match: Option<Vec<String>>,
    if_none_match: Option<Vec<String>>,
}

impl Precondition {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self {
            if_match: tags(headers, &IF_MATCH),
            if_none_match: tags(headers, &IF_NONE_MATCH),
        }
    }

    /// Checks that the resource has not changed since the client read it. A weak tag never matches.
    pub(super) fn check(&self, version: i64) -> Result<(), ApiError> {
        let current = etag(version);
        let matches = |tag: &String| tag == "*" || current.as_bytes() == tag.as_bytes();
        match &self.if_match {
            Some(tags) if !tags.iter().any(matches) => {
                let message = "It was changed since it was read (If-Match); read it again, and repeat the change.";
                Err(ApiError::new(StatusCode::PRECONDITION_FAILED, message)
                    .with_code("stale")
                    .with_header(ETAG, current))
            }
            _ => Ok(()),
        }
    }

    /// Whether the client has this version already. Weak tags match, too.
    pub(super) fn is_unchanged(&self, version: i64) -> bool {
        let current = etag(version);
        let matches = |tag: &String| {
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            tag == "*" || current.as_bytes() == strong.as_bytes()
        };
        let tags = self.if_none_match.as_ref();
        tags.is_some_and(|tags| tags.iter().any(matches))
    }
}

/// The entity tags of a header; `None` if it is missing. A value that can't be read matches nothing.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<String>> {
    let values = headers.get_all(name).iter();
    let tags = values.flat_map(|value| {
        let value = value.to_str().unwrap_or_default();
        value.split(',').map(|tag| tag.trim().to_owned())
    });
    headers.contains_key(name).then(|| tags.collect())
}

/// The key of a request, if it has one, with a digest of its body.
pub(super) fn request_key(request: &Request) -> Result<Option<RequestKey>, ApiError> {
    let mut values = request.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default().trim();
    if key.is_empty() || key.len() > KEY_MAX || values.next().is_some() {
        let message = format!(
            "Idempotency-Key must be one text of 1 to {KEY_MAX} ASCII characters; use a random one for each request."
        );
        return Err(
            ApiError::new(StatusCode::BAD_REQUEST, message).with_code("invalid_idempotency_key")
        );
    }
    Ok(Some(RequestKey {
        key: key.to_owned(),
        digest: digest(&SHA256, &request.body).as_ref().to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn precondition(name: &'static str, values: &[&str]) -> Precondition {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        Precondition::of(&headers)
    }

    #[test]
    fn a_change_requires_the_version_that_was_read() {
        let passes = |values: &[&str]| precondition("if-match", values).check(7).is_ok();
        assert!(passes(&[]));
        for values in [
            &["\"7\""][..],
            &["*"],
            &["\"6\", \"7\""],
            &["\"6\"", "\"7\""],
        ] {
            assert!(passes(values), "{values:?}");
        }
        for values in [&["\"6\""][..], &["7"], &[""], &["W/\"7\""], &["\"77\""]] {
            assert!(!passes(values), "{values:?}");
        }
    }

    #[test]
    fn a_known_version_is_unchanged() {
        let unchanged = |value: &str| precondition("if-none-match", &[value]).is_unchanged(7);
        assert!(!precondition("if-none-match", &[]).is_unchanged(7));
        for value in ["\"7\"", "W/\"7\"", "*", "\"1\",\"7\""] {
            assert!(unchanged(value), "{value}");
        }
        for value in ["\"6\"", "7", ""] {
            assert!(!unchanged(value), "{value}");
        }
    }
}
