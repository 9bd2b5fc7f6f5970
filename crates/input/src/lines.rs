//! Reader of an input in which a delimiter ends each task.

use std::io::{ErrorKind, Read};

use bytes::Bytes;
use memchr::{memchr, memchr_iter, memrchr};
use tradewind_proto::Payload;

use super::{Chunk, InputError, InputPath, Item, Source};

/// Bytes asked for in one read. A pipe holds 64 KiB, files gain little beyond this.
const READ_BYTES: usize = 256 << 10;

/// Number of tasks in one chunk: the shortest tasks come by the hundred thousand in a single read,
/// and each of them takes far more memory than the input does.
const CHUNK_TASKS_MAX: usize = 16 << 10;

/// Delimiter at the end of a task. The last task may go without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delimiter {
    /// A newline. A carriage return before it belongs to the task, as with `xargs`.
    #[default]
    Newline,
    /// A NUL byte, as `find -print0` writes it.
    Nul,
}

/// Reads tasks that a delimiter ends. An empty line is a task too.
pub struct LineSource<R> {
    reader: R,
    path: InputPath,
    delimiter: u8,
    task_bytes_max: usize,
    /// Buffer for reads. Tasks are copied out of it, so that a task that lives long keeps no more
    /// memory alive than was read together with it. The copy costs less than the read.
    scratch: Box<[u8]>,
    /// Whole lines that are not returned yet. The last ends in a delimiter as well.
    lines: Bytes,
    /// Beginning of the line after them.
    begun: Begun,
    ended: bool,
}

/// Line whose end was not read yet.
pub(super) enum Begun {
    /// No longer than a task may be.
    Kept(Vec<u8>),
    /// The task exceeds the limit, so only its length is kept.
    Skipped(u64),
}

impl Delimiter {
    /// Returns the byte.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Newline => b'\n',
            Self::Nul => 0,
        }
    }
}

impl<R: Read> LineSource<R> {
    /// Creates a reader of tasks of at most `task_bytes_max` bytes. `path` is the input's name in
    /// errors.
    pub fn new(reader: R, path: InputPath, delimiter: Delimiter, task_bytes_max: usize) -> Self {
        Self {
            reader,
            path,
            delimiter: delimiter.byte(),
            task_bytes_max,
            scratch: vec![0; READ_BYTES].into(),
            lines: Bytes::new(),
            begun: Begun::default(),
            ended: false,
        }
    }

    /// Reads once. Returns the line that began in earlier reads if it ends in this one.
    fn fill(&mut self) -> Result<Option<Item>, InputError> {
        let count = loop {
            match self.reader.read(&mut self.scratch) {
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(reason) => return Err(InputError::Read { input: self.path.clone(), reason }),
            }
        };
        if count == 0 {
            // A terminal can be read on after its end of file.
            self.ended = true;
            let begun = std::mem::take(&mut self.begun);
            return Ok(if begun.is_empty() { None } else { Some(begun.end()) });
        }

        let mut read = &self.scratch[..count];
        let mut ended = None;
        if !self.begun.is_empty() {
            let end = memchr(self.delimiter, read);
            self.begun.extend(&read[..end.unwrap_or(count)], self.task_bytes_max);
            let Some(end) = end else { return Ok(None) };
            ended = Some(std::mem::take(&mut self.begun).end());
            read = &read[end + 1..];
        }
        let whole = memrchr(self.delimiter, read).map_or(0, |end| end + 1);
        self.lines = Bytes::copy_from_slice(&read[..whole]);
        self.begun.extend(&read[whole..], self.task_bytes_max);
        Ok(ended)
    }

    /// Cuts as many lines off the buffer as go into the chunk.
    fn cut(&mut self, chunk: &mut Chunk) {
        let mut start = 0;
        for end in memchr_iter(self.delimiter, &self.lines).take(CHUNK_TASKS_MAX) {
            chunk.push(match end - start {
                length if length > self.task_bytes_max => Item::TooLarge { bytes: length as u64 },
                _ => Item::Task(Payload::part_of(&self.lines, &self.lines[start..end])),
            });
            start = end + 1;
        }
        // Once there are no more lines, their buffer belongs to their tasks alone.
        self.lines = self.lines.slice(start..);
    }
}

impl<R: Read> Source for LineSource<R> {
    fn read(&mut self) -> Result<Option<Chunk>, InputError> {
        loop {
            let ended = match self.lines.is_empty() {
                true if self.ended => return Ok(None),
                true => self.fill()?,
                false => None,
            };
            let lines = memchr_iter(self.delimiter, &self.lines).count().min(CHUNK_TASKS_MAX);
            let mut chunk = Chunk::with_capacity(lines + usize::from(ended.is_some()));
            ended.into_iter().for_each(|item| chunk.push(item));
            self.cut(&mut chunk);
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }
}

impl Begun {
    /// A line of no bytes has not begun: it is not known yet whether there will be one.
    fn is_empty(&self) -> bool {
        matches!(self, Self::Kept(line) if line.is_empty())
    }

    pub(super) fn extend(&mut self, more: &[u8], bytes_max: usize) {
        match self {
            Self::Kept(line) if line.len() + more.len() > bytes_max => {
                *self = Self::Skipped((line.len() + more.len()) as u64);
            }
            Self::Kept(line) => line.extend_from_slice(more),
            Self::Skipped(bytes) => *bytes += more.len() as u64,
        }
    }

    /// Adds bytes of which only the number is kept.
    pub(super) fn skip(&mut self, more: u64) {
        *self = match self {
            Self::Kept(line) => Self::Skipped(line.len() as u64 + more),
            Self::Skipped(bytes) => Self::Skipped(*bytes + more),
        };
    }

    pub(super) fn end(self) -> Item {
        match self {
            // The vector grew by doubling: its spare memory would live as long as the task.
            Self::Kept(line) => Item::Task(Bytes::from(line.into_boxed_slice()).into()),
            Self::Skipped(bytes) => Item::TooLarge { bytes },
        }
    }
}

impl Default for Begun {
    fn default() -> Self {
        Self::Kept(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;

    /// Gives the input in reads of these sizes, over and over, each after an interruption.
    struct Pieces<'a> {
        input: &'a [u8],
        sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
        interrupt: bool,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.interrupt = !self.interrupt;
            if self.interrupt {
                return Err(ErrorKind::Interrupted.into());
            }
            let size = (*self.sizes.next().unwrap()).min(self.input.len()).min(buffer.len());
            let (piece, rest) = self.input.split_at(size);
            buffer[..size].copy_from_slice(piece);
            self.input = rest;
            Ok(size)
        }
    }

    fn source<R: Read>(reader: R, delimiter: Delimiter, task_bytes_max: usize) -> LineSource<R> {
        LineSource::new(reader, InputPath::Stdin, delimiter, task_bytes_max)
    }

    fn read(input: &[u8], delimiter: Delimiter, sizes: &[usize], bytes_max: usize) -> Vec<Item> {
        let pieces = Pieces { input, sizes: sizes.iter().cycle(), interrupt: false };
        let mut source = source(pieces, delimiter, bytes_max);
        let mut items = Vec::new();
        while let Some(chunk) = source.read().unwrap() {
            assert!((1..=CHUNK_TASKS_MAX + 1).contains(&chunk.len()));
            let bytes = |item: &Item| if let Item::Task(task) = item { task.len() } else { 0 };
            assert_eq!(chunk.bytes(), chunk.iter().map(bytes).sum::<usize>() as u64);
            items.extend(chunk);
        }
        assert!(source.read().unwrap().is_none(), "the end is the end");
        items
    }

    fn task(text: impl AsRef<[u8]>) -> Item {
        Item::Task(text.as_ref().to_vec().into())
    }

    #[test]
    fn a_delimiter_ends_each_task() {
        use Delimiter::{Newline, Nul};
        let check = |input: &str, delimiter, tasks: &[&str]| {
            for sizes in [&[READ_BYTES][..], &[1], &[2], &[3, 1], &[1, 5]] {
                let wanted: Vec<_> = tasks.iter().map(task).collect();
                let found = read(input.as_bytes(), delimiter, sizes, 1000);
                assert_eq!(found, wanted, "{input:?} in reads of {sizes:?}");
            }
        };
        check("", Newline, &[]);
        check("\n", Newline, &[""]);
        check("\n\n", Newline, &["", ""]);
        check("a", Newline, &["a"]);
        check("a\n", Newline, &["a"]);
        check("a\nb", Newline, &["a", "b"]);
        check("a\n\nb\n", Newline, &["a", "", "b"]);
        check("\nabc\n", Newline, &["", "abc"]);
        check("a\r\nb\r\n", Newline, &["a\r", "b\r"]);
        check("a\0b\nc\n", Newline, &["a\0b", "c"]);
        check("a\0b\nc\0", Nul, &["a", "b\nc"]);
        check("a\nb\n", Nul, &["a\nb\n"]);
        check("\0", Nul, &[""]);
        check("grüße\nπ\n", Newline, &["grüße", "π"]);
    }

    #[test]
    fn a_task_that_is_too_large_is_skipped_and_keeps_its_place() {
        let large = |bytes| Item::TooLarge { bytes };
        let check = |input: &str, wanted: &[Item]| {
            for sizes in [&[READ_BYTES][..], &[1], &[2], &[4], &[5], &[6, 1]] {
                let found = read(input.as_bytes(), Delimiter::Newline, sizes, 5);
                assert_eq!(found, wanted, "{input:?} in reads of {sizes:?}");
            }
        };
        check("12345\n", &[task("12345")]);
        check("12345", &[task("12345")]);
        check("123456\n", &[large(6)]);
        check("123456", &[large(6)]);
        check("a\n1234567890123\nb\n", &[task("a"), large(13), task("b")]);
        check("a\n123456\n\n1234567", &[task("a"), large(6), task(""), large(7)]);
    }

    #[test]
    fn any_input_in_any_reads_gives_what_split_gives() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let length = random.usize(..200);
            let alphabet = random.usize(2..20);
            let input: Vec<u8> =
                (0..length).map(|_| b"\na\0bcdefghijklmnopq"[random.usize(..alphabet)]).collect();
            let sizes: Vec<usize> = (0..5).map(|_| random.usize(1..40)).collect();
            let bytes_max = random.usize(..30);

            let mut wanted: Vec<_> = input
                .split(|byte| *byte == b'\n')
                .map(|line| match line.len() > bytes_max {
                    true => Item::TooLarge { bytes: line.len() as u64 },
                    false => task(line),
                })
                .collect();
            if input.last().is_none_or(|byte| *byte == b'\n') {
                wanted.pop();
            }
            let found = read(&input, Delimiter::Newline, &sizes, bytes_max);
            assert_eq!(found, wanted, "{input:?} in reads of {sizes:?}, at most {bytes_max}");
        }
    }

    #[test]
    fn a_task_may_span_many_reads() {
        let long = vec![b'x'; 5 * READ_BYTES + 17];
        let input = [b"a\n", &long[..], b"\nb\n"].concat();
        for sizes in [&[READ_BYTES][..], &[1000], &[READ_BYTES, 7]] {
            let found = read(&input, Delimiter::Newline, sizes, long.len());
            assert_eq!(found, [task("a"), task(&long), task("b")]);
            let found = read(&input, Delimiter::Newline, sizes, long.len() - 1);
            let large = Item::TooLarge { bytes: long.len() as u64 };
            assert_eq!(found, [task("a"), large, task("b")]);
        }
    }

    #[test]
    fn a_chunk_is_bounded_however_short_its_tasks_are() {
        let input = vec![b'\n'; 3 * CHUNK_TASKS_MAX + 1];
        let mut source = source(&input[..], Delimiter::Newline, 10);
        let mut chunks = || Some(source.read().unwrap()?.len());
        let lengths: Vec<_> = std::iter::from_fn(&mut chunks).collect();
        assert_eq!(lengths, [CHUNK_TASKS_MAX, CHUNK_TASKS_MAX, CHUNK_TASKS_MAX, 1]);
    }

    #[test]
    fn a_lone_task_is_handed_on_while_the_pipe_stays_open() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut source = source(reader, Delimiter::Newline, 10);
        let mut check = |written: &str, tasks: &[&str]| {
            writer.write_all(written.as_bytes()).unwrap();
            let found: Vec<_> = source.read().unwrap().unwrap().into_iter().collect();
            assert_eq!(found, tasks.iter().map(task).collect::<Vec<_>>());
        };
        check("a\n", &["a"]);
        check("b\nc\nd", &["b", "c"]);
        check("e\nf", &["de"]);
        check("\n", &["f"]);
    }

    #[test]
    fn an_error_says_what_could_not_be_read_and_loses_nothing() {
        struct Bad(bool);
        impl Read for Bad {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                self.0 = !self.0;
                if self.0 { Err(io::Error::other("bad disk")) } else { Ok(0) }
            }
        }
        let mut source = source(b"a\nb"[..].chain(Bad(false)), Delimiter::Newline, 10);
        assert_eq!(source.read().unwrap().unwrap().len(), 1);
        let error = source.read().unwrap_err();
        assert_eq!(error.to_string(), "cannot read standard input: bad disk");
        assert_eq!(source.read().unwrap().unwrap().into_iter().collect::<Vec<_>>(), [task("b")]);
        assert_eq!(source.read().unwrap(), None);
    }
}
