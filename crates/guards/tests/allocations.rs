//! Number and bytes of the allocations in the hot loops: never above the bounds, and no more at the
//! end of a long job than at its beginning.

use std::thread;

use allocation_counter::{AllocationInfo, measure};
use tradewind_guards::{BATCH_TASKS, LOOPS, Loop, TASKS};

#[test]
fn no_loop_allocates_more_than_is_known_however_long_it_runs() {
    // Each thread's allocations are counted apart.
    let findings: Vec<String> = thread::scope(|scope| {
        let running = LOOPS.map(|each| scope.spawn(move || check(&each)));
        running.into_iter().flat_map(|thread| thread.join().expect("the loop runs")).collect()
    });
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

/// Returns the bounds that a loop exceeds.
fn check(each: &Loop) -> Vec<String> {
    let bound = each.bound();
    let [begun, short, long] =
        [TASKS, 2 * TASKS, 10 * TASKS].map(|tasks| (tasks, measure(|| (each.run)(tasks))));

    let mut findings = Vec::new();
    let mut at_most = |what: &str, found: f64, bound: f64| {
        eprintln!("{each}: {found:.2} {what}, at most {bound:.2}");
        if found > bound {
            findings.push(format!("{each}: {found:.2} {what}, more than {bound:.2}"));
        }
    };
    for (from, to, when) in [(begun, short, "at first"), (short, long, "later on")] {
        let per_task = |count: fn(&AllocationInfo) -> u64| {
            (count(&to.1) - count(&from.1)) as f64 / (to.0 - from.0) as f64
        };
        let allocations = per_task(|info| info.count_total) * BATCH_TASKS as f64;
        at_most(&format!("allocations a batch {when}"), allocations, bound.allocations);
        let bytes = per_task(|info| info.bytes_total);
        at_most(&format!("bytes a task {when}"), bytes, bound.bytes);
    }
    let (short, long) = (short.1, long.1);
    at_most("bytes at the most", long.bytes_max as f64, short.bytes_max as f64 * 1.1);
    at_most("bytes left behind", long.bytes_current as f64, short.bytes_current as f64);
    findings
}
