//! Reader of lines that are parsed before they are tasks: of jsonl, and of columns under a header.

use std::io::Read;

use bytes::Bytes;
use serde::de::IgnoredAny;
use tradewind_proto::Payload;
use tradewind_text::Colsep;

use super::names::{Asked, Names};
use super::{BOM, BadRow, CHUNK_BYTES_MAX, Chunk, InputError, InputPath, Item, LineSource, Source};

/// Reads a row from each line. A bad row is the end: the tasks before it are returned, then the
/// error, then nothing more.
pub struct RowSource<R> {
    lines: LineSource<R>,
    path: InputPath,
    task_bytes_max: usize,
    rows: Rows,
    /// Lines that are not parsed yet.
    waiting: std::vec::IntoIter<Item>,
    /// Number of parsed lines.
    line: u64,
    /// Error that follows the tasks that were returned already.
    error: Option<InputError>,
    is_over: bool,
}

/// Form of a line.
#[derive(Debug)]
enum Rows {
    /// JSON: the task is the line, byte for byte.
    Jsonl,
    /// Columns; the first line has their names. The task is an object of them.
    Columns { colsep: Option<Colsep>, header: Option<Header>, asked: Asked },
}

#[derive(Debug)]
struct Header {
    names: Names,
    /// Lines end in CRLF.
    has_returns: bool,
}

impl<R: Read> RowSource<R> {
    /// Creates a reader of a JSON object or array from each line. Blank lines are skipped.
    pub fn jsonl(lines: LineSource<R>, path: InputPath, task_bytes_max: usize) -> Self {
        Self::new(lines, path, task_bytes_max, Rows::Jsonl)
    }

    /// Creates a reader of columns with names. Without a separator there is one column. A header
    /// that lacks a required field is a bad row.
    pub fn columns(
        lines: LineSource<R>,
        path: InputPath,
        task_bytes_max: usize,
        colsep: Option<Colsep>,
        asked: Asked,
    ) -> Self {
        Self::new(lines, path, task_bytes_max, Rows::Columns { colsep, header: None, asked })
    }

    fn new(lines: LineSource<R>, path: InputPath, task_bytes_max: usize, rows: Rows) -> Self {
        let waiting = Vec::new().into_iter();
        Self { lines, path, task_bytes_max, rows, waiting, line: 0, error: None, is_over: false }
    }

    /// Returns the task of the next line, if it has one.
    fn look_at(&mut self, item: Item) -> Result<Option<Item>, BadRow> {
        self.line += 1;
        let is_first = self.line == 1;
        let line = match item {
            Item::TooLarge { bytes } => {
                return match &self.rows {
                    Rows::Columns { header: None, .. } => {
                        Err(BadRow::HeaderTooLarge { bytes, most: self.task_bytes_max })
                    }
                    _ => Ok(Some(item)),
                };
            }
            Item::Unfit { .. } => return Ok(Some(item)),
            Item::Task(line) if is_first && line.starts_with(BOM) => {
                Bytes::from(line).slice(BOM.len()..).into()
            }
            Item::Task(line) => line,
        };
        let task = match &mut self.rows {
            Rows::Jsonl => jsonl(line)?,
            Rows::Columns { colsep, header, asked } => {
                columns(&line, colsep.as_ref(), header, asked)?
            }
        };
        Ok(task.map(|task| match task.len() {
            length if length > self.task_bytes_max => Item::TooLarge { bytes: length as u64 },
            _ => Item::Task(task),
        }))
    }

    fn fill(&mut self, chunk: &mut Chunk) -> Result<(), InputError> {
        while let Some(item) = self.waiting.next() {
            match self.look_at(item) {
                Ok(task) => task.into_iter().for_each(|item| chunk.push(item)),
                Err(bad) => {
                    let (input, line) = (self.path.clone(), self.line);
                    return Err(InputError::Row { input, line, bad });
                }
            }
            // Names that a header adds to short rows may be long.
            if chunk.bytes() > CHUNK_BYTES_MAX {
                break;
            }
        }
        Ok(())
    }
}

impl<R: Read> Source for RowSource<R> {
    fn read(&mut self) -> Result<Option<Chunk>, InputError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        while !self.is_over {
            if self.waiting.as_slice().is_empty() {
                let Some(chunk) = self.lines.read()? else { break };
                self.waiting = chunk.into_iter();
            }
            let mut chunk = Chunk::with_capacity(self.waiting.as_slice().len());
            if let Err(error) = self.fill(&mut chunk) {
                self.is_over = true;
                self.waiting = Vec::new().into_iter();
                if chunk.is_empty() {
                    return Err(error);
                }
                self.error = Some(error);
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }
}

/// Returns the line without the white space around it, if it is JSON.
fn jsonl(line: Payload) -> Result<Option<Payload>, BadRow> {
    let row = line.trim_ascii();
    let Some(first) = row.first() else { return Ok(None) };
    let start = line.len() - line.trim_ascii_start().len();
    let text = std::str::from_utf8(row)
        .map_err(|error| BadRow::NotUtf8 { column: start + error.valid_up_to() + 1 })?;
    let not_json = |error: serde_json::Error| {
        let reason = error.to_string();
        // The parser counts lines within this one.
        let reason = reason.rsplit_once(" at line ").map_or(&*reason, |(reason, _)| reason);
        BadRow::NotJson { column: start + error.column(), reason: reason.to_owned() }
    };
    serde_json::from_str::<IgnoredAny>(text).map_err(not_json)?;
    let found = match first {
        b'{' | b'[' if row.len() == line.len() => return Ok(Some(line)),
        b'{' | b'[' => {
            let range = start..start + row.len();
            return Ok(Some(Bytes::from(line).slice(range).into()));
        }
        b'"' => "a string",
        b't' | b'f' => "true or false",
        b'n' => "null",
        _ => "a number",
    };
    Err(BadRow::NoFields { found })
}

/// Returns the line's columns as an object; `None` for the header.
fn columns(
    line: &[u8],
    colsep: Option<&Colsep>,
    header: &mut Option<Header>,
    asked: &Asked,
) -> Result<Option<Payload>, BadRow> {
    let Some(Header { names, has_returns }) = header else {
        let has_returns = line.ends_with(b"\r");
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let names = match colsep {
            Some(colsep) => Names::new(colsep.split(line), asked),
            None => Names::new(std::iter::once(line), asked),
        }?;
        *header = Some(Header { names, has_returns });
        return Ok(None);
    };
    let line = match line.strip_suffix(b"\r") {
        Some(line) if *has_returns => line,
        _ => line,
    };
    let mut task = Vec::new();
    match colsep {
        Some(colsep) => names.push_object(colsep.split(line), &mut task),
        None => names.push_object(std::iter::once(line), &mut task),
    }?;
    Ok(Some(Bytes::from(task.into_boxed_slice()).into()))
}
