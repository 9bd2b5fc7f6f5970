//! Tasks in a stream. The payload is the message's body, the key is in its subject, and options are headers:
//!
//! | | |
//! | --- | --- |
//! | `STREAM.PARTITION.k.KEY` | a task with a key, as base64url without padding |
//! | `STREAM.PARTITION.u.ID` | one without: anything that no other task has |
//! | `Tradewind-Retries`, `Tradewind-Timeout-Us`, `Tradewind-Retry-Of` | numbers |
//!
//! The stream takes one message a subject and refuses the second, for as long as the first is there.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Stream;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use tradewind_engine::{EngineError, Epoch, SubmitId, TaskLog};
use tradewind_store::{KEY_BYTES_MAX, StoredTask, Submitted, TaskOptions};

use crate::connection::{Connection, Refusal};
use crate::leases::NatsLeases;

const RETRIES: &str = "Tradewind-Retries";
const TIMEOUT: &str = "Tradewind-Timeout-Us";
const RETRY_OF: &str = "Tradewind-Retry-Of";

/// Bytes that the headers of a task have at most.
const HEADERS_BYTES_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct NatsTasks {
    connection: Arc<Connection>,
    stream: Stream,
    /// Beginning of the subjects.
    prefix: String,
    partition: u32,
}

impl NatsTasks {
    pub(crate) fn open(connection: Arc<Connection>, partition: u32) -> Result<Self, EngineError> {
        let base = &connection.url.stream;
        let (name, prefix) = (format!("{base}-{partition}"), format!("{base}.{partition}"));
        let subjects = vec![format!("{prefix}.k.>"), format!("{prefix}.u.>")];
        let stream = connection.stream(&name, subjects)?;
        Ok(Self { connection, stream, prefix, partition })
    }

    fn check(&self, tasks: &[StoredTask]) -> Result<(), EngineError> {
        let max = self.connection.payload_max();
        for (place, task) in tasks.iter().enumerate() {
            let key = task.key.as_ref().map_or(1, Bytes::len);
            if !(1..=KEY_BYTES_MAX).contains(&key) {
                return Err(EngineError::Key { place });
            }
            let bytes = task.payload.len() + HEADERS_BYTES_MAX;
            if bytes > max {
                return Err(EngineError::TooLarge { place, bytes, max });
            }
        }
        Ok(())
    }

    fn known(&self, place: usize, subject: &str, task: &StoredTask) -> Result<u64, EngineError> {
        let Some(message) = self.connection.last(&self.stream, subject)? else {
            return Err(EngineError::Unsure("a task was removed meanwhile".into()));
        };
        let position = message.sequence - 1;
        let is_same = message.payload == task.payload
            && options_of(position, &message.headers)? == task.options;
        if is_same { Ok(position) } else { Err(EngineError::OtherTask { place, position }) }
    }
}

impl TaskLog for NatsTasks {
    fn submit(
        &mut self,
        id: SubmitId,
        tasks: &[StoredTask],
    ) -> Result<Vec<Submitted>, EngineError> {
        self.check(tasks)?;
        let subject = |place: usize, task: &StoredTask| match &task.key {
            Some(key) => format!("{}.k.{}", self.prefix, BASE64_URL_SAFE_NO_PAD.encode(key)),
            None => format!("{}.u.{:x}-{place}", self.prefix, id.0),
        };
        let subjects: Vec<_> =
            tasks.iter().enumerate().map(|(at, task)| subject(at, task)).collect();
        let message = |task: &StoredTask| {
            let message = PublishMessage::build().payload(task.payload.clone());
            message.headers(headers_of(&task.options))
        };
        let messages = subjects.iter().cloned().zip(tasks.iter().map(message)).collect();
        let mut answers = vec![None; tasks.len()];
        self.connection.publish(messages, |place, answer| {
            match answer {
                Ok(sequence) => answers[place] = Some(Submitted::New(sequence - 1)),
                // Looked up when all answers are there, so that these do not time out meanwhile.
                Err(Refusal::SubjectTaken) => {}
                Err(Refusal::Error(error)) => return Err(error),
                Err(Refusal::WrongSequence) => unreachable!("none was said"),
            }
            Ok(())
        })?;
        let answers = answers.into_iter().enumerate().map(|(place, answer)| match answer {
            Some(answer) => Ok(answer),
            None => self.known(place, &subjects[place], &tasks[place]).map(Submitted::Known),
        });
        answers.collect()
    }

    fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<(u64, StoredTask)>, EngineError> {
        let all = format!("{}.>", self.prefix);
        let read = self.connection.follow(&self.stream, &all, from + 1, bytes_max, wait)?;
        let tasks = read.into_iter().map(|message| {
            let position = message.sequence - 1;
            let amiss = |what: &str| EngineError::Amiss { position, what: what.into() };
            let key = match message.subject.strip_prefix(&format!("{}.k.", self.prefix)) {
                None => None,
                Some(key) => {
                    let key = BASE64_URL_SAFE_NO_PAD.decode(key);
                    Some(key.map_err(|_| amiss("its subject has no key in base64url"))?.into())
                }
            };
            let options = options_of(position, &message.headers)?;
            Ok((position, StoredTask { key, options, payload: message.payload }))
        });
        tasks.collect()
    }

    fn first(&mut self) -> Result<u64, EngineError> {
        Ok(self.connection.ends(&self.stream)?.0.saturating_sub(1))
    }

    fn end(&mut self) -> Result<u64, EngineError> {
        Ok(self.connection.ends(&self.stream)?.1)
    }

    /// Asks the lease for its epoch first. An owner that loses it between the two removes what it knew to be settled,
    /// which stays true.
    fn trim(&mut self, epoch: Epoch, low: u64, keys_low: u64) -> Result<(), EngineError> {
        let leases = NatsLeases::open(Arc::clone(&self.connection))?;
        leases.check(self.partition, epoch)?;
        let (keyed, keys_low) = (format!("{}.k.>", self.prefix), keys_low.min(low));
        let first = self.connection.next(&self.stream, &keyed, keys_low + 1)?;
        if first.is_none_or(|keyed| keyed.sequence > low) {
            return self.connection.purge_all(&self.stream, low + 1);
        }
        let subject = format!("{}.u.>", self.prefix);
        self.connection.purge(&self.stream, &subject, low + 1)?;
        self.connection.purge(&self.stream, &keyed, keys_low + 1)
    }
}

fn headers_of(options: &TaskOptions) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let timeout = options.timeout.map(|it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX));
    let numbers = [
        (RETRIES, options.retries.map(u64::from)),
        (TIMEOUT, timeout),
        (RETRY_OF, options.retry_of),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            headers.insert(name, number.to_string());
        }
    }
    headers
}

fn options_of(position: u64, headers: &HeaderMap) -> Result<TaskOptions, EngineError> {
    let number = |name: &str| {
        let value = headers.get(name).map(|value| value.as_str().parse::<u64>());
        let amiss = |_| EngineError::Amiss { position, what: format!("{name} is no number") };
        value.transpose().map_err(amiss)
    };
    Ok(TaskOptions {
        retries: number(RETRIES)?.map(|it| it.try_into().unwrap_or(u32::MAX)),
        timeout: number(TIMEOUT)?.map(Duration::from_micros),
        retry_of: number(RETRY_OF)?,
    })
}
