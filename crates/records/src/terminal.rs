//! Lines for a person at a terminal: the stderr of tasks, and the reasons of the first failures.

use std::fmt::Write;

use tradewind_proto::collector::Record;
use tradewind_proto::message::{Exit, Status};
use tradewind_shown::{shown, shown_lines};
use tradewind_system::stderr::pass_on;

/// Kinds of lines that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Show {
    /// Forwards the stderr of tasks, each task's in one piece.
    pub stderr: bool,
    /// Writes a line about each of the first failures.
    pub failures: bool,
}

/// Number of failures that have a line of their own.
const FAILURES_MAX: u64 = 10;

/// Characters of the longest line about a failure.
const LINE_CHARS_MAX: usize = 300;

/// Writes lines after the records that they are about are stored.
#[derive(Debug)]
pub struct Terminal {
    show: Show,
    text: Vec<u8>,
    failures: u64,
}

impl Terminal {
    /// Creates one that writes to this process's stderr.
    #[must_use]
    pub fn new(show: Show) -> Self {
        Self { show, text: Vec::new(), failures: 0 }
    }

    /// Adds a record. `tag` comes before each line of its stderr.
    pub fn add(&mut self, record: Record<'_>, tag: &[u8]) {
        let outcome = &record.result.outcome;
        if self.show.stderr {
            for line in outcome.stderr.split_inclusive(|byte| *byte == b'\n') {
                self.text.extend_from_slice(shown_lines(tag).as_bytes());
                self.text.extend_from_slice(shown_lines(line).as_bytes());
            }
            if self.text.last().is_some_and(|byte| *byte != b'\n') {
                self.text.push(b'\n');
            }
        }
        // A person who cancels a job knows why its tasks did not end well.
        let is_expected = outcome.status.is_success() || outcome.status == Status::Cancelled;
        if !self.show.failures || is_expected {
            return;
        }
        self.failures += 1;
        if self.failures <= FAILURES_MAX {
            failure(record, &mut self.text);
        } else if self.failures == FAILURES_MAX + 1 {
            self.text.extend_from_slice(b"more failures are not shown\n");
        }
    }

    /// Writes the lines.
    pub fn flush(&mut self) {
        if !self.text.is_empty() {
            pass_on(std::mem::take(&mut self.text));
        }
    }
}

/// Adds a line with the reason why a task failed.
fn failure(record: Record<'_>, out: &mut Vec<u8>) {
    let result = record.result;
    let outcome = &result.outcome;
    let status = match outcome.status {
        Status::TimedOut => "timed out",
        other => other.as_str(),
    };
    let mut line = format!("task {} {status}", result.seq.0.saturating_add(1));
    if !record.stage.is_empty() {
        let _ = write!(line, " in stage {}", record.stage);
    }
    let reason = match outcome.exit {
        _ if !outcome.error.is_empty() => outcome.error.clone(),
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("ended by signal {signal}"),
        Exit::None => String::new(),
    };
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    for text in [last_line(&reason), last_line(&stderr)] {
        if !text.is_empty() {
            line.push_str(": ");
            let most = text.char_indices().nth(LINE_CHARS_MAX).map_or(text.len(), |(end, _)| end);
            line.push_str(&shown(&text[..most]));
        }
    }
    if let Some((end, _)) = line.char_indices().nth(LINE_CHARS_MAX) {
        line.truncate(end);
        line.push('…');
    }
    line.push('\n');
    out.extend_from_slice(line.as_bytes());
}

fn last_line(text: &str) -> &str {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tradewind_proto::collector::Records;

    use super::super::examples::{ended, record};
    use super::*;

    fn text_of(show: Show, tag: &[u8], records: &[Records]) -> String {
        let mut terminal = Terminal::new(show);
        records.iter().flat_map(Records::iter).for_each(|record| terminal.add(record, tag));
        String::from_utf8(terminal.text).unwrap()
    }

    fn with_stderr(mut records: Records, stderr: &str) -> Records {
        records.results[0].outcome.stderr = stderr.as_bytes().to_vec().into();
        records
    }

    #[test]
    fn stderr_is_passed_on_by_task_and_ends_with_a_newline() {
        let records = [
            with_stderr(record(0, "x"), "warning\nmore"),
            record(1, "y"),
            with_stderr(ended(Status::Failed, Exit::Code(3), "exit code 3"), "why\n"),
        ];
        let stderr = Show { stderr: true, failures: false };
        assert_eq!(text_of(stderr, b"", &records), "warning\nmore\nwhy\n");
        assert_eq!(text_of(stderr, b"a\t", &records), "a\twarning\na\tmore\na\twhy\n");
        let both = Show { stderr: true, failures: true };
        let wanted = "warning\nmore\nwhy\ntask 4 failed: exit code 3: why\n";
        assert_eq!(text_of(both, b"", &records), wanted);
        assert_eq!(text_of(Show::default(), b"", &records), "");
        let coloured = [with_stderr(record(0, "x"), "\x1b[31mred\x1b[0m\x07\r\n\tat 1\u{202e}\n")];
        let wanted = "\\u{1b}[31mred\\u{1b}[0m\\u{7}\n\tat 1\\u{202e}\n";
        assert_eq!(text_of(stderr, b"", &coloured), wanted);
        let tagged = text_of(stderr, b"\x1b[2J\t", &[with_stderr(record(0, "x"), "one\n")]);
        assert_eq!(tagged, "\\u{1b}[2J\tone\n");
    }

    #[test]
    fn the_first_failures_have_a_line_with_the_reason() {
        let failures = Show { stderr: false, failures: true };
        let check = |record: Records, wanted: &str| {
            assert_eq!(text_of(failures, b"", &[record]), format!("task 4 {wanted}\n"));
        };
        let failed = |error: &str| ended(Status::Failed, Exit::Code(3), error);
        check(with_stderr(failed("exit code 3"), "a\nb\n\n"), "failed: exit code 3: b");
        check(failed(""), "failed: exit code 3");
        check(failed("\x1b[31mno\x07"), "failed: \\u{1b}[31mno\\u{7}");
        check(ended(Status::Failed, Exit::Signal(9), ""), "failed: ended by signal 9");
        check(
            ended(Status::TimedOut, Exit::Signal(15), "timed out after 1s"),
            "timed out: timed out after 1s",
        );
        check(ended(Status::Lost, Exit::None, "its worker was lost"), "lost: its worker was lost");
        check(
            Records { stage: "parse".into(), ..failed("") },
            "failed in stage parse: exit code 3",
        );
        let long = text_of(failures, b"", &[failed(&"x".repeat(5000))]);
        assert!(long.chars().count() < 310 && long.ends_with("…\n"), "{long}");
        let none = [record(0, "x"), ended(Status::Cancelled, Exit::None, "no")];
        assert_eq!(text_of(failures, b"", &none), "");
        let many: Vec<Records> = (0..30).map(|_| failed("")).collect();
        let text = text_of(failures, b"", &many);
        assert_eq!(text.lines().count(), 11);
        assert!(text.ends_with("\nmore failures are not shown\n"), "{text}");
    }
}
