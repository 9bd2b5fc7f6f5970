//! Signals, and whoever embeds a role, ask it to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal as Signo};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Fatal, OrExit, SYSTEM};

/// Names the process that started this one and speaks for it to the user: then Ctrl-C is that
/// one's business, and its end is ours.
pub const PARENT_ENV: &str = "TRADEWIND_PARENT";

/// What that process passes a request to stop on with. INT and TERM would not do: a terminal and
/// `timeout` send those to the whole group, and the sink must not stop with the first of them.
pub const RELAY: Signo = Signo::USR1;

/// Asks a program to stop, and how urgently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// The first time: finish what is under way.
    Drain,
    /// The second time: give up what is under way.
    Cancel,
    /// More often, or by SIGHUP: at once.
    Quit,
}

/// Asks from within what signals ask from without: for programs that embed a role.
#[derive(Clone, Debug, Default)]
pub struct StopHandle(Arc<watch::Sender<Option<Asked>>>);

/// Hears how often the program was asked to stop: by SIGINT or SIGTERM, by a handle, or by both.
#[derive(Debug)]
pub struct Shutdown {
    signals: Option<Signals>,
    handle: watch::Receiver<Option<Asked>>,
    /// What was asked last.
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// Only if there is a parent.
    relayed: Option<Signal>,
    last: Option<Instant>,
}

/// Signals that come closer together are one: a wrapper such as `timeout` sends its own to the
/// process and then to its group.
const ONE_SIGNAL: Duration = Duration::from_millis(200);

impl StopHandle {
    /// Asks for this, if not for more already. It need not have begun yet.
    pub fn ask(&self, how: Asked) {
        self.0.send_if_modified(|asked| {
            let is_more = *asked < Some(how);
            if is_more {
                *asked = Some(how);
            }
            is_more
        });
    }
}

impl Shutdown {
    /// Takes the signals over. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When the system has no signals to give, or the parent has gone already.
    pub fn new() -> Result<Self, Fatal> {
        Self::by(&StopHandle::default()).or_signals()
    }

    /// Leaves signals alone.
    #[must_use]
    pub fn by(handle: &StopHandle) -> Self {
        Self { signals: None, handle: handle.0.subscribe(), asked: None }
    }

    /// Takes the signals over as well. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// As with [`new`](Self::new).
    pub fn or_signals(self) -> Result<Self, Fatal> {
        Ok(Self { signals: Some(Signals::take()?), ..self })
    }

    /// Waits until it is asked for more than before. Cancel-safe.
    pub async fn asked(&mut self) -> Asked {
        let asked = tokio::select! {
            is_hangup = signalled(&mut self.signals) => match self.asked {
                _ if is_hangup => Asked::Quit,
                None => Asked::Drain,
                Some(Asked::Drain) => Asked::Cancel,
                Some(Asked::Cancel | Asked::Quit) => Asked::Quit,
            },
            asked = handled(&mut self.handle, self.asked) => asked,
        };
        self.asked = Some(asked);
        asked
    }
}

/// Waits for the next signal; true if that means at once.
async fn signalled(signals: &mut Option<Signals>) -> bool {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}

/// Waits until the handle asks for more than this.
async fn handled(handle: &mut watch::Receiver<Option<Asked>>, before: Option<Asked>) -> Asked {
    match handle.wait_for(|asked| *asked > before).await.map(|asked| *asked) {
        Ok(Some(asked)) => asked,
        // All handles are gone.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

impl Signals {
    fn take() -> Result<Self, Fatal> {
        let take = |kind| signal(kind).or_exit(SYSTEM);
        let has_parent = std::env::var_os(PARENT_ENV).is_some();
        let relay = SignalKind::from_raw(RELAY.as_raw());
        let signals = Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
            relayed: has_parent.then(|| take(relay)).transpose()?,
            last: None,
        };
        if has_parent {
            follow_parent()?;
        }
        Ok(signals)
    }

    /// Waits for the next; true if it is SIGHUP.
    async fn next(&mut self) -> bool {
        loop {
            let is_relayed = tokio::select! {
                _ = self.interrupt.recv() => false,
                _ = self.terminate.recv() => false,
                Some(_) = recv(&mut self.relayed) => true,
                _ = self.hangup.recv() => return true,
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
            return false;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handle_is_heard_whenever_it_asked_and_only_for_more() {
        let handle = StopHandle::default();
        handle.ask(Asked::Drain);
        let mut shutdown = Shutdown::by(&handle);
        assert_eq!(shutdown.asked().await, Asked::Drain);
        handle.ask(Asked::Drain);
        handle.clone().ask(Asked::Quit);
        handle.ask(Asked::Cancel);
        assert_eq!(shutdown.asked().await, Asked::Quit);
        drop(handle);
        let again = tokio::time::timeout(Duration::ZERO, shutdown.asked()).await;
        assert!(again.is_err(), "{again:?}");
    }
}
