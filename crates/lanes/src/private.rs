//! A place for the Unix sockets of one job, which no other user can enter.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::endpoint::{Endpoint, IpcEndpoint};
use crate::gate::BACKLOG;
use crate::unix::{fits, listen};

/// A directory with a random name that only this user may enter, removed with all that is in it when this is
/// dropped. Where none can be made, a random name for abstract sockets: other users can dial those, and are
/// sent away.
#[derive(Debug)]
pub struct PrivateDir(Place);

#[derive(Debug)]
enum Place {
    Dir(TempDir),
    Abstract(String),
}

/// Directory where Linux keeps files in memory.
const MEMORY_DIR: &str = "/dev/shm";

const PREFIX: &str = "tradewind-";

/// Number of random characters in the directory's name.
const RANDOM_BYTES: usize = 12;

/// Length of the longest name of a socket in the directory.
const NAME_BYTES_MAX: usize = 16;

impl PrivateDir {
    /// Makes one in the first of these in which sockets can be: `$XDG_RUNTIME_DIR`, `/dev/shm`, `$TMPDIR`,
    /// `/tmp`.
    ///
    /// # Errors
    /// When there is none, and the system has no abstract sockets either.
    pub fn new() -> io::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let usual = [MEMORY_DIR.into(), std::env::temp_dir(), "/tmp".into()];
        Self::in_first_of(runtime.into_iter().chain(usual))
    }

    /// Makes one of abstract sockets, of which nothing is left however the process ends.
    ///
    /// # Errors
    /// When the system has none.
    pub fn without_files() -> io::Result<Self> {
        Self::in_first_of([])
    }

    fn in_first_of(places: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        if let Some(dir) = places.into_iter().find_map(|place| private_dir(&place).ok()) {
            return Ok(Self(Place::Dir(dir)));
        }
        let name = format!("{PREFIX}{:032x}", fastrand::u128(..));
        // A system without them is found out here, not at the first socket.
        drop(listen(&IpcEndpoint::Abstract(format!("{name}/try")), 1)?);
        Ok(Self(Place::Abstract(name)))
    }

    /// Returns the endpoint of a socket here. Its name is at most 16 bytes long.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> Endpoint {
        debug_assert!(name.len() <= NAME_BYTES_MAX, "{name} is too long");
        match &self.0 {
            Place::Dir(dir) => IpcEndpoint::Path(dir.path().join(name)).into(),
            Place::Abstract(prefix) => IpcEndpoint::Abstract(format!("{prefix}/{name}")).into(),
        }
    }

    /// Listens on a socket here, to be inherited by another process.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn listen(&self, name: &str) -> io::Result<(UnixListener, Endpoint)> {
        match self.endpoint(name) {
            Endpoint::Ipc(ipc) => Ok((listen(&ipc, BACKLOG)?, ipc.into())),
            Endpoint::Tcp(_) => unreachable!("all endpoints here are Unix sockets"),
        }
    }

    /// Returns the directory, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Place::Dir(dir) => Some(dir.path()),
            Place::Abstract(_) => None,
        }
    }
}

/// Makes a private directory in which sockets can be.
fn private_dir(place: &Path) -> io::Result<TempDir> {
    // Where we are may change, and what a variable says may be nonsense.
    if !place.is_absolute() || !fits(place, PREFIX.len() + RANDOM_BYTES + 1 + NAME_BYTES_MAX) {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    // Endpoints are text.
    if place.to_str().is_none() {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    let dir = tempfile::Builder::new()
        .prefix(PREFIX)
        .rand_bytes(RANDOM_BYTES)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(place)?;
    // Some file systems have no sockets.
    let try_out = dir.path().join("try");
    let tried = listen(&IpcEndpoint::Path(try_out.clone()), 1);
    let removed = std::fs::remove_file(try_out);
    if let Err(error) = tried.and(removed) {
        // By its path: to look into it, as dropping it does, would take a descriptor, and there may be none left.
        let _ = std::fs::remove_dir(dir.path());
        return Err(error);
    }
    Ok(dir)
}

/// Removes such a directory for a process that has ended without doing so: its sockets, and then the directory
/// if nothing else is in it.
///
/// # Errors
/// When something is left.
pub fn remove_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;

    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            // Others that were in it do the same.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    std::fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::few_files::with_files_left;

    #[test]
    fn no_directory_is_left_where_files_run_out() {
        with_files_left("private::tests::no_directory_is_left_where_files_run_out", |dir, left| {
            let made = private_dir(dir);
            assert_eq!(made.is_ok(), left > 0, "{left} files left");
            made
        });
    }

    #[test]
    fn the_directory_is_for_one_user_and_goes_with_its_sockets() {
        let base = tempfile::tempdir().unwrap();
        let missing = base.path().join("missing");
        let private = PrivateDir::in_first_of([missing, base.path().to_owned()]).unwrap();
        let dir = private.path().unwrap().to_owned();
        assert_eq!(dir.parent(), Some(base.path()));
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        let (_listener, endpoint) = private.listen("tasks").unwrap();
        assert_eq!(endpoint.to_string(), format!("ipc://{}/tasks", dir.display()));
        assert!(UnixStream::connect(dir.join("tasks")).is_ok());
        drop(private);
        assert!(!dir.exists());
    }

    #[test]
    fn a_directory_with_too_long_a_name_is_passed_over() {
        let base = tempfile::tempdir().unwrap();
        let long = base.path().join("x".repeat(90));
        std::fs::create_dir(&long).unwrap();
        let private = PrivateDir::in_first_of([long.clone(), base.path().to_owned()]).unwrap();
        assert_eq!(private.path().unwrap().parent(), Some(base.path()));
        assert!(private.listen(&"n".repeat(NAME_BYTES_MAX)).is_ok());
        assert_eq!(std::fs::read_dir(long).unwrap().count(), 0);
    }

    #[test]
    fn without_a_directory_there_are_abstract_sockets() {
        let private = PrivateDir::in_first_of(["/proc/nowhere".into(), "here".into()]).unwrap();
        assert_eq!(private.path(), None);
        let (_listener, endpoint) = private.listen("tasks").unwrap();
        assert!(endpoint.to_string().starts_with("ipc://@tradewind-"), "{endpoint}");
        let Endpoint::Ipc(ipc) = endpoint.to_string().parse().unwrap() else { panic!() };
        assert!(crate::unix::connect(&ipc).is_ok());
    }

    #[test]
    fn what_a_killed_process_leaves_is_removed_unless_it_holds_more_than_sockets() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("d");
        std::fs::create_dir(&dir).unwrap();
        drop(UnixListener::bind(dir.join("tasks")).unwrap());
        std::fs::write(dir.join("file"), "").unwrap();
        assert!(remove_private_dir(&dir).is_err());
        assert!(!dir.join("tasks").exists() && dir.join("file").exists());
        std::fs::remove_file(dir.join("file")).unwrap();
        remove_private_dir(&dir).unwrap();
        assert!(!dir.exists());
    }
}
