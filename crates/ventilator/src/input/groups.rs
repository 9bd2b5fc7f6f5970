//! Several lines as one task.

use std::io::Read;
use std::num::NonZeroU32;

use super::lines::Begun;
use super::{Chunk, Delimiter, InputError, Item, LineSource, Source};

/// Reads tasks of so many lines each. What ends the lines in the input stands between them in the
/// task. The last task may have fewer.
pub struct GroupSource<R> {
    lines: LineSource<R>,
    delimiter: u8,
    lines_max: u32,
    task_bytes_max: usize,
    begun: Begun,
    /// How many lines that has.
    begun_lines: u32,
}

impl<R: Read> GroupSource<R> {
    /// Groups what `lines` reads.
    pub fn new(
        lines: LineSource<R>,
        delimiter: Delimiter,
        lines_max: NonZeroU32,
        task_bytes_max: usize,
    ) -> Self {
        let (delimiter, lines_max) = (delimiter.byte(), lines_max.get());
        let begun = Begun::default();
        Self { lines, delimiter, lines_max, task_bytes_max, begun, begun_lines: 0 }
    }

    fn add(&mut self, line: &Item) {
        if self.begun_lines > 0 {
            self.begun.extend(&[self.delimiter], self.task_bytes_max);
        }
        match line {
            Item::Task(line) => self.begun.extend(line, self.task_bytes_max),
            Item::TooLarge { bytes } => self.begun.skip(*bytes),
            // Lines are what they are.
            Item::Unfit { .. } => {}
        }
        self.begun_lines += 1;
    }

    fn end(&mut self) -> Item {
        self.begun_lines = 0;
        std::mem::take(&mut self.begun).end()
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
                self.add(&line);
                if self.begun_lines == self.lines_max {
                    groups.push(self.end());
                }
            }
        }
        Ok(Some(groups))
    }
}
