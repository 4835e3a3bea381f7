//! The keys of requests that made bookings: a repetition makes no second one.

use chrono::{DateTime, Utc};
use sqlx::Row;

use super::{PURGE_ROWS, Result, Tx, is_full};
use crate::domain::booking::BookingId;

/// What identifies a request and its repetitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// The key that the client chose.
    pub key: String,
    /// The digest of the request's body: a repetition has the same.
    pub digest: Vec<u8>,
}

impl Tx {
    /// The digest of the request that had this key since `since`, and the booking that it made.
    pub(crate) async fn request(
        &mut self,
        key: &str,
        since: DateTime<Utc>,
    ) -> Result<Option<(Vec<u8>, BookingId)>> {
        let row = sqlx::query(
            "SELECT digest, booking_id FROM booking_request WHERE key = $1 AND made_at > $2",
        )
        .bind(key)
        .bind(since.timestamp_millis())
        .fetch_optional(&mut *self.transaction)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let id = BookingId(row.try_get("booking_id")?);
        Ok(Some((row.try_get("digest")?, id)))
    }

    /// Records that the request with this key made a booking.
    pub(crate) async fn keep_request(
        &mut self,
        key: &RequestKey,
        booking: BookingId,
        now: DateTime<Utc>,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO booking_request (key, digest, booking_id, made_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (key) DO UPDATE SET digest = excluded.digest,
                 booking_id = excluded.booking_id, made_at = excluded.made_at",
        )
        .bind(key.key.clone())
        .bind(key.digest.clone())
        .bind(booking.0)
        .bind(now.timestamp_millis())
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Deletes the keys of requests before `before`, or some of them; returns whether there may be more.
    pub(crate) async fn purge_requests(&mut self, before: DateTime<Utc>) -> Result<bool> {
        let done = sqlx::query(
            "DELETE FROM booking_request WHERE key IN (
                 SELECT key FROM booking_request WHERE made_at <= $1 LIMIT $2)",
        )
        .bind(before.timestamp_millis())
        .bind(PURGE_ROWS)
        .execute(&mut *self.transaction)
        .await?;
        Ok(is_full(&done))
    }
}
