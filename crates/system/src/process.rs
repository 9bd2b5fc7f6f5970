//! Figures of this process, from /proc.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Figures of a process; `None` what the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// Processor time, user and system, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Number of open files.
    pub open_files: Option<u64>,
    /// Number of files that may be open.
    pub files_max: Option<u64>,
    /// When it was started, in seconds since 1970.
    pub started: Option<f64>,
}

/// Returns the figures of this process.
#[must_use]
pub fn process_figures() -> ProcessFigures {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let started = fs::metadata("/proc/self").and_then(|folder| folder.modified()).ok();
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = Duration::try_from(cpu).ok();
    ProcessFigures {
        cpu_seconds: cpu.map(|cpu| cpu.as_secs_f64()),
        resident_bytes: resident.map(|kib: u64| kib << 10),
        // The one that lists them is not one of them.
        open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64 - 1),
        files_max: files.and_then(|rest| rest.split_whitespace().next()?.parse().ok()),
        started: started.and_then(|time| Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_figures() {
        let figures = process_figures();
        assert!(figures.cpu_seconds.is_some_and(|seconds| seconds >= 0.0), "{figures:?}");
        assert!(figures.resident_bytes.is_some_and(|bytes| bytes > 1 << 16), "{figures:?}");
        assert!(figures.open_files.is_some_and(|files| files >= 3), "{figures:?}");
        assert!(figures.files_max.is_some(), "{figures:?}");
        assert!(figures.started.is_some_and(|started| started > 1.6e9), "{figures:?}");
    }
}
