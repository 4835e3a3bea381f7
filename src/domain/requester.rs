//! The user that requests a conference, as Prosody describes it, and whether it is a booking's owner.

use super::room_name::nfkc;

/// Marks an owner that is a display name.
const NAME: &str = "name:";

/// An owner in the one form in which owners are compared: NFKC, without blanks around it, and an address in lower
/// case. A letter and an accent, and the letter with its accent, are the same name.
#[must_use]
pub fn owner_key(owner: &str) -> String {
    let key = nfkc(owner.trim());
    if key.contains('@') && !key.starts_with(NAME) {
        return key.to_lowercase();
    }
    key
}

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

    /// Whether this is `owner`, written as an e-mail address, a user id, a bare JID or `name:` and a display name.
    ///
    /// Addresses compare without regard to case; ids and names are exact, since two ids may differ in case alone.
    /// A display name is often the user's own choice, so it never stands for an address, nor for the id of another
    /// user: without `name:` it counts only if the user has no id.
    #[must_use]
    pub fn is(&self, owner: &str) -> bool {
        let owner = owner_key(owner);
        if owner.is_empty() {
            return false;
        }
        let same = |known: &Option<String>| {
            let known = known.as_deref().map(|known| nfkc(known.trim()));
            known.is_some_and(|known| !known.is_empty() && known == owner)
        };
        if let Some(name) = owner.strip_prefix(NAME) {
            let known = self.user_name.as_deref().map(|known| nfkc(known.trim()));
            let name = name.trim();
            return (!name.is_empty() && known.as_deref() == Some(name)) || same(&self.user_id);
        }
        let has_id = self
            .user_id
            .as_deref()
            .is_some_and(|id| !id.trim().is_empty());
        self.has_address(&owner)
            || same(&self.user_id)
            || (!has_id && !owner.contains('@') && same(&self.user_name))
    }

    /// Whether this person has that address, id or JID, or, after `name:`, that display name. `key` is an
    /// [`owner_key`].
    #[must_use]
    pub fn is_known_as(&self, key: &str) -> bool {
        let same = |known: &Option<String>, key: &str| {
            known
                .as_deref()
                .is_some_and(|known| nfkc(known.trim()) == key)
        };
        if let Some(name) = key.strip_prefix(NAME) {
            return !name.trim().is_empty() && same(&self.user_name, name.trim());
        }
        !key.is_empty() && (self.has_address(key) || same(&self.user_id, key))
    }

    fn has_address(&self, key: &str) -> bool {
        let addresses = [Some(self.mail_owner.as_str()), self.user_email.as_deref()];
        let mut addresses = addresses.into_iter().flatten();
        addresses.any(|known| known.contains('@') && owner_key(known) == key)
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
    fn an_owner_is_matched_by_email_id_jid_or_marked_name() {
        for owner in [
            "alice@example.com",
            " ALICE@example.COM ",
            "u-17",
            "name:Alice Ames",
            "name: Alice Ames",
            "7f3a@meet.example.com",
        ] {
            assert!(alice().is(owner), "{owner}");
        }
    }

    #[test]
    fn a_display_name_never_stands_for_an_id() {
        let impostor = Requester {
            user_id: Some("u-99".into()),
            user_name: Some("u-17".into()),
            ..Requester::default()
        };
        assert!(!impostor.is("u-17"));
        assert!(impostor.is("name:u-17"));
        for no_id in [None, Some(String::new()), Some(" ".into())] {
            let user_id = no_id;
            let without_id = Requester {
                user_id,
                ..impostor.clone()
            };
            assert!(without_id.is("u-17"));
        }
    }

    #[test]
    fn composed_and_decomposed_letters_are_the_same() {
        let muller = |id: &str, email: &str, name: &str| Requester {
            user_id: Some(id.into()),
            user_email: Some(email.into()),
            user_name: Some(name.into()),
            ..Requester::default()
        };
        let composed = muller("m\u{fc}ller", "m\u{fc}ller@example.com", "M\u{fc}ller");
        let decomposed = muller(
            "mu\u{308}ller",
            "Mu\u{308}ller@example.com",
            "Mu\u{308}ller",
        );
        for owner in [
            "m\u{fc}ller",
            "mu\u{308}ller",
            "M\u{dc}LLER@example.com",
            "mu\u{308}ller@example.com",
            "name:M\u{fc}ller",
            "name:Mu\u{308}ller",
        ] {
            assert!(composed.is(owner) && decomposed.is(owner), "{owner}");
        }
        assert!(!composed.is("muller"));
    }

    #[test]
    fn other_users_are_not_the_owner() {
        for owner in [
            "",
            " ",
            "U-17",
            "Alice Ames",
            "alice",
            "name:alice ames",
            "name:",
            "name:u-17",
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
    fn a_person_is_known_by_address_id_or_jid_and_by_a_name_only_if_it_is_marked() {
        for key in [
            "alice@example.com",
            "u-17",
            "7f3a@meet.example.com",
            "name:Alice Ames",
        ] {
            assert!(alice().is_known_as(key), "{key}");
        }
        for key in [
            "",
            "name:",
            "Alice Ames",
            "U-17",
            "name:u-17",
            "bob@example.com",
        ] {
            assert!(!alice().is_known_as(key), "{key}");
        }
    }

    #[test]
    fn an_unknown_requester_owns_nothing() {
        for owner in ["", "@", "alice@example.com"] {
            assert!(!Requester::default().is(owner), "{owner}");
        }
    }
}
