//! `[queue]`: the visitors who wait until a conference goes live.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{self, Deserialize, Deserializer};

use super::input::Invalid;
use super::reader::Reader;
use super::reload::Fixed;
use super::value::{DAY, HOUR, MILLISECOND, MINUTE, Number, SECOND, Time, text_value};

/// `[queue]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The path of the waiting queue. Jitsi Meet's `queueService` and the proxy in front of usher must use the
    /// same path.
    pub path: String,
    /// How often moderators receive the number of waiting visitors: at most every `1h`.
    pub state_interval: Duration,
    /// How many visitors per second are released once a conference is live; 0 releases all at once, which can
    /// overload a deployment if there are a thousand of them.
    pub release_per_second: u32,
    /// How long a conference stays live if its end is not reported: at most `30d`.
    pub live_ttl: Duration,
    /// The interval of usher's heart-beats on a quiet connection, from `1s` to `10m`. Clients that ask for a
    /// longer interval get it.
    pub heart_beat: Duration,
    /// The interval of heart-beats that clients are asked for, from `1s` to `10m`; zero asks for none. Browsers
    /// slow the timers of hidden tabs to one a minute: below `65s` they lose their connections. Where only
    /// `heart_beat` is set, it is the interval of both directions.
    pub client_heart_beat: Duration,
    /// The maximum time from a client's connection to its CONNECT frame: at most `1m`.
    pub connect_timeout: Duration,
    /// How long a visitor whose connection breaks keeps the place: at most `10m`; zero disables it. The place
    /// belongs to the token. A hidden tab reconnects after up to a minute.
    pub reconnect_grace: Duration,
    /// The maximum number of subscriptions to wait or to watch per token. Some portals give one token to all
    /// visitors of an event, so the default is high. Service tokens are not limited.
    pub max_per_token: u32,
    /// The maximum number of open WebSockets and of waiting visitors per address: a whole school may share one.
    /// The loopback address is not limited.
    pub max_per_address: u32,
    /// The proxies whose `X-Forwarded-For` is trusted, as addresses or networks. nginx on the same machine uses the
    /// loopback address.
    pub trusted_proxies: Vec<IpNet>,
}

/// The shortest interval that a hidden tab keeps, with its timers slowed to one a minute.
const HIDDEN_TAB: Duration = Duration::from_secs(65);

const DEFAULT_PATH: &str = "/waiting-queue";

impl Default for Queue {
    fn default() -> Self {
        Self {
            path: DEFAULT_PATH.to_owned(),
            state_interval: Duration::from_secs(15),
            release_per_second: 0,
            live_ttl: Duration::from_hours(24),
            heart_beat: Duration::from_secs(10),
            client_heart_beat: Duration::from_secs(75),
            connect_timeout: Duration::from_secs(10),
            reconnect_grace: Duration::from_secs(90),
            max_per_token: 10_000,
            max_per_address: 10_000,
            trusted_proxies: [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
                .map(|address: IpAddr| address.into())
                .to_vec(),
        }
    }
}

/// A process has fewer sockets than the maximum.
type Waiting = Number<1, 10_000_000>;

impl Queue {
    pub(super) fn read(read: &mut Reader<'_>) -> Self {
        let mut it = Self::default();
        read.set::<QueuePath, _>("queue.path", &mut it.path);
        read.set::<Time<MILLISECOND, HOUR>, _>("queue.state_interval", &mut it.state_interval);
        read.set::<Number<0, 100_000>, _>("queue.release_per_second", &mut it.release_per_second);
        read.set::<Time<MILLISECOND, { 30 * DAY }>, _>("queue.live_ttl", &mut it.live_ttl);
        read.set::<Time<SECOND, { 10 * MINUTE }>, _>("queue.heart_beat", &mut it.heart_beat);
        if read.origin("queue.heart_beat").is_some() {
            // The key meant both directions before there was another for clients.
            it.client_heart_beat = it.heart_beat;
        }
        read.set::<ClientHeartBeat, _>("queue.client_heart_beat", &mut it.client_heart_beat);
        read.set::<Time<MILLISECOND, MINUTE>, _>("queue.connect_timeout", &mut it.connect_timeout);
        read.set::<Time<0, { 10 * MINUTE }>, _>("queue.reconnect_grace", &mut it.reconnect_grace);
        read.set::<Waiting, _>("queue.max_per_token", &mut it.max_per_token);
        read.set::<Waiting, _>("queue.max_per_address", &mut it.max_per_address);
        read.set_list::<Proxy, _>("queue.trusted_proxies", &mut it.trusted_proxies);
        it
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let interval = self.client_heart_beat;
        if interval.is_zero() || interval >= HIDDEN_TAB {
            return Vec::new();
        }
        vec![format!(
            "queue.client_heart_beat is {}: hidden browser tabs send one a minute and lose their connections; set it to \"75s\"",
            humantime::format_duration(interval)
        )]
    }

    /// Whether `address` is one of [`Queue::trusted_proxies`].
    pub fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|proxy| proxy.contains(&address))
    }

    pub(super) fn keep_fixed(&self, new: &mut Self, fixed: &mut Fixed) {
        fixed.keep("queue.path", &self.path, &mut new.path);
        fixed.keep(
            "queue.trusted_proxies",
            &self.trusted_proxies,
            &mut new.trusted_proxies,
        );
    }
}

/// The interval of a client's heart-beats, or zero for none.
#[derive(Debug)]
struct ClientHeartBeat(Duration);

impl<'de> Deserialize<'de> for ClientHeartBeat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let interval = Time::<0, { 10 * MINUTE }>::deserialize(deserializer)?.into();
        if interval == Duration::ZERO || interval >= Duration::from_millis(SECOND) {
            return Ok(Self(interval));
        }
        Err(de::Error::custom(Invalid::new(
            format!("\"{}\" is too short", humantime::format_duration(interval)),
            "Choose from \"1s\" to \"10m\", or \"0s\" for none.",
        )))
    }
}

impl From<ClientHeartBeat> for Duration {
    fn from(interval: ClientHeartBeat) -> Self {
        interval.0
    }
}

/// First parts of paths that usher's other routes own.
const RESERVED_PATHS: [&str; 6] = ["conference", "api", "health", "ready", "about", "metrics"];

text_value!(QueuePath(String), queue_path);

fn queue_path(path: String) -> Result<String, Invalid> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let fits = |part: &&str| {
        !matches!(*part, "" | "." | "..")
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    let normalized = format!("/{}", parts.join("/"));
    let (message, hint) = if path.trim_matches('/').is_empty() {
        (
            "would be every path".to_owned(),
            format!("Write \"{DEFAULT_PATH}\"."),
        )
    } else if !parts.iter().all(fits) {
        (
            format!("{path:?} is not a path"),
            "Use letters, digits, \"-\", \".\", \"_\" and \"~\" between single slashes.".to_owned(),
        )
    } else if let Some(taken) = RESERVED_PATHS.iter().find(|taken| parts[0] == **taken) {
        (
            format!("/{taken} belongs to another part of usher"),
            format!("Write \"{DEFAULT_PATH}\" or another path."),
        )
    } else if path != normalized {
        (
            format!("{path:?} must begin with one slash and end without one"),
            format!("Write \"{normalized}\"."),
        )
    } else {
        return Ok(path);
    };
    Err(Invalid::new(message, hint))
}

text_value!(Proxy(IpNet), proxy);

fn proxy(text: String) -> Result<IpNet, Invalid> {
    let address = || {
        text.parse()
            .map(|address: IpAddr| address.to_canonical().into())
    };
    let network = || text.parse().map(|network: IpNet| network.trunc());
    let Some(network) = address().ok().or_else(|| network().ok()) else {
        return Err(Invalid::new(
            format!("{text:?} is not an IP address or network"),
            "Write the address or the network of each proxy, like \"192.0.2.7\" or \"172.16.0.0/12\".",
        ));
    };
    if network.prefix_len() == 0 {
        return Err(Invalid::new(
            format!("{text:?} trusts every client to name its own address"),
            "Write the address or the network of each proxy.",
        ));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::super::value::tests::{decoded, rejects};
    use super::*;

    #[test]
    fn queue_path_has_single_slashes_and_is_not_used_by_other_routes() {
        assert_eq!(decoded::<QueuePath>("'/a/b'").unwrap().0, "/a/b");
        rejects::<QueuePath>(&[
            ("''", "is empty", "Give it a value"),
            ("'/'", "every path", "\"/waiting-queue\""),
            ("'queue'", "one slash", "Write \"/queue\"."),
            ("'/queue/'", "one slash", "Write \"/queue\"."),
            ("'/a//b'", "not a path", "single slashes"),
            ("'/../b'", "not a path", "single slashes"),
            ("'/a?b'", "not a path", "letters, digits"),
            (
                "'/conference'",
                "belongs to another part",
                "\"/waiting-queue\"",
            ),
            ("'/api/queue'", "/api belongs", "\"/waiting-queue\""),
            ("'/health'", "/health belongs", "another path"),
        ]);
    }

    #[test]
    fn proxy_is_an_address_or_a_network() {
        for (text, network) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::7", "2001:db8::7/128"),
            ("172.18.0.3/12", "172.16.0.0/12"),
            ("fd00::/8", "fd00::/8"),
        ] {
            let proxy = decoded::<Proxy>(&format!("'{text}'")).unwrap();
            assert_eq!(proxy.0.to_string(), network, "{text}");
        }
        rejects::<Proxy>(&[
            ("'proxy.example.com'", "not an IP address", "192.0.2.7"),
            (
                "'192.0.2.0/33'",
                "not an IP address or network",
                "172.16.0.0/12",
            ),
            ("'0.0.0.0/0'", "every client", "network of each proxy"),
        ]);
    }
}
