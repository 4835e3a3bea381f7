//! Jitsi Meet in the browser: whether its `config.js` names the queue.

use std::path::{Path, PathBuf};

use usher::config::Config;

use super::finding::Finding;

const ABOUT: &str = "config.js";

/// `queueService` in the file that the web server serves.
pub(super) fn queue_service(file: Option<&Path>, config: &Config) -> Finding {
    let domain = &config.xmpp.domain;
    let default = || PathBuf::from(format!("/etc/jitsi/meet/{domain}-config.js"));
    let file = file.map_or_else(default, Path::to_owned);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) => return Finding::not_installed(ABOUT, format!("{}: {error}", file.display())),
    };
    let wanted = format!("{domain}{}", config.queue.path);
    let line = format!("config.visitors = {{ ...config.visitors, queueService: '{wanted}' }};");
    match last_queue_service(&text) {
        None => Finding::note(ABOUT, "it has no queueService: visitors do not wait").hint(format!(
            "for the waiting queue, append to {}: {line}",
            file.display()
        )),
        Some(service) if service.contains("://") => Finding::failed(
            ABOUT,
            format!("queueService is '{service}', with a scheme, which Jitsi Meet adds itself"),
        )
        .hint(format!("write queueService: '{wanted}'")),
        Some(service)
            if service
                .trim_end_matches('/')
                .ends_with(config.queue.path.as_str()) =>
        {
            Finding::ok(ABOUT, format!("queueService is '{service}'"))
        }
        Some(service) => Finding::failed(
            ABOUT,
            format!(
                "queueService is '{service}', but queue.path is {}",
                config.queue.path
            ),
        )
        .hint(format!("write queueService: '{wanted}', or set queue.path")),
    }
}

/// The last `queueService` outside comments.
fn last_queue_service(text: &str) -> Option<String> {
    let lines = text.lines().filter(|line| {
        let line = line.trim_start();
        !(line.starts_with("//") || line.starts_with('*') || line.starts_with("/*"))
    });
    let mut values = lines.filter_map(|line| {
        let (_, rest) = line.split_once("queueService")?;
        let rest = rest.trim_start_matches(['\'', '"']).trim_start();
        let value = rest.strip_prefix([':', '='])?.trim_start();
        let quote = value
            .chars()
            .next()
            .filter(|c| matches!(c, '\'' | '"' | '`'))?;
        value.get(1..)?.split(quote).next().map(str::to_owned)
    });
    values.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_queue_service_outside_a_comment_counts() {
        for (text, wanted) in [
            ("", None),
            (
                "var config = { visitors: { queueService: 'a/q' } };",
                Some("a/q"),
            ),
            ("visitors: {\n  // queueService: 'a/q',\n}", None),
            ("config.visitors.queueService = \"b/q\";", Some("b/q")),
            (
                "'queueService': 'a/q',\nconfig.visitors = { queueService: 'c/q' };",
                Some("c/q"),
            ),
            ("queueService: host + '/q'", None),
        ] {
            assert_eq!(last_queue_service(text).as_deref(), wanted, "{text}");
        }
    }
}
