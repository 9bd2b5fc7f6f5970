//! Signals that ask a program to stop.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal as Signo};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Fatal, OrExit, STOPPED, SYSTEM};

/// Names the process that started this one and speaks for it to the user: then Ctrl-C is that
/// one's business, and its end is ours.
pub const PARENT_ENV: &str = "TRADEWIND_PARENT";

/// Asks a program to stop, and how urgently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The first time: finish what is under way.
    Drain,
    /// The second time: give up what is under way.
    Cancel,
    /// More often, or by SIGHUP: at once.
    Quit,
}

/// Counts how often the program was asked to stop, by SIGINT or SIGTERM.
#[derive(Debug)]
pub struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    has_parent: bool,
    asked: u32,
    last: Option<Instant>,
}

/// Signals that come closer together are one: a wrapper such as `timeout` sends its own to the
/// process and then to its group.
const ONE_SIGNAL: Duration = Duration::from_millis(200);

impl Shutdown {
    /// Takes the signals over. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When the system has no signals to give, or the parent has gone already.
    pub fn new() -> Result<Self, Fatal> {
        let take = |kind| signal(kind).or_exit(SYSTEM);
        let shutdown = Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
            has_parent: std::env::var_os(PARENT_ENV).is_some(),
            asked: 0,
            last: None,
        };
        if shutdown.has_parent {
            follow_parent()?;
        }
        Ok(shutdown)
    }

    /// Waits for the next signal. Cancel-safe.
    pub async fn asked(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {
                    // The terminal sends it to the whole group: the parent decides what it means.
                    if self.has_parent {
                        continue;
                    }
                }
                _ = self.terminate.recv() => {}
                _ = self.hangup.recv() => return Asked::Quit,
            }
            if self.last.replace(Instant::now()).is_some_and(|at| at.elapsed() < ONE_SIGNAL) {
                continue;
            }
            self.asked += 1;
            return match self.asked {
                1 => Asked::Drain,
                2 => Asked::Cancel,
                _ => Asked::Quit,
            };
        }
    }
}

/// Sees to it that this process does not outlive its parent, however that ends.
fn follow_parent() -> Result<(), Fatal> {
    rustix::process::set_parent_process_death_signal(Some(Signo::HUP)).or_exit(SYSTEM)?;
    let parent = std::env::var(PARENT_ENV).ok().and_then(|pid| pid.parse().ok());
    if parent.and_then(Pid::from_raw) == rustix::process::getppid() {
        Ok(())
    } else {
        Err(Fatal::new(STOPPED, "the program that started this one is gone"))
    }
}
