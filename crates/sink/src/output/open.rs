//! Opening what the user named, without harm to what is there.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl};

use super::stream::Device;
use super::{Destination, Format, OutputTarget, Role, Writer};

/// What to open.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where records go.
    pub output: OutputTarget,
    /// How they look there.
    pub format: Format,
    /// Where a line about each goes.
    pub joblog: Option<OutputTarget>,
    /// Files that are not empty are replaced rather than refused.
    pub overwrite: bool,
}

/// Why records cannot be written where the user wants them.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory that it should be in does not exist.
    #[error("directory {directory:?} of {destination} does not exist")]
    NoDirectory {
        /// What was to be opened.
        destination: Destination,
        /// What is missing.
        directory: PathBuf,
    },
    /// It is a directory.
    #[error("{destination} is a directory")]
    Directory {
        /// What was to be opened.
        destination: Destination,
    },
    /// Permissions forbid it.
    #[error("no permission to write {destination}")]
    Denied {
        /// What was to be opened.
        destination: Destination,
    },
    /// Something is in it already.
    #[error("{destination} exists already; give --overwrite to replace it")]
    Exists {
        /// What was to be opened.
        destination: Destination,
    },
    /// Records and joblog would end up in one file.
    #[error("output and joblog are the same: {destination}")]
    Same {
        /// The second of the two.
        destination: Destination,
    },
    /// It cannot be opened for another reason.
    #[error("cannot open {destination}: {reason}")]
    Io {
        /// What was to be opened.
        destination: Destination,
        /// What the system says.
        reason: io::Error,
    },
}

/// Opens the output, and the joblog if there is to be one.
///
/// Nothing that exists is touched before everything is known to be in order. A named pipe is
/// opened when someone opens its other end.
///
/// # Errors
///
/// When one of them cannot be opened or must not be written.
pub fn open(settings: &Settings) -> Result<Writer<OpenFile>, OpenError> {
    let output = OpenFile::open(Role::Output, &settings.output, settings.overwrite)?;
    let joblog = match &settings.joblog {
        Some(target) => Some(OpenFile::open(Role::Joblog, target, settings.overwrite)?),
        None => None,
    };
    if let Some(joblog) = &joblog
        && output.is_same(joblog)
    {
        return Err(OpenError::Same { destination: joblog.destination.clone() });
    }
    let (output, joblog) = (output.ready()?, joblog.map(OpenFile::ready).transpose()?);
    let named = |file: OpenFile| (file.destination.clone(), file);
    Ok(Writer::new(settings.format, named(output), joblog.map(named)))
}

/// A file, a pipe or a terminal that is open for writing.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    destination: Destination,
    /// Device and inode, if it is a regular file.
    identity: Option<(u64, u64)>,
}

impl OpenFile {
    fn open(role: Role, target: &OutputTarget, overwrite: bool) -> Result<Self, OpenError> {
        let destination = Destination { role, target: target.clone() };
        let opened = match target {
            OutputTarget::Stdout => stdout(),
            // Truncated later: it may turn out to be the wrong file.
            OutputTarget::File(path) => {
                OpenOptions::new().write(true).create(true).truncate(false).open(path)
            }
        };
        let file = opened.map_err(|reason| OpenError::opening(&destination, reason))?;
        let metadata =
            file.metadata().map_err(|reason| OpenError::opening(&destination, reason))?;
        // The shell has opened our stdout as it was told to, perhaps to append.
        let ours = *target != OutputTarget::Stdout && metadata.is_file();
        if ours && metadata.len() > 0 && !overwrite {
            return Err(OpenError::Exists { destination });
        }
        let identity = metadata.is_file().then(|| (metadata.dev(), metadata.ino()));
        Ok(Self { file, destination, identity })
    }

    /// Two regular files that are one, whatever their names, or standard output twice.
    fn is_same(&self, other: &Self) -> bool {
        match (self.identity, other.identity) {
            (Some(identity), Some(other)) => identity == other,
            _ => {
                self.destination.target == OutputTarget::Stdout
                    && other.destination.target == OutputTarget::Stdout
            }
        }
    }

    fn ready(self) -> Result<Self, OpenError> {
        if self.destination.target != OutputTarget::Stdout && self.identity.is_some() {
            self.file.set_len(0).map_err(|reason| OpenError::opening(&self.destination, reason))?;
        }
        Ok(self)
    }
}

/// A handle of our own: the standard library's has a lock and a buffer.
fn stdout() -> io::Result<File> {
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    match fcntl_getfl(&file)? & OFlags::ACCMODE {
        OFlags::RDONLY => Err(ErrorKind::PermissionDenied.into()),
        _ => Ok(file),
    }
}

impl OpenError {
    fn opening(destination: &Destination, reason: io::Error) -> Self {
        let destination = destination.clone();
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
}

fn missing_directory(target: &OutputTarget) -> Option<PathBuf> {
    let OutputTarget::File(path) = target else { return None };
    let directory = path.parent().filter(|directory| *directory != Path::new(""))?;
    (!directory.exists()).then(|| directory.to_owned())
}

impl Write for OpenFile {
    /// Waits where a write would fail because the descriptor does not block: that mode belongs to
    /// the open file, and any process that shares our stdout may have left it on.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], None)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Device for OpenFile {
    /// Pipes and terminals keep nothing that could be synced.
    fn sync(&mut self) -> io::Result<()> {
        match self.identity {
            Some(_) => self.file.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
impl From<io::PipeWriter> for OpenFile {
    fn from(pipe: io::PipeWriter) -> Self {
        let file = File::from(std::os::fd::OwnedFd::from(pipe));
        let destination = Destination { role: Role::Output, target: OutputTarget::Stdout };
        Self { file, destination, identity: None }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::Output;
    use super::super::record::tests::record;
    use super::*;

    fn settings(output: &Path, joblog: Option<&Path>, overwrite: bool) -> Settings {
        Settings {
            output: OutputTarget::File(output.to_owned()),
            joblog: joblog.map(|path| OutputTarget::File(path.to_owned())),
            overwrite,
            ..Settings::default()
        }
    }

    #[test]
    fn records_and_joblog_are_written_to_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let (output, joblog) = (dir.path().join("out"), dir.path().join("log"));
        fs::write(&output, "").unwrap();
        let mut writer = open(&settings(&output, Some(&joblog), false)).unwrap();
        writer.write(&[record(0, "a"), record(1, "b")]).unwrap();
        writer.commit().unwrap();
        assert_eq!(fs::read_to_string(&output).unwrap(), "a\nb\n");
        assert_eq!(fs::read_to_string(&joblog).unwrap().lines().count(), 3);
        writer.finish().unwrap();
    }

    #[test]
    fn a_file_with_something_in_it_is_replaced_only_on_demand() {
        let dir = tempfile::tempdir().unwrap();
        let (full, new) = (dir.path().join("full"), dir.path().join("new"));
        fs::write(&full, "precious, and longer than what follows").unwrap();
        let refused = |output: &Path, joblog: &Path, wanted: &str| {
            let error = open(&settings(output, Some(joblog), false)).unwrap_err();
            let wanted =
                format!("{wanted} {full:?} exists already; give --overwrite to replace it");
            assert_eq!(error.to_string(), wanted);
            assert_eq!(fs::read(&full).unwrap().len(), 38);
        };
        refused(&full, &new, "output");
        refused(&new, &full, "joblog");

        let mut writer = open(&settings(&full, None, true)).unwrap();
        writer.write(&[record(0, "x")]).unwrap();
        writer.finish().unwrap();
        assert_eq!(fs::read_to_string(&full).unwrap(), "x\n");
    }

    #[test]
    fn output_and_joblog_are_never_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "precious").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for joblog in [&file, &link, &dir.path().join("./file")] {
            let error = open(&settings(&file, Some(joblog), true)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("output and joblog are the same: joblog {joblog:?}")
            );
            assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        }
        let null = Path::new("/dev/null");
        assert!(open(&settings(null, Some(null), false)).is_ok(), "it is no file");
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").unwrap();
        let check = |output: PathBuf, wanted: &str| {
            let error = open(&settings(&output, None, false)).unwrap_err();
            let wanted = wanted.replace('@', &format!("{output:?}"));
            assert_eq!(error.to_string(), wanted.replace('%', dir.path().to_str().unwrap()));
        };
        check(at("none/x"), "directory \"%/none\" of output @ does not exist");
        check(at(""), "output @ is a directory");
        check(at("file/x"), "cannot open output @: Not a directory (os error 20)");
        check("".into(), "cannot open output @: No such file or directory (os error 2)");
    }

    #[test]
    fn a_full_disk_is_an_error_that_can_be_retried() {
        let mut writer = open(&settings(Path::new("/dev/full"), None, false)).unwrap();
        writer.write(&[record(0, "a")]).unwrap();
        for _ in 0..2 {
            assert_eq!(
                writer.commit().unwrap_err().to_string(),
                "cannot write to output \"/dev/full\": No space left on device (os error 28)"
            );
        }
    }

    #[test]
    fn a_file_without_permission_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), PermissionsExt::from_mode(0o444)).unwrap();
        // Nothing is forbidden to root.
        if let Err(error) = open(&settings(file.path(), None, false)) {
            let wanted = format!("no permission to write output {:?}", file.path());
            assert_eq!(error.to_string(), wanted);
        }
    }
}
