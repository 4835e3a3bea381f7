//! The conference: room, tenant and domain; every spelling of it, and the one key they share.
//!
//! Jitsi Meet rewrites what a person typed before it becomes a MUC node ([`room_name`]), and Prosody writes the
//! room of a tenant in two ways: `room@conference.tenant.domain` to clients, `[tenant]room@conference.domain`
//! inside. Each of them becomes one [`Conference`] here; no other module parses room names.

use super::room_name::{self, MAX_NODE_BYTES, RoomNameError, normalize};
use crate::text::{
    encode_punctuation, escape_for_message, is_unsafe_for_display, percent_decode, percent_encode,
};

/// A conference: the one key for a room, its tenant and its domain, however they were written.
///
/// For a few names [`Conference::node`] differs from the node that Prosody sent (see
/// `room_name::canonicalize`): an answer that must echo a name echoes the request, not the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conference {
    room: String,
    tenant: Option<String>,
    domain: String,
}

/// Why a text names no conference of this deployment. The messages are for the user; they hold no control
/// characters and only the beginning of a long name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConferenceError {
    /// The room's name can't be one.
    #[error(transparent)]
    RoomName(#[from] RoomNameError),
    /// The tenant is empty or holds a character that can't be part of a subdomain.
    #[error(
        "\"{0}\" is not a tenant: it is one part of a domain name, without dots, blanks, slashes, brackets, @ or other punctuation"
    )]
    BadTenant(String),
    /// The tenant was given twice, differently.
    #[error(
        "the room name says tenant \"{named}\" but the tenant given is \"{given}\"; give one of them only"
    )]
    TenantsDiffer {
        /// The tenant within the room's name.
        named: String,
        /// The tenant beside it.
        given: String,
    },
    /// A well-formed JID that belongs to another deployment, or to another service of this one.
    #[error("\"{jid}\" is not a room of {expected}; use room@{expected}")]
    Foreign {
        /// What was given.
        jid: String,
        /// Where rooms are here: `conference.` and the domain.
        expected: String,
    },
    /// The text isn't the bare JID of a room.
    #[error("\"{0}\" is not the address of a room; write it as room@conference.meet.example.com")]
    NotARoomJid(String),
}

impl Conference {
    /// The conference of a MUC node as Prosody sends it: `room` or `[tenant]room`.
    ///
    /// # Errors
    /// Any [`ConferenceError`] about room names and tenants.
    pub fn from_node(node: &str, domain: &str) -> Result<Self, ConferenceError> {
        let (bracket, room) = split_bracket(node)?;
        Self::assemble(room, bracket.map(canonical_tenant).transpose()?, domain)
    }

    /// The conference a person means: any spelling of the room's name, with or without the tenant in
    /// brackets before it, and with or without a tenant beside it. An empty `tenant` counts as none. Punctuation
    /// that Jitsi Meet takes out of an address is taken out. Blanks are part of a name, as in Jitsi Meet, but a
    /// name of nothing else is [`RoomNameError::Empty`].
    ///
    /// # Errors
    /// Any [`ConferenceError`] about room names and tenants.
    pub fn from_names(
        room: &str,
        tenant: Option<&str>,
        domain: &str,
    ) -> Result<Self, ConferenceError> {
        let (bracket, room) = split_bracket(room)?;
        if room.trim().is_empty() {
            return Err(RoomNameError::Empty.into());
        }
        let given = tenant.filter(|tenant| !tenant.is_empty());
        for tenant in bracket.iter().chain(&given) {
            typed_tenant(tenant)?;
        }
        let tenant = resolve_tenant(bracket, given)?;
        let conference = Self::assemble(&room_name::typed(room)?, tenant, domain)?;
        match conference.room.as_str() {
            "." | ".." => Err(RoomNameError::Dots.into()),
            _ => Ok(conference),
        }
    }

    /// The conference of a canonical room and tenant, as the store holds them. An empty `tenant` counts as none.
    ///
    /// # Errors
    /// Any [`ConferenceError`] about room names and tenants.
    pub(crate) fn from_canonical(
        room: &str,
        tenant: &str,
        domain: &str,
    ) -> Result<Self, ConferenceError> {
        let tenant = Some(tenant).filter(|tenant| !tenant.is_empty());
        Self::assemble(room, tenant.map(canonical_tenant).transpose()?, domain)
    }

    /// The conference of a room's bare JID: `room@conference.domain`,
    /// `room@conference.tenant.domain` or `[tenant]room@conference.domain`, where `muc_prefix` is
    /// `conference`. Case does not matter.
    ///
    /// # Errors
    /// [`ConferenceError::NotARoomJid`] for what isn't a bare JID with a node,
    /// [`ConferenceError::Foreign`] for one outside `domain`, or any error about room names and
    /// tenants.
    pub fn from_jid(jid: &str, muc_prefix: &str, domain: &str) -> Result<Self, ConferenceError> {
        let (node, host) = jid
            .split_once('@')
            .filter(|(node, host)| !node.is_empty() && !host.is_empty())
            .filter(|(node, host)| !node.contains('/') && !host.contains(['@', '/']))
            .ok_or_else(|| ConferenceError::NotARoomJid(escape_for_message(jid)))?;
        if host.len() > MAX_NODE_BYTES {
            return Err(ConferenceError::NotARoomJid(escape_for_message(jid)));
        }
        let (host, domain) = (normalize(host), normalize(domain));
        let muc = normalize(muc_prefix);
        let foreign = || ConferenceError::Foreign {
            jid: escape_for_message(jid),
            expected: format!("{muc}.{domain}"),
        };
        let rest = host
            .strip_prefix(muc.as_str())
            .and_then(|rest| rest.strip_prefix('.'))
            .ok_or_else(foreign)?;
        let subdomain = if rest == domain {
            None
        } else {
            let tenant = rest
                .strip_suffix(domain.as_str())
                .and_then(|rest| rest.strip_suffix('.'));
            Some(tenant.ok_or_else(foreign)?)
        };
        let (bracket, room) = split_bracket(node)?;
        Self::assemble(room, resolve_tenant(bracket, subdomain)?, &domain)
    }

    fn assemble(room: &str, tenant: Option<String>, domain: &str) -> Result<Self, ConferenceError> {
        let conference = Self {
            room: room_name::canonicalize(room)?,
            tenant,
            domain: normalize(domain),
        };
        if conference.node().len() > MAX_NODE_BYTES {
            return Err(RoomNameError::TOO_LONG.into());
        }
        Ok(conference)
    }

    /// The same room of another tenant, or of none.
    ///
    /// # Errors
    /// Any [`ConferenceError`] about tenants.
    pub(crate) fn in_tenant(&self, tenant: Option<&str>) -> Result<Self, ConferenceError> {
        let tenant = tenant.unwrap_or_default();
        Self::from_canonical(&self.room, tenant, &self.domain)
    }

    /// The room's canonical name: lower-case ASCII, percent-encoded.
    pub fn room(&self) -> &str {
        &self.room
    }

    /// The tenant, in lower case, if the conference has one.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The deployment's domain (`xmpp.domain`), in lower case.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The node of the real MUC room: `[tenant]room`, or `room` where there's no tenant.
    pub fn node(&self) -> String {
        match &self.tenant {
            Some(tenant) => format!("[{tenant}]{}", self.room),
            None => self.room.clone(),
        }
    }

    /// The room's JID as clients write it: `room@conference.tenant.domain`, or
    /// `room@conference.domain` where there's no tenant.
    pub fn jid(&self, muc_prefix: &str) -> String {
        let Self { room, domain, .. } = self;
        match &self.tenant {
            Some(tenant) => format!("{room}@{muc_prefix}.{tenant}.{domain}"),
            None => format!("{room}@{muc_prefix}.{domain}"),
        }
    }

    /// Whether this is a room in which jicofo checks its bridges: it is never reserved and never goes live.
    #[must_use]
    pub fn is_health_check(&self) -> bool {
        room_name::is_health_check(&self.room)
    }

    /// The path of the meeting's address: `/room` or `/tenant/room`. Punctuation is escaped, since Jitsi Meet
    /// takes it out otherwise.
    #[must_use]
    pub fn path(&self) -> String {
        let room = encode_punctuation(&self.room);
        match &self.tenant {
            Some(tenant) => format!("/{}/{room}", percent_encode(tenant)),
            None => format!("/{room}"),
        }
    }

    /// The room's name for a sentence: `été 2026` for `%c3%a9t%c3%a9%202026`. A name with
    /// characters that can break the sentence (control characters, a change of writing direction) stays
    /// encoded.
    pub fn display_name(&self) -> String {
        percent_decode(self.room.as_bytes())
            .filter(|name| !name.chars().any(is_unsafe_for_display))
            .unwrap_or_else(|| self.room.clone())
    }
}

/// The canonical room and tenant that a list is filtered by; each is optional, in any spelling. A room without a
/// tenant is that room of every tenant.
///
/// # Errors
/// Any [`ConferenceError`] about room names and tenants.
pub fn room_filter(
    room: Option<&str>,
    tenant: Option<&str>,
) -> Result<(Option<String>, Option<String>), ConferenceError> {
    let Some(room) = room else {
        let tenant = tenant.filter(|tenant| !tenant.is_empty());
        return Ok((None, tenant.map(typed_tenant).transpose()?));
    };
    let Conference { room, tenant, .. } = Conference::from_names(room, tenant, "")?;
    Ok((Some(room), tenant))
}

/// The canonical tenant of one that a user typed.
///
/// # Errors
/// [`ConferenceError::BadTenant`] for what can't be one, also because Jitsi Meet takes a character out of it.
pub fn typed_tenant(tenant: &str) -> Result<String, ConferenceError> {
    if tenant.contains(room_name::is_taken_out) {
        return Err(ConferenceError::BadTenant(escape_for_message(tenant)));
    }
    canonical_tenant(tenant)
}

/// The canonical tenant: in lower case, NFKC and not encoded, so that all spellings of a tenant are one.
///
/// # Errors
/// [`ConferenceError::BadTenant`] for what can't be one.
pub fn canonical_tenant(tenant: &str) -> Result<String, ConferenceError> {
    let bad = || ConferenceError::BadTenant(escape_for_message(tenant));
    if tenant.len() > MAX_NODE_BYTES {
        return Err(bad());
    }
    let decoded = percent_decode(tenant.as_bytes());
    let key = normalize(decoded.as_deref().unwrap_or(tenant));
    // No domain name has these; quotes and angle brackets are also forbidden in the node, which holds the tenant.
    let illegal = |c: char| c.is_control() || c.is_whitespace() || ".[]/@%\\\"&':<>?#".contains(c);
    if key.is_empty() || key.contains(illegal) {
        return Err(bad());
    }
    Ok(key)
}

fn resolve_tenant(
    named: Option<&str>,
    given: Option<&str>,
) -> Result<Option<String>, ConferenceError> {
    let named = named.map(canonical_tenant).transpose()?;
    let given = given.map(canonical_tenant).transpose()?;
    match (named, given) {
        (Some(named), Some(given)) if named != given => Err(ConferenceError::TenantsDiffer {
            named: escape_for_message(&named),
            given: escape_for_message(&given),
        }),
        (named, given) => Ok(named.or(given)),
    }
}

/// Splits `[tenant]room`. A bracket that is never closed is part of the room's name.
fn split_bracket(node: &str) -> Result<(Option<&str>, &str), ConferenceError> {
    let Some((tenant, room)) = node.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return Ok((None, node));
    };
    if room.is_empty() {
        return Err(RoomNameError::Empty.into());
    }
    Ok((Some(tenant), room))
}

#[cfg(test)]
mod tests;
