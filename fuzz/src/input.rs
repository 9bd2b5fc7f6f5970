//! The ventilator's readers: how a file is cut into reads makes no difference to the tasks.

use std::io::{self, Read};
use std::num::NonZeroU32;

use tradewind_input::{
    Asked, CsvSource, Delimiter, GroupSource, InputPath, Item, LineSource, RowSource, Source,
};

pub fn input(mut data: &[u8]) {
    let (kind, detail) = (super::byte(&mut data), super::byte(&mut data));
    let whole = read(kind, detail, data, usize::MAX);
    assert_eq!(read(kind, detail, data, 1), whole, "byte by byte");
    assert_eq!(read(kind, detail, data, 1 + usize::from(detail) % 13), whole, "in pieces");
}

/// All tasks, and how it ended.
fn read(kind: u8, detail: u8, text: &[u8], step: usize) -> (Vec<Item>, Option<String>) {
    let reader = Steps { text: text.to_vec(), at: 0, step };
    let delimiter = if detail & 1 == 0 { Delimiter::Newline } else { Delimiter::Nul };
    let path = InputPath::Stdin;
    let task_bytes_max = 16 + usize::from(detail);
    let lines = |reader| LineSource::new(reader, InputPath::Stdin, delimiter, task_bytes_max);
    // What commands ask for, if that is known.
    let asked = Asked::new((detail & 64 != 0).then(|| vec![vec!["a".to_owned(), "b".to_owned()]]));
    let mut source: Box<dyn Source> = match kind % 6 {
        0 => Box::new(lines(reader)),
        1 => {
            let count = NonZeroU32::new(1 + u32::from(detail % 4)).unwrap();
            let bytes = NonZeroU32::new(u32::from(detail / 16));
            Box::new(GroupSource::new(lines(reader), delimiter, count, bytes, task_bytes_max))
        }
        2 => Box::new(RowSource::jsonl(lines(reader), path, task_bytes_max)),
        3 => {
            let colsep = [None, Some(","), Some("[ ;]+"), Some(r"\t")][usize::from(detail / 4 % 4)];
            let colsep = colsep.map(|text| text.parse().unwrap());
            Box::new(RowSource::columns(lines(reader), path, task_bytes_max, colsep, asked))
        }
        header => {
            let separator = [b',', b';', b'\t', b'|'][usize::from(detail % 4)];
            let csv = CsvSource::new(reader, path, separator, header == 4, task_bytes_max);
            Box::new(csv.with_asked(asked))
        }
    };
    let mut items = Vec::new();
    let error = loop {
        match source.read() {
            Ok(Some(chunk)) => {
                assert!(!chunk.is_empty(), "a chunk without a task");
                items.extend(chunk);
            }
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    for item in &items {
        if let Item::Task(task) = item {
            assert!(task.len() <= task_bytes_max, "a task that is longer than it may be");
        }
    }
    (items, error)
}

struct Steps {
    text: Vec<u8>,
    at: usize,
    step: usize,
}

impl Read for Steps {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.step).min(self.text.len() - self.at);
        buffer[..count].copy_from_slice(&self.text[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
