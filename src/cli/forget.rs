//! `usher forget`: erases what is stored of one person.

use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;
use usher::clock;
use usher::config::Config;
use usher::store::Forgotten;

use super::{open, print};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The e-mail address, the id or the JID, as it is stored; or name: and a display name
    #[arg(value_name = "PERSON")]
    person: String,
}

/// Erases the person, and prints what was erased, and what is kept and why.
pub(super) async fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    ensure!(
        !arguments.person.trim().is_empty(),
        "the person is empty; give an e-mail address, an id or a JID"
    );
    let reservations = open(config, false).await?;
    let forgotten = reservations.forget(&arguments.person, clock::now()).await?;
    reservations.close().await;
    report(&forgotten)?;
    Ok(ExitCode::SUCCESS)
}

fn report(forgotten: &Forgotten) -> std::io::Result<()> {
    let Forgotten {
        bookings,
        decisions,
        conferences,
        kept_bookings,
        kept_conferences,
    } = forgotten;
    print(format_args!(
        "erased: owner, title and password of {bookings} bookings that are over"
    ))?;
    print(format_args!("erased: the user in {decisions} decisions"))?;
    print(format_args!(
        "erased: the owner of {conferences} conferences that are over"
    ))?;
    for id in kept_bookings {
        print(format_args!(
            "kept: booking {id}, which is not over: usher bookings cancel {id} cancels it; then run this command again"
        ))?;
    }
    if *kept_conferences > 0 {
        print(format_args!(
            "kept: the owner of {kept_conferences} running conferences, which Prosody requires until they end; run this command again then"
        ))?;
    }
    print(
        "not changed: backups of the database, log files, and what Prosody and an external reservation system store",
    )
}
