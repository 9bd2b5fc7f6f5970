//! Format of a JSON object a line.

use std::io::{self, Write as _};
use std::str;
use std::time::{Duration, UNIX_EPOCH};

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::ser::{CompactFormatter, Formatter};
use tradewind_proto::Seq;
use tradewind_proto::collector::Record;
use tradewind_proto::message::{Exit, Outcome, Status, TaskResult};

/// Last microsecond of the year 9999: RFC 3339 has no room for a later one, and a worker's clock
/// may be wrong.
const STARTED_US_MAX: u64 = 253_402_300_799_999_999;

/// Appends a record to `out`, as a JSON object and a newline, with the task if it is known and wanted.
pub fn encode(record: Record<'_>, has_task: bool, out: &mut Vec<u8>) {
    encode_at(record, record.result.seq, has_task, out);
}

/// Does the same under the number that the task has in an output which numbers tasks by itself, and in no more than
/// these bytes. A record that would have more is written without its task and what that has written, says so, and is
/// `failed` where it was `ok`. Returns its status.
pub fn encode_within(
    record: Record<'_>,
    seq: Seq,
    has_task: bool,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Status {
    let start = out.len();
    encode_at(record, seq, has_task, out);
    let Record { result, .. } = record;
    let bytes = out.len() - start;
    if bytes <= bytes_max {
        return result.outcome.status;
    }
    out.truncate(start);
    let before = &result.outcome;
    let status = if before.status == Status::Ok { Status::Failed } else { before.status };
    let separator = if before.error.is_empty() { "" } else { "; " };
    let error = format!(
        "{}{separator}the record has {bytes} bytes, and the output takes {bytes_max}: it is without what the task has \
         written",
        before.error
    );
    let outcome = Outcome { exit: before.exit, ..Outcome::error(status, error) };
    let result = TaskResult { outcome, reported: None, ..*result };
    encode_at(Record { result: &result, ..record }, seq, false, out);
    status
}

fn encode_at(record: Record<'_>, seq: Seq, has_task: bool, out: &mut Vec<u8>) {
    let outcome = &record.result.outcome;
    write(record, seq, has_task, Some(&outcome.output), Some(&outcome.stderr), out);
}

/// Appends a record without the output of its task.
pub(super) fn encode_outcome(record: Record<'_>, out: &mut Vec<u8>) {
    write(record, record.result.seq, true, None, None, out);
}

fn write<'a>(
    record: Record<'a>,
    seq: Seq,
    has_task: bool,
    output: Option<&'a [u8]>,
    stderr: Option<&'a [u8]>,
    out: &mut Vec<u8>,
) {
    let Record { worker, stage, result } = record;
    let outcome = &result.outcome;
    let (exit_code, signal) = match outcome.exit {
        Exit::None => (None, None),
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
    };
    let task = result.reported.as_deref().map(|reported| &*reported.task);
    let (task, task_base64) = text(task.filter(|task| has_task && !task.is_empty()));
    let (output, output_base64) = text(output);
    let (stderr, stderr_base64) = text(stderr.filter(|stderr| !stderr.is_empty()));
    // Keys of a record, in this order: programs that read records depend on them.
    let mut line = Line(out);
    line.add("{\"seq\":", &seq.0);
    line.add(",\"status\":", outcome.status.as_str());
    line.add(",\"attempt\":", &result.attempt.0);
    line.add(",\"worker\":", worker);
    line.add_some(",\"stage\":", Some(stage).filter(|stage| !stage.is_empty()));
    line.add_some(",\"task\":", task);
    line.add_some(",\"task_base64\":", task_base64.as_ref());
    match result.started_us {
        0 => line.add(",\"started\":", &()),
        started_us => line.add_started(started_us),
    }
    line.add(",\"seconds\":", &(result.ran_us as f64 / 1e6));
    line.add(",\"exit_code\":", &exit_code);
    line.add_some(",\"signal\":", signal.as_ref());
    line.add_some(",\"output\":", output);
    line.add_some(",\"output_base64\":", output_base64.as_ref());
    line.add_some(",\"error\":", Some(&*outcome.error).filter(|error| !error.is_empty()));
    line.add_some(",\"stderr\":", stderr);
    line.add_some(",\"stderr_base64\":", stderr_base64.as_ref());
    out.extend_from_slice(b"}\n");
}

/// A line that is written member by member, each after its key as it stands there: to escape keys, of which none needs
/// it, takes as long as most values.
struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    fn add<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) {
        self.0.extend_from_slice(key.as_bytes());
        value
            .serialize(&mut serde_json::Serializer::with_formatter(&mut *self.0, Plain))
            .expect("writing to memory does not fail");
    }

    fn add_some<T: Serialize + ?Sized>(&mut self, key: &'static str, value: Option<&T>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    /// Adds the start of a task, microseconds since 1970, as RFC 3339 writes it.
    fn add_started(&mut self, started_us: u64) {
        let since = Duration::from_micros(started_us.min(STARTED_US_MAX));
        let started = humantime::format_rfc3339_micros(UNIX_EPOCH + since);
        write!(self.0, ",\"started\":\"{started}\"").expect("writing to memory does not fail");
    }
}

/// Text as it is, other bytes in base64.
fn text(bytes: Option<&[u8]>) -> (Option<&str>, Option<Base64<'_>>) {
    match bytes.map(|bytes| str::from_utf8(bytes).map_err(|_| Base64(bytes))) {
        Some(Ok(text)) => (Some(text), None),
        Some(Err(base64)) => (None, Some(base64)),
        None => (None, None),
    }
}

/// Bytes that are not UTF-8, in the alphabet of RFC 4648, section 4, with padding.
struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

/// Writes a microsecond as `0.000001`. It would be `1e-6` otherwise: good JSON, and yet a surprise
/// to a shell script that cuts it out.
struct Plain;

/// Smaller numbers would have an exponent. The others are left alone, at twice the speed.
const PLAIN_MIN: f64 = 1e-5;

impl Formatter for Plain {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if 0.0 < value && value < PLAIN_MIN {
            return write!(writer, "{value}");
        }
        CompactFormatter.write_f64(writer, value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tradewind_proto::Payload;
    use tradewind_proto::collector::Records;
    use tradewind_proto::message::{Reported, Status};

    use super::super::examples::{ended, never_ran, record, with};
    use super::*;

    fn encoded(records: &Records) -> String {
        let mut out = Vec::new();
        records.iter().for_each(|record| encode(record, true, &mut out));
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn each_record_is_one_line_with_its_keys_in_order() {
        let check = |record: Records, wanted: &str| {
            assert_eq!(encoded(&record), format!("{{{wanted}}}\n"));
        };
        check(
            record(5, "hi\n"),
            r#""seq":5,"status":"ok","attempt":1,"worker":"w1","started":"2026-01-02T03:04:05.678901Z","seconds":1.5,"exit_code":0,"output":"hi\n""#,
        );
        check(
            Records { stage: "parse".into(), ..record(5, "hi\n") },
            r#""seq":5,"status":"ok","attempt":1,"worker":"w1","stage":"parse","started":"2026-01-02T03:04:05.678901Z","seconds":1.5,"exit_code":0,"output":"hi\n""#,
        );
        check(
            record(5, b"\xff\xfe"),
            r#""seq":5,"status":"ok","attempt":1,"worker":"w1","started":"2026-01-02T03:04:05.678901Z","seconds":1.5,"exit_code":0,"output_base64":"//4=""#,
        );
        check(
            ended(Status::Failed, Exit::Code(2), "no such file\n"),
            r#""seq":3,"status":"failed","attempt":1,"worker":"w1","started":"2026-01-02T03:04:05.678901Z","seconds":1.5,"exit_code":2,"output":"","error":"no such file\n""#,
        );
        check(
            ended(Status::TimedOut, Exit::Signal(9), "timed out"),
            r#""seq":3,"status":"timed_out","attempt":1,"worker":"w1","started":"2026-01-02T03:04:05.678901Z","seconds":1.5,"exit_code":null,"signal":9,"output":"","error":"timed out""#,
        );
        check(
            never_ran(Status::Cancelled, ""),
            r#""seq":4,"status":"cancelled","attempt":0,"worker":"","started":null,"seconds":0.0,"exit_code":null,"output":"""#,
        );
    }

    #[test]
    fn stderr_and_the_task_stand_there_if_there_are_any() {
        let check = |task: &'static [u8], stderr: &'static [u8], keys: &str| {
            let record = with(ended(Status::Failed, Exit::Code(3), "exit code 3"), |result| {
                let task = Payload::from(task);
                result.reported = Some(Box::new(Reported { task, ..Reported::default() }));
                result.outcome.stderr = Payload::from(stderr).into();
            });
            let text = encoded(&record);
            let value: Value = serde_json::from_str(&text).expect("good JSON");
            let named = ["task", "task_base64", "error", "stderr", "stderr_base64"];
            let found = named.map(|key| value.get(key).map(|value| format!("{key}={value}")));
            assert_eq!(found.into_iter().flatten().collect::<Vec<_>>().join(" "), keys);
        };
        check(b"", b"", r#"error="exit code 3""#);
        check(b"a b", b"why\n", r#"task="a b" error="exit code 3" stderr="why\n""#);
        let base64 = r#"task_base64="/w==" error="exit code 3" stderr_base64="/g==""#;
        check(b"\xff", b"\xfe", base64);
    }

    #[test]
    fn a_parsed_record_is_the_stored_one() {
        let check = |key: &str, record: Records, wanted: Value| {
            let line = encoded(&record);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            let parsed: Value = serde_json::from_str(&line).expect("good JSON");
            assert_eq!(parsed[key], wanted, "{line}");
        };
        let text = "tab\t quote\" backslash\\ newline\n\r bell\x07 nul\0 \u{2028} π 🦀";
        check("output", record(0, text), json!(text));
        check("error", ended(Status::Failed, Exit::None, text), json!(text));
        check("worker", Records { worker: text.into(), ..record(0, "") }, json!(text));
        check("seq", record(u64::MAX, ""), json!(u64::MAX));
        check("output_base64", record(0, b"\x80"), json!("gA=="));
        check("output", record(0, b"\x80"), Value::Null);
    }

    #[test]
    fn a_record_that_does_not_fit_is_failed_and_without_its_output() {
        let long = record(5, "x".repeat(500));
        let mut line = b"before".to_vec();
        let encode = |records: &Records, bytes_max, line: &mut Vec<u8>| {
            let record = records.iter().next().unwrap();
            encode_within(record, Seq(17), true, bytes_max, line)
        };
        assert_eq!(encode(&long, 1000, &mut line), Status::Ok);
        assert!(line.starts_with(b"before{\"seq\":17,"), "{line:?}");
        let bytes = line.len() - "before".len();
        line.clear();
        assert_eq!(encode(&long, bytes, &mut line), Status::Ok);
        assert_eq!(line.len(), bytes);
        line.clear();
        assert_eq!(encode(&long, bytes - 1, &mut line), Status::Failed);
        let parsed: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&parsed["seq"], &parsed["status"]), (&json!(17), &json!("failed")));
        assert_eq!((&parsed["exit_code"], parsed.get("output")), (&json!(0), Some(&json!(""))));
        let wanted = format!("has {bytes} bytes, and the output takes {}", bytes - 1);
        assert!(parsed["error"].as_str().unwrap().contains(&wanted), "{parsed}");
        line.clear();
        let lost = ended(Status::Lost, Exit::None, &"y".repeat(100));
        assert_eq!(encode(&lost, 50, &mut line), Status::Lost);
    }

    #[test]
    fn seconds_are_plain_decimals() {
        let check = |ran_us: u64, wanted: &str| {
            let line = encoded(&with(record(0, ""), |result| result.ran_us = ran_us));
            assert!(line.contains(&format!("\"seconds\":{wanted},\"")), "{line}");
        };
        check(0, "0.0");
        check(1, "0.000001");
        check(9, "0.000009");
        check(10, "0.00001");
        check(11, "0.000011");
        check(120, "0.00012");
        check(1_000_000, "1.0");
        check(3_600_000_001, "3600.000001");
        check(123_456_789_012_345, "123456789.012345");
        check(u64::MAX, "18446744073709.55");
    }

    #[test]
    fn any_start_time_has_its_text() {
        let check = |started_us: u64, wanted: &str| {
            let line = encoded(&with(record(0, ""), |result| result.started_us = started_us));
            assert!(line.contains(&format!("\"started\":\"{wanted}\"")), "{line}");
        };
        check(1, "1970-01-01T00:00:00.000001Z");
        check(951_782_400_000_000, "2000-02-29T00:00:00.000000Z");
        check(STARTED_US_MAX, "9999-12-31T23:59:59.999999Z");
        check(u64::MAX, "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn large_outputs_are_encoded_whole() {
        use base64::Engine;

        let output: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let mut record = record(0, "");
        record.results[0].outcome.output = Payload::from(output.clone());
        let parsed: Value = serde_json::from_str(&encoded(&record)).expect("good JSON");
        let text = parsed["output_base64"].as_str().expect("not UTF-8");
        assert_eq!(STANDARD.decode(text).expect("good base64"), output);
    }
}
