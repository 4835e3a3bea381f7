//! `usher decisions`: the requests for conferences, and why each was allowed or refused.

use std::process::ExitCode;

use clap::Args;
use usher::config::Config;
use usher::domain::conference::room_filter;
use usher::domain::timestamp;
use usher::store::DecisionFilter;

use super::{open, print, room_name};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only this room
    #[arg(long)]
    room: Option<String>,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// How many, from the latest
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

/// Prints the decisions, the latest last, in the order of a log.
pub(super) async fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let (room, tenant) = room_filter(arguments.room.as_deref(), arguments.tenant.as_deref())?;
    let filter = DecisionFilter {
        room,
        tenant,
        before: None,
        limit: arguments.limit,
    };
    let reservations = open(config, false).await?;
    for row in reservations.decisions(&filter).await?.iter().rev() {
        let requester = [&row.requester.user_email, &row.requester.user_id]
            .into_iter()
            .flatten()
            .next()
            .unwrap_or(&row.requester.mail_owner);
        let requester = if requester.is_empty() {
            "unknown"
        } else {
            requester
        };
        print(format_args!(
            "{}  {}  {} ({})  requested by {requester}: {}",
            timestamp::format(row.at),
            room_name(&row.conference),
            row.outcome,
            row.reason,
            row.sentence
        ))?;
    }
    reservations.close().await;
    Ok(ExitCode::SUCCESS)
}
