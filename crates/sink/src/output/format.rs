//! How records look in the output.

use serde::{Deserialize, Serialize};

use tradewind_proto::collector::Record;
use tradewind_proto::message::Status;

use super::{OutputTarget, jsonl};

/// How records look in the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// What each task printed, with a newline added if it did not end in one.
    #[default]
    Lines,
    /// A JSON object a line that says how each task ended.
    Jsonl,
}

impl Format {
    /// Unless somebody says otherwise: JSON where the name says so.
    #[must_use]
    pub fn of(target: &OutputTarget) -> Self {
        match target {
            OutputTarget::File(path) if path.extension().is_some_and(|e| e == "jsonl") => {
                Self::Jsonl
            }
            OutputTarget::File(_) | OutputTarget::Stdout => Self::Lines,
        }
    }

    /// As it is written on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Jsonl => "jsonl",
        }
    }

    /// Adds a record to the end of `out`.
    pub fn encode(self, record: Record<'_>, out: &mut Vec<u8>) {
        match self {
            // What a filter drops is not there.
            Self::Lines if record.result.outcome.status == Status::Skipped => {}
            Self::Lines => lines(&record.result.outcome.output, out),
            Self::Jsonl => jsonl::encode(record, out),
        }
    }
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
    use super::super::examples::record;
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
}
