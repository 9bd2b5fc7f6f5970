//! Commands with replacement strings: any words and any task, and the line that is shown is read by a
//! shell as the words that are run.
//!
//! The data is a byte, the words with NULs between them, two NULs, and the task.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use tradewind_proto::{Seq, Slot};
use tradewind_handlers::{COMMAND_BYTES_MAX, Fields, Input, Template};

pub fn template(mut data: &[u8]) {
    let kind = super::byte(&mut data);
    let end = data.windows(2).position(|pair| pair == [0, 0]);
    let (words, task) = match end {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (data, &b"a/b.c"[..]),
    };
    let words = words.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let fields = match kind % 5 {
        0 => Fields::Whole,
        1 => Fields::Json,
        2 => Fields::Group(b'\n'),
        3 => Fields::Group(0),
        _ => Fields::Columns(",".parse().unwrap()),
    };
    let input = if kind & 8 == 0 { Input::Argument } else { Input::Stdin };
    let template = Template::with_fields(words, input, fields).expect("there is a word");
    let (seq, slot) = (Seq(u64::from(kind)), Slot(u32::from(kind)));
    let expanded = template.expand(task, seq, slot);
    let quoted = template.quote(task, seq, slot);
    assert_eq!(expanded.is_ok(), quoted.is_ok());
    let (Ok(words), Ok(line)) = (expanded, quoted) else { return };
    assert!(!words.is_empty(), "a command of no words");
    let words: Vec<_> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    // shlex does not know the escapes in which control characters are shown, and what is long is cut.
    let bytes: usize = words.iter().map(|word| word.len() + 2).sum();
    if bytes < COMMAND_BYTES_MAX / 4 && !words.concat().iter().any(u8::is_ascii_control) {
        let read: Option<Vec<_>> = shlex::bytes::split(&line);
        assert_eq!(read.as_ref(), Some(&words), "{}", String::from_utf8_lossy(&line));
    }
}
