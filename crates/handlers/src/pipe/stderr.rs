//! Stderr of a child: lines for the log, and its end for the task that fails.

use std::time::Duration;

use tradewind_proto::{Seq, Time};

use super::super::tail::Tail;

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LogLine {
    /// A line of the child's, and the task that it was at.
    Line(Option<Seq>, String),
    /// Number of lines that were left out.
    LeftOut(u32),
}

/// Splits stderr into lines, and keeps its end.
#[derive(Debug, Default)]
pub(super) struct Stderr {
    line: Vec<u8>,
    /// Whether the line is longer than `line` has it.
    is_cut: bool,
    /// Bytes since the last answers.
    tail: Tail,
    /// Bytes before those. The last of them may have been read before the answer that they came after.
    before: Tail,
    lines: Vec<LogLine>,
    /// Start of the second whose lines are counted.
    second: Time,
    count: u32,
}

/// Bytes of a line in the log.
const LINE_BYTES_MAX: usize = 1 << 10;

/// Lines in the log in a second, of one child.
const LINES_MAX: u32 = 100;

const SECOND: Duration = Duration::from_secs(1);

impl Stderr {
    /// Adds bytes that the child wrote while it was at this task.
    pub(super) fn push(&mut self, now: Time, seq: Option<Seq>, mut bytes: &[u8]) {
        self.tail.push(bytes);
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.extend(&bytes[..end]);
            self.end_line(now, seq);
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    /// Returns the end of the bytes since the last answers: as far as can be told, they are about the task
    /// that is answered now.
    pub(super) fn recent(&self) -> Tail {
        self.tail.clone()
    }

    /// Notes that there were answers: the bytes before them are not about the next task.
    pub(super) fn answered(&mut self) {
        if !self.tail.is_empty() || !self.before.is_empty() {
            self.before = std::mem::take(&mut self.tail);
        }
    }

    /// Ends stderr, as the child is gone. Returns the end of the bytes.
    pub(super) fn end(&mut self, now: Time, seq: Option<Seq>) -> Tail {
        if !self.line.is_empty() {
            self.end_line(now, seq);
        }
        if self.count > LINES_MAX {
            self.lines.push(LogLine::LeftOut(self.count - LINES_MAX));
            self.count = LINES_MAX;
        }
        let (tail, before) = (std::mem::take(&mut self.tail), std::mem::take(&mut self.before));
        if tail.is_empty() { before } else { tail }
    }

    pub(super) fn take_lines(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.lines)
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX - self.line.len();
        self.is_cut |= bytes.len() > room;
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, now: Time, seq: Option<Seq>) {
        if now.since(self.second) >= SECOND {
            if self.count > LINES_MAX {
                self.lines.push(LogLine::LeftOut(self.count - LINES_MAX));
            }
            (self.second, self.count) = (now, 0);
        }
        self.count += 1;
        if self.count <= LINES_MAX {
            let mut text = String::from_utf8_lossy(self.line.trim_ascii_end()).into_owned();
            if self.is_cut {
                text.push_str("...");
            }
            self.lines.push(LogLine::Line(seq, text));
        }
        self.line.clear();
        self.is_cut = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEQ: Option<Seq> = Some(Seq(3));

    fn line(text: &str) -> LogLine {
        LogLine::Line(SEQ, text.to_owned())
    }

    #[test]
    fn lines_are_whole_and_bounded() {
        let mut stderr = Stderr::default();
        stderr.push(Time(0), SEQ, b"one\r\ntw");
        assert_eq!(stderr.take_lines(), [line("one")]);
        stderr.push(Time(1), SEQ, b"o\n");
        assert_eq!(stderr.take_lines(), [line("two")]);
        stderr.push(Time(2), SEQ, &b"x".repeat(5_000));
        stderr.push(Time(2), SEQ, b"\nrest");
        assert_eq!(stderr.take_lines(), [line(&("x".repeat(LINE_BYTES_MAX) + "..."))]);
        let tail = stderr.end(Time(3), SEQ).text(9);
        assert_eq!(stderr.take_lines(), [line("rest")]);
        assert_eq!(tail, "xxxx\nrest");
    }

    #[test]
    fn a_flood_is_counted_and_left_out() {
        let mut stderr = Stderr::default();
        for _ in 0..LINES_MAX + 5 {
            stderr.push(Time(1), SEQ, b"x\n");
        }
        assert_eq!(stderr.take_lines().len(), LINES_MAX as usize);
        stderr.push(Time(1_000_000), SEQ, b"later\n");
        assert_eq!(stderr.take_lines(), [LogLine::LeftOut(5), line("later")]);
    }

    #[test]
    fn the_end_is_of_the_last_bytes_and_not_of_those_long_ago() {
        let tail = |script: &[&str]| {
            let mut stderr = Stderr::default();
            for step in script {
                match *step {
                    "" => stderr.answered(),
                    text => stderr.push(Time(0), None, text.as_bytes()),
                }
            }
            stderr.end(Time(0), None).text(100)
        };
        assert_eq!(tail(&["a", "b"]), "ab");
        assert_eq!(tail(&["a", "", "b"]), "b");
        assert_eq!(tail(&["a", ""]), "a", "it may have come after the answer");
        assert_eq!(tail(&["a", "", ""]), "");
    }
}
