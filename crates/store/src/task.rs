//! A task as it stands in a log.
//!
//! | bytes | |
//! | --- | --- |
//! | flags | 1: a key follows, 2: options follow |
//! | key | length, 1 to 512, and the bytes |
//! | options | length of all, then for each: number, length, bytes |
//! | payload | the rest |
//!
//! Lengths, numbers and options are those of `parts.rs`.

use std::time::Duration;

use bytes::{Buf, Bytes};
use thiserror::Error;

use crate::parts::{CRITICAL, Short, put_number, put_part, take_part, take_varint};

/// Bytes of the longest key.
pub const KEY_BYTES_MAX: usize = 512;

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredTask {
    /// Name that its submitter gave it: with the same key it is the same task.
    pub key: Option<Bytes>,
    /// Values of its own.
    pub options: TaskOptions,
    /// The task itself.
    pub payload: Bytes,
}

/// Values of a task that stand above those of its queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskOptions {
    /// Number of attempts after the first.
    pub retries: Option<u32>,
    /// Time that an attempt may take. Whole microseconds.
    pub timeout: Option<Duration>,
    /// Position of the task that this one is a retry of.
    pub retry_of: Option<u64>,
}

/// Reason why an entry is no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum TaskError {
    #[error("it has flags that this program does not know")]
    Flags,
    #[error("it ends too soon")]
    Short,
    #[error("its key is empty, or longer than {KEY_BYTES_MAX} bytes")]
    Key,
    #[error("option {0} is not understood by this program")]
    Option(u8),
}

const HAS_KEY: u8 = 1;
const HAS_OPTIONS: u8 = 2;

// 4 to 6 are for a time before which it does not run, its priority, and its batch.
const RETRIES: u8 = 1;
const TIMEOUT: u8 = 2;
const RETRY_OF: u8 = 3;

impl From<Short> for TaskError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl StoredTask {
    /// Returns the task that runs this one, which has this position, again under a key or none.
    #[must_use]
    pub fn retried(self, of: u64, key: Option<Bytes>) -> Self {
        let options = TaskOptions { retry_of: Some(of), ..self.options };
        Self { key, options, payload: self.payload }
    }

    /// Appends the task's bytes. A key is to have 1 to [`KEY_BYTES_MAX`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let options = self.options.encode();
        let flags = if self.key.is_some() { HAS_KEY } else { 0 }
            | if options.is_empty() { 0 } else { HAS_OPTIONS };
        out.push(flags);
        for part in self.key.iter().map(|key| &key[..]).chain([&options[..]]) {
            if !part.is_empty() {
                put_part(part, out);
            }
        }
        out.extend_from_slice(&self.payload);
    }

    /// Returns the task of these bytes, which it shares.
    ///
    /// # Errors
    ///
    /// When it is none, or one that this program does not understand.
    pub fn decode(mut bytes: Bytes) -> Result<Self, TaskError> {
        if bytes.is_empty() {
            return Err(TaskError::Short);
        }
        let flags = bytes.get_u8();
        if flags & !(HAS_KEY | HAS_OPTIONS) != 0 {
            return Err(TaskError::Flags);
        }
        let mut task = Self::default();
        if flags & HAS_KEY != 0 {
            let key = take_part(&mut bytes)?;
            if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
                return Err(TaskError::Key);
            }
            task.key = Some(key);
        }
        if flags & HAS_OPTIONS != 0 {
            task.options = TaskOptions::decode(take_part(&mut bytes)?)?;
        }
        task.payload = bytes;
        Ok(task)
    }
}

impl TaskOptions {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let timeout = self.timeout.map(|it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX));
        let values = [(RETRIES, self.retries.map(u64::from)), (TIMEOUT, timeout)];
        for (number, value) in values.into_iter().chain([(RETRY_OF, self.retry_of)]) {
            if let Some(value) = value {
                put_number(number, value, &mut out);
            }
        }
        out
    }

    fn decode(mut bytes: Bytes) -> Result<Self, TaskError> {
        let mut options = Self::default();
        while bytes.has_remaining() {
            let number = bytes.get_u8();
            let mut value = take_part(&mut bytes)?;
            match number {
                RETRIES => {
                    let retries = take_varint(&mut value)?;
                    options.retries = Some(retries.try_into().unwrap_or(u32::MAX));
                }
                TIMEOUT => {
                    options.timeout = Some(Duration::from_micros(take_varint(&mut value)?));
                }
                RETRY_OF => options.retry_of = Some(take_varint(&mut value)?),
                CRITICAL.. => return Err(TaskError::Option(number)),
                _ => {}
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(task: &StoredTask) -> Vec<u8> {
        let mut out = Vec::new();
        task.encode(&mut out);
        out
    }

    fn full() -> StoredTask {
        StoredTask {
            key: Some(Bytes::from_static(b"report-2026")),
            options: TaskOptions {
                retries: Some(300),
                timeout: Some(Duration::from_micros(1_500_001)),
                retry_of: Some(1 << 40),
            },
            payload: Bytes::from_static(b"pay"),
        }
    }

    #[test]
    fn a_task_reads_back_as_it_was_written() {
        let plain = StoredTask { payload: Bytes::from_static(b"x"), ..StoredTask::default() };
        assert_eq!(bytes(&plain), b"\0x");
        assert_eq!(bytes(&StoredTask::default()), b"\0");
        let keyed = StoredTask { options: TaskOptions::default(), ..full() };
        assert_eq!(bytes(&keyed), b"\x01\x0breport-2026pay");
        let wanted =
            b"\x03\x0breport-2026\x11\x01\x02\xac\x02\x02\x03\xe1\xc6\x5b\x03\x06\x80\x80\x80\x80\x80\x20pay";
        assert_eq!(bytes(&full()), wanted, "the format is documented");
        for task in [plain, StoredTask::default(), keyed, full()] {
            assert_eq!(StoredTask::decode(bytes(&task).into()), Ok(task));
        }
    }

    #[test]
    fn what_is_no_task_is_refused_and_what_is_cut_off_never_panics() {
        let decode = |bytes: &[u8]| StoredTask::decode(Bytes::copy_from_slice(bytes));
        assert_eq!(decode(b""), Err(TaskError::Short));
        assert_eq!(decode(b"\x04x"), Err(TaskError::Flags));
        assert_eq!(decode(b"\x01\x00x"), Err(TaskError::Key));
        assert_eq!(decode(b"\x01\x05abc"), Err(TaskError::Short));
        assert_eq!(decode(&[0xff; 20]), Err(TaskError::Flags));
        assert_eq!(
            decode(b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            Err(TaskError::Short)
        );
        assert_eq!(decode(b"\x02\x02\x80\x00x"), Err(TaskError::Option(128)));
        let passed_over = StoredTask { payload: Bytes::from_static(b"x"), ..StoredTask::default() };
        assert_eq!(decode(b"\x02\x03\x7f\x01zx"), Ok(passed_over));
        let whole = bytes(&full());
        for end in 0..whole.len() - 3 {
            assert!(decode(&whole[..end]).is_err(), "{end}");
        }
    }
}
