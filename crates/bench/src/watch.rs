//! Memory of processes while they run.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Pid;

use crate::process::Running;

const INTERVAL: Duration = Duration::from_millis(10);

/// Samples some processes until it is asked for the result.
#[derive(Debug)]
pub(crate) struct MemoryWatch {
    is_over: Arc<AtomicBool>,
    watcher: JoinHandle<Vec<u64>>,
}

impl MemoryWatch {
    pub(crate) fn start<'a>(all: impl IntoIterator<Item = &'a Running>) -> Self {
        let pids: Vec<Pid> = all.into_iter().map(Running::pid).collect();
        let is_over = Arc::new(AtomicBool::new(false));
        let watcher = {
            let is_over = is_over.clone();
            thread::spawn(move || watch(&pids, &is_over))
        };
        Self { is_over, watcher }
    }

    /// Returns the largest memory of each, in bytes, in the order in which they were given.
    pub(crate) fn peaks(self) -> Vec<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        self.watcher.join().unwrap_or_default()
    }
}

fn watch(pids: &[Pid], is_over: &AtomicBool) -> Vec<u64> {
    let mut peaks = vec![0; pids.len()];
    while !is_over.load(Ordering::Relaxed) {
        for (peak, pid) in peaks.iter_mut().zip(pids) {
            *peak = memory_bytes_max(*pid).unwrap_or(0).max(*peak);
        }
        thread::sleep(INTERVAL);
    }
    peaks
}

/// Returns the memory; `None` once the process has ended.
pub(crate) fn memory_bytes_max(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib << 10)
}
