//! Bookings in the database.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, SqliteExecutor};

use super::{
    ROWS, Result, Store, StoreError, Tx, conference, instant, push_values_as_table, tenant_of,
};
use crate::domain::booking::{Booking, BookingId, Draft, Options};
use crate::domain::conference::Conference;
use crate::domain::requester::owner_key;
use crate::domain::room_rules::RoomRules;
use crate::domain::secret::Secret;

/// Which bookings to list. A field that is `None` is no condition.
#[derive(Clone, Debug, Default)]
pub struct BookingFilter {
    /// Canonical room name.
    pub room: Option<String>,
    /// Canonical tenant; `Some("")` is "no tenant".
    pub tenant: Option<String>,
    /// The owner in any spelling, compared by its [`owner_key`].
    pub owner: Option<String>,
    /// Bookings that end after this instant.
    pub from: Option<DateTime<Utc>>,
    /// Bookings that start before this instant.
    pub to: Option<DateTime<Utc>>,
    /// Bookings after this place of the list.
    pub after: Option<Cursor>,
    /// The maximum number of rows.
    pub limit: u32,
}

/// A place in the list of bookings, which is sorted by start, then by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The start, in milliseconds since 1970.
    pub start: i64,
    /// The id.
    pub id: i64,
}

fn booking(row: &SqliteRow, domain: &str) -> Result<Booking> {
    let millis = |column| row.try_get::<i64, _>(column);
    let end: Option<i64> = row.try_get("ends_at")?;
    let start_policy: Option<String> = row.try_get("starters")?;
    let zone: Option<String> = row.try_get("time_zone")?;
    let start_policy = start_policy
        .map(|text| {
            text.parse()
                .map_err(|_| StoreError::Corrupt(format!("starters {text:?}")))
        })
        .transpose()?;
    Ok(Booking {
        id: BookingId(row.try_get("id")?),
        draft: Draft {
            conference: conference(row.try_get("room")?, row.try_get("tenant")?, domain)?,
            title: row.try_get("title")?,
            owner: row.try_get("owner")?,
            start: instant(millis("starts_at")?)?,
            end: end.map(instant).transpose()?,
            // A name that later data on time zones no longer has is left out: the instants are stored.
            time_zone: zone.and_then(|name| name.parse().ok()),
            options: options(row)?,
            start_policy,
            auto_live: row
                .try_get::<Option<i64>, _>("auto_live")?
                .and_then(|minutes| u32::try_from(minutes).ok()),
        },
        created_at: instant(millis("created_at")?)?,
        changed_at: instant(millis("changed_at")?)?,
        version: millis("version")?,
    })
}

/// The columns that bookings and allocations share.
pub(super) fn options(row: &SqliteRow) -> Result<Options> {
    let max_occupants: Option<i64> = row.try_get("max_occupants")?;
    let password: Option<String> = row.try_get("password")?;
    Ok(Options {
        max_occupants: max_occupants.and_then(|n| u32::try_from(n).ok()),
        lobby: row.try_get::<i64, _>("lobby")? != 0,
        password: password.map(Secret::new),
        waiting_queue: row.try_get::<i64, _>("waiting_queue")? != 0,
        rules: RoomRules::from_json(row.try_get("room_rules")?),
    })
}

async fn booking_by_id(
    executor: impl SqliteExecutor<'_>,
    id: BookingId,
    domain: &str,
) -> Result<Option<Booking>> {
    sqlx::query("SELECT * FROM booking WHERE id = $1")
        .bind(id.0)
        .fetch_optional(executor)
        .await?
        .map(|row| booking(&row, domain))
        .transpose()
}

impl Store {
    /// The booking with this id.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn booking(&self, id: BookingId) -> Result<Option<Booking>> {
        booking_by_id(&self.read, id, &self.domain).await
    }

    /// The bookings that match the filter, in order of their start.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn bookings(&self, filter: &BookingFilter) -> Result<Vec<Booking>> {
        let after = filter.after.unwrap_or(Cursor {
            start: i64::MIN,
            id: 0,
        });
        sqlx::query(
            "SELECT * FROM booking
             WHERE (CAST($1 AS TEXT) IS NULL OR room = $1)
               AND (CAST($2 AS TEXT) IS NULL OR tenant = $2)
               AND (CAST($3 AS TEXT) IS NULL OR owner_key = $3)
               AND (CAST($4 AS BIGINT) IS NULL OR ends_at IS NULL OR ends_at > $4)
               AND (CAST($5 AS BIGINT) IS NULL OR starts_at < $5)
               AND (starts_at > $6 OR (starts_at = $6 AND id > $7))
             ORDER BY starts_at, id
             LIMIT $8",
        )
        .bind(&filter.room)
        .bind(&filter.tenant)
        .bind(filter.owner.as_deref().map(owner_key))
        .bind(filter.from.map(|t| t.timestamp_millis()))
        .bind(filter.to.map(|t| t.timestamp_millis()))
        .bind(after.start)
        .bind(after.id)
        .bind(i64::from(filter.limit))
        .fetch_all(&self.read)
        .await?
        .iter()
        .map(|row| booking(row, &self.domain))
        .collect()
    }

    /// Fills in the owner keys of bookings that an earlier version made.
    pub(super) async fn complete_owner_keys(&self) -> Result<()> {
        let missing = sqlx::query(
            "SELECT id, owner FROM booking WHERE owner IS NOT NULL AND owner_key IS NULL",
        )
        .fetch_all(&self.read)
        .await?;
        if missing.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        for row in missing {
            let owner: String = row.try_get("owner")?;
            sqlx::query("UPDATE booking SET owner_key = $1 WHERE id = $2 AND owner = $3")
                .bind(owner_key(&owner))
                .bind(row.try_get::<i64, _>("id")?)
                .bind(owner)
                .execute(&mut *tx.transaction)
                .await?;
        }
        tx.commit().await
    }

    /// The first booking of the draft's room that overlaps its window, other than `except`.
    pub(crate) async fn overlapping_booking(
        &self,
        draft: &Draft,
        except: Option<BookingId>,
    ) -> Result<Option<Booking>> {
        sqlx::query(
            "SELECT * FROM booking
             WHERE room = $1 AND tenant = $2 AND id <> $3
               AND (ends_at IS NULL OR ends_at > $4)
               AND (CAST($5 AS BIGINT) IS NULL OR starts_at < $5)
             ORDER BY starts_at, id
             LIMIT 1",
        )
        .bind(draft.conference.room())
        .bind(tenant_of(&draft.conference))
        .bind(except.map_or(0, |id| id.0))
        .bind(draft.start.timestamp_millis())
        .bind(draft.end.map(|t| t.timestamp_millis()))
        .fetch_optional(&self.read)
        .await?
        .map(|row| booking(&row, &self.domain))
        .transpose()
    }
}

impl Tx {
    /// The first booking of each room that is not over at `now`. Each room is named once.
    pub(crate) async fn next_bookings(
        &mut self,
        conferences: &[&Conference],
        now: DateTime<Utc>,
    ) -> Result<HashMap<Conference, Booking>> {
        let mut found = HashMap::new();
        for some in conferences.chunks(ROWS) {
            let mut select = QueryBuilder::new("SELECT booking.* FROM ");
            push_values_as_table(&mut select, some);
            select
                .push(
                    " JOIN booking ON booking.id = (
                          SELECT id FROM booking
                          WHERE tenant = wanted.column1 AND room = wanted.column2
                            AND (ends_at IS NULL OR ends_at > ",
                )
                .push_bind(now.timestamp_millis())
                .push(") ORDER BY starts_at, id LIMIT 1)");
            let rows = select.build().fetch_all(&mut *self.transaction).await?;
            for row in rows {
                let booking = booking(&row, &self.domain)?;
                found.insert(booking.draft.conference.clone(), booking);
            }
        }
        Ok(found)
    }

    /// The booking with this id.
    pub(crate) async fn booking(&mut self, id: BookingId) -> Result<Option<Booking>> {
        booking_by_id(&mut *self.transaction, id, &self.domain).await
    }

    /// The bookings of a room that are not over at `now`, in order of their start: the first few.
    pub(crate) async fn bookings_ahead(
        &mut self,
        conference: &Conference,
        now: DateTime<Utc>,
    ) -> Result<Vec<Booking>> {
        sqlx::query(
            "SELECT * FROM booking
             WHERE room = $1 AND tenant = $2 AND (ends_at IS NULL OR ends_at > $3)
             ORDER BY starts_at, id
             LIMIT 16",
        )
        .bind(conference.room())
        .bind(tenant_of(conference))
        .bind(now.timestamp_millis())
        .fetch_all(&mut *self.transaction)
        .await?
        .iter()
        .map(|row| booking(row, &self.domain))
        .collect()
    }

    /// Inserts a booking; [`StoreError::Overlap`] if the room is booked already.
    pub(crate) async fn insert_booking(
        &mut self,
        draft: Draft,
        now: DateTime<Utc>,
    ) -> Result<Booking> {
        let statement = "INSERT INTO booking
             (room, tenant, title, owner, starts_at, ends_at, max_occupants, lobby, password,
              waiting_queue, starters, auto_live, time_zone, owner_key, created_at, changed_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15)
             RETURNING id";
        let row = bind(sqlx::query(statement), &draft)
            .bind(now.timestamp_millis())
            .fetch_one(&mut *self.transaction)
            .await?;
        self.due_changed |= draft.auto_live.is_some();
        let id = BookingId(row.try_get("id")?);
        self.set_room_rules(id, &draft.options.rules).await?;
        Ok(Booking {
            id,
            draft,
            created_at: now,
            changed_at: now,
            version: 1,
        })
    }

    /// Updates a booking; [`StoreError::Overlap`] if the room is booked already.
    pub(crate) async fn update_booking(
        &mut self,
        before: &Booking,
        draft: Draft,
        now: DateTime<Utc>,
    ) -> Result<Booking> {
        let statement = "UPDATE booking
             SET room = $1, tenant = $2, title = $3, owner = $4, starts_at = $5, ends_at = $6,
                 max_occupants = $7, lobby = $8, password = $9, waiting_queue = $10, starters = $11,
                 auto_live = $12, time_zone = $13, owner_key = $14, changed_at = $15,
                 version = version + 1,
                 went_live_at = CASE WHEN starts_at = $5 THEN went_live_at END
             WHERE id = $16";
        bind(sqlx::query(statement), &draft)
            .bind(now.timestamp_millis())
            .bind(before.id.0)
            .execute(&mut *self.transaction)
            .await?;
        self.due_changed |= draft.auto_live.is_some();
        self.set_room_rules(before.id, &draft.options.rules).await?;
        Ok(Booking {
            id: before.id,
            draft,
            created_at: before.created_at,
            changed_at: now,
            version: before.version + 1,
        })
    }

    /// In a statement of its own: most bookings have no rules.
    async fn set_room_rules(&mut self, id: BookingId, rules: &RoomRules) -> Result<()> {
        sqlx::query("UPDATE booking SET room_rules = $1 WHERE id = $2")
            .bind(rules.to_json())
            .bind(id.0)
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    /// Deletes a booking.
    pub(crate) async fn delete_booking(&mut self, id: BookingId) -> Result<()> {
        sqlx::query("DELETE FROM booking WHERE id = $1")
            .bind(id.0)
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// Binds $1 to $14 of an insert or update.
fn bind<'q>(query: Query<'q>, draft: &Draft) -> Query<'q> {
    let options = &draft.options;
    query
        .bind(draft.conference.room().to_owned())
        .bind(tenant_of(&draft.conference).to_owned())
        .bind(draft.title.clone())
        .bind(draft.owner.clone())
        .bind(draft.start.timestamp_millis())
        .bind(draft.end.map(|t| t.timestamp_millis()))
        .bind(options.max_occupants.map(i64::from))
        .bind(i64::from(options.lobby))
        .bind(
            options
                .password
                .as_ref()
                .map(|password| password.expose().to_owned()),
        )
        .bind(i64::from(options.waiting_queue))
        .bind(draft.start_policy.map(|policy| policy.to_string()))
        .bind(draft.auto_live.map(i64::from))
        .bind(draft.time_zone.map(|zone| zone.name()))
        .bind(draft.owner.as_deref().map(owner_key))
}
