//! The directory of a process that serves queues.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// A directory that another process has.
#[derive(Debug, Error)]
#[error("{} is in use by another process{}: one has it at a time", .path.display(), after(.waited))]
pub struct InUse {
    path: PathBuf,
    waited: Duration,
}

fn after(waited: &Duration) -> String {
    match waited.is_zero() {
        true => String::new(),
        false => format!(", also after {} s", waited.as_secs_f64()),
    }
}

/// Reason why a directory cannot be had.
#[derive(Debug, Error)]
pub(crate) enum LockError {
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(transparent)]
    InUse(#[from] InUse),
}

/// Returns the directory with the directories of queues.
pub(crate) fn queues_dir(dir: &Path) -> PathBuf {
    dir.join("queues")
}

/// Time for which a process that serves waits for the end of another that has its directory: one that was killed just
/// now may still be about to go.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(3);

/// Interval at which it is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Takes a directory for this process, until the file is closed, and waits for this time at most if another process has
/// it. It is made if it is not there. Blocks.
pub(crate) fn lock_dir(dir: &Path, wait: Duration) -> Result<File, LockError> {
    lock_dir_with(dir, wait, thread::sleep)
}

fn lock_dir_with(
    dir: &Path,
    wait: Duration,
    mut pause: impl FnMut(Duration),
) -> Result<File, LockError> {
    let amiss = |error| LockError::Io { path: dir.to_owned(), error };
    fs::create_dir_all(dir).map_err(amiss)?;
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).open(dir.join("lock"));
    let file = file.map_err(amiss)?;
    let mut waited = Duration::ZERO;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if waited < wait => {
                pause(LOCK_PAUSE);
                waited += LOCK_PAUSE;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(InUse { path: dir.to_owned(), waited }.into());
            }
            Err(error) => return Err(amiss(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_waited_for_while_another_process_goes_and_no_longer_than_said() {
        let dir = tempfile::tempdir().unwrap();
        let never = |_| panic!("nothing is in the way");
        let mut other = Some(lock_dir_with(dir.path(), LOCK_WAIT, never).unwrap());
        let refused = lock_dir_with(dir.path(), Duration::ZERO, never).unwrap_err().to_string();
        assert!(refused.ends_with("in use by another process: one has it at a time"), "{refused}");
        let mut pauses = Vec::new();
        let refused = lock_dir_with(dir.path(), LOCK_WAIT, |pause| pauses.push(pause));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("by another process, also after 3 s: one"), "{refused}");
        assert_eq!(pauses.iter().sum::<Duration>(), LOCK_WAIT);
        let mut pauses = 0;
        let locked = lock_dir_with(dir.path(), LOCK_WAIT, |_| {
            pauses += 1;
            other.take_if(|_| pauses == 2);
        });
        assert!(locked.is_ok() && pauses == 2);
    }
}
