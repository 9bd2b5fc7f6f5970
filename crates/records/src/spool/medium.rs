//! Media of segments: files in a directory, or parts of a file that has no name.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::super::file::sync_directory_of;

/// Medium of numbered segments of bytes.
pub trait Medium {
    /// Returns the segments.
    ///
    /// # Errors
    /// Those of the system.
    fn segments(&mut self) -> io::Result<Vec<u64>>;

    /// Creates a segment, which must not exist.
    ///
    /// # Errors
    /// When it cannot be created.
    fn create(&mut self, segment: u64) -> io::Result<()>;

    /// Returns the bytes of a segment.
    ///
    /// # Errors
    /// Those of the system.
    fn len(&mut self, segment: u64) -> io::Result<u64>;

    /// Reads a segment from this byte on. Returns the number of bytes: fewer than asked for only at
    /// its end.
    ///
    /// # Errors
    /// Those of the system.
    fn read_at(&mut self, segment: u64, at: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// Writes all of these bytes from this byte on.
    ///
    /// # Errors
    /// When some of them cannot be written. Any part may be there then.
    fn write_at(&mut self, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a segment off at this byte.
    ///
    /// # Errors
    /// Those of the system.
    fn cut(&mut self, segment: u64, len: u64) -> io::Result<()>;

    /// Makes a segment survive a crash of the machine.
    ///
    /// # Errors
    /// Those of the system.
    fn sync(&mut self, segment: u64) -> io::Result<()>;

    /// Returns whether each thing that is appended is to survive a crash of the machine before the next one is
    /// appended. Else such a crash may leave any part of what was appended last.
    fn is_synced(&self) -> bool {
        true
    }

    /// Removes a segment.
    ///
    /// # Errors
    /// When it is still there.
    fn remove(&mut self, segment: u64) -> io::Result<()>;

    /// Removes all segments, and all that belongs to the medium.
    fn clear(&mut self) {}
}

impl<M: Medium + ?Sized> Medium for Box<M> {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        (**self).segments()
    }

    fn create(&mut self, segment: u64) -> io::Result<()> {
        (**self).create(segment)
    }

    fn len(&mut self, segment: u64) -> io::Result<u64> {
        (**self).len(segment)
    }

    fn read_at(&mut self, segment: u64, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(segment, at, bytes)
    }

    fn write_at(&mut self, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).write_at(segment, at, bytes)
    }

    fn cut(&mut self, segment: u64, len: u64) -> io::Result<()> {
        (**self).cut(segment, len)
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        (**self).sync(segment)
    }

    fn is_synced(&self) -> bool {
        (**self).is_synced()
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        (**self).remove(segment)
    }

    fn clear(&mut self) {
        (**self).clear();
    }
}

/// Files in a directory, which is created with the first of them. The directory that it is in has to be there.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Files that were used last.
    open: VecDeque<(u64, File)>,
    /// Whether names in the directory, or its own, are new and not synced.
    is_dirty: bool,
}

/// Number of files that are open at a time.
const OPEN_FILES_MAX: usize = 8;

impl Directory {
    /// Names a directory. Nothing is read or created yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        // An earlier process may have ended before it had synced its names.
        Self { path, open: VecDeque::new(), is_dirty: true }
    }

    /// Makes all segments survive a crash of the machine, also those of an earlier process.
    pub(crate) fn sync_all(&mut self) -> io::Result<()> {
        self.is_dirty = true;
        self.segments()?.into_iter().try_for_each(|segment| self.sync(segment))
    }

    fn file_of(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:08}"))
    }

    fn with<T>(
        &mut self,
        segment: u64,
        use_it: impl FnOnce(&File) -> io::Result<T>,
    ) -> io::Result<T> {
        let file = match self.open.iter().position(|(other, _)| *other == segment) {
            Some(place) => self.open.remove(place).expect("it was just found").1,
            None => options().open(self.file_of(segment))?,
        };
        let used = use_it(&file);
        self.keep(segment, file);
        used
    }

    fn keep(&mut self, segment: u64, file: File) {
        self.open.truncate(OPEN_FILES_MAX - 1);
        self.open.push_front((segment, file));
    }

    /// A link may lead to another program's directory.
    fn check(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => Ok(true),
            Ok(_) => Err(ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

impl Medium for Directory {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        // A path that is no directory has no segments, and is left alone.
        if !self.check().unwrap_or(false) {
            return Ok(Vec::new());
        }
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let name = name.to_str().filter(|name| name.len() >= 8);
            let digits = name.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
            segments.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn create(&mut self, segment: u64) -> io::Result<()> {
        if !self.check()? {
            fs::create_dir(&self.path)?;
        }
        let file = options().create_new(true).open(self.file_of(segment))?;
        self.is_dirty = true;
        self.keep(segment, file);
        Ok(())
    }

    fn len(&mut self, segment: u64) -> io::Result<u64> {
        self.with(segment, |file| Ok(file.metadata()?.len()))
    }

    fn read_at(&mut self, segment: u64, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.with(segment, |file| read_at(file, at, bytes))
    }

    fn write_at(&mut self, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(segment, |file| file.write_all_at(bytes, at))
    }

    fn cut(&mut self, segment: u64, len: u64) -> io::Result<()> {
        self.with(segment, |file| file.set_len(len))
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        #[cfg(test)]
        super::super::file::synced::note(Some(&self.file_of(segment)));
        self.with(segment, File::sync_data)?;
        if self.is_dirty {
            File::open(&self.path)?.sync_all()?;
            sync_directory_of(&self.path)?;
            self.is_dirty = false;
        }
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.open.retain(|(other, _)| *other != segment);
        fs::remove_file(self.file_of(segment))
    }

    fn clear(&mut self) {
        self.open.clear();
        // Files of others may be in it.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Parts of one file without a name, of which nothing is left when the process ends.
#[derive(Debug)]
pub(crate) struct Unnamed {
    directory: PathBuf,
    file: Option<File>,
    parts: BTreeMap<u64, Part>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    slot: u64,
    len: u64,
}

/// Part of the file, up to the beginning of the next one. Room between its end and that takes no
/// disk.
const SLOT_BYTES: u64 = 4 << 30;

impl Unnamed {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, file: None, parts: BTreeMap::new() }
    }

    fn part(&self, segment: u64) -> io::Result<(&File, Part)> {
        let part = self.parts.get(&segment).copied();
        self.file.as_ref().zip(part).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn free(&self, segment: u64, from: u64) -> io::Result<()> {
        let (file, Part { slot, len }) = self.part(segment)?;
        if len > from {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Where that cannot be done, the room is free when the process ends.
            let _ = fallocate(file, how, slot * SLOT_BYTES + from, len - from);
        }
        Ok(())
    }
}

/// Creates a file without a name, which is gone with the process.
pub(crate) fn unnamed_file(directory: &Path) -> io::Result<File> {
    for _ in 0..100 {
        let name = format!(".tradewind-spool-{:016x}", tradewind_system::random_id());
        let path = directory.join(name);
        match options().create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

impl Medium for Unnamed {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.parts.keys().copied().collect())
    }

    fn create(&mut self, segment: u64) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(unnamed_file(&self.directory)?);
        }
        let is_free = |slot: &u64| self.parts.values().all(|part| part.slot != *slot);
        let slot = (0..).find(is_free).expect("there are more numbers than parts");
        self.parts.insert(segment, Part { slot, len: 0 });
        Ok(())
    }

    fn len(&mut self, segment: u64) -> io::Result<u64> {
        Ok(self.part(segment)?.1.len)
    }

    fn read_at(&mut self, segment: u64, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let (file, Part { slot, len }) = self.part(segment)?;
        let count = bytes.len().min(usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX));
        read_at(file, slot * SLOT_BYTES + at, &mut bytes[..count])
    }

    fn write_at(&mut self, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (file, Part { slot, .. }) = self.part(segment)?;
        let end = at + bytes.len() as u64;
        if end > SLOT_BYTES {
            return Err(ErrorKind::FileTooLarge.into());
        }
        file.write_all_at(bytes, slot * SLOT_BYTES + at)?;
        self.parts.entry(segment).and_modify(|part| part.len = part.len.max(end));
        Ok(())
    }

    fn cut(&mut self, segment: u64, len: u64) -> io::Result<()> {
        self.free(segment, len)?;
        self.parts.entry(segment).and_modify(|part| part.len = part.len.min(len));
        Ok(())
    }

    fn sync(&mut self, _: u64) -> io::Result<()> {
        // It ends with the process anyway.
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.free(segment, 0)?;
        self.parts.remove(&segment);
        Ok(())
    }

    fn clear(&mut self) {
        (self.file, self.parts) = (None, BTreeMap::new());
    }
}

fn read_at(file: &File, mut at: u64, mut bytes: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        match file.read_at(bytes, at) {
            Ok(0) => break,
            Ok(read) => {
                (count, at) = (count + read, at + read as u64);
                bytes = &mut bytes[read..];
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}
