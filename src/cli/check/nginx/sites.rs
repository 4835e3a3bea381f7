//! The few values of nginx's configuration that can't be probed: where the domain's servers listen, and how many
//! connections nginx can hold.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use usher::config::Config;

use super::super::finding::Finding;

/// nginx's own default of `worker_connections`.
const WORKER_CONNECTIONS: u64 = 512;

/// Where a server of the domain listens, as this machine reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
}

/// The domain of another deployment of Jitsi Meet in what `nginx -T` prints, if there is none of this domain.
pub(super) fn other_deployment(domain: &str, text: &str) -> Option<String> {
    let text = without_comments(text);
    let servers = servers(&text);
    let names = |server| values(server, "server_name").flat_map(str::split_whitespace);
    if servers
        .iter()
        .any(|server| names(server).any(|name| is_name_of(domain, name)))
    {
        return None;
    }
    let is_jitsi = |server: &&str| {
        ["http-bind", "xmpp-websocket", "/etc/jitsi/meet/"]
            .iter()
            .any(|mark| server.contains(mark))
    };
    let others = servers.iter().filter(|server| is_jitsi(server));
    let mut others = others.flat_map(|server| names(server));
    let other = others.find(|name| !matches!(*name, "_" | "localhost" | "\"\""))?;
    Some(other.to_owned())
}

/// Whether a `server_name` stands for a domain.
fn is_name_of(domain: &str, name: &str) -> bool {
    let parent = name.strip_prefix("*.").or(name.strip_prefix('.'));
    name.eq_ignore_ascii_case(domain)
        || name.strip_prefix('.') == Some(domain)
        || parent.is_some_and(|parent| domain.ends_with(&format!(".{parent}")))
}

/// The sites of a domain in what `nginx -T` prints, those with TLS first: the servers named after it, else those that
/// serve every name.
pub(super) fn of_domain(domain: &str, text: &str) -> Vec<Site> {
    let text = without_comments(text);
    let servers = servers(&text);
    let named = |is_wanted: &dyn Fn(&str) -> bool| -> Vec<Site> {
        let matching = servers.iter().filter(|server| {
            let names = values(server, "server_name");
            names.flat_map(str::split_whitespace).any(is_wanted)
        });
        matching.flat_map(|server| listens(server)).collect()
    };
    let mut sites = named(&|name| is_name_of(domain, name));
    if sites.is_empty() {
        sites = named(&|name| name == "_");
    }
    sites.sort_by_key(|site| !site.tls);
    sites
}

/// How many connections nginx can hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    worker_connections: u64,
    worker_rlimit_nofile: Option<u64>,
    /// The limit of the running processes.
    open_files: Option<u64>,
}

impl Capacity {
    pub(super) fn read(text: &str, open_files: Option<u64>) -> Self {
        let text = without_comments(text);
        let number = |name| {
            values(&text, name)
                .next()
                .and_then(|it| it.trim().parse().ok())
        };
        Self {
            worker_connections: number("worker_connections").unwrap_or(WORKER_CONNECTIONS),
            worker_rlimit_nofile: number("worker_rlimit_nofile"),
            open_files,
        }
    }

    /// A waiting visitor is one connection to nginx and one from nginx to usher; each is an open file.
    pub(super) fn finding(&self, config: &Config) -> Option<Finding> {
        let about = "nginx's connections";
        let max = u64::try_from(config.server.max_connections).unwrap_or(u64::MAX);
        let required = max.saturating_mul(2);
        if self.worker_connections < required {
            let message = format!(
                "worker_connections is {}: room for {} waiting visitors a worker, where usher's server.max_connections is {max}",
                self.worker_connections,
                self.worker_connections / 2
            );
            return Some(Finding::note(about, message).hint(format!(
                "for crowds, set worker_connections {required}; and worker_rlimit_nofile {}; in nginx.conf",
                required + 100
            )));
        }
        let (what, files) = match (self.worker_rlimit_nofile, self.open_files) {
            (Some(files), _) => ("worker_rlimit_nofile is", files),
            (None, files) => ("the limit of its open files is", files?),
        };
        (files < required).then(|| {
            let message = format!(
                "{what} {files}: room for {} waiting visitors a worker, where usher's server.max_connections is {max}",
                files / 2
            );
            let hint = format!("set worker_rlimit_nofile {}; in nginx.conf", required + 100);
            Finding::note(about, message).hint(hint)
        })
    }
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let comment = line.match_indices('#').find(|(at, _)| {
            let before = line[..*at].chars().next_back();
            before.is_none_or(|c| c.is_whitespace() || matches!(c, ';' | '{' | '}'))
        });
        comment.map_or(line, |(at, _)| &line[..at])
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The insides of all `server { … }`.
fn servers(text: &str) -> Vec<&str> {
    let starts = text.match_indices("server").filter_map(|(at, word)| {
        let before = text[..at].chars().next_back();
        let is_word = before.is_none_or(|c| c.is_whitespace() || matches!(c, ';' | '{' | '}'));
        let rest = text[at + word.len()..].trim_start();
        rest.strip_prefix('{').filter(|_| is_word)
    });
    let inside = |text| {
        let mut depth = 1;
        let end = str::find(text, |c| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0
        });
        end.map_or(text, |end| &text[..end])
    };
    starts.map(inside).collect()
}

/// What follows a directive's name, each time it stands in the text.
fn values<'t>(text: &'t str, name: &'static str) -> impl Iterator<Item = &'t str> {
    let statements = text.split([';', '{', '}']).map(str::trim_start);
    statements.filter_map(move |statement| {
        let rest = statement.strip_prefix(name)?;
        rest.starts_with(char::is_whitespace).then_some(rest)
    })
}

fn listens(server: &str) -> Vec<Site> {
    let mut sites: Vec<Site> = values(server, "listen").filter_map(listen).collect();
    if values(server, "listen").next().is_none() {
        sites.extend(listen("80"));
    }
    sites
}

/// A `listen` as this machine reaches it. Sockets in the file system and QUIC can't be probed.
fn listen(value: &str) -> Option<Site> {
    let mut words = value.split_whitespace();
    let address = words.next()?;
    let flags: Vec<&str> = words.collect();
    if flags.contains(&"quic") {
        return None;
    }
    let address = match address.parse::<SocketAddr>() {
        Ok(address) => address,
        Err(_) => {
            let (host, port) = address.rsplit_once(':').unwrap_or(("*", address));
            let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port.parse().ok()?);
            (matches!(host, "*" | "localhost")).then_some(any)?
        }
    };
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Some(Site {
        address: SocketAddr::new(ip, address.port()),
        tls: flags.contains(&"ssl"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::*;

    fn site(address: &str, tls: bool) -> Site {
        Site {
            address: address.parse().unwrap(),
            tls,
        }
    }

    fn sites(text: &str) -> Vec<Site> {
        of_domain("meet.example.com", text)
    }

    #[test]
    fn servers_of_the_domain_are_found_with_tls_first() {
        let text = r#"
            # configuration file /etc/nginx/nginx.conf:
            http { map $a ${b} { default 'a;'; } # server { server_name meet.example.com; listen 1; }
            server { server_name other.example.org; listen 444 ssl; }
            server { listen 80; listen [::]:80; server_name meet.example.com; location / { return 301 https://$host$request_uri; } }
            server {
                listen 4444 ssl http2;
                listen [::]:443 ssl;
                listen unix:/run/nginx.sock; listen 443 quic;
                server_name www.example.com
                    meet.example.com;
                location ~ ^/([^/?&:'"]+)/(.*)$ { set $subdomain "$1."; }
                listen 127.0.0.1:9443 ssl;
            } }
        "#;
        let expected = [
            site("127.0.0.1:4444", true),
            site("[::1]:443", true),
            site("127.0.0.1:9443", true),
            site("127.0.0.1:80", false),
            site("[::1]:80", false),
        ];
        assert_eq!(sites(text), expected);
    }

    #[test]
    fn a_server_may_be_named_by_a_pattern_or_serve_every_name() {
        for name in ["_", "*.example.com", ".meet.example.com", ".example.com"] {
            let text = format!("server {{ server_name {name}; listen *:81; }}");
            assert_eq!(sites(&text), [site("127.0.0.1:81", false)], "{name}");
        }
        assert_eq!(sites("server{server_name example.org;}"), []);
        let both = "server{server_name _;listen 1;} server{server_name meet.example.com;}";
        assert_eq!(sites(both), [site("127.0.0.1:80", false)]);
    }

    #[test]
    fn another_deployment_is_found_by_what_its_server_passes_on() {
        let other = |text: &str| other_deployment("meet.example.com", text);
        let jitsi = "server { server_name meet.example.org; location = /http-bind {} }";
        assert_eq!(other(jitsi).as_deref(), Some("meet.example.org"));
        let blog = "server { server_name blog.example.org; root /srv; }";
        assert_eq!(other(blog), None);
        assert_eq!(
            other("server { server_name _; location = /http-bind {} }"),
            None
        );
        let both = format!("{jitsi} server {{ server_name meet.example.com; }}");
        assert_eq!(other(&both), None);
    }

    #[test]
    fn too_few_connections_are_a_note() {
        let mut config = Config::default();
        config.server.max_connections = 1000;
        let state = |text: &str| {
            let finding = Capacity::read(text, None).finding(&config);
            finding.map(|it| (it.state, it.hint.is_some()))
        };
        let note = Some((State::Note, true));
        assert_eq!(state(""), note);
        assert_eq!(state("events { worker_connections 1999; }"), note);
        assert_eq!(state("events { worker_connections 2000; }"), None);
        let few = "worker_rlimit_nofile 1024; events { worker_connections 2000; }";
        assert_eq!(state(few), note);
        let enough = "worker_rlimit_nofile 2000; events { worker_connections 2000; }";
        assert_eq!(state(enough), None);
        assert_eq!(
            state("#worker_rlimit_nofile 1;\nworker_connections 2000;"),
            None
        );
        let running = |text: &str, files| {
            let finding = Capacity::read(text, Some(files)).finding(&config);
            finding.map(|it| it.state)
        };
        let text = "worker_connections 2000;";
        assert_eq!(running(text, 1024), Some(State::Note));
        assert_eq!(running(text, 2000), None);
        let own = "worker_rlimit_nofile 4000; worker_connections 2000;";
        assert_eq!(running(own, 1024), None);
    }
}
