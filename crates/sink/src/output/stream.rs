//! Bytes on their way out, none of them lost or doubled by an error.

use std::io::{self, ErrorKind};

use super::Destination;

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
}

/// Why not all could be passed on. What could not is kept.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Who read it has gone, as `head` does when it has seen enough.
    #[error("{destination} was closed by its reader")]
    Closed {
        /// What was being written.
        destination: Destination,
    },
    /// It cannot be written.
    #[error("cannot write to {destination}: {reason}")]
    Io {
        /// What was being written.
        destination: Destination,
        /// What the system says.
        reason: io::Error,
    },
}

/// A device and what is still to be written to it.
#[derive(Debug)]
pub(super) struct Stream<D> {
    device: D,
    destination: Destination,
    buffer: Vec<u8>,
    /// So much of the buffer is written.
    sent: usize,
}

impl<D: Device> Stream<D> {
    pub(super) fn new(device: D, destination: Destination) -> Self {
        Self { device, destination, buffer: Vec::new(), sent: 0 }
    }

    /// To be appended to, and nothing else.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Is there so much to write that it should not become more?
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() - self.sent >= UNSENT_BYTES_MAX
    }

    /// Writes everything. After an error the next call goes on where this one stopped.
    pub(super) fn drain(&mut self) -> Result<(), OutputError> {
        while self.sent < self.buffer.len() {
            match self.device.write(&self.buffer[self.sent..]) {
                Ok(0) => return Err(self.error(ErrorKind::WriteZero.into())),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error)),
            }
        }
        self.sent = 0;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES_MAX);
        Ok(())
    }

    /// Makes what was drained survive a crash of the machine.
    pub(super) fn sync(&mut self) -> Result<(), OutputError> {
        self.device.sync().map_err(|error| self.error(error))
    }

    fn error(&self, reason: io::Error) -> OutputError {
        let destination = self.destination.clone();
        match reason.kind() {
            ErrorKind::BrokenPipe => OutputError::Closed { destination },
            _ => OutputError::Io { destination, reason },
        }
    }
}
