//! Buffer of what a peer sends, between the network and the frame meter.

pub(crate) const BUFFER_BYTES_MIN: usize = 4 << 10;
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Number of successive reads filling less than a quarter that halve the buffer.
const SHORT_READS: u8 = 16;

/// A buffer that grows with the traffic and shrinks after it: there may be thousands of lanes, most
/// of them idle.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// Number of bytes at the front that did not pass the last time.
    held: usize,
    short_reads: u8,
}

impl Buffer {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; BUFFER_BYTES_MIN], held: 0, short_reads: 0 }
    }

    /// Returns the room for the next read.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.held..]
    }

    /// Returns as much of that as a buffer without traffic has.
    pub(crate) fn little_space(&mut self) -> &mut [u8] {
        let space = self.space();
        let little = space.len().min(BUFFER_BYTES_MIN);
        &mut space[..little]
    }

    /// Returns what did not pass the last time, and what was read behind it.
    pub(crate) fn filled(&self, read: usize) -> &[u8] {
        &self.bytes[..self.held + read]
    }

    /// Notes how much was read, and how much of all that has passed.
    pub(crate) fn consume(&mut self, read: usize, passed: usize) {
        let end = self.held + read;
        self.bytes.copy_within(passed..end, 0);
        self.held = end - passed;
        self.adapt(read, end);
    }

    fn adapt(&mut self, read: usize, end: usize) {
        let size = self.bytes.len();
        if end == size {
            self.short_reads = 0;
            self.bytes.resize((size * 2).min(BUFFER_BYTES_MAX), 0);
        } else if read >= size / 4 {
            self.short_reads = 0;
        } else if size > BUFFER_BYTES_MIN {
            self.short_reads += 1;
            if self.short_reads == SHORT_READS {
                self.short_reads = 0;
                self.bytes.truncate(size / 2);
                self.bytes.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_follows_the_traffic_and_keeps_what_is_held() {
        let mut buffer = Buffer::new();
        let mut sizes = vec![buffer.bytes.len()];
        for _ in 0..6 {
            let space = buffer.space();
            space.fill(7);
            let read = space.len();
            buffer.consume(read, buffer.filled(read).len() - 3);
            sizes.push(buffer.bytes.len());
        }
        let kib = |n: usize| n << 10;
        assert_eq!(sizes, [4, 8, 16, 32, 64, 64, 64].map(kib));
        for _ in 0..200 {
            buffer.consume(1, 1);
            assert_eq!(buffer.filled(0), [7, 7, 7]);
            buffer.space()[0] = 7;
        }
        assert_eq!(
            (buffer.bytes.len(), buffer.bytes.capacity()),
            (BUFFER_BYTES_MIN, BUFFER_BYTES_MIN)
        );
    }
}
