//! Jitsi Meet in the browser: whether its `config.js` names the queue.

use std::path::{Path, PathBuf};

use usher::config::Config;

use super::finding::Finding;

const ABOUT: &str = "config.js";
/// Where Jitsi's packages have it, as DOMAIN-config.js.
const DIRECTORY: &str = "/etc/jitsi/meet";
const SUFFIX: &str = "-config.js";

/// `queueService` in the file that the web server serves.
pub(super) fn queue_service(file: Option<&Path>, config: &Config) -> Finding {
    let domain = &config.xmpp.domain;
    let directory = Path::new(DIRECTORY);
    let named = file.is_some();
    let file = file.map_or_else(|| config_js(directory, domain), Path::to_owned);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("{}: {error}", file.display());
            let missing = error.kind() == std::io::ErrorKind::NotFound && !named;
            return match other_domain(directory).filter(|_| missing) {
                Some(other) => {
                    Finding::failed(ABOUT, format!("{message}; there is one for \"{other}\""))
                        .hint(super::domain_hint(&other))
                }
                None => Finding::not_installed(ABOUT, message),
            };
        }
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

fn config_js(directory: &Path, domain: &str) -> PathBuf {
    directory.join(format!("{domain}{SUFFIX}"))
}

/// The domain of the first `config.js` that is there.
fn other_domain(directory: &Path) -> Option<String> {
    let entries = std::fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let domains = names.filter_map(|name| name.strip_suffix(SUFFIX).map(str::to_owned));
    domains.min()
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
    fn file_of_another_domain_is_found() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(other_domain(directory.path()), None);
        for name in [
            "interface_config.js",
            "meet.example.org-config.js",
            "README",
        ] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let other = other_domain(directory.path());
        assert_eq!(other.as_deref(), Some("meet.example.org"));
    }

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
