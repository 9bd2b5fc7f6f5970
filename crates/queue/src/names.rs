//! Names that stand in paths, ids and files.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;
use tradewind_proto::limits::QUEUE_BYTES_MAX;
use tradewind_text::{is_identifier, is_queue_name};

/// Bytes of the longest name of a queue or consumer.
pub const NAME_BYTES_MAX: usize = QUEUE_BYTES_MAX;

/// Bytes of the longest key of a task.
pub const KEY_BYTES_MAX: usize = 512;

/// Reason why a text is no name, key or id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum NameError {
    #[error(
        "a name has 1 to {NAME_BYTES_MAX} characters of a-z, 0-9, '-' and '_', and begins with one of a-z and 0-9"
    )]
    Name,
    #[error("the name of a queue does not end with '-', nor with '-' and digits, as an id does")]
    LikeId,
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes")]
    Key,
    #[error("the id of a task is its queue, '-' and its seq, as in thumbs-17")]
    Id,
}

/// Name of a queue: 1 to 63 of `a-z`, `0-9`, `-` and `_`, the first of them one of `a-z` and `0-9`.
///
/// It fits as it is into a path, a URL and a file name, on a file system that does not tell `A` from `a` too.
/// It does not end as an id does, so that no text is both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(Arc<str>);

/// Name of a consumer, of which a queue keeps the position: as a queue's, and it may end with digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerName(String);

/// Name that a submitter gave its task: 1 to 512 bytes of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey(String);

/// Id of a task: `QUEUE-SEQ`, split at the last `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// Queue of the task.
    pub queue: QueueName,
    /// Number of the task in its queue. Of those from 2^62 on there is none.
    pub seq: u64,
}

impl FromStr for QueueName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if !is_identifier(text) {
            return Err(NameError::Name);
        }
        if is_queue_name(text) { Ok(Self(text.into())) } else { Err(NameError::LikeId) }
    }
}

impl FromStr for ConsumerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_identifier(text) { Ok(Self(text.to_owned())) } else { Err(NameError::Name) }
    }
}

impl TryFrom<String> for TaskKey {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        if (1..=KEY_BYTES_MAX).contains(&text.len()) { Ok(Self(text)) } else { Err(NameError::Key) }
    }
}

impl FromStr for TaskId {
    type Err = NameError;

    /// Parses an id. A seq is written in one way only, without a sign and without zeros before it.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (queue, seq) = text.rsplit_once('-').ok_or(NameError::Id)?;
        let queue = queue.parse().map_err(|_| NameError::Id)?;
        let is_canonical = seq == "0" || !seq.starts_with(['0', '+']);
        match seq.parse() {
            Ok(seq) if is_canonical => Ok(Self { queue, seq }),
            _ => Err(NameError::Id),
        }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.queue, self.seq)
    }
}

macro_rules! text {
    ($($name:ident),*) => {$(
        impl $name {
            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

text!(QueueName, ConsumerName, TaskKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_into_a_path_an_id_and_a_file_name() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        for name in ["a", "0", "thumbs", "a_b-c", "v2-a", "a-1b", "2026", "a_1", "a__", &longest] {
            assert_eq!(name.parse::<QueueName>().map(|name| name.to_string()), Ok(name.to_owned()));
            assert_eq!(name.parse::<ConsumerName>().unwrap().as_str(), name);
        }
        let too_long = "a".repeat(NAME_BYTES_MAX + 1);
        let others =
            ["", "-", "_a", "A", "aB", "a/b", "..", "a.b", "a b", "ü", "a\0", "a\n", &too_long];
        for name in others {
            assert_eq!(name.parse::<QueueName>(), Err(NameError::Name), "{name:?}");
            assert_eq!(name.parse::<ConsumerName>(), Err(NameError::Name), "{name:?}");
        }
        for name in ["a-", "a-1", "a-b-007", "0-0"] {
            assert_eq!(name.parse::<QueueName>(), Err(NameError::LikeId), "{name:?}");
            assert!(name.parse::<ConsumerName>().is_ok());
        }
    }

    #[test]
    fn an_id_is_split_at_its_last_hyphen_and_written_in_one_way() {
        let last = format!("q-{}", u64::MAX);
        for (text, queue) in [("thumbs-17", "thumbs"), ("a-b-0", "a-b"), (&last, "q")] {
            let id: TaskId = text.parse().unwrap();
            assert_eq!((id.to_string().as_str(), id.queue.as_str()), (text, queue));
        }
        let past = "q-18446744073709551616";
        let others = [
            "",
            "17",
            "q",
            "-17",
            "q-",
            "q-x",
            "q-01",
            "q-+1",
            "q--1",
            "q-1-1",
            "Q-1",
            "q-1 ",
            "q-00",
            "q-18446744073709551616",
            past,
        ];
        for text in others {
            assert_eq!(text.parse::<TaskId>(), Err(NameError::Id), "{text:?}");
        }
    }

    #[test]
    fn a_key_has_at_least_one_byte_and_512_at_the_most() {
        assert_eq!(TaskKey::try_from(String::new()), Err(NameError::Key));
        assert_eq!(TaskKey::try_from("ü".repeat(257)), Err(NameError::Key));
        assert_eq!(TaskKey::try_from("ü".repeat(256)).unwrap().as_str().len(), 512);
    }
}
