//! Cleaning up, however the program ends: processes are ended by id, scratch files are removed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, exit};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a shell after Ctrl-C.
const EXIT_INTERRUPTED: i32 = 130;

/// Score from -1000 to 1000, which is the first to be killed; children inherit it.
const OOM_SCORE: &str = "500";

static ALL: Mutex<Belongings> = Mutex::new(Belongings { groups: BTreeSet::new(), scratch: None });

struct Belongings {
    /// Ids of the groups that the children lead: their own children are in them.
    groups: BTreeSet<i32>,
    scratch: Option<PathBuf>,
}

/// Ends the programs that [`spawn`] has started when a signal comes, and then this one; and lets
/// the system kill these first if memory runs out.
pub(crate) fn prepare(scratch: &Path) -> Result<()> {
    lock().scratch = Some(scratch.to_owned());
    // If a thousand workers are too many for this machine, they are killed, and not other programs.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let signals: io::Result<Vec<_>> = kinds.into_iter().map(signal).collect();
        signals.context("cannot watch for signals")?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate, hangup] = &mut signals[..] else { unreachable!("three") };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        // Held to the end, so that nothing is started any more.
        let all = lock();
        for group in &all.groups {
            kill(*group);
        }
        if let Some(scratch) = &all.scratch {
            let _ = fs::remove_dir_all(scratch);
        }
        exit(EXIT_INTERRUPTED);
    });
    Ok(())
}

/// Starts a program in a group of its own.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut all = lock();
    let child = command.process_group(0).spawn()?;
    all.groups.insert(Pid::from_child(&child).as_raw_nonzero().get());
    Ok(child)
}

/// Ends a child, if it has not ended, and all processes in its group. Afterwards another process
/// may get the id.
pub(crate) fn end(child: &mut Child) {
    let group = Pid::from_child(child).as_raw_nonzero().get();
    let mut all = lock();
    if all.groups.remove(&group) {
        kill(group);
    }
    drop(all);
    let _ = child.wait();
}

fn kill(group: i32) {
    if let Some(group) = Pid::from_raw(group) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn lock() -> MutexGuard<'static, Belongings> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}
