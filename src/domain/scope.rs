//! Scopes: what a service token allows.
//!
//! They are in the domain and not in `auth`, because the configuration reads their names, too.

use std::fmt;

/// What a service may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What Prosody and jigasi do: conferences, going live, waiting on behalf of callers.
    Prosody,
    /// The state of the waiting queue.
    Queue,
    /// Bookings.
    Bookings,
    /// The decision log and the outbox.
    Decisions,
    /// Everything.
    Operate,
    /// Metrics.
    Metrics,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] = [
        Self::Prosody,
        Self::Queue,
        Self::Bookings,
        Self::Decisions,
        Self::Operate,
        Self::Metrics,
    ];

    /// How it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prosody => "prosody",
            Self::Queue => "queue",
            Self::Bookings => "bookings",
            Self::Decisions => "decisions",
            Self::Operate => "operate",
            Self::Metrics => "metrics",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// The names of several scopes, for a sentence.
    #[must_use]
    pub fn list(scopes: &[Self]) -> String {
        let names: Vec<_> = scopes
            .iter()
            .map(|scope| format!("\"{}\"", scope.name()))
            .collect();
        names.join(" or ")
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The scopes of one token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// A token that names no scopes has all.
    pub const ALL: Self = Self(u8::MAX);
    /// No scope.
    pub const NONE: Self = Self(0);

    /// The scopes that a list names, separated by blanks. Words that are no scopes of usher allow nothing.
    #[must_use]
    pub fn of_list(list: &str) -> Self {
        list.split_ascii_whitespace()
            .filter_map(Scope::named)
            .fold(Self::NONE, Self::with)
    }

    /// These and one more.
    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        Self(self.0 | scope.bit())
    }

    /// Whether one of `scopes` is among these. `operate` includes all.
    #[must_use]
    pub fn include_one_of(self, scopes: &[Scope]) -> bool {
        let has = |scope: Scope| self.0 & scope.bit() != 0;
        has(Scope::Operate) || scopes.iter().any(|scope| has(*scope))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut scopes = f.debug_set();
        for scope in Scope::ALL {
            if self.0 & scope.bit() != 0 {
                scopes.entry(&scope.name());
            }
        }
        scopes.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_the_scopes_that_it_names_and_no_others() {
        let both = Scopes::of_list(" queue  metrics ");
        for scope in Scope::ALL {
            let named = matches!(scope, Scope::Queue | Scope::Metrics);
            assert_eq!(both.include_one_of(&[scope]), named, "{}", scope.name());
            assert!(Scopes::ALL.include_one_of(&[scope]));
            assert!(Scopes::of_list("operate").include_one_of(&[scope]));
            assert_eq!(Scope::named(scope.name()), Some(scope));
        }
        assert!(both.include_one_of(&[Scope::Prosody, Scope::Queue]));
    }

    #[test]
    fn unknown_words_allow_nothing() {
        for list in ["", "openid", "Queue", "queue,metrics", "operate:all"] {
            assert_eq!(Scopes::of_list(list), Scopes::NONE, "{list}");
        }
    }
}
