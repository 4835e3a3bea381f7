//! The JSON of `/api/v1/prosody`: reports and requests of usher's modules for Prosody, directives and decisions for
//! them. docs/prosody-protocol.md describes each message.

use serde::{Deserialize, Deserializer, Serialize};

use crate::text::without_controls;

/// The version of the protocol.
pub const PROTOCOL: u32 = 1;

/// The body of `POST /api/v1/prosody/events`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Events {
    /// The version of the protocol: [`PROTOCOL`].
    pub protocol: u32,
    /// The version of the modules.
    pub shim: String,
    /// A random name of this load of the modules.
    pub instance: String,
    /// Grows with each POST: of two reports of one room, the one with the higher number holds.
    pub seq: u64,
    /// The options of the modules.
    pub options: ShimOptions,
    /// What is loaded in Prosody: `reservations`, `queue`, `metadata`, `lobby`.
    pub features: Vec<String>,
    /// `rooms` lists every room: a room of this instance that is not in it is gone.
    pub all: bool,
    /// The rooms that changed.
    pub rooms: Vec<Report>,
    /// The rooms that were destroyed.
    pub gone: Vec<Gone>,
    /// The requests to decide.
    pub requests: Vec<Request>,
}

/// The options of the modules that directives depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ShimOptions {
    /// `usher_timeout`, in seconds: a request that is not decided by then is decided in a long poll.
    #[serde(deserialize_with = "seconds")]
    pub timeout: u32,
    /// `usher_warn_before`, in seconds; 0: no warning.
    #[serde(deserialize_with = "seconds")]
    pub warn_before: u32,
    /// `usher_create_timeout`, in seconds: an allowed room that does not appear by then is ended.
    #[serde(deserialize_with = "seconds")]
    pub create_timeout: u32,
    /// `usher_timer`: whether clients show a countdown.
    pub timer: bool,
}

impl Default for ShimOptions {
    fn default() -> Self {
        Self {
            timeout: 5,
            warn_before: 300,
            create_timeout: 60,
            timer: true,
        }
    }
}

/// What Prosody reports of a room.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The room's JID, in any spelling.
    pub room: String,
    /// Whether an occupant other than the focus has been in the room.
    pub occupied: bool,
    /// The number of occupants, the focus not counted.
    #[serde(deserialize_with = "count")]
    pub occupants: u32,
    /// The number of moderators among them.
    #[serde(deserialize_with = "count")]
    pub moderators: u32,
    /// The number of visitors, if Prosody knows them.
    #[serde(deserialize_with = "optional_count")]
    pub visitors: Option<u32>,
    /// `visitors.live` of the room's metadata; `None`: not set, or not a boolean.
    #[serde(deserialize_with = "boolean")]
    pub live: Option<bool>,
    /// Whether the modules wrote `live` last, or no client has written it.
    pub live_is_ours: bool,
    /// The meeting id of the room.
    #[serde(rename = "meetingId", deserialize_with = "text")]
    pub meeting_id: Option<String>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            room: String::new(),
            occupied: false,
            occupants: 0,
            moderators: 0,
            visitors: None,
            live: None,
            live_is_ours: true,
            meeting_id: None,
        }
    }
}

/// A room that was destroyed.
#[derive(Clone, Debug, Deserialize)]
pub struct Gone {
    /// The room's JID, in any spelling.
    pub room: String,
    /// The `seq` of the first POST after the room was destroyed: a room that was allowed or reported with a higher
    /// one is another.
    pub seq: u64,
}

/// A request that a stanza waits for.
#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    /// Names the request within its instance.
    pub id: String,
    /// What waits.
    pub kind: RequestKind,
    /// The room's JID, in any spelling.
    pub room: String,
    /// The bare JID of the user; empty for the focus.
    #[serde(default, deserialize_with = "jid")]
    pub from: String,
    /// The user, as its token describes it.
    #[serde(default)]
    pub user: User,
    /// The tenant, if the session has one.
    #[serde(default, deserialize_with = "text")]
    pub tenant: Option<String>,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestKind {
    /// A conference request to the focus.
    Iq,
    /// A room is being created.
    Create,
    /// A user joins a room that waits for its owner.
    Join,
}

/// A user, as its token describes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct User {
    /// `context.user.id`.
    #[serde(deserialize_with = "text")]
    pub id: Option<String>,
    /// `context.user.email`.
    #[serde(deserialize_with = "text")]
    pub email: Option<String>,
    /// `context.user.name`.
    #[serde(deserialize_with = "text")]
    pub name: Option<String>,
    /// `context.group`.
    #[serde(deserialize_with = "text")]
    pub group: Option<String>,
    /// `context.user.role`.
    #[serde(deserialize_with = "text")]
    pub role: Option<String>,
    /// `context.user.moderator`: `true` or `"true"`.
    #[serde(deserialize_with = "text")]
    pub moderator: Option<String>,
}

/// The response to both requests.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Answer {
    /// usher's clock, in seconds since 1970.
    pub now: f64,
    /// The `after` of the next long poll. Only long polls have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The directives that changed; after a POST, those of all its rooms that are known.
    pub rooms: Vec<Directive>,
    /// The decisions.
    pub decisions: Vec<Decision>,
    /// The ids of requests of this POST whose decisions arrive in a long poll.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
    /// The rooms of this POST that can't be rooms of this deployment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
    /// usher does not know this instance: the next POST must list all rooms.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub send_all: bool,
}

/// A room that was not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// As it was given.
    pub room: String,
    /// Why, for the log.
    pub message: String,
}

/// The decision on a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The id of the request.
    pub id: String,
    /// The decision.
    pub action: Action,
    /// For the user; with all actions but `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The code of `reservation-error`: with `refuse` and `fail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
}

/// What to do with the stanza that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Send it on.
    Allow,
    /// Return an error with `text`.
    Refuse,
    /// Send the visitor's request on to the focus, which sends the visitor to the queue.
    Queue,
    /// Send it on, and let no user in until the owner comes: the directive has `await_owner`.
    AwaitOwner,
    /// No decision could be made: `usher_on_failure` applies.
    Fail,
}

/// What a room should be: the whole state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Directive {
    /// The room's JID as Prosody wrote it.
    pub room: String,
    /// Grows with each change: a directive below the one that was applied last is outdated.
    pub revision: u64,
    /// The value of `visitors.live` in the room's metadata.
    pub live: bool,
    /// The room's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Most occupants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_occupants: Option<u32>,
    /// Whether the room has a lobby.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lobby: bool,
    /// Keys of the room's metadata that clients can't set, such as `lobbyEnabled`.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// The ids of users that are moderators.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moderators: Vec<String>,
    /// No user may join but the owner; the text is for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub await_owner: Option<String>,
    /// Who may set the room live, and from when; absent: each moderator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go_live: Option<GoLive>,
    /// What happens when; the modules execute it without usher.
    pub schedule: Vec<Entry>,
}

/// Who may set a room live, and from when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GoLive {
    /// No user before this time, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    /// No user but this one: an e-mail address (in any case), a user id, a user name or a bare JID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// An entry of a schedule. One of `timer`, `say` and `close` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When, in seconds since 1970. A past time is now.
    pub at: i64,
    /// Send the meeting timer to every occupant, and to each one that joins later.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub timer: bool,
    /// Send this line of chat to the room, and `usher-ending` to every occupant and each one that joins later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub say: Option<String>,
    /// Destroy the room with this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close: Option<String>,
    /// With `timer` and `say`: the start of the conference, in seconds since 1970; may be in the future.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    /// With `timer` and `say`: its end, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<i64>,
}

/// A JSON value of which only texts, whole numbers and booleans are read. Lua 5.4 writes the whole number of a token
/// as `1001.0`; an object or `null` is no value.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Boolean(bool),
    Whole(i64),
    Number(f64),
    Text(String),
    #[expect(dead_code, reason = "an object is read and ignored")]
    Other(serde_json::Value),
}

/// The longest text, in bytes: a bare JID has at most 2047.
const TEXT_MAX: usize = 2047;

/// Above 2^53 a float is not exact.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number as i64)
}

fn text<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    Ok(match Option::<Scalar>::deserialize(value)? {
        Some(Scalar::Text(text)) => {
            Some(without_controls(&text, TEXT_MAX)).filter(|text| !text.is_empty())
        }
        Some(Scalar::Whole(number)) => Some(number.to_string()),
        Some(Scalar::Number(number)) => whole(number).map(|number| number.to_string()),
        Some(Scalar::Boolean(boolean)) => Some(boolean.to_string()),
        Some(Scalar::Other(_)) | None => None,
    })
}

fn jid<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    Ok(text(value)?.unwrap_or_default())
}

fn boolean<'de, D: Deserializer<'de>>(value: D) -> Result<Option<bool>, D::Error> {
    Ok(match Option::<Scalar>::deserialize(value)? {
        Some(Scalar::Boolean(boolean)) => Some(boolean),
        _ => None,
    })
}

fn optional_count<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u32>, D::Error> {
    let number = match Option::<Scalar>::deserialize(value)? {
        Some(Scalar::Whole(number)) => Some(number),
        Some(Scalar::Number(number)) => whole(number),
        _ => None,
    };
    Ok(number.map(|number| u32::try_from(number.max(0)).unwrap_or(u32::MAX)))
}

fn count<'de, D: Deserializer<'de>>(value: D) -> Result<u32, D::Error> {
    Ok(optional_count(value)?.unwrap_or(0))
}

/// A duration in seconds; a fraction is rounded up.
fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<u32, D::Error> {
    let seconds = f64::deserialize(value)?.ceil();
    Ok(seconds.clamp(0.0, 1e9) as u32)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(value: serde_json::Value) -> User {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_whole_number_of_lua_is_read_without_a_fraction() {
        assert_eq!(user(json!({"id": 1001.0})).id.as_deref(), Some("1001"));
        assert_eq!(user(json!({"id": 1001})).id.as_deref(), Some("1001"));
        assert_eq!(user(json!({"id": "1001"})).id.as_deref(), Some("1001"));
        let name = user(json!({"name": "a\nb"})).name;
        assert_eq!(name.as_deref(), Some("ab"));
        assert_eq!(
            user(json!({"moderator": true})).moderator.as_deref(),
            Some("true")
        );
        for other in [
            json!(null),
            json!({}),
            json!([1]),
            json!(10.5),
            json!(1e300),
            json!(""),
        ] {
            assert_eq!(user(json!({ "id": other })).id, None, "{other}");
        }
    }

    #[test]
    fn a_report_without_counts_is_of_an_empty_room() {
        let report: Report =
            serde_json::from_value(json!({"room": "r@c.d", "live": "yes"})).unwrap();
        assert_eq!(
            (report.occupants, report.moderators, report.visitors),
            (0, 0, None)
        );
        assert_eq!(report.live, None);
        let report = json!({"room": "r@c.d", "occupants": 3.0, "moderators": -1, "live": false});
        let report: Report = serde_json::from_value(report).unwrap();
        assert_eq!((report.occupants, report.moderators), (3, 0));
        assert_eq!(report.live, Some(false));
    }

    #[test]
    fn an_unset_member_of_a_directive_is_left_out() {
        let directive = Directive {
            room: "r@c.d".into(),
            revision: 7,
            live: true,
            ..Directive::default()
        };
        let written = serde_json::to_value(&directive).unwrap();
        assert_eq!(
            written,
            json!({"room": "r@c.d", "revision": 7, "live": true, "schedule": []})
        );
    }
}
