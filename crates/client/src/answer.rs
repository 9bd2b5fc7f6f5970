//! What answers say.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tradewind_proto::message::Status;
use tradewind_queue::{ConsumerName, Kept, QueueName, Settings, TaskId, WrittenSettings};

/// Answer to a submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Id of the task.
    pub id: TaskId,
    /// Its key.
    pub key: Option<String>,
}

/// State of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It waits.
    Queued,
    /// A worker has it.
    Running,
    /// It has its record.
    Record(Record),
}

/// Record of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position among the records of its queue, from 0.
    pub position: u64,
    /// Id of the task.
    pub id: TaskId,
    /// Status with which the task ended.
    pub status: Status,
    json: Bytes,
}

/// State of a queue.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueueState {
    /// Its name.
    pub name: QueueName,
    /// Its settings.
    pub settings: Settings,
    /// Whether none of its tasks is dispatched.
    pub is_paused: bool,
    /// Number of tasks that wait.
    pub queued: u64,
    /// Number of tasks that workers have.
    pub running: u64,
    /// Number of records that are kept.
    pub records: u64,
    /// Position of the last record; `None` before the first.
    pub position: Option<u64>,
    json: String,
}

impl TaskState {
    /// Returns the record, if there is one.
    #[must_use]
    pub fn into_record(self) -> Option<Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::Queued | Self::Running => None,
        }
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    id: &'a str,
    status: &'a str,
    position: Option<u64>,
}

#[derive(Deserialize)]
struct Output {
    output: Option<String>,
    output_base64: Option<String>,
}

impl Record {
    /// Returns the record as the server gave it: a JSON object on one line.
    #[must_use]
    pub fn json(&self) -> &str {
        std::str::from_utf8(&self.json).expect("JSON is UTF-8, and it was parsed")
    }

    /// Returns the output of the task; `None` if the record has none, or one that cannot be decoded.
    #[must_use]
    pub fn output(&self) -> Option<Vec<u8>> {
        match serde_json::from_slice(&self.json).ok()? {
            Output { output: Some(text), .. } => Some(text.into_bytes()),
            Output { output_base64: Some(base64), .. } => STANDARD.decode(base64).ok(),
            _ => None,
        }
    }
}

/// Parses a task's state.
pub(crate) fn state(json: &Bytes) -> Result<TaskState, String> {
    let Head { id, status, position } = parse(json)?;
    match (status, position) {
        ("queued", None) => Ok(TaskState::Queued),
        ("running", None) => Ok(TaskState::Running),
        (status, Some(position)) => {
            let known = Status::ALL.into_iter().find(|known| known.as_str() == status);
            let status = known.ok_or_else(|| format!("a record has the status {status:?}"))?;
            let id = id.parse().map_err(|error| format!("{error}: {id:?}"))?;
            Ok(TaskState::Record(Record { position, id, status, json: json.clone() }))
        }
        _ => Err(format!("a task has the status {status:?}, and no record")),
    }
}

/// Parses a record.
pub(crate) fn record(json: &Bytes) -> Result<Record, String> {
    state(json)?.into_record().ok_or_else(|| "a record has no position".to_owned())
}

#[derive(Deserialize)]
struct WrittenSubmitted {
    id: String,
    key: Option<String>,
}

/// Parses the answer to one task.
pub(crate) fn submitted(json: &[u8]) -> Result<Submitted, String> {
    let WrittenSubmitted { id, key } = parse(json)?;
    Ok(Submitted { id: id.parse().map_err(|error| format!("{error}: {id:?}"))?, key })
}

/// Parses the answers to tasks, a line each.
pub(crate) fn all_submitted(lines: &[u8], tasks: usize) -> Result<Vec<Submitted>, String> {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let all: Vec<_> = lines.map(submitted).collect::<Result<_, _>>()?;
    match all.len() == tasks {
        true => Ok(all),
        false => Err(format!("{tasks} tasks have {} ids", all.len())),
    }
}

#[derive(Deserialize)]
struct WrittenQueues<'a> {
    #[serde(borrow)]
    queues: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct WrittenQueue {
    name: String,
    paused: bool,
    queued: u64,
    running: u64,
    records: u64,
    position: Option<u64>,
    settings: WrittenSettings,
}

/// Parses a queue.
pub(crate) fn queue(json: &[u8]) -> Result<QueueState, String> {
    let written: WrittenQueue = parse(json)?;
    Ok(QueueState {
        name: written.name.parse().map_err(|error| format!("{error}: {:?}", written.name))?,
        settings: written.settings.parse().map_err(|error| error.to_string())?,
        is_paused: written.paused,
        queued: written.queued,
        running: written.running,
        records: written.records,
        position: written.position,
        json: String::from_utf8_lossy(json).into_owned(),
    })
}

/// Parses all queues.
pub(crate) fn queues(json: &[u8]) -> Result<Vec<QueueState>, String> {
    let WrittenQueues { queues } = parse(json)?;
    queues.into_iter().map(|json| queue(json.get().as_bytes())).collect()
}

impl QueueState {
    /// Returns the queue as the server gave it: a JSON object on one line.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }
}

#[derive(Deserialize)]
struct WrittenConsumer {
    #[expect(dead_code, reason = "without it, it is no consumer")]
    name: String,
    position: Option<u64>,
}

/// Parses the position of a consumer.
pub(crate) fn consumer(json: &[u8]) -> Result<Option<u64>, String> {
    parse(json).map(|WrittenConsumer { position, .. }| position)
}

/// Parses what is kept of the records of tasks.
pub(crate) fn kept(json: &[u8]) -> Result<Kept, String> {
    parse(json)
}

/// Returns the path of a consumer.
pub(crate) fn consumer_path(queue: &QueueName, consumer: &ConsumerName) -> String {
    format!("/v1/queues/{queue}/consumers/{consumer}")
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_its_position_status_and_output() {
        let text = r#"{"position":3,"id":"q-7","seq":7,"status":"timed_out","output":"a\n"}"#;
        let record = record(&text.into()).unwrap();
        assert_eq!((record.position, record.status), (3, Status::TimedOut));
        assert_eq!((record.id.to_string().as_str(), record.json()), ("q-7", text));
        assert_eq!(record.output().unwrap(), b"a\n");
        let of = |rest: &str| {
            let text = format!(r#"{{"position":0,"id":"q-0","status":"ok"{rest}}}"#);
            super::record(&text.into()).unwrap().output()
        };
        assert_eq!(of(r#","output_base64":"/w==""#), Some(vec![255]));
        assert_eq!(of(r#","output_base64":"/w""#), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn a_state_is_queued_running_or_a_record() {
        let of = |text: &str| state(&text.to_owned().into());
        assert_eq!(of(r#"{"id":"q-0","status":"queued"}"#), Ok(TaskState::Queued));
        assert_eq!(of(r#"{"id":"q-0","status":"running"}"#), Ok(TaskState::Running));
        for text in [
            "",
            "{}",
            r#"{"id":"q-0","status":"ok"}"#,
            r#"{"id":"q-0","status":"odd","position":1}"#,
            r#"{"id":"q","status":"ok","position":1}"#,
        ] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_task_has_one_answer() {
        let lines = b"{\"id\":\"a-1\",\"key\":null}\n{\"id\":\"a-2\",\"key\":\"k\"}\n";
        let all = all_submitted(lines, 2).unwrap();
        assert_eq!((all[1].id.seq, all[1].key.as_deref()), (2, Some("k")));
        assert!(all_submitted(lines, 1).is_err() && all_submitted(lines, 3).is_err());
    }
}
