//! What a reload can't change.

use super::{Config, Log, Queue};

impl Config {
    /// The keys whose values differ in `new` and count from the next start only. All others count from a
    /// reload on.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let differs = [
            ("server.listen", self.server.listen != new.server.listen),
            (
                "server.shutdown_grace",
                self.server.shutdown_grace != new.server.shutdown_grace,
            ),
            (
                "server.max_connections",
                self.server.max_connections != new.server.max_connections,
            ),
            ("log.format", self.log.format != new.log.format),
            ("database.url", self.database.url != new.database.url),
            ("xmpp.domain", self.xmpp.domain != new.xmpp.domain),
            (
                "xmpp.muc_prefix",
                self.xmpp.muc_prefix != new.xmpp.muc_prefix,
            ),
            (
                "reservations",
                self.reservations_in_full() != new.reservations_in_full(),
            ),
            ("queue.path", self.queue.path != new.queue.path),
            (
                "queue.trusted_proxies",
                self.queue.trusted_proxies != new.queue.trusted_proxies,
            ),
        ];
        let names = differs.iter().filter(|(_, differs)| *differs);
        names.map(|(name, _)| *name).collect()
    }

    /// What counts once `new` was read while this one runs: what needs a restart is as it was.
    #[must_use]
    pub fn reloaded(&self, new: Self) -> Self {
        let now = self.clone();
        Self {
            server: now.server,
            log: Log {
                format: now.log.format,
                ..new.log
            },
            database: now.database,
            xmpp: now.xmpp,
            reservations: now.reservations,
            queue: Queue {
                path: now.queue.path,
                trusted_proxies: now.queue.trusted_proxies,
                ..new.queue
            },
            ..new
        }
    }

    /// All of `[reservations]`, to be compared and for nothing else: there are secrets in it.
    fn reservations_in_full(&self) -> (String, Vec<&str>) {
        let upstream = self.reservations.upstream.iter();
        let secrets = upstream.flat_map(|it| it.headers.values().map(super::Secret::expose));
        (format!("{:?}", self.reservations), secrets.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parsed(text: &str) -> Config {
        Config::parse(text, "test", Path::new(""), []).unwrap()
    }

    #[test]
    fn what_needs_a_restart_is_named_and_stays_as_it_was() {
        let old = parsed("");
        let new = parsed(
            "server.listen = \"127.0.0.1:9\"\nserver.max_connections = 7\nxmpp.domain = \"other.example.com\"\n\
             log.format = \"json\"\nreservations.policy = \"booked\"\nqueue.path = \"/other\"\n\
             log.level = \"debug\"\nqueue.max_per_token = 3\nauth.service.issuers = [\"other\"]\n",
        );
        let named = old.needs_restart(&new);
        let needing = [
            "server.listen",
            "server.max_connections",
            "log.format",
            "xmpp.domain",
            "reservations",
            "queue.path",
        ];
        assert_eq!(named, needing);
        let now = old.reloaded(new.clone());
        assert!(old.needs_restart(&now).is_empty());
        assert_eq!(
            now.needs_restart(&new),
            needing,
            "and named again next time"
        );
        assert_eq!(now.queue.max_per_token, 3);
        assert_eq!(now.auth.service.issuers, ["other"]);
        assert_eq!(now.log.level, crate::config::LogLevel::Debug);
    }

    #[test]
    fn a_changed_header_of_the_upstream_is_noticed_though_it_is_not_shown() {
        let with = |secret: &str| {
            parsed(&format!(
                "[reservations]\nbackend = \"upstream\"\n[reservations.upstream]\nurl = \"http://127.0.0.1:9\"\nheaders = {{ x = \"{secret}\" }}\n"
            ))
        };
        assert_eq!(with("one").needs_restart(&with("two")), ["reservations"]);
        assert!(with("one").needs_restart(&with("one")).is_empty());
    }
}
