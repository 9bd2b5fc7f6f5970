//! The job in one line.

use std::fmt::Write;
use std::time::Duration;

use tradewind_proto::collector::Counts;

/// Returns the numbers of tasks by status, in a line.
pub(crate) fn summary(counts: &Counts, took: Duration) -> String {
    let total = counts.total();
    let mut line =
        format!("{total} {}: {} ok", if total == 1 { "task" } else { "tasks" }, counts.ok);
    for (count, word) in [
        (counts.skipped, "skipped"),
        (counts.failed, "failed"),
        (counts.timed_out, "timed out"),
        (counts.lost, "lost"),
        (counts.cancelled, "cancelled"),
    ] {
        if count > 0 {
            let _ = write!(line, ", {count} {word}");
        }
    }
    let _ = write!(line, ", in {:.2} s", took.as_secs_f64());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_named() {
        let took = Duration::from_millis(1_234);
        let counts = Counts { ok: 7, failed: 2, cancelled: 1, ..Counts::default() };
        assert_eq!(summary(&counts, took), "10 tasks: 7 ok, 2 failed, 1 cancelled, in 1.23 s");
        let counts = Counts { ok: 1, skipped: 1, ..Counts::default() };
        assert_eq!(summary(&counts, took), "2 tasks: 1 ok, 1 skipped, in 1.23 s");
        let counts = Counts { ok: 1, ..Counts::default() };
        assert_eq!(summary(&counts, took), "1 task: 1 ok, in 1.23 s");
    }
}
