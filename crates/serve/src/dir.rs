//! The directory of a process that serves queues.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// A directory that another process has.
#[derive(Debug, Error)]
#[error("{} is in use by another process: one has it at a time", .path.display())]
pub struct InUse {
    path: PathBuf,
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

/// Takes a directory for this process, until the file is closed. It is made if it is not there.
pub(crate) fn lock_dir(dir: &Path) -> Result<File, LockError> {
    let amiss = |error| LockError::Io { path: dir.to_owned(), error };
    fs::create_dir_all(dir).map_err(amiss)?;
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).open(dir.join("lock"));
    let file = file.map_err(amiss)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(InUse { path: dir.to_owned() }.into()),
        Err(error) => Err(amiss(error.into())),
    }
}
