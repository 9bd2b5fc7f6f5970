//! Formats of the input.

use std::io::Read;
use std::num::NonZeroU32;

use tradewind_text::Colsep;

use super::csv::CsvSource;
use super::groups::GroupSource;
use super::names::Asked;
use super::rows::RowSource;
use super::{Delimiter, Input, Source};

/// Format of the input: the part of it that is a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line.
    Lines(Delimiter),
    /// A number of lines, with the delimiter between them.
    Groups {
        /// Delimiter that ends a line.
        delimiter: Delimiter,
        /// Number of lines in a task. The last task may have fewer.
        lines: NonZeroU32,
        /// Bytes of a command line that the lines may take: a task ends before the line that would
        /// be too much.
        bytes: Option<NonZeroU32>,
    },
    /// A line of columns, after a first line with their names. The task is a JSON object.
    Columns {
        /// Delimiter that ends a line.
        delimiter: Delimiter,
        /// Separator of columns; without it there is one column.
        colsep: Option<Colsep>,
        /// Fields that the names must include.
        asked: Asked,
    },
    /// A line that is a JSON object or array. The task is the line.
    Jsonl,
    /// A row of CSV. The task is a JSON object if there is a header, or an array.
    Csv {
        /// Separator of fields.
        separator: u8,
        /// Whether the first row has the names of the fields.
        has_header: bool,
        /// Fields that the names must include.
        asked: Asked,
    },
}

impl Default for Format {
    fn default() -> Self {
        Self::Lines(Delimiter::Newline)
    }
}

impl<R: Read + Send + 'static> Input<R> {
    /// Returns the source of its tasks. None may be longer than `task_bytes_max`.
    pub fn tasks(self, format: &Format, task_bytes_max: usize) -> Box<dyn Source + Send> {
        let path = self.path.clone();
        match format {
            Format::Lines(delimiter) => Box::new(self.lines(*delimiter, task_bytes_max)),
            Format::Groups { delimiter, lines, bytes } => {
                let source = self.lines(*delimiter, task_bytes_max);
                Box::new(GroupSource::new(source, *delimiter, *lines, *bytes, task_bytes_max))
            }
            Format::Columns { delimiter, colsep, asked } => {
                let source = self.lines(*delimiter, task_bytes_max);
                Box::new(RowSource::columns(
                    source,
                    path,
                    task_bytes_max,
                    colsep.clone(),
                    asked.clone(),
                ))
            }
            Format::Jsonl => {
                let source = self.lines(Delimiter::Newline, task_bytes_max);
                Box::new(RowSource::jsonl(source, path, task_bytes_max))
            }
            Format::Csv { separator, has_header, asked } => {
                let (separator, has_header) = (*separator, *has_header);
                let source =
                    CsvSource::new(self.reader, path, separator, has_header, task_bytes_max);
                Box::new(source.with_asked(asked.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
