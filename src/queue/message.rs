//! The JSON bodies of the queue's messages. Members may be added; none may be removed.

use serde::Serialize;

/// For a visitor: join after a random part of the delay. jigasi throws unless `randomDelayMs` is an integer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Live<'a> {
    conference: &'a str,
    status: &'static str,
    random_delay_ms: u32,
}

/// For a moderator: the number of waiting visitors.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    conference: &'a str,
    visitors_waiting: usize,
}

/// The body that releases a visitor of the conference with this JID.
#[must_use]
pub fn live(conference: &str, random_delay_ms: u32) -> Vec<u8> {
    json(&Live {
        conference,
        status: "live",
        random_delay_ms,
    })
}

/// The body with the number of visitors that wait for the conference with this JID.
#[must_use]
pub fn state(conference: &str, visitors_waiting: usize) -> Vec<u8> {
    json(&State {
        conference,
        visitors_waiting,
    })
}

fn json(body: &impl Serialize) -> Vec<u8> {
    // Serialising strings and numbers does not fail.
    serde_json::to_vec(body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn bodies_have_the_members_that_clients_read() {
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
