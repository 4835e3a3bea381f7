//! The command line: what it takes, and what each command but `serve` does. Thin, over the same store
//! that the service uses, so that it works whether or not the service runs.

mod backup;
mod bookings;
mod check;
mod decisions;
pub(crate) mod log;
pub(crate) mod serve;
mod token;

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use usher::config::{Config, ConfigError};

/// Reservations and the visitors' waiting queue for Jitsi Meet, beside Prosody.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// The configuration; without it ./config.toml, else /etc/jitsi/usher/config.toml, else defaults
    #[arg(long, short, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the service (what happens without a command, too)
    Serve,
    /// Look at the configuration and what it needs, and name every mistake with its remedy
    Check(check::Arguments),
    /// Make a token
    Token(token::Arguments),
    /// List, add and cancel bookings
    #[command(subcommand)]
    Bookings(bookings::Command),
    /// Show who asked for rooms, and why they were let in or not
    Decisions(decisions::Arguments),
    /// Copy the database to a file, while the service runs
    Backup(backup::Arguments),
}

/// Runs a command that is not `serve`.
pub(crate) async fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve => anyhow::bail!("serve is not run from here"),
        Command::Check(arguments) => check::run(&arguments, config).await,
        Command::Token(arguments) => token::run(&arguments, config),
        Command::Bookings(command) => bookings::run(command, config).await,
        Command::Decisions(arguments) => decisions::run(&arguments, config).await,
        Command::Backup(arguments) => backup::run(&arguments, config).await,
    }
}

/// Prints a line that was asked for.
fn say(line: impl Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// Prints what went wrong. Nothing is left to do when even that fails.
pub(crate) fn complain(problem: &impl Display) {
    let _ = writeln!(std::io::stderr(), "usher: {problem}");
}

/// Says what is wrong with the configuration, in the form that was asked for.
pub(crate) fn misconfigured(arguments: &Arguments, error: &ConfigError) {
    match &arguments.command {
        Some(Command::Check(check)) if check::misconfigured(check, error) => {}
        _ => complain(error),
    }
}

/// The room as a person writes it.
fn room_of(conference: &usher::domain::conference::Conference) -> String {
    match conference.tenant() {
        Some(tenant) => format!("[{tenant}]{}", conference.display_name()),
        None => conference.display_name(),
    }
}
