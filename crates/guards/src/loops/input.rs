//! Loop of the ventilator's input: text in, tasks out.

use std::io::{self, Read};

use tradewind_input::{Delimiter, InputPath, LineSource, Source};

use super::made::{BATCH, PAYLOAD_BYTES};

/// Reads lines of a file.
pub(crate) fn input(tasks: u64) {
    let text = Text::new().take(tasks * LINE_BYTES as u64);
    let mut source = LineSource::new(text, InputPath::Stdin, Delimiter::Newline, PAYLOAD_BYTES);
    let mut read = 0;
    while let Some(chunk) = source.read().expect("memory does not fail") {
        read += chunk.into_iter().count() as u64;
    }
    assert_eq!(read, tasks, "every line is a task");
}

const LINE_BYTES: usize = PAYLOAD_BYTES + 1;

/// Reader that repeats the same lines.
struct Text {
    lines: Vec<u8>,
    at: usize,
}

impl Text {
    fn new() -> Self {
        let line = [&[b'x'; PAYLOAD_BYTES][..], b"\n"].concat();
        Self { lines: line.repeat(BATCH as usize), at: 0 }
    }
}

impl Read for Text {
    fn read(&mut self, mut buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len();
        while !buffer.is_empty() {
            let count = buffer.len().min(self.lines.len() - self.at);
            let (filled, rest) = buffer.split_at_mut(count);
            filled.copy_from_slice(&self.lines[self.at..self.at + count]);
            self.at = (self.at + count) % self.lines.len();
            buffer = rest;
        }
        Ok(wanted)
    }
}
