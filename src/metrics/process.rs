//! The figures of this process, as Linux tells them under `/proc/self`.

use std::fs;

/// The unit of times under `/proc`: part of Linux' interface, whatever the kernel itself counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the process uses; each figure for itself, for a sandbox may hide what it is read from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    /// Time on the processors, in seconds.
    pub(crate) cpu_seconds: Option<f64>,
    /// Resident memory, in bytes.
    pub(crate) resident_bytes: Option<u64>,
    /// Open files.
    pub(crate) open_files: Option<u64>,
    /// How many may be open.
    pub(crate) open_files_max: Option<u64>,
}

impl Figures {
    /// Reads them.
    pub(crate) fn read() -> Self {
        let own = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).ok();
        let count = |files: fs::ReadDir| files.count().try_into().ok();
        Self {
            cpu_seconds: own("stat").as_deref().and_then(cpu_seconds),
            resident_bytes: own("status").and_then(|text| Some(field(&text, "VmRSS:")? * 1024)),
            open_files: fs::read_dir("/proc/self/fd").ok().and_then(count),
            open_files_max: rlimit::Resource::NOFILE.get().ok().map(|(soft, _)| soft),
        }
    }
}

/// The number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Seconds on the processors.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name of the process comes in parentheses, and may hold blanks.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_blanks_and_parentheses() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 90 0 0 0 150 50 0 0 20 0 3 0 12345 1 2";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_figures() {
        let figures = Figures::read();
        assert!(figures.cpu_seconds.is_some(), "{figures:?}");
        assert!(figures.resident_bytes > Some(1_000_000), "{figures:?}");
        assert!(figures.open_files > Some(2) && figures.open_files_max > Some(2));
    }
}
