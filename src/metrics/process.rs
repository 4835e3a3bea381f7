//! The process: what it uses, as Linux reports it in `/proc/self`.
//!
//! The library's own collector is not used: it reads the start time from `/proc/stat`, which is hidden from the packaged
//! service.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, Result};

/// The unit of times in `/proc`: part of Linux' interface, independent of the kernel's own unit.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) struct ProcessCollector {
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    open_files: IntGauge,
    open_files_max: IntGauge,
    started_at: Gauge,
}

impl ProcessCollector {
    pub(super) fn new() -> Result<Self> {
        let started_at = Gauge::new(
            "process_start_time_seconds",
            "Start time of the process, in seconds since 1970",
        )?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        started_at.set(since_epoch.unwrap_or_default().as_secs_f64());
        Ok(Self {
            cpu_seconds: Counter::new("process_cpu_seconds_total", "CPU time, in seconds")?,
            resident_bytes: IntGauge::new(
                "process_resident_memory_bytes",
                "Resident memory, in bytes",
            )?,
            open_files: IntGauge::new("process_open_fds", "Open files, including connections")?,
            open_files_max: IntGauge::new("process_max_fds", "The maximum number of open files")?,
            started_at,
        })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        let collectors: [&dyn Collector; 5] = [
            &self.cpu_seconds,
            &self.resident_bytes,
            &self.open_files,
            &self.open_files_max,
            &self.started_at,
        ];
        collectors.into_iter().flat_map(Collector::desc).collect()
    }

    /// A value that a sandbox hides is left out.
    fn collect(&self) -> Vec<MetricFamily> {
        let stats = ProcessStats::read();
        let mut families = self.started_at.collect();
        if let Some(seconds) = stats.cpu_seconds {
            self.cpu_seconds.reset();
            self.cpu_seconds.inc_by(seconds);
            families.extend(self.cpu_seconds.collect());
        }
        let gauges = [
            (&self.resident_bytes, stats.resident_bytes),
            (&self.open_files, stats.open_files),
            (&self.open_files_max, stats.open_files_max),
        ];
        for (gauge, value) in gauges {
            if let Some(value) = value {
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
                families.extend(gauge.collect());
            }
        }
        families
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct ProcessStats {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    open_files: Option<u64>,
    open_files_max: Option<u64>,
}

impl ProcessStats {
    fn read() -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).ok();
        let count = |files: fs::ReadDir| files.count().try_into().ok();
        Self {
            cpu_seconds: read("stat").as_deref().and_then(cpu_seconds),
            resident_bytes: read("status").and_then(|text| Some(field(&text, "VmRSS:")? * 1024)),
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

/// The CPU time in `/proc/self/stat`, in seconds.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The process name is in parentheses and may contain blanks.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_blanks_and_parentheses() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 90 0 0 0 150 50 0 0 20 0 3 0 12345 1 2";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("7 (a) S 1"), None);
    }

    #[test]
    fn statistics_of_this_process_are_read() {
        let stats = ProcessStats::read();
        assert!(stats.cpu_seconds.is_some(), "{stats:?}");
        assert!(stats.resident_bytes > Some(1_000_000), "{stats:?}");
        assert!(stats.open_files > Some(2) && stats.open_files_max > Some(2));
    }
}
