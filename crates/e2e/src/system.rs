//! Facts about processes, from /proc.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;

use crate::scene::MARK_ENV;

/// Bytes of a mebibyte.
pub const MIB: u64 = 1 << 20;

/// Unit of the processor times in /proc.
const TICK: Duration = Duration::from_millis(10);

/// Returns the processes that carry this mark, and their command lines.
#[must_use]
pub fn marked(mark: &str) -> Vec<(Pid, String)> {
    let wanted = format!("{MARK_ENV}={mark}");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw)
        .filter_map(|pid| {
            // Of a process that has ended nothing can be read, waited for or not.
            let environment = read(pid, "environ")?;
            let has_mark = environment.split(|byte| *byte == 0).any(|v| v == wanted.as_bytes());
            let line = || read(pid, "cmdline").unwrap_or_default();
            has_mark.then(|| (pid, String::from_utf8_lossy(&line()).replace('\0', " ")))
        })
        .collect()
}

/// Returns the most memory, in bytes, that a process ever had; `None` once it has ended.
#[must_use]
pub fn memory_bytes_max(pid: Pid) -> Option<u64> {
    let status = String::from_utf8(read(pid, "status")?).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib << 10)
}

/// Returns the processor time that a process has used; `None` once it has ended.
#[must_use]
pub fn cpu_time(pid: Pid) -> Option<Duration> {
    // pid (name) state ..., see proc_pid_stat(5): utime and stime are fields 14 and 15.
    let stat = read(pid, "stat")?;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?.split_ascii_whitespace();
    let ticks: Option<u32> = fields.skip(11).take(2).map(|ticks| ticks.parse::<u32>().ok()).sum();
    Some(TICK * ticks?)
}

/// Returns the bytes that a process has read so far, from any file; `None` once it has ended.
#[must_use]
pub fn bytes_read(pid: Pid) -> Option<u64> {
    let io = String::from_utf8(read(pid, "io")?).ok()?;
    io.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

fn read(pid: Pid, file: &str) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{}/{file}", pid.as_raw_pid())).ok()
}
