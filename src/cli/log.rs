//! What the log looks like: for people, for systemd's journal, or for collectors.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};
use usher::config::{Log, LogFormat, LogLevel};

/// How much is logged; can be changed.
pub(crate) struct Level(reload::Handle<LevelFilter, Registry>);

impl Level {
    /// Logs as much as `log` says from now on.
    pub(crate) fn set(&self, log: &Log) {
        if let Err(error) = self.0.reload(filter(log)) {
            tracing::warn!(%error, "log.level could not be changed");
        }
    }
}

fn filter(log: &Log) -> LevelFilter {
    match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Logs to standard error; commands other than `serve` log only what went wrong.
pub(crate) fn log_as(log: &Log, serving: bool) -> Level {
    let level = if serving {
        filter(log)
    } else {
        LevelFilter::WARN
    };
    let (filter, handle) = reload::Layer::new(level);
    let lines = layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Auto if logs_to_the_journal() => {
            let format = Format::default().with_ansi(false).with_target(false);
            let lines = lines.with_ansi(false);
            lines
                .event_format(ForTheJournal(format.without_time()))
                .boxed()
        }
        LogFormat::Auto | LogFormat::Text => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    Level(handle)
}

/// Whether standard error is systemd's journal (`JOURNAL_STREAM`, see systemd.exec(5)).
#[cfg(unix)]
#[expect(
    clippy::disallowed_methods,
    reason = "systemd sets this variable; it is not configuration"
)]
fn logs_to_the_journal() -> bool {
    use std::os::unix::fs::MetadataExt;
    let stream = std::env::var_os("JOURNAL_STREAM");
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stream.zip(stderr.ok()).is_some_and(|(stream, stderr)| {
        stream.to_str() == Some(&format!("{}:{}", stderr.dev(), stderr.ino()))
    })
}

/// Begins each line with its level as the journal takes it (sd-daemon(3)); the time it knows itself.
struct ForTheJournal(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for ForTheJournal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => 3,
            tracing::Level::WARN => 4,
            tracing::Level::INFO => 6,
            tracing::Level::DEBUG | tracing::Level::TRACE => 7,
        };
        write!(writer, "<{level}>")?;
        self.0.format_event(context, writer, event)
    }
}
