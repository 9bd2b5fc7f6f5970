//! A running command: a process group and its leader.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// A process group whose leader is our child and is not reaped yet.
///
/// Its id cannot belong to anybody else as long as this exists: [`reap`](Self::reap) takes it
/// away, so that nothing can be signalled afterwards.
#[derive(Debug)]
pub(super) struct Group {
    leader: Child,
    pid: Pid,
    exited: OwnedFd,
    reaped: bool,
}

impl Group {
    /// `leader` was started with `process_group(0)`.
    pub(super) fn new(mut leader: Child) -> io::Result<Self> {
        let pid = Pid::from_child(&leader);
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(exited) => Ok(Self { leader, pid, exited, reaped: false }),
            Err(error) => {
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = leader.wait();
                Err(error.into())
            }
        }
    }

    /// Readable once the leader has exited.
    pub(super) fn exited(&self) -> BorrowedFd<'_> {
        self.exited.as_fd()
    }

    pub(super) fn signal(&self, signal: Signal) {
        // Fails only if nobody is left, or if all have become another user's: nothing to be done.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Whether somebody besides the leader is alive in the group.
    pub(super) fn has_others(&self) -> bool {
        members(self.pid).iter().any(|&member| member != self.pid)
    }

    /// Waits for the leader.
    pub(super) fn reap(mut self) -> io::Result<ExitStatus> {
        let status = self.leader.wait();
        self.reaped = true;
        status
    }
}

impl Drop for Group {
    /// An error or a panic came in between: leave nothing behind.
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::KILL);
            let _ = self.leader.wait();
        }
    }
}

/// Who is alive in a group. Asked of /proc, since `kill` counts zombies as members, and the
/// leader stays one until it is reaped.
pub(super) fn members(group: Pid) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(|&pid| is_member(pid, group).unwrap_or(false)).collect()
}

/// `None` if there is no such process any more.
fn is_member(pid: Pid, group: Pid) -> Option<bool> {
    // pid (name) state ppid pgrp ..., see proc_pid_stat(5); a name may have parentheses in it.
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let pgrp: i32 = fields.nth(1)?.parse().ok()?;
    Some(pgrp == group.as_raw_pid() && !matches!(state, "Z" | "X"))
}
