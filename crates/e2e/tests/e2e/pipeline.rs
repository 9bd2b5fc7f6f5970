//! Pipelines of several stages through `tradewind run --pipeline`: whoever dies in between, each
//! task has its one record, and the last stage that saw it stands in it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tradewind_e2e::{Record, Scene, Signal, Start, pause_between_signals, random, records};
use tradewind_e2e::{wait_for, wait_until};

/// Age below which a process that dies is taken for broken, and not started again.
const LIFE_MIN: Duration = Duration::from_millis(1500);

/// Stages that each leave their letter.
fn letters(slots: u32, nap: &str) -> String {
    ["a", "b", "c"]
        .map(|letter| {
            format!(
                "[[stage]]\nname = \"{letter}\"\nslots = {slots}\nstdin = true\n\
                 command = [\"sh\", \"-c\", \"sleep {nap}; printf {letter}; cat\"]\n"
            )
        })
        .concat()
}

fn pipeline(scene: &Scene, file: &str) -> Start {
    scene.file("pipeline.toml", file);
    scene.run().words("--pipeline pipeline.toml")
}

fn numbers(count: u64) -> String {
    (0..count).map(|n| format!("{n}\n")).collect()
}

fn stage(record: &Record) -> &str {
    record.json["stage"].as_str().unwrap_or_default()
}

/// The seqs in the order of the output.
fn seqs(jsonl: &[u8]) -> Vec<u64> {
    let lines = std::str::from_utf8(jsonl).unwrap().lines();
    let seq = |line: &str| {
        let (_, rest) = line.split_once(":").unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    };
    lines.map(seq).collect()
}

#[track_caller]
fn assert_right(jsonl: &[u8], count: u64) {
    assert_eq!(seqs(jsonl), (0..count).collect::<Vec<_>>(), "one record each, in order");
    for record in records(jsonl, count) {
        assert_eq!(record.status, "ok", "{}", record.json);
        assert_eq!(record.output, Some(format!("cba{}", record.seq)), "{}", record.json);
        assert_eq!(stage(&record), "c");
    }
}

#[test]
fn three_stages_give_the_last_ones_outputs_in_order() {
    let scene = Scene::new();
    const TASKS: u64 = 3_000;
    let file = "[defaults]\nslots = 2\nworkers = 2\n\
                [[stage]]\nname = 'one'\necho = true\n\
                [[stage]]\nname = 'two'\nstdin = true\ncommand = 'sed s/^/2:/'\n\
                [[stage]]\nname = 'three'\necho = true\n";
    let run = pipeline(&scene, file).words("--output out.jsonl --ordered").input(numbers(TASKS));
    let ended = run.run().expect(0);
    assert!(ended.stderr.contains("3000 tasks: 3000 ok"), "{}", ended.stderr);
    let out = scene.read("out.jsonl");
    assert_eq!(seqs(&out), (0..TASKS).collect::<Vec<_>>());
    for record in records(&out, TASKS) {
        assert_eq!(record.output, Some(format!("2:{}", record.seq)), "{}", record.json);
        assert_eq!((stage(&record), &record.status[..]), ("three", "ok"));
    }
    scene.assert_nothing_left();
}

#[test]
fn a_single_stage_needs_no_relay() {
    let scene = Scene::new();
    let file = "input = 'tasks'\noutput = 'out'\nname = 'alone'\n\
                [[stage]]\nname = 'one'\ncommand = \"echo 'a  b' {}\"\nenv = { LANG = 'C' }\n";
    scene.file("tasks", "1\n2\n");
    let ended = pipeline(&scene, file).run().expect(0);
    assert_eq!(ended.text(), "");
    assert_eq!(scene.read("out"), b"a  b 1\na  b 2\n");
    // What is given as a flag goes before.
    let run = pipeline(&scene, file).words("--input - --output -").input("3\n");
    assert_eq!(run.run().expect(0).text(), "a  b 3\n");
    scene.assert_nothing_left();
}

#[test]
fn what_fails_in_a_stage_is_not_seen_by_later_ones() {
    let scene = Scene::new();
    let file = "[[stage]]\nname = 'fetch'\nstdin = true\ncommand = 'cat'\n\
                [[stage]]\nname = 'parse'\nretries = 1\nslots = 2\n\
                command = ['sh', '-c', 'test $(($1 % 10)) != 0 && printf $1', 'sh', '{}']\n\
                [[stage]]\nname = 'count'\nslots = 1\n\
                command = ['sh', '-c', 'echo $1 >> seen; printf $1', 'sh', '{}']\n";
    let run = pipeline(&scene, file).words("--output out.jsonl").input(numbers(100));
    let _ = run.run().expect(1);
    for record in records(&scene.read("out.jsonl"), 100) {
        let (status, at, attempt) =
            if record.seq % 10 == 0 { ("failed", "parse", 2) } else { ("ok", "count", 1) };
        assert_eq!((&record.status[..], stage(&record)), (status, at), "{}", record.json);
        assert_eq!(record.attempt, attempt, "{}", record.json);
    }
    let seen = String::from_utf8(scene.read("seen")).unwrap();
    let mut seen: Vec<u64> = seen.lines().map(|line| line.parse().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..100).filter(|n| n % 10 != 0).collect::<Vec<_>>());
    scene.assert_nothing_left();
}

#[test]
fn a_typo_is_pointed_at_and_nothing_is_started() {
    let scene = Scene::new();
    let check = |file: &str, flags: &str, code: i32, text: &str| {
        let ended = pipeline(&scene, file).words(flags).run().expect(code);
        assert_eq!(ended.stderr.trim_end(), text);
        assert_eq!(ended.text(), "");
    };
    check(
        "[[stage]]\nname = \"parse\"\ncomand = \"true\"\n",
        "",
        2,
        "tradewind: pipeline.toml:3:1: unknown key \"comand\" in stage \"parse\"; did you mean \
         \"command\"?",
    );
    let fine = "[[stage]]\nname = 'a'\ncommand = 'no-such-command {}'\n";
    let missing = "tradewind: pipeline.toml:3:11: stage \"a\": command \"no-such-command\" was not \
                   found in PATH";
    check(fine, "", 127, missing);
    check(fine, "--check", 127, missing);
    let echo = "[[stage]]\nname = 'a'\necho = true\n";
    for (flags, flag) in [
        ("-j 2", "--jobs <SLOTS>"),
        ("--retries 1", "--retries <N>"),
        ("--echo", "--echo"),
        ("-- true", "COMMAND"),
    ] {
        let ended = pipeline(&scene, echo).words(flags).run().expect(2);
        assert!(ended.stderr.contains("--pipeline <FILE>"), "{}", ended.stderr);
        assert!(ended.stderr.contains(flag), "{}", ended.stderr);
    }
    let ended = scene.run().words("--pipeline missing.toml").run().expect(2);
    assert!(ended.stderr.contains("missing.toml"), "{}", ended.stderr);
    scene.assert_nothing_left();
}

#[test]
fn check_shows_the_stages() {
    let scene = Scene::new();
    let file = "[[stage]]\nname = 'one'\ncommand = 'cat {}'\nslots = 3\n\
                [[stage]]\nname = 'two'\necho = true\nworkers = 4\n";
    let ended = pipeline(&scene, file).words("--check").run().expect(0);
    let wanted =
        "one: 1 worker, 3 slots each: cat {}\ntwo: 4 workers, a slot for each core: echo\n";
    assert_eq!(ended.text(), wanted);
}

/// The processes of a scene, each with the time since when it is known.
#[derive(Default)]
struct Known(HashMap<Pid, Instant>);

impl Known {
    /// Those with one of these in their command line that have lived long enough to be started
    /// again.
    fn grown_up(&mut self, scene: &Scene, texts: &[&str]) -> Vec<Pid> {
        let pids: Vec<Pid> = texts.iter().flat_map(|text| scene.pids(text)).collect();
        for pid in &pids {
            self.0.entry(*pid).or_insert_with(Instant::now);
        }
        pids.into_iter().filter(|pid| self.0[pid].elapsed() > LIFE_MIN).collect()
    }
}

#[test]
fn workers_and_relays_are_killed_at_random() {
    const TASKS: u64 = 1_500;
    const FAULTS: u64 = 12;
    let mut random = random();
    let scene = Scene::new();
    let run = pipeline(&scene, &letters(2, "0.01"));
    let run = run.words("--format jsonl --ordered --log error").input(numbers(TASKS)).start();
    let mut known = Known::default();
    for fault in 0..FAULTS {
        let is_far = || run.stdout_lines() as u64 >= fault * (TASKS / 2) / FAULTS;
        wait_until("results go on", is_far);
        // Relays in turn with workers, so that each kind is killed whatever the seed.
        let texts: &[&str] = match fault % 3 {
            0 => &["relay --log"],
            1 => &["worker --log"],
            _ => &["relay --log", "worker --log"],
        };
        let pids = wait_for("somebody is old enough", || {
            Some(known.grown_up(&scene, texts)).filter(|pids| !pids.is_empty())
        });
        // One, or all relays at once.
        let one = random.usize(..pids.len());
        let victims = if fault % 6 == 0 { &pids[..] } else { &pids[one..=one] };
        for pid in victims {
            let _ = rustix::process::kill_process(*pid, Signal::KILL);
        }
    }
    let ended = run.wait().expect(0);
    assert_right(&ended.stdout, TASKS);
    scene.assert_nothing_left();
}

#[test]
fn asked_twice_it_cancels_in_every_stage() {
    let scene = Scene::new();
    let file = "[[stage]]\nname = 'a'\nslots = 2\necho = true\n\
                [[stage]]\nname = 'b'\nslots = 2\n\
                command = ['sh', '-c', 'case $1 in ?) printf $1;; *) exec sleep 1000;; esac', 'sh', '{}']\n\
                [[stage]]\nname = 'c'\nslots = 2\ncommand = 'sleep 2000'\n";
    let mut run = pipeline(&scene, file).words("--format jsonl").input(numbers(100)).start();
    wait_until("all stages have begun", || {
        scene.count("sleep 1000") >= 2 && scene.count("sleep 2000") >= 2
    });
    run.signal_group(Signal::INT);
    run.wait_for_stderr("again to cancel");
    pause_between_signals();
    run.signal_group(Signal::INT);
    let ended = run.wait().expect(130);
    let count = seqs(&ended.stdout).len() as u64;
    assert!(count >= 4, "what ran has its record");
    for record in records(&ended.stdout, count) {
        assert_eq!(record.status, "cancelled", "{}", record.json);
    }
    assert!(!ended.stderr.contains("killed"), "{}", ended.stderr);
    scene.assert_nothing_left();
}

#[test]
fn asked_once_it_finishes_what_was_begun() {
    let scene = Scene::new();
    let run = pipeline(&scene, &letters(2, "0.2")).words("--format jsonl --ordered");
    let mut run = run.input(numbers(10_000)).start();
    wait_until("results come", || run.stdout_lines() >= 2);
    run.signal_group(Signal::INT);
    let ended = run.wait().expect(130);
    let count = seqs(&ended.stdout).len() as u64;
    assert!((2..1_000).contains(&count), "{count} records");
    assert_right(&ended.stdout, count);
    scene.assert_nothing_left();
}

#[test]
fn resume_goes_on_after_all_was_killed() {
    const TASKS: u64 = 400;
    let scene = Scene::new();
    let start = || {
        let run = pipeline(&scene, &letters(2, "0.01")).words("--output out.jsonl --ordered");
        run.words("--resume").input(numbers(TASKS)).start()
    };
    let stored = || scene.read("out.jsonl").iter().filter(|byte| **byte == b'\n').count() as u64;
    let mut run = start();
    wait_until("some is stored", || stored() > TASKS / 10);
    run.kill();
    scene.assert_nothing_left();
    let before = stored();
    assert!(before < TASKS, "something is left to do");
    let _ = start().wait().expect(0);
    assert_right(&scene.read("out.jsonl"), TASKS);
    scene.assert_nothing_left();
}
