//! Deletions that the reservation system has not acknowledged yet: `/api/v1/outbox`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;

use super::error::{ApiError, Response, json, respond};
use super::page::{Limit, RowCursor};
use super::request::{READ, Request, request, service};
use super::{Shared, with};
use crate::domain::conference::Conference;
use crate::domain::scope::Scope;
use crate::domain::timestamp;
use crate::store::OutboxEntry;

/// `/api/v1/outbox`.
pub(super) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let service = service(&[Scope::Decisions]);
    warp::path!("api" / "v1" / "outbox")
        .and(request(shared, READ, service))
        .and(with(shared))
        .then(async |request, shared: Arc<Shared>| respond(list(request, &shared).await))
        .boxed()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Query {
    after: Option<RowCursor>,
    limit: Limit,
}

#[derive(Serialize)]
struct DeletionBody<'a> {
    conference: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    accepted_at: String,
    attempts: u32,
    next_at: String,
    #[serde(rename = "trouble", skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
}

impl<'a> From<&'a OutboxEntry> for DeletionBody<'a> {
    fn from(deletion: &'a OutboxEntry) -> Self {
        let conference = deletion.conference.as_ref();
        Self {
            conference: &deletion.conference_id,
            room: conference.map(Conference::room),
            tenant: conference.and_then(Conference::tenant),
            accepted_at: timestamp::format(deletion.accepted_at),
            attempts: deletion.attempts,
            next_at: timestamp::format(deletion.next_at),
            last_error: deletion.last_error.as_deref(),
        }
    }
}

/// `GET /api/v1/outbox`: the oldest first.
async fn list(request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let query = request.query::<Query>()?.finish()?;
    let after = query.after.map_or(0, |cursor| cursor.0);
    let outbox = shared.reservations.outbox(after, query.limit.rows());
    let (mut rows, pending) = outbox.await?;
    let next = query.limit.cut(&mut rows, |last| last.id.into());
    let list: Vec<_> = rows.iter().map(DeletionBody::from).collect();
    let mut body = json!({ "pending": pending, "deletions": list });
    if let Some(next) = next {
        body["next"] = next;
    }
    Ok(json(StatusCode::OK, &body))
}
