//! `usher bookings`: list, add and cancel.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use clap::{ArgGroup, Args, Subcommand};
use usher::clock;
use usher::config::{Config, parse_duration};
use usher::domain::booking::StartPolicy;
use usher::domain::booking::{Booking, BookingId, Draft, Options, WINDOW_MAX};
use usher::domain::conference::{Conference, room_filter};
use usher::domain::secret::Secret;
use usher::domain::timestamp;
use usher::store::BookingFilter;
use usher::text::without_bom;

use super::{open, print, print_error, room_name};

/// The default of --limit.
const LISTED: u32 = 100;
/// How many bytes of a password file are read: more than a password may have.
const SECRET_MAX: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List bookings that are not over yet
    List(List),
    /// Make a booking
    Add(Box<Add>),
    /// Cancel bookings; a conference that runs under one ends
    Cancel {
        /// Their numbers, as listed
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this room
    #[arg(long)]
    room: Option<String>,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only bookings of this owner
    #[arg(long)]
    owner: Option<String>,
    /// Bookings that end after this time; default: now
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<DateTime<Utc>>,
    /// Bookings that start before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<DateTime<Utc>>,
    /// The most bookings to list
    #[arg(long, default_value_t = LISTED)]
    limit: u32,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("length").required(true).args(["lasts", "end", "permanent"])))]
pub(crate) struct Add {
    /// The room, in any spelling
    #[arg(long)]
    room: String,
    /// The room's tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Its title
    #[arg(long)]
    title: Option<String>,
    /// The owner: e-mail address, user id or bare JID, or name: and a display name
    #[arg(long)]
    owner: Option<String>,
    /// When it begins, with its zone: 2026-12-01T14:00+01:00; default: now
    #[arg(long, value_name = "TIME", value_parser = time)]
    start: Option<DateTime<Utc>>,
    /// When it ends
    #[arg(long, value_name = "TIME", value_parser = time)]
    end: Option<DateTime<Utc>>,
    /// How long it lasts: 90m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    lasts: Option<Duration>,
    /// It has no end
    #[arg(long)]
    permanent: bool,
    /// Most occupants at a time
    #[arg(long, value_name = "N")]
    max_occupants: Option<u32>,
    /// Turn the lobby on
    #[arg(long)]
    lobby: bool,
    /// The room's password; other users of this machine can see it in the list of processes
    #[arg(long)]
    password: Option<String>,
    /// The file whose one line is the room's password; -: standard input
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    password_file: Option<PathBuf>,
    /// Visitors wait until the conference goes live
    #[arg(long)]
    waiting_queue: bool,
    /// Go live this many minutes after the start without a moderator
    #[arg(long, value_name = "MINUTES", requires = "waiting_queue")]
    auto_live: Option<u32>,
    /// Who may open the room: anyone or owner
    #[arg(long)]
    starters: Option<StartPolicy>,
    /// Create the database if it is missing, as the first start of usher does
    #[arg(long)]
    create_database: bool,
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    timestamp::parse_zoned(text).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
}

/// Runs the command.
pub(super) async fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    let create = matches!(&command, Command::Add(add) if add.create_database);
    let reservations = open(config, create).await?;
    let now = clock::now();
    let zone = config.reservations.time_zone;
    let mut code = ExitCode::SUCCESS;
    match command {
        Command::List(list) => {
            let limit = list.limit;
            let (room, tenant) = room_filter(list.room.as_deref(), list.tenant.as_deref())?;
            let filter = BookingFilter {
                room,
                tenant,
                owner: list.owner,
                from: list.from.or(Some(now)),
                to: list.to,
                after: None,
                limit: limit.saturating_add(1),
            };
            let bookings = reservations.bookings(&filter).await?;
            let listed = usize::try_from(limit)?;
            for booking in bookings.iter().take(listed) {
                print(line(booking, zone, now))?;
            }
            if bookings.len() > listed {
                print_error(&format_args!(
                    "more bookings than these {limit} match: raise --limit, or list fewer with --room, --owner, --from or --to"
                ));
            }
        }
        Command::Add(add) => {
            let booking = reservations.book(draft(*add, config, now)?, now).await?;
            print(line(&booking, zone, now))?;
        }
        Command::Cancel { ids } => {
            for id in ids {
                match reservations.cancel(BookingId(id), now).await {
                    Ok(()) => print(format_args!("booking {id} is cancelled"))?,
                    Err(error) => {
                        print_error(&error);
                        code = ExitCode::FAILURE;
                    }
                }
            }
        }
    }
    reservations.close().await;
    Ok(code)
}

fn draft(add: Add, config: &Config, now: DateTime<Utc>) -> anyhow::Result<Draft> {
    let conference = Conference::from_names(&add.room, add.tenant.as_deref(), &config.xmpp.domain)?;
    let start = add.start.unwrap_or(now);
    let after = |lasts| {
        let end = start.checked_add_signed(TimeDelta::from_std(lasts).ok()?);
        end.filter(|end| *end - start <= WINDOW_MAX)
    };
    let too_long = "--for is too long; --permanent makes a booking without an end";
    let end = match add.lasts {
        Some(lasts) => Some(after(lasts).context(too_long)?),
        None => add.end,
    };
    let password = match (add.password, add.password_file) {
        (None, Some(file)) => Some(secret_in(&file)?),
        (password, _) => password,
    };
    Ok(Draft {
        conference,
        title: add.title,
        owner: add.owner,
        start,
        end,
        time_zone: None,
        options: Options {
            max_occupants: add.max_occupants,
            lobby: add.lobby,
            password: password.map(Secret::new),
            waiting_queue: add.waiting_queue,
            ..Options::default()
        },
        start_policy: add.starters,
        auto_live: add.auto_live,
    })
}

/// The line that a file holds, or standard input.
fn secret_in(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        stdin().take(SECRET_MAX).read_to_string(&mut text)
    } else {
        File::open(file).and_then(|file| file.take(SECRET_MAX).read_to_string(&mut text))
    };
    read.with_context(|| format!("--password-file {} can't be read", file.display()))?;
    let text = without_bom(&text);
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn line(booking: &Booking, zone: chrono_tz::Tz, now: DateTime<Utc>) -> String {
    let draft = &booking.draft;
    let until = draft.end.map_or_else(
        || "permanent".to_owned(),
        |end| format!("until {}", timestamp::format_local(end, zone, now)),
    );
    let from = timestamp::format_local(draft.start, zone, now);
    let mut line = format!(
        "{}  {}  from {from} {until}",
        booking.id,
        room_name(&draft.conference)
    );
    if let Some(title) = &draft.title {
        line = format!("{line}  \"{title}\"");
    }
    if let Some(owner) = &draft.owner {
        line = format!("{line}  {owner}");
    }
    line
}
