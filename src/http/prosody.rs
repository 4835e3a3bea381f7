//! The protocol of usher's modules for Prosody: `/api/v1/prosody/*`. docs/prosody-protocol.md describes it.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;

use super::error::{ApiError, Response, json, respond};
use super::form::FieldError;
use super::request::{CREATE, READ, REPORT_MAX, Request, request, request_up_to, service};
use super::{Shared, either, with};
use crate::domain::scope::Scope;
use crate::prosody::wire::Events;
use crate::prosody::{EventsError, UnknownInstance};

/// `/api/v1/prosody/events`, `…/rooms` and `…/instances`.
pub(super) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let access = service(&[Scope::Prosody]);
    let events = warp::path!("api" / "v1" / "prosody" / "events")
        .and(request_up_to(shared, CREATE, access, REPORT_MAX))
        .and(with(shared))
        .then(async |request, shared: Arc<Shared>| respond(events(request, &shared).await));
    let rooms = warp::path!("api" / "v1" / "prosody" / "rooms")
        .and(request(shared, READ, access))
        .and(with(shared))
        .then(async |request, shared: Arc<Shared>| respond(rooms(request, &shared).await));
    let instances = warp::path!("api" / "v1" / "prosody" / "instances")
        .and(request(shared, READ, access))
        .and(with(shared))
        .map(|_, shared: Arc<Shared>| instances(&shared));
    [rooms.boxed(), instances.boxed()]
        .into_iter()
        .fold(events.boxed(), either)
}

/// The query of a long poll.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Query {
    instance: Option<String>,
    #[serde(deserialize_with = "revision")]
    after: u64,
}

/// A revision as Lua may write it: `7`, `7.0` or `1.795572283001e+12`.
fn revision<'de, D: Deserializer<'de>>(value: D) -> Result<u64, D::Error> {
    let text = Option::<String>::deserialize(value)?.unwrap_or_default();
    let number: f64 = match text.as_str() {
        "" => 0.0,
        text => text.parse().map_err(|_| {
            serde::de::Error::custom("must be the \"revision\" of the poll before, or 0")
        })?,
    };
    Ok(number.clamp(0.0, 9e15) as u64)
}

/// `POST /api/v1/prosody/events`.
async fn events(request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let events = request.json::<Events>()?.finish()?;
    let answer = shared.prosody.events(events, request.now).await?;
    Ok(json(StatusCode::OK, &answer))
}

/// `GET /api/v1/prosody/rooms`: the long poll.
async fn rooms(request: Request, shared: &Shared) -> Result<Response, ApiError> {
    let query = request.query::<Query>()?.finish()?;
    let instance = query.instance.ok_or(FieldError::Missing("instance"))?;
    let poll = shared.prosody.poll(&instance, query.after, &shared.stop);
    Ok(json(StatusCode::OK, &poll.await?))
}

/// `GET /api/v1/prosody/instances`: which modules are connected.
fn instances(shared: &Shared) -> Response {
    let instances = shared.prosody.instances();
    let list: Vec<_> = instances
        .iter()
        .map(|it| {
            json!({
                "instance": it.instance,
                "shim": it.shim,
                "rooms": it.rooms,
                "seconds_absent": it.seconds_absent,
            })
        })
        .collect();
    json(StatusCode::OK, &json!({ "instances": list }))
}

impl From<EventsError> for ApiError {
    fn from(error: EventsError) -> Self {
        let status = match error {
            EventsError::Protocol(_) | EventsError::Instance => StatusCode::BAD_REQUEST,
            EventsError::TooManyInstances => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string()).with_now()
    }
}

impl From<UnknownInstance> for ApiError {
    fn from(error: UnknownInstance) -> Self {
        Self::new(StatusCode::GONE, error.to_string()).with_now()
    }
}

impl ApiError {
    /// Adds usher's clock, which each answer of this protocol has.
    fn with_now(self) -> Self {
        let now = crate::clock::now();
        self.with_field("now", now.timestamp_millis() as f64 / 1000.0)
    }
}
