//! Files that only their owner may read.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::error::KeysError;

/// Size beyond which a file is not read: there is nothing so large here.
const BYTES_MAX: u64 = 256 << 10;

/// Mode of what only its owner may read.
pub(crate) const FILE_MODE: u32 = 0o600;
pub(crate) const DIRECTORY_MODE: u32 = 0o700;

/// Reads a file that holds a secret.
///
/// # Errors
/// When it cannot be read, or others may read it.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, KeysError> {
    let io = || KeysError::io(path);
    let file = File::open(path).map_err(io())?;
    // Of the file that was opened, whatever the name stands for by now.
    let metadata = file.metadata().map_err(io())?;
    check(path, &metadata)?;
    let length = usize::try_from(metadata.len().min(BYTES_MAX)).unwrap_or(0);
    // Room for all: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(length + 1));
    let _ = file.take(BYTES_MAX).read_to_string(&mut text).map_err(io())?;
    Ok(text)
}

/// Refuses what others than this user and root may read or change, as ssh does. What root has put here may be
/// readable by a group of this process as well, as secrets are that a service manager mounts.
///
/// # Errors
/// When others may.
pub(crate) fn check(path: &Path, metadata: &Metadata) -> Result<(), KeysError> {
    let user = geteuid().as_raw();
    match verdict(metadata.uid(), metadata.mode() & 0o777, user) {
        Verdict::Private => Ok(()),
        Verdict::Open => Err(KeysError::Open {
            path: path.to_owned(),
            mode: metadata.mode() & 0o777,
            is_directory: metadata.is_dir(),
        }),
        Verdict::Foreign => {
            Err(KeysError::Owner { path: path.to_owned(), owner: metadata.uid(), user })
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Private,
    Open,
    Foreign,
}

fn verdict(owner: u32, mode: u32, user: u32) -> Verdict {
    const ROOT: u32 = 0;
    let others = if owner == user {
        0o077
    } else if owner == ROOT {
        0o027
    } else {
        return Verdict::Foreign;
    };
    if mode & others == 0 { Verdict::Private } else { Verdict::Open }
}

/// Creates a file that only this user may read; one that is there is not touched.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), KeysError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    let mut file = options.open(path).map_err(|why| match why.kind() {
        io::ErrorKind::AlreadyExists => KeysError::Exists { path: path.to_owned() },
        _ => KeysError::Io { path: path.to_owned(), why },
    })?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(KeysError::io(path))
}

/// Writes a file as a whole: readers find the old or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), KeysError> {
    let write = || -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            .prefix(".tradewind-")
            .permissions(std::fs::Permissions::from_mode(FILE_MODE))
            .tempfile_in(directory)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(KeysError::io(path))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn what_others_may_read_is_refused_as_ssh_does() {
        use Verdict::{Foreign, Open, Private};
        let check = |owner, mode, expected| {
            assert_eq!(verdict(owner, mode, 1000), expected, "{owner} {mode:o}");
        };
        check(1000, 0o600, Private);
        check(1000, 0o400, Private);
        check(1000, 0o640, Open);
        check(1000, 0o604, Open);
        check(1000, 0o660, Open);
        check(1000, 0o620, Open);
        check(1001, 0o600, Foreign);
        check(1001, 0o444, Foreign);
        // Mounted by a service manager: readable by a group of ours.
        check(0, 0o400, Private);
        check(0, 0o440, Private);
        check(0, 0o444, Open);
        check(0, 0o460, Open);
        // Root itself takes no other user's.
        assert_eq!(verdict(1000, 0o600, 0), Foreign);
        assert_eq!(verdict(0, 0o640, 0), Open);
    }

    #[test]
    fn a_file_is_read_only_while_it_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        create(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(*read(&path).unwrap(), "secret");
        assert!(matches!(create(&path, b"other"), Err(KeysError::Exists { .. })));
        replace(&path, b"other").unwrap();
        assert_eq!(*read(&path).unwrap(), "other");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("mode 644") && error.contains("chmod 600"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
