//! Where the logs of a queue lie, and when they are synced.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tradewind_records::{Directory, Medium};

/// Whether what is written is synced before it is promised. Tasks and records of a queue ask the same one.
#[derive(Clone, Debug)]
pub(crate) struct Durability(Arc<AtomicBool>);

impl Default for Durability {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Durability {
    pub(crate) fn set(&self, is_synced: bool) {
        self.0.store(is_synced, Ordering::Relaxed);
    }
}

/// Segments in a directory, of which what is promised is synced unless the queue is not to be.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: Directory,
    durability: Durability,
}

impl Disk {
    pub(crate) fn new(directory: Directory, durability: Durability) -> Self {
        Self { directory, durability }
    }
}

impl Medium for Disk {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        self.directory.segments()
    }

    fn create(&mut self, segment: u64) -> io::Result<()> {
        self.directory.create(segment)
    }

    fn len(&mut self, segment: u64) -> io::Result<u64> {
        self.directory.len(segment)
    }

    fn read_at(&mut self, segment: u64, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.directory.read_at(segment, at, bytes)
    }

    fn write_at(&mut self, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.directory.write_at(segment, at, bytes)
    }

    fn cut(&mut self, segment: u64, len: u64) -> io::Result<()> {
        self.directory.cut(segment, len)
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        self.directory.sync(segment)
    }

    fn is_synced(&self) -> bool {
        self.durability.0.load(Ordering::Relaxed)
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.directory.remove(segment)
    }

    fn clear(&mut self) {
        self.directory.clear();
    }
}
