//! The decision log: `/api/v1/decisions`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;

use super::bookings::room_and_tenant;
use super::error::{ApiError, Response, json, respond};
use super::page::{Limit, RowCursor};
use super::request::{READ, Request, request, service};
use super::{Shared, with};
use crate::domain::scope::Scope;
use crate::domain::timestamp;
use crate::store::{DecisionFilter, DecisionRow};

/// `/api/v1/decisions`.
pub(super) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let service = service(&[Scope::Decisions]);
    warp::path!("api" / "v1" / "decisions")
        .and(request(shared, READ, service))
        .and(with(shared))
        .then(async |request, shared: Arc<Shared>| respond(list(request, &shared).await))
        .boxed()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Query {
    room: Option<String>,
    tenant: Option<String>,
    before: Option<RowCursor>,
    limit: Limit,
}

#[derive(Serialize)]
struct DecisionBody<'a> {
    id: i64,
    at: String,
    room: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    outcome: &'a str,
    reason: &'a str,
    sentence: &'a str,
    mail_owner: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conference: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    booking: Option<i64>,
}

impl<'a> From<&'a DecisionRow> for DecisionBody<'a> {
    fn from(row: &'a DecisionRow) -> Self {
        Self {
            id: row.id,
            at: timestamp::format(row.at),
            room: row.conference.room(),
            tenant: row.conference.tenant(),
            outcome: &row.outcome,
            reason: &row.reason,
            sentence: &row.sentence,
            mail_owner: &row.requester.mail_owner,
            user_id: row.requester.user_id.as_deref(),
            user_email: row.requester.user_email.as_deref(),
            user_name: row.requester.user_name.as_deref(),
            conference: row.allocation.map(|id| id.get()),
            booking: row.booking.map(|id| id.0),
        }
    }
}

/// `GET /api/v1/decisions`: the newest first.
async fn list(request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let mut query = request.query::<Query>()?;
    let names = query.check(|it| room_and_tenant(it.room.as_deref(), it.tenant.as_deref()));
    let (query, (room, tenant)) = query.finish_with(names)?;
    let filter = DecisionFilter {
        room,
        tenant,
        before: query.before.map(|cursor| cursor.0),
        limit: query.limit.rows(),
    };
    let mut rows = shared.reservations.decisions(&filter).await?;
    let next = query.limit.cut(&mut rows, |last| last.id.into());
    let list: Vec<_> = rows.iter().map(DecisionBody::from).collect();
    let mut body = json!({ "decisions": list });
    if let Some(next) = next {
        body["next"] = next;
    }
    Ok(json(StatusCode::OK, &body))
}
