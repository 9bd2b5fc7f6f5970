//! Bytes on their way out, none of them lost or doubled by an error.

use std::io::{self, ErrorKind};

use super::Destination;
use super::journal::Part;

/// Bytes after which records are passed on before a commit asks for it: what waits here is in
/// memory a second time.
const UNSENT_BYTES_MAX: usize = 256 << 10;

/// The buffer that is kept for later, in bytes. One large record must not hold on to its size.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Somewhere bytes go. It keeps no buffer: what `write` accepts has left the process.
pub trait Device: io::Write {
    /// Makes what was written survive a crash of the machine, where that means something.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn sync(&mut self) -> io::Result<()>;

    /// Is it still where others will look for it?
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn presence(&mut self) -> io::Result<Presence> {
        Ok(Presence::There)
    }

    /// Puts what was removed back to where others will look for it.
    ///
    /// # Errors
    ///
    /// When that failed. Nothing has changed then.
    fn restore(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is where a device was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The device.
    There,
    /// Nothing.
    Removed,
    /// Something else.
    Replaced,
}

/// A device to write to, from where it ends.
#[derive(Debug)]
pub struct Place<D> {
    /// What errors call it.
    pub destination: Destination,
    /// It takes the bytes.
    pub device: D,
    /// How many bytes it has; `None` if they cannot be read back, so that there is no use in
    /// speaking of them in a journal.
    pub end: Option<u64>,
}

/// Why not all could be passed on. What could not is kept.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Who read it has gone, as `head` does when it has seen enough.
    #[error("{destination} was closed by its reader")]
    Closed {
        /// Destination that was being written.
        destination: Destination,
    },
    /// The program that took the records wants no more.
    #[error("records are no longer accepted")]
    Dropped,
    /// Nothing can be stored beside it.
    #[error("there is no spool")]
    NoSpool,
    /// It cannot be written.
    #[error("cannot write to {destination}: {reason}")]
    Io {
        /// Destination that was being written.
        destination: Destination,
        /// Error of the operating system.
        reason: io::Error,
    },
    /// What waited there cannot be read back.
    #[error("cannot read {destination} back: {reason}")]
    Unspool {
        /// Where it waited.
        destination: Destination,
        /// Error of the operating system.
        reason: io::Error,
    },
    /// It cannot be put into its final form.
    #[error("cannot rewrite {destination}: {reason}")]
    Rewrite {
        /// What was to be written anew.
        destination: Destination,
        /// Error of the operating system.
        reason: io::Error,
    },
    /// Somebody removed the file.
    #[error("{destination} was removed; it is written again")]
    Removed {
        /// Destination that was being written.
        destination: Destination,
    },
    /// Somebody put another file where it was.
    #[error("{destination} was replaced by another file; move that one away")]
    Replaced {
        /// Destination that was being written.
        destination: Destination,
    },
}

/// A device and what is still to be written to it.
#[derive(Debug)]
pub(super) struct Stream<D> {
    place: Place<D>,
    buffer: Vec<u8>,
    /// So much of the buffer is written.
    sent: usize,
    /// So much of the buffer is in `crc`.
    hashed: usize,
    /// Of all bytes since the last part.
    crc: crc32fast::Hasher,
    /// Something was written and not synced.
    is_dirty: bool,
    /// It was reported as removed.
    is_removed: bool,
}

impl<D: Device> Stream<D> {
    pub(super) fn new(place: Place<D>) -> Self {
        Self {
            place,
            buffer: Vec::new(),
            sent: 0,
            hashed: 0,
            crc: crc32fast::Hasher::new(),
            is_dirty: false,
            is_removed: false,
        }
    }

    /// To be appended to, and nothing else.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Is there so much to write that it should not become more?
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() - self.sent >= UNSENT_BYTES_MAX
    }

    /// Is it still where others will look for it? What was removed is put back, but not before
    /// that was reported once.
    pub(super) fn check(&mut self) -> Result<(), OutputError> {
        let destination = || self.place.destination.clone();
        match self.place.device.presence() {
            Ok(Presence::There) => {}
            Ok(Presence::Replaced) => {
                return Err(OutputError::Replaced { destination: destination() });
            }
            Ok(Presence::Removed) if self.is_removed => {
                self.place.device.restore().map_err(|error| self.error(error))?;
                self.is_dirty = true;
            }
            Ok(Presence::Removed) => {
                let error = OutputError::Removed { destination: destination() };
                self.is_removed = true;
                return Err(error);
            }
            Err(error) => return Err(self.error(error)),
        }
        self.is_removed = false;
        Ok(())
    }

    /// Writes everything. After an error the next call goes on where this one stopped.
    pub(super) fn drain(&mut self) -> Result<(), OutputError> {
        self.hash();
        while self.sent < self.buffer.len() {
            self.is_dirty = true;
            match self.place.device.write(&self.buffer[self.sent..]) {
                Ok(0) => return Err(self.error(ErrorKind::WriteZero.into())),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error)),
            }
        }
        (self.sent, self.hashed) = (0, 0);
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES_MAX);
        Ok(())
    }

    /// What was added since the last part; to be asked when all of it is drained.
    pub(super) fn take_part(&mut self) -> Option<Part> {
        let end = self.place.end?;
        let crc = std::mem::take(&mut self.crc).finalize();
        Some(Part { end, crc })
    }

    /// Makes what was drained survive a crash of the machine.
    pub(super) fn sync(&mut self) -> Result<(), OutputError> {
        if self.is_dirty {
            self.place.device.sync().map_err(|error| self.error(error))?;
            self.is_dirty = false;
        }
        Ok(())
    }

    /// Counts each byte once, however often it takes to write it.
    fn hash(&mut self) {
        if let Some(end) = &mut self.place.end {
            let new = &self.buffer[self.hashed..];
            *end += new.len() as u64;
            self.crc.update(new);
            self.hashed = self.buffer.len();
        }
    }

    fn error(&self, reason: io::Error) -> OutputError {
        let destination = self.place.destination.clone();
        match reason.kind() {
            ErrorKind::BrokenPipe => OutputError::Closed { destination },
            _ => OutputError::Io { destination, reason },
        }
    }
}
