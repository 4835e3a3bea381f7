//! The queue's endpoints under `queue.path`: WebSockets, and going live and ending live for Prosody.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;

use super::error::{ApiError, Response, json, respond};
use super::form::FieldError;
use super::request::{Access, CREATE, READ, Request, request};
use super::{Shared, either, websocket, with};
use crate::domain::conference::{Conference, ConferenceError};
use crate::domain::scope::Scope;
use crate::domain::timestamp;
use crate::queue::{ConferenceStatus, Queue};
use crate::session::SessionContext;

/// The routes under `queue.path`. A user's valid token gets 403 where a service token is required.
pub(super) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let service = |any_of| Access::Service(StatusCode::FORBIDDEN, any_of);
    let live = service(&[Scope::Prosody, Scope::Queue]);
    let parts = shared.config.queue.path.split('/');
    let base = parts
        .filter(|part| !part.is_empty())
        .fold(warp::any().boxed(), |base, part| {
            base.and(warp::path(part.to_owned())).boxed()
        });
    let go_live = base
        .clone()
        .and(warp::path!("golive"))
        .and(request(shared, CREATE, live))
        .and(with(shared))
        .then(async |request, shared: Arc<Shared>| respond(set_live(request, &shared, true).await));
    let end_live = base
        .clone()
        .and(warp::path!("endlive"))
        .and(request(shared, CREATE, live))
        .and(with(shared))
        .then(async |request, shared: Arc<Shared>| {
            respond(set_live(request, &shared, false).await)
        });
    let list = base
        .clone()
        .and(warp::path!("conferences"))
        .and(request(shared, READ, service(&[Scope::Queue])))
        .and(with(shared))
        .then(async |request, shared: Arc<Shared>| respond(conferences(request, &shared).await));
    [go_live.boxed(), end_live.boxed(), list.boxed()]
        .into_iter()
        .fold(websocket_route(base, shared), either)
}

/// `GET {path}/visitor/websocket` and the like.
fn websocket_route(base: BoxedFilter<()>, shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    // The path doesn't matter to a session: the destination decides its role. Not authenticated: the token comes
    // with the CONNECT frame.
    let topic = warp::path("visitor")
        .or(warp::path("state"))
        .unify()
        .or(warp::path("moderator"))
        .unify();
    let end = warp::path!("websocket").or(warp::path::end()).unify();
    base.and(topic)
        .and(end)
        .and(request(shared, READ, Access::Open))
        .and(warp::ext::optional())
        .and(warp::ext::optional())
        .and(with(shared))
        .map(|request, upgrade, connection, shared: Arc<Shared>| {
            respond(websocket::open(&request, upgrade, connection, &shared))
        })
        .boxed()
}

/// The body of golive and endlive. Jitsi's visitors component may send more.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConferenceFields {
    conference: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Query {
    conference: Option<String>,
}

/// `POST {path}/golive` and `POST {path}/endlive`.
async fn set_live(request: Request, shared: &Shared, live: bool) -> Result<Response, ApiError> {
    let fields = request.json::<ConferenceFields>()?.finish()?;
    let jid = fields.conference.ok_or(FieldError::Missing("conference"))?;
    let context = shared.sessions.load_full();
    let conference = conference(&jid, &context)?;
    if live && conference.is_health_check() {
        let message =
            "conference: this is a room of jicofo's health checks, which never goes live.";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message).with_code("health_check"));
    }
    if live {
        context.queue.go_live(&conference, request.now).await?;
    } else {
        context.queue.end_live(&conference).await?;
    }
    let body = json!({ "conference": conference.jid(&context.xmpp.muc_prefix), "live": live });
    Ok(json(StatusCode::OK, &body))
}

/// `GET {path}/conferences`: how many visitors wait, and which conferences are live; with `?conference=`, of that one alone.
async fn conferences(request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let query = request.query::<Query>()?.finish()?;
    let context = shared.sessions.load_full();
    let queue: &Queue = &context.queue;
    let wanted = match &query.conference {
        Some(jid) => vec![queue.status(&conference(jid, &context)?)],
        None => queue.conferences(),
    };
    let keys: Vec<_> = wanted.iter().map(|status| &status.conference).collect();
    let have_queue = shared.reservations.have_queue(&keys, request.now).await?;
    let muc_prefix = &context.xmpp.muc_prefix;
    let list = wanted.iter().zip(have_queue);
    let conferences = list.map(|(status, waiting_queue)| body(status, waiting_queue, muc_prefix));
    let conferences = conferences.collect();
    Ok(json(StatusCode::OK, &ListBody { conferences }))
}

#[derive(Serialize)]
struct ListBody {
    conferences: Vec<ConferenceBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConferenceBody {
    conference: String,
    live: bool,
    visitors_waiting: usize,
    waiting_queue: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_since: Option<String>,
}

fn body(status: &ConferenceStatus, waiting_queue: bool, muc_prefix: &str) -> ConferenceBody {
    ConferenceBody {
        conference: status.conference.jid(muc_prefix),
        live: status.live_since.is_some(),
        visitors_waiting: status.waiting,
        waiting_queue,
        live_since: status.live_since.map(timestamp::format),
    }
}

fn conference(jid: &str, context: &SessionContext) -> Result<Conference, ApiError> {
    Conference::from_jid(jid, &context.xmpp.muc_prefix, &context.xmpp.domain).map_err(|error| {
        let status = match error {
            ConferenceError::Foreign { .. } => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        };
        let code = match error {
            ConferenceError::Foreign { .. } => "foreign_conference",
            _ => "invalid_name",
        };
        ApiError::new(status, format!("conference: {error}")).with_code(code)
    })
}
