//! Joblog of GNU parallel, for the programs that read it.
//!
//! Exitval and Signal are what `parallel` writes: the exit code and 0, or 0 and the signal that
//! ended the process. A task that timed out has -1 and the signal, 15 when none is known. A task
//! that did not succeed although no exit code or signal says so (a handler's error, a lost or
//! cancelled task) has -1 as well: both are 0 only for success, which `parallel --resume-failed`
//! relies on.
//!
//! `parallel` replaces a newline in the command by NUL. Here newlines, tabs and other characters that do
//! not show become `\n`, `\t`, `\u{1b}` ([`shown_bytes`]); backslashes stay as they are, so that an
//! ordinary command reads as it was run.

use std::io::Write;

use tradewind_proto::collector::Record;
use tradewind_proto::message::{Exit, Status};
use tradewind_shown::{shown, shown_bytes};

/// First line.
pub(super) const HEADER: &str =
    "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

/// Signal with which `parallel` stops a task.
const SIGTERM: i32 = 15;

/// Appends a record's line to `out`.
pub(super) fn encode(record: Record<'_>, out: &mut Vec<u8>) {
    let Record { worker, result, .. } = record;
    let (exitval, signal) = ended(result.outcome.status, result.outcome.exit);
    // That of `parallel` counts from 1.
    write_text(out, format_args!("{}\t", result.seq.0.saturating_add(1)));
    out.extend_from_slice(shown(worker).as_bytes());
    write_text(
        out,
        format_args!(
            "\t{started:.3}\t{ran:10.3}\t{send}\t{receive}\t{exitval}\t{signal}\t",
            started = result.started_us as f64 / 1e6,
            ran = result.ran_us as f64 / 1e6,
            send = result.task_bytes,
            receive = result.outcome.output.len(),
        ),
    );
    let command = result.reported.as_ref().map(|reported| &reported.command);
    out.extend_from_slice(shown_bytes(command.map_or(b"", |command| command)).as_bytes());
    out.push(b'\n');
}

fn ended(status: Status, exit: Exit) -> (i32, i32) {
    match (status, exit) {
        (Status::TimedOut, Exit::Signal(signal)) => (-1, signal),
        (Status::TimedOut, _) => (-1, SIGTERM),
        (_, Exit::Signal(signal)) => (0, signal),
        (Status::Ok | Status::Skipped, Exit::None) => (0, 0),
        (Status::Ok | Status::Skipped, Exit::Code(code)) => (code, 0),
        (_, Exit::None | Exit::Code(0)) => (-1, 0),
        (_, Exit::Code(code)) => (code, 0),
    }
}

fn write_text(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use tradewind_proto::Payload;
    use tradewind_proto::collector::Records;
    use tradewind_proto::message::Reported;

    use super::super::examples::{ended, never_ran, record, with};
    use super::*;

    fn check(records: &Records, wanted: &str) {
        let mut out = Vec::new();
        records.iter().for_each(|record| encode(record, &mut out));
        assert_eq!(String::from_utf8_lossy(&out), format!("{wanted}\n"));
    }

    #[test]
    fn a_record_has_the_columns_that_parallel_writes() {
        check(&record(0, "hi\n"), "1\tw1\t1767323045.679\t     1.500\t7\t3\t0\t0\techo hi");
        check(&never_ran(Status::Lost, "lost 3 workers"), "5\t\t0.000\t     0.000\t0\t0\t-1\t0\t");
        let long = with(record(9, ""), |result| result.ran_us = 1_234_567_890_123);
        check(&long, "10\tw1\t1767323045.679\t1234567.890\t7\t0\t0\t0\techo hi");
    }

    #[test]
    fn only_success_has_neither_exit_value_nor_signal() {
        let check = |status, exit, exitval: i32, signal: i32| {
            let wanted =
                format!("4\tw1\t1767323045.679\t     1.500\t7\t0\t{exitval}\t{signal}\techo hi");
            check(&ended(status, exit, ""), &wanted);
        };
        check(Status::Ok, Exit::None, 0, 0);
        check(Status::Ok, Exit::Code(0), 0, 0);
        check(Status::Skipped, Exit::None, 0, 0);
        check(Status::Skipped, Exit::Code(99), 99, 0);
        check(Status::Failed, Exit::Code(3), 3, 0);
        check(Status::Failed, Exit::Code(0), -1, 0);
        check(Status::Failed, Exit::Signal(11), 0, 11);
        check(Status::Failed, Exit::None, -1, 0);
        check(Status::TimedOut, Exit::Signal(9), -1, 9);
        check(Status::TimedOut, Exit::Code(0), -1, 15);
        check(Status::TimedOut, Exit::None, -1, 15);
        check(Status::Lost, Exit::None, -1, 0);
        check(Status::Cancelled, Exit::None, -1, 0);
        check(Status::Cancelled, Exit::Signal(15), 0, 15);
    }

    #[test]
    fn no_name_or_command_can_make_another_line_or_column() {
        let mut record = record(0, "");
        record.worker = "a\tb\nc".into();
        let command = Payload::from(b"printf 'a\\tb'\n\techo \xff\x1b]0;x\x07\xc2\x9b\r\n");
        record.results[0].reported = Some(Box::new(Reported { command, ..Reported::default() }));
        check(
            &record,
            "1\ta\\tb\\nc\t1767323045.679\t     1.500\t7\t0\t0\t0\tprintf 'a\\tb'\\n\\techo \\xff\\u{1b}]0;x\\u{7}\\u{9b}\\r\\n",
        );
    }
}
