//! The worker's open files, where it needs more than the limit that it was started with.
//!
//! Some programs go wrong when they may open more than 1,024 files, so commands get the soft limit
//! with which the worker was started. It is a limit of the whole process, and a command inherits it
//! at the moment in which it is started: for that moment it is lowered again. Lowering closes
//! nothing, but a file that is opened just then needs a number below the limit. So all that lives as
//! long as a command does has numbers above it, and those below are for everybody else.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Set at the start of a worker that must be sparing with files, or has raised its limit.
static SPARING: OnceLock<Sparing> = OnceLock::new();

#[derive(Debug)]
struct Sparing {
    /// As the worker was started: what commands get.
    given: Rlimit,
    /// Soft limit that the process has set; the same if it could not be raised.
    raised: Rlimit,
    /// Held while a command is started: no two are at a time, since each takes some files more for
    /// that.
    starting: Mutex<()>,
}

/// The right to start a command.
#[derive(Debug)]
pub(super) struct Starting {
    sparing: Option<&'static Sparing>,
    _lock: Option<MutexGuard<'static, ()>>,
}

/// Raises the limit of open files as far as it goes. From now on commands are started one at a time.
pub(super) fn be_sparing() {
    let given = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: given.maximum, ..given };
    let raised = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { given };
    let _ = SPARING.set(Sparing { given, raised, starting: Mutex::new(()) });
}

/// Waits until a command may be started.
pub(super) fn starting() -> Starting {
    let sparing = SPARING.get();
    let lock = |sparing: &'static Sparing| sparing.starting.lock();
    let _lock = sparing.map(|it| lock(it).unwrap_or_else(PoisonError::into_inner));
    Starting { sparing, _lock }
}

/// Gives a file that lives long a number above the lowered limit.
pub(super) fn keep(fd: OwnedFd) -> OwnedFd {
    starting().keep(fd)
}

impl Starting {
    /// Is nothing to be kept open that can be done without?
    pub(super) fn is_sparing(&self) -> bool {
        self.sparing.is_some()
    }

    /// Holds a number that is needed once the command runs, when it is too late to go without: to be
    /// dropped just before.
    pub(super) fn reserve(&self) -> io::Result<Option<OwnedFd>> {
        let reserve = || eventfd(0, EventfdFlags::CLOEXEC);
        Ok(self.is_sparing().then(reserve).transpose()?)
    }

    /// As the function of this name.
    pub(super) fn keep(&self, fd: OwnedFd) -> OwnedFd {
        let Some(sparing) = self.sparing else { return fd };
        let Some(above) = sparing.lowered().and_then(|limit| i32::try_from(limit).ok()) else {
            return fd;
        };
        if fd.as_raw_fd() >= above {
            return fd;
        }
        // One with a low number is better than none.
        fcntl_dupfd_cloexec(&fd, above).unwrap_or(fd)
    }

    /// Starts a command, with the limit that this process was started with.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let Some(sparing) = self.sparing else { return command.spawn() };
        if sparing.lowered().is_none() {
            return command.spawn();
        }
        setrlimit(Resource::Nofile, sparing.given)?;
        let child = command.spawn();
        // It was allowed before, and nothing but the hard limit forbids it.
        let _ = setrlimit(Resource::Nofile, sparing.raised);
        child
    }
}

impl Sparing {
    /// The limit that commands get, if that is less than ours.
    fn lowered(&self) -> Option<u64> {
        self.given.current.filter(|_| self.given != self.raised)
    }
}
