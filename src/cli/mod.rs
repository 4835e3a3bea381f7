//! The command line: one file per command. The commands use the same store as the service, so they work whether or not
//! the service runs.

mod backup;
mod bookings;
mod check;
mod decisions;
mod forget;
pub(crate) mod log;
pub(crate) mod serve;
mod token;

use std::fmt::Display;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use usher::config::{Config, ConfigError, Source};
use usher::reservation::Reservations;
use usher::store::sqlite;
use usher::text::{escape_for_terminal, escape_json_for_terminal};

/// The most bytes of an answer that are read.
const ANSWER_MAX: u64 = 100;

/// Reservations and the visitors' waiting queue for Jitsi Meet, beside Prosody.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// The configuration; without it /etc/jitsi/usher/config.toml, else ./config.toml, else defaults (serve: ./config.toml first)
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
    /// Erase what is stored of one person, and say what is kept and why
    Forget(forget::Arguments),
    /// Copy the database to a file, while the service runs
    Backup(backup::Arguments),
}

/// Runs a command that is not `serve`. Each names the configuration that it read: `check` among its findings, the
/// others on standard error.
pub(crate) async fn run(
    command: Command,
    config: &Config,
    source: &Source,
) -> anyhow::Result<ExitCode> {
    if !matches!(command, Command::Check(_)) {
        print_source(source);
    }
    match command {
        Command::Serve => anyhow::bail!("serve is not run from here"),
        Command::Check(arguments) => check::run(&arguments, config, source).await,
        Command::Token(arguments) => token::run(&arguments, config),
        Command::Bookings(command) => bookings::run(command, config).await,
        Command::Decisions(arguments) => decisions::run(&arguments, config).await,
        Command::Forget(arguments) => forget::run(&arguments, config).await,
        Command::Backup(arguments) => backup::run(&arguments, config).await,
    }
}

/// Prints a line to standard output. Foreign texts in it can't change what the terminal shows.
fn print(line: impl Display) -> std::io::Result<()> {
    writeln!(
        std::io::stdout(),
        "{}",
        escape_for_terminal(&line.to_string())
    )
}

/// Prints a JSON text to standard output.
fn print_json(json: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{}", escape_json_for_terminal(json))
}

/// Prints an error or a note to standard error. A failure to do so is ignored.
pub(crate) fn print_error(error: &impl Display) {
    let text = escape_for_terminal(&error.to_string());
    let _ = writeln!(std::io::stderr(), "usher: {text}");
}

fn print_source(source: &Source) {
    match source.passed_over() {
        Some(other) => print_error(&format!(
            "reading {source}, not {other} (to read that: --config {other})",
            other = other.display()
        )),
        None => print_error(&format!("reading {source}")),
    }
}

/// Opens the reservations. A missing database is created only if the operator asks for it: a wrong directory or
/// configuration would make a stray one, which no service uses.
async fn open(config: &Config, create: bool) -> anyhow::Result<Reservations> {
    if let Some(file) = sqlite::file_of(&config.database.url)
        && !file.exists()
        && !create
    {
        let path = std::path::absolute(&file).unwrap_or(file);
        let path = path.display();
        anyhow::ensure!(
            confirm(&format!("There is no database at {path}. Create it?")),
            "there is no database at {path}; name the configuration of the service with --config FILE, start usher first, or create the database with \"usher bookings add --create-database\""
        );
    }
    Ok(usher::service::build::open(config).await?)
}

/// Asks on a terminal; elsewhere the answer is no.
fn confirm(question: &str) -> bool {
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return false;
    }
    let _ = write!(stderr, "usher: {question} [y/N] ");
    let mut answer = String::new();
    let read = stdin.lock().take(ANSWER_MAX).read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
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
