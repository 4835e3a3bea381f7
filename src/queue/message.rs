//! The JSON bodies of the queue's messages. Keys may be added, none may go.

use serde::Serialize;

/// To a visitor: come in, after a random part of the delay. jigasi throws unless `randomDelayMs` is there
/// and an integer.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Live<'a> {
    conference: &'a str,
    status: &'static str,
    random_delay_ms: u32,
}

/// To a moderator: so many wait.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    conference: &'a str,
    visitors_waiting: usize,
}

/// The body that lets a visitor of the conference with this JID in.
#[must_use]
pub fn live(conference: &str, random_delay_ms: u32) -> Vec<u8> {
    json(&Live {
        conference,
        status: "live",
        random_delay_ms,
    })
}

/// The body that tells how many visitors wait for the conference with this JID.
#[must_use]
pub fn state(conference: &str, visitors_waiting: usize) -> Vec<u8> {
    json(&State {
        conference,
        visitors_waiting,
    })
}

fn json(body: &impl Serialize) -> Vec<u8> {
    // Strings and numbers always serialise.
    serde_json::to_vec(body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn bodies_are_as_the_clients_expect_them() {
        let text = |body| String::from_utf8(body).unwrap();
        assert_eq!(
            text(super::live("room@conference.meet.example.com", 0)),
            r#"{"conference":"room@conference.meet.example.com","status":"live","randomDelayMs":0}"#
        );
        assert_eq!(
            text(super::state("room@conference.meet.example.com", 123)),
            r#"{"conference":"room@conference.meet.example.com","visitorsWaiting":123}"#
        );
    }
}
