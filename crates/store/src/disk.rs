//! A disk for tests.

use std::cell::RefCell;
use std::collections::BTreeMap as Map;
use std::io::{self, ErrorKind};
use std::rc::Rc;

use fastrand::Rng;
use tradewind_records::Medium;

/// A disk in memory, of which a crash leaves any part of what was not synced.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Rc<RefCell<Files>>);

#[derive(Clone, Debug, Default)]
struct Files {
    files: Map<u64, File>,
    /// Bytes that may still be written.
    room: Option<usize>,
    is_sync_broken: bool,
    is_unsynced: bool,
    /// Number of reads, and of their bytes.
    reads: (usize, usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

const SECTOR: usize = 16;

impl Disk {
    /// Leaves room for this many bytes more.
    pub(crate) fn limit(&self, room: Option<usize>) {
        self.0.borrow_mut().room = room;
    }

    pub(crate) fn break_sync(&self, is_broken: bool) {
        self.0.borrow_mut().is_sync_broken = is_broken;
    }

    /// Says whether what is appended is left unsynced.
    pub(crate) fn leave_unsynced(&self, is_unsynced: bool) {
        self.0.borrow_mut().is_unsynced = is_unsynced;
    }

    /// Returns the number of reads and of their bytes since the last call.
    pub(crate) fn take_reads(&self) -> (usize, usize) {
        std::mem::take(&mut self.0.borrow_mut().reads)
    }

    pub(crate) fn bytes(&self) -> Map<u64, Vec<u8>> {
        let files = self.0.borrow();
        files.files.iter().map(|(number, file)| (*number, file.bytes.clone())).collect()
    }

    pub(crate) fn of(bytes: &Map<u64, Vec<u8>>) -> Self {
        let file = |bytes: &Vec<u8>| File { bytes: bytes.clone(), synced: bytes.clone() };
        let files = bytes.iter().map(|(number, bytes)| (*number, file(bytes))).collect();
        Self(Rc::new(RefCell::new(Files { files, ..Files::default() })))
    }

    /// Leaves of each sector what was synced, or what was written after.
    pub(crate) fn crash(&self, rng: &mut Rng) {
        for file in self.0.borrow_mut().files.values_mut() {
            let len = rng.usize(file.synced.len()..=file.bytes.len().max(file.synced.len()));
            file.synced.resize(len, 0);
            for at in (0..len).step_by(SECTOR) {
                let to = (at + SECTOR).min(len).min(file.bytes.len());
                if at < to && rng.bool() {
                    file.synced[at..to].copy_from_slice(&file.bytes[at..to]);
                }
            }
            file.bytes = file.synced.clone();
        }
    }
}

impl Medium for Disk {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.0.borrow().files.keys().copied().collect())
    }

    fn create(&mut self, segment: u64) -> io::Result<()> {
        let had = self.0.borrow_mut().files.insert(segment, File::default());
        assert!(had.is_none(), "segment {segment} is there already");
        Ok(())
    }

    fn len(&mut self, segment: u64) -> io::Result<u64> {
        Ok(self.0.borrow().files[&segment].bytes.len() as u64)
    }

    fn read_at(&mut self, segment: u64, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let files = &mut *self.0.borrow_mut();
        let file = &files.files[&segment].bytes;
        let at = usize::try_from(at).unwrap().min(file.len());
        let count = bytes.len().min(file.len() - at);
        bytes[..count].copy_from_slice(&file[at..at + count]);
        files.reads = (files.reads.0 + 1, files.reads.1 + count);
        Ok(count)
    }

    fn write_at(&mut self, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        let files = &mut *self.0.borrow_mut();
        let file = &mut files.files.get_mut(&segment).unwrap().bytes;
        let at = usize::try_from(at).unwrap();
        // What is written over takes no room.
        let grown = (at + bytes.len()).saturating_sub(file.len());
        let missing = grown.saturating_sub(files.room.unwrap_or(usize::MAX));
        let fits = bytes.len() - missing.min(bytes.len());
        if let Some(room) = &mut files.room {
            *room -= grown.min(*room);
        }
        file.resize(file.len().max(at + fits), 0);
        file[at..at + fits].copy_from_slice(&bytes[..fits]);
        if missing > 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn cut(&mut self, segment: u64, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        self.0.borrow_mut().files.get_mut(&segment).unwrap().bytes.truncate(len);
        Ok(())
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        let files = &mut *self.0.borrow_mut();
        if files.is_sync_broken {
            return Err(ErrorKind::Other.into());
        }
        let file = files.files.get_mut(&segment).unwrap();
        file.synced.clone_from(&file.bytes);
        Ok(())
    }

    fn is_synced(&self) -> bool {
        !self.0.borrow().is_unsynced
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.0.borrow_mut().files.remove(&segment).map(|_| ()).ok_or(ErrorKind::NotFound.into())
    }
}
