//! Files that are the same by different names: a file that is read must not be written, and no file
//! is written for two purposes.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::journal::SUFFIX;
use super::{Destination, OutputTarget, Role};

/// Identity of a file, by whatever name or descriptor it is reached: its device and inode.
/// Terminals and the like have none: they may be read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

/// File that is read while records are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    /// Name in errors: `standard input`, or `input "x"`.
    pub name: String,
    /// Identity of the file.
    pub id: FileId,
}

/// Error: two of the files that are read and written are the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{first} and {second} are the same file; name another one for one of them")]
pub struct SameFile {
    first: String,
    second: String,
}

/// File that is to be written, and may not exist yet.
struct Written {
    name: String,
    id: Option<FileId>,
    /// Place of a file that does not exist: its directory, and the name in it.
    place: Option<(FileId, PathBuf)>,
    path: Option<PathBuf>,
}

impl SameFile {
    pub(super) fn new(first: &Destination, second: &Destination) -> Self {
        Self { first: first.to_string(), second: second.to_string() }
    }
}

impl FileId {
    /// Returns the file that this path leads to, through links, if there is one.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        Self::of(&fs::metadata(path).ok()?)
    }

    /// Returns the file behind a descriptor.
    #[must_use]
    pub fn of_descriptor(descriptor: impl AsFd) -> Option<Self> {
        let file = fs::File::from(descriptor.as_fd().try_clone_to_owned().ok()?);
        Self::of(&file.metadata().ok()?)
    }

    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        let kind = metadata.file_type();
        let is_one = kind.is_file() || kind.is_fifo() || kind.is_block_device();
        is_one.then(|| Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

impl ReadFile {
    /// Returns the standard input of this process, if it is a file.
    #[must_use]
    pub fn stdin() -> Option<Self> {
        let id = FileId::of_descriptor(io::stdin())?;
        Some(Self { name: "standard input".to_owned(), id })
    }
}

/// Refuses output, joblog and journal that are one file, or one that is read. Opens none of them.
///
/// # Errors
///
/// When two of them are the same.
pub fn check_distinct(
    read: &[ReadFile],
    output: &OutputTarget,
    joblog: Option<&OutputTarget>,
) -> Result<(), SameFile> {
    let output = Written::new(Role::Output, output);
    let joblog = joblog.map(|target| Written::new(Role::Joblog, target));
    let kept = output.path.as_deref().filter(|path| is_kept(path));
    let logged = || joblog.as_ref()?.path.as_deref().filter(|path| is_kept(path));
    let journal = kept.or_else(logged).map(|path| {
        let path = beside(&resolved(path), SUFFIX);
        Written::new(Role::Journal, &OutputTarget::File(path))
    });
    let mut written: Vec<Written> = [Some(output), joblog, journal].into_iter().flatten().collect();
    // Files that a stopped rewrite has left are renamed or removed.
    let leftovers: Vec<Written> = written.iter().flat_map(Written::leftovers).collect();
    for (at, one) in written.iter().enumerate() {
        if let Some(other) = written[..at].iter().find(|other| one.is_same(other)) {
            return Err(SameFile { first: other.name.clone(), second: one.name.clone() });
        }
    }
    written.extend(leftovers);
    for file in read {
        if let Some(one) = written.iter().find(|one| one.id == Some(file.id)) {
            return Err(SameFile { first: file.name.clone(), second: one.name.clone() });
        }
    }
    Ok(())
}

impl Written {
    fn new(role: Role, target: &OutputTarget) -> Self {
        let name = Destination { role, target: target.clone() }.to_string();
        match target {
            OutputTarget::Stdout => {
                Self { name, id: FileId::of_descriptor(io::stdout()), place: None, path: None }
            }
            OutputTarget::File(path) => {
                let path = path.clone();
                let id = FileId::of_path(&path);
                let is_new = fs::metadata(&path).is_err();
                Self { name, id, place: is_new.then(|| place(&path)).flatten(), path: Some(path) }
            }
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let is_stdout = |one: &Self| one.path.is_none();
        (self.id.is_some() && self.id == other.id)
            || (self.place.is_some() && self.place == other.place)
            || (is_stdout(self) && is_stdout(other))
    }

    fn leftovers(&self) -> Vec<Self> {
        let list = || {
            let path = resolved(self.path.as_deref()?);
            let prefix = beside(&path, SUFFIX);
            let prefix = prefix.file_name()?.to_str()?.to_owned();
            let entries = fs::read_dir(directory(&path)).ok()?.flatten();
            let is_ours = |name: &str| {
                let rest = name.strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('.'));
                rest.is_some_and(|rest| {
                    rest == "new" || rest.bytes().all(|byte| byte.is_ascii_digit())
                })
            };
            let ours = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_ours));
            let file = |path: PathBuf| Self {
                name: format!("{}, while it is rewritten, {path:?}", self.name),
                id: FileId::of_path(&path),
                place: None,
                path: None,
            };
            Some(ours.map(|entry| file(entry.path())).collect())
        };
        list().unwrap_or_default()
    }
}

/// Returns a path with a suffix added to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns whether a journal can be kept beside it: it is a file, or will be one.
fn is_kept(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |metadata| metadata.is_file())
}

fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

fn place(path: &Path) -> Option<(FileId, PathBuf)> {
    // A directory is none of the kinds that can be overwritten, but it has an inode all the same.
    let metadata = fs::metadata(directory(path)).ok()?;
    let id = FileId { device: metadata.dev(), inode: metadata.ino() };
    Some((id, path.file_name()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: PathBuf) -> OutputTarget {
        OutputTarget::File(path)
    }

    #[test]
    fn a_file_that_is_read_is_not_written_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("in"), "precious").unwrap();
        std::os::unix::fs::symlink(path("in"), path("link")).unwrap();
        fs::hard_link(path("in"), path("hard")).unwrap();
        let read = |name: &str| {
            let id = FileId::of_path(&path(name)).unwrap();
            [ReadFile { name: format!("input {name}"), id }]
        };
        let check = |read: &[ReadFile], output: &str, joblog: Option<&str>, wanted: bool| {
            let joblog = joblog.map(|name| at(path(name)));
            let found = check_distinct(read, &at(path(output)), joblog.as_ref());
            assert_eq!(found.is_err(), wanted, "{output} {joblog:?}: {found:?}");
        };
        for name in ["in", "link", "hard"] {
            check(&read("in"), name, None, true);
            check(&read(name), "in", None, true);
            check(&read(name), "out", Some("in"), true);
            check(&[], "in", Some(name), true);
        }
        check(&read("in"), "out", Some("log"), false);
        check(&[], "new", Some("new"), true);
        check(&[], "new", Some("./new"), true);
        check(&[], "new", Some("new.tradewind"), true);
        for name in ["new.tradewind", "new.tradewind.new", "new.tradewind.3", "log.tradewind.1"] {
            fs::write(path(name), "precious").unwrap();
            check(&read(name), "new", Some("log"), true);
        }
        fs::write(path("new.tradewind.txt"), "precious").unwrap();
        check(&read("new.tradewind.txt"), "new", Some("log"), false);
        assert_eq!(fs::read_to_string(path("in")).unwrap(), "precious");
    }

    #[test]
    fn terminals_and_the_like_may_be_read_and_written() {
        let null = OutputTarget::File("/dev/null".into());
        check_distinct(&[], &null, Some(&null)).unwrap();
        assert_eq!(FileId::of_path(Path::new("/dev/null")), None);
        check_distinct(&[], &OutputTarget::Stdout, Some(&OutputTarget::Stdout)).unwrap_err();
    }
}
