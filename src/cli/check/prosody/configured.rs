//! What Prosody's configuration enables, and what does not fit together.

use usher::config::Config;

use super::super::finding::Finding;
use super::{ABOUT, Report, ReservationModule, restart};

pub(super) fn findings(report: &Report, config: &Config) -> Vec<Finding> {
    let mut findings = vec![reservations(report, config)];
    findings.extend(queue(report, config));
    findings.extend(address(report, config));
    findings.extend(both_modules(report, config));
    findings.extend(max_occupants(report));
    findings.extend(lobby(report, config));
    findings.extend(meeting_timer(report));
    findings.extend(room_owners(report));
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

fn reservations(report: &Report, config: &Config) -> Finding {
    let domain = &config.xmpp.domain;
    let hint = format!(
        "add \"usher_reservations\" to modules_enabled of VirtualHost \"{domain}\", then: {}",
        restart(domain)
    );
    match report.reservation_module() {
        Some(ReservationModule::Shim) => Finding::ok(ABOUT, "usher_reservations is enabled"),
        Some(ReservationModule::Stock) => {
            Finding::ok(ABOUT, "its own module reservations is enabled")
        }
        None if report.has("usher_queue") || report.visitors_queue_service => Finding::ok(
            ABOUT,
            "no module asks usher whether a conference may start; usher serves the waiting queue only",
        ),
        None => {
            Finding::failed(ABOUT, "no module asks usher whether a conference may start").hint(hint)
        }
    }
}

fn queue(report: &Report, config: &Config) -> Option<Finding> {
    (!report.has("usher_queue") && !report.visitors_queue_service).then(|| {
        Finding::note(
            "Prosody's usher_queue",
            "it is not enabled: usher does not learn when conferences go live",
        )
        .hint(format!(
            "for the waiting queue, add \"usher_queue\" to modules_enabled, then: {}",
            restart(&config.xmpp.domain)
        ))
    })
}

/// Whether Prosody calls the port that usher listens on.
fn address(report: &Report, config: &Config) -> Option<Finding> {
    let (option, urls) = match report.reservation_module() {
        Some(ReservationModule::Stock) => (
            "reservations_api_prefix",
            std::slice::from_ref(&report.reservations_api_prefix),
        ),
        _ if report.has_shim() => ("usher_url", report.usher_url.as_slice()),
        _ => return None,
    };
    let listen = config.server.listen;
    // Behind a proxy the address differs.
    let may_be_right = |url: &String| {
        let url = url.trim_end_matches('/');
        url.ends_with(&format!(":{}", listen.port())) || url.starts_with("https:")
    };
    (!urls.iter().any(may_be_right)).then(|| {
        let message = format!(
            "{option} is \"{}\", but usher listens on {listen}",
            urls.join("\", \"")
        );
        Finding::failed("Prosody's address of usher", message).hint(format!(
            "set {option} = \"http://{listen}\", then: {}",
            restart(&config.xmpp.domain)
        ))
    })
}

/// Two modules would hold each room back and ask for it, and the second question would be a conflict.
fn both_modules(report: &Report, config: &Config) -> Option<Finding> {
    (report.has("usher_reservations") && report.has("reservations")).then(|| {
        Finding::failed(
            "Prosody's reservations",
            "usher_reservations and Prosody's own module reservations are both enabled: each room is asked for twice",
        )
        .hint(format!(
            "take \"reservations\" out of modules_enabled, then: {}",
            restart(&config.xmpp.domain)
        ))
    })
}

/// `mod_muc_max_occupants` does nothing while its own option is unset, not even for a room with a limit. Our module
/// needs neither.
fn max_occupants(report: &Report) -> Option<Finding> {
    let (about, limits) = (
        "max_occupants",
        "with Prosody's own module reservations, the limit of a booking has no effect",
    );
    if report.reservation_module() != Some(ReservationModule::Stock) {
        return None;
    }
    let missing = if !report.reservations_enable_max_occupants {
        "reservations_enable_max_occupants = true"
    } else if !report.muc_has("muc_max_occupants") {
        "\"muc_max_occupants\" in modules_enabled of the MUC component, and muc_max_occupants = 100"
    } else if report.muc_max_occupants.is_none_or(|most| most <= 0.0) {
        "muc_max_occupants = 100 (the limit of other rooms) in the MUC component: its module does nothing without it"
    } else {
        return None;
    };
    Some(
        Finding::note(about, format!("{limits}: {missing} is missing"))
            .hint("add it, or load usher_reservations instead of reservations"),
    )
}

fn lobby(report: &Report, config: &Config) -> Option<Finding> {
    report.reservation_module()?;
    let missing: Vec<_> = ["muc_lobby_rooms", "persistent_lobby"]
        .into_iter()
        .filter(|name| !report.has(name))
        .collect();
    (!missing.is_empty()).then(|| {
        Finding::note(
            "lobby",
            format!("bookings with a lobby don't get one: not enabled: {}", missing.join(", ")),
        )
        .hint(format!(
            "if bookings use lobby, add them to modules_enabled of VirtualHost \"{}\" (Jitsi's plugins, which must be in plugin_paths)",
            config.xmpp.domain
        ))
    })
}

/// Jitsi's own timer sends one length for every room to the same clients.
fn meeting_timer(report: &Report) -> Option<Finding> {
    let timers = ["time_restricted", "per_room_time_restricted"];
    let mut timers = timers.into_iter();
    let timer = timers.find(|name| report.has(name) || report.muc_has(name))?;
    report.has("usher_reservations").then(|| {
        Finding::note(
            "meeting timer",
            format!("{timer} is enabled too: clients show the end that was sent last"),
        )
        .hint(format!(
            "take \"{timer}\" out of modules_enabled, or set usher_timer = false"
        ))
    })
}

/// jicofo owns the rooms that it creates by being an admin of the component.
fn room_owners(report: &Report) -> Option<Finding> {
    let major: u32 = report.version.split('.').next()?.parse().ok()?;
    (major >= 13 && report.muc_modules.is_some() && !report.component_admins_as_room_owners).then(|| {
        Finding::failed(
            "Prosody's room owners",
            "since Prosody 13 admins of a component own no rooms, and jicofo can't configure the rooms that it creates",
        )
        .hint("set component_admins_as_room_owners = true in the global section")
    })
}
