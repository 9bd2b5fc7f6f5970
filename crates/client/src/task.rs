//! Tasks as they are submitted.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use tradewind_queue::{NameError, TaskKey};

/// A task to submit.
///
/// ```
/// use std::time::Duration;
/// use tradewind_client::NewTask;
///
/// let task = NewTask::new("https://example.net/1.jpg")
///     .key("1.jpg")?
///     .retries(3)
///     .timeout(Duration::from_secs(30));
/// # Ok::<_, tradewind_client::NameError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTask {
    payload: Bytes,
    key: Option<TaskKey>,
    retries: Option<u32>,
    timeout: Option<Duration>,
}

impl NewTask {
    /// Creates a task of these bytes.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), ..Self::default() }
    }

    /// Names the task: submitted again under the same key it is the same task, with the same id, as long as the
    /// queue remembers the key.
    ///
    /// # Errors
    ///
    /// When the key is empty or longer than 512 bytes.
    pub fn key(self, key: impl Into<String>) -> Result<Self, NameError> {
        Ok(Self { key: Some(TaskKey::try_from(key.into())?), ..self })
    }

    /// Sets the number of attempts after the first, instead of the queue's.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        Self { retries: Some(retries), ..self }
    }

    /// Sets the time that an attempt may take, instead of the queue's. Zero is none.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout).filter(|timeout| !timeout.is_zero()), ..self }
    }
}

impl<B: Into<Bytes>> From<B> for NewTask {
    fn from(payload: B) -> Self {
        Self::new(payload)
    }
}

/// Tasks of one request: all of them are taken, or none.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    lines: Vec<u8>,
    tasks: usize,
    unkeyed: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
}

impl Batch {
    /// Creates a batch without a task.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task after the others.
    pub fn push(&mut self, task: &NewTask) {
        let NewTask { payload, key, retries, timeout } = task;
        let text = text(payload);
        let line = Line {
            task: text,
            task_base64: text.is_none().then(|| STANDARD.encode(payload)),
            key: key.as_ref().map(TaskKey::as_str),
            retries: *retries,
            timeout: timeout.map(written_time),
        };
        serde_json::to_writer(&mut self.lines, &line)
            .expect("writing to memory does not fail, and all keys are strings");
        self.lines.push(b'\n');
        self.tasks += 1;
        self.unkeyed += usize::from(key.is_none());
    }

    /// Returns the number of tasks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks
    }

    /// Returns whether there are no tasks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks == 0
    }

    /// Returns the bytes of the request.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lines.len()
    }

    /// Returns whether to submit them again is to submit them once.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        self.unkeyed == 0
    }

    pub(crate) fn into_lines(self) -> Bytes {
        self.lines.into()
    }
}

impl FromIterator<NewTask> for Batch {
    fn from_iter<I: IntoIterator<Item = NewTask>>(tasks: I) -> Self {
        let mut batch = Self::new();
        batch.extend(tasks);
        batch
    }
}

impl Extend<NewTask> for Batch {
    fn extend<I: IntoIterator<Item = NewTask>>(&mut self, tasks: I) {
        tasks.into_iter().for_each(|task| self.push(&task));
    }
}

/// Returns a time as queues take it: it is never 0.
fn written_time(time: Duration) -> String {
    let ms = time.as_millis();
    if ms > 0 { format!("{ms}ms") } else { format!("{}ns", time.as_nanos()) }
}

/// Returns a task as text, if that is not longer than base64.
fn text(payload: &[u8]) -> Option<&str> {
    let escaped = payload.iter().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    });
    let is_short = escaped.sum::<usize>() <= payload.len() / 3 * 4 + 4;
    std::str::from_utf8(payload).ok().filter(|_| is_short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_line_a_task() {
        let full = NewTask::new("a\"ü\n").key("k\n").unwrap().retries(2);
        let full = full.timeout(Duration::from_micros(1_500_900));
        let batch: Batch =
            [full, NewTask::new(&b"\xff"[..]), NewTask::from("")].into_iter().collect();
        assert_eq!((batch.len(), batch.is_repeatable()), (3, false));
        let wanted = concat!(
            r#"{"task":"a\"ü\n","key":"k\n","retries":2,"timeout":"1500ms"}"#,
            "\n",
            r#"{"task_base64":"/w=="}"#,
            "\n{\"task\":\"\"}\n"
        );
        assert_eq!(String::from_utf8(batch.into_lines().to_vec()).unwrap(), wanted);
        let keyed: Batch = [NewTask::new("a").key("k").unwrap()].into_iter().collect();
        assert!(keyed.is_repeatable());
    }

    #[test]
    fn what_would_be_escaped_throughout_is_base64() {
        assert_eq!(text(&[1; 999]), None);
        assert_eq!(text("\n".repeat(999).as_bytes()), None);
        assert!(text("some \"words\"\n".repeat(99).as_bytes()).is_some());
        assert_eq!(written_time(Duration::from_nanos(7)), "7ns");
    }
}
