//! Signal to a running task that it is to stop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::files;

/// Says whether the task at hand should stop; can be asked, waited for, and polled with other
/// file descriptors (it is readable once the task should stop).
///
/// A slot has one, for all of its tasks one after another.
#[derive(Debug)]
pub struct StopSignal {
    stopped: AtomicBool,
    wake: OwnedFd,
}

impl StopSignal {
    /// A signal that is not raised.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let wake = files::keep(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Self { stopped: AtomicBool::new(false), wake })
    }

    /// Returns whether the task should stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Waits until the task should stop, but not longer than `timeout`; says whether it should.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        // No deadline: further away than the clock can count.
        let deadline = Instant::now().checked_add(timeout);
        while !self.is_stopped() {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            wait(&mut [PollFd::new(&self.wake, PollFlags::IN)], left)
                .expect("one open descriptor can be polled");
        }
        self.is_stopped()
    }

    /// Tells the task to stop.
    pub fn raise(&self) {
        if !self.stopped.swap(true, Ordering::AcqRel) {
            // Cannot fail: the counter goes from 0 to 1.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Makes it ready for the next task.
    pub(super) fn clear(&self) {
        if self.stopped.swap(false, Ordering::AcqRel) {
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
    }
}

static AT_ONCE: AtomicBool = AtomicBool::new(false);

/// From now on commands that are being stopped are killed: the user has asked a second time.
pub fn stop_at_once() {
    AT_ONCE.store(true, Ordering::Release);
}

/// Is there no time left for what is being stopped?
pub(super) fn is_at_once() -> bool {
    AT_ONCE.load(Ordering::Acquire)
}

impl AsFd for StopSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Polls `fds`. An interrupted wait ends early with nothing ready.
pub(super) fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_is_for_one_task() {
        let stop = StopSignal::new().unwrap();
        assert!(!stop.is_stopped());
        assert!(!stop.wait_timeout(Duration::from_millis(1)));
        stop.raise();
        stop.raise();
        assert!(stop.wait_timeout(Duration::MAX));
        stop.clear();
        stop.clear();
        assert!(!stop.wait_timeout(Duration::from_millis(1)));
    }

    #[test]
    fn signal_ends_a_wait() {
        let stop = StopSignal::new().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stop.wait_timeout(Duration::MAX));
            stop.raise();
            assert!(waiting.join().unwrap());
        });
    }
}
