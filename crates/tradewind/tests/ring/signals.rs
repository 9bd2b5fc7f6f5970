//! Signals belong to the program, not to what it embeds.

use tradewind::JobOptions;

use crate::run;

/// Those that this process has handlers for, as a mask.
fn caught() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

#[test]
fn no_signal_is_taken_over_unasked() {
    const HANGUP: u64 = 1;
    const INTERRUPT: u64 = 2;
    const TERMINATE: u64 = 15;
    let (summary, _) = run(JobOptions::new(), ["a"], |worker| {
        worker.run(|task, _| {
            for signal in [HANGUP, INTERRUPT, TERMINATE] {
                assert_eq!(caught() >> (signal - 1) & 1, 0, "signal {signal}");
            }
            Ok::<_, String>(task.to_vec())
        })
    });
    assert_eq!(summary.failed, 0);
}
