//! Reasons why a log cannot be read or written.

use std::io;

use thiserror::Error;

/// Reason why a log cannot be read or written.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum LogError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("segment {segment} is damaged at byte {at}: {what}")]
    Damaged { segment: u64, at: u64, what: &'static str },
    #[error("segment {segment} is of version {version}, and this program reads version {ours}")]
    Version { segment: u64, version: u16, ours: u16 },
    #[error("segment {segment} is of another log")]
    Foreign { segment: u64 },
    #[error("an entry of {bytes} bytes is larger than a batch may be, {max} bytes")]
    TooLarge { bytes: usize, max: usize },
}
