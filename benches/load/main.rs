//! The load benchmark: `cargo bench --bench load [-- --help]`.
//!
//! Thousands of visitors, each with its own token, wait at an usher process until their conferences go live, and
//! conferences are requested as Prosody does. The same run measures the limits of the machine: a server that
//! only writes the same bytes to the same number of plain TCP sockets, and a loop that only writes records to
//! the disk. Times depend on the machine; the ratios can be compared. The result is printed as a table and
//! written to `target/load.json`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark stops at the first error and prints its result"
)]

mod arguments;
mod chart;
mod clients;
mod conferences;
mod floods;
mod http;
mod idle;
mod limit;
mod live;
mod moderators;
mod peers;
mod prosody;
mod report;
mod reservations;
mod server;
mod slow;
mod soak;
mod storm;
mod tokens;
mod tungstenite_server;
mod waiting;
mod wire;
mod worker;

use arguments::Arguments;
use limit::Limit;
use report::{Report, progress};

/// Number of measured go-lives; the report has the median.
const GO_LIVES: usize = 10;

/// A measurement that the command line can select.
struct Mode {
    name: &'static str,
    /// Whether it runs without `--only`.
    default: bool,
    about: &'static str,
    measure: fn(&mut Run),
}

const MODES: &[Mode] = &[
    Mode {
        name: "crowd",
        default: true,
        about: "memory, set-ups with HS256 tokens, go-lives, limit of the machine",
        measure: waiting::one_conference,
    },
    Mode {
        name: "rs256",
        default: true,
        about: "set-ups with RS256 tokens",
        measure: waiting::rs256,
    },
    Mode {
        name: "idle",
        default: true,
        about: "CPU of a minute with heart-beats only",
        measure: idle::idle,
    },
    Mode {
        name: "conferences",
        default: true,
        about: "the same number of visitors in conferences of 15 that all go live",
        measure: conferences::conferences,
    },
    Mode {
        name: "prosody",
        default: true,
        about: "changes reach Prosody's long poll; conferences of 15 go live in batches of reports",
        measure: prosody::prosody,
    },
    Mode {
        name: "flat",
        default: true,
        about: "memory and CPU per visitor as their number grows (to 19,000 by default)",
        measure: waiting::flat,
    },
    Mode {
        name: "reservations",
        default: true,
        about: "POST /conference, compared with the speed of the disk",
        measure: reservations::reservations,
    },
    Mode {
        name: "storm",
        default: true,
        about: "all connections end at the same time and reconnect",
        measure: storm::storm,
    },
    Mode {
        name: "moderators",
        default: true,
        about: "visitors connect while 50 moderators receive updates",
        measure: moderators::moderators,
    },
    Mode {
        name: "slow",
        default: true,
        about: "go-lives while one percent of the visitors do not read",
        measure: slow::slow,
    },
    Mode {
        name: "floods",
        default: true,
        about: "POST /conference and the watchdog while hostile WebSockets flood",
        measure: floods::floods,
    },
    Mode {
        name: "live",
        default: true,
        about: "the cost of a go-live and of the list with up to 60,000 live conferences",
        measure: live::live,
    },
    Mode {
        name: "peers",
        default: false,
        about: "other servers: tungstenite with its defaults, stomp-broker-js, RabbitMQ",
        measure: peers::peers,
    },
    Mode {
        name: "soak",
        default: false,
        about: "mixed load with a third of the visitors for --minutes",
        measure: soak::soak,
    },
];

/// State that all modes share.
struct Run {
    visitors: usize,
    minutes: u32,
    limit: Limit,
    report: Report,
}

fn main() {
    let command_line: Vec<String> = std::env::args().skip(1).collect();
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    // The benchmark starts further processes of this program with these arguments.
    if let [role, value] = &command_line[..] {
        match role.as_str() {
            limit::ARGUMENT => return limit::serve(value.parse().unwrap()),
            tungstenite_server::ARGUMENT => {
                return tungstenite_server::serve(value.parse().unwrap());
            }
            floods::ARGUMENT => return floods::serve(value),
            worker::ARGUMENT => return worker::serve(value.parse().unwrap()),
            _ => {}
        }
    }
    let arguments = match Arguments::read(&command_line) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}");
            std::process::exit(2);
        }
    };
    let mut run = Run {
        visitors: arguments.visitors,
        minutes: arguments.minutes,
        limit: Limit::default(),
        report: Report::default(),
    };
    run.report.record("visitors", arguments.visitors.into());
    for mode in &arguments.modes {
        progress(format!("{}: {}", mode.name, mode.about));
        (mode.measure)(&mut run);
    }
    println!("{}", run.report.table());
    let file = server::target().join("load.json");
    std::fs::write(file, run.report.json()).unwrap();
    if let Some(file) = arguments.chart {
        std::fs::write(file, chart::draw(&run.report)).unwrap();
    }
}
