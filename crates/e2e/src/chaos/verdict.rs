//! The comparison of what went in with what came out.

use std::io::{self, BufRead};

use serde_json::Value;

use super::Format;

/// Record that a task has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Status with which it ends.
    pub status: &'static str,
    /// Exit code of its process, if it has one.
    pub exit_code: Option<i64>,
    /// Output of the task.
    pub output: String,
}

/// Records of a job, judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Tasks that went in.
    pub tasks: u64,
    /// Records that came out.
    pub records: u64,
    /// Tasks without a record.
    pub lost: u64,
    /// Records too many.
    pub doubled: u64,
    /// Records that do not say what they should, of tasks that there are not, or torn.
    pub wrong: u64,
    /// Records before which a later one came, although they are ordered.
    pub disordered: u64,
    /// The first few of these, for people.
    pub examples: Vec<String>,
}

const EXAMPLES_MAX: usize = 10;

/// Reads the output and compares it, line by line.
///
/// # Errors
/// When it cannot be read.
pub fn compare(
    format: Format,
    tasks: u64,
    expected: impl Fn(u64) -> Expected,
    mut output: impl BufRead,
) -> io::Result<Verdict> {
    let mut verdict = Verdict { tasks, ..Verdict::default() };
    let mut seen = vec![false; usize::try_from(tasks).expect("a vector may be as long")];
    let mut next = 0;
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        verdict.records += 1;
        let text = String::from_utf8_lossy(&line);
        match check(format, &text, tasks, &expected) {
            Err(reason) => {
                verdict.wrong += 1;
                verdict.example(|| format!("{reason}: {}", text.trim_end()));
            }
            Ok(seq) => {
                let seen = &mut seen[usize::try_from(seq).expect("it is below the count")];
                if std::mem::replace(seen, true) {
                    verdict.doubled += 1;
                    verdict.example(|| format!("twice: {}", text.trim_end()));
                } else if format.is_ordered() && seq < next {
                    verdict.disordered += 1;
                    verdict.example(|| format!("after {}: {}", next - 1, text.trim_end()));
                }
                next = next.max(seq + 1);
            }
        }
        line.clear();
    }
    for (seq, seen) in seen.iter().enumerate() {
        if !seen {
            verdict.lost += 1;
            verdict.example(|| format!("no record of task {seq}"));
        }
    }
    Ok(verdict)
}

/// The seq of a line that says what it should.
fn check(
    format: Format,
    line: &str,
    tasks: u64,
    expected: impl Fn(u64) -> Expected,
) -> Result<u64, &'static str> {
    let text = line.strip_suffix('\n').ok_or("torn")?;
    if format == Format::Lines {
        let number = text.split(' ').next().unwrap_or_default();
        let seq = number.parse().ok().filter(|seq| *seq < tasks).ok_or("not of any task")?;
        let is_right = expected(seq).output.trim_end_matches('\n') == text;
        return if is_right { Ok(seq) } else { Err("wrong") };
    }
    let record: Value = serde_json::from_str(text).map_err(|_| "not JSON")?;
    let seq = record["seq"].as_u64().filter(|seq| *seq < tasks).ok_or("not of any task")?;
    let expected = expected(seq);
    let is_right = record["status"].as_str() == Some(expected.status)
        && record["exit_code"].as_i64() == expected.exit_code
        && record["output"].as_str() == Some(&expected.output);
    if is_right { Ok(seq) } else { Err("wrong") }
}

impl Verdict {
    /// Is everything there, once and right?
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.lost + self.doubled + self.wrong + self.disordered == 0
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text().chars().take(300).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(seq: u64) -> Expected {
        Expected { status: "ok", exit_code: Some(0), output: format!("{seq} out\n") }
    }

    /// Records, lost, doubled, wrong, disordered.
    #[track_caller]
    fn check(format: Format, output: &str, counts: [u64; 5]) {
        let v = compare(format, 3, expected, output.as_bytes()).unwrap();
        assert_eq!([v.records, v.lost, v.doubled, v.wrong, v.disordered], counts, "{output}");
        assert_eq!(v.is_right(), counts[1..] == [0; 4]);
        assert_eq!(v.examples.is_empty(), v.is_right());
    }

    fn jsonl(seqs: &[u64]) -> String {
        let line = |seq| {
            format!(
                "{{\"seq\":{seq},\"status\":\"ok\",\"exit_code\":0,\"output\":\"{seq} out\\n\"}}\n"
            )
        };
        seqs.iter().map(line).collect()
    }

    #[test]
    fn each_task_has_one_record() {
        check(Format::Jsonl, &jsonl(&[2, 0, 1]), [3, 0, 0, 0, 0]);
        check(Format::Jsonl, &jsonl(&[2, 0]), [2, 1, 0, 0, 0]);
        check(Format::Jsonl, &jsonl(&[2, 0, 2, 1, 2]), [5, 0, 2, 0, 0]);
        check(Format::Jsonl, &jsonl(&[2, 0, 1, 3]), [4, 0, 0, 1, 0]);
        check(Format::Jsonl, "", [0, 3, 0, 0, 0]);
    }

    #[test]
    fn an_ordered_output_is_in_order() {
        check(Format::JsonlOrdered, &jsonl(&[0, 1, 2]), [3, 0, 0, 0, 0]);
        check(Format::JsonlOrdered, &jsonl(&[0, 2, 1]), [3, 0, 0, 0, 1]);
        check(Format::JsonlOrdered, &jsonl(&[0, 1, 1, 2]), [4, 0, 1, 0, 0]);
        check(Format::Lines, "0 out\n1 out\n2 out\n", [3, 0, 0, 0, 0]);
        check(Format::Lines, "1 out\n0 out\n2 out\n", [3, 0, 0, 0, 1]);
        check(Format::Lines, "0 out\n2 out\n2 out\n", [3, 1, 1, 0, 0]);
    }

    #[test]
    fn a_record_says_what_it_should() {
        let right = jsonl(&[0, 1, 2]);
        check(Format::Jsonl, &right.replace("1 out", "7 out"), [3, 1, 0, 1, 0]);
        check(Format::Jsonl, &right.replacen("ok", "lost", 1), [3, 1, 0, 1, 0]);
        check(Format::Jsonl, &right.replacen(":0,\"output", ":null,\"output", 1), [3, 1, 0, 1, 0]);
        check(Format::Jsonl, &right[..right.len() - 1], [3, 1, 0, 1, 0]);
        check(Format::Jsonl, &format!("{right}{{\"seq\":"), [4, 0, 0, 1, 0]);
        check(Format::Lines, "0 out\n1 out\n2 ou", [3, 1, 0, 1, 0]);
        check(Format::Lines, "0 out\n1 out\n2 oud\n", [3, 1, 0, 1, 0]);
        check(Format::Lines, "0 out\n1 out\n\n2 out\n", [4, 0, 0, 1, 0]);
    }
}
