//! Ids as newtypes, so that the compiler tells a seq from an attempt.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::SEQS_MAX;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub $inner);
    };
}

/// Number of a task in its job: from 0, without gaps. One of a message is below [`SEQS_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Seq(pub u64);

impl<'de> Deserialize<'de> for Seq {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            seq if seq < SEQS_MAX => Ok(Self(seq)),
            _ => Err(D::Error::custom("a seq is beyond the last one")),
        }
    }
}

id! {
    /// Number of an attempt of a task: from 1.
    Attempt(u32)
}

id! {
    /// Id of a job. Random, so that two jobs that meet at one sink are told apart.
    JobId(u64)
}

id! {
    /// Id of one run of one process. Random: a process that restarts is a new session.
    SessionId(u64)
}

id! {
    /// Number of an accepted connection at a ventilator's tasks port: counted from 0 by that
    /// ventilator.
    LaneId(u64)
}

id! {
    /// Number of a roll call or recall: counted by the ventilator or relay that calls, from a random
    /// start, so that the answer to a call of its last session is not taken for one to this.
    CallId(u64)
}

id! {
    /// Number of a worker's slot: from 0.
    Slot(u32)
}

id! {
    /// CRC-32 of a task's payload, and of its place where the input has places. Shows whether two runs of a job read
    /// the same input.
    TaskHash(u32)
}

impl TaskHash {
    /// Returns the hash of a payload.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        Self(crc32fast::hash(payload))
    }

    /// Returns the hash of a payload at a position of a partition: another one for the same payload elsewhere.
    #[must_use]
    pub fn at(partition: u32, position: u64, payload: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&partition.to_le_bytes());
        hasher.update(&position.to_le_bytes());
        hasher.update(payload);
        Self(hasher.finalize())
    }
}

impl Seq {
    /// Returns the next seq.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Attempt {
    /// The first attempt of a task.
    pub const FIRST: Self = Self(1);

    /// Returns the next attempt.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
