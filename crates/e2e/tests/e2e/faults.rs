//! Each task has its one record, in whatever order programs start and die.

use std::io::Write;
use std::time::{Duration, Instant};

use tradewind_e2e::{Process, Scene, Signal, random, records, wait_until};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Ventilator,
    Worker,
    Sink,
}

use Part::{Sink, Ventilator, Worker};

#[test]
fn the_three_may_start_in_any_order() {
    for order in [
        [Ventilator, Worker, Sink],
        [Ventilator, Sink, Worker],
        [Worker, Ventilator, Sink],
        [Worker, Sink, Ventilator],
        [Sink, Ventilator, Worker],
        [Sink, Worker, Ventilator],
    ] {
        let scene = Scene::new();
        let mut processes = Vec::new();
        for part in order {
            let (start, is_up) = match part {
                Ventilator => (scene.ventilator().input("a\nb\nc\n"), "the ventilator is up"),
                Worker => (scene.worker("w").words("--exit-when-done --echo"), "the worker is up"),
                Sink => (scene.sink(), "the sink is up"),
            };
            let mut process = start.start();
            // The next one starts when this one has begun to look for the others.
            process.wait_for_stderr(is_up);
            processes.push((part, process));
        }
        for (part, process) in processes {
            let ended = process.wait().expect(0);
            assert_eq!(ended.text(), if part == Sink { "a\nb\nc\n" } else { "" }, "{order:?}");
        }
        scene.assert_nothing_left();
    }
}

#[test]
fn workers_are_killed_and_stopped_at_random() {
    let rounds = std::env::var("TRADEWIND_E2E_ROUNDS").ok().and_then(|n| n.parse().ok());
    let mut random = random();
    for round in 0..rounds.unwrap_or(3) {
        eprintln!("round {round}");
        one_job_with_random_faults(&mut random);
    }
}

fn one_job_with_random_faults(random: &mut fastrand::Rng) {
    const TASKS: u64 = 300;
    const FAULTS: usize = 10;
    let scene = Scene::new();
    let sink = scene.sink().words("--format jsonl").start();
    let input: String = (0..TASKS).map(|n| format!("{n} 0.{:03}\n", random.u64(5..=60))).collect();
    // Three of the workers that die may have run the same task, and it be given up for lost: rightly,
    // but that is not what this is about.
    let ventilator = scene.ventilator().words("--max-losses 100").input(input).start();
    let mut started = 0;
    let mut start = || {
        started += 1;
        let worker = scene.worker(&format!("w{started}")).words("--slots 2");
        worker.args(["--", "sh", "-c", "set -- $1; sleep $2; echo $1", "sh", "{}"]).start()
    };
    let mut workers: Vec<Process> = (0..3).map(|_| start()).collect();
    for _ in 0..FAULTS {
        // Faults fall where they fall: after a number of results, within the time those take.
        let seen = sink.stdout_lines();
        let more = random.usize(1..=(TASKS as usize / FAULTS));
        wait_until("results go on", || {
            sink.stdout_lines() >= (seen + more).min(TASKS as usize - 1)
        });
        let place = random.usize(..workers.len());
        if random.u8(..4) == 0 {
            workers[place].signal(Signal::STOP);
            let until = Instant::now() + Duration::from_millis(random.u64(1..300));
            wait_until("a while has passed", || Instant::now() >= until);
            workers[place].signal(Signal::CONT);
        } else {
            workers[place].kill();
            workers[place] = start();
        }
    }
    let records = records(&sink.wait().expect(0).stdout, TASKS);
    for record in records {
        assert_eq!(record.output, Some(format!("{}\n", record.seq)), "{}", record.json);
    }
    let _ = ventilator.wait().expect(0);
}

#[test]
fn a_stopped_worker_is_lost_and_its_late_results_do_no_harm() {
    let scene = Scene::new();
    let sink = scene.sink().words("--format jsonl").start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    let mut read = |count| {
        let stdin = ventilator.stdin().expect("it is kept");
        stdin.write_all("0.05\n".repeat(count).as_bytes()).expect("the ventilator reads");
    };
    read(40);
    let worker = |name| scene.worker(name).words("--slots 2 --exit-when-done --sleep").start();
    let mut sleeper = worker("sleeper");
    wait_until("it has begun", || sink.stdout_lines() > 0);
    sleeper.signal(Signal::STOP);
    let other = worker("other");
    // It is 10 s before a worker is given up that has only stopped talking. All that it had has run
    // elsewhere when it wakes up, and ended long ago; the input is still open, so that the sink is there.
    wait_until("all but what is to come has a record", || sink.stdout_lines() == 40);
    sleeper.signal(Signal::CONT);
    read(20);
    wait_until("it joins again", || ventilator.stderr().matches("worker joins").count() == 3);
    ventilator.close_stdin();
    // Its results come, or it hears first that they are settled: each task has one record.
    let records = records(&sink.wait().expect(0).stdout, 60);
    assert!(records.iter().all(|record| record.status == "ok"));
    let _ = ventilator.wait().expect(0);
    let _ = other.wait().expect(0);
    let _ = sleeper.wait().expect(0);
}

#[test]
fn a_task_that_takes_its_workers_down_is_given_up() {
    let scene = Scene::new();
    let sink = scene.sink().words("--format jsonl").start();
    let ventilator = scene.ventilator().input("fine\npoison\nfine\n").start();
    let script = "case $1 in poison) kill -9 $PPID;; *) echo $1;; esac";
    let mut workers: Vec<Process> = Vec::new();
    let mut sink = Some(sink);
    wait_until("the job ends", || {
        if workers.last_mut().is_none_or(|worker| !worker.is_running()) && workers.len() < 5 {
            let name = format!("w{}", workers.len());
            workers.push(
                scene
                    .worker(&name)
                    .words("--slots 1")
                    .args(["--", "sh", "-c", script, "sh", "{}"])
                    .start(),
            );
        }
        !sink.as_mut().is_some_and(Process::is_running)
    });
    let records = records(&sink.take().unwrap().wait().expect(1).stdout, 3);
    let ends: Vec<_> = records.iter().map(|record| &record.status[..]).collect();
    assert_eq!(ends, ["ok", "lost", "ok"]);
    assert!(records[1].error.contains('3'), "{}", records[1].error);
    let _ = ventilator.wait().expect(1);
}

#[test]
fn a_killed_worker_of_run_is_replaced() {
    let scene = Scene::new();
    let mut run = scene.run().words("-j 2 --workers 2 --format jsonl --sleep");
    run = run.input((0..100).map(|_| "0.05\n").collect::<String>());
    let run = run.start();
    // One that dies within its first second is taken for broken.
    wait_until("it runs for a while", || run.stdout_lines() >= 50);
    let workers = scene.pids("--name");
    assert_eq!(workers.len(), 2);
    rustix::process::kill_process(workers[0], Signal::KILL).unwrap();
    let ended = run.wait().expect(0);
    let records = records(&ended.stdout, 100);
    assert!(records.iter().all(|record| record.status == "ok"));
    scene.assert_nothing_left();
}

#[test]
fn a_sink_that_comes_back_without_its_records_is_refused() {
    let scene = Scene::new();
    let mut sink = scene.sink().start();
    let worker = scene.worker("w").words("--slots 2 --exit-when-done");
    let worker = worker.args(["--", "sh", "-c", "sleep $1; echo $1", "sh", "{}"]).start();
    let ventilator = scene.ventilator().input("0.05\n".repeat(400)).words("--quiet").start();
    // The ventilator knows of the first when there are some more.
    wait_until("records are stored", || sink.stdout_lines() > 5);
    sink.kill();
    // Its stdout cannot be read back.
    let sink = scene.sink().start();
    let ended = ventilator.wait().expect(7);
    assert!(ended.stderr.contains("no longer has the record of task 0"), "{}", ended.stderr);
    worker.wait().expect(0);
    sink.wait().expect(7);
    scene.assert_nothing_left();
}
