//! Unix sockets: how they are named, listened on and removed, and which user is at the other end.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{
    SocketAddr, UnixListener as StdUnixListener, UnixStream as StdUnixStream,
};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::endpoint::IpcEndpoint;
use crate::gate::BindError;

/// A Unix socket that listens. Its file is removed when this is dropped, if this made it.
#[derive(Debug)]
pub(crate) struct UnixListening {
    pub(crate) listener: StdUnixListener,
    pub(crate) file: Option<SocketFile>,
}

/// The file of a socket that listens, removed when this is dropped; but not a file that another process has put
/// into its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let device_and_inode = identity(&std::fs::symlink_metadata(path)?);
        Ok(Self { path: path.to_owned(), device_and_inode })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| identity(&metadata) == self.device_and_inode);
        if is_ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Listens on a Unix socket. Replaces the file of one on which no process listens any more.
pub(crate) fn bind(endpoint: &IpcEndpoint, backlog: i32) -> Result<UnixListening, BindError> {
    let failed = |source| BindError::new(&endpoint.clone().into(), source);
    let Some(path) = endpoint.path() else {
        let listener = listen(endpoint, backlog).map_err(failed)?;
        return Ok(UnixListening { listener, file: None });
    };
    // Without it a process that starts at the same time could find a socket that is bound and does not listen
    // yet, and take it for the rest of one that has ended.
    let _lock = path.parent().and_then(lock);
    let listener = match listen(endpoint, backlog) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(endpoint, path)?;
            listen(endpoint, backlog).map_err(failed)?
        }
        other => other.map_err(failed)?,
    };
    let file = SocketFile::of(path).map_err(failed)?;
    // No other user may even try; one that does so before this is refused by its id.
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(UnixListening { listener, file: Some(file) })
}

/// Removes the file of a socket on which no process listens any more.
fn remove_stale(endpoint: &IpcEndpoint, path: &Path) -> Result<(), BindError> {
    let owned = || endpoint.clone().into();
    let failed = |source| BindError::Failed { endpoint: owned(), source };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket { endpoint: owned() });
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(BindError::OfAnotherUser { endpoint: owned(), user: metadata.uid() });
    }
    match connect(endpoint) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Its queue may be full.
        Ok(_) | Err(_) => Err(BindError::Taken { endpoint: owned() }),
    }
}

/// Time for which the lock of another process is waited for: theirs lasts for microseconds. Any user who may
/// read the directory can hold it for ever, hence no longer.
const LOCK_MAX: Duration = Duration::from_secs(1);

/// Interval between attempts to lock.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// Keeps other processes that listen in this directory from doing so at the same time, if it can be locked.
fn lock(dir: &Path) -> Option<File> {
    let dir = File::open(dir).ok()?;
    let until = Instant::now() + LOCK_MAX;
    loop {
        match dir.try_lock() {
            Ok(()) => return Some(dir),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < until => {
                thread::sleep(LOCK_RETRY);
            }
            Err(_) => return None,
        }
    }
}

/// Listens without a look at what was there.
pub(crate) fn listen(endpoint: &IpcEndpoint, backlog: i32) -> io::Result<StdUnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address(endpoint)?)?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// Connects. Never waits: a Unix socket answers at once, or its queue is full. The stream does not block.
pub(crate) fn connect(endpoint: &IpcEndpoint) -> io::Result<StdUnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&address(endpoint)?)?;
    Ok(socket.into())
}

fn address(endpoint: &IpcEndpoint) -> io::Result<SockAddr> {
    match endpoint {
        IpcEndpoint::Path(path) => SockAddr::unix(path),
        IpcEndpoint::Abstract(_) if !cfg!(any(target_os = "linux", target_os = "android")) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        IpcEndpoint::Abstract(name) => SockAddr::unix(format!("\0{name}")),
    }
}

/// Returns the endpoint at which a socket listens; `None` for one without a name.
pub(crate) fn endpoint_of(address: &SocketAddr) -> Option<IpcEndpoint> {
    if let Some(path) = address.as_pathname() {
        return Some(IpcEndpoint::Path(path.to_owned()));
    }
    abstract_name(address).map(IpcEndpoint::Abstract)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn abstract_name(address: &SocketAddr) -> Option<String> {
    #[cfg(target_os = "android")]
    use std::os::android::net::SocketAddrExt;
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt;

    address.as_abstract_name().map(|name| String::from_utf8_lossy(name).into_owned())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn abstract_name(_: &SocketAddr) -> Option<String> {
    None
}

/// Whether a name of this length fits below a directory.
pub(crate) fn fits(dir: &Path, name_bytes: usize) -> bool {
    dir.as_os_str().as_bytes().len() + 1 + name_bytes <= IpcEndpoint::NAME_BYTES_MAX
}

/// Rule of every Unix socket here: both ends belong to one user. Returns the other one if they do not.
pub(crate) fn check_user(theirs: u32) -> Result<(), u32> {
    if theirs == geteuid().as_raw() { Ok(()) } else { Err(theirs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_user_may_take_part() {
        let ours = geteuid().as_raw();
        assert_eq!(check_user(ours), Ok(()));
        assert_eq!(check_user(ours + 1), Err(ours + 1));
        assert!(check_user(if ours == 0 { 65534 } else { 0 }).is_err());
    }
}
