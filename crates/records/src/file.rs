//! Files, pipes and terminals that are written.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;

use super::stream::{Device, Place, Presence};
use super::{Destination, OutputTarget, Role};

/// A file, a pipe or a terminal that is open for writing.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    destination: Destination,
    /// Device and inode of a regular file.
    identity: Option<Identity>,
    /// Path of a regular file that this process has opened. `None` for stdout, which the shell has
    /// opened as it was told to, perhaps to append.
    path: Option<PathBuf>,
}

type Identity = (u64, u64);

/// Reader of a file from a byte on, which does not move the file's own position.
#[derive(Debug)]
pub(super) struct ReadAt<'a> {
    file: &'a File,
    at: u64,
}

impl OpenFile {
    /// Opens a destination. Changes nothing, except that a missing file is created.
    ///
    /// A named pipe without a reader is an error ([`is_unread_pipe`]): opening does not wait for
    /// one.
    pub(super) fn open(role: Role, target: &OutputTarget) -> io::Result<Self> {
        let destination = Destination { role, target: target.clone() };
        let OutputTarget::File(path) = target else {
            if tradewind_stdio::is_stdout_closed() {
                return Err(Errno::BADF.into());
            }
            let file = stdout()?;
            let identity = identity(&file.metadata()?);
            return Ok(Self { file, destination, identity, path: None });
        };
        // A process that has a pipe open for reading never sees the end of its reader.
        let is_special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        // Writes wait for room by themselves, where that is needed.
        let mut flags = if is_special { OFlags::NONBLOCK } else { OFlags::empty() };
        if role == Role::Journal {
            // The user did not name it: a link is somebody else's.
            flags |= OFlags::NOFOLLOW;
        }
        let file = OpenOptions::new()
            .read(!is_special)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode_of(role))
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        let identity = identity(&file.metadata()?);
        let path = identity.and_then(|_| resolved(path));
        Ok(Self { file, destination, identity, path })
    }

    /// Creates an empty file, in the place of one that an earlier start left unfinished. Links, and
    /// what is no file, stay as they are.
    pub(super) fn create(role: Role, path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() => fs::remove_file(path)?,
            Ok(_) => {
                let text = format!("{path:?} is in the way: move it away");
                return Err(io::Error::new(ErrorKind::AlreadyExists, text));
            }
            Err(_) => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(mode_of(role)).open(path)?;
        Self::open(role, &OutputTarget::File(path.to_owned()))
    }

    pub(super) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Returns the path of a regular file that this process has opened.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Returns whether both are the same regular file, by whatever name, or both are standard
    /// output.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self.identity, other.identity) {
            (Some(identity), Some(other)) => identity == other,
            _ => {
                self.destination.target == OutputTarget::Stdout
                    && other.destination.target == OutputTarget::Stdout
            }
        }
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Locks the file against other processes. Returns false if one has locked it already.
    pub(super) fn lock(&mut self) -> io::Result<bool> {
        if self.path.is_none() {
            return Ok(true);
        }
        match self.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // The process that had the lock before may have replaced the file.
        Ok(self.presence()? == Presence::There)
    }

    pub(super) fn reader(&self) -> ReadAt<'_> {
        ReadAt { file: &self.file, at: 0 }
    }

    /// Cuts the file off at this byte, and continues there.
    pub(super) fn cut(&mut self, end: u64) -> io::Result<()> {
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::Start(end))?;
        Ok(())
    }

    /// Continues at this byte.
    pub(super) fn go_to(&mut self, end: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(end)).map(drop)
    }

    /// Replaces another file.
    pub(super) fn rename(&mut self, path: &Path) -> io::Result<()> {
        if let Some(old) = &self.path {
            fs::rename(old, path)?;
        }
        self.path = Some(path.to_owned());
        Ok(())
    }

    /// Changes its name in errors.
    pub(super) fn named(self, destination: Destination) -> Self {
        Self { destination, ..self }
    }

    /// Copies the permissions of another file.
    pub(super) fn set_permissions_of(&self, other: &Path) -> io::Result<()> {
        self.file.set_permissions(fs::metadata(other)?.permissions())
    }

    pub(super) fn into_place(self, end: Option<u64>) -> Place<Self> {
        Place { destination: self.destination.clone(), device: self, end }
    }
}

/// Returns whether this is a named pipe that no process has opened for reading.
pub(super) fn is_unread_pipe(path: &Path, error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NXIO.raw_os_error())
        && fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Returns a handle of our own: the standard library's has a lock and a buffer.
fn stdout() -> io::Result<File> {
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    match fcntl_getfl(&file)? & OFlags::ACCMODE {
        OFlags::RDONLY => Err(ErrorKind::PermissionDenied.into()),
        _ => Ok(file),
    }
}

fn identity(metadata: &fs::Metadata) -> Option<Identity> {
    metadata.is_file().then(|| (metadata.dev(), metadata.ino()))
}

/// Follows a link: the journal beside a file, and the file that replaces it, are the same by
/// whatever name it is given. `None` if the link leads nowhere any more, as `/dev/stdout` does for
/// a file that was removed.
fn resolved(path: &Path) -> Option<PathBuf> {
    if fs::symlink_metadata(path).ok()?.is_symlink() {
        fs::canonicalize(path).ok()
    } else {
        Some(path.to_owned())
    }
}

/// Makes new names in this file's directory survive a crash of the machine.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| *directory != Path::new(""));
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

impl Read for ReadAt<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
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
        let Some(_) = self.identity else { return Ok(()) };
        #[cfg(test)]
        synced::note(self.path.as_deref());
        self.file.sync_data()
    }

    fn presence(&mut self) -> io::Result<Presence> {
        let Some(path) = &self.path else { return Ok(Presence::There) };
        match fs::metadata(path) {
            Ok(metadata) if identity(&metadata) == self.identity => Ok(Presence::There),
            Ok(_) => Ok(Presence::Replaced),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Presence::Removed),
            Err(error) => Err(error),
        }
    }

    /// Copies the file, which is still open although it has no name.
    fn restore(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut copy = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let copied = io::copy(&mut self.reader(), &mut copy)
            .and_then(|_| copy.set_permissions(self.file.metadata()?.permissions()))
            .and_then(|()| copy.metadata());
        let metadata = match copied {
            Ok(metadata) => metadata,
            Err(error) => {
                // A part of it would be taken for another file.
                fs::remove_file(path)?;
                return Err(error);
            }
        };
        let copy = Self {
            file: copy,
            destination: self.destination.clone(),
            identity: identity(&metadata),
            path: self.path.clone(),
        };
        *self = copy;
        // No other process has it: it has been there for a moment only.
        self.lock().map(drop)
    }
}

/// Returns the permissions of a new file.
fn mode_of(role: Role) -> u32 {
    // The journal has the job's key.
    if role == Role::Journal { 0o600 } else { 0o666 }
}

#[cfg(test)]
impl From<io::PipeWriter> for OpenFile {
    fn from(pipe: io::PipeWriter) -> Self {
        let file = File::from(std::os::fd::OwnedFd::from(pipe));
        let destination = Destination { role: Role::Output, target: OutputTarget::Stdout };
        Self { file, destination, identity: None, path: None }
    }
}

/// Files that the threads of tests have synced, which nothing else shows.
#[cfg(test)]
pub(super) mod synced {
    use std::cell::RefCell;
    use std::path::Path;

    thread_local! {
        static NAMES: RefCell<Vec<String>> = RefCell::default();
    }

    pub(crate) fn note(path: Option<&Path>) {
        let name = path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        NAMES.with_borrow_mut(|names| names.extend(name));
    }

    /// Returns the names of those that this thread has synced since it was asked last.
    pub(crate) fn take() -> Vec<String> {
        NAMES.take()
    }
}
