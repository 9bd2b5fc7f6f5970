//! Why records cannot be written where the user wants them.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::file::is_unread_pipe;
use super::recover::Damage;
use super::{Destination, OutputTarget, SameFile};

const EBADF: i32 = rustix::io::Errno::BADF.raw_os_error();

/// Why records cannot be written where the user wants them.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory that it should be in does not exist.
    #[error("directory {directory:?} of {destination} does not exist")]
    NoDirectory {
        /// File or stream that could not be opened.
        destination: Destination,
        /// What is missing.
        directory: PathBuf,
    },
    /// It is a directory.
    #[error("{destination} is a directory")]
    Directory {
        /// File or stream that could not be opened.
        destination: Destination,
    },
    /// Permissions forbid it.
    #[error("no permission to write {destination}")]
    Denied {
        /// File or stream that could not be opened.
        destination: Destination,
    },
    /// Something is in it already.
    #[error("{destination} exists already; give --overwrite to replace it")]
    Exists {
        /// File or stream that could not be opened.
        destination: Destination,
    },
    /// Something is in it already, and nothing says of which job.
    #[error(
        "{destination} exists already, and has no journal beside it with which to \
         resume; give --overwrite to replace it"
    )]
    NoJournal {
        /// File or stream that could not be opened.
        destination: Destination,
    },
    /// Two of what is read and written are one file.
    #[error(transparent)]
    Same(#[from] SameFile),
    /// It is a named pipe that nobody reads.
    #[error("no process has opened {destination} for reading")]
    NoReader {
        /// File or stream that could not be opened.
        destination: Destination,
    },
    /// It was closed before the program began.
    #[error("{destination} is closed")]
    Closed {
        /// File or stream that could not be opened.
        destination: Destination,
    },
    /// Another process writes it.
    #[error("{destination} is in use by another process")]
    InUse {
        /// File or stream that could not be opened.
        destination: Destination,
    },
    /// It has records of an earlier run, which is not to be resumed.
    #[error(
        "{destination} exists already: it has {earlier}; --resume continues it, --overwrite \
         replaces it"
    )]
    Earlier {
        /// File or stream that could not be opened.
        destination: Destination,
        /// What is in it.
        earlier: Earlier,
    },
    /// It was changed after the job was complete.
    #[error(
        "{destination} was changed after its job was complete, so it cannot be resumed; \
         --overwrite replaces it"
    )]
    Changed {
        /// What was changed.
        destination: Destination,
    },
    /// It was begun in another way.
    #[error("{destination} was begun {how}; resume it in the same way")]
    Begun {
        /// File or stream that could not be opened.
        destination: Destination,
        /// With which flag.
        how: &'static str,
    },
    /// It is not what it was when it was written.
    #[error("{destination} is damaged: {damage}; --overwrite replaces it")]
    Damaged {
        /// What is damaged.
        destination: Destination,
        /// In which way.
        damage: Damage,
    },
    /// The records of failed tasks cannot be taken out of it.
    #[error("--retry-failed needs {needed}")]
    CannotRetry {
        /// What the user can do.
        needed: &'static str,
    },
    /// It cannot be written anew, without the records of tasks that run again.
    #[error("cannot rewrite {destination}: {reason}")]
    Rewrite {
        /// What was to be written anew.
        destination: Destination,
        /// Error of the operating system.
        reason: io::Error,
    },
    /// It cannot be opened for another reason.
    #[error("cannot open {destination}: {reason}")]
    Io {
        /// File or stream that could not be opened.
        destination: Destination,
        /// Error of the operating system.
        reason: io::Error,
    },
}

/// What an earlier run has left in an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// Records in it.
    pub count: u64,
    /// Of these, the ones whose task did not do what it should.
    pub not_ok: u64,
    /// All of its input has records.
    pub is_complete: bool,
    /// What its job is called, if that is not what ours is called.
    pub other: Option<String>,
}

impl fmt::Display for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, not_ok, is_complete, other } = self;
        let records = if *count == 1 { "record" } else { "records" };
        write!(f, "{count} {records} of ")?;
        match other {
            Some(name) => write!(f, "another job, {name:?}")?,
            None => f.write_str("an earlier run of this job")?,
        }
        f.write_str(if *is_complete { ", which is complete" } else { ", which is not complete" })?;
        if *not_ok > 0 {
            write!(f, ", {not_ok} of them not ok")?;
        }
        Ok(())
    }
}

impl OpenError {
    pub(super) fn opening(destination: &Destination, reason: io::Error) -> Self {
        let destination = destination.clone();
        if let OutputTarget::File(path) = &destination.target
            && is_unread_pipe(path, &reason)
        {
            return Self::NoReader { destination };
        }
        if destination.target == OutputTarget::Stdout && reason.raw_os_error() == Some(EBADF) {
            return Self::Closed { destination };
        }
        match reason.kind() {
            ErrorKind::IsADirectory => Self::Directory { destination },
            ErrorKind::PermissionDenied => Self::Denied { destination },
            ErrorKind::NotFound => match missing_directory(&destination.target) {
                Some(directory) => Self::NoDirectory { destination, directory },
                None => Self::Io { destination, reason },
            },
            _ => Self::Io { destination, reason },
        }
    }

    /// Is it the command line that is at fault, and not the place?
    #[must_use]
    pub fn is_misuse(&self) -> bool {
        matches!(self, Self::Same(_))
    }

    /// Is it a pipe that somebody may still come to read?
    #[must_use]
    pub fn is_unread(&self) -> bool {
        matches!(self, Self::NoReader { .. })
    }

    /// Is there no room where it is to be?
    #[must_use]
    pub fn is_full(&self) -> bool {
        let is_full = |kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        matches!(self, Self::Io { reason, .. } if is_full(reason.kind()))
    }
}

fn missing_directory(target: &OutputTarget) -> Option<PathBuf> {
    let OutputTarget::File(path) = target else { return None };
    let directory = path.parent().filter(|directory| *directory != Path::new(""))?;
    (!directory.exists()).then(|| directory.to_owned())
}
