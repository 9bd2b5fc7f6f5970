//! Sets of stored tasks as text, for checkpoints that people can read: `0-199,201,1000-1002`.

use thiserror::Error;
use tradewind_proto::limits::SEQS_MAX;
use tradewind_proto::{Seq, SeqRange, SeqSet};

/// Text is no set of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is no set of tasks: ascending numbers and ranges with commas between are wanted")]
pub struct StoredError;

/// Returns a set as text.
#[must_use]
pub fn format_stored(stored: &SeqSet) -> String {
    let ranges = stored.to_ranges();
    let text = ranges.as_slice().iter().map(|range| match range.count() {
        1 => range.start.0.to_string(),
        _ => format!("{}-{}", range.start.0, range.end.0 - 1),
    });
    text.collect::<Vec<_>>().join(",")
}

/// Returns the set that a text says.
///
/// # Errors
///
/// When it says none.
pub fn parse_stored(text: &str) -> Result<SeqSet, StoredError> {
    let (mut set, mut last) = (SeqSet::new(), 0);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u64>().ok().filter(|it| *it < SEQS_MAX);
        let (Some(first), Some(end)) = (number(first), number(end)) else {
            return Err(StoredError);
        };
        if first < last || end < first {
            return Err(StoredError);
        }
        last = end + 1;
        set.insert_range(SeqRange { start: Seq(first), end: Seq(last) });
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_reads_back_as_it_was_written() {
        let set = |ranges: &[(u64, u64)]| -> SeqSet {
            ranges.iter().flat_map(|(start, end)| (*start..*end).map(Seq)).collect()
        };
        let cases = [
            ("", set(&[])),
            ("0", set(&[(0, 1)])),
            ("0-199,201,1000-1002", set(&[(0, 200), (201, 202), (1000, 1003)])),
        ];
        for (text, set) in cases {
            assert_eq!(format_stored(&set), text);
            assert_eq!(parse_stored(text), Ok(set));
        }
        for text in [",", "a", "3-1", "5,4", "1-", "-1", "18446744073709551615", "0-9,9"] {
            assert_eq!(parse_stored(text), Err(StoredError), "{text}");
        }
    }
}
