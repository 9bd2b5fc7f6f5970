//! Asked to stop, however rudely, nothing is left behind.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process_group};
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
fn asked_a_third_time_it_does_not_wait_for_commands_that_were_cancelled() {
    // The third time comes before the job is over, or after it.
    for waits_for in ["cancelling", "not run"] {
        let scene = Scene::new();
        let ignoring = ["--", "sh", "-c", "trap '' TERM; sleep 1000; :"];
        let run = scene.run().words("-j 2 --termseq TERM,60000,KILL").args(ignoring);
        let mut run = run.input(naps(100, "1")).start();
        sleeping(&scene, 2);
        run.signal(Signal::INT);
        run.wait_for_stderr("again to cancel");
        pause_between_signals();
        run.signal(Signal::INT);
        run.wait_for_stderr(waits_for);
        pause_between_signals();
        let asked = Instant::now();
        run.signal(Signal::INT);
        let _ = run.wait().expect(130);
        assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
        scene.assert_nothing_left();
    }
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

/// A worker with short tasks has some in its run queue, which begin without the loop being asked.
#[test]
fn tasks_in_the_run_queue_of_a_worker_that_leaves_are_begun_once() {
    const TASKS: usize = 3_000;
    let scene = Scene::new();
    let sink = scene.sink().words("--format jsonl").start();
    let ventilator = scene.ventilator().input(naps(TASKS, "")).start();
    let begun = scene.path("begun");
    let command = format!("echo $TRADEWIND_SEQ >> {}", begun.display());
    let worker = |name| {
        let worker = scene.worker(name).words("--slots 2 --exit-when-done");
        worker.args(["--", "sh", "-c", &command, "sh", "{}"]).start()
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
    let command = format!("echo $TRADEWIND_SEQ >> {}; exec sleep $1", begun.display());
    let worker = |name| {
        let worker = scene.worker(name).words("--slots 2 --exit-when-done");
        worker.args(["--", "sh", "-c", &command, "sh", "{}"]).start()
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

/// As a service manager, a batch system or a shutdown does it: all there is gets the signal, in any
/// order.
#[test]
fn what_ends_a_command_together_with_its_worker_is_not_the_tasks_failure() {
    for (signal, ends) in [
        (Signal::TERM, "exec sleep 1000"),
        (Signal::INT, "exec sleep 1000"),
        (Signal::TERM, "trap 'exit 143' TERM; sleep 1000 & wait"),
    ] {
        for is_worker_first in [true, false] {
            let scene = Scene::new();
            let sink = scene.sink().words("--format jsonl").start();
            let ventilator = scene.ventilator().input(naps(2, "x")).start();
            let pids = scene.path("pids");
            let command = format!("echo $$ >> {}; {ends}", pids.display());
            let leaves = scene.worker("leaves").words("--slots 2 --exit-when-done");
            let mut leaves = leaves.args(["--", "bash", "-c", &command]).start();
            wait_until("both have begun", || {
                let pids = std::fs::read_to_string(&pids).unwrap_or_default();
                pids.lines().count() == 2
                    && (ends.starts_with("exec") || scene.count("sleep ") == 2)
            });
            if is_worker_first {
                leaves.signal(signal);
            }
            for pid in String::from_utf8(scene.read("pids")).unwrap().lines() {
                let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
                kill_process_group(pid, signal).unwrap();
            }
            if !is_worker_first {
                leaves.signal(signal);
            }
            let stays = scene.worker("stays").words("--exit-when-done -- echo {}").start();
            let _ = leaves.wait().expect(0);
            let ended = sink.wait().expect(0);
            for record in &records(&ended.stdout, 2) {
                assert_eq!(record.status, "ok", "{}", record.json);
                assert_eq!(record.worker, "stays");
            }
            let _ = ventilator.wait().expect(0);
            let _ = stays.wait().expect(0);
            scene.assert_nothing_left();
        }
    }
}

#[test]
fn a_command_that_somebody_ends_has_failed() {
    let scene = Scene::new();
    let words = "-j1 --format jsonl -- sh -c";
    let ended = scene.run().words(words).args(["kill -TERM $$"]).input("x\n").run().expect(1);
    assert!(ended.stdout.windows(22).any(|at| at == b"killed by signal 15 (S"));
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
fn a_reader_that_has_seen_enough_is_no_loss_of_workers() {
    let scene = Scene::new();
    let input: String = (0..100_000).map(|number| format!("{number}\n")).collect();
    // The workers may leave before the ventilator has been told to.
    for _ in 0..20 {
        let (reader, writer) = std::io::pipe().unwrap();
        let run = scene.run().words("-j 4 --workers 4 --echo").input(input.clone()).stdout(writer);
        let run = run.start();
        let mut first = String::new();
        BufReader::new(reader).read_line(&mut first).unwrap();
        assert_eq!(run.wait().expect(141).stderr, "");
    }
    scene.assert_nothing_left();
}

#[test]
fn a_command_that_goes_on_in_the_background_holds_nobody_up() {
    let scene = Scene::new();
    // It keeps neither the group nor the pipes of its task.
    let run =
        scene.run().args(["--", "sh", "-c", "sleep $1 >/dev/null 2>&1 & echo done", "sh", "{}"]);
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

/// A program that finds these signals ignored, as `nohup` and the background jobs of scripts do it.
fn ignoring(scene: &Scene, signals: &str, program: &str) -> tradewind_e2e::Start {
    let command = format!("trap '' {signals}; exec \"$@\"");
    scene.other("sh").args(["-c", &command, "sh"]).arg(tradewind_e2e::program(program))
}

#[test]
fn what_was_ignored_at_the_start_stays_ignored() {
    let scene = Scene::new();
    let run = ignoring(&scene, "HUP INT", "tradewind");
    let run = run.words("run -j 2 --format jsonl -- sh -c").arg("sleep 0.2; cat /proc/self/status");
    let mut run = run.input(naps(8, "")).start();
    wait_until("some have ended", || run.stdout_lines() >= 2);
    for signal in [Signal::HUP, Signal::INT] {
        run.signal_group(signal);
        run.signal(signal);
    }
    let records = records(&run.wait().expect(0).stdout, 8);
    for record in &records {
        // And the commands inherit that: bit n - 1 is signal n.
        let status = record.json["output"].as_str().unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
        assert_eq!(mask & 0b111, 0b011, "HUP and INT, and not QUIT: {mask:b}");
    }
    scene.assert_nothing_left();
}

#[test]
fn a_role_that_ignores_hangup_goes_on_and_still_hears_what_it_does_not_ignore() {
    for program in ["worker", "sink", "ventilator", "relay"] {
        let scene = Scene::new();
        let nobody = "tcp://127.0.0.1:1";
        let role = ignoring(&scene, "HUP", program);
        let role = match program {
            "worker" => role.words("--echo").args(["--ventilator", nobody, "--sink", nobody]),
            "sink" => role.args(["--listen", "tcp://127.0.0.1:0", "--ventilator", nobody]),
            "relay" => role
                .args(["--listen", "tcp://127.0.0.1:0", "--ventilator", nobody])
                .args(["--tasks", "tcp://127.0.0.1:0", "--receipts", "tcp://127.0.0.1:0"])
                .args(["--sink", nobody]),
            _ => role
                .args(["--tasks", "tcp://127.0.0.1:0", "--receipts", "tcp://127.0.0.1:0"])
                .args(["--sink", nobody]),
        };
        let mut role = role.keep_stdin().start();
        role.wait_for_stderr("is up");
        role.signal(Signal::HUP);
        // It is heard after the other: a program that answers it has survived that.
        role.signal(Signal::USR1);
        role.wait_for_stderr("done");
        role.signal(Signal::TERM);
        let code = role.wait().code();
        assert!(code == 130 || program == "worker" && code == 0, "{program}: {code}");
        scene.assert_nothing_left();
    }
}

#[test]
fn usr1_says_how_things_stand_and_stops_nothing() {
    let scene = Scene::new();
    let run = scene.run().words("-q -j 2 --workers 2 --format jsonl --sleep");
    let mut run = run.input(naps(60, "0.1")).start();
    wait_until("some have ended", || run.stdout_lines() >= 4);
    run.signal(Signal::USR1);
    run.wait_for_stderr(" of 60 done, ");
    assert!(run.stderr().contains(" 2 workers"), "{}", run.stderr());
    // Others that get it, as with killall, do not end of it.
    for pid in scene.pids(" --format jsonl").into_iter().chain(scene.pids(" worker ")) {
        let _ = rustix::process::kill_process(pid, Signal::USR1);
    }
    let _ = records(&run.wait().expect(0).stdout, 60);
    scene.assert_nothing_left();
}
