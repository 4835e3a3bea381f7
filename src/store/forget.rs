//! Erases what is stored of one person.
//!
//! A run takes several short transactions, since the service may decide on requests meanwhile; a run that is
//! interrupted is repeated.

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};

use super::{ROWS, Result, Store, Tx};
use crate::domain::booking::BookingId;
use crate::domain::requester::{Requester, owner_key};

/// What was erased, and what is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// The number of bookings without owner, title and password now.
    pub bookings: u64,
    /// The number of decisions without a requester now.
    pub decisions: u64,
    /// The number of past conferences without an owner now, those of an upstream included.
    pub conferences: u64,
    /// The bookings of this person that are not over.
    pub kept_bookings: Vec<BookingId>,
    /// The number of running conferences that this person opened.
    pub kept_conferences: u64,
}

impl Store {
    /// Erases the person with this address, id or JID (or `name:` and a display name).
    ///
    /// # Errors
    ///
    /// When the database can't be read or written. Some of it may be erased then.
    pub async fn forget(&self, person: &str, now: DateTime<Utc>) -> Result<Forgotten> {
        let key = owner_key(person);
        let mut forgotten = Forgotten {
            decisions: self.forget_requester(&key).await?,
            ..Forgotten::default()
        };
        let mut tx = self.begin_erasing().await?;
        tx.forget_bookings(&key, now, &mut forgotten).await?;
        tx.forget_conferences(&key, now, &mut forgotten).await?;
        tx.commit().await?;
        // The log of the database still has the pages as they were.
        self.write.checkpoint().await?;
        Ok(forgotten)
    }

    /// A transaction after which erased data is overwritten in the file, too.
    async fn begin_erasing(&self) -> Result<Tx> {
        let mut tx = self.begin().await?;
        sqlx::query("PRAGMA secure_delete = ON")
            .execute(&mut *tx.transaction)
            .await?;
        Ok(tx)
    }

    /// Erases the requester of each decision on this person's requests; returns how many.
    async fn forget_requester(&self, key: &str) -> Result<u64> {
        let (mut last, mut erased) = (0, 0);
        loop {
            let rows = sqlx::query(
                "SELECT id, mail_owner, user_id, user_email, user_name FROM decision
                 WHERE id > $1 ORDER BY id LIMIT $2",
            )
            .bind(last)
            .bind(ROWS as i64)
            .fetch_all(&self.read)
            .await?;
            let Some(end) = rows.last() else {
                return Ok(erased);
            };
            last = end.try_get("id")?;
            let mut ids = Vec::<i64>::new();
            for row in &rows {
                if requester(row)?.is_known_as(key) {
                    ids.push(row.try_get("id")?);
                }
            }
            if ids.is_empty() {
                continue;
            }
            let mut tx = self.begin_erasing().await?;
            let mut update = QueryBuilder::<Sqlite>::new(
                "UPDATE decision SET mail_owner = '', user_id = NULL, user_email = NULL, user_name = NULL
                 WHERE id IN (",
            );
            let mut separated = update.separated(", ");
            for id in ids {
                separated.push_bind(id);
            }
            update.push(")");
            let done = update.build().execute(&mut *tx.transaction).await?;
            erased += done.rows_affected();
            tx.commit().await?;
        }
    }
}

fn requester(row: &SqliteRow) -> Result<Requester> {
    Ok(Requester {
        mail_owner: row.try_get("mail_owner")?,
        user_id: row.try_get("user_id")?,
        user_email: row.try_get("user_email")?,
        user_name: row.try_get("user_name")?,
        ..Requester::default()
    })
}

impl Tx {
    async fn forget_bookings(
        &mut self,
        key: &str,
        now: DateTime<Utc>,
        forgotten: &mut Forgotten,
    ) -> Result<()> {
        let over = sqlx::query(
            "UPDATE booking
             SET owner = NULL, owner_key = NULL, title = NULL, password = NULL, version = version + 1
             WHERE owner_key = $1 AND ends_at <= $2
             RETURNING id",
        )
        .bind(key)
        .bind(now.timestamp_millis())
        .fetch_all(&mut *self.transaction)
        .await?;
        for row in &over {
            // The digest of the request that made it.
            sqlx::query("DELETE FROM booking_request WHERE booking_id = $1")
                .bind(row.try_get::<i64, _>("id")?)
                .execute(&mut *self.transaction)
                .await?;
        }
        forgotten.bookings = over.len() as u64;
        let kept = sqlx::query("SELECT id FROM booking WHERE owner_key = $1 ORDER BY id")
            .bind(key)
            .fetch_all(&mut *self.transaction)
            .await?;
        for row in kept {
            forgotten.kept_bookings.push(BookingId(row.try_get("id")?));
        }
        Ok(())
    }

    async fn forget_conferences(
        &mut self,
        key: &str,
        now: DateTime<Utc>,
        forgotten: &mut Forgotten,
    ) -> Result<()> {
        let owners = sqlx::query(
            "SELECT mail_owner FROM allocation WHERE mail_owner <> ''
             UNION SELECT mail_owner FROM upstream_conference WHERE mail_owner <> ''",
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        for row in owners {
            let owner: String = row.try_get("mail_owner")?;
            if owner_key(&owner) != key {
                continue;
            }
            for (update, running) in [
                (
                    "UPDATE allocation SET mail_owner = ''
                     WHERE mail_owner = $1 AND (ended_at IS NOT NULL OR ends_at <= $2)",
                    "SELECT count(*) FROM allocation WHERE mail_owner = $1",
                ),
                (
                    "UPDATE upstream_conference SET mail_owner = ''
                     WHERE mail_owner = $1 AND (ended_at IS NOT NULL OR ends_at <= $2)",
                    "SELECT count(*) FROM upstream_conference WHERE mail_owner = $1",
                ),
            ] {
                let done = sqlx::query(update)
                    .bind(&owner)
                    .bind(now.timestamp_millis())
                    .execute(&mut *self.transaction)
                    .await?;
                forgotten.conferences += done.rows_affected();
                let kept: i64 = sqlx::query_scalar(running)
                    .bind(&owner)
                    .fetch_one(&mut *self.transaction)
                    .await?;
                forgotten.kept_conferences += u64::try_from(kept).unwrap_or_default();
            }
        }
        Ok(())
    }
}
