//! Looking at what lies in a directory of queues.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tradewind_records::Directory;
use tradewind_store::{Part, QueueMedia, Report};

use crate::dir::{InUse, LockError, lock_dir, queues_dir};

/// What is in a queue's directory.
#[derive(Debug)]
pub struct Checked {
    /// Directory of the queue.
    pub dir: PathBuf,
    /// What is there, and what is amiss.
    pub report: Report,
}

/// Reason why a directory cannot be looked at.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum CheckError {
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: there are no queues: it is to be the --dir of a `tradewind serve`", .path.display())]
    NoQueues { path: PathBuf },
    #[error(transparent)]
    InUse(#[from] InUse),
}

/// Looks at all queues of a directory that no process serves. Changes nothing.
///
/// # Errors
/// When it is in use, or cannot be read.
pub fn check(dir: &Path) -> Result<Vec<Checked>, CheckError> {
    let queues = queues_dir(dir);
    let amiss = |error| CheckError::Io { path: queues.clone(), error };
    if !queues.is_dir() {
        return Err(CheckError::NoQueues { path: dir.to_owned() });
    }
    let _locked = lock_dir(dir, Duration::ZERO).map_err(|error| match error {
        LockError::InUse(error) => CheckError::InUse(error),
        LockError::Io { path, error } => CheckError::Io { path, error },
    })?;
    let mut dirs = Vec::new();
    for entry in fs::read_dir(&queues).map_err(amiss)? {
        let path = entry.map_err(amiss)?.path();
        if path.is_dir() {
            dirs.push(path);
        }
    }
    dirs.sort();
    let check = |dir: PathBuf| {
        let part = |part: Part| Directory::new(dir.join(part.as_str()));
        let report = tradewind_store::check(QueueMedia {
            tasks: part(Part::Tasks),
            keys: part(Part::Keys),
            records: part(Part::Records),
            index: part(Part::Index),
            control: part(Part::Control),
        });
        Checked { dir, report }
    };
    Ok(dirs.into_iter().map(check).collect())
}
