//! A running conference as `POST` and `GET /conference` return it, whichever system allocated it.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::allocation::{Allocation, AllocationId};
use super::booking::{BookingId, Options};
use super::conference::Conference;

/// The `id` on the wire: a number of usher, or what the upstream calls its conference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReservationId {
    /// Written as a JSON number.
    Number(AllocationId),
    /// Written as a JSON string.
    Text(String),
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(id) => id.fmt(f),
            Self::Text(id) => id.fmt(f),
        }
    }
}

impl Serialize for ReservationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(id) => serializer.serialize_i64(id.get()),
            Self::Text(id) => serializer.serialize_str(id),
        }
    }
}

/// The system that allocated a conference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// usher, by its own bookings and policy.
    Local,
    /// The reservation system behind usher.
    Upstream,
    /// usher, because that system was unavailable (`on_failure = "allow"`).
    Fallback,
}

/// A running conference.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// Its id on the wire.
    pub id: ReservationId,
    /// The system that allocated it.
    pub source: Source,
    /// `None` where the gateway found it by its id.
    pub conference: Option<Conference>,
    /// The room's node as Prosody wrote it: stock Prosody rejects a response with another `name`.
    pub name: String,
    /// The owner; may be empty.
    pub mail_owner: String,
    /// The booked start, or the moment it was opened.
    pub start: DateTime<Utc>,
    /// The moment the room must close.
    pub end: DateTime<Utc>,
    /// What Prosody applies.
    pub options: Options,
    /// The booking behind it, if usher has one.
    pub booking: Option<BookingId>,
}

impl From<Allocation> for Reservation {
    fn from(allocation: Allocation) -> Self {
        Self {
            id: ReservationId::Number(allocation.id),
            source: Source::Local,
            conference: Some(allocation.conference),
            name: allocation.name,
            mail_owner: allocation.mail_owner,
            start: allocation.start,
            end: allocation.end,
            options: allocation.options,
            booking: allocation.booking,
        }
    }
}
