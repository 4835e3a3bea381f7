//! What a reload leaves as it was.

/// The keys that a reload cannot change; each section lists its own.
#[derive(Default)]
pub(super) struct Fixed {
    /// All of them.
    #[cfg(test)]
    pub(super) keys: Vec<&'static str>,
    /// Those whose values differ.
    pub(super) changed: Vec<&'static str>,
}

impl Fixed {
    /// Keeps the value of a key, or of a section.
    pub(super) fn keep<T: Clone + PartialEq>(&mut self, key: &'static str, now: &T, new: &mut T) {
        #[cfg(test)]
        self.keys.push(key);
        if now != new {
            self.changed.push(key);
            new.clone_from(now);
        }
    }
}
