//! Reasons why records cannot be written where the user wants them.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::file::is_unread_pipe;
use super::recover::Damage;
use super::{Destination, OutputTarget, SameFile};

const EBADF: i32 = rustix::io::Errno::BADF.raw_os_error();

/// Reason why records cannot be written where the user wants them.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two of the files that are read and written are one.
    #[error(transparent)]
    Same(#[from] SameFile),
    /// The records of failed tasks cannot be removed.
    #[error("--retry-failed needs {needed}")]
    CannotRetry {
        /// Flags that the user can give instead.
        needed: &'static str,
    },
    /// An output that is no file cannot take the job's records.
    #[error("{output} {reason}")]
    Elsewhere {
        /// Name of the output.
        output: String,
        /// Reason, as it follows the name.
        reason: String,
    },
    /// Something stands in the way of one destination.
    #[error("{}", .obstacle.describe(.destination))]
    At {
        /// File or stream that cannot be used.
        destination: Destination,
        /// Reason.
        obstacle: Obstacle,
    },
}

/// Reason why a destination cannot be used.
#[derive(Debug)]
pub enum Obstacle {
    /// Its directory, which is this one, does not exist.
    NoDirectory(PathBuf),
    /// It is a directory.
    Directory,
    /// Permissions forbid it.
    Denied,
    /// It is not empty.
    Exists,
    /// It is not empty, and no journal says which job it belongs to.
    NoJournal,
    /// It has the name of a journal, and is this instead.
    Foreign(&'static str),
    /// It is a named pipe that no process reads.
    NoReader,
    /// It was closed before the program began.
    Closed,
    /// Another process writes it.
    InUse,
    /// It has records of an earlier run, which is not to be resumed.
    Earlier(Earlier),
    /// It was changed after its job was complete.
    Changed,
    /// It was begun with or without this flag.
    Begun(&'static str),
    /// Its contents are not as they were written.
    Damaged(Damage),
    /// It cannot be rewritten without the records of tasks that run again.
    Rewrite(io::Error),
    /// It cannot be opened for another reason.
    Io(io::Error),
}

/// Records of an earlier run in an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// Number of records.
    pub count: u64,
    /// Number of those whose status is neither `ok` nor `skipped`.
    pub not_ok: u64,
    /// Whether the job is complete: each task of its input has a record.
    pub is_complete: bool,
    /// Name of its job, if it is not the name of this one.
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
    pub(super) fn new(destination: &Destination, obstacle: Obstacle) -> Self {
        Self::At { destination: destination.clone(), obstacle }
    }

    /// Creates the error of a destination that the operating system did not open.
    pub(super) fn opening(destination: &Destination, reason: io::Error) -> Self {
        Self::new(destination, Obstacle::of_opening(&destination.target, reason))
    }

    /// Returns whether the command line is wrong, and not the place that it names.
    #[must_use]
    pub fn is_misuse(&self) -> bool {
        matches!(self, Self::Same(_))
    }

    /// Returns whether the destination is a pipe that a process may yet open for reading.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        matches!(self, Self::At { obstacle: Obstacle::NoReader, .. })
    }

    /// Returns whether the destination has no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let is_full = |kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        matches!(self, Self::At { obstacle: Obstacle::Io(error), .. } if is_full(error.kind()))
    }
}

impl Obstacle {
    fn of_opening(target: &OutputTarget, reason: io::Error) -> Self {
        if let OutputTarget::File(path) = target
            && is_unread_pipe(path, &reason)
        {
            return Self::NoReader;
        }
        if *target == OutputTarget::Stdout && reason.raw_os_error() == Some(EBADF) {
            return Self::Closed;
        }
        match reason.kind() {
            ErrorKind::IsADirectory => Self::Directory,
            ErrorKind::PermissionDenied => Self::Denied,
            ErrorKind::NotFound => {
                missing_directory(target).map_or(Self::Io(reason), Self::NoDirectory)
            }
            _ => Self::Io(reason),
        }
    }

    fn describe(&self, at: &Destination) -> String {
        match self {
            Self::NoDirectory(directory) => {
                format!("directory {directory:?} of {at} does not exist")
            }
            Self::Directory => format!("{at} is a directory"),
            Self::Denied => format!("no permission to write {at}"),
            Self::Exists => format!("{at} exists already; give --overwrite to replace it"),
            Self::NoJournal => format!(
                "{at} exists already, and has no journal beside it with which to resume; give \
                 --overwrite to replace it"
            ),
            Self::Foreign(what) => format!(
                "{at} exists already and is {what}: it stays as it is; move it away, or write to \
                 another file"
            ),
            Self::NoReader => format!("no process has opened {at} for reading"),
            Self::Closed => format!("{at} is closed"),
            Self::InUse => format!("{at} is in use by another process"),
            Self::Earlier(earlier) => format!(
                "{at} exists already: it has {earlier}; --resume continues it, --overwrite \
                 replaces it"
            ),
            Self::Changed => format!(
                "{at} was changed after its job was complete, so it cannot be resumed; \
                 --overwrite replaces it"
            ),
            Self::Begun(how) => format!("{at} was begun {how}; resume it in the same way"),
            Self::Damaged(damage) => format!("{at} is damaged: {damage}; --overwrite replaces it"),
            Self::Rewrite(error) => format!("cannot rewrite {at}: {error}"),
            Self::Io(error) => format!("cannot open {at}: {error}"),
        }
    }
}

fn missing_directory(target: &OutputTarget) -> Option<PathBuf> {
    let OutputTarget::File(path) = target else { return None };
    let directory = path.parent().filter(|directory| *directory != Path::new(""))?;
    (!directory.exists()).then(|| directory.to_owned())
}
