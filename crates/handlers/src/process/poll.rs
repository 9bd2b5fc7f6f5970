//! What looking after a process waits for, on either side: a command for one task, or a child that
//! stays.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use crate::stop;

/// Bytes that are read at a time: what a pipe holds.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// How often a stopped group whose leader has exited is asked whether the others have too.
pub(crate) const OTHERS_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until one of these is ready, and says what each is ready for: nothing, where there is none.
pub(crate) fn wait<const N: usize>(
    all: [(Option<BorrowedFd<'_>>, PollFlags); N],
    timeout: Option<Duration>,
) -> io::Result<[PollFlags; N]> {
    let mut fds = Vec::with_capacity(N);
    let places = all.map(|(fd, flags)| {
        fds.push(PollFd::from_borrowed_fd(fd?, flags));
        Some(fds.len() - 1)
    });
    stop::wait(&mut fds, timeout)?;
    Ok(places.map(|place| place.map_or(PollFlags::empty(), |at| fds[at].revents())))
}
