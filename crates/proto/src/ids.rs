//! Ids as newtypes, so that the compiler tells a seq from an attempt.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub $inner);
    };
}

id! {
    /// A task's place in its job: from 0, without gaps.
    Seq(u64)
}

id! {
    /// Which run of a task this is: from 1.
    Attempt(u32)
}

id! {
    /// A job. Random, so that two jobs that meet at one sink are told apart.
    JobId(u64)
}

id! {
    /// One start of one process. Random: a process that restarts is a new session.
    SessionId(u64)
}

id! {
    /// One accepted connection at a ventilator's tasks port: counted from 0 by that ventilator.
    LaneId(u64)
}

id! {
    /// One roll call or recall of one worker: counted by the ventilator or the relay that calls, from a random number
    /// on, so that answers to a call of its last start are not taken for those to one of this.
    CallId(u64)
}

id! {
    /// One of a worker's places to run a task: from 0.
    Slot(u32)
}

id! {
    /// The CRC-32 of a task's payload: tells whether two runs of a job read the same input.
    TaskHash(u32)
}

impl TaskHash {
    /// The hash of this payload.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        Self(crc32fast::hash(payload))
    }
}

impl Seq {
    /// The seq after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Attempt {
    /// A task's first run.
    pub const FIRST: Self = Self(1);

    /// The attempt after this one.
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
