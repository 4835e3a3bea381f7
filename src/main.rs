//! The binary `usher`: arguments, logging, exit codes.

mod cli;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use usher::config::Config;
use usher::lifecycle::{Signals, listen, raise_file_limit};

use cli::{Arguments, Command};

/// What the shell is told when the configuration is at fault (`EX_USAGE`).
const BAD_CONFIGURATION: u8 = 64;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let file = arguments.config.as_deref();
    let config = match Config::load(file) {
        Ok((config, source)) => {
            let serving = matches!(arguments.command, None | Some(Command::Serve));
            cli::log_as(&config.log, serving);
            tracing::debug!(%source, "configured");
            config
        }
        Err(error) => {
            cli::misconfigured(&arguments, &error);
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    let command = arguments.command.unwrap_or(Command::Serve);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime could not start")
        .and_then(|runtime| runtime.block_on(run(command, config)));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            cli::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve => serve(config).await,
        other => cli::run(other, &config).await,
    }
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let address = config.server.listen;
    let listener = listen(address).with_context(|| {
        format!(
            "{address} can't be listened on; set server.listen to a free address of this machine"
        )
    })?;
    raise_file_limit(config.server.max_connections);
    for notice in config.notices() {
        tracing::warn!("{notice}");
    }
    let (mut first, mut second) = (Signals::catch()?, Signals::catch()?);
    tokio::select! {
        served = usher::serve(listener, config, first.next()) => served?,
        () = async { second.next().await; second.next().await } => {
            tracing::warn!("a second signal: leaving at once");
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
