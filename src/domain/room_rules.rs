//! Rules for a room that Jitsi applies: which user goes live, the soft limit, moderators.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The largest number of moderators.
pub const MODERATORS_MAX: usize = 100;
/// The longest id of a moderator, in characters.
pub const MODERATOR_MAX: usize = 200;

/// Rules for a room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoomRules {
    /// Only this user goes live: the owner of the booking. `None`: each moderator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_owner: Option<String>,
    /// No user goes live before the start of the booking.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub live_from_start: bool,
    /// From how many participants on further ones join as visitors (`participantsSoftLimit`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_limit: Option<u32>,
    /// The ids of users and groups that are moderators.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moderators: Vec<String>,
}

/// Why rules are rejected. Each message names the field and the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RoomRulesError {
    /// Only the owner may go live, and there is none.
    #[error(
        "owner: is required, since only the owner may go live; name the owner, or set live_starters to \"anyone\""
    )]
    OwnerMissing,
    /// The limit is not a number of participants.
    #[error("soft_limit: must be from 1 to 100000; leave it out for no limit")]
    SoftLimit,
    /// Too many moderators, or an unusable id.
    #[error(
        "moderators: at most {MODERATORS_MAX} user ids of 1 to {MODERATOR_MAX} characters; give fewer, or shorter ones"
    )]
    Moderators,
}

impl RoomRulesError {
    /// The kind of the error, for programs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::OwnerMissing => "owner_missing",
            Self::SoftLimit => "invalid_soft_limit",
            Self::Moderators => "invalid_moderators",
        }
    }
}

impl RoomRules {
    /// Checks the rules of a booking, and names its owner where only the owner goes live.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn checked(mut self, owner: Option<&str>) -> Result<Self, RoomRulesError> {
        if self.live_owner.is_some() {
            self.live_owner = Some(owner.ok_or(RoomRulesError::OwnerMissing)?.to_owned());
        }
        if self
            .soft_limit
            .is_some_and(|limit| !(1..=100_000).contains(&limit))
        {
            return Err(RoomRulesError::SoftLimit);
        }
        let is_id = |id: &String| {
            let length = id.chars().count();
            (1..=MODERATOR_MAX).contains(&length) && !id.chars().any(char::is_control)
        };
        if self.moderators.len() > MODERATORS_MAX || !self.moderators.iter().all(is_id) {
            return Err(RoomRulesError::Moderators);
        }
        Ok(self)
    }

    /// The stored form; `None`: no rules.
    #[must_use]
    pub fn to_json(&self) -> Option<String> {
        let is_empty = *self == Self::default();
        (!is_empty).then(|| serde_json::to_string(self).unwrap_or_default())
    }

    /// The rules of the stored form. Rules of a later version are left out.
    #[must_use]
    pub fn from_json(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_stored_and_read() {
        let rules = RoomRules {
            live_owner: Some("alice@example.com".into()),
            live_from_start: true,
            soft_limit: Some(20),
            moderators: vec!["u-17".into()],
        };
        assert_eq!(RoomRules::from_json(rules.to_json().as_deref()), rules);
        assert_eq!(RoomRules::default().to_json(), None);
        assert_eq!(RoomRules::from_json(None), RoomRules::default());
    }

    #[test]
    fn only_an_owner_that_is_named_may_go_live_alone() {
        let rules = RoomRules {
            live_owner: Some(String::new()),
            ..RoomRules::default()
        };
        let checked = rules.clone().checked(Some("alice")).unwrap();
        assert_eq!(checked.live_owner.as_deref(), Some("alice"));
        assert_eq!(rules.checked(None), Err(RoomRulesError::OwnerMissing));
    }

    #[test]
    fn limits_and_moderators_have_bounds() {
        let of = |soft_limit, moderators: Vec<String>| {
            let rules = RoomRules {
                soft_limit,
                moderators,
                ..RoomRules::default()
            };
            rules.checked(None)
        };
        assert_eq!(of(Some(0), vec![]), Err(RoomRulesError::SoftLimit));
        assert_eq!(of(Some(100_001), vec![]), Err(RoomRulesError::SoftLimit));
        for moderators in [
            vec![String::new()],
            vec!["a\n".into()],
            vec!["a".into(); 101],
        ] {
            assert_eq!(of(None, moderators), Err(RoomRulesError::Moderators));
        }
        assert!(of(Some(1), vec!["a".repeat(200)]).is_ok());
    }
}
