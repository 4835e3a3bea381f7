//! `[xmpp]`: names in Prosody's configuration.

use super::input::Invalid;
use super::reader::{Content, Reader};
use super::reload::Fixed;
use super::value::{BaseUrl, text_value};
use crate::domain::conference::Conference;

/// `[xmpp]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xmpp {
    /// The main virtual host in lower case. Tokens and requests for conferences of other domains are refused.
    /// Given as `domain`, or as a file that contains it (`domain_file`), as the Debian package does.
    pub domain: String,
    /// The first label of the domain of the MUC component: `conference` for `conference.meet.example.com`.
    pub muc_prefix: String,
    /// The URL of the Jitsi Meet site, where the addresses of meetings begin. `https://` and the domain by default.
    pub public_url: Option<String>,
}

impl Default for Xmpp {
    fn default() -> Self {
        Self {
            domain: "meet.example.com".to_owned(),
            muc_prefix: "conference".to_owned(),
            public_url: None,
        }
    }
}

impl Xmpp {
    pub(super) fn read(read: &mut Reader<'_>) -> Self {
        let mut it = Self::default();
        if let Some(domain) = domain(read) {
            it.domain = domain;
        }
        read.set::<HostName, _>("xmpp.muc_prefix", &mut it.muc_prefix);
        let public_url = read.get::<BaseUrl>("xmpp.public_url");
        it.public_url = public_url.map(|found| found.value.into());
        it
    }

    /// The address of a meeting, which a user opens in a browser.
    #[must_use]
    pub fn meeting_url(&self, conference: &Conference) -> String {
        let path = conference.path();
        match &self.public_url {
            Some(site) => format!("{site}{path}"),
            None => format!("https://{}{path}", self.domain),
        }
    }

    pub(super) fn keep_fixed(&self, new: &mut Self, fixed: &mut Fixed) {
        fixed.keep("xmpp.domain", &self.domain, &mut new.domain);
        fixed.keep("xmpp.muc_prefix", &self.muc_prefix, &mut new.muc_prefix);
        fixed.keep("xmpp.public_url", &self.public_url, &mut new.public_url);
    }
}

fn domain(read: &mut Reader<'_>) -> Option<String> {
    let inline = read.get::<HostName>("xmpp.domain");
    let file = read.get_path("xmpp.domain_file");
    match read.exclusive(inline, file)? {
        Content::Inline(found) => Some(found.value.0),
        Content::File(found) => {
            let text = read.file(&found)?;
            let name = host_name(text.trim().to_owned());
            name.map_err(|invalid| read.report(&found.origin, invalid))
                .ok()
        }
    }
}

/// RFC 1035: a whole name, and one part of it.
const HOST_NAME_MAX_BYTES: usize = 253;
const HOST_LABEL_MAX_BYTES: usize = 63;

text_value!(HostName(String), host_name);

fn host_name(text: String) -> Result<String, Invalid> {
    let name = text.to_ascii_lowercase();
    if is_host_name(&name) {
        return Ok(name);
    }
    let hint = if name.is_ascii() {
        "Write it like \"meet.example.com\" or \"conference\": no scheme, no port, no slash, no space."
    } else {
        "Write the letters beyond a-z in Punycode (\"xn--…\")."
    };
    Err(Invalid::new(format!("{text:?} is not a host name"), hint))
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=HOST_LABEL_MAX_BYTES).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= HOST_NAME_MAX_BYTES && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::super::value::tests::{decoded, rejects};
    use super::*;

    #[test]
    fn host_name_is_a_domain_in_lower_case_ascii() {
        let name = decoded::<HostName>("'Meet.XN--bcher-kva.Example'").unwrap();
        assert_eq!(name.0, "meet.xn--bcher-kva.example");
        let wrong = "is not a host name";
        rejects::<HostName>(&[
            ("'https://meet.example.com'", wrong, "no scheme"),
            ("'meet.example.com/'", wrong, "no slash"),
            ("'meet.example.com:443'", wrong, "no port"),
            ("'meet..com'", wrong, "\"meet.example.com\""),
            ("'-meet.com'", wrong, "\"meet.example.com\""),
            ("'conference.'", wrong, "\"conference\""),
            ("'büro.example'", wrong, "xn--"),
            ("' '", "is empty", "Give it a value"),
        ]);
        for (bytes, accepted) in [(63, true), (64, false)] {
            let name = decoded::<HostName>(&format!("'{}.example'", "a".repeat(bytes)));
            assert_eq!(name.is_ok(), accepted);
        }
        let long = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(63),
        ]
        .join(".");
        rejects::<HostName>(&[(&format!("'{long}'"), wrong, "no scheme")]);
    }
}
