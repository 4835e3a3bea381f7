//! Pages of lists: how many entries a page holds, and what begins the next one.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// How many entries a page holds, where the caller doesn't say.
const DEFAULT: u32 = 100;
/// How many it holds at most.
const MAX: u32 = 1000;

/// How many entries a page holds: the query's `limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit(u32);

impl Default for Limit {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

/// An empty or missing `limit` is the default.
impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<String>::deserialize(value)? else {
            return Ok(Self::default());
        };
        let limit = text.parse().ok().filter(|limit| (1..=MAX).contains(limit));
        let refused = || D::Error::custom(format!("must be a number from 1 to {MAX}"));
        limit.map(Self).ok_or_else(refused)
    }
}

impl Limit {
    /// How many rows to ask the store for: one more than the page holds, which tells whether there is a next page.
    pub(super) fn rows(self) -> u32 {
        self.0 + 1
    }

    /// Cuts `rows` to the page; returns the cursor of the next page, if there is one.
    pub(super) fn cut<T>(
        self,
        rows: &mut Vec<T>,
        cursor: impl FnOnce(&T) -> Value,
    ) -> Option<Value> {
        let limit = self.0 as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        rows.last().filter(|_| more).map(cursor)
    }
}

/// A row's number in a query: the `next` of the page before.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowCursor(pub(super) i64);

impl<'de> Deserialize<'de> for RowCursor {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        let refused = |_| D::Error::custom("must be the \"next\" of the page before");
        text.parse().map(Self).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> Result<Limit, serde_json::Error> {
        serde_json::from_value(text.into())
    }

    #[test]
    fn a_page_holds_1_to_1000_entries() {
        assert_eq!(limit("1").unwrap(), Limit(1));
        assert_eq!(limit("1000").unwrap(), Limit(1000));
        for text in ["0", "1001", "-1", "x", "4294967297"] {
            let error = limit(text).unwrap_err().to_string();
            assert_eq!(error, "must be a number from 1 to 1000", "{text}");
        }
    }

    #[test]
    fn only_a_page_with_more_rows_behind_it_has_a_next() {
        let mut rows = vec![1, 2, 3];
        assert_eq!(
            Limit(2).cut(&mut rows, |row| Value::from(*row)),
            Some(2.into())
        );
        assert_eq!(rows, [1, 2]);
        assert_eq!(Limit(2).cut(&mut rows, |row| Value::from(*row)), None);
        assert_eq!(Limit(2).rows(), 3);
    }
}
