//! The command line.

use std::path::PathBuf;

use super::{MODES, Mode};

const VISITORS: usize = 15_000;
const MINUTES: u32 = 10;

pub(crate) struct Arguments {
    pub(crate) visitors: usize,
    /// Of the soak.
    pub(crate) minutes: u32,
    /// Where a picture of the result goes.
    pub(crate) chart: Option<PathBuf>,
    pub(crate) modes: Vec<&'static Mode>,
}

impl Arguments {
    /// What is asked for, or a sentence that says what may be.
    pub(crate) fn read(given: &[String]) -> Result<Self, String> {
        let mut arguments = Self {
            visitors: VISITORS,
            minutes: MINUTES,
            chart: None,
            modes: MODES.iter().filter(|mode| mode.usual).collect(),
        };
        let mut with_peers = false;
        let mut given = given.iter();
        while let Some(argument) = given.next() {
            let mut value = || {
                given
                    .next()
                    .ok_or_else(|| format!("{argument} needs a value.\n{}", usage()))
            };
            match argument.as_str() {
                // Cargo's own, to every benchmark.
                "--bench" => {}
                "--help" => return Err(usage()),
                "--visitors" => {
                    let number = value()?;
                    arguments.visitors = number
                        .parse()
                        .ok()
                        .filter(|visitors| (300..=15_000).contains(visitors))
                        .ok_or_else(|| {
                            format!("--visitors takes a number from 300 to 15000, not {number:?}.")
                        })?;
                }
                "--minutes" => {
                    let number = value()?;
                    arguments.minutes = number
                        .parse()
                        .ok()
                        .filter(|minutes| (1..=600).contains(minutes))
                        .ok_or_else(|| {
                            format!("--minutes takes a number from 1 to 600, not {number:?}.")
                        })?;
                }
                "--chart" => arguments.chart = Some(value()?.into()),
                "--peers" => with_peers = true,
                "--only" => {
                    let names = value()?;
                    arguments.modes = names.split(',').map(mode).collect::<Result<_, _>>()?;
                }
                other => return Err(format!("Nothing is known of {other:?}.\n{}", usage())),
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
        .ok_or_else(|| format!("There is no {name:?} to measure.\n{}", usage()))
}

fn usage() -> String {
    let mut text =
        "cargo bench --bench load -- [--visitors N] [--only NAME[,NAME]] [--peers] [--minutes N] [--chart FILE]\n\nNames:\n".to_owned();
    for mode in MODES {
        let usual = if mode.usual {
            ""
        } else {
            " (only when asked for)"
        };
        text.push_str(&format!("  {:<13} {}{usual}\n", mode.name, mode.about));
    }
    text
}
