//! The command line.

use std::path::PathBuf;

use super::{MODES, Mode};

const VISITORS: usize = 15_000;
const MINUTES: u32 = 10;

pub(crate) struct Arguments {
    pub(crate) visitors: usize,
    /// Duration of the mode `soak`.
    pub(crate) minutes: u32,
    /// File for the chart of the result.
    pub(crate) chart: Option<PathBuf>,
    pub(crate) modes: Vec<&'static Mode>,
}

impl Arguments {
    /// Parses the command line. The error is a message for the user.
    pub(crate) fn read(command_line: &[String]) -> Result<Self, String> {
        let mut arguments = Self {
            visitors: VISITORS,
            minutes: MINUTES,
            chart: None,
            modes: MODES.iter().filter(|mode| mode.default).collect(),
        };
        let mut with_peers = false;
        let mut rest = command_line.iter();
        while let Some(argument) = rest.next() {
            let mut value = || {
                rest.next()
                    .ok_or_else(|| format!("{argument} requires a value.\n{}", usage()))
            };
            match argument.as_str() {
                // Cargo passes this to every benchmark.
                "--bench" => {}
                "--help" => return Err(usage()),
                "--visitors" => {
                    let number = value()?;
                    arguments.visitors = number
                        .parse()
                        .ok()
                        .filter(|visitors| (300..=15_000).contains(visitors))
                        .ok_or_else(|| {
                            format!(
                                "--visitors requires a number from 300 to 15000, not {number:?}."
                            )
                        })?;
                }
                "--minutes" => {
                    let number = value()?;
                    arguments.minutes = number
                        .parse()
                        .ok()
                        .filter(|minutes| (1..=600).contains(minutes))
                        .ok_or_else(|| {
                            format!("--minutes requires a number from 1 to 600, not {number:?}.")
                        })?;
                }
                "--chart" => arguments.chart = Some(value()?.into()),
                "--peers" => with_peers = true,
                "--only" => {
                    let names = value()?;
                    arguments.modes = names.split(',').map(mode).collect::<Result<_, _>>()?;
                }
                other => return Err(format!("Unknown argument {other:?}.\n{}", usage())),
            }
        }
        if with_peers && !arguments.modes.iter().any(|mode| mode.name == "peers") {
            arguments.modes.push(mode("peers")?);
        }
        Ok(arguments)
    }
}

fn mode(name: &str) -> Result<&'static Mode, String> {
    MODES
        .iter()
        .find(|mode| mode.name == name)
        .ok_or_else(|| format!("Unknown name {name:?}.\n{}", usage()))
}

fn usage() -> String {
    let mut text =
        "cargo bench --bench load -- [--visitors N] [--only NAME[,NAME]] [--peers] [--minutes N] [--chart FILE]\n\nNames:\n".to_owned();
    for mode in MODES {
        let suffix = if mode.default {
            ""
        } else {
            " (not by default)"
        };
        text.push_str(&format!("  {:<13} {}{suffix}\n", mode.name, mode.about));
    }
    text
}
