//! The figures of this process, as Linux tells them under `/proc/self`.

use std::fs;
use std::io;

/// The unit of times under `/proc`: part of Linux' interface, whatever the kernel itself counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    /// Time on the processors, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub(crate) resident_bytes: u64,
    /// Open files.
    pub(crate) open_files: u64,
    /// How many may be open.
    pub(crate) open_files_max: u64,
    /// When the process started, in seconds since 1970.
    pub(crate) started_at: f64,
}

impl Figures {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// Where there is no `/proc`, or it says something else than Linux does.
    pub(crate) fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let status = fs::read_to_string("/proc/self/status")?;
        let machine = fs::read_to_string("/proc/stat")?;
        let (cpu_seconds, since_boot) = times(&stat).ok_or(io::ErrorKind::InvalidData)?;
        let booted = field(&machine, "btime ").ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            cpu_seconds,
            resident_bytes: field(&status, "VmRSS:").unwrap_or(0) * 1024,
            open_files: fs::read_dir("/proc/self/fd")?
                .count()
                .try_into()
                .unwrap_or(0),
            open_files_max: rlimit::Resource::NOFILE.get()?.0,
            started_at: booted as f64 + since_boot,
        })
    }
}

/// The number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Seconds on the processors, and from the machine's start to the process's.
fn times(stat: &str) -> Option<(f64, f64)> {
    // The name of the process comes in parentheses, and may hold blanks.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    let started: f64 = fields.nth(6)?.parse().ok()?;
    Some((
        (user + system) / TICKS_PER_SECOND,
        started / TICKS_PER_SECOND,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_blanks_and_parentheses() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 90 0 0 0 150 50 0 0 20 0 3 0 12345 1 2";
        assert_eq!(times(stat), Some((2.0, 123.45)));
        assert_eq!(times("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_figures() {
        let figures = Figures::read().unwrap();
        assert!(figures.resident_bytes > 1_000_000, "{figures:?}");
        assert!(figures.open_files > 2 && figures.open_files_max > 2);
        assert!(figures.started_at > 1.6e9, "{figures:?}");
    }
}
