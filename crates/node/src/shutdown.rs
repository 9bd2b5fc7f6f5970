//! Signals that ask a program to stop.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal as Signo};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Fatal, OrExit, SYSTEM};

/// Names the process that started this one and speaks for it to the user: then Ctrl-C is that
/// one's business, and its end is ours.
pub const PARENT_ENV: &str = "TRADEWIND_PARENT";

/// What that process passes a request to stop on with. INT and TERM would not do: a terminal and
/// `timeout` send those to the whole group, and the sink must not stop with the first of them.
pub const RELAY: Signo = Signo::USR1;

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
    /// Only if there is a parent.
    relayed: Option<Signal>,
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
        let has_parent = std::env::var_os(PARENT_ENV).is_some();
        let relay = SignalKind::from_raw(RELAY.as_raw());
        let shutdown = Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
            relayed: has_parent.then(|| take(relay)).transpose()?,
            asked: 0,
            last: None,
        };
        if has_parent {
            follow_parent()?;
        }
        Ok(shutdown)
    }

    /// Waits for the next signal. Cancel-safe.
    pub async fn asked(&mut self) -> Asked {
        loop {
            let is_relayed = tokio::select! {
                _ = self.interrupt.recv() => false,
                _ = self.terminate.recv() => false,
                Some(_) = recv(&mut self.relayed) => true,
                _ = self.hangup.recv() => return Asked::Quit,
            };
            // The parent decides what a signal means, and has counted those that it passes on.
            if is_relayed != self.relayed.is_some() {
                continue;
            }
            let is_again = self.last.is_some_and(|at| at.elapsed() < ONE_SIGNAL);
            if is_again && !is_relayed {
                continue;
            }
            self.last = Some(Instant::now());
            self.asked += 1;
            return match self.asked {
                1 => Asked::Drain,
                2 => Asked::Cancel,
                _ => Asked::Quit,
            };
        }
    }
}

async fn recv(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => None,
    }
}

/// Sees to it that this process does not outlive its parent, however that ends.
fn follow_parent() -> Result<(), Fatal> {
    rustix::process::set_parent_process_death_signal(Some(Signo::HUP)).or_exit(SYSTEM)?;
    let parent = std::env::var(PARENT_ENV).ok().and_then(|pid| pid.parse().ok());
    if parent.and_then(Pid::from_raw) == rustix::process::getppid() {
        Ok(())
    } else {
        Err(Fatal::quit("the program that started this one is gone"))
    }
}
