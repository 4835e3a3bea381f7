//! Prosody: whether the modules are installed, configured and loaded. prosodyctl reads its configuration, and our
//! module `usher_check` prints it.

use std::path::Path;

use serde::Deserialize;
use usher::config::Config;

use super::finding::Finding;
use super::program;

const ABOUT: &str = "Prosody";
const RESTART: &str =
    "prosodyctl check config && systemctl restart prosody (which ends the conferences that run)";

/// Which module sends requests to usher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReservationModule {
    /// Ours.
    Shim,
    /// Prosody's own.
    Stock,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) findings: Vec<Finding>,
    pub(super) module: Option<ReservationModule>,
}

impl Inspection {
    fn only(finding: Finding) -> Self {
        Self {
            findings: vec![finding],
            module: None,
        }
    }
}

/// What `mod_usher_check` prints.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    served: bool,
    modules: Vec<String>,
    usher_url: String,
    reservations_api_prefix: String,
    app_secret: bool,
    token: String,
    token_detail: String,
}

impl Report {
    fn has(&self, module: &str) -> bool {
        self.modules.iter().any(|name| name == module)
    }

    fn reservation_module(&self) -> Option<ReservationModule> {
        if self.has("usher_reservations") {
            Some(ReservationModule::Shim)
        } else {
            self.has("reservations").then_some(ReservationModule::Stock)
        }
    }
}

/// Inspects the Prosody of this machine, or the one with the configuration in `file`.
pub(super) async fn inspect(file: Option<&Path>, config: &Config) -> Inspection {
    let Some(prosodyctl) = program::find("prosodyctl") else {
        return Inspection::only(Finding::not_installed(
            ABOUT,
            "it is not installed on this machine",
        ));
    };
    let domain = config.xmpp.domain.as_str();
    let file = file.map(|file| file.display().to_string());
    let given: Vec<&str> = file.iter().flat_map(|file| ["--config", file]).collect();
    let arguments = [given.as_slice(), &["mod_usher_check", domain]].concat();
    let report = match program::output(&prosodyctl, &arguments)
        .await
        .map(|output| read(&output))
    {
        Ok(Some(report)) => report,
        Ok(None) => return Inspection::only(unreadable("its answer can't be read")),
        Err(error) if error.contains("usher_check") => {
            return Inspection::only(
                Finding::note(ABOUT, "it does not find usher's modules").hint(
                    "install usher's package beside it, or add prosody-plugins to its plugin_paths",
                ),
            );
        }
        Err(error) => return Inspection::only(unreadable(&error)),
    };
    if !report.served {
        let message = format!("it has no VirtualHost \"{domain}\"");
        let hint = "set xmpp.domain, if this is the Prosody that usher stands beside";
        return Inspection::only(Finding::not_installed(ABOUT, message).hint(hint));
    }
    let mut findings = configured(&report, config);
    if let Some(module) = report.reservation_module() {
        let listed = [given.as_slice(), &["shell", "module", "list", domain]].concat();
        let listed = program::output(&prosodyctl, &listed).await;
        findings.push(loaded(module, &report, listed));
    }
    Inspection {
        findings,
        module: report.reservation_module(),
    }
}

/// Prosody prints warnings of its own first.
fn read(output: &str) -> Option<Report> {
    let line = output.lines().rfind(|line| line.starts_with('{'))?;
    serde_json::from_str(line).ok()
}

fn unreadable(error: &str) -> Finding {
    Finding::note(ABOUT, format!("its configuration can't be read: {error}")).hint(
        "run usher check as root; if prosodyctl check config fails too, correct what it names",
    )
}

fn configured(report: &Report, config: &Config) -> Vec<Finding> {
    let mut findings = vec![match report.reservation_module() {
        Some(ReservationModule::Shim) => Finding::ok(ABOUT, "usher_reservations is enabled"),
        Some(ReservationModule::Stock) => Finding::ok(ABOUT, "its own module reservations is enabled"),
        None => Finding::failed(ABOUT, "no module asks usher whether a conference may start").hint(format!(
            "add \"usher_reservations\" to modules_enabled of VirtualHost \"{}\", then: {RESTART}",
            config.xmpp.domain
        )),
    }];
    if !report.has("usher_queue") {
        findings.push(
            Finding::note(
                "Prosody's usher_queue",
                "it is not enabled: usher does not learn when conferences go live",
            )
            .hint(format!(
                "for the waiting queue, add \"usher_queue\" to modules_enabled, then: {RESTART}"
            )),
        );
    }
    findings.extend(address(report, config));
    if report.reservation_module() != Some(ReservationModule::Stock) {
        findings.push(token(report, config));
    }
    if report.app_secret && config.auth.secret.is_none() {
        findings.push(
            Finding::note(
                "Prosody's app_secret",
                "usher doesn't have it: tokens of visitors and moderators are refused",
            )
            .hint("put it into a file that only usher can read, and set auth.secret_file"),
        );
    }
    findings
}

/// Whether Prosody calls the port that usher listens on.
fn address(report: &Report, config: &Config) -> Option<Finding> {
    let (option, url) = match report.reservation_module()? {
        ReservationModule::Shim => ("usher_url", &report.usher_url),
        ReservationModule::Stock => ("reservations_api_prefix", &report.reservations_api_prefix),
    };
    let port = config.server.listen.port();
    let right = url.trim_end_matches('/').ends_with(&format!(":{port}"));
    // Behind a proxy the address differs.
    (!right && !url.starts_with("https:")).then(|| {
        let message = format!(
            "{option} is \"{url}\", but usher listens on {}",
            config.server.listen
        );
        Finding::failed("Prosody's address of usher", message).hint(format!(
            "set {option} = \"http://{}\", then: {RESTART}",
            config.server.listen
        ))
    })
}

fn token(report: &Report, config: &Config) -> Finding {
    let about = "Prosody's service token";
    let wanted = !config.auth.service.tokens.is_empty() || config.auth.any_key();
    match report.token.as_str() {
        "none" if !wanted => Finding::ok(about, "none is needed on this machine"),
        "none" => Finding::failed(about, "Prosody has none").hint(format!(
            "ln -s ../conf.avail/usher.cfg.lua /etc/prosody/conf.d/, or set usher_token_file; then: {RESTART}"
        )),
        "unreadable" => Finding::failed(about, format!("Prosody can't read it: {}", report.token_detail))
            .hint("chown usher:prosody and chmod 640 that file"),
        "file" => of_file(about, &report.token_detail, config),
        _ => Finding::ok(about, "it is set in Prosody's configuration"),
    }
}

fn of_file(about: &str, path: &str, config: &Config) -> Finding {
    let Ok(text) = std::fs::read_to_string(path) else {
        return Finding::note(
            about,
            format!("{path} can't be read by the user that runs this check"),
        );
    };
    let known = &config.auth.service.tokens;
    if known.iter().any(|token| token.expose() == text.trim()) {
        Finding::ok(about, format!("the one in {path} is accepted"))
    } else if known.is_empty() && config.auth.any_key() {
        Finding::note(
            about,
            format!("usher check --token - < {path} says whether it is accepted"),
        )
    } else {
        Finding::failed(about, format!("the one in {path} is not among usher's"))
            .hint("let auth.service.tokens_file name that file, too")
    }
}

/// Whether the running Prosody has loaded what its configuration enables.
fn loaded(module: ReservationModule, report: &Report, listed: Result<String, String>) -> Finding {
    let about = "Prosody's loaded modules";
    let first = match module {
        ReservationModule::Shim => "usher_reservations",
        ReservationModule::Stock => "reservations",
    };
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => {
            return Finding::note(
                about,
                format!("the running Prosody does not answer: {error}"),
            )
            .hint(
                "start it, with \"admin_shell\" in modules_enabled, and run usher check as root",
            );
        }
    };
    let wanted = [first]
        .into_iter()
        .chain(report.has("usher_queue").then_some("usher_queue"));
    let is_loaded = |name: &&str| {
        listed
            .lines()
            .any(|line| line.split_whitespace().next() == Some(*name))
    };
    let missing: Vec<&str> = wanted.filter(|name| !is_loaded(name)).collect();
    if missing.is_empty() {
        return Finding::ok(about, "all enabled modules are loaded");
    }
    Finding::failed(
        about,
        format!("enabled, but not loaded: {}", missing.join(", ")),
    )
    .hint(format!("see Prosody's log for why, or: {RESTART}"))
}
