//! Prosody: whether the modules are installed, configured and loaded. prosodyctl reads its configuration, and our
//! module `usher_check` prints it.

mod configured;
mod token;

use std::path::Path;

use serde::Deserialize;
use usher::config::Config;

use super::finding::Finding;
use super::program;
use super::service::RunningService;

const ABOUT: &str = "Prosody";

/// The command that restarts Prosody if its configuration can be read. `prosodyctl check config` is not used: it also
/// fails for the advice that it has on Jitsi's own template.
fn restart(domain: &str) -> String {
    format!(
        "prosodyctl mod_usher_check {domain} && systemctl restart prosody (which ends the conferences that run)"
    )
}

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
    hosts: Vec<String>,
    version: String,
    /// Of our modules on disk. Those of 0.1 have none.
    module_version: Option<String>,
    modules: Vec<String>,
    /// Of the MUC component, if there is one.
    muc_modules: Option<Vec<String>>,
    muc_max_occupants: Option<f64>,
    usher_url: Vec<String>,
    reservations_api_prefix: String,
    reservations_enable_max_occupants: bool,
    component_admins_as_room_owners: bool,
    visitors_queue_service: bool,
    app_secret: bool,
    token: Token,
    /// The stock module's header `Authorization`.
    header: Token,
}

/// A token that Prosody presents.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Token {
    place: String,
    detail: String,
    value: Option<String>,
}

/// Without the token.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}, {})", self.place, self.detail)
    }
}

impl Report {
    fn has(&self, module: &str) -> bool {
        self.modules.iter().any(|name| name == module)
    }

    /// Whether a module is enabled on the MUC component.
    fn muc_has(&self, module: &str) -> bool {
        let modules = self.muc_modules.iter().flatten();
        modules.into_iter().any(|name| name == module)
    }

    fn reservation_module(&self) -> Option<ReservationModule> {
        if self.has("usher_reservations") {
            Some(ReservationModule::Shim)
        } else {
            self.has("reservations").then_some(ReservationModule::Stock)
        }
    }

    fn has_shim(&self) -> bool {
        self.has("usher_reservations") || self.has("usher_queue")
    }
}

/// Inspects the Prosody of this machine, or the one with the configuration in `file`.
pub(super) async fn inspect(
    file: Option<&Path>,
    config: &Config,
    service: Option<&RunningService>,
) -> Inspection {
    let Some(prosodyctl) = program::find("prosodyctl") else {
        return Inspection::only(Finding::not_installed(
            ABOUT,
            "it is not installed on this machine",
        ));
    };
    let domain = config.xmpp.domain.as_str();
    let file = file.map(program::absolute);
    let given: Vec<&str> = file.iter().flat_map(|file| ["--config", file]).collect();
    let arguments = [
        given.as_slice(),
        &["mod_usher_check", domain, "--with-token"],
    ]
    .concat();
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
        return Inspection::only(not_served(&report.hosts, domain));
    }
    let mut findings = configured::findings(&report, config);
    findings.extend(token::finding(&report, config, service).await);
    let wanted = wanted_modules(&report);
    if !wanted.is_empty() {
        let listed = [given.as_slice(), &["shell", "module", "list", domain]].concat();
        let listed = program::output(&prosodyctl, &listed).await;
        let runs_old = match &listed {
            Ok(listed) => old_modules(&report, listed, config, service).await,
            Err(_) => None,
        };
        findings.push(loaded(&wanted, domain, listed));
        findings.extend(runs_old);
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

/// Prosody has no such host. Another one of its hosts is probably the right domain.
fn not_served(hosts: &[String], domain: &str) -> Finding {
    let is_helper = |host: &str| {
        let label = host.split('.').next().unwrap_or_default();
        host == "localhost" || matches!(label, "auth" | "guest" | "hidden" | "recorder" | "v1")
    };
    let others: Vec<_> = hosts.iter().filter(|host| !is_helper(host)).collect();
    let message = format!("it has no VirtualHost \"{domain}\"");
    match others.as_slice() {
        [] => Finding::not_installed(ABOUT, message)
            .hint("set xmpp.domain, if this is the Prosody that usher stands beside"),
        [first, ..] => {
            let names: Vec<_> = others.iter().map(|host| format!("\"{host}\"")).collect();
            Finding::failed(ABOUT, format!("{message}, but {}", names.join(", ")))
                .hint(super::domain_hint(first))
        }
    }
}

/// The modules that the configuration enables and that send requests to usher.
fn wanted_modules(report: &Report) -> Vec<&'static str> {
    let ours = ["usher_reservations", "reservations", "usher_queue"];
    ours.into_iter().filter(|name| report.has(name)).collect()
}

/// Whether a module is in the list that Prosody's shell prints.
fn is_loaded(listed: &str, name: &str) -> bool {
    let mut lines = listed.lines();
    lines.any(|line| line.split_whitespace().next() == Some(name))
}

/// Whether the running Prosody has loaded our modules of another version than is installed: it keeps them until it is
/// restarted.
async fn old_modules(
    report: &Report,
    listed: &str,
    config: &Config,
    service: Option<&RunningService>,
) -> Option<Finding> {
    let installed = report.module_version.as_deref()?;
    let is_running = ["usher_reservations", "usher_queue"]
        .iter()
        .any(|name| is_loaded(listed, name));
    let running = if !is_running {
        return None;
    } else if is_loaded(listed, "usher_client") {
        let versions = service?.module_versions(token::header(&report.token)).await;
        versions.into_iter().find(|version| version != installed)?
    } else {
        "0.1".to_owned()
    };
    let message = format!(
        "the running Prosody has loaded usher's modules of version {running}; those of {installed} are installed"
    );
    let restart = restart(&config.xmpp.domain);
    Some(Finding::note("Prosody's loaded version", message).hint(restart))
}

/// Whether the running Prosody has loaded what its configuration enables.
fn loaded(wanted: &[&str], domain: &str, listed: Result<String, String>) -> Finding {
    let about = "Prosody's loaded modules";
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
    let missing = wanted
        .iter()
        .copied()
        .filter(|name| !is_loaded(&listed, name));
    let missing: Vec<&str> = missing.collect();
    if missing.is_empty() {
        return Finding::ok(about, "all enabled modules are loaded");
    }
    Finding::failed(
        about,
        format!("enabled, but not loaded: {}", missing.join(", ")),
    )
    .hint(format!(
        "see Prosody's log for why, or: {}",
        restart(domain)
    ))
}

#[cfg(test)]
mod tests;
