//! Requests to stop, or to print the state of the job, by signals and by programs that embed a
//! role.
//!
//! A signal that was ignored when the process started stays ignored, and commands inherit that:
//! `nohup` and the background jobs of scripts mean it so.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal as Signo};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Fatal, OrExit, SYSTEM};
use crate::parent;

/// Signal by which the [parent] forwards a request to stop. INT and TERM would not do: a terminal and
/// `timeout` send those to the whole group, and the sink must not stop with the first of them.
pub const RELAY: Signo = Signo::USR2;

/// Signal by which the parent ends the others at once, and which they get when it is gone. HUP would not
/// do: under `nohup` it is ignored.
pub const LEAVE: Signo = Signo::ALARM;

/// Request to stop, by urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// The first time: finish what is under way.
    Drain,
    /// The second time: give up what is under way.
    Cancel,
    /// More often, or by SIGHUP: at once.
    Quit,
}

/// Makes the requests that signals make, from within: for programs that embed a role.
#[derive(Clone, Debug, Default)]
pub struct StopHandle(Arc<watch::Sender<Option<Asked>>>);

/// Hears how often the program was asked to stop: by SIGINT or SIGTERM, by a handle, or by both.
#[derive(Debug)]
pub struct Shutdown {
    signals: Option<Signals>,
    looks: Looks,
    handle: watch::Receiver<Option<Asked>>,
    /// Request that was made last.
    asked: Option<Asked>,
}

/// Waits for requests to print the state of the job, by SIGUSR1.
#[derive(Debug)]
pub struct Looks(Option<Signal>);

/// `None` where the signal was ignored from the start.
#[derive(Debug)]
struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
    /// Set only if there is a parent.
    relayed: Option<Signal>,
    leave: Option<Signal>,
    last: Option<Instant>,
}

/// Signals that were ignored when this process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IgnoredSignals(u64);

impl IgnoredSignals {
    /// Returns the signals that were ignored before this process took any over: to be asked for the first
    /// time before it does. SIGPIPE is always among them, since Rust ignores it.
    #[must_use]
    pub fn at_start() -> Self {
        static AT_START: OnceLock<IgnoredSignals> = OnceLock::new();
        *AT_START.get_or_init(|| {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            Self::from_status(&status)
        })
    }

    /// Was this one?
    #[must_use]
    pub fn contains(self, signal: Signo) -> bool {
        self.0 & (1 << (signal.as_raw() - 1)) != 0
    }

    /// From what Linux says in /proc/PID/status; elsewhere none is known.
    fn from_status(status: &str) -> Self {
        Self(signal_mask(status, "SigIgn:").unwrap_or(0))
    }

    /// Takes a signal over, unless it is to stay ignored.
    fn take(self, signal: Signo) -> Result<Option<Signal>, Fatal> {
        if self.contains(signal) { Ok(None) } else { handle(signal).map(Some) }
    }
}

/// A set of signals of /proc/PID/status.
fn signal_mask(status: &str, name: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Has this process taken this signal over, so that it does not end it? Where that is not known, yes.
#[must_use]
pub fn is_caught(process: Pid, signal: Signo) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_pid()));
    let caught = status.ok().and_then(|status| signal_mask(&status, "SigCgt:"));
    caught.is_none_or(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
}

/// Takes over what must not end a program at any time, before it does anything else: SIGUSR1, which
/// asks a question, whenever it comes; and SIGXFSZ, so that a file that may not become larger is one
/// that cannot be written. Commands start with neither taken over.
#[cfg(feature = "cli")]
pub(crate) fn survive() {
    let ignored = IgnoredSignals::at_start();
    // What tokio has taken over stays so when this runtime has gone. Without one the program goes on:
    // it will say so itself.
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else {
        return;
    };
    let _runtime = runtime.enter();
    for signal in [Signo::USR1, Signo::XFSZ] {
        let _ = ignored.take(signal);
    }
}

fn handle(signo: Signo) -> Result<Signal, Fatal> {
    signal(SignalKind::from_raw(signo.as_raw())).or_exit(SYSTEM)
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
        Self { signals: None, looks: Looks(None), handle: handle.0.subscribe(), asked: None }
    }

    /// Takes the signals over as well. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// As with [`new`](Self::new).
    pub fn or_signals(self) -> Result<Self, Fatal> {
        let ignored = IgnoredSignals::at_start();
        let signals = Some(Signals::take(ignored)?);
        Ok(Self { signals, looks: Looks(ignored.take(Signo::USR1)?), ..self })
    }

    /// Returns the requests to print the state of the job, for the part of the program that can
    /// print it.
    pub fn take_looks(&mut self) -> Looks {
        std::mem::replace(&mut self.looks, Looks(None))
    }

    /// Prepares for a wait without listening to requests: until the returned value is dropped, the
    /// next signal that asks to stop at once calls a function, on a thread of its own.
    #[must_use]
    pub fn when_asked_again(&self, call: fn()) -> impl Drop + use<> {
        AskedAgain(self.signals.is_some().then_some(call))
    }

    /// Waits for a more urgent request than before. Cancel-safe.
    pub async fn asked(&mut self) -> Asked {
        let asked = tokio::select! {
            is_at_once = signalled(&mut self.signals) => match self.asked {
                _ if is_at_once => Asked::Quit,
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

/// Waits until the handle makes a more urgent request than this.
async fn handled(handle: &mut watch::Receiver<Option<Asked>>, before: Option<Asked>) -> Asked {
    match handle.wait_for(|asked| *asked > before).await.map(|asked| *asked) {
        Ok(Some(asked)) => asked,
        // All handles are gone.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// Listens on when it is dropped.
struct AskedAgain(Option<fn()>);

impl Drop for AskedAgain {
    fn drop(&mut self) {
        let Some(call) = self.0.take() else { return };
        let listen = async move {
            // What came twice was one request.
            tokio::time::sleep(ONE_SIGNAL).await;
            if let Ok(mut signals) = Signals::of_user(IgnoredSignals::at_start()) {
                signals.next().await;
                call();
            }
        };
        // Where there is no room for it, the wait is as long as it is.
        let _ = std::thread::Builder::new().name("asked-again".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(listen))
        });
    }
}

impl Looks {
    /// Waits for the next. Cancel-safe.
    pub async fn next(&mut self) {
        recv(&mut self.0).await;
    }
}

impl Signals {
    fn take(ignored: IgnoredSignals) -> Result<Self, Fatal> {
        let has_parent = parent::speaks_for_us();
        // Between the parent and us: whatever it was started with.
        let between = |signal| has_parent.then(|| handle(signal)).transpose();
        let signals = Self {
            interrupt: ignored.take(Signo::INT)?,
            terminate: ignored.take(Signo::TERM)?,
            hangup: ignored.take(Signo::HUP)?,
            relayed: between(RELAY)?,
            leave: between(LEAVE)?,
            last: None,
        };
        if has_parent {
            follow_parent()?;
        }
        Ok(signals)
    }

    /// Without what a parent passes on with [`RELAY`]: it does so too when the job is over.
    fn of_user(ignored: IgnoredSignals) -> Result<Self, Fatal> {
        let has_parent = parent::speaks_for_us();
        let of_user = |signal| if has_parent { Ok(None) } else { ignored.take(signal) };
        Ok(Self {
            interrupt: of_user(Signo::INT)?,
            terminate: of_user(Signo::TERM)?,
            hangup: of_user(Signo::HUP)?,
            relayed: None,
            leave: has_parent.then(|| handle(LEAVE)).transpose()?,
            last: None,
        })
    }

    /// Waits for the next; true if it means at once.
    async fn next(&mut self) -> bool {
        loop {
            let is_relayed = tokio::select! {
                () = recv(&mut self.interrupt) => false,
                () = recv(&mut self.terminate) => false,
                () = recv(&mut self.relayed) => true,
                () = recv(&mut self.hangup) => return true,
                () = recv(&mut self.leave) => return true,
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

/// Waits for ever for a signal that is not taken over.
async fn recv(signal: &mut Option<Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Sees to it that this process does not outlive its parent, however that ends.
fn follow_parent() -> Result<(), Fatal> {
    rustix::process::set_parent_process_death_signal(Some(LEAVE)).or_exit(SYSTEM)?;
    if parent::pid() == rustix::process::getppid() {
        Ok(())
    } else {
        Err(Fatal::quit("the program that started this one is gone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_system() {
        let of = |mask| IgnoredSignals::from_status(&format!("SigBlk:\tff\nSigIgn:\t{mask}\n"));
        let ignored = of("0000000000001003");
        let check = |signal, wanted| assert_eq!(ignored.contains(signal), wanted, "{signal:?}");
        check(Signo::HUP, true);
        check(Signo::INT, true);
        check(Signo::QUIT, false);
        check(Signo::USR1, false);
        check(Signo::PIPE, true);
        check(Signo::TERM, false);
        assert_eq!(IgnoredSignals::from_status("of another system"), IgnoredSignals(0));
    }

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
