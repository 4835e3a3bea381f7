//! The fields of a booking in a request, and the draft that they make.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::domain::booking::{Draft, Options, StartPolicy};
use crate::domain::conference::{Conference, ConferenceError, room_filter, typed_tenant};
use crate::domain::secret::Secret;
use crate::http::form::{Count, FieldError, Fields, WrittenTime, ZoneName, nullable};

/// The fields of a booking in a request. Absent: unchanged; `null`: cleared.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BookingFields {
    #[serde(deserialize_with = "nullable")]
    room: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    tenant: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    title: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    owner: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    start: Option<Option<WrittenTime>>,
    #[serde(deserialize_with = "nullable")]
    end: Option<Option<WrittenTime>>,
    #[serde(deserialize_with = "nullable")]
    time_zone: Option<Option<ZoneName>>,
    #[serde(deserialize_with = "nullable")]
    max_occupants: Option<Option<Count>>,
    #[serde(deserialize_with = "nullable")]
    lobby: Option<Option<bool>>,
    #[serde(deserialize_with = "nullable")]
    password: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    waiting_queue: Option<Option<bool>>,
    #[serde(deserialize_with = "nullable")]
    starters: Option<Option<Starters>>,
    #[serde(deserialize_with = "nullable")]
    auto_live: Option<Option<Count>>,
    #[serde(deserialize_with = "nullable")]
    live_starters: Option<Option<Starters>>,
    #[serde(deserialize_with = "nullable")]
    live_from_start: Option<Option<bool>>,
    #[serde(deserialize_with = "nullable")]
    soft_limit: Option<Option<Count>>,
    #[serde(deserialize_with = "nullable")]
    moderators: Option<Option<Vec<String>>>,
}

/// The member `starters`: a string. Serde's own reader of enums accepts an object, too.
#[derive(Debug)]
struct Starters(StartPolicy);

impl<'de> Deserialize<'de> for Starters {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        let refused = |_| D::Error::custom("must be \"anyone\" or \"owner\"");
        text.parse().map(Self).map_err(refused)
    }
}

fn set<T>(field: &mut T, change: Option<T>) {
    if let Some(value) = change {
        *field = value;
    }
}

impl BookingFields {
    /// Changes a draft, all but its conference and its times. A flag that is cleared is off.
    fn apply(self, draft: &mut Draft) {
        set(&mut draft.title, self.title);
        set(&mut draft.owner, self.owner);
        let zone = self.time_zone.map(|it| it.map(|zone| zone.0));
        set(&mut draft.time_zone, zone);
        let start_policy = self.starters.map(|it| it.map(|starters| starters.0));
        set(&mut draft.start_policy, start_policy);
        let count = |count: Option<Count>| count.map(|it| it.0);
        set(&mut draft.auto_live, self.auto_live.map(count));
        let options = &mut draft.options;
        set(&mut options.max_occupants, self.max_occupants.map(count));
        set(
            &mut options.lobby,
            self.lobby.map(Option::unwrap_or_default),
        );
        let password = self.password.map(|password| password.map(Secret::new));
        set(&mut options.password, password);
        let waiting_queue = self.waiting_queue.map(Option::unwrap_or_default);
        set(&mut options.waiting_queue, waiting_queue);
        let rules = &mut options.rules;
        let is_owner = |it: Starters| it.0 == StartPolicy::Owner;
        // The name of the owner follows when the draft is checked.
        let live_owner = self
            .live_starters
            .map(|it| it.is_some_and(is_owner).then(String::new));
        set(&mut rules.live_owner, live_owner);
        let live_from_start = self.live_from_start.map(Option::unwrap_or_default);
        set(&mut rules.live_from_start, live_from_start);
        set(&mut rules.soft_limit, self.soft_limit.map(count));
        let moderators = self.moderators.map(Option::unwrap_or_default);
        set(&mut rules.moderators, moderators);
    }

    /// The zone of local times: the one given beside them, else the booking's own.
    fn zone(&self, base: Option<&Draft>) -> Option<Tz> {
        match &self.time_zone {
            Some(given) => given.as_ref().map(|zone| zone.0),
            None => base.and_then(|base| base.time_zone),
        }
    }

    /// The conference that a request names. `before` is that of the booking to change, if there is one; the fields
    /// that a patch leaves out are its own.
    fn conference(
        &self,
        (before, is_patch): (Option<&Conference>, bool),
        domain: &str,
    ) -> Result<Conference, FieldError> {
        if is_patch && matches!(self.room, Some(None)) {
            return Err(FieldError::NotClearable("room"));
        }
        let room = self.room.as_ref().and_then(Option::as_deref);
        let tenant = self.tenant.as_ref().map(Option::as_deref);
        let given = tenant.flatten();
        check_tenant(given)?;
        // The room of an answer may be sent back: it is canonical, and no punctuation is taken out of it.
        if let Some(before) = before
            && room.map_or(is_patch, |room| room == before.room())
        {
            return match tenant {
                None if is_patch => Ok(before.clone()),
                _ => before.in_tenant(given).map_err(of_room),
            };
        }
        let room = room.ok_or(FieldError::Missing("room"))?;
        let named = |tenant| Conference::from_names(room, tenant, domain).map_err(of_room);
        let conference = named(given)?;
        match before.and_then(Conference::tenant) {
            Some(before) if is_patch && tenant.is_none() && conference.tenant().is_none() => {
                named(Some(before))
            }
            _ => Ok(conference),
        }
    }

    /// The new start; `None`: none is given. A booking always has one.
    fn start(&self, base: Option<&Draft>) -> Result<Option<DateTime<Utc>>, FieldError> {
        match self.start {
            Some(None) if base.is_some() => Err(FieldError::NotClearable("start")),
            start => resolve("start", start.flatten(), self.zone(base)),
        }
    }

    /// The new end; `Some(None)`: the booking becomes permanent.
    fn end(&self, base: Option<&Draft>) -> Result<Option<Option<DateTime<Utc>>>, FieldError> {
        let Some(end) = self.end else { return Ok(None) };
        resolve("end", end, self.zone(base)).map(Some)
    }
}

/// The instant of a time; a local one is of `zone`.
fn resolve(
    field: &'static str,
    time: Option<WrittenTime>,
    zone: Option<Tz>,
) -> Result<Option<DateTime<Utc>>, FieldError> {
    time.map(|time| time.0.in_zone(zone))
        .transpose()
        .map_err(|error| FieldError::Time { field, error })
}

/// A draft from a JSON body: on top of `base` (PATCH, by RFC 7396), or whole (POST, PUT). `before` is the conference of
/// the booking that is changed. Without a start it begins now; without an end it is permanent.
pub(super) fn draft(
    mut fields: Fields<BookingFields>,
    base: Option<&Draft>,
    before: Option<&Conference>,
    (domain, now): (&str, DateTime<Utc>),
) -> Result<Draft, Vec<FieldError>> {
    let named = (before, base.is_some());
    let conference = fields.check(|fields| fields.conference(named, domain));
    let start = fields.check(|fields| fields.start(base));
    let end = fields.check(|fields| fields.end(base));
    let checked = conference.zip(start.zip(end));
    let (fields, (conference, (start, end))) = fields.finish_with(checked)?;
    let mut draft = match base {
        Some(base) => Draft {
            conference,
            ..base.clone()
        },
        None => Draft {
            conference,
            title: None,
            owner: None,
            start: now,
            end: None,
            time_zone: None,
            options: Options::default(),
            start_policy: None,
            auto_live: None,
        },
    };
    set(&mut draft.start, start);
    set(&mut draft.end, end);
    fields.apply(&mut draft);
    Ok(draft)
}

/// Distinguishes a bad tenant beside the room from one within the room's name.
fn check_tenant(tenant: Option<&str>) -> Result<(), FieldError> {
    let wrong = |error| FieldError::Conference {
        field: "tenant",
        error,
    };
    match tenant.filter(|tenant| !tenant.is_empty()) {
        Some(tenant) => typed_tenant(tenant).map(drop).map_err(wrong),
        None => Ok(()),
    }
}

fn of_room(error: ConferenceError) -> FieldError {
    FieldError::Conference {
        field: "room",
        error,
    }
}

/// The room and tenant that a list is filtered by, in any spelling.
pub(in crate::http) fn room_and_tenant(
    room: Option<&str>,
    tenant: Option<&str>,
) -> Result<(Option<String>, Option<String>), FieldError> {
    check_tenant(tenant)?;
    room_filter(room, tenant).map_err(of_room)
}
