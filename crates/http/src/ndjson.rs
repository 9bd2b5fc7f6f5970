//! Tasks as lines of JSON, and the lines that answer them.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use crate::problem::{Kind, Problem};
use crate::queues::{NewTask, Submitted};
use tradewind_queue::TaskKey;
use tradewind_queue::{excerpt, time, whole};

/// Media type of lines of JSON.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// A task as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    task: Option<Text<'a>>,
    task_base64: Option<String>,
    key: Option<String>,
    #[serde(default, deserialize_with = "whole")]
    retries: Option<u32>,
    timeout: Option<String>,
}

/// Text that is part of the line, unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Parses tasks, one a line, which are parts of the body where they stand there as they are; empty lines are passed over.
///
/// # Errors
///
/// When a line is no task, or there are too many or too large ones.
pub(crate) fn parse(
    body: &Bytes,
    tasks_max: usize,
    task_bytes_max: usize,
) -> Result<Vec<NewTask>, Problem> {
    let mut tasks = Vec::new();
    for (at, line) in body.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if tasks.len() == tasks_max {
            let detail = format!("a request has at most {tasks_max} tasks");
            return Err(Problem::new(Kind::TooLarge, detail));
        }
        let at = at + 1;
        let task = task(body, at, line)?;
        check_size(task.payload.len(), task_bytes_max)?;
        tasks.push(task);
    }
    match tasks.is_empty() {
        true => Err(Problem::bad_request("the body has no task")),
        false => Ok(tasks),
    }
}

/// Returns a problem if a task is too large.
pub(crate) fn check_size(bytes: usize, max: usize) -> Result<(), Problem> {
    match bytes <= max {
        true => Ok(()),
        false => {
            let detail = format!("a task has {bytes} bytes, and may have {max}");
            Err(Problem::new(Kind::TooLarge, detail))
        }
    }
}

fn task(body: &Bytes, at: usize, line: &[u8]) -> Result<NewTask, Problem> {
    let line: Line<'_> = json(line)
        .map_err(|(kind, why)| Problem::new(kind, format!("line {at} is no task: {why}")))?;
    let bad = |why: &str| Problem::new(Kind::BadValue, format!("line {at} is no task: {why}"));
    let payload = match (line.task, line.task_base64) {
        (Some(Text(Cow::Borrowed(task))), None) => body.slice_ref(task.as_bytes()),
        (Some(Text(Cow::Owned(task))), None) => task.into(),
        (None, Some(base64)) => {
            STANDARD.decode(base64).map_err(|_| bad("task_base64 is not base64"))?.into()
        }
        (None, None) => return Err(bad("it has neither task nor task_base64")),
        (Some(_), Some(_)) => return Err(bad("it has both task and task_base64")),
    };
    let key = line.key.map(TaskKey::try_from).transpose();
    let timeout = line.timeout.map(|text| time("timeout", &text)).transpose();
    Ok(NewTask {
        payload,
        key: key.map_err(|error| bad(&error.to_string()))?,
        retries: line.retries,
        timeout: timeout.map_err(|error| bad(&error.to_string()))?,
    })
}

/// Parses a JSON object. One that is malformed, and one that says something which cannot be, are different
/// kinds of problems.
pub(crate) fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, (Kind, String)> {
    // A list would be taken for the values of an object, in the order of its fields here.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err((Kind::BadRequest, "it is no JSON object".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let kind = match error.classify() {
            Category::Data => Kind::BadValue,
            Category::Syntax | Category::Eof | Category::Io => Kind::BadRequest,
        };
        (kind, excerpt(&error.to_string()))
    })
}

#[derive(Serialize)]
pub(crate) struct Answer<'a> {
    pub(crate) id: String,
    pub(crate) key: Option<&'a str>,
}

impl<'a> From<&'a Submitted> for Answer<'a> {
    fn from(submitted: &'a Submitted) -> Self {
        let key = submitted.key.as_ref().map(TaskKey::as_str);
        Self { id: submitted.id.to_string(), key }
    }
}

/// Returns a line for each answer.
pub(crate) fn answers(submitted: &[Submitted]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(submitted.len() * 32);
    for submitted in submitted {
        // Of what an id is made nothing needs to be escaped.
        let written = match &submitted.key {
            None => writeln!(lines, "{{\"id\":\"{}\",\"key\":null}}", submitted.id),
            Some(_) => serde_json::to_writer(&mut lines, &Answer::from(submitted))
                .map_err(io::Error::from)
                .and_then(|()| lines.write_all(b"\n")),
        };
        written.expect("writing to memory does not fail, and all keys are strings");
    }
    lines
}

/// Parses the options of a task from a query.
pub(crate) fn retries(number: u64) -> Result<u32, Problem> {
    let parsed = u32::try_from(number);
    parsed.map_err(|_| Problem::new(Kind::BadValue, "retries is below 2^32"))
}

/// Time that an attempt may take, from a query: as in a line, it is not 0.
pub(crate) fn timeout(text: &str) -> Result<Duration, Problem> {
    Ok(time("timeout", text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_tasks_with_their_options() {
        let body = concat!(
            r#"{"task": "one\n\u00fc", "key": "k", "retries": 2, "timeout": "10m"}"#,
            "\r\n\n  \n",
            r#"{"task_base64": "AP8K"}"#
        );
        let tasks = parse(&body.into(), 2, 10).unwrap();
        let key = Some("k".to_owned().try_into().unwrap());
        let first = NewTask {
            payload: "one\nü".into(),
            key,
            retries: Some(2),
            timeout: Some(Duration::from_secs(600)),
        };
        assert_eq!(
            tasks,
            [first, NewTask { payload: b"\0\xff\n"[..].into(), ..NewTask::default() }]
        );
    }

    #[test]
    fn a_task_without_escapes_is_not_copied() {
        let body = Bytes::from_static(br#"{"task": "as it is"}"#);
        let [task] = &parse(&body, 1, 10).unwrap()[..] else { panic!("one task") };
        assert_eq!(body.slice_ref(&task.payload), "as it is");
    }

    #[test]
    fn a_line_that_is_no_task_is_refused_with_its_number() {
        let cases: [(&[u8], u16, &str); 17] = [
            (b"x", 400, "line 2 is no task: it is no JSON object"),
            (b"[\"a\"]", 400, "line 2 is no task: it is no JSON object"),
            (b"\"a\"", 400, "line 2 is no task: it is no JSON object"),
            (b"{\"task\":\"a\"", 400, "line 2 is no task: EOF"),
            (b"{\"task\":\"a\"} {}", 400, "line 2 is no task: trailing"),
            (b"{\"task\":\"\xff\"}", 400, "line 2 is no task: invalid unicode"),
            (b"{\"task\":\"\\ud800\"}", 400, "line 2 is no task: "),
            (b"{}", 422, "neither task nor task_base64"),
            (b"{\"task\":null}", 422, "neither task nor task_base64"),
            (b"{\"task\":1}", 422, "invalid type"),
            (b"{\"task\":\"\",\"task_base64\":\"\"}", 422, "both task and task_base64"),
            (b"{\"task_base64\":\"A\"}", 422, "task_base64 is not base64"),
            (b"{\"task\":\"\",\"kay\":\"\"}", 422, "unknown field"),
            (b"{\"task\":\"\",\"task\":\"\"}", 422, "duplicate field"),
            (b"{\"task\":\"\",\"key\":\"\"}", 422, "a key has 1 to 512 bytes"),
            (b"{\"task\":\"\",\"retries\":4294967296}", 422, "invalid value"),
            (b"{\"task\":\"\",\"timeout\":\"\\u001b\"}", 422, r#"not \"\\u{1b}\""#),
        ];
        for (line, status, wanted) in cases {
            let body = [&b"{\"task\":\"a\"}\n"[..], line, b"\n"].concat();
            let problem = parse(&body.into(), 10, 10).unwrap_err();
            assert_eq!(problem.status(), status, "{line:?}");
            assert!(problem.json().contains(wanted), "{wanted}: {}", problem.json());
        }
    }

    #[test]
    fn too_many_and_too_large_tasks_are_refused() {
        let status = |body: &str| {
            parse(&Bytes::copy_from_slice(body.as_bytes()), 2, 3).map_err(|it| it.status().as_u16())
        };
        assert_eq!(status("{\"task\":\"123\"}\n{\"task\":\"\"}").map(|tasks| tasks.len()), Ok(2));
        assert_eq!(status("{\"task\":\"1234\"}"), Err(413));
        assert_eq!(status(&"{\"task\":\"\"}\n".repeat(3)), Err(413));
        assert_eq!(status("\n\n"), Err(400));
        // Nothing is kept of one whose keys nest or repeat without an end.
        assert_eq!(status(&"[".repeat(100_000)), Err(400));
        assert_eq!(status(&"{\"task\":".repeat(100_000)), Err(422));
    }

    #[test]
    fn each_answer_is_a_line() {
        let key = |key: &str| Some(key.to_owned().try_into().unwrap());
        let of = |id: &str, key| Submitted { id: id.parse().unwrap(), key, is_new: true };
        let lines = answers(&[of("a-1", None), of("a-2", key("x\n\"y"))]);
        let wanted = "{\"id\":\"a-1\",\"key\":null}\n{\"id\":\"a-2\",\"key\":\"x\\n\\\"y\"}\n";
        assert_eq!(String::from_utf8(lines).unwrap(), wanted);
    }
}
