//! The control log of a queue: what was said about it, and is not in its tasks or records.
//!
//! Changes are appended. When the log has doubled, a snapshot of what holds begins a new segment, and those before
//! it are removed. A snapshot that is read says all: it does not matter whether those before are still there.
//!
//! A retry is a task, which names the one that it is a retry of: it is in the task log. What is here is how far a
//! retry of all that failed has come.

mod state;

use std::io;

use thiserror::Error;
use tradewind_proto::SeqSet;
use tradewind_records::Medium;

pub use self::state::{
    CANCELLED_RANGES_MAX, CONSUMERS_MAX, Change, ChangeError, ControlState, NAME_BYTES_MAX,
    SETTINGS_BYTES_MAX,
};
use self::state::{Entry, Undo};
use crate::error::LogError;
use crate::format::Kind;
use crate::log::{Found, Log, LogOptions, Surveyed};

/// Sizes of a control log.
#[derive(Clone, Copy, Debug)]
pub struct ControlOptions {
    /// Sizes of its segments.
    pub log: LogOptions,
    /// Bytes of changes below which no snapshot is written.
    pub changes_bytes_min: u64,
}

impl Default for ControlOptions {
    fn default() -> Self {
        let log = LogOptions { zeroed_bytes: 64 << 10, ..LogOptions::default() };
        Self { log, changes_bytes_min: 256 << 10 }
    }
}

/// The control log of a queue.
///
/// A change that is [made](Self::apply) holds at once, and survives a crash of the machine once
/// [`commit`](Self::commit) has returned.
#[derive(Debug)]
pub struct Control<M> {
    log: Log<M>,
    state: ControlState,
    /// What takes back changes that are not committed, in their order.
    undo: Vec<Undo>,
    /// Bytes of the last snapshot, and of the changes after it.
    snapshot_bytes: u64,
    changes_bytes: u64,
    changes_bytes_min: u64,
}

/// Reason why a control log cannot be read or written.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum ControlError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("entry {position} of the control log cannot be read: {error}")]
    Unreadable { position: u64, error: ChangeError },
    #[error("segment {segment} of the control log does not begin with a snapshot")]
    NoSnapshot { segment: u64 },
}

impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        Self::Log(error.into())
    }
}

/// Bytes of an entry's length and of its share of a batch, about.
const ENTRY_BYTES: u64 = 40;

/// Mark of every batch.
const CONTROL: u32 = 1;

impl<M: Medium> Control<M> {
    /// Opens a control log, or creates one. `id` is that of a new one and is to be random.
    ///
    /// # Errors
    ///
    /// When it is damaged, or cannot be read.
    pub fn open(
        medium: M,
        id: u64,
        options: ControlOptions,
    ) -> Result<(Self, Found), ControlError> {
        let (mut log, found) = Log::open(medium, Kind::Control, id, options.log)?;
        // All before it was removed because of a snapshot, which may be in a later segment: to remove several takes
        // several steps.
        let mut needs_snapshot = log.first() > 0;
        let first = log.first();
        let (mut state, mut snapshot_bytes, mut changes_bytes) = (ControlState::default(), 0, 0);
        log.visit(0..u64::MAX, CONTROL, |entry| {
            let (position, bytes) = (entry.position, entry.bytes.len() as u64 + ENTRY_BYTES);
            let unreadable = |error| ControlError::Unreadable { position, error };
            match Entry::decode(entry.bytes).map_err(unreadable)? {
                Entry::Snapshot(snapshot) => {
                    (state, needs_snapshot) = (snapshot, false);
                    (snapshot_bytes, changes_bytes) = (bytes, 0);
                }
                Entry::Change(_) if needs_snapshot => {}
                Entry::Change(change) => {
                    state.apply(change).map_err(unreadable)?;
                    changes_bytes += bytes;
                }
            }
            Ok::<_, ControlError>(())
        })?;
        if needs_snapshot {
            return Err(ControlError::NoSnapshot { segment: first });
        }
        let changes_bytes_min = options.changes_bytes_min;
        let undo = Vec::new();
        Ok((Self { log, state, undo, snapshot_bytes, changes_bytes, changes_bytes_min }, found))
    }

    /// Returns what holds, with changes that are not committed.
    #[must_use]
    pub fn state(&self) -> &ControlState {
        &self.state
    }

    /// Makes a change, unless it changes nothing.
    ///
    /// # Errors
    ///
    /// When it would be beyond a bound.
    pub fn apply(&mut self, change: Change) -> Result<(), ControlError> {
        if !self.state.is_news(&change) {
            return Ok(());
        }
        let mut entry = Vec::new();
        change.encode(&mut entry);
        let undo = self.state.apply(change)?;
        if let Err(error) = self.log.append(CONTROL, |bytes| bytes.extend_from_slice(&entry)) {
            self.state.undo(undo);
            return Err(error.into());
        }
        self.undo.push(undo);
        Ok(())
    }

    /// Forgets cancelled tasks whose records are stored.
    pub fn settle(&mut self, stored: &SeqSet) {
        self.state.settle(stored);
    }

    /// Writes the changes that were made, so that they survive a crash of the machine when this returns.
    ///
    /// # Errors
    ///
    /// When that failed. None of them is promised then. They may be committed again, or
    /// [discarded](Self::discard).
    pub fn commit(&mut self) -> Result<(), ControlError> {
        let bytes = self.log.waiting_bytes() as u64 + ENTRY_BYTES * self.undo.len() as u64;
        self.log.commit()?;
        self.undo.clear();
        self.changes_bytes += bytes;
        if self.changes_bytes >= self.snapshot_bytes.max(self.changes_bytes_min) {
            // The changes are there. The next commit tries it again.
            let _ = self.write_snapshot();
        }
        Ok(())
    }

    /// Takes back the changes that were made and not committed.
    pub fn discard(&mut self) {
        while let Some(undo) = self.undo.pop() {
            self.state.undo(undo);
        }
        self.log.discard();
    }

    /// Begins a segment with a snapshot, and removes those before it.
    fn write_snapshot(&mut self) -> Result<(), ControlError> {
        self.log.close_segment()?;
        let mut snapshot = Vec::new();
        self.state.encode(&mut snapshot);
        let written = self.log.append(CONTROL, |bytes| bytes.extend_from_slice(&snapshot));
        let written = written.and_then(|_| self.log.commit());
        if let Err(error) = written {
            self.log.discard();
            return Err(error.into());
        }
        (self.snapshot_bytes, self.changes_bytes) = (snapshot.len() as u64 + ENTRY_BYTES, 0);
        for segment in self.log.closed_segments() {
            self.log.remove(segment.start)?;
        }
        Ok(())
    }
}

/// What is known of a control log whose entries are checked one after the other.
#[derive(Debug, Default)]
pub(crate) struct ControlCheck {
    state: ControlState,
    has_begun: bool,
    /// Segment and byte of the first change, if there is to be a snapshot behind it.
    needs_snapshot: Option<(u64, u64)>,
}

impl ControlCheck {
    /// Returns what is amiss with an entry.
    pub(crate) fn check(&mut self, entry: Surveyed) -> Result<(), String> {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        match Entry::decode(entry.bytes).map_err(|error| error.to_string())? {
            Entry::Snapshot(snapshot) => {
                (self.state, self.needs_snapshot) = (snapshot, None);
            }
            Entry::Change(_) if is_first && entry.segment > 0 => {
                self.needs_snapshot = Some((entry.segment, entry.batch));
            }
            Entry::Change(_) if self.needs_snapshot.is_some() => {}
            Entry::Change(change) => {
                self.state.apply(change).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Returns what is amiss with the log as a whole, and the segment and the byte.
    pub(crate) fn finish(self) -> Option<(u64, u64, String)> {
        let (segment, at) = self.needs_snapshot?;
        Some((segment, at, "no snapshot, and the log begins".to_owned()))
    }
}

#[cfg(test)]
mod tests;
