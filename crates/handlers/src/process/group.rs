//! A running command: a process group and its leader.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, pidfd_open,
    test_kill_process_group, waitid,
};

use crate::files::Starting;

/// A process group whose leader is our child.
///
/// Its id cannot belong to another process until the leader is [reaped](Self::reap); after that nothing
/// is signalled.
#[derive(Debug)]
pub(super) struct Group {
    leader: Child,
    pid: Pid,
    exited: OwnedFd,
    /// The leader is alone: it is in our own group, which has the terminal.
    is_alone: bool,
    reaped: bool,
}

/// Members of a group that are alive, besides its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// No process.
    None,
    /// Some, and all of them wait for something; clock ticks that they have run for.
    Asleep { ticks: u64 },
    /// One at least runs, or would if it had a processor.
    Busy,
}

impl Group {
    /// `leader` was started with `process_group(0)`, unless it `is_alone`.
    pub(super) fn new(mut leader: Child, is_alone: bool, starting: &Starting) -> io::Result<Self> {
        let pid = Pid::from_child(&leader);
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(exited) => {
                Ok(Self { leader, pid, exited: starting.keep(exited), is_alone, reaped: false })
            }
            Err(error) => {
                let _ = if is_alone {
                    kill_process(pid, Signal::KILL)
                } else {
                    kill_process_group(pid, Signal::KILL)
                };
                let _ = leader.wait();
                Err(error.into())
            }
        }
    }

    /// Readable once the leader has exited.
    pub(super) fn exited(&self) -> BorrowedFd<'_> {
        self.exited.as_fd()
    }

    /// Has the leader exited?
    pub(super) fn has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.pid), options), Ok(Some(_)))
    }

    /// The signal that keeps the leader from the terminal, if one does: TTIN if it wants to read,
    /// TTOU if it wants to write or to set it up.
    pub(super) fn wants_terminal(&self) -> Option<Signal> {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let stopped_by = waitid(WaitId::Pid(self.pid), options).ok()??.stopping_signal()?;
        [Signal::TTIN, Signal::TTOU].into_iter().find(|signal| signal.as_raw() == stopped_by)
    }

    pub(super) fn signal(&self, signal: Signal) {
        if self.reaped {
            return;
        }
        // Fails only if the group is empty, or all have become another user's: nothing to be done.
        let _ = if self.is_alone {
            kill_process(self.pid, signal)
        } else {
            kill_process_group(self.pid, signal)
        };
    }

    /// Returns the members of the group that are alive, besides the leader.
    pub(super) fn others(&self) -> Others {
        if self.is_alone {
            return Others::None;
        }
        let members = members(self.pid).into_iter().filter(|member| member.pid != self.pid);
        let (mut count, mut ticks) = (0, 0);
        for member in members {
            if matches!(member.state, b'R' | b'D') {
                return Others::Busy;
            }
            count += 1;
            ticks += member.ticks;
        }
        if count == 0 { Others::None } else { Others::Asleep { ticks } }
    }

    /// Waits for the leader.
    pub(super) fn reap(&mut self) -> io::Result<ExitStatus> {
        let status = self.leader.wait();
        self.reaped = true;
        status
    }

    /// Returns whether the group is empty, once its leader was reaped. Another group that has its id by
    /// then makes it look as if it were not.
    pub(super) fn is_gone(&self) -> bool {
        self.is_alone || test_kill_process_group(self.pid) == Err(Errno::SRCH)
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

/// A process that is alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) pid: Pid,
    state: u8,
    ticks: u64,
}

/// Returns the living members of a group. Asked of /proc, since `kill` counts zombies as members, and the
/// leader stays one until it is reaped.
pub(crate) fn members(group: Pid) -> Vec<Member> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter_map(|pid| member(pid, group)).collect()
}

/// `None` if there is no such process any more, or it is in another group.
fn member(pid: Pid, group: Pid) -> Option<Member> {
    // pid (name) state ppid pgrp ..., see proc_pid_stat(5); a name may have parentheses in it.
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let pgrp: i32 = fields.nth(1)?.parse().ok()?;
    if pgrp != group.as_raw_pid() || matches!(state, b'Z' | b'X') {
        return None;
    }
    // utime and stime are the 14th and the 15th of all, pgrp the 5th.
    let utime: u64 = fields.nth(8)?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(Member { pid, state, ticks: utime + stime })
}
