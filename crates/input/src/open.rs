//! Opening of the input that the user named.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::str::FromStr;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{BadRow, Delimiter, LineSource};

/// Place of the input: `-` means standard input (a file of that name is `./-`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InputPath {
    /// Standard input.
    #[default]
    Stdin,
    /// A file, or anything else with a path.
    File(PathBuf),
}

/// Reason why there is no input, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The path does not exist.
    #[error("{input} does not exist")]
    NotFound {
        /// File or stream that could not be opened.
        input: InputPath,
    },
    /// It is a directory.
    #[error("{input} is a directory")]
    Directory {
        /// File or stream that could not be opened.
        input: InputPath,
    },
    /// Its permissions forbid it.
    #[error("no permission to read {input}")]
    Denied {
        /// File or stream that could not be opened.
        input: InputPath,
    },
    /// It was closed before the program began.
    #[error("{input} is closed")]
    Closed {
        /// File or stream that could not be opened.
        input: InputPath,
    },
    /// It cannot be opened for another reason.
    #[error("cannot open {input}: {reason}")]
    Open {
        /// File or stream that could not be opened.
        input: InputPath,
        /// Error of the operating system.
        reason: io::Error,
    },
    /// Reading failed after the input was opened.
    #[error("cannot read {input}: {reason}")]
    Read {
        /// Input that was being read.
        input: InputPath,
        /// Error of the operating system.
        reason: io::Error,
    },
    /// The program that gives the tasks cannot continue.
    #[error("cannot get more tasks: {0}")]
    Program(Box<dyn std::error::Error + Send + Sync>),
    /// A row is not as the format asks for.
    #[error("{input}, line {line}: {bad}")]
    Row {
        /// Input that was being read.
        input: InputPath,
        /// Number of the line in which the row begins, from 1.
        line: u64,
        /// Error in that line.
        bad: BadRow,
    },
}

/// Open input.
pub struct Input<R = Box<dyn Read + Send>> {
    /// Source of the bytes; it keeps no buffer.
    pub reader: R,
    /// Name of the input in error messages.
    pub path: InputPath,
    /// Bytes to read, if it is a regular file. It may grow or shrink all the same.
    pub bytes: Option<u64>,
}

/// Opens the input without waiting: of a named pipe the first read waits for the program that
/// writes into it.
///
/// # Errors
///
/// When it cannot be opened or is a directory.
pub fn open(path: &InputPath) -> Result<Input, InputError> {
    Input::new(open_file(path)?, path.clone())
}

/// Opens the input without waiting, for another process to read.
///
/// # Errors
///
/// When it cannot be opened or is a directory.
pub fn open_file(path: &InputPath) -> Result<File, InputError> {
    let opened = match path {
        InputPath::Stdin if tradewind_stdio::is_stdin_closed() => {
            return Err(InputError::Closed { input: path.clone() });
        }
        // A handle of our own: the standard library's stdin has a lock and a buffer.
        InputPath::Stdin => io::stdin().as_fd().try_clone_to_owned().map(File::from),
        InputPath::File(path) => {
            let is_pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
            let flags = if is_pipe { OFlags::NONBLOCK.bits().cast_signed() } else { 0 };
            File::options().read(true).custom_flags(flags).open(path)
        }
    };
    let describe = |reason| InputError::opening(path, reason);
    let file = opened.map_err(describe)?;
    if file.metadata().map_err(describe)?.is_dir() {
        return Err(InputError::Directory { input: path.clone() });
    }
    Ok(file)
}

impl Input {
    /// Takes an input that is open already, with this name.
    ///
    /// # Errors
    ///
    /// When the system cannot tell its kind.
    pub fn new(mut file: File, path: InputPath) -> Result<Self, InputError> {
        let describe = |reason| InputError::opening(&path, reason);
        let metadata = file.metadata().map_err(describe)?;
        let bytes = match metadata.is_file() {
            // The process that opened our stdin may have read from it already.
            true => Some(metadata.len().saturating_sub(file.stream_position().map_err(describe)?)),
            false => None,
        };
        let is_pipe = metadata.file_type().is_fifo();
        Ok(Self { reader: Box::new(Patient { file, may_lack_writer: is_pipe }), path, bytes })
    }
}

impl<R: Read> Input<R> {
    /// Returns the source of its tasks. None may be longer than `task_bytes_max`.
    pub fn lines(self, delimiter: Delimiter, task_bytes_max: usize) -> LineSource<R> {
        LineSource::new(self.reader, self.path, delimiter, task_bytes_max)
    }
}

impl InputError {
    fn opening(path: &InputPath, reason: io::Error) -> Self {
        let input = path.clone();
        match reason.kind() {
            ErrorKind::NotFound => Self::NotFound { input },
            ErrorKind::IsADirectory => Self::Directory { input },
            ErrorKind::PermissionDenied => Self::Denied { input },
            _ => Self::Open { input, reason },
        }
    }
}

impl InputPath {
    /// Returns the word on a command line.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        match self {
            Self::Stdin => OsStr::new("-"),
            Self::File(path) => path.as_os_str(),
        }
    }
}

impl From<OsString> for InputPath {
    fn from(given: OsString) -> Self {
        if given == "-" { Self::Stdin } else { Self::File(given.into()) }
    }
}

impl FromStr for InputPath {
    type Err = Infallible;

    fn from_str(given: &str) -> Result<Self, Infallible> {
        Ok(OsString::from(given).into())
    }
}

impl fmt::Display for InputPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => write!(f, "input {path:?}"),
        }
    }
}

/// Reader that waits where a read would fail because the descriptor does not block, and where it
/// would find the end of a pipe because no process has opened that for writing yet.
///
/// That mode belongs to the open file, not to the descriptor: any process that shares our stdin, an
/// `ssh` before us in the script for one, may have left it on.
struct Patient {
    file: File,
    may_lack_writer: bool,
}

impl Patient {
    /// Waits until there is something to read, or its end: a writer that has gone, not one that is
    /// yet to come.
    fn wait(&self) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], None) {
            Err(error) if error != Errno::INTR => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.may_lack_writer) {
            self.wait()?;
        }
        loop {
            match self.file.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait()?,
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn path(path: impl Into<PathBuf>) -> InputPath {
        InputPath::File(path.into())
    }

    #[test]
    fn a_file_is_read_and_its_length_is_known() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a\nb\n").unwrap();
        let mut input = open(&path(file.path())).unwrap();
        let mut text = String::new();
        input.reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), input.bytes), ("a\nb\n", Some(4)));
    }

    #[test]
    fn what_is_not_a_regular_file_has_no_length() {
        assert_eq!(open(&path("/dev/null")).unwrap().bytes, None);
    }

    #[test]
    fn errors_name_the_input_and_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        let check = |given: PathBuf, wanted: &str| {
            let error = open(&path(&given)).err().expect("cannot be opened");
            assert_eq!(error.to_string(), wanted.replace('@', &format!("{given:?}")));
        };
        check(at("none"), "input @ does not exist");
        check(at("none/none"), "input @ does not exist");
        check(at(""), "input @ is a directory");
        check(at("file/x"), "cannot open input @: Not a directory (os error 20)");
    }

    #[test]
    fn a_file_without_permission_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o000)).unwrap();
        // Nothing is forbidden to root.
        if let Err(error) = open(&path(file.path())) {
            let wanted = format!("no permission to read input {:?}", file.path());
            assert_eq!(error.to_string(), wanted);
        }
    }

    #[test]
    fn a_dash_is_standard_input() {
        assert_eq!("-".parse(), Ok(InputPath::Stdin));
        assert_eq!("./-".parse(), Ok(path("./-")));
        assert_eq!(InputPath::Stdin.to_string(), "standard input");
    }

    #[test]
    fn a_pipe_that_does_not_block_is_waited_for() {
        let (reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let mut patient =
            Patient { file: File::from(std::os::fd::OwnedFd::from(reader)), may_lack_writer: true };
        let reading = std::thread::spawn(move || {
            let mut byte = [0];
            patient.read(&mut byte).map(|n| (n, byte))
        });
        io::Write::write_all(&mut { writer }, b"x").unwrap();
        assert_eq!(reading.join().unwrap().unwrap(), (1, *b"x"));
    }
}
