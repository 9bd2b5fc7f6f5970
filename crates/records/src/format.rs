//! Formats of records in the output.

use serde::{Deserialize, Serialize};

use tradewind_proto::collector::Record;
use tradewind_proto::message::Status;

use super::{OutputTarget, jsonl};

/// Additional fields of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// `lines`: the task and a tab before each line.
    pub tag: bool,
    /// `jsonl`: the task.
    pub task: bool,
}

/// Format of records in the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The output of each task, with a newline added if it did not end in one.
    #[default]
    Lines,
    /// A JSON object a line with the outcome of each task.
    Jsonl,
}

impl Format {
    /// Returns the format for a file of this name, unless a flag sets one: JSON where the name says
    /// so.
    #[must_use]
    pub fn of(target: &OutputTarget) -> Self {
        match target {
            OutputTarget::File(path) if path.extension().is_some_and(|e| e == "jsonl") => {
                Self::Jsonl
            }
            OutputTarget::File(_) | OutputTarget::Stdout => Self::Lines,
        }
    }

    /// Returns the word on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Jsonl => "jsonl",
        }
    }

    /// Appends a record to `out`.
    pub fn encode(self, record: Record<'_>, out: &mut Vec<u8>) {
        self.encode_with(Extras::default(), record, out);
    }

    /// Appends a record with additional fields to `out`.
    pub fn encode_with(self, extras: Extras, record: Record<'_>, out: &mut Vec<u8>) {
        match self {
            // A task that a filter drops has no lines.
            Self::Lines if record.result.outcome.status == Status::Skipped => {}
            Self::Lines if extras.tag => {
                let tag = tag(record);
                for line in record.result.outcome.output.split_inclusive(|byte| *byte == b'\n') {
                    out.extend_from_slice(&tag);
                    lines(line, out);
                }
            }
            Self::Lines => lines(&record.result.outcome.output, out),
            Self::Jsonl => jsonl::encode(record, extras.task, out),
        }
    }
}

/// Returns the text before each line of a task: the task, as far as it is known, and a tab. A task
/// of several lines is put into one.
pub(super) fn tag(record: Record<'_>) -> Vec<u8> {
    let mut tag = record.result.reported.as_ref().map_or(Vec::new(), |it| it.task.to_vec());
    tag.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\0')).for_each(|byte| *byte = b' ');
    tag.push(b'\t');
    tag
}

/// A task that printed nothing takes no line: the output is that of a shell loop over the tasks.
fn lines(output: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(output);
    if output.last().is_some_and(|byte| *byte != b'\n') {
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use tradewind_proto::Payload;
    use tradewind_proto::message::Reported;

    use super::super::examples::{record, with};
    use super::*;

    #[test]
    fn lines_end_in_one_newline_unless_nothing_was_printed() {
        let check = |outputs: &[&[u8]], wanted: &[u8]| {
            let mut out = Vec::new();
            for output in outputs {
                for record in record(0, output).iter() {
                    Format::Lines.encode(record, &mut out);
                }
            }
            assert_eq!(out, wanted, "{outputs:?}");
        };
        check(&[b"a"], b"a\n");
        check(&[b"a\n"], b"a\n");
        check(&[b"a\n\n"], b"a\n\n");
        check(&[b"\n"], b"\n");
        check(&[b""], b"");
        check(&[b"a\nb", b"", b"c\n", b"d\r\n"], b"a\nb\nc\nd\r\n");
        check(&[b"\xff\0", b"x"], b"\xff\0\nx\n");
    }

    #[test]
    fn a_tag_stands_before_each_line() {
        let check = |task: &'static [u8], output: &[u8], wanted: &str| {
            let reported = Reported { task: Payload::from(task), ..Reported::default() };
            let record = with(record(0, output), |result| {
                result.reported = Some(Box::new(reported));
            });
            let mut out = Vec::new();
            let extras = Extras { tag: true, task: false };
            record.iter().for_each(|record| Format::Lines.encode_with(extras, record, &mut out));
            assert_eq!(String::from_utf8(out).unwrap(), wanted);
        };
        check(b"a b", b"x\ny", "a b\tx\na b\ty\n");
        check(b"a\nb\0c", b"x\n\n", "a b c\tx\na b c\t\n");
        check(b"", b"x", "\tx\n");
        check(b"a", b"", "");
    }
}
