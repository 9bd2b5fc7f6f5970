//! A sink or a ventilator that dies, or is stopped, and goes on where it was.

use tradewind_e2e::{
    PATIENCE, Process, Scene, Signal, Start, pause_between_signals, records, wait_for_as_long_as,
    wait_until,
};
use tradewind_node::exit::OUTPUT;

/// Notes each run of a task in the scene's `runs`, takes a moment, and says what it was.
const NOTED: &str = "echo $1 >> runs; sleep 0.02; echo $1";

fn numbers(count: u64) -> String {
    (0..count).map(|n| format!("{n}\n")).collect()
}

fn noted(scene: &Scene, name: &str) -> Start {
    let worker = scene.worker(name).words("--slots 2 --exit-when-done");
    worker.args(["--", "sh", "-c", NOTED, "sh", "{}"])
}

/// Number of runs of each task.
#[track_caller]
fn assert_each_ran_once(scene: &Scene, count: u64) {
    let runs = String::from_utf8(scene.read("runs")).expect("it is text");
    let mut runs: Vec<u64> = runs.lines().map(|line| line.parse().expect("a number")).collect();
    runs.sort_unstable();
    assert!(runs.iter().copied().eq(0..count), "each ran once: {runs:?}");
}

fn lines(scene: &Scene, file: &str) -> usize {
    scene.read(file).iter().filter(|byte| **byte == b'\n').count()
}

#[track_caller]
fn wait_for_lines(scene: &Scene, file: &str, count: usize) {
    wait_until("there are so many records", || lines(scene, file) >= count);
}

/// All that is left beside the output once nothing is left to do is its journal.
#[track_caller]
fn assert_only_journal(scene: &Scene) {
    let names = std::fs::read_dir(scene.dir()).expect("the directory can be read");
    let names = names.map(|entry| entry.expect("it can be read").file_name());
    let left: Vec<_> = names.filter(|n| n.to_string_lossy().contains(".tradewind")).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].to_string_lossy().ends_with(".tradewind"), "{left:?}");
}

const COUNT: u64 = 200;

/// Records of one commit: two tasks at a time take 20 ms each.
const UNJOURNALED_MAX: usize = 8;

#[test]
fn a_sink_that_is_killed_goes_on_with_its_output() {
    for flags in [
        "--output out.jsonl",
        "--output out.jsonl --ordered --fsync batch",
        "--output out --format lines",
        "--output out --format lines --joblog log --fsync record",
        "--output out.jsonl --joblog log --overwrite",
    ] {
        eprintln!("{flags}");
        let scene = Scene::new();
        let file = flags.split(' ').nth(1).expect("a name");
        let mut sink = scene.sink().words(flags).start();
        let worker = noted(&scene, "w").start();
        let ventilator = scene.ventilator().input(numbers(COUNT)).words("--quiet").start();
        for part in [10, 60, 120] {
            wait_for_lines(&scene, file, part);
            sink.kill();
            sink = scene.sink().words(flags).start();
        }
        ventilator.wait().expect(0);
        worker.wait().expect(0);
        sink.wait().expect(0);
        if file == "out.jsonl" {
            let records = records(&scene.read(file), COUNT);
            assert!(records.iter().all(|record| record.status == "ok" && record.attempt == 1));
        } else {
            assert_eq!(String::from_utf8_lossy(&scene.read(file)), numbers(COUNT));
        }
        if flags.contains("joblog") {
            let log = String::from_utf8(scene.read("log")).expect("it is text");
            let mut seqs: Vec<u64> = log.lines().skip(1).map(first_number).collect();
            seqs.sort_unstable();
            assert!(seqs.into_iter().eq(1..=COUNT), "{log}");
            assert_eq!(log.matches("Seq").count(), 1, "one header");
        }
        assert_each_ran_once(&scene, COUNT);
        assert_only_journal(&scene);
        scene.assert_nothing_left();
    }
}

fn first_number(line: &str) -> u64 {
    line.split('\t').next().and_then(|text| text.parse().ok()).expect("a line begins with a number")
}

#[test]
fn a_sink_on_stdout_goes_on_if_a_joblog_says_what_was_written() {
    let scene = Scene::new();
    let flags = "--format lines --joblog log";
    let mut first = scene.sink().words(flags).start();
    let worker = noted(&scene, "w").start();
    let ventilator = scene.ventilator().input(numbers(COUNT)).words("--quiet").start();
    wait_until("records are stored", || lines(&scene, "log") > 40);
    first.kill();
    let written = first.wait();
    let second = scene.sink().words(flags).start();
    ventilator.wait().expect(0);
    worker.wait().expect(0);
    let second = second.wait().expect(0);
    // What was written and not yet noted when it died is written again.
    let (before, after) = (written.text(), second.text());
    let first_after = after.lines().next().expect("there is more").parse().expect("a number");
    let kept: String = before.lines().take(first_after).map(|line| format!("{line}\n")).collect();
    assert_eq!(kept + after, numbers(COUNT));
    assert_each_ran_once(&scene, COUNT);
}

#[test]
fn a_ventilator_that_is_killed_goes_on_with_resume() {
    let scene = Scene::new();
    scene.file("in", numbers(COUNT));
    let sink = scene.sink().words("--output out.jsonl --ordered").start();
    let workers = [noted(&scene, "a").start(), noted(&scene, "b").start()];
    let resumed = || scene.ventilator().words("--quiet --input in --resume").start();
    let mut ventilator = resumed();
    for part in [10, 60, 120] {
        wait_for_lines(&scene, "out.jsonl", part);
        ventilator.kill();
        ventilator = resumed();
    }
    ventilator.wait().expect(0);
    for worker in workers {
        worker.wait().expect(0);
    }
    sink.wait().expect(0);
    let seqs: Vec<u64> = String::from_utf8(scene.read("out.jsonl"))
        .expect("it is text")
        .lines()
        .map(|line| line[7..].split(',').next().expect("a seq").parse().expect("a number"))
        .collect();
    assert!(seqs.into_iter().eq(0..COUNT), "in order");
    assert_each_ran_once(&scene, COUNT);
    assert_only_journal(&scene);
    scene.assert_nothing_left();
}

#[test]
fn a_ventilator_goes_on_beside_a_sink_without_a_journal() {
    let scene = Scene::new();
    scene.file("in", numbers(COUNT));
    let sink = scene.sink().start();
    let worker = noted(&scene, "w").start();
    let resumed = || scene.ventilator().words("--quiet --input in --resume").start();
    let mut ventilator = resumed();
    wait_until("records are stored", || sink.stdout_lines() > 40);
    ventilator.kill();
    resumed().wait().expect(0);
    worker.wait().expect(0);
    let ended = sink.wait().expect(0);
    assert_eq!(ended.text(), numbers(COUNT));
    assert_eq!(ended.stderr.matches("there is no journal").count(), 1, "{}", ended.stderr);
    assert_each_ran_once(&scene, COUNT);
}

#[test]
fn a_long_task_outlives_the_ventilator_and_the_sink() {
    let scene = Scene::new();
    let flags = "--output out.jsonl";
    let mut sink = scene.sink().words(flags).start();
    let worker = scene.worker("w").words("--slots 1 --exit-when-done");
    let worker =
        worker.args(["--", "sh", "-c", "echo $1 >> runs; sleep $1; echo done", "sh", "{}"]).start();
    scene.file("in", "60\n");
    let resumed = || scene.ventilator().words("--quiet --input in --resume").start();
    let mut ventilator = resumed();
    wait_until("the task runs", || lines(&scene, "runs") == 1);
    ventilator.kill();
    ventilator = resumed();
    sink.kill();
    sink = scene.sink().words(flags).start();
    // Once with the worker back at both, once with both gone at a time.
    wait_until("the worker is back", || {
        worker.stderr().matches("connected to the sink").count() == 2
            && worker.stderr().matches("connected to the ventilator").count() == 2
    });
    ventilator.kill();
    sink.kill();
    sink = scene.sink().words(flags).start();
    ventilator = resumed();
    wait_for_as_long_as(2 * PATIENCE, "the long task ends", || {
        (lines(&scene, "out.jsonl") == 1).then_some(())
    });
    ventilator.wait().expect(0);
    worker.wait().expect(0);
    sink.wait().expect(0);
    let records = records(&scene.read("out.jsonl"), 1);
    assert_eq!(records[0].output.as_deref(), Some("done\n"));
    assert!(records[0].json["seconds"].as_f64().is_some_and(|seconds| seconds >= 60.0));
    assert_eq!(scene.read("runs"), b"60\n", "it ran once");
}

/// A job by `tradewind run` that was killed in the middle of it.
fn killed_run(scene: &Scene, flags: &str) {
    let mut run = noted_run(scene, flags).start();
    wait_for_lines(scene, "out.jsonl", 20);
    run.kill();
    scene.assert_nothing_left();
    assert!(lines(scene, "out.jsonl") < COUNT as usize);
}

fn noted_run(scene: &Scene, flags: &str) -> Start {
    scene.file("in", numbers(COUNT));
    let run = scene.run().words("-q -j 2 --input in --output out.jsonl").words(flags);
    run.args(["--", "sh", "-c", NOTED, "sh", "{}"])
}

#[test]
fn a_run_that_is_killed_goes_on_with_resume() {
    for flags in ["--unordered", "--ordered"] {
        let scene = Scene::new();
        killed_run(&scene, flags);
        let without_record = lines(&scene, "runs") - lines(&scene, "out.jsonl");
        noted_run(&scene, &format!("{flags} --resume")).run().expect(0);
        let records = records(&scene.read("out.jsonl"), COUNT);
        assert!(records.iter().all(|record| record.status == "ok"));
        // What had begun and had no record was run again, and nothing else but the last records: they
        // may have been written, and the journal not yet.
        let runs = lines(&scene, "runs");
        let again = runs - COUNT as usize;
        assert!(again <= without_record + UNJOURNALED_MAX, "{again}, {without_record}");
        assert_only_journal(&scene);
    }
}

#[test]
fn another_input_is_refused_with_the_first_place_where_it_differs() {
    let scene = Scene::new();
    killed_run(&scene, "");
    let before = scene.read("out.jsonl");
    let changed = numbers(COUNT).replacen("\n2\n", "\nnot 2\n", 1);
    scene.file("other", changed);
    let other = scene.run().words("-q --input other --output out.jsonl --resume");
    let ended = other.args(["--", "sh", "-c", NOTED, "sh", "{}"]).run().expect(7);
    assert!(ended.stderr.contains("number 3 of its tasks was another one"), "{}", ended.stderr);
    assert_eq!(scene.read("out.jsonl"), before, "nothing was touched");
    noted_run(&scene, "--resume").run().expect(0);
    let _ = records(&scene.read("out.jsonl"), COUNT);
}

#[test]
fn an_output_with_something_in_it_is_not_for_a_new_job() {
    let scene = Scene::new();
    killed_run(&scene, "");
    let before = scene.read("out.jsonl");
    let ended = noted_run(&scene, "").run();
    assert_ne!(ended.code(), 0);
    assert!(ended.stderr.contains("--resume continues it"), "{}", ended.stderr);
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{}", ended.stderr);
    assert_eq!(scene.read("out.jsonl"), before);
    noted_run(&scene, "--overwrite").run().expect(0);
    let _ = records(&scene.read("out.jsonl"), COUNT);
    let ended = noted_run(&scene, "").run();
    assert_ne!(ended.code(), 0);
    assert!(ended.stderr.contains("which is complete"), "{}", ended.stderr);
}

#[test]
fn what_failed_is_run_again_when_asked_for() {
    for flags in ["--unordered", "--ordered", "--joblog log"] {
        let scene = Scene::new();
        scene.file("in", numbers(30));
        let run = |more: &str| {
            let run = scene.run().words("-j 3 --input in --output out.jsonl");
            let run = run.words(flags).words(more);
            let odd = "echo $1 >> runs; test -e all-is-well || test $(($1 % 5)) -ne 1; echo $1";
            run.args(["--", "sh", "-ec", odd, "sh", "{}"]).run()
        };
        let ended = run("").expect(1);
        let hint = "to retry tasks that are not ok: the same command with --resume --retry-failed";
        assert!(ended.stderr.contains(hint), "{}", ended.stderr);
        let failed = |scene: &Scene| {
            let records = records(&scene.read("out.jsonl"), 30);
            records.iter().filter(|record| record.status == "failed").count()
        };
        assert_eq!(failed(&scene), 6);
        run("--resume").expect(1);
        assert_eq!(lines(&scene, "runs"), 30, "a resume alone runs nothing again");
        scene.file("all-is-well", "");
        run("--resume --retry-failed").expect(0);
        assert_eq!(failed(&scene), 0);
        assert_eq!(lines(&scene, "runs"), 36, "only what failed");
        if flags == "--ordered" {
            let text = String::from_utf8(scene.read("out.jsonl")).expect("it is text");
            let seqs: Vec<u64> = text
                .lines()
                .map(|line| line[7..].split(',').next().expect("a seq").parse().expect("a number"))
                .collect();
            assert!(seqs.into_iter().eq(0..30), "in order: {text}");
        }
        assert_only_journal(&scene);
    }
}

#[test]
fn a_job_that_was_stopped_goes_on_with_resume() {
    for signals in [1, 2] {
        let scene = Scene::new();
        let mut run = noted_run(&scene, "").start();
        wait_for_lines(&scene, "out.jsonl", 20);
        for signal in 0..signals {
            if signal > 0 {
                pause_between_signals();
            }
            run.signal(Signal::INT);
        }
        run.wait().expect(130);
        scene.assert_nothing_left();
        assert!(lines(&scene, "out.jsonl") < COUNT as usize);
        noted_run(&scene, "--resume").run().expect(0);
        let records = records(&scene.read("out.jsonl"), COUNT);
        assert!(records.iter().all(|record| record.status == "ok"));
        assert_only_journal(&scene);
    }
}

#[test]
fn a_sink_that_is_stopped_is_waited_for() {
    let scene = Scene::new();
    let flags = "--output out.jsonl";
    let mut sink = scene.sink().words(flags).start();
    let worker = noted(&scene, "w").start();
    let ventilator = scene.ventilator().input(numbers(COUNT)).words("--quiet").start();
    wait_for_lines(&scene, "out.jsonl", 20);
    sink.signal(Signal::TERM);
    let ended = sink.wait().expect(130);
    assert!(ended.stderr.contains("start it again to resume"), "{}", ended.stderr);
    let sink = scene.sink().words(flags).start();
    ventilator.wait().expect(0);
    worker.wait().expect(0);
    sink.wait().expect(0);
    let _ = records(&scene.read("out.jsonl"), COUNT);
    assert_each_ran_once(&scene, COUNT);
}

#[test]
fn an_output_that_is_removed_is_written_again() {
    let scene = Scene::new();
    let sink = scene.sink().words("--output out.jsonl --joblog log").start();
    let worker = noted(&scene, "w").start();
    let ventilator = scene.ventilator().input(numbers(COUNT)).words("--quiet").start();
    wait_for_lines(&scene, "out.jsonl", 20);
    std::fs::remove_file(scene.path("out.jsonl")).expect("it is there");
    wait_for_lines(&scene, "out.jsonl", 60);
    std::fs::remove_file(scene.path("log")).expect("it is there");
    ventilator.wait().expect(0);
    worker.wait().expect(0);
    let ended = sink.wait().expect(0);
    assert_eq!(ended.stderr.matches("was removed").count(), 2, "{}", ended.stderr);
    let _ = records(&scene.read("out.jsonl"), COUNT);
    assert_eq!(lines(&scene, "log"), COUNT as usize + 1);
    assert_each_ran_once(&scene, COUNT);
}

#[test]
fn an_output_that_was_replaced_is_not_touched() {
    let scene = Scene::new();
    let mut sink = scene.sink().words("--output out.jsonl").start();
    let worker = noted(&scene, "w").start();
    let ventilator = scene.ventilator().input(numbers(COUNT)).words("--quiet").start();
    wait_for_lines(&scene, "out.jsonl", 20);
    std::fs::rename(scene.path("out.jsonl"), scene.path("moved")).expect("it is there");
    scene.file("out.jsonl", "precious");
    sink.wait_for_stderr("was replaced by another file");
    assert_eq!(scene.read("out.jsonl"), b"precious");
    std::fs::rename(scene.path("moved"), scene.path("out.jsonl")).expect("it is there");
    ventilator.wait().expect(0);
    worker.wait().expect(0);
    sink.wait().expect(0);
    let _ = records(&scene.read("out.jsonl"), COUNT);
    assert_each_ran_once(&scene, COUNT);
}

// Fails if a sink that is to end where its output cannot be written waits until somebody moves a file away.
#[test]
fn a_sink_that_is_not_to_wait_ends_where_its_output_was_replaced() {
    let scene = Scene::new();
    let sink = scene.sink().words("--output out.jsonl --when-full exit").start();
    let _worker = noted(&scene, "w").start();
    let _ventilator = scene.ventilator().input(numbers(COUNT)).words("--quiet").start();
    wait_for_lines(&scene, "out.jsonl", 20);
    std::fs::rename(scene.path("out.jsonl"), scene.path("moved")).expect("it is there");
    scene.file("out.jsonl", "precious");
    let ended = sink.wait().expect(OUTPUT.into());
    assert!(ended.stderr.contains("was replaced by another file"), "{}", ended.stderr);
    assert_eq!(scene.read("out.jsonl"), b"precious");
}

#[test]
fn two_sinks_do_not_share_an_output() {
    let scene = Scene::new();
    let mut sink = scene.sink().words("--output out.jsonl").start();
    sink.wait_for_stderr("the sink is up");
    let other = Scene::new();
    let path = scene.path("out.jsonl");
    let ended = other.sink().arg("--output").arg(&path).run().expect(4);
    assert!(ended.stderr.contains("is in use by another process"), "{}", ended.stderr);
    sink.kill();
}

/// Whatever is left of a process that was stopped is not of interest.
fn forget(mut process: Process) {
    process.kill();
}

#[test]
fn whoever_waits_for_a_stuck_output_is_told_so() {
    let scene = Scene::new();
    let sink = scene.sink().words("-q --format jsonl --output /dev/full").start();
    let worker = noted(&scene, "w").start();
    let mut ventilator = scene.ventilator().input(numbers(COUNT)).start();
    ventilator.wait_for_stderr("waiting for the sink's output");
    forget(ventilator);
    forget(sink);
    forget(worker);
}
