//! The places of the waiting queue in the database, between a stop and the next start.

use sqlx::{QueryBuilder, Row, Sqlite};

use super::{ROWS, Result, Tx, conference, tenant_of};
use crate::domain::conference::Conference;

/// The maximum number of places that are stored; one machine has fewer visitors.
const PLACES_MAX: usize = 200_000;

/// A place in the line of one conference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlaceRow {
    pub(crate) conference: Conference,
    /// The hash that identifies the token.
    pub(crate) token: [u8; 16],
}

impl Tx {
    /// Replaces all stored places by these. Those of each conference are in order.
    pub(crate) async fn keep_places(&mut self, places: &[PlaceRow]) -> Result<()> {
        sqlx::query("DELETE FROM place")
            .execute(&mut *self.transaction)
            .await?;
        let mut number = 0_i64;
        for some in places[..places.len().min(PLACES_MAX)].chunks(ROWS) {
            let mut insert =
                QueryBuilder::<Sqlite>::new("INSERT INTO place (room, tenant, token, number) ");
            insert.push_values(some, |mut row, place| {
                number += 1;
                row.push_bind(place.conference.room().to_owned())
                    .push_bind(tenant_of(&place.conference).to_owned())
                    .push_bind(place.token.to_vec())
                    .push_bind(number);
            });
            insert.build().execute(&mut *self.transaction).await?;
        }
        Ok(())
    }

    /// Returns all places in order, and deletes them.
    pub(crate) async fn take_places(&mut self) -> Result<Vec<PlaceRow>> {
        let rows = sqlx::query("SELECT room, tenant, token FROM place ORDER BY number")
            .fetch_all(&mut *self.transaction)
            .await?;
        sqlx::query("DELETE FROM place")
            .execute(&mut *self.transaction)
            .await?;
        let mut places = Vec::with_capacity(rows.len());
        for row in rows {
            let token: Vec<u8> = row.try_get("token")?;
            // A hash of another length belongs to no token.
            if let Ok(token) = token.try_into() {
                places.push(PlaceRow {
                    conference: conference(
                        row.try_get("room")?,
                        row.try_get("tenant")?,
                        &self.domain,
                    )?,
                    token,
                });
            }
        }
        Ok(places)
    }
}
