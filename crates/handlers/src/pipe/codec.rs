//! Tasks as bytes for a child, and a child's bytes as answers. Knows no child and no time.

use std::borrow::Cow;
use std::str;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr;
use serde::{Deserialize, Serialize};
use tradewind_proto::message::{Outcome, Status};
use tradewind_proto::{Payload, Seq};

use super::super::{Task, tail};
use super::PipeMode;

/// An answer as a child wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Task that it says it is for.
    pub seq: Option<Seq>,
    /// Outcome of that task.
    pub outcome: Outcome,
}

/// A child wrote something that is no answer. All that it wrote after that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongAnswer {
    /// It is longer than an answer may be, in bytes.
    #[error("the handler's answer is larger than {0} bytes, the limit of --max-output")]
    TooLarge(u64),
    /// It is no answer in JSON, for this reason.
    #[error("the handler's answer is invalid for --pipe json: {0}")]
    NotJson(String),
}

/// Reads answers out of the output of a child, however that is cut.
#[derive(Debug)]
pub struct Answers {
    mode: PipeMode,
    output_bytes_max: u64,
    held: Vec<u8>,
    /// Start of the next answer in `held`.
    from: usize,
    /// Bytes of `held` in which there is no newline after `from`.
    searched: usize,
}

#[derive(Serialize)]
struct Question<'a> {
    seq: u64,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_base64: Option<String>,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(default)]
    seq: Option<u64>,
    #[serde(default, borrow)]
    output: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    output_base64: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(default)]
    skip: Option<bool>,
}

/// The length in front of a frame.
const HEADER_BYTES: usize = 4;

/// JSON writes a byte as `\u0000` at the worst.
const JSON_BYTES_PER_BYTE: u64 = 6;

/// Syntax around the output in an answer.
const JSON_BYTES_AROUND: u64 = 64 << 10;

/// Bytes of something that is no answer which are repeated in an error.
const NAMED_BYTES_MAX: usize = 100;

const NO_LINE: &str =
    "the task has a newline, and --pipe lines takes a task a line: use --pipe json or frames";

/// Why a task cannot be given to a child.
pub(super) fn unfit(mode: PipeMode, payload: &[u8]) -> Option<&'static str> {
    match mode {
        PipeMode::Lines => memchr(b'\n', payload).map(|_| NO_LINE),
        PipeMode::Json => None,
        PipeMode::Frames => {
            u32::try_from(payload.len()).err().map(|_| "the task is too large for a frame")
        }
    }
}

/// Adds a task that is not [`unfit`] to the end of `out`.
pub(super) fn encode(mode: PipeMode, task: &Task, out: &mut Vec<u8>) {
    let payload = &task.payload;
    match mode {
        PipeMode::Lines => {
            out.extend_from_slice(payload);
            out.push(b'\n');
        }
        PipeMode::Json => {
            let text = str::from_utf8(payload).ok();
            let question = Question {
                seq: task.seq.0,
                attempt: task.attempt.0,
                task: text,
                task_base64: text.is_none().then(|| STANDARD.encode(payload)),
            };
            serde_json::to_writer(&mut *out, &question).expect("texts and numbers are JSON");
            out.push(b'\n');
        }
        PipeMode::Frames => {
            out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
            out.extend_from_slice(payload);
        }
    }
}

impl Answers {
    /// Creates a reader of answers whose outputs have at most this number of bytes.
    #[must_use]
    pub fn new(mode: PipeMode, output_bytes_max: u64) -> Self {
        Self { mode, output_bytes_max, held: Vec::new(), from: 0, searched: 0 }
    }

    /// Adds bytes that the child wrote.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.from > 0 {
            self.held.drain(..self.from);
            self.searched -= self.from;
            self.from = 0;
        }
        self.held.extend_from_slice(bytes);
    }

    /// Returns the next answer, if one is complete.
    ///
    /// # Errors
    ///
    /// When the next bytes are no answer. All that follows means nothing then.
    #[expect(clippy::should_implement_trait, reason = "it may have more after `None`")]
    pub fn next(&mut self) -> Result<Option<Answer>, WrongAnswer> {
        match self.mode {
            PipeMode::Lines => {
                let Some(line) = self.line(self.output_bytes_max)? else { return Ok(None) };
                Ok(Some(Answer { seq: None, outcome: Outcome::ok(Payload::copy_of(line)) }))
            }
            PipeMode::Json => {
                let bytes_max = self.output_bytes_max;
                let line_max =
                    bytes_max.saturating_mul(JSON_BYTES_PER_BYTE).saturating_add(JSON_BYTES_AROUND);
                let Some(line) = self.line(line_max)? else { return Ok(None) };
                let answer = parse(line).map_err(|reason| named(&reason, line))?;
                if answer.outcome.output.len() as u64 > bytes_max {
                    return Err(WrongAnswer::TooLarge(bytes_max));
                }
                Ok(Some(answer))
            }
            PipeMode::Frames => self.frame(),
        }
    }

    /// Returns whether an answer was begun and not finished.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        self.from < self.held.len()
    }

    /// Forgets all bytes: another child writes from now on.
    pub fn clear(&mut self) {
        // Not kept: a single large answer would stay for ever.
        *self = Self::new(self.mode, self.output_bytes_max);
    }

    fn line(&mut self, bytes_max: u64) -> Result<Option<&[u8]>, WrongAnswer> {
        let end = memchr(b'\n', &self.held[self.searched..]).map(|at| self.searched + at);
        let length = end.unwrap_or(self.held.len()) - self.from;
        if length as u64 > bytes_max {
            return Err(WrongAnswer::TooLarge(self.output_bytes_max));
        }
        let Some(end) = end else {
            self.searched = self.held.len();
            return Ok(None);
        };
        let from = std::mem::replace(&mut self.from, end + 1);
        self.searched = self.from;
        Ok(Some(&self.held[from..end]))
    }

    fn frame(&mut self) -> Result<Option<Answer>, WrongAnswer> {
        let rest = &self.held[self.from..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*header) as usize;
        if length as u64 > self.output_bytes_max {
            return Err(WrongAnswer::TooLarge(self.output_bytes_max));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let outcome = Outcome::ok(Payload::copy_of(body));
        self.from += HEADER_BYTES + length;
        self.searched = self.from;
        Ok(Some(Answer { seq: None, outcome }))
    }
}

fn parse(line: &[u8]) -> Result<Answer, String> {
    let reply: Reply<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let output = match (reply.output, reply.output_base64) {
        (Some(_), Some(_)) => return Err("both output and output_base64".to_owned()),
        (Some(text), None) => Some(Payload::copy_of(text.as_bytes())),
        (None, Some(text)) => {
            let bytes = STANDARD.decode(text.as_bytes());
            Some(bytes.map_err(|error| format!("output_base64 is not base64: {error}"))?.into())
        }
        (None, None) => None,
    };
    let (status, error) = match (reply.skip.unwrap_or(false), reply.error) {
        (true, Some(_)) => return Err("both skip and error".to_owned()),
        (true, None) => (Status::Skipped, String::new()),
        (false, Some(error)) if error.is_empty() => (Status::Failed, "error".to_owned()),
        (false, Some(error)) => (Status::Failed, tail::clip(error.into_owned())),
        (false, None) if output.is_none() => {
            return Err("none of output, output_base64, error and skip".to_owned());
        }
        (false, None) => (Status::Ok, String::new()),
    };
    let mut outcome = Outcome::error(status, error);
    outcome.output = output.unwrap_or_default();
    Ok(Answer { seq: reply.seq.map(Seq), outcome })
}

fn named(reason: &str, line: &[u8]) -> WrongAnswer {
    let named = String::from_utf8_lossy(&line[..line.len().min(NAMED_BYTES_MAX)]);
    let dots = if line.len() > NAMED_BYTES_MAX { "..." } else { "" };
    WrongAnswer::NotJson(tail::clip(format!("{reason}, in {named:?}{dots}")))
}

#[cfg(test)]
mod tests {
    use tradewind_proto::Attempt;

    use super::*;

    fn task(payload: &'static [u8]) -> Task {
        let (seq, attempt) = (Seq(7), Attempt(2));
        Task::new(seq, attempt, payload.into())
    }

    #[test]
    fn tasks_are_written_as_documented() {
        let check = |mode, payload, expected: &[u8]| {
            let mut out = b"before".to_vec();
            assert_eq!(unfit(mode, payload), None);
            encode(mode, &task(payload), &mut out);
            assert_eq!(out, [b"before", expected].concat());
        };
        check(PipeMode::Lines, b"one", b"one\n");
        check(PipeMode::Lines, b"", b"\n");
        check(PipeMode::Lines, b"\xff\r", b"\xff\r\n");
        check(PipeMode::Frames, b"", b"\0\0\0\0");
        check(PipeMode::Frames, b"a\nb", b"\0\0\0\x03a\nb");
        check(PipeMode::Json, b"a\n\"b", b"{\"seq\":7,\"attempt\":2,\"task\":\"a\\n\\\"b\"}\n");
        check(PipeMode::Json, b"\xff", b"{\"seq\":7,\"attempt\":2,\"task_base64\":\"/w==\"}\n");
    }

    #[test]
    fn a_task_with_a_newline_is_no_line() {
        let reason = unfit(PipeMode::Lines, b"a\nb").unwrap();
        assert!(reason.contains("json") && reason.contains("frames"), "{reason}");
    }

    /// Reads `bytes` in parts of every size; gives the outputs, and what is wrong after them.
    #[track_caller]
    fn check(mode: PipeMode, bytes: &[u8], outputs: &[&[u8]], wrong: Option<&str>, amid: bool) {
        for size in 1..=bytes.len() {
            let mut answers = Answers::new(mode, 20);
            let (mut found, mut problem) = (Vec::new(), None);
            'all: for part in bytes.chunks(size) {
                answers.push(part);
                loop {
                    match answers.next() {
                        Ok(Some(answer)) => found.push(answer.outcome.output),
                        Ok(None) => break,
                        Err(error) => {
                            problem = Some(error.to_string());
                            break 'all;
                        }
                    }
                }
            }
            assert_eq!(found, outputs, "in parts of {size}");
            match (wrong, &problem) {
                (Some(wrong), Some(problem)) => assert!(problem.contains(wrong), "{problem}"),
                (wrong, problem) => {
                    assert_eq!(wrong.is_some(), problem.is_some(), "{problem:?}");
                    assert_eq!(answers.is_amid(), amid, "in parts of {size}");
                }
            }
        }
    }

    #[test]
    fn answers_are_read_however_they_are_cut() {
        use PipeMode::{Frames, Json, Lines};
        check(Lines, b"a\n\nbc\n", &[b"a", b"", b"bc"], None, false);
        check(Lines, b"a\nbc", &[b"a"], None, true);
        check(Lines, b"01234567890123456789\n", &[b"01234567890123456789"], None, false);
        check(Lines, b"a\n012345678901234567890\n", &[b"a"], Some("--max-output"), false);
        check(Frames, b"\0\0\0\x01a\0\0\0\0\0\0\0\x02\n\n", &[b"a", b"", b"\n\n"], None, false);
        check(Frames, b"\0\0\0\x01a\0\0", &[b"a"], None, true);
        check(Frames, b"\0\0\0\x15", &[], Some("--max-output"), false);
        check(Frames, b"hello", &[], Some("--max-output"), false);
        check(Json, b"{\"output\":\"a\"}\n{\"output\":\"\"}\n", &[b"a", b""], None, false);
        check(Json, b"{\"output\":\"a\"}\n{", &[b"a"], None, true);
        check(Json, b"{\"output\":\"012345678901234567890\"}\n", &[], Some("--max-output"), false);
        check(Json, b"{\"output\":\"a\"}\nLoading\n", &[b"a"], Some("\"Loading\""), false);
    }

    #[test]
    fn a_reply_says_one_thing() {
        #[track_caller]
        fn check(line: &str, expected: Result<(Status, &[u8], &str), &str>) {
            let parsed = parse(line.as_bytes());
            match (&parsed, expected) {
                (Ok(answer), Ok((status, output, error))) => {
                    let outcome = &answer.outcome;
                    assert_eq!((outcome.status, &*outcome.error), (status, error), "{line}");
                    assert_eq!(outcome.output, output, "{line}");
                }
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{line}: {reason}"),
                _ => panic!("{line}: {parsed:?}"),
            }
        }
        check(r#"{"output":"x"}"#, Ok((Status::Ok, b"x", "")));
        check(r#"{"output":"\u00e9\n","more":[1]}"#, Ok((Status::Ok, "é\n".as_bytes(), "")));
        check(r#"{"output_base64":"/w=="}"#, Ok((Status::Ok, b"\xff", "")));
        check(r#"{"skip":true}"#, Ok((Status::Skipped, b"", "")));
        check(r#"{"skip":false,"output":"x","error":null}"#, Ok((Status::Ok, b"x", "")));
        check(r#"{"error":"no"}"#, Ok((Status::Failed, b"", "no")));
        check(r#"{"error":"","output":"x"}"#, Ok((Status::Failed, b"x", "error")));
        check("{}", Err("none of output"));
        check(r#"{"ouput":"x"}"#, Err("none of output"));
        check(r#"{"skip":false}"#, Err("none of output"));
        check(r#"{"skip":true,"error":"x"}"#, Err("both skip and error"));
        check(r#"{"output":"","output_base64":""}"#, Err("both output and"));
        check(r#"{"output_base64":"?"}"#, Err("output_base64"));
        check(r#"{"output":{"a":1}}"#, Err("expected a string"));
        check(r#"{"seq":-1,"output":"x"}"#, Err("invalid value"));
        check("", Err("EOF"));
        assert_eq!(parse(br#"{"seq":7,"output":"x"}"#).unwrap().seq, Some(Seq(7)));
    }

    #[test]
    fn what_is_no_answer_is_not_repeated_at_length() {
        let mut answers = Answers::new(PipeMode::Json, 1 << 20);
        answers.push(&[&b"x".repeat(1 << 19)[..], b"\n"].concat());
        let text = answers.next().unwrap_err().to_string();
        assert!(text.len() < 500 && text.contains("..."), "{text}");
    }
}
