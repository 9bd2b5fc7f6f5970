//! The disk of a queue: its five directories, in memory.
//!
//! A process that dies leaves what it had written, torn at any byte of any write. A machine that dies leaves of each
//! sector what was synced or what was written after, of each new name that was not synced nothing or the file, and of
//! each that was removed likewise.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::rc::Rc;

use fastrand::Rng;
use tradewind_store::{Medium, QueueMedia};

/// The disk. All clones are one.
#[derive(Clone)]
pub(crate) struct Disk(Rc<RefCell<State>>);

struct State {
    directories: [Directory; 5],
    /// Bytes by which files may still grow.
    room: Option<u64>,
    /// Number of changes until the process dies in the middle of one.
    fuse: Option<u64>,
    is_dead: bool,
    /// For [`Mutation::AnswerEarly`](crate::Mutation::AnswerEarly): syncs of tasks do nothing.
    is_careless: bool,
    /// Whether tasks and records are synced before they are promised.
    is_synced: bool,
    rng: Rng,
}

#[derive(Default)]
struct Directory {
    files: BTreeMap<u64, File>,
    /// Files that were removed since names were synced.
    removed: Vec<(u64, File)>,
    /// Whether names are new and not synced, as far as its process knows.
    is_dirty: bool,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Whether its name is synced.
    is_named: bool,
}

/// One of the directories.
#[derive(Clone)]
pub(crate) struct Part {
    disk: Disk,
    which: usize,
}

const SECTOR: usize = 16;

const TASKS: usize = 0;

const CONTROL: usize = 4;

impl Disk {
    pub(crate) fn new(seed: u64, is_careless: bool, is_synced: bool) -> Self {
        Self(Rc::new(RefCell::new(State {
            directories: Default::default(),
            room: None,
            fuse: None,
            is_dead: false,
            is_careless,
            is_synced,
            rng: Rng::with_seed(seed),
        })))
    }

    pub(crate) fn media(&self) -> QueueMedia<Part> {
        let part = |which| Part { disk: self.clone(), which };
        QueueMedia {
            tasks: part(TASKS),
            keys: part(1),
            records: part(2),
            index: part(3),
            control: part(CONTROL),
        }
    }

    /// Leaves room for this many bytes more.
    pub(crate) fn limit(&self, room: Option<u64>) {
        self.0.borrow_mut().room = room;
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.0.borrow().room.is_some()
    }

    /// Lets the process die in the middle of the change after this many others.
    pub(crate) fn set_fuse(&self, fuse: Option<u64>) {
        self.0.borrow_mut().fuse = fuse;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.borrow().is_dead
    }

    /// Leaves what is there after the process has died, or its machine.
    pub(crate) fn crash(&self, is_machine: bool) {
        let State { directories, fuse, is_dead, rng, .. } = &mut *self.0.borrow_mut();
        (*fuse, *is_dead) = (None, false);
        for directory in directories {
            directory.is_dirty = true;
            if is_machine {
                directory.lose_unsynced(rng);
            }
        }
    }
}

impl Directory {
    fn lose_unsynced(&mut self, rng: &mut Rng) {
        self.files.retain(|_, file| file.is_named || rng.bool());
        for (number, file) in std::mem::take(&mut self.removed) {
            if file.is_named && rng.bool() {
                self.files.entry(number).or_insert(file);
            }
        }
        for file in self.files.values_mut() {
            file.lose_unsynced(rng);
        }
    }
}

impl File {
    fn lose_unsynced(&mut self, rng: &mut Rng) {
        let Self { bytes, synced, is_named } = self;
        let (shortest, longest) = (bytes.len().min(synced.len()), bytes.len().max(synced.len()));
        let len = rng.usize(shortest..=longest);
        synced.resize(len, 0);
        for at in (0..len).step_by(SECTOR) {
            let to = (at + SECTOR).min(len).min(bytes.len());
            if at < to && rng.bool() {
                synced[at..to].copy_from_slice(&bytes[at..to]);
            }
        }
        bytes.clone_from(synced);
        *is_named = true;
    }
}

impl State {
    /// Begins a change. `None`: it is the one in the middle of which the process dies.
    fn begin(&mut self) -> io::Result<Option<()>> {
        if self.is_dead {
            return Err(ErrorKind::Other.into());
        }
        match &mut self.fuse {
            Some(0) => {
                self.is_dead = true;
                Ok(None)
            }
            Some(fuse) => {
                *fuse -= 1;
                Ok(Some(()))
            }
            None => Ok(Some(())),
        }
    }

    /// Begins a change that is made or not.
    fn begin_whole(&mut self) -> io::Result<()> {
        match self.begin()? {
            None if self.rng.bool() => Err(ErrorKind::Other.into()),
            _ => Ok(()),
        }
    }

    /// Returns an error if the process died just now, though the change was made.
    fn end(&self) -> io::Result<()> {
        if self.is_dead { Err(ErrorKind::Other.into()) } else { Ok(()) }
    }
}

impl Part {
    fn with<T>(&mut self, segment: u64, use_it: impl FnOnce(&mut File) -> T) -> io::Result<T> {
        let state = &mut *self.disk.0.borrow_mut();
        let file = state.directories[self.which].files.get_mut(&segment);
        file.map(use_it).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn check_alive(&self) -> io::Result<()> {
        self.disk.0.borrow().end()
    }
}

impl Medium for Part {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        self.check_alive()?;
        Ok(self.disk.0.borrow().directories[self.which].files.keys().copied().collect())
    }

    fn create(&mut self, segment: u64) -> io::Result<()> {
        let state = &mut *self.disk.0.borrow_mut();
        state.begin_whole()?;
        let directory = &mut state.directories[self.which];
        if directory.files.contains_key(&segment) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        directory.files.insert(segment, File::default());
        directory.is_dirty = true;
        state.end()
    }

    fn len(&mut self, segment: u64) -> io::Result<u64> {
        self.check_alive()?;
        self.with(segment, |file| file.bytes.len() as u64)
    }

    fn read_at(&mut self, segment: u64, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.check_alive()?;
        self.with(segment, |file| {
            let from = file.bytes.get(at as usize..).unwrap_or_default();
            let count = from.len().min(bytes.len());
            bytes[..count].copy_from_slice(&from[..count]);
            count
        })
    }

    fn write_at(&mut self, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut written = bytes.len();
        let is_full = {
            let state = &mut *self.disk.0.borrow_mut();
            if state.begin()?.is_none() {
                written = state.rng.usize(0..=bytes.len());
            }
            let file = state.directories[self.which].files.get(&segment);
            let len = file.map_or(0, |file| file.bytes.len() as u64);
            // What is written over takes no room.
            let grown = (at + written as u64).saturating_sub(len);
            let missing = grown.saturating_sub(state.room.unwrap_or(u64::MAX));
            if let Some(room) = &mut state.room {
                *room -= grown.min(*room);
            }
            written -= (missing as usize).min(written);
            missing > 0
        };
        let at = at as usize;
        self.with(segment, |file| {
            if written > 0 {
                file.bytes.resize(file.bytes.len().max(at + written), 0);
                file.bytes[at..at + written].copy_from_slice(&bytes[..written]);
            }
        })?;
        self.check_alive()?;
        if is_full { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn cut(&mut self, segment: u64, len: u64) -> io::Result<()> {
        self.disk.0.borrow_mut().begin_whole()?;
        self.with(segment, |file| file.bytes.truncate(len as usize))?;
        self.check_alive()
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        let state = &mut *self.disk.0.borrow_mut();
        state.begin_whole()?;
        if state.is_careless && self.which == TASKS {
            return state.end();
        }
        let directory = &mut state.directories[self.which];
        let file = directory.files.get_mut(&segment).ok_or(ErrorKind::NotFound)?;
        file.synced.clone_from(&file.bytes);
        if std::mem::take(&mut directory.is_dirty) {
            directory.files.values_mut().for_each(|file| file.is_named = true);
            directory.removed.clear();
        }
        state.end()
    }

    fn is_synced(&self) -> bool {
        self.which == CONTROL || self.disk.0.borrow().is_synced
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        let state = &mut *self.disk.0.borrow_mut();
        state.begin_whole()?;
        let directory = &mut state.directories[self.which];
        let file = directory.files.remove(&segment).ok_or(ErrorKind::NotFound)?;
        directory.removed.push((segment, file));
        state.end()
    }
}
