//! The binary `usher`: arguments, logging, exit codes.

#![cfg_attr(not(test), deny(clippy::too_many_lines))]

mod cli;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use usher::clock;
use usher::config::{Config, Purpose};

use cli::{Arguments, Command};

/// The exit code for an invalid configuration (`EX_USAGE`).
const INVALID_CONFIG: u8 = 64;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let file = arguments.config.as_deref();
    let serving = matches!(arguments.command, None | Some(Command::Serve));
    let purpose = if serving {
        Purpose::Serve
    } else {
        Purpose::Command
    };
    let read_at = clock::now();
    let (config, source, level) = match Config::load_for(purpose, file) {
        Ok((config, source)) => {
            let level = cli::log::log_as(&config.log, serving);
            tracing::info!(%source, "configuration read");
            (config, source, level)
        }
        Err(error) => {
            cli::print_config_errors(&arguments, &error);
            return ExitCode::from(INVALID_CONFIG);
        }
    };
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")
        .and_then(|runtime| {
            runtime.block_on(async {
                usher::lifecycle::ignore_file_size_signal()?;
                match arguments.command {
                    None | Some(Command::Serve) => {
                        cli::serve::run(config, file, read_at, &level).await
                    }
                    Some(other) => cli::run(other, &config, &source).await,
                }
            })
        });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            cli::print_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
