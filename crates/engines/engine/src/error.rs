//! Why an engine has not done what it was asked for, and what to do about it.

use thiserror::Error;

use crate::Epoch;

/// Reason why an engine has not done what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EngineError {
    /// It cannot be reached, is starting, or is slow. Nothing was done; the call is to be made again.
    #[error("the engine is away: {0}")]
    Away(String),
    /// It has not answered. The call may have been carried out, all of it or in part, and is to be made again.
    #[error("the engine has not answered: {0}")]
    Unsure(String),
    /// Another has the partition. Nothing was written; who gets this has to stop.
    #[error(
        "the lease of epoch {} has gone: {}", .epoch.0,
        .by.map_or_else(|| "it was released".into(), |by| format!("another has taken it, with epoch {}", by.0))
    )]
    Fenced {
        /// Epoch of the call.
        epoch: Epoch,
        /// Epoch that is higher, if there is one.
        by: Option<Epoch>,
    },
    /// Settings or credentials that a person has to change.
    #[error("{0}")]
    Refused(String),
    /// There is no room. The call may be made again when there is.
    #[error("there is no room: {0}")]
    Full(String),
    /// A key stands for another task.
    #[error("task {place} of the request: task {position} has the same key, and is another one")]
    OtherTask {
        /// Place of the task in the call.
        place: usize,
        /// Position of the task that has the key.
        position: u64,
    },
    /// A key that is none.
    #[error("task {place} of the request: a key has 1 to {} bytes", tradewind_store::KEY_BYTES_MAX)]
    Key {
        /// Place of the task in the call.
        place: usize,
    },
    /// A task, a record or a checkpoint is larger than the engine takes. Nothing of the call was done.
    #[error("entry {place} has {bytes} bytes, and the engine takes {max} at most")]
    TooLarge {
        /// Place of the task or the record in the call.
        place: usize,
        /// Its bytes, with what is written beside it.
        bytes: usize,
        /// Bytes that the engine takes.
        max: usize,
    },
    /// What is there cannot be read.
    #[error("entry {position} cannot be read: {what}")]
    Amiss {
        /// Position of it.
        position: u64,
        /// What is the matter with it.
        what: String,
    },
}

impl EngineError {
    /// Returns whether the same call is to be made again.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Unsure(_) | Self::Full(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_one_line_for_people() {
        let cases = [
            (EngineError::Away("refused".into()), "the engine is away: refused"),
            (
                EngineError::Fenced { epoch: Epoch(3), by: Some(Epoch(4)) },
                "the lease of epoch 3 has gone: another has taken it, with epoch 4",
            ),
            (
                EngineError::Fenced { epoch: Epoch(3), by: None },
                "the lease of epoch 3 has gone: it was released",
            ),
            (EngineError::Key { place: 1 }, "task 1 of the request: a key has 1 to 512 bytes"),
        ];
        for (error, wanted) in cases {
            assert_eq!(error.to_string(), wanted);
        }
    }
}
