//! `[server]`: the socket of Prosody, nginx and the operator.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::auth::Auth;
use super::input::Invalid;
use super::reader::Reader;
use super::reload::Fixed;
use super::value::{MINUTE, Number, Time, text_value};

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// IP address and port to listen on. Another address than the machine's own requires a secret, a key or a
    /// service token: without one, every host that reaches usher could start conferences. Port 0 selects any
    /// free port.
    pub listen: SocketAddr,
    /// How long a stop waits for running requests: at most `10m`. Keep it below systemd's `TimeoutStopSec`
    /// (90 s by default).
    pub shutdown_grace: Duration,
    /// The maximum number of open connections. Each waiting visitor is one connection and uses one file
    /// descriptor: stay a few hundred below the limit of open files (`LimitNOFILE`). One twentieth of the
    /// connections, at most 100, is reserved for requests; further WebSockets get 503.
    pub max_connections: usize,
    /// The maximum number of open connections per address that are not WebSockets; an IPv6 address counts by its
    /// first 64 bits. The loopback address and `queue.trusted_proxies` are not limited. Of all connections, at most
    /// an eighth are not WebSockets; at that bound, idle and silent ones end.
    pub max_per_address: u32,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT),
            shutdown_grace: Duration::from_secs(5),
            // A limit of 20000 open files, less a thousand for the database, the log and outgoing requests.
            max_connections: 19_000,
            max_per_address: 1_000,
        }
    }
}

const DEFAULT_PORT: u16 = 8060;

impl Server {
    pub(super) fn read(read: &mut Reader<'_>) -> Self {
        let mut it = Self::default();
        read.set::<ListenAddress, _>("server.listen", &mut it.listen);
        read.set::<Time<0, { 10 * MINUTE }>, _>("server.shutdown_grace", &mut it.shutdown_grace);
        read.set::<Number<1, 1_000_000>, _>("server.max_connections", &mut it.max_connections);
        read.set::<Number<1, 1_000_000>, _>("server.max_per_address", &mut it.max_per_address);
        it
    }

    /// On another address than the machine's own, services must present a token that can be verified: they
    /// may start conferences and end the waiting of visitors.
    pub(super) fn check_listen_is_protected(&self, auth: &Auth, read: &mut Reader<'_>) {
        let local = self.listen.ip().to_canonical().is_loopback();
        let verifiable = auth.any_key() || !auth.service.tokens.is_empty();
        // A credential that has an issue of its own is not missing.
        let given = Auth::CREDENTIALS.iter().any(|key| read.has_issue(key));
        if local || verifiable || given {
            return;
        }
        if let Some(origin) = read.origin("server.listen") {
            let invalid = Invalid::new(
                format!(
                    "other machines can reach {}, but no service token can be verified",
                    self.listen
                ),
                format!(
                    "Set auth.service.tokens (or tokens_file) or auth.secret (or secret_file), \
                     or listen on \"127.0.0.1:{}\".",
                    self.listen.port()
                ),
            );
            read.report(&origin, invalid);
        }
    }

    pub(super) fn keep_fixed(&self, new: &mut Self, fixed: &mut Fixed) {
        fixed.keep("server.listen", &self.listen, &mut new.listen);
        fixed.keep(
            "server.shutdown_grace",
            &self.shutdown_grace,
            &mut new.shutdown_grace,
        );
        fixed.keep(
            "server.max_connections",
            &self.max_connections,
            &mut new.max_connections,
        );
        fixed.keep(
            "server.max_per_address",
            &self.max_per_address,
            &mut new.max_per_address,
        );
    }
}

text_value!(ListenAddress(SocketAddr), listen_address);

fn listen_address(text: String) -> Result<SocketAddr, Invalid> {
    text.parse().map_err(|_| {
        Invalid::new(
            format!("{text:?} is not an IP address with a port"),
            format!("Write it as \"{}\".", suggested_address(&text)),
        )
    })
}

/// The address that a text probably stands for.
fn suggested_address(text: &str) -> SocketAddr {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = port.parse().ok();
    let host = host.trim_start_matches("http://");
    // Without brackets the last part of an IPv6 address may be meant as the port: "::1:8060".
    if let (Ok(address), Some(port)) = (host.parse::<IpAddr>(), port) {
        return SocketAddr::new(address, port);
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse() {
        return SocketAddr::new(address, DEFAULT_PORT);
    }
    let ip = match host {
        "*" => Ipv4Addr::UNSPECIFIED.into(),
        _ => host
            .trim_matches(['[', ']'])
            .parse()
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    };
    SocketAddr::new(ip, port.unwrap_or(DEFAULT_PORT))
}

#[cfg(test)]
mod tests {
    use super::super::value::tests::rejects;
    use super::*;

    #[test]
    fn listen_that_is_no_address_gets_the_nearest_one_suggested() {
        rejects::<ListenAddress>(&[
            ("'abc'", "\"abc\" is not", "\"127.0.0.1:8060\""),
            ("'localhost:9'", "\"localhost:9\"", "\"127.0.0.1:9\""),
            ("':9'", "\":9\"", "\"127.0.0.1:9\""),
            ("'8061'", "\"8061\"", "\"127.0.0.1:8061\""),
            ("'::1'", "\"::1\"", "\"[::1]:8060\""),
            ("'10.0.0.1'", "\"10.0.0.1\"", "\"10.0.0.1:8060\""),
            ("'::1:8060'", "\"::1:8060\"", "\"[::1]:8060\""),
            ("'2001:db8::1:80'", "is not", "\"[2001:db8::1]:80\""),
            ("'2001:db8::80'", "is not", "\"[2001:db8::80]:8060\""),
            ("'[::1]'", "is not", "\"[::1]:8060\""),
            ("'[::1]:80600'", "is not", "\"[::1]:8060\""),
            ("'*:80'", "is not", "\"0.0.0.0:80\""),
            ("'10.0.0.1:80600'", "is not", "\"10.0.0.1:8060\""),
            ("'http://10.0.0.1:80'", "is not", "\"10.0.0.1:80\""),
        ]);
    }
}
