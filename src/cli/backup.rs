//! `usher backup`: a copy of the database, taken while the service runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use usher::config::Config;

use super::print;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The file to write; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Writes the copy, which is complete and on disk when this returns.
pub(super) async fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let file = &arguments.file;
    usher::service::build::back_up(config, file).await?;
    print(format_args!(
        "the database is backed up to {}",
        file.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}
