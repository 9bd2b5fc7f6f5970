//! Streams of bytes to a device: an error neither loses nor doubles a byte.

use std::io::{self, ErrorKind};

use super::Destination;
use super::journal::Part;

/// Bytes after which a buffer is written before a commit asks for it: they are in memory a second
/// time.
const UNSENT_BYTES_MAX: usize = 256 << 10;

/// Bytes of the buffer that is kept. One large record must not hold on to its size.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Device that takes bytes. It keeps no buffer: bytes that `write` has accepted have left the
/// process.
pub trait Device: io::Write {
    /// Makes the bytes survive a crash of the machine, where the device can.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn sync(&mut self) -> io::Result<()>;

    /// Returns whether the device is still at its path.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn presence(&mut self) -> io::Result<Presence> {
        Ok(Presence::There)
    }

    /// Puts a removed file back to its path.
    ///
    /// # Errors
    ///
    /// When that failed. Nothing has changed then.
    fn restore(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// File at the path of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The device itself.
    There,
    /// No file.
    Removed,
    /// Another file.
    Replaced,
}

/// Device to write to, and its end.
#[derive(Debug)]
pub struct Place<D> {
    /// Name in errors.
    pub destination: Destination,
    /// Device that takes the bytes.
    pub device: D,
    /// Bytes of the device; `None` if they cannot be read back, so that a journal need not cover
    /// them.
    pub end: Option<u64>,
}

/// Reason why bytes could not be written. They are kept.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Its reader has gone, as `head` does when it has seen enough.
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
    /// Records in the spool cannot be read back.
    #[error("cannot read {destination} back: {reason}")]
    Unspool {
        /// Spool that was being read.
        destination: Destination,
        /// Error of the operating system.
        reason: io::Error,
    },
    /// An output that is no file cannot be reached. It will be.
    #[error("cannot write to {output}: {reason}")]
    Away {
        /// Name of the output.
        output: String,
        /// Reason.
        reason: String,
    },
    /// An output that is no file takes nothing more from this program.
    #[error("cannot write to {output}: {reason}")]
    Refused {
        /// Name of the output.
        output: String,
        /// Reason.
        reason: String,
    },
    /// It cannot be put into its final form.
    #[error("cannot rewrite {destination}: {reason}")]
    Rewrite {
        /// Destination that was to be rewritten.
        destination: Destination,
        /// Error of the operating system.
        reason: io::Error,
    },
    /// The file was removed.
    #[error("{destination} was removed; it is written again")]
    Removed {
        /// Destination that was being written.
        destination: Destination,
    },
    /// Another file has replaced it.
    #[error("{destination} was replaced by another file; move that one away")]
    Replaced {
        /// Destination that was being written.
        destination: Destination,
    },
}

/// Device, and bytes that are still to be written to it.
#[derive(Debug)]
pub(super) struct Stream<D> {
    place: Place<D>,
    buffer: Vec<u8>,
    /// Number of bytes of the buffer that are written.
    sent: usize,
    /// Number of bytes of the buffer that are in `crc`.
    hashed: usize,
    /// CRC-32 of all bytes since the last part.
    crc: crc32fast::Hasher,
    /// Whether bytes were written and not synced.
    is_dirty: bool,
    /// Whether it was reported as removed.
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

    /// Returns the buffer, for appending.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Returns whether the buffer is full.
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() - self.sent >= UNSENT_BYTES_MAX
    }

    /// Checks that the file is still at its path. A removed one is put back, but not before that
    /// was reported once.
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

    /// Writes everything. After an error the next call continues where this one stopped.
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

    /// Returns the bytes since the last part. Only when all of them are drained.
    pub(super) fn take_part(&mut self) -> Option<Part> {
        let end = self.place.end?;
        let crc = std::mem::take(&mut self.crc).finalize();
        Some(Part { end, crc })
    }

    /// Makes drained bytes survive a crash of the machine.
    pub(super) fn sync(&mut self) -> Result<(), OutputError> {
        if self.is_dirty {
            self.place.device.sync().map_err(|error| self.error(error))?;
            self.is_dirty = false;
        }
        Ok(())
    }

    /// Counts each byte once, whatever number of writes it takes.
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
