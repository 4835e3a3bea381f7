//! Negotiation at the start of a session: the version, the sub-protocol, the heart-beats.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::Version;

/// The supported versions, as in the header `version` of the ERROR frame for a client without a common version.
pub const VERSIONS: &str = "1.0,1.1,1.2";

/// The longest interval. Longer ones are useless, and very large numbers overflow the arithmetic of clocks.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Why negotiation failed. Each message fits the header `message` of an ERROR frame.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NegotiateError {
    /// The client accepts none of [`VERSIONS`].
    #[error("no version in accept-version is supported; accept 1.0, 1.1 or 1.2")]
    NoCommonVersion,
    /// The header `heart-beat` is not two numbers.
    #[error("heart-beat is not two numbers; write two counts of milliseconds with a comma between")]
    BadHeartBeat,
}

/// The version of a session, from the client's header `accept-version`: the highest common version, and 1.0 without
/// the header.
///
/// # Errors
///
/// [`NegotiateError::NoCommonVersion`].
pub fn version(accept_version: Option<&str>) -> Result<Version, NegotiateError> {
    let Some(accepted) = accept_version else {
        return Ok(Version::V10);
    };
    best(accepted, Version::as_str).ok_or(NegotiateError::NoCommonVersion)
}

/// The best of the sub-protocols that a client offers in `Sec-WebSocket-Protocol`, at any position.
pub fn subprotocol(offered: &str) -> Option<Version> {
    best(offered, Version::subprotocol)
}

fn best(list: &str, name: fn(Version) -> &'static str) -> Option<Version> {
    let listed = |version: &Version| {
        list.split(',')
            .any(|item| item.trim_matches([' ', '\t']) == name(*version))
    };
    Version::ALL.into_iter().rev().find(listed)
}

/// The intervals of one side's header `heart-beat`. Zero means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartBeatOffer {
    /// The shortest interval at which it can send.
    pub send: Duration,
    /// The interval at which it wants to receive.
    pub want: Duration,
}

/// As the value of the header `heart-beat` of CONNECTED.
impl fmt::Display for HeartBeatOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.send.as_millis(), self.want.as_millis())
    }
}

/// The negotiated heart-beats of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartBeat {
    /// The interval at which this side must send something.
    pub send: Option<Duration>,
    /// The interval at which the peer sends something. The caller adds a tolerance.
    pub expect: Option<Duration>,
}

/// The heart-beats of a session, from the client's header `heart-beat` and the server's offer. In each direction the
/// longer of the two intervals counts; there are none if either is zero or the header is missing. An interval is at
/// most one day.
///
/// # Errors
///
/// [`NegotiateError::BadHeartBeat`].
pub fn heart_beat(header: Option<&str>, ours: HeartBeatOffer) -> Result<HeartBeat, NegotiateError> {
    let (can_send, wants) = match header {
        None => (Duration::ZERO, Duration::ZERO),
        Some(text) => {
            let (sends, wants) = text.split_once(',').ok_or(NegotiateError::BadHeartBeat)?;
            (interval(sends)?, interval(wants)?)
        }
    };
    Ok(HeartBeat {
        send: agreed(ours.send, wants),
        expect: agreed(can_send, ours.want),
    })
}

fn agreed(one: Duration, other: Duration) -> Option<Duration> {
    (!one.is_zero() && !other.is_zero()).then(|| one.max(other).min(MAX_INTERVAL))
}

fn interval(text: &str) -> Result<Duration, NegotiateError> {
    let digits = text.trim_matches([' ', '\t']);
    if digits.is_empty() || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(NegotiateError::BadHeartBeat);
    }
    // More digits than a `u64` holds are longer than a day.
    Ok(digits.parse().map_or(MAX_INTERVAL, Duration::from_millis))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    const OURS: HeartBeatOffer = HeartBeatOffer {
        send: ms(15_000),
        want: ms(10_000),
    };

    #[test]
    fn highest_common_version_is_chosen() {
        for (accepted, expected) in [
            ("1.0", Version::V10),
            ("1.1", Version::V11),
            ("1.2", Version::V12),
            ("1.2,1.1,1.0", Version::V12),
            ("1.0,1.1,2.0", Version::V11),
            ("2.0,1.0", Version::V10),
            ("1.0, 1.1", Version::V11),
        ] {
            assert_eq!(version(Some(accepted)), Ok(expected), "{accepted}");
        }
    }

    #[test]
    fn client_without_accept_version_speaks_1_0() {
        assert_eq!(version(None), Ok(Version::V10));
    }

    #[test]
    fn client_without_a_common_version_is_refused() {
        for accepted in [
            "", ",", "2.0", "1.20", "1.3", "v1.2", "1.2.0", "1. 2", "1.2;1.1",
        ] {
            let error = Err(NegotiateError::NoCommonVersion);
            assert_eq!(version(Some(accepted)), error, "{accepted:?}");
        }
    }

    #[test]
    fn refusal_lists_every_version() {
        let listed: Vec<_> = VERSIONS.split(',').collect();
        assert_eq!(listed, Version::ALL.map(Version::as_str));
        let message = NegotiateError::NoCommonVersion.to_string();
        for version in Version::ALL {
            assert!(message.contains(version.as_str()), "{message}");
        }
    }

    #[test]
    fn versions_grow() {
        assert!(Version::V10 < Version::V11 && Version::V11 < Version::V12);
        assert_eq!(Version::V12.to_string(), "1.2");
    }

    #[test]
    fn best_subprotocol_is_chosen_at_any_position() {
        for (offered, expected) in [
            ("v12.stomp, v11.stomp, v10.stomp", Some(Version::V12)),
            ("v10.stomp,v11.stomp", Some(Version::V11)),
            ("chat , v10.stomp", Some(Version::V10)),
            ("V12.STOMP", None),
            ("v13.stomp", None),
            ("", None),
        ] {
            assert_eq!(subprotocol(offered), expected, "{offered:?}");
        }
    }

    #[test]
    fn heart_beats_come_at_the_longer_interval() {
        for (header, send, expect) in [
            ("10000,10000", 15_000, 10_000),
            ("20000,30000", 30_000, 20_000),
            ("100,100", 15_000, 10_000),
            ("1,1", 15_000, 10_000),
            ("0015000, 15000", 15_000, 15_000),
        ] {
            let expected = HeartBeat {
                send: Some(ms(send)),
                expect: Some(ms(expect)),
            };
            assert_eq!(heart_beat(Some(header), OURS), Ok(expected), "{header}");
        }
    }

    #[test]
    fn zero_on_either_side_is_no_heart_beat() {
        let nothing = HeartBeatOffer {
            send: ms(0),
            want: ms(0),
        };
        for (header, ours, send, expect) in [
            ("0,0", OURS, None, None),
            ("0,15000", OURS, Some(ms(15_000)), None),
            ("10000,0", OURS, None, Some(ms(10_000))),
            ("10000,10000", nothing, None, None),
        ] {
            let expected = HeartBeat { send, expect };
            assert_eq!(heart_beat(Some(header), ours), Ok(expected), "{header}");
        }
    }

    #[test]
    fn missing_heart_beat_header_is_zero_and_zero() {
        assert_eq!(heart_beat(None, OURS), heart_beat(Some("0,0"), OURS));
    }

    #[test]
    fn heart_beat_intervals_are_capped_at_one_day() {
        for header in [
            "86400001,86400001",
            "18446744073709551615,18446744073709551615",
            "99999999999999999999999,99999999999999999999999",
        ] {
            let expected = HeartBeat {
                send: Some(MAX_INTERVAL),
                expect: Some(MAX_INTERVAL),
            };
            assert_eq!(heart_beat(Some(header), OURS), Ok(expected), "{header}");
        }
    }

    #[test]
    fn heart_beat_must_be_two_numbers() {
        for header in [
            "", ",", "1", "1,", ",1", "1,2,3", "-1,1", "+1,1", "1.5,1", "a,b", "1;2",
        ] {
            let error = Err(NegotiateError::BadHeartBeat);
            assert_eq!(heart_beat(Some(header), OURS), error, "{header:?}");
        }
    }

    #[test]
    fn offer_is_written_as_the_header() {
        assert_eq!(OURS.to_string(), "15000,10000");
        let never = HeartBeatOffer {
            send: ms(0),
            want: ms(0),
        };
        assert_eq!(never.to_string(), "0,0");
    }

    proptest! {
        #[test]
        fn both_sides_of_a_session_agree(
            (cx, cy, sx, sy) in (0..60_000u64, 0..60_000u64, 0..60_000u64, 0..60_000u64),
        ) {
            let server = HeartBeatOffer { send: ms(sx), want: ms(sy) };
            let client = HeartBeatOffer { send: ms(cx), want: ms(cy) };
            let here = heart_beat(Some(&client.to_string()), server).unwrap();
            let there = heart_beat(Some(&server.to_string()), client).unwrap();
            prop_assert_eq!((here.send, here.expect), (there.expect, there.send));
        }

        #[test]
        fn no_text_makes_negotiation_panic(text in ".*") {
            let _ = (version(Some(&text)), subprotocol(&text), heart_beat(Some(&text), OURS));
        }
    }
}
