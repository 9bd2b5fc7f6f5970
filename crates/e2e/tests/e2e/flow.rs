//! Much work, much output, uneven workers: everything flows, and nothing piles up.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, Instant};

use tradewind_e2e::{
    MIB, Process, Scene, Signal, cpu_time, memory_bytes_max, records, wait_for, wait_until,
};

/// Memory of a process, in bytes: far more than is ever held, far less than went by.
const MEMORY_BYTES_MAX: u64 = 200 * MIB;

#[track_caller]
fn assert_small(processes: &[&Process]) {
    for process in processes {
        let bytes = memory_bytes_max(process.pid()).expect("it is running");
        assert!(bytes < MEMORY_BYTES_MAX, "{} MiB in {process:?}", bytes / MIB);
    }
}

#[test]
fn many_small_tasks_come_out_in_order() {
    let scene = Scene::new();
    let input: String = (0..200_000).map(|n| format!("task {n}\n")).collect();
    let ended = scene.run().arg("--echo").input(input.clone()).run().expect(0);
    assert!(ended.stdout == input.as_bytes(), "the output is not the input");
    assert!(ended.stderr.contains("200000 tasks: 200000 ok"), "{}", ended.stderr);
}

/// Returns the bytes that the ventilator has read, once that number no longer grows.
fn standstill(ventilator: &Process) -> u64 {
    /// Time without a byte after which no more are read.
    const STILL: Duration = Duration::from_secs(2);
    let mut last = (0, Instant::now());
    wait_for("the input is no longer read", || {
        let read = tradewind_e2e::bytes_read(ventilator.pid()).expect("it is running");
        if read != last.0 {
            last = (read, Instant::now());
        }
        (read > 0 && last.1.elapsed() > STILL).then_some(read)
    })
}

#[test]
fn an_output_that_nobody_reads_stops_the_input() {
    /// Bytes of input that are in all programs and their sockets together.
    const TAKEN_BYTES_MAX: u64 = 100 * MIB;
    let scene = Scene::new();
    for (line, payload) in [(20, "short lines"), (10_000, "long lines")] {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (lines, to_ventilator) = std::io::pipe().unwrap();
        // Endless, and numbered: what comes out tells what was left out.
        let format = format!("%0{line}.0f");
        let mut feed =
            scene.other("seq").args(["-f", &format, "1", "inf"]).stdout(to_ventilator).start();
        let sink = scene.sink().arg("-q").stdout(writer).start();
        let ventilator = scene.ventilator().arg("-q").stdin(lines).start();
        let worker = scene.worker("w").words("-q --exit-when-done --echo").start();
        let taken = standstill(&ventilator);
        eprintln!("{payload}: {} MiB were taken", taken / MIB);
        assert!(taken < TAKEN_BYTES_MAX, "{payload}: {taken} bytes were read ahead");
        assert_small(&[&sink, &ventilator, &worker]);

        // The end of the input, and a reader after all.
        feed.kill();
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        let (mut count, mut torn) = (0, 0);
        for found in text.split(|byte| *byte == b'\n').filter(|found| !found.is_empty()) {
            count += 1;
            let number = std::str::from_utf8(found).unwrap();
            // The feed was killed in the middle of a line.
            if number.len() == line {
                assert_eq!(number.parse::<u64>().unwrap(), count, "{payload}");
            } else {
                torn += 1;
            }
        }
        assert!(torn <= 1, "{payload}: {torn} lines are torn");
        assert!(text.len() as u64 >= taken.saturating_sub(line as u64), "{payload}");
        let _ = sink.wait().expect(0);
        let _ = ventilator.wait().expect(0);
        let _ = worker.wait().expect(0);
    }
    scene.assert_nothing_left();
}

#[test]
fn outputs_larger_than_all_memory_bounds_pass_in_order() {
    let scene = Scene::new();
    // 64 MiB through four slots: the earlier of a pair ends later.
    let script =
        "[ $(({#} % 2)) = 1 ] && sleep 0.05; head -c 1048576 /dev/zero | tr '\\0' x; echo $1";
    let (mut reader, writer) = std::io::pipe().unwrap();
    let sink = scene.sink().stdout(writer).start();
    let input: String = (0..64).map(|n| format!("{n}\n")).collect();
    let ventilator = scene.ventilator().input(input).start();
    let worker =
        scene.worker("w").words("--slots 4").args(["--", "sh", "-c", script, "sh", "{}"]).start();
    let mut text = String::new();
    let reading = std::thread::spawn(move || reader.read_to_string(&mut text).map(|_| text));
    let numbers: Vec<usize> = reading
        .join()
        .unwrap()
        .unwrap()
        .lines()
        .map(|line| line.trim_start_matches('x').parse().unwrap())
        .collect();
    assert_eq!(numbers, (0..64).collect::<Vec<_>>());
    assert_small(&[&worker]);
    let _ = sink.wait().expect(0);
    let _ = ventilator.wait().expect(0);
}

#[test]
fn a_slow_worker_gets_the_work_that_it_can_do() {
    let scene = Scene::new();
    let sink = scene.sink().words("--format jsonl").start();
    let worker = |name, nap| {
        scene.worker(name).words("-q --slots 1").args(["--", "sh", "-c", nap, "{}"]).start()
    };
    let workers = [
        worker("fast1", "sleep 0.05"),
        worker("fast2", "sleep 0.05"),
        worker("fast3", "sleep 0.05"),
        worker("slow", "sleep 0.5"),
    ];
    let mut ventilator = scene.ventilator().keep_stdin().start();
    // Late ones would get less.
    wait_until("all workers have joined", || {
        ventilator.stderr().matches("worker joins").count() == workers.len()
    });
    let input: String = (0..310).map(|n| format!("{n}\n")).collect();
    std::io::Write::write_all(ventilator.stdin().unwrap(), input.as_bytes()).unwrap();
    ventilator.close_stdin();
    let mut counts = BTreeMap::<String, u64>::new();
    for record in records(&sink.wait().expect(0).stdout, 310) {
        *counts.entry(record.worker).or_default() += 1;
    }
    eprintln!("{counts:?}");
    // At ten times the speed each fast one does about a hundred, the slow one about ten. Starting
    // a process takes its time too, on a busy machine: hence the width of the band.
    let slow = counts["slow"];
    for fast in ["fast1", "fast2", "fast3"] {
        assert!((slow * 5..=slow * 20).contains(&counts[fast]), "{counts:?}");
    }
    for mut worker in workers {
        worker.signal(Signal::TERM);
        let _ = worker.wait().expect(0);
    }
    let _ = ventilator.wait().expect(0);
}

#[test]
fn what_waits_behind_a_long_task_is_run_by_a_worker_that_comes_late() {
    let scene = Scene::new();
    let dir = scene.dir().display().to_string();
    // The last task but one ends when the last has run, which is queued behind it.
    let script = format!(
        "cd {dir}; case $1 in wait) touch began; until [ -e made ]; do sleep 0.01; done;; \
         make) touch made;; esac; echo $1"
    );
    let worker = |name| {
        let words = "-q --slots 1 --exit-when-done";
        scene.worker(name).words(words).args(["--", "sh", "-c", &script, "sh", "{}"]).start()
    };
    let sink = scene.sink().words("--format jsonl").start();
    let early = worker("early");
    let input = format!("{}wait\nmake\n", "short\n".repeat(100));
    let ventilator = scene.ventilator().input(input).start();
    wait_until("the long task runs", || scene.path("began").exists());
    let late = worker("late");
    let records = records(&sink.wait().expect(0).stdout, 102);
    assert_eq!(records[101].worker, "late");
    assert!(records.iter().all(|record| record.attempt == 1), "nothing was begun twice");
    for process in [ventilator, early, late] {
        let _ = process.wait().expect(0);
    }
}

#[test]
fn idle_programs_rest() {
    /// Time without work.
    const IDLE: Duration = Duration::from_secs(3);
    /// Processor time of a program in it: a fifth, since others run on the machine as well.
    const IDLE_CPU_TIME_MAX: Duration = Duration::from_millis(600);
    let scene = Scene::new();
    let sink = scene.sink().start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    let worker = scene.worker("w").words("--slots 4 --echo").start();
    ventilator.wait_for_stderr("worker joins");
    let used = || {
        let of = |process: &Process| cpu_time(process.pid()).expect("it runs");
        [&sink, &ventilator, &worker].map(of)
    };
    let (before, began) = (used(), Instant::now());
    wait_until("some time has passed", || began.elapsed() > IDLE);
    for (before, after) in before.into_iter().zip(used()) {
        let used = after - before;
        assert!(used < IDLE_CPU_TIME_MAX, "{used:?} of processor time in {IDLE:?}");
    }
}

#[test]
fn as_many_workers_come_as_files_may_be_open_at_all() {
    // A connection takes three, and a soft limit is only where a process begins.
    const SOFT_LIMIT: usize = 64;
    const WORKERS: usize = 30;
    let scene = Scene::new();
    let tcp = |address: std::net::SocketAddrV4| format!("tcp://{address}");
    let limited = |name: &str| {
        let shell = format!("ulimit -Sn {SOFT_LIMIT}; exec \"$0\" \"$@\"");
        scene.other("sh").args(["-c", &shell]).arg(tradewind_e2e::program(name))
    };
    let mut ventilator = limited("ventilator")
        .args(["--tasks", &tcp(scene.tasks()), "--receipts", &tcp(scene.receipts())])
        .args(["--sink", &tcp(scene.results())])
        // At `info` the workers of one host are counted, not told one by one.
        .args(["--log", "tradewind_node=debug"])
        .keep_stdin()
        .start();
    let sink = limited("sink")
        .args(["--listen", &tcp(scene.results()), "--ventilator", &tcp(scene.receipts())])
        .start();
    let workers: Vec<Process> = (0..WORKERS)
        .map(|n| scene.worker(&format!("w{n}")).words("--echo --exit-when-done --slots 1").start())
        .collect();
    wait_until("all have joined", || {
        ventilator.stderr().matches("worker joins").count() == WORKERS
    });
    ventilator.close_stdin();
    sink.wait().expect(0);
    ventilator.wait().expect(0);
    workers.into_iter().for_each(|worker| drop(worker.wait().expect(0)));
    scene.assert_nothing_left();
}
