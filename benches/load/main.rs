//! What a crowd costs: `cargo bench --bench load [-- --help]`.
//!
//! Crowds of visitors wait at a real usher, with a real token each, until their conferences go live; and
//! Prosody asks for conferences. Beside that, in the same run and with the same clients, the limits: a server
//! that does nothing but write the same bytes to as many plain TCP sockets, and a loop that does nothing but
//! write records to the disk. Ratios mean something; the times alone belong to the machine. The result is
//! printed as a table, and written to `target/load.json`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark that can't go on has nothing better to do, and a table to print"
)]

mod arguments;
mod chart;
mod company;
mod conferences;
mod crowd;
mod http;
mod idle;
mod limit;
mod peers;
mod report;
mod reservations;
mod server;
mod soak;
mod storm;
mod tokens;
mod upgraded;
mod waiting;
mod wire;
mod worker;

use arguments::Arguments;
use limit::Limit;
use report::{Report, progress};

/// How often a fan-out is measured; the median counts.
const GO_LIVES: usize = 10;

/// What can be measured.
struct Mode {
    name: &'static str,
    /// Whether it is measured unless something else is asked for.
    usual: bool,
    about: &'static str,
    measure: fn(&mut Run),
}

const MODES: &[Mode] = &[
    Mode {
        name: "crowd",
        usual: true,
        about: "memory, set-ups with HS256 tokens, go-lives, the limit",
        measure: waiting::crowd,
    },
    Mode {
        name: "rs256",
        usual: true,
        about: "set-ups with RS256 tokens",
        measure: waiting::rs256,
    },
    Mode {
        name: "idle",
        usual: true,
        about: "CPU of a minute with heart-beats and nothing else",
        measure: idle::idle,
    },
    Mode {
        name: "conferences",
        usual: true,
        about: "as many visitors, 15 to a conference, all of which go live",
        measure: conferences::conferences,
    },
    Mode {
        name: "flat",
        usual: true,
        about: "what each visitor costs as the crowd grows, to 19,000 where 15,000 are the usual crowd",
        measure: waiting::flat,
    },
    Mode {
        name: "reservations",
        usual: true,
        about: "conferences asked for, beside what the disk can do",
        measure: reservations::reservations,
    },
    Mode {
        name: "storm",
        usual: true,
        about: "everybody is gone at once, and comes back",
        measure: storm::storm,
    },
    Mode {
        name: "moderators",
        usual: true,
        about: "arrivals while 50 moderators watch",
        measure: company::moderators,
    },
    Mode {
        name: "slow",
        usual: true,
        about: "go-lives with a hundredth of the visitors reading nothing",
        measure: company::slow,
    },
    Mode {
        name: "peers",
        usual: false,
        about: "others with as many visitors: tungstenite as it comes, stomp-broker-js, RabbitMQ",
        measure: peers::peers,
    },
    Mode {
        name: "soak",
        usual: false,
        about: "a third of the visitors come, go, go live and don't read for --minutes",
        measure: soak::soak,
    },
];

/// What all modes share.
struct Run {
    visitors: usize,
    minutes: u32,
    limit: Limit,
    report: Report,
}

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    // The processes that the benchmark makes of itself.
    if let [role, value] = &given[..] {
        match role.as_str() {
            limit::ARGUMENT => return limit::serve(value.parse().unwrap()),
            upgraded::ARGUMENT => return upgraded::serve(value.parse().unwrap()),
            worker::ARGUMENT => return worker::serve(value.parse().unwrap()),
            _ => {}
        }
    }
    let arguments = match Arguments::read(&given) {
        Ok(arguments) => arguments,
        Err(sentence) => {
            eprintln!("{sentence}");
            std::process::exit(2);
        }
    };
    let mut run = Run {
        visitors: arguments.visitors,
        minutes: arguments.minutes,
        limit: Limit::default(),
        report: Report::default(),
    };
    run.report.keep("visitors", arguments.visitors.into());
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
