//! What the input is made of.

use std::io::Read;
use std::num::NonZeroU32;

use tradewind_text::Colsep;

use super::csv::CsvSource;
use super::groups::GroupSource;
use super::names::Asked;
use super::rows::RowSource;
use super::{Delimiter, Input, Source};

/// What a task of the input is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line, as it is.
    Lines(Delimiter),
    /// So many lines, as they are, with the delimiter between them.
    Groups {
        /// What ends a line.
        delimiter: Delimiter,
        /// How many make a task. The last may have fewer.
        lines: NonZeroU32,
        /// How much a command line may grow by them: a task ends before the line that would be too
        /// much.
        bytes: Option<NonZeroU32>,
    },
    /// A line of columns, after a first line with their names. The task is a JSON object.
    Columns {
        /// What ends a line.
        delimiter: Delimiter,
        /// What separates columns; without it there is one.
        colsep: Option<Colsep>,
        /// What is asked for of the names.
        asked: Asked,
    },
    /// A line that is a JSON object or array. The task is the same.
    Jsonl,
    /// A row of CSV. The task is a JSON object if there is a header, or an array.
    Csv {
        /// What separates fields.
        separator: u8,
        /// The first row has the names of the fields.
        has_header: bool,
        /// What is asked for of them.
        asked: Asked,
    },
}

impl Default for Format {
    fn default() -> Self {
        Self::Lines(Delimiter::Newline)
    }
}

impl<R: Read + Send + 'static> Input<R> {
    /// Reads the tasks in it. None may be longer than `task_bytes_max`.
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
