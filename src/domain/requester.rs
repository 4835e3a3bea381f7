//! The user that requests a conference, as Prosody describes it, and whether it is a booking's owner.

/// The user that requests a conference.
///
/// Stock Prosody sends only `mail_owner`; usher's module for Prosody adds the rest from the verified token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requester {
    /// The user's bare JID: a random one for anonymous and token-authenticated users, empty without
    /// authentication.
    pub mail_owner: String,
    /// `context.user.id` of the token.
    pub user_id: Option<String>,
    /// `context.user.email` of the token.
    pub user_email: Option<String>,
    /// `context.user.name` of the token.
    pub user_name: Option<String>,
    /// `context.group` of the token.
    pub user_group: Option<String>,
    /// The tenant that the token or the address names.
    pub tenant: Option<String>,
    /// Whether the token is a moderator's.
    pub moderator: bool,
    /// `context.user.role` of the token is `visitor`.
    pub visitor: bool,
}

impl Requester {
    /// The fields that usher's module for Prosody adds to a request, by their names on the wire; without
    /// `mail_owner`, which stock Prosody sends, too.
    #[must_use]
    pub fn identity(&self) -> Vec<(&'static str, &str)> {
        let texts = [
            ("user_id", self.user_id.as_deref()),
            ("user_email", self.user_email.as_deref()),
            ("user_name", self.user_name.as_deref()),
            ("user_group", self.user_group.as_deref()),
            ("tenant", self.tenant.as_deref()),
            ("moderator", self.moderator.then_some("true")),
            ("role", self.visitor.then_some("visitor")),
        ];
        let known = texts.into_iter();
        known
            .filter_map(|(field, text)| Some((field, text?)))
            .collect()
    }

    /// Whether this is `owner`, written as an e-mail address, a user id, a user name or a bare JID.
    ///
    /// Addresses compare without regard to case; ids and names are exact, since two ids may differ
    /// in case alone. A display name is often the user's own choice, so it never stands for an
    /// address.
    #[must_use]
    pub fn is(&self, owner: &str) -> bool {
        let owner = owner.trim();
        if owner.is_empty() {
            return false;
        }
        let same_address = |known: &str| {
            known.contains('@') && known.trim().to_lowercase() == owner.to_lowercase()
        };
        let same = |known: &Option<String>| known.as_deref().map(str::trim) == Some(owner);

        same_address(&self.mail_owner)
            || self.user_email.as_deref().is_some_and(same_address)
            || same(&self.user_id)
            || (!owner.contains('@') && same(&self.user_name))
    }
}

#[cfg(test)]
mod tests {
    use super::Requester;

    fn alice() -> Requester {
        Requester {
            mail_owner: "7f3a@meet.example.com".into(),
            user_id: Some("u-17".into()),
            user_email: Some("Alice@Example.com".into()),
            user_name: Some("Alice Ames".into()),
            ..Requester::default()
        }
    }

    #[test]
    fn an_owner_is_matched_by_email_id_name_or_jid() {
        for owner in [
            "alice@example.com",
            " ALICE@example.COM ",
            "u-17",
            "Alice Ames",
            "7f3a@meet.example.com",
        ] {
            assert!(alice().is(owner), "{owner}");
        }
    }

    #[test]
    fn other_users_are_not_the_owner() {
        for owner in [
            "",
            " ",
            "U-17",
            "alice",
            "alice ames",
            "bob@example.com",
            "meet.example.com",
        ] {
            assert!(!alice().is(owner), "{owner}");
        }
    }

    #[test]
    fn a_display_name_does_not_match_an_address() {
        let impostor = Requester {
            user_name: Some("alice@example.com".into()),
            ..Requester::default()
        };
        assert!(!impostor.is("alice@example.com"));
    }

    #[test]
    fn an_unknown_requester_owns_nothing() {
        for owner in ["", "@", "alice@example.com"] {
            assert!(!Requester::default().is(owner), "{owner}");
        }
    }
}
