//! A host that lacks something is no failure of a task.

use std::time::Duration;

use tradewind_e2e::{Ended, Record, Scene, Start, program, records, summary_counts, wait_until};
use tradewind_node::exit::{COMMAND, SYSTEM};

/// One of our programs with these limits of open files.
fn with_files(scene: &Scene, name: &str, soft: u32, hard: u32) -> Start {
    scene.other("prlimit").arg(format!("--nofile={soft}:{hard}")).arg(program(name))
}

fn numbers(count: u32) -> String {
    (0..count).map(|number| format!("{number}\n")).collect()
}

/// `tradewind run` with these limits ends well, and says this besides.
#[track_caller]
fn check(limits: (u32, u32), flags: &str, command: &[&str], says: Option<&str>) -> Ended {
    let scene = Scene::new();
    let run = with_files(&scene, "tradewind", limits.0, limits.1).arg("run").words(flags);
    let ended = run.arg("--").args(command).input(numbers(400)).run().expect(0);
    assert_eq!(summary_counts(&ended.stderr), Some("400 tasks: 400 ok"), "{}", ended.stderr);
    let warnings: Vec<_> = ended.stderr.lines().filter(|line| line.contains("WARN")).collect();
    match says {
        Some(text) => assert!(warnings.len() == 1 && warnings[0].contains(text), "{warnings:?}"),
        None => assert_eq!(warnings, [""; 0]),
    }
    scene.assert_nothing_left();
    ended
}

#[test]
fn a_worker_raises_its_limit_and_gives_commands_the_old_one() {
    for flags in ["-j 100", "-j 100 --stdin"] {
        let script = "ulimit -Sn; sleep 0.05";
        let ended = check((256, 2_000), flags, &["sh", "-c", script], None);
        assert!(ended.text().lines().all(|line| line == "256"), "{}", ended.text());
    }
}

#[test]
fn more_slots_than_fit_are_fewer_slots() {
    let script = "ulimit -Sn; sleep 0.02";
    // With room for each by being sparing, and without.
    let ended = check((512, 512), "-j 90", &["sh", "-c", script], None);
    assert!(ended.text().lines().all(|line| line == "512"), "{}", ended.text());
    let says = Some("open files: ulimit -n is 256: running");
    check((256, 256), "-j 100", &["sh", "-c", script], says);
    check((256, 256), "-j 100 --stdin", &["sh", "-c", script], says);
    check((256, 256), "-j 100 --pipe lines", &["sh", "-c", "while read x; do echo $x; done"], says);
}

#[test]
fn no_room_for_one_is_a_line() {
    let scene = Scene::new();
    let worker = with_files(&scene, "worker", 24, 24).args(["--", "true"]).run();
    let worker = worker.expect(SYSTEM.into());
    assert!(worker.stderr.contains("ulimit -n is 24"), "{}", worker.stderr);
    assert_eq!(worker.stderr.lines().count(), 1, "{}", worker.stderr);
}

/// A worker of this kind beside a healthy one: all tasks are ok, and it ends with this code, if it
/// does.
#[track_caller]
fn check_beside(
    sick: impl FnOnce(&Scene, Start) -> Start,
    meanwhile: impl FnOnce(&Scene),
    code: Option<u8>,
) {
    let scene = Scene::new();
    let out = scene.path("out.jsonl");
    let sink = scene.sink().arg("--output").arg(&out).start();
    let ventilator = scene.ventilator().input(numbers(200)).start();
    let worker = scene.worker("sick").words("--slots 16");
    let sick = sick(&scene, worker).start();
    let healthy = scene.worker("healthy").words("--slots 2 --exit-when-done");
    let healthy = healthy.args(["--", "sh", "-c", "sleep 0.02; echo $1", "sh", "{}"]).start();
    meanwhile(&scene);
    ventilator.wait().expect(0);
    sink.wait().expect(0);
    healthy.wait().expect(0);
    let records = records(&scene.read("out.jsonl"), 200);
    let wrong: Vec<&Record> = records.iter().filter(|record| record.status != "ok").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    match code {
        Some(code) => drop(sick.wait().expect(code.into())),
        None => drop(sick),
    }
}

#[test]
fn a_host_with_few_open_files_runs_what_it_can() {
    let sick = |scene: &Scene, _| {
        let endpoints = [
            ("--ventilator", format!("tcp://{}", scene.tasks())),
            ("--sink", format!("tcp://{}", scene.results())),
        ];
        let mut worker = with_files(scene, "worker", 48, 48).words("--name sick --slots 64");
        for (flag, endpoint) in endpoints {
            worker = worker.arg(flag).arg(endpoint);
        }
        worker.words("--exit-when-done -- sh -c").args(["sleep 0.02; echo $1", "sh", "{}"])
    };
    check_beside(sick, |_| (), Some(0));
}

#[test]
fn a_worker_whose_command_has_gone_hands_back_and_leaves() {
    let sick = |scene: &Scene, worker: Start| {
        let script = scene.file("tool", "#!/bin/sh\nsleep 0.01; touch used; echo $1\n");
        std::process::Command::new("chmod").arg("+x").arg(&script).status().unwrap();
        worker.arg("--").arg(script).arg("{}")
    };
    let meanwhile = |scene: &Scene| {
        wait_until("the tool is in use", || scene.path("used").exists());
        std::fs::remove_file(scene.path("tool")).unwrap();
    };
    check_beside(sick, meanwhile, Some(COMMAND));
}

#[test]
fn the_only_host_says_what_has_gone_and_ends() {
    let scene = Scene::new();
    let script = scene.file("tool", "#!/bin/sh\nrm -f tool; echo $1\n");
    std::process::Command::new("chmod").arg("+x").arg(&script).status().unwrap();
    let run = scene.run().args(["-j1", "--format", "jsonl", "--", "./tool"]).input("a\nb\nc\n");
    let ended = run.run().expect(COMMAND.into());
    assert!(ended.stderr.contains("\"./tool\" does not exist"), "{}", ended.stderr);
    assert!(!ended.text().contains("failed"), "{}", ended.text());
    scene.assert_nothing_left();
}

#[test]
fn a_file_that_is_being_written_is_waited_for() {
    let scene = Scene::new();
    let tool = scene.path("tool");
    std::fs::copy("/bin/echo", &tool).unwrap();
    let writing = std::fs::OpenOptions::new().append(true).open(&tool).unwrap();
    let run = scene.run().args(["-j2", "--", "./tool"]).input("a\nb\n").start();
    std::thread::sleep(Duration::from_millis(300));
    drop(writing);
    assert_eq!(run.wait().expect(0).text(), "a\nb\n");
}

/// As a user of whom there are no other processes. Those of root are not counted.
fn as_somebody(scene: &Scene, processes: u32) -> Start {
    let user = 70_000 + std::process::id() % 1_000_000;
    std::process::Command::new("chmod").arg("777").arg(scene.dir()).status().unwrap();
    scene
        .other("setpriv")
        .args([format!("--reuid={user}"), format!("--regid={user}")])
        .args(["--clear-groups", "prlimit"])
        .arg(format!("--nproc={processes}:{processes}"))
}

#[test]
fn processes_that_are_used_up_are_waited_for() {
    let is_root = rustix::process::geteuid().is_root();
    let is_reachable = |scene: &Scene| {
        as_somebody(scene, 50).arg(program("tradewind")).arg("--version").run().code() == 0
    };
    let scene = Scene::new();
    if !is_root || !is_reachable(&scene) {
        let reason = "this takes root, and programs that everybody may run";
        tradewind_e2e::note_skipped("processes_that_are_used_up_are_waited_for", reason);
        return;
    }
    // What is known at the start.
    for flags in ["-j 100", "-j 100 --workers 3"] {
        let run = as_somebody(&scene, 70).arg(program("tradewind")).arg("run").words(flags);
        let ended = run
            .args(["--", "sh", "-c", "sleep 0.02; echo $1", "sh", "{}"])
            .input(numbers(200))
            .run();
        let ended = ended.expect(0);
        assert!(ended.stderr.contains("processes: ulimit -u is 70"), "{}", ended.stderr);
    }
    // What is not. These commands start nothing themselves: that would be their own failure.
    let script = ": > $1; exec sleep 0.3";
    let run = as_somebody(&scene, 70).arg(program("tradewind")).words("run -j 100 -- sh -c");
    let run = run.arg(script).args(["sh", "{}"]).input(numbers(100)).start();
    wait_until("it runs", || scene.path("0").exists());
    let others = "for i in $(seq 60); do sleep 1.5 & done; wait; true";
    let others = as_somebody(&scene, 200).args(["sh", "-c", others]).start();
    wait_until("the processes are used up", || scene.count("sleep 1.5") > 50);
    let ended = run.wait().expect(0);
    assert_eq!(summary_counts(&ended.stderr), Some("100 tasks: 100 ok"), "{}", ended.stderr);
    others.wait().expect(0);
    scene.assert_nothing_left();
}
