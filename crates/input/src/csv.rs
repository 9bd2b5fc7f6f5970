//! Reader of CSV, by RFC 4180.

use std::io::{ErrorKind, Read};
use std::ops::Range;

use bytes::Bytes;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use tradewind_proto::Payload;

use super::names::{Asked, Names, push_array};
use super::{BOM, BadRow, CHUNK_BYTES_MAX, Chunk, InputError, InputPath, Item, Source};

/// Bytes asked for in one read.
const READ_BYTES: usize = 256 << 10;

/// Tasks in one chunk.
const CHUNK_TASKS_MAX: usize = 16 << 10;

/// Largest number of fields in a row. The ends of this many take 16 MiB.
const FIELDS_MAX: usize = 1 << 20;

/// Reads a task from each row. Quoted fields may hold separators and newlines, blank lines are
/// skipped.
///
/// A bad row is the end: the tasks before it are returned, then the error, then nothing more. The
/// parser itself takes anything; `csv_core` and not `csv`, since that keeps a row of any length.
pub struct CsvSource<R> {
    reader: R,
    path: InputPath,
    task_bytes_max: usize,
    parser: Reader,
    names: Option<Names>,
    /// Whether the next row has the names.
    expects_header: bool,
    asked: Asked,
    scratch: Box<[u8]>,
    /// Bytes of the input that are not parsed yet.
    unread: Range<usize>,
    has_begun: bool,
    /// Whether the end of the input was read.
    is_ended: bool,
    row: Row,
    /// Error that follows the tasks that were returned already.
    error: Option<InputError>,
    is_over: bool,
}

/// Row that is being read.
struct Row {
    fields: Vec<u8>,
    fields_len: usize,
    ends: Vec<usize>,
    ends_len: usize,
    /// Bytes of a row that exceeds the limit, so that only its length is kept, besides the bytes
    /// that are here.
    skipped: Option<u64>,
    /// Newlines in skipped bytes.
    newlines: u64,
}

impl<R: Read> CsvSource<R> {
    /// Creates a reader of rows, whose fields this byte separates. The first row has the names of
    /// the fields, if there are names.
    pub fn new(
        reader: R,
        path: InputPath,
        separator: u8,
        has_header: bool,
        task_bytes_max: usize,
    ) -> Self {
        Self {
            reader,
            path,
            task_bytes_max,
            parser: ReaderBuilder::new().delimiter(separator).build(),
            names: None,
            expects_header: has_header,
            asked: Asked::default(),
            scratch: vec![0; READ_BYTES].into(),
            unread: 0..0,
            has_begun: false,
            is_ended: false,
            row: Row::new(),
            error: None,
            is_over: false,
        }
    }

    /// Requires these fields: a header that lacks one is a bad row.
    #[must_use]
    pub fn with_asked(self, asked: Asked) -> Self {
        Self { asked, ..self }
    }

    /// Reads once; 0 at the end of the input.
    fn fill(&mut self, at: usize) -> Result<usize, InputError> {
        loop {
            match self.reader.read(&mut self.scratch[at..]) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(reason) => return Err(InputError::Read { input: self.path.clone(), reason }),
            }
        }
    }

    /// Reads until it is clear whether there is a byte order mark, which is in no field.
    fn begin(&mut self) -> Result<(), InputError> {
        while self.unread.end < BOM.len() && BOM.starts_with(&self.scratch[..self.unread.end]) {
            match self.fill(self.unread.end)? {
                0 => break,
                count => self.unread.end += count,
            }
        }
        if self.scratch[..self.unread.end].starts_with(BOM) {
            self.unread.start = BOM.len();
        }
        self.has_begun = true;
        Ok(())
    }

    /// Reads to the end of a row. Returns false if all bytes that were read are parsed.
    fn parse(&mut self) -> bool {
        while !self.unread.is_empty() {
            let row = &mut self.row;
            let (result, read, fields, ends) = self.parser.read_record(
                &self.scratch[self.unread.clone()],
                &mut row.fields[row.fields_len..],
                &mut row.ends[row.ends_len..],
            );
            self.unread.start += read;
            row.fields_len += fields;
            row.ends_len += ends;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => row.make_room(self.task_bytes_max),
                ReadRecordResult::OutputEndsFull => row.make_room_for_ends(),
                ReadRecordResult::Record => return true,
                // The parser hears of no end: see `end`.
                ReadRecordResult::End => return false,
            }
        }
        false
    }

    /// Ends the input with a newline of ours. The parser would take a row that ends within quotes
    /// for one; but a newline it takes into a field only there.
    fn end(&mut self) {
        self.scratch[0] = b'\n';
        self.unread = 0..1;
        self.is_ended = true;
    }

    /// Returns the line in which the last row began, up to its newline or its last field.
    fn line(&self, is_open: bool) -> u64 {
        let has_newline = !is_open && self.scratch[..self.unread.start].last() == Some(&b'\n');
        let within = self.row.newlines + newlines(&self.row.fields[..self.row.fields_len]);
        self.parser.line() - u64::from(has_newline) - within
    }

    /// Appends the row's task to `tasks`. Returns its length, or the length alone if that is too
    /// much.
    fn task(&mut self, tasks: &mut Vec<u8>) -> Result<Option<Result<usize, u64>>, BadRow> {
        let row = &self.row;
        if row.ends_len > FIELDS_MAX {
            return Err(BadRow::TooManyFields { most: FIELDS_MAX });
        }
        if let Some(skipped) = row.skipped {
            let bytes = skipped + row.fields_len as u64;
            if self.expects_header {
                return Err(BadRow::HeaderTooLarge { bytes, most: self.task_bytes_max });
            }
            return Ok(Some(Err(bytes)));
        }
        if self.expects_header {
            self.names = Some(Names::new(row.fields(), &self.asked)?);
            self.expects_header = false;
            return Ok(None);
        }
        let before = tasks.len();
        match &self.names {
            Some(names) => names.push_object(row.fields(), tasks)?,
            None => push_array(row.fields(), tasks)?,
        }
        let length = tasks.len() - before;
        if length > self.task_bytes_max {
            tasks.truncate(before);
            return Ok(Some(Err(length as u64)));
        }
        Ok(Some(Ok(length)))
    }

    /// Makes tasks of the bytes that were read.
    fn gather(&mut self, found: &mut Found) -> Result<(), InputError> {
        let bad_row = |source: &Self, bad, is_open| {
            let (input, line) = (source.path.clone(), source.line(is_open));
            Err(InputError::Row { input, line, bad })
        };
        while !found.is_full() {
            if !self.parse() {
                self.is_over = self.is_ended;
                if self.is_ended && self.row.fields_len > 0 {
                    return bad_row(self, BadRow::OpenQuote, true);
                }
                return Ok(());
            }
            let before = found.bytes.len();
            match self.task(&mut found.bytes) {
                Ok(Some(task)) => found.tasks.push(task),
                Ok(None) => {}
                Err(bad) => {
                    found.bytes.truncate(before);
                    return bad_row(self, bad, false);
                }
            }
            self.row.clear();
        }
        Ok(())
    }
}

impl<R: Read> Source for CsvSource<R> {
    fn read(&mut self) -> Result<Option<Chunk>, InputError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if !self.has_begun {
            self.begin()?;
        }
        while !self.is_over {
            if self.unread.is_empty() && !self.is_ended {
                match self.fill(0)? {
                    0 => self.end(),
                    count => self.unread = 0..count,
                }
            }
            let mut found = Found::default();
            if let Err(error) = self.gather(&mut found) {
                self.is_over = true;
                if found.tasks.is_empty() {
                    return Err(error);
                }
                self.error = Some(error);
            }
            if !found.tasks.is_empty() {
                return Ok(Some(found.chunk()));
            }
        }
        Ok(None)
    }
}

/// Tasks of one chunk, one after another.
#[derive(Default)]
struct Found {
    bytes: Vec<u8>,
    /// Length of each task, also of one that is too large.
    tasks: Vec<Result<usize, u64>>,
}

impl Found {
    /// Names that a header adds to short rows may be long.
    fn is_full(&self) -> bool {
        self.tasks.len() >= CHUNK_TASKS_MAX || self.bytes.len() as u64 > CHUNK_BYTES_MAX
    }

    fn chunk(self) -> Chunk {
        let bytes = Bytes::from(self.bytes.into_boxed_slice());
        let mut chunk = Chunk::with_capacity(self.tasks.len());
        let mut start = 0;
        for task in self.tasks {
            chunk.push(match task {
                Ok(length) => {
                    let part = &bytes[start..start + length];
                    start += length;
                    Item::Task(Payload::part_of(&bytes, part))
                }
                Err(bytes) => Item::TooLarge { bytes },
            });
        }
        chunk
    }
}

impl Row {
    fn new() -> Self {
        let (fields, ends) = (vec![0; 4 << 10], vec![0; 64]);
        Self { fields, fields_len: 0, ends, ends_len: 0, skipped: None, newlines: 0 }
    }

    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends[..self.ends_len].iter().map(move |&end| {
            let field = &self.fields[start..end];
            start = end;
            field
        })
    }

    fn make_room(&mut self, bytes_max: usize) {
        if self.skipped.is_none() && self.fields.len() < bytes_max {
            let more = self.fields.len().min(bytes_max - self.fields.len());
            self.fields.resize(self.fields.len() + more, 0);
        } else {
            self.skip();
        }
    }

    fn make_room_for_ends(&mut self) {
        if self.ends_len <= FIELDS_MAX {
            self.ends.resize(2 * self.ends.len(), 0);
        } else {
            // The row has too many fields already: the last end is overwritten.
            self.ends_len -= 1;
        }
    }

    /// Drops the bytes, and keeps their number.
    fn skip(&mut self) {
        self.newlines += newlines(&self.fields[..self.fields_len]);
        *self.skipped.get_or_insert(0) += self.fields_len as u64;
        self.fields_len = 0;
    }

    fn clear(&mut self) {
        (self.fields_len, self.ends_len) = (0, 0);
        (self.skipped, self.newlines) = (None, 0);
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
