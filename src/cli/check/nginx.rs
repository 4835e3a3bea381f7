//! nginx: does it hand the queue's path to usher, and conference requests to jicofo? It prints its whole
//! configuration, with all that is included, itself.

use std::path::Path;

use usher::config::Config;

use super::finding::Finding;
use super::program;

const ABOUT: &str = "nginx";
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
    let text: Vec<&str> = text.lines().map(without_comment).collect();
    let domain = &config.xmpp.domain;
    let serves = |statement: &str| {
        let mut words = statement.split_whitespace();
        words.next() == Some("server_name") && words.any(|name| name == domain)
    };
    if !statements(&text).any(serves) {
        let says = format!("it has no server for {domain}");
        return Seen::only(Finding::not_here(ABOUT, says));
    }
    let requests = location(&text, "conference-request");
    Seen {
        findings: vec![queue(&text, config)],
        passes_conference_requests: Some(
            requests.is_some_and(|block| directive(&block, "proxy_pass").is_some()),
        ),
    }
}

fn queue(text: &[&str], config: &Config) -> Finding {
    let path = &config.queue.path;
    let Some(block) = location(text, path) else {
        return Finding::failed(
            ABOUT,
            format!("no location has {path}: visitors can't reach the queue"),
        )
        .remedy(format!(
            "put `{INCLUDE}` into the server block of {}, then: systemctl reload nginx",
            config.xmpp.domain
        ));
    };
    let port = config.server.listen.port();
    let target = directive(&block, "proxy_pass").unwrap_or_default();
    if !target.trim_end_matches('/').ends_with(&format!(":{port}")) {
        let says = format!(
            "{path} goes to \"{target}\", but usher listens on {}",
            config.server.listen
        );
        return Finding::failed(ABOUT, says)
            .remedy(format!("write proxy_pass http://{};", config.server.listen));
    }
    if directive(&block, "proxy_set_header Upgrade").is_none() {
        return Finding::failed(ABOUT, format!("the location {path} passes no WebSocket on")).remedy(
            "add: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";",
        );
    }
    Finding::ok(ABOUT, format!("{path} goes to {target}"))
}

fn without_comment(line: &str) -> &str {
    line.split_once('#').map_or(line, |(code, _)| code)
}

/// The lines of the first location whose pattern has `path` in it, its head among them.
fn location<'t>(text: &[&'t str], path: &str) -> Option<Vec<&'t str>> {
    let is_head = |line: &str| {
        let line = line.trim_start();
        line.starts_with("location ") && line.contains(path)
    };
    let start = text.iter().position(|line| is_head(line))?;
    let mut depth = 0_i32;
    let mut block = Vec::new();
    for line in text.iter().skip(start) {
        block.push(*line);
        for letter in line.chars() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
        }
        if depth == 0 && line.contains('}') {
            break;
        }
    }
    Some(block)
}

/// What follows a directive's name in a block.
fn directive<'t>(block: &[&'t str], name: &str) -> Option<&'t str> {
    let mut values = statements(block).filter_map(|statement| statement.strip_prefix(name));
    values.next().map(str::trim)
}

/// Statements of a line each; several may share one.
fn statements<'t>(lines: &[&'t str]) -> impl Iterator<Item = &'t str> {
    let split = lines.iter().flat_map(|line| line.split(['{', ';', '}']));
    split.map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn judged(server: &str) -> (State, Option<bool>) {
        let text =
            format!("server {{\nlisten 443 ssl; server_name meet.example.com;\n{server}\n}}\n");
        let seen = judge(&text, &Config::embedded());
        (seen.findings[0].state, seen.passes_conference_requests)
    }

    #[test]
    fn location_of_the_queue_is_found_and_judged() {
        let good = "location ^~ /waiting-queue/ {\n proxy_pass http://127.0.0.1:8060;\n proxy_set_header Upgrade $http_upgrade;\n}";
        assert_eq!(judged(good), (State::Ok, Some(false)));
        assert_eq!(judged(&good.replace('\n', " ")), (State::Ok, Some(false)));
        for bad in [
            String::new(),
            format!("#{}", good.replace('\n', " ")),
            good.replace("8060", "8080"),
            good.replace("Upgrade ", "Nothing "),
        ] {
            assert_eq!(judged(&bad).0, State::Failed, "{bad}");
        }
    }

    #[test]
    fn conference_requests_pass_where_a_location_proxies_them() {
        let open = "location = /conference-request/v1 {\n proxy_pass http://127.0.0.1:8888/conference-request/v1;\n}";
        assert_eq!(judged(open).1, Some(true));
        let closed = "location = /conference-request/v1 {\n return 404;\n}";
        assert_eq!(judged(closed).1, Some(false));
    }

    #[test]
    fn nginx_of_other_sites_is_not_here() {
        let seen = judge("server { server_name example.org; }", &Config::embedded());
        assert_eq!(seen.findings[0].state, State::NotHere);
    }
}
