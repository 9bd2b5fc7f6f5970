//! Compact form of tasks and results on the wire: fields that nearly all of them share are a bit.
//!
//! A job of a million tasks writes and reads a million of each, several times. Each begins with a
//! byte that says which of its fields follow. Tags, and the hashes of tasks, travel
//! [beside](super::beside) them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::Text;
use super::{Exit, Outcome, Reported, Status, Task, TaskResult};
use crate::{Attempt, Rare, Tag, TaskHash};

/// This attempt is the last.
const LAST: u8 = 1 << 0;
/// The attempt follows: it is not the first.
const ATTEMPT: u8 = 1 << 1;
/// The process exited with 0.
const EXITED: u8 = 1 << 2;
/// The outcome follows: neither of the two ways to be ok.
const ENDED: u8 = 1 << 3;
/// The data that the sink asks for follows.
const REPORTED: u8 = 1 << 4;
/// The end of stderr follows.
const STDERR: u8 = 1 << 6;

/// More fields than any of them has: a tuple's length does not travel.
const FIELDS_MAX: usize = 16;

impl<P: Serialize> Serialize for Task<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { seq, attempt, last, tag: _, hash: _, payload } = self;
        let head = head(*last, *attempt);
        let mut fields = serializer.serialize_tuple(FIELDS_MAX)?;
        fields.serialize_element(&head)?;
        fields.serialize_element(seq)?;
        if *attempt != Attempt::FIRST {
            fields.serialize_element(attempt)?;
        }
        fields.serialize_element(payload)?;
        fields.end()
    }
}

impl<P: Serialize + AsRef<[u8]>> Serialize for TaskResult<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Outcome { status, exit, output, stderr, error } = &self.outcome;
        let mut head = head(self.last, self.attempt);
        match (status, exit, error.is_empty()) {
            (Status::Ok, Exit::None, true) => {}
            (Status::Ok, Exit::Code(0), true) => head |= EXITED,
            _ => head |= ENDED,
        }
        if self.reported.is_some() {
            head |= REPORTED;
        }
        if stderr.get().is_some() {
            head |= STDERR;
        }
        let mut fields = serializer.serialize_tuple(FIELDS_MAX)?;
        fields.serialize_element(&head)?;
        fields.serialize_element(&self.seq)?;
        if self.attempt != Attempt::FIRST {
            fields.serialize_element(&self.attempt)?;
        }
        fields.serialize_element(&self.started_us)?;
        fields.serialize_element(&self.ran_us)?;
        fields.serialize_element(&self.task_bytes)?;
        fields.serialize_element(&self.task_hash)?;
        fields.serialize_element(output)?;
        if head & ENDED != 0 {
            fields.serialize_element(&(status, exit, error))?;
        }
        if let Some(stderr) = stderr.get() {
            fields.serialize_element(stderr)?;
        }
        if let Some(reported) = &self.reported {
            fields.serialize_element(&(&reported.command, &reported.task))?;
        }
        fields.end()
    }
}

fn head(last: bool, attempt: Attempt) -> u8 {
    let mut head = 0;
    if last {
        head |= LAST;
    }
    if attempt != Attempt::FIRST {
        head |= ATTEMPT;
    }
    head
}

impl<'de, P: Deserialize<'de>> Deserialize<'de> for Task<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(FIELDS_MAX, Fields::<Self>(PhantomData))
    }
}

impl<'de, P: Deserialize<'de> + Default> Deserialize<'de> for TaskResult<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(FIELDS_MAX, Fields::<Self>(PhantomData))
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, P: Deserialize<'de>> Visitor<'de> for Fields<Task<P>> {
    type Value = Task<P>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a task")
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let head = next_head(&mut fields, LAST | ATTEMPT)?;
        Ok(Task {
            seq: next(&mut fields)?,
            attempt: next_attempt(&mut fields, head)?,
            last: head & LAST != 0,
            tag: Tag::default(),
            hash: TaskHash::default(),
            payload: next(&mut fields)?,
        })
    }
}

impl<'de, P: Deserialize<'de> + Default> Visitor<'de> for Fields<TaskResult<P>> {
    type Value = TaskResult<P>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a result")
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let head = next_head(&mut fields, LAST | ATTEMPT | EXITED | ENDED | STDERR | REPORTED)?;
        let mut result = TaskResult {
            seq: next(&mut fields)?,
            attempt: next_attempt(&mut fields, head)?,
            last: head & LAST != 0,
            tag: Tag::default(),
            started_us: next(&mut fields)?,
            ran_us: next(&mut fields)?,
            task_bytes: next(&mut fields)?,
            task_hash: next(&mut fields)?,
            outcome: Outcome::ok(next(&mut fields)?),
            reported: None,
        };
        if head & EXITED != 0 {
            result.outcome.exit = Exit::Code(0);
        }
        if head & ENDED != 0 {
            let outcome = &mut result.outcome;
            (outcome.status, outcome.exit, Text(outcome.error)) = next(&mut fields)?;
        }
        if head & STDERR != 0 {
            result.outcome.stderr = Rare::some(next(&mut fields)?);
        }
        if head & REPORTED != 0 {
            let (command, task) = next(&mut fields)?;
            result.reported = Some(Box::new(Reported { command, task }));
        }
        Ok(result)
    }
}

#[inline]
fn next_head<'de, A: SeqAccess<'de>>(fields: &mut A, known: u8) -> Result<u8, A::Error> {
    let head: u8 = next(fields)?;
    if head & !known != 0 {
        return Err(A::Error::custom("unknown trailing fields"));
    }
    Ok(head)
}

#[inline]
fn next_attempt<'de, A: SeqAccess<'de>>(fields: &mut A, head: u8) -> Result<Attempt, A::Error> {
    if head & ATTEMPT != 0 { next(fields) } else { Ok(Attempt::FIRST) }
}

#[inline]
fn next<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(fields: &mut A) -> Result<T, A::Error> {
    fields.next_element()?.ok_or_else(|| A::Error::custom("a field is missing"))
}
