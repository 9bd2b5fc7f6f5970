//! Reader of tasks of several lines.

use std::io::Read;
use std::num::NonZeroU32;

use super::lines::Begun;
use super::{Chunk, Delimiter, InputError, Item, LineSource, Source};

/// Reads tasks of a fixed number of lines. The delimiter that ends the lines in the input stands
/// between them in the task. The last task may have fewer.
pub struct GroupSource<R> {
    lines: LineSource<R>,
    delimiter: u8,
    lines_max: u32,
    /// Bytes of a command line that the lines of a task may take; a single line may take more.
    arguments_bytes_max: Option<NonZeroU32>,
    task_bytes_max: usize,
    begun: Begun,
    /// Number of its lines.
    begun_lines: u32,
    /// Bytes of a command line that these take.
    begun_bytes: u64,
}

impl<R: Read> GroupSource<R> {
    /// Creates a reader of groups of these lines.
    pub fn new(
        lines: LineSource<R>,
        delimiter: Delimiter,
        lines_max: NonZeroU32,
        arguments_bytes_max: Option<NonZeroU32>,
        task_bytes_max: usize,
    ) -> Self {
        let (delimiter, lines_max) = (delimiter.byte(), lines_max.get());
        let begun = Begun::default();
        Self {
            lines,
            delimiter,
            lines_max,
            arguments_bytes_max,
            task_bytes_max,
            begun,
            begun_lines: 0,
            begun_bytes: 0,
        }
    }

    fn add(&mut self, line: &Item) {
        if self.begun_lines > 0 {
            self.begun.extend(&[self.delimiter], self.task_bytes_max);
        }
        match line {
            Item::Task(line) => self.begun.extend(line, self.task_bytes_max),
            Item::TooLarge { bytes } => self.begun.skip(*bytes),
            // A line has no other form.
            Item::Unfit { .. } => {}
        }
        self.begun_lines += 1;
        self.begun_bytes += argument_bytes(line);
    }

    /// Returns whether this line is too much for the task that was begun.
    fn is_full(&self, line: &Item) -> bool {
        let is_too_long = |max: NonZeroU32| {
            self.begun_bytes.saturating_add(argument_bytes(line)) > u64::from(max.get())
        };
        self.begun_lines > 0 && self.arguments_bytes_max.is_some_and(is_too_long)
    }

    fn end(&mut self) -> Item {
        self.begun_lines = 0;
        self.begun_bytes = 0;
        std::mem::take(&mut self.begun).end()
    }
}

/// Returns the bytes that an argument takes of a command line: its own, a NUL, and the pointer to
/// it (execve(2)).
fn argument_bytes(line: &Item) -> u64 {
    const OVERHEAD_BYTES: u64 = 1 + 8;
    match line {
        Item::Task(line) => line.len() as u64 + OVERHEAD_BYTES,
        Item::TooLarge { bytes } => bytes.saturating_add(OVERHEAD_BYTES),
        Item::Unfit { .. } => OVERHEAD_BYTES,
    }
}

impl<R: Read> Source for GroupSource<R> {
    fn read(&mut self) -> Result<Option<Chunk>, InputError> {
        let mut groups = Chunk::default();
        while groups.is_empty() {
            let Some(lines) = self.lines.read()? else {
                if self.begun_lines == 0 {
                    return Ok(None);
                }
                groups.push(self.end());
                break;
            };
            for line in lines {
                if self.is_full(&line) {
                    groups.push(self.end());
                }
                self.add(&line);
                if self.begun_lines == self.lines_max {
                    groups.push(self.end());
                }
            }
        }
        Ok(Some(groups))
    }
}
