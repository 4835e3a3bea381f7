//! What a verified token allows, and for which conference.

use std::sync::Arc;

use super::claims::Claims;
use super::room_pattern::RoomPattern;
use crate::config::Auth;
use crate::domain::conference::Conference;
use crate::domain::room_name::normalize;
use crate::domain::scope::{Scope, Scopes};

/// In the claims `room` and `sub`: any.
const ANY: &str = "*";

/// The value of `context.user.role` in the tokens of visitors.
const VISITOR: &str = "visitor";

/// What a verified token allows: only what its claims name, and only in the deployment's domain (`xmpp.domain`).
#[derive(Debug, Clone)]
pub struct Grant {
    /// `None`: the token is not a service's.
    service: Option<Scopes>,
    visitor: bool,
    moderator: bool,
    rooms: Rooms,
    subject: Subject,
    domain: Arc<str>,
}

/// The rooms a token is for.
#[derive(Debug, Clone)]
enum Rooms {
    None,
    Any,
    One {
        room: Box<str>,
        tenant: Option<Box<str>>,
    },
    Matching(RoomPattern),
}

/// The tenant a token is for.
#[derive(Debug, Clone)]
enum Subject {
    None,
    Any,
    One(Box<str>),
}

impl Grant {
    /// What these claims, of a verified token, allow.
    pub(super) fn new(claims: &Claims, config: &Auth, domain: &Arc<str>) -> Self {
        let user = &claims.context.user;
        let from_service = |issuer| config.service.issuers.contains(issuer);
        let is_service = claims.has_no_user_claims && claims.iss.as_ref().is_some_and(from_service);
        Self {
            service: is_service.then(|| claims.scope.unwrap_or(Scopes::ALL)),
            visitor: user.role.as_deref() == Some(VISITOR),
            moderator: user.moderator,
            rooms: Rooms::of(claims, domain),
            subject: match claims.sub.as_deref() {
                _ if !config.verify_domain => Subject::Any,
                Some(ANY) => Subject::Any,
                Some(sub) => Subject::One(normalize(sub).into()),
                None => Subject::None,
            },
            domain: Arc::clone(domain),
        }
    }

    /// Whether this is a service (Prosody, jigasi), which may start and end the live state of conferences.
    pub fn is_service(&self) -> bool {
        self.service.is_some()
    }

    /// What a service may do; `None` if the token is not a service's.
    pub fn scopes(&self) -> Option<Scopes> {
        self.service
    }

    /// Whether this is a service that may wait on behalf of callers.
    fn waits_for_callers(&self) -> bool {
        self.service
            .is_some_and(|scopes| scopes.include_one_of(&[Scope::Prosody]))
    }

    /// Whether the token allows waiting for this conference: tokens of its visitors, and of services with the scope
    /// `prosody` (jigasi waits on behalf of callers).
    pub fn may_wait(&self, conference: &Conference) -> bool {
        if self.waits_for_callers() {
            return self.is_of_this_deployment(conference);
        }
        self.visitor && self.is_for(conference)
    }

    /// Whether the token allows watching the number of waiting visitors: tokens of the conference's moderators.
    pub fn may_watch(&self, conference: &Conference) -> bool {
        self.moderator && self.is_for(conference)
    }

    /// Whether the token is for this conference, by the rules of Prosody's `mod_token_verification`.
    pub fn is_for(&self, conference: &Conference) -> bool {
        self.is_of_this_deployment(conference)
            && self.rooms.include(conference)
            && self.subject.includes(conference)
    }

    /// Whether the token allows waiting or watching in any conference.
    pub fn allows_anything(&self) -> bool {
        let somewhere =
            !matches!(self.rooms, Rooms::None) && !matches!(self.subject, Subject::None);
        self.waits_for_callers() || ((self.visitor || self.moderator) && somewhere)
    }

    fn is_of_this_deployment(&self, conference: &Conference) -> bool {
        conference.domain().eq_ignore_ascii_case(&self.domain)
    }
}

impl Rooms {
    fn of(claims: &Claims, domain: &str) -> Self {
        match claims.room.as_deref() {
            None => Self::None,
            Some(ANY) => Self::Any,
            Some(pattern) if claims.context.room_is_regex => {
                RoomPattern::new(pattern).map_or(Self::None, Self::Matching)
            }
            // The claim may hold what the user typed, so it is canonicalized as rooms are. Punctuation stays: Prosody
            // compares the claim with the room's node, and a token must not be for more rooms here than there.
            Some(name) => match Conference::from_node(name, domain) {
                Ok(claimed) => Self::One {
                    room: claimed.room().into(),
                    tenant: claimed.tenant().map(Into::into),
                },
                Err(_) => Self::None,
            },
        }
    }

    fn include(&self, conference: &Conference) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::One { room, tenant } => {
                **room == *conference.room()
                    && (tenant.is_none() || tenant.as_deref() == conference.tenant())
            }
            Self::Matching(pattern) => pattern.matches(conference.room()),
        }
    }
}

impl Subject {
    fn includes(&self, conference: &Conference) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::One(sub) => **sub == *conference.tenant().unwrap_or(conference.domain()),
        }
    }
}

#[cfg(test)]
mod tests;
