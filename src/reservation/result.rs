//! The results of requests for conferences: the same for the local and the gateway backend.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use thiserror::Error;

use super::gateway::GatewayError;
use crate::domain::allocation::AllocationId;
use crate::domain::policy::Refusal;
use crate::domain::reservation::Reservation;
use crate::store::StoreError;

/// The result of a request for a conference.
#[derive(Clone, Debug)]
pub enum AllocateResult {
    /// The conference was allocated for this request.
    Created(Reservation),
    /// The conference is running already.
    Running(Reservation),
    /// The conference is running already, under this id.
    Conflict(AllocationId),
    /// The requester is a visitor and must wait in the queue; nothing was allocated.
    Queued,
    /// The policy refuses the request.
    Refused(Refusal),
}

/// What is known of an id.
#[derive(Clone, Debug)]
pub enum GetResult {
    /// The conference is running.
    Running(Box<Reservation>),
    /// The conference ended.
    Ended {
        /// When.
        at: DateTime<Utc>,
        /// For the occupants of its room.
        message: String,
    },
    /// The id was never issued, or its conference is purged.
    NotFound,
}

/// Why a request for a conference has no result.
#[derive(Clone, Debug, Error)]
pub enum ReservationError {
    /// The gateway has no usable response of the upstream.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
}

impl From<StoreError> for ReservationError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
