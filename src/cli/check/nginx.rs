//! nginx: does it hand the queue's path to usher, and conference requests to jicofo? It prints its whole
//! configuration, with all that is included, itself.

mod statement;

use std::path::Path;

use usher::config::Config;

use super::finding::Finding;
use super::program;
use statement::{Statement, configuration, directive, location, servers_of};

const ABOUT: &str = "nginx";
/// What jicofo is asked for conferences at, and what its site passes on with it.
const CONFERENCE_REQUESTS: [&str; 2] = ["/conference-request/v1", "/conference-request/v1/x"];
const INCLUDE: &str = "include /etc/jitsi/meet/jaas/*.conf;";

/// What was seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) findings: Vec<Finding>,
    /// Whether `/conference-request/v1` reaches jicofo, where that can be told.
    pub(super) passes_conference_requests: Option<bool>,
}

impl Seen {
    fn only(finding: Finding) -> Self {
        Self {
            findings: vec![finding],
            passes_conference_requests: None,
        }
    }
}

/// Looks at the nginx of this machine, or at the configuration in `file`.
pub(super) async fn look(file: Option<&Path>, config: &Config) -> Seen {
    let Some(nginx) = program::find("nginx") else {
        return Seen::only(Finding::not_here(
            ABOUT,
            "it is not installed on this machine",
        ));
    };
    let file = file.map(|file| file.display().to_string());
    let mut arguments = vec!["-T", "-q"];
    if let Some(file) = &file {
        arguments.extend(["-c", file]);
    }
    match program::output(&nginx, &arguments).await {
        Ok(text) => judge(&text, config),
        Err(error) => Seen::only(
            Finding::failed(ABOUT, format!("its configuration can't be read: {error}"))
                .remedy("run usher check as root; if nginx -t fails, too, put right what it names"),
        ),
    }
}

fn judge(text: &str, config: &Config) -> Seen {
    let domain = &config.xmpp.domain;
    let everything = configuration(text);
    let servers = servers_of(domain, &everything);
    if servers.is_empty() {
        let says = format!("it has no server for {domain}");
        return Seen::only(Finding::not_here(ABOUT, says));
    }
    let passes = |path: &str| {
        let answers = servers.iter().filter_map(|server| location(server, path));
        let mut blocks = answers.map(|location| &location.block);
        blocks.any(|block| directive(block, "proxy_pass").is_some())
    };
    Seen {
        findings: vec![queue(&servers, config)],
        passes_conference_requests: Some(CONFERENCE_REQUESTS.into_iter().any(passes)),
    }
}

/// How the queue fares in the one of these servers that has its path: another may only send people to HTTPS.
fn queue(servers: &[&Statement], config: &Config) -> Finding {
    let path = &config.queue.path;
    let asked = format!("{path}/visitor/websocket");
    let found = servers.iter().find_map(|server| {
        let location = location(server, &asked)?;
        directive(&location.block, "proxy_pass").map(|target| (location, target))
    });
    let Some((location, target)) = found else {
        return Finding::failed(
            ABOUT,
            format!("no location passes {path} on: visitors can't reach the queue"),
        )
        .remedy(format!(
            "put `{INCLUDE}` into the server block of {}, then: systemctl reload nginx",
            config.xmpp.domain
        ));
    };
    let port = config.server.listen.port();
    if !target.trim_end_matches('/').ends_with(&format!(":{port}")) {
        let says = format!(
            "{path} goes to \"{target}\", but usher listens on {}",
            config.server.listen
        );
        return Finding::failed(ABOUT, says).remedy(format!(
            "let a location ^~ {path}/ have proxy_pass http://{};",
            config.server.listen
        ));
    }
    let upgrades = location.block.iter().any(|it| {
        let mut words = it.words.iter();
        words.next().is_some_and(|word| word == "proxy_set_header")
            && words
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case("upgrade"))
    });
    if !upgrades {
        return Finding::failed(ABOUT, format!("the location of {path} passes no WebSocket on")).remedy(
            "add: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";",
        );
    }
    Finding::ok(ABOUT, format!("{path} goes to {target}"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn judged(server: &str) -> (State, Option<bool>) {
        let text =
            format!("server {{\nlisten 443 ssl; server_name meet.example.com;\n{server}\n}}\n");
        let seen = judge(&text, &Config::default());
        (seen.findings[0].state, seen.passes_conference_requests)
    }

    const QUEUE: &str = "location ^~ /waiting-queue/ {\n proxy_pass http://127.0.0.1:8060;\n proxy_set_header Upgrade $http_upgrade;\n}";
    /// As Jitsi's own site has it, behind the locations of its tenants.
    const REQUESTS: &str = r#"
        location ~ ^/([^/?&:'"]+)/conference-request/v1(\/.*)?$ {
            rewrite ^/([^/?&:'"]+)/conference-request/v1(\/.*)?$ /conference-request/v1$2;
        }
        location ~ ^/conference-request/v1(\/.*)?$ { proxy_pass http://127.0.0.1:8888/conference-request/v1$1; }
        location ~ ^/([^/?&:'"]+)/(.*)$ { set $subdomain "$1."; rewrite ^/([^/?&:'"]+)/(.*)$ /$2; }
    "#;

    #[test]
    fn location_of_the_queue_is_found_and_judged() {
        assert_eq!(judged(QUEUE), (State::Ok, Some(false)));
        assert_eq!(judged(&QUEUE.replace('\n', " ")), (State::Ok, Some(false)));
        assert_eq!(judged(&format!("{REQUESTS}{QUEUE}")).0, State::Ok);
        for bad in [
            String::new(),
            format!("#{}", QUEUE.replace('\n', " ")),
            QUEUE.replace("8060", "8080"),
            QUEUE.replace("Upgrade ", "Nothing "),
            // One of the patterns of Jitsi's site takes it away.
            format!("{REQUESTS}{}", QUEUE.replace("^~ ", "")),
        ] {
            assert_eq!(judged(&bad).0, State::Failed, "{bad}");
        }
    }

    #[test]
    fn conference_requests_pass_where_the_location_that_answers_proxies_them() {
        let open = "location = /conference-request/v1 {\n proxy_pass http://127.0.0.1:8888/conference-request/v1;\n}";
        assert_eq!(judged(open).1, Some(true));
        assert_eq!(judged(REQUESTS).1, Some(true));
        for closing in ["", "= /conference-request/v1", "/conference-request/v1"] {
            let closed = format!("location {closing} {{ return 404; }}");
            let open = format!("{REQUESTS}{closed}");
            assert_eq!(
                judged(&open).1,
                Some(true),
                "beside or beneath it: {closing}"
            );
        }
        let closed = "location ^~ /conference-request/v1 { return 404; }";
        for order in [format!("{REQUESTS}{closed}"), format!("{closed}{REQUESTS}")] {
            assert_eq!(judged(&order).1, Some(false));
        }
    }

    #[test]
    fn only_servers_of_the_domain_count() {
        let other = |server: &str| format!("server {{ server_name other.example.org; {server} }}");
        assert_eq!(
            judged(&format!("}} {} server {{", other(REQUESTS))).1,
            Some(false)
        );
        assert_eq!(
            judged(&format!("}} {} server {{", other(QUEUE))).0,
            State::Failed
        );
        // The one that sends people to HTTPS, and a map with braces in its variables.
        let http = "http { map $a ${b} { default 'a;}'; } server { server_name meet.example.com; location / { return 301 https://$host$request_uri; } }";
        let text = format!(
            "{http} server {{ server_name other.example.org meet.example.com; {QUEUE} }} }}"
        );
        assert_eq!(
            judge(&text, &Config::default()).findings[0].state,
            State::Ok
        );
        for name in ["_", "*.example.com", ".meet.example.com"] {
            let text = format!("server {{ server_name {name}; {QUEUE} }}");
            let seen = judge(&text, &Config::default());
            assert_eq!(seen.findings[0].state, State::Ok, "{name}");
        }
    }

    #[test]
    fn included_files_stand_where_they_are_included() {
        let text = format!(
            "# configuration file /etc/nginx/nginx.conf:\nhttp {{\n include sites-enabled/*;\n}}\n\n\
             # configuration file /etc/nginx/sites-enabled/a:\n\
             server {{ server_name a.example.org; include /etc/other/*.conf; }}\n\
             # configuration file /etc/other/requests.conf:\n{REQUESTS}\n\
             # configuration file /etc/nginx/sites-enabled/meet:\n\
             server {{\n server_name meet.example.com;\n include /etc/jitsi/meet/jaas/*.conf;\n}}\n\
             # configuration file /etc/jitsi/meet/jaas/usher.conf:\n{QUEUE}\n"
        );
        let seen = judge(&text, &Config::default());
        assert_eq!(seen.findings[0].state, State::Ok, "{seen:?}");
        assert_eq!(seen.passes_conference_requests, Some(false));
        let gone = judge(
            &text.replace("jaas/*.conf;", "jaas/x*.conf;"),
            &Config::default(),
        );
        assert_eq!(gone.findings[0].state, State::Failed);
    }

    #[test]
    fn nginx_of_other_sites_is_not_here() {
        let seen = judge("server { server_name example.org; }", &Config::default());
        assert_eq!(seen.findings[0].state, State::NotHere);
    }
}
