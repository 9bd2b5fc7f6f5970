//! Asked to stop, however rudely, nothing is left behind.

use std::io::{BufRead, BufReader};

use tradewind_e2e::{
    Process, Scene, Signal, pause_between_signals, records, summary_counts, wait_until,
};

fn naps(count: usize, nap: &str) -> String {
    format!("{nap}\n").repeat(count)
}

fn sleeping(scene: &Scene, count: usize) {
    wait_until("commands run", || scene.count("sleep ") >= count);
}

#[test]
fn asked_once_it_finishes_what_runs() {
    let ways: [fn(&mut Process); 3] = [
        |run| run.signal_group(Signal::INT),
        |run| run.signal(Signal::INT),
        |run| run.signal(Signal::TERM),
    ];
    for stop in ways {
        let scene = Scene::new();
        let run = scene.run().words("-j 2 --format jsonl -- sleep");
        let mut run = run.input(naps(1000, "1")).start();
        sleeping(&scene, 2);
        stop(&mut run);
        let ended = run.wait().expect(130);
        // Those that ran have their records, and so may some that were handed out ahead.
        let count = ended.stdout.iter().filter(|byte| **byte == b'\n').count();
        assert!((2..=10).contains(&count), "{count} records");
        let records = records(&ended.stdout, count as u64);
        assert!(records.iter().all(|record| record.status == "ok"));
        assert!(ended.stderr.contains("again to cancel"), "{}", ended.stderr);
        scene.assert_nothing_left();
    }
}

#[test]
fn a_signal_to_the_program_and_to_its_group_is_one() {
    // As timeout(1) does it.
    let scene = Scene::new();
    let mut run = scene.run().words("-j 2 --format jsonl -- sleep").input(naps(1000, "1")).start();
    sleeping(&scene, 2);
    run.signal(Signal::TERM);
    run.signal_group(Signal::TERM);
    let ended = run.wait().expect(130);
    let count = ended.stdout.iter().filter(|byte| **byte == b'\n').count();
    let records = records(&ended.stdout, count as u64);
    assert!(count >= 2, "what ran has its record");
    assert!(records.iter().all(|record| record.status == "ok"), "{records:?}");
    assert!(!ended.stderr.contains("cancelling"), "{}", ended.stderr);
    scene.assert_nothing_left();
}

#[test]
fn asked_twice_it_cancels_what_runs() {
    let ways: [fn(&mut Process); 2] =
        [|run| run.signal_group(Signal::INT), |run| run.signal(Signal::INT)];
    for stop in ways {
        let scene = Scene::new();
        let run = scene.run().words("-j 2 --format jsonl -- sleep 1000");
        let mut run = run.input(naps(100, "1")).start();
        sleeping(&scene, 2);
        stop(&mut run);
        run.wait_for_stderr("again to cancel");
        pause_between_signals();
        stop(&mut run);
        let ended = run.wait().expect(130);
        let count = ended.stdout.iter().filter(|byte| **byte == b'\n').count();
        let records = records(&ended.stdout, count as u64);
        assert!(count >= 2, "what ran has its record");
        assert!(records.iter().all(|record| record.status == "cancelled"), "{records:?}");
        let counts = format!("{count} tasks: 0 ok, {count} cancelled");
        assert_eq!(summary_counts(&ended.stderr), Some(&counts[..]));
        scene.assert_nothing_left();
    }
}

#[test]
fn asked_three_times_it_leaves_at_once() {
    let scene = Scene::new();
    // These do not listen to TERM.
    let run = scene.run().words("-j 2").args(["--", "sh", "-c", "trap '' TERM; sleep 1000"]);
    let mut run = run.input(naps(100, "1")).start();
    sleeping(&scene, 2);
    run.signal(Signal::INT);
    run.wait_for_stderr("again to cancel");
    pause_between_signals();
    run.signal(Signal::INT);
    run.wait_for_stderr("cancelling");
    pause_between_signals();
    run.signal(Signal::INT);
    let _ = run.wait().expect(130);
    scene.assert_nothing_left();
}

#[test]
fn when_run_is_killed_all_of_it_ends() {
    let scene = Scene::new();
    let run = scene.run().words("-j 2 --workers 2 -- sleep 1000");
    let mut run = run.input(naps(100, "1")).start();
    sleeping(&scene, 2);
    run.kill();
    scene.assert_nothing_left();
}

#[test]
fn hangup_ends_all_of_it() {
    let scene = Scene::new();
    let run = scene.run().words("-j 2 -- sleep 1000");
    let mut run = run.input(naps(100, "1")).start();
    sleeping(&scene, 2);
    run.signal_group(Signal::HUP);
    let _ = run.wait().expect(130);
    scene.assert_nothing_left();
}

/// A worker with short tasks has some on deck, which begin without anybody being asked.
#[test]
fn what_is_on_deck_when_a_worker_leaves_is_begun_once() {
    const TASKS: usize = 3_000;
    let scene = Scene::new();
    let sink = scene.sink().words("--format jsonl").start();
    let ventilator = scene.ventilator().input(naps(TASKS, "")).start();
    let begun = scene.path("begun");
    let command = format!("echo $TRADEWIND_SEQ >> {}", begun.display());
    let worker = |name| {
        let worker = scene.worker(name).words("--slots 2 --exit-when-done");
        worker.args(["--", "sh", "-c", &command]).start()
    };
    let mut leaves = worker("leaves");
    wait_until("its tasks are known to be short", || sink.stdout_lines() >= TASKS / 10);
    leaves.signal(Signal::TERM);
    let _ = leaves.wait().expect(0);
    let has_left = sink.stdout_lines();
    assert!(has_left < TASKS, "something is left for another");
    let _ = worker("stays").wait().expect(0);
    let _ = ventilator.wait().expect(0);
    let ended = sink.wait().expect(0);
    let records = records(&ended.stdout, TASKS as u64);
    assert!(records.iter().all(|record| record.status == "ok"));
    let text = String::from_utf8(scene.read("begun")).unwrap();
    let mut seqs: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    seqs.sort();
    assert!(seqs.into_iter().eq(0..TASKS), "each has begun once");
    scene.assert_nothing_left();
}

#[test]
fn a_worker_that_is_asked_to_leave_finishes_what_it_runs() {
    let scene = Scene::new();
    let sink = scene.sink().words("--format jsonl").start();
    let ventilator = scene.ventilator().input(naps(40, "0.3")).start();
    let begun = scene.path("begun");
    let command = format!("echo $TRADEWIND_SEQ >> {}; exec sleep {{}}", begun.display());
    let worker = |name| {
        let worker = scene.worker(name).words("--slots 2 --exit-when-done");
        worker.args(["--", "sh", "-c", &command]).start()
    };
    let mut leaves = worker("leaves");
    wait_until("it has begun", || sink.stdout_lines() >= 2);
    leaves.signal(Signal::TERM);
    let stays = worker("stays");
    let _ = leaves.wait().expect(0);
    let ended = sink.wait().expect(0);
    let records = records(&ended.stdout, 40);
    for record in &records {
        assert_eq!(record.status, "ok", "{}", record.json);
    }
    // Nothing was begun twice, since nothing was lost. (A task that was on its way to the worker
    // is handed back as it comes, and its next attempt is its second.)
    let begun = String::from_utf8(scene.read("begun")).unwrap();
    let mut begun: Vec<u64> = begun.lines().map(|seq| seq.parse().unwrap()).collect();
    begun.sort_unstable();
    assert_eq!(begun, (0..40).collect::<Vec<_>>());
    assert!(records.iter().filter(|record| record.worker == "leaves").count() < 20);
    let _ = ventilator.wait().expect(0);
    let _ = stays.wait().expect(0);
    scene.assert_nothing_left();
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_job() {
    let scene = Scene::new();
    for command in ["--echo", "-- echo"] {
        let (reader, writer) = std::io::pipe().unwrap();
        let (lines, to_run) = std::io::pipe().unwrap();
        let mut yes = scene.other("yes").stdout(to_run).start();
        let run = scene.run().words("-j 2").words(command).stdin(lines).stdout(writer).start();
        let mut first = String::new();
        BufReader::new(reader).read_line(&mut first).unwrap();
        assert_eq!(first, "y\n");
        let ended = run.wait().expect(141);
        assert_eq!(ended.stderr, "");
        wait_until("what feeds it sees it go", || !yes.is_running());
        scene.assert_nothing_left();
    }
}

#[test]
fn a_command_that_goes_on_in_the_background_holds_nobody_up() {
    let scene = Scene::new();
    // It keeps neither the group nor the pipes of its task.
    let run = scene.run().args(["--", "sh", "-c", "sleep {} >/dev/null 2>&1 & echo done"]);
    assert_eq!(run.input("2\n").run().expect(0).text(), "done\n");
}

#[test]
fn all_that_are_asked_at_once_leave_by_themselves() {
    let scene = Scene::new();
    let sink = scene.sink().start();
    let worker = scene.worker("w").words("--slots 2 -- sleep").start();
    let ventilator = scene.ventilator().input(naps(1_000, "0.1")).start();
    wait_until("some have ended", || worker.stderr().contains("connected to the sink"));
    let mut all = [sink, worker, ventilator];
    for process in &mut all {
        process.signal(Signal::TERM);
    }
    let [sink, worker, ventilator] = all;
    sink.wait().expect(130);
    ventilator.wait().expect(130);
    worker.wait().expect(0);
    scene.assert_nothing_left();
}
