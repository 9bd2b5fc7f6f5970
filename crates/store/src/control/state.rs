//! What was said about a queue, and the entries of its control log.
//!
//! | entry | after its kind, one byte |
//! | --- | --- |
//! | 1 | a snapshot: options |
//! | 2 | paused: 1 byte, 0 or 1 |
//! | 3 | cancelled tasks: first seq and number, varints |
//! | 4 | consumer: name; its position, a varint |
//! | 5 | consumer that is removed: name |
//! | 6 | setting: name; the rest is its value |
//! | 7 | setting that is removed: name |
//! | 8 | retries: first position and number of positions, varints |
//!
//! | option of a snapshot | |
//! | --- | --- |
//! | 1 | paused: varint |
//! | 2 | cancelled tasks: a set of seqs |
//! | 3 | consumer, one for each: name; varint |
//! | 4 | setting, one for each: name; the rest is its value |
//! | 5 | retries: two varints |
//!
//! A name is a part; it, varints, options and sets of seqs are those of `parts.rs`. A kind that is not known has
//! to be understood.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use thiserror::Error;
use tradewind_proto::limits::SEQS_MAX;
use tradewind_proto::{Seq, SeqRange, SeqSet};

use crate::parts::{
    CRITICAL, SetError, Short, put_number, put_part, put_set, put_varint, take_part, take_set,
    take_u8, take_varint,
};

/// Number of consumers of a queue.
pub const CONSUMERS_MAX: usize = 1024;

/// Bytes of the name of a consumer or a setting.
pub const NAME_BYTES_MAX: usize = 100;

/// Bytes of all settings of a queue, names and values.
pub const SETTINGS_BYTES_MAX: usize = 64 << 10;

/// Number of ranges of cancelled tasks that have no record yet.
pub const CANCELLED_RANGES_MAX: usize = 1 << 20;

/// What was said about a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlState {
    /// Whether no task is dispatched.
    pub paused: bool,
    /// Tasks that are not to run any more. Those whose records are stored are [forgotten](Self::settle).
    pub cancelled: SeqSet,
    /// Positions from which consumers read on.
    pub consumers: BTreeMap<Box<str>, u64>,
    /// Values of settings.
    pub settings: BTreeMap<Box<str>, Bytes>,
    /// Positions of the record log that are yet to be looked at for records of failed tasks, which are to be
    /// retried.
    pub retries: Range<u64>,
    /// Number of ranges of cancelled tasks at most.
    cancelled_ranges: usize,
}

/// Change of what was said about a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is paused, or goes on.
    Pause(bool),
    /// These tasks are not to run any more.
    Cancel(SeqRange),
    /// A consumer reads on from a position; `None`: it is removed.
    Consumer(Box<str>, Option<u64>),
    /// A setting has a value; `None`: it has none.
    Setting(Box<str>, Option<Bytes>),
    /// Records at these positions are yet to be looked at for what is to be retried.
    Retries(Range<u64>),
}

/// What a change is taken back with.
#[derive(Debug)]
pub(super) enum Undo {
    Change(Change),
    /// These tasks were not cancelled before.
    Cancelled(Vec<SeqRange>),
}

/// Reason why a change is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum ChangeError {
    #[error("a name has 1 to {NAME_BYTES_MAX} bytes")]
    Name,
    #[error("a queue has at most {CONSUMERS_MAX} consumers")]
    ConsumersFull,
    #[error("a queue's settings have at most {SETTINGS_BYTES_MAX} bytes")]
    SettingsFull,
    #[error("at most {CANCELLED_RANGES_MAX} ranges of tasks are cancelled and have no record")]
    CancelledFull,
    #[error("it ends too soon")]
    Short,
    #[error("it is of a kind that this program does not know, {0}")]
    Kind(u8),
    #[error("it has a number that cannot be")]
    Number,
    #[error("option {0} is not understood by this program")]
    Option(u8),
}

impl From<Short> for ChangeError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl From<SetError> for ChangeError {
    fn from(error: SetError) -> Self {
        match error {
            SetError::Short => Self::Short,
            SetError::Seq => Self::Number,
        }
    }
}

/// Entry of a control log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Snapshot(ControlState),
    Change(Change),
}

const SNAPSHOT: u8 = 1;
const PAUSE: u8 = 2;
const CANCEL: u8 = 3;
const CONSUMER: u8 = 4;
const NO_CONSUMER: u8 = 5;
const SETTING: u8 = 6;
const NO_SETTING: u8 = 7;
const RETRIES: u8 = 8;

const PAUSED_OPTION: u8 = 1;
const CANCELLED_OPTION: u8 = 2;
const CONSUMER_OPTION: u8 = 3;
const SETTING_OPTION: u8 = 4;
const RETRIES_OPTION: u8 = 5;

impl ControlState {
    /// Returns whether a change would change anything.
    #[must_use]
    pub fn is_news(&self, change: &Change) -> bool {
        match change {
            Change::Pause(paused) => *paused != self.paused,
            Change::Cancel(tasks) => !self.cancelled.gaps(*tasks).is_empty(),
            Change::Consumer(name, position) => self.consumers.get(name) != position.as_ref(),
            Change::Setting(name, value) => self.settings.get(name) != value.as_ref(),
            Change::Retries(positions) => *positions != self.retries,
        }
    }

    /// Returns the position that every consumer has read up to; `None` if there is no consumer.
    #[must_use]
    pub fn consumed(&self) -> Option<u64> {
        self.consumers.values().copied().min()
    }

    /// Forgets cancelled tasks whose records are stored. That is not written: it can be known again.
    pub fn settle(&mut self, stored: &SeqSet) {
        for range in stored.parts_of(&self.cancelled.to_ranges()) {
            self.cancelled.remove_range(range);
        }
        self.cancelled_ranges = self.cancelled.to_ranges().as_slice().len();
    }

    /// Makes a change.
    pub(super) fn apply(&mut self, change: Change) -> Result<Undo, ChangeError> {
        let undo = match change {
            Change::Pause(paused) => Change::Pause(std::mem::replace(&mut self.paused, paused)),
            Change::Cancel(tasks) => {
                if tasks.end.0 > SEQS_MAX || tasks.start >= tasks.end {
                    return Err(ChangeError::Number);
                }
                if self.cancelled_ranges >= CANCELLED_RANGES_MAX {
                    self.cancelled_ranges = self.cancelled.to_ranges().as_slice().len();
                }
                if self.cancelled_ranges >= CANCELLED_RANGES_MAX {
                    return Err(ChangeError::CancelledFull);
                }
                let gaps = self.cancelled.gaps(tasks);
                self.cancelled.insert_range(tasks);
                self.cancelled_ranges += 1;
                return Ok(Undo::Cancelled(gaps));
            }
            Change::Consumer(name, Some(position)) => {
                check_name(&name)?;
                if self.consumers.len() >= CONSUMERS_MAX && !self.consumers.contains_key(&name) {
                    return Err(ChangeError::ConsumersFull);
                }
                let before = self.consumers.insert(name.clone(), position);
                Change::Consumer(name, before)
            }
            Change::Consumer(name, None) => {
                let before = self.consumers.remove(&name);
                Change::Consumer(name, before)
            }
            Change::Setting(name, Some(value)) => {
                check_name(&name)?;
                let others = self.settings.iter().filter(|(other, _)| **other != name);
                let others: usize = others.map(|(name, value)| name.len() + value.len()).sum();
                if others + name.len() + value.len() > SETTINGS_BYTES_MAX {
                    return Err(ChangeError::SettingsFull);
                }
                let before = self.settings.insert(name.clone(), value);
                Change::Setting(name, before)
            }
            Change::Setting(name, None) => {
                let before = self.settings.remove(&name);
                Change::Setting(name, before)
            }
            Change::Retries(positions) => {
                if positions.start > positions.end {
                    return Err(ChangeError::Number);
                }
                Change::Retries(std::mem::replace(&mut self.retries, positions))
            }
        };
        Ok(Undo::Change(undo))
    }

    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Change(change) => {
                self.apply(change).expect("it was so before");
            }
            Undo::Cancelled(tasks) => {
                tasks.into_iter().for_each(|range| self.cancelled.remove_range(range));
            }
        }
    }

    /// Appends a snapshot.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let Self { paused, cancelled, consumers, settings, retries, cancelled_ranges: _ } = self;
        out.push(SNAPSHOT);
        put_number(PAUSED_OPTION, u64::from(*paused), out);
        let mut part = Vec::new();
        let mut put = |option: u8, write: &dyn Fn(&mut Vec<u8>)| {
            part.clear();
            write(&mut part);
            out.push(option);
            put_part(&part, out);
        };
        put(CANCELLED_OPTION, &|part| put_set(cancelled, part));
        for (name, position) in consumers {
            put(CONSUMER_OPTION, &|part| {
                put_part(name.as_bytes(), part);
                put_varint(*position, part);
            });
        }
        for (name, value) in settings {
            put(SETTING_OPTION, &|part| {
                put_part(name.as_bytes(), part);
                part.extend_from_slice(value);
            });
        }
        put(RETRIES_OPTION, &|part| put_range(retries, part));
    }

    fn decode(mut bytes: Bytes) -> Result<Self, ChangeError> {
        let mut state = Self::default();
        while !bytes.is_empty() {
            let option = take_u8(&mut bytes)?;
            let mut part = take_part(&mut bytes)?;
            match option {
                PAUSED_OPTION => state.paused = take_varint(&mut part)? != 0,
                CANCELLED_OPTION => {
                    state.cancelled = take_set(part)?;
                    state.cancelled_ranges = state.cancelled.to_ranges().as_slice().len();
                }
                CONSUMER_OPTION => {
                    let name = take_name(&mut part)?;
                    state.apply(Change::Consumer(name, Some(take_varint(&mut part)?)))?;
                }
                SETTING_OPTION => {
                    let name = take_name(&mut part)?;
                    state.apply(Change::Setting(name, Some(part)))?;
                }
                RETRIES_OPTION => state.retries = take_range(&mut part)?,
                CRITICAL.. => return Err(ChangeError::Option(option)),
                _ => {}
            }
        }
        Ok(state)
    }
}

impl Change {
    /// Appends the change's entry.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Pause(paused) => out.extend([PAUSE, u8::from(*paused)]),
            Self::Cancel(SeqRange { start, end }) => {
                out.push(CANCEL);
                put_range(&(start.0..end.0), out);
            }
            Self::Consumer(name, position) => {
                out.push(if position.is_some() { CONSUMER } else { NO_CONSUMER });
                put_part(name.as_bytes(), out);
                position.iter().for_each(|position| put_varint(*position, out));
            }
            Self::Setting(name, value) => {
                out.push(if value.is_some() { SETTING } else { NO_SETTING });
                put_part(name.as_bytes(), out);
                value.iter().for_each(|value| out.extend_from_slice(value));
            }
            Self::Retries(positions) => {
                out.push(RETRIES);
                put_range(positions, out);
            }
        }
    }
}

impl Entry {
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, ChangeError> {
        let change = match take_u8(&mut bytes)? {
            SNAPSHOT => return ControlState::decode(bytes).map(Self::Snapshot),
            PAUSE => Change::Pause(take_u8(&mut bytes)? != 0),
            CANCEL => {
                let Range { start, end } = take_range(&mut bytes)?;
                Change::Cancel(SeqRange { start: Seq(start), end: Seq(end) })
            }
            CONSUMER => {
                let name = take_name(&mut bytes)?;
                Change::Consumer(name, Some(take_varint(&mut bytes)?))
            }
            NO_CONSUMER => Change::Consumer(take_name(&mut bytes)?, None),
            SETTING => Change::Setting(take_name(&mut bytes)?, Some(bytes)),
            NO_SETTING => Change::Setting(take_name(&mut bytes)?, None),
            RETRIES => Change::Retries(take_range(&mut bytes)?),
            kind => return Err(ChangeError::Kind(kind)),
        };
        Ok(Self::Change(change))
    }
}

fn check_name(name: &str) -> Result<(), ChangeError> {
    let is_right = (1..=NAME_BYTES_MAX).contains(&name.len());
    is_right.then_some(()).ok_or(ChangeError::Name)
}

fn take_name(bytes: &mut Bytes) -> Result<Box<str>, ChangeError> {
    let name = take_part(bytes)?;
    let name = str::from_utf8(&name).map_err(|_| ChangeError::Name)?;
    check_name(name)?;
    Ok(name.into())
}

fn put_range(range: &Range<u64>, out: &mut Vec<u8>) {
    put_varint(range.start, out);
    put_varint(range.end - range.start, out);
}

fn take_range(bytes: &mut Bytes) -> Result<Range<u64>, ChangeError> {
    let start = take_varint(bytes)?;
    let end = start.checked_add(take_varint(bytes)?);
    Ok(start..end.ok_or(ChangeError::Number)?)
}
