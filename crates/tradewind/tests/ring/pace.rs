//! Many tasks, and who sets the pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use futures::StreamExt;
use tradewind::JobOptions;

use crate::{another_job, ring, run, start};

#[test]
fn ten_thousand_tasks_have_their_records_in_order() {
    let tasks = (0..10_000).map(|n| n.to_string());
    let (summary, records) = run(JobOptions::new(), tasks.clone(), |worker| {
        worker.run(|task, _| Ok::<_, String>(task.to_vec()))
    });
    assert_eq!((summary.tasks, summary.failed), (10_000, 0));
    assert!(records.iter().map(|record| record.seq).eq(0..10_000));
    assert!(tasks.eq(records.iter().map(|record| String::from_utf8_lossy(&record.output))));
}

#[test]
fn tasks_and_records_can_be_streams() {
    let (ventilator, worker, sink) = ring(JobOptions::new());
    let job = thread::spawn(move || {
        let tasks = futures::stream::iter(0..1_000).then(|n| async move {
            if n % 100 == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            n.to_string()
        });
        ventilator.run_stream(tasks)
    });
    let worker = thread::spawn(move || worker.run_async(|task, _| async { Ok::<_, String>(task) }));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outputs: Vec<_> = runtime.block_on(
        sink.ordered(false).stream().unwrap().map(|record| record.unwrap().output).collect(),
    );
    let mut numbers: Vec<u32> =
        outputs.iter().map(|output| str::from_utf8(output).unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..1_000));
    assert_eq!(job.join().unwrap().unwrap().tasks, 1_000);
    worker.join().unwrap().unwrap();
}

#[test]
fn a_program_that_takes_records_slowly_slows_the_taking_of_tasks() {
    const TASK_BYTES: u64 = 16 << 10;
    const TASKS: u64 = 4_000;
    // What the ventilator keeps is 24 MiB, and some is on the way between threads.
    const AHEAD_MAX: u64 = (26 << 20) / TASK_BYTES;
    // So far it gets in any case, though not all that was taken may be known to be.
    const AHEAD_MIN: u64 = (16 << 20) / TASK_BYTES;

    let (given, taken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let ahead_max = Arc::new(AtomicU64::new(0));
    let tasks = {
        let (given, taken) = (Arc::clone(&given), Arc::clone(&taken));
        let ahead_max = Arc::clone(&ahead_max);
        (0..TASKS).map(move |n| {
            let ahead = given.fetch_add(1, Ordering::SeqCst) - taken.load(Ordering::SeqCst);
            ahead_max.fetch_max(ahead, Ordering::SeqCst);
            format!("{n:0width$}", width = TASK_BYTES as usize)
        })
    };
    let (ventilator, worker, sink) = ring(JobOptions::new());
    let (job, worker) = start((ventilator, worker), tasks, |worker| {
        worker.run(|task, _| Ok::<_, String>(task.to_vec()))
    });
    let mut records = sink.records().unwrap();
    for seq in 0..TASKS {
        while given.load(Ordering::SeqCst) < (seq + AHEAD_MIN).min(TASKS) {
            thread::yield_now();
        }
        if seq % 1_000 == 0 {
            another_job();
        }
        assert_eq!(records.next().unwrap().unwrap().seq, seq);
        taken.fetch_add(1, Ordering::SeqCst);
    }
    assert!(records.next().is_none());
    assert_eq!(job.join().unwrap().unwrap().tasks, TASKS);
    worker.join().unwrap().unwrap();
    let ahead = ahead_max.load(Ordering::SeqCst);
    assert!((AHEAD_MIN - 1..=AHEAD_MAX).contains(&ahead), "{ahead} tasks ahead of the records");
}
