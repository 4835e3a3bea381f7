//! The rooms of usher's modules for Prosody in the database.

use sqlx::{QueryBuilder, Row, Sqlite};

use super::{ROWS, Result, Store, Tx, conference, push_names};
use crate::domain::conference::Conference;

impl Store {
    /// The rooms whose conferences were opened or reported by usher's modules, and have not ended.
    pub(crate) async fn prosody_rooms(&self) -> Result<Vec<Conference>> {
        sqlx::query("SELECT room, tenant FROM prosody_room")
            .fetch_all(&self.read)
            .await?
            .iter()
            .map(|row| conference(row.try_get("room")?, row.try_get("tenant")?, &self.domain))
            .collect()
    }
}

impl Tx {
    /// Adds rooms; a known one stays.
    pub(crate) async fn add_prosody_rooms(&mut self, rooms: &[&Conference]) -> Result<()> {
        for some in rooms.chunks(ROWS) {
            let mut insert =
                QueryBuilder::<Sqlite>::new("INSERT INTO prosody_room (tenant, room) ");
            push_names(&mut insert, some);
            insert.push(" ON CONFLICT (tenant, room) DO NOTHING");
            insert.build().execute(&mut *self.transaction).await?;
        }
        Ok(())
    }

    /// Removes rooms.
    pub(crate) async fn remove_prosody_rooms(&mut self, rooms: &[&Conference]) -> Result<()> {
        for some in rooms.chunks(ROWS) {
            let mut delete =
                QueryBuilder::<Sqlite>::new("DELETE FROM prosody_room WHERE (tenant, room) IN (");
            push_names(&mut delete, some);
            delete.push(")");
            delete.build().execute(&mut *self.transaction).await?;
        }
        Ok(())
    }
}
