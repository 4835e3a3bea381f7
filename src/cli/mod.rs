//! The command line: one file per command. The commands use the same store as the service, so they work whether or not
//! the service runs.

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
    /// Run the service; the default without a command
    Serve,
    /// Check the configuration and the systems around usher, and name every error with its remedy
    Check(check::Arguments),
    /// Sign a token
    Token(token::Arguments),
    /// List, add and cancel bookings
    #[command(subcommand)]
    Bookings(bookings::Command),
    /// Show the requests for conferences, and why each was allowed or refused
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

/// Prints a line to standard output.
fn print(line: impl Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// Prints an error to standard error. A failure to do so is ignored.
pub(crate) fn print_error(error: &impl Display) {
    let _ = writeln!(std::io::stderr(), "usher: {error}");
}

/// Prints what is wrong with the configuration, as lines or as JSON.
pub(crate) fn print_config_errors(arguments: &Arguments, error: &ConfigError) {
    match &arguments.command {
        Some(Command::Check(check)) if check::print_config_errors(check, error) => {}
        _ => print_error(error),
    }
}

/// The room as a person writes it.
fn room_name(conference: &usher::domain::conference::Conference) -> String {
    match conference.tenant() {
        Some(tenant) => format!("[{tenant}]{}", conference.display_name()),
        None => conference.display_name(),
    }
}
