//! Estimate of the number of tasks of an input, while it is being read.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Input;

/// Input of known size, and the bytes of it that were read.
#[derive(Clone, Debug)]
pub struct Measured {
    bytes: u64,
    read: Arc<AtomicU64>,
}

struct Counted<R> {
    reader: R,
    read: Arc<AtomicU64>,
}

impl Measured {
    /// Measures an input while it is read, if its size is known.
    #[must_use]
    pub fn new(input: Input) -> (Input, Option<Self>) {
        let Some(bytes) = input.bytes.filter(|bytes| *bytes > 0) else { return (input, None) };
        let read = Arc::default();
        let reader = Counted { reader: input.reader, read: Arc::clone(&read) };
        (Input { reader: Box::new(reader), ..input }, Some(Self { bytes, read }))
    }

    /// Returns the estimated number of all tasks, taken that the rest are as long as those that
    /// were read.
    #[must_use]
    pub fn about(&self, tasks: u64) -> Option<u64> {
        let read = self.read.load(Ordering::Relaxed).min(self.bytes);
        let about = u128::from(tasks) * u128::from(self.bytes) / u128::from(read).max(1);
        let about = u64::try_from(about).ok().filter(|_| tasks > 0 && read > 0)?;
        Some(about.max(tasks))
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InputPath;

    #[test]
    fn the_total_is_estimated_from_what_was_read() {
        let input = |bytes| {
            let reader: Box<dyn Read + Send> = Box::new(&[b'x'; 1000][..]);
            Measured::new(Input { reader, path: InputPath::Stdin, bytes })
        };
        assert!(input(None).1.is_none() && input(Some(0)).1.is_none());
        let (mut input, measured) = input(Some(1000));
        let measured = measured.unwrap();
        assert_eq!(measured.about(0), None);
        input.reader.read_exact(&mut [0; 100]).unwrap();
        assert_eq!(measured.about(0), None);
        assert_eq!(measured.about(10), Some(100));
        input.reader.read_exact(&mut [0; 900]).unwrap();
        assert_eq!(measured.about(70), Some(70));
    }
}
