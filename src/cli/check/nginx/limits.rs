//! How many files a running program may have open, as Linux reports it in `/proc`.

use std::fs;

/// The lowest limit of the running processes with this name. `None` if there is none, or none can be read.
pub(super) fn open_files_of(name: &str) -> Option<u64> {
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let limits = processes.filter_map(|process| {
        let read = |file| fs::read_to_string(process.path().join(file)).ok();
        (read("comm")?.trim() == name).then_some(())?;
        open_files(&read("limits")?)
    });
    limits.min()
}

/// The soft limit.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limit_of_open_files_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max processes             1                    2                    processes \n\
            Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files(""), None);
        assert!(open_files_of("no program has this name").is_none());
    }
}
