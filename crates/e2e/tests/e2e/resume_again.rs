//! Resuming as users mean it: again after the end, with more input, with less, and with failures.

use tradewind_e2e::{Ended, Scene, Start, records};

/// Runs tasks that fail where they are told to, and notes each run.
fn run(scene: &Scene, input: &str, words: &str) -> Start {
    let command = "echo $1 >> runs; test -e well || test x$1 != x5 || exit 3; echo fine $1";
    let run = scene.run().words("-j 2").words(words).input(input);
    run.args(["--", "sh", "-c", command, "sh"])
}

fn numbers(range: impl IntoIterator<Item = u64>) -> String {
    range.into_iter().map(|n| format!("{n}\n")).collect()
}

fn runs(scene: &Scene) -> usize {
    scene.read("runs").iter().filter(|byte| **byte == b'\n').count()
}

/// All that is in the directory, and when it was changed.
fn all(scene: &Scene) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
    let entries = std::fs::read_dir(scene.dir()).expect("it can be read");
    let mut all: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("it can be read");
            let name = entry.file_name().into_string().expect("our names are text");
            let changed = entry.metadata().expect("it is there").modified().expect("it is known");
            let bytes = scene.read(&name);
            (name, bytes, changed)
        })
        .collect();
    all.sort();
    all
}

/// Its input is refused with this, and nothing has changed.
#[track_caller]
fn assert_refused(scene: &Scene, start: Start, wanted: &str) {
    assert_refused_with(7, scene, start, wanted);
}

/// Its output is refused.
#[track_caller]
fn assert_not_written(scene: &Scene, start: Start, wanted: &str) {
    assert_refused_with(4, scene, start, wanted);
}

#[track_caller]
fn assert_refused_with(code: i32, scene: &Scene, start: Start, wanted: &str) {
    let before = all(scene);
    let ended = start.run().expect(code);
    assert!(ended.stderr.contains(wanted), "{wanted}: {}", ended.stderr);
    assert!(all(scene) == before, "a refused resume changes nothing");
}

#[test]
fn a_job_that_is_complete_is_resumed_without_a_change() {
    for flags in [
        "--output r.jsonl",
        "--output r.jsonl --ordered",
        "--output r --joblog log",
        "--output r --fsync batch",
    ] {
        let scene = Scene::new();
        // Whether it was given the first time does not matter.
        let first = if flags.contains("ordered") { "--resume" } else { "" };
        run(&scene, &numbers(1..=3), &format!("{flags} {first}")).run().expect(0);
        let before = all(&scene);
        for _ in 0..2 {
            let ended = run(&scene, &numbers(1..=3), &format!("{flags} --resume")).run().expect(0);
            assert!(ended.stderr.contains("3 tasks: 3 ok"), "{}", ended.stderr);
            assert!(ended.stderr.contains("all had their records already"), "{}", ended.stderr);
            assert!(all(&scene) == before, "{flags}: nothing is written");
        }
        // With more there is more to do, and only that.
        let more = format!("{flags} --resume");
        run(&scene, &numbers([1, 2, 3, 6, 7]), &more).run().expect(0);
        assert_eq!(runs(&scene), 5, "{flags}");
        let ended = run(&scene, &numbers([1, 2, 3, 6, 7]), &more).run().expect(0);
        assert!(ended.stderr.contains("5 tasks: 5 ok"), "{}", ended.stderr);
        assert_eq!(runs(&scene), 5, "{flags}");
        // With less, or something else, it is refused.
        let less = "the input is not the one that this job began with: it has 4 tasks, and the \
                    output has records up to task 5";
        assert_refused(&scene, run(&scene, &numbers([1, 2, 3, 6]), &more), less);
        let other = "number 2 of its tasks was another one";
        assert_refused(&scene, run(&scene, &numbers([1, 9, 3, 6, 7]), &more), other);
        assert_refused(&scene, run(&scene, "", &more), "it has 0 tasks");
    }
}

#[test]
fn without_resume_it_is_said_how_to_go_on() {
    let scene = Scene::new();
    run(&scene, &numbers(1..=6), "--output r.jsonl").run().expect(1);
    let again = || run(&scene, &numbers(1..=6), "--output r.jsonl");
    let wanted = "\"r.jsonl\" exists already: it has 6 records of an earlier run of this job, which \
                  is complete, 1 of them not ok; --resume continues it, --overwrite replaces it";
    assert_not_written(&scene, again(), wanted);
    run(&scene, &numbers(1..=2), "--output r.jsonl --overwrite").run().expect(0);
    assert_eq!(records(&scene.read("r.jsonl"), 2).len(), 2);
    // What the user has moved away is no longer of interest.
    std::fs::rename(scene.path("r.jsonl"), scene.path("kept.jsonl")).expect("it is there");
    again().run().expect(1);
    assert_eq!(records(&scene.read("r.jsonl"), 6).len(), 6);
    std::fs::write(scene.path("r.jsonl"), "").expect("it is there");
    again().run().expect(1);
}

#[test]
fn an_output_that_was_edited_after_the_end_is_left_alone() {
    let scene = Scene::new();
    run(&scene, &numbers(1..=3), "--output r").run().expect(0);
    for edited in ["fine 1\nfine 2\nfine 3\nmine\n", "fine 1\nfine 2\n", "fine 1\nfine 2\nfine X\n"]
    {
        scene.file("r", edited);
        let wanted = "was changed after its job was complete";
        assert_not_written(&scene, run(&scene, &numbers(1..=3), "--output r --resume"), wanted);
    }
}

#[test]
fn a_retry_with_another_input_is_refused_and_changes_nothing() {
    let retry = "--output s.jsonl --resume --retry-failed";
    for flags in ["--unordered", "--ordered --joblog log"] {
        let scene = Scene::new();
        let retry = format!("{retry} {flags}");
        run(&scene, &numbers(1..=5), &format!("--output s.jsonl {flags}")).run().expect(1);
        let less = "it has 4 tasks, and the output has records up to task 5";
        assert_refused(&scene, run(&scene, &numbers(1..=4), &retry), less);
        let other = "1\n2\n3\n4\nX\n";
        let fifth = "number 5 of its tasks was another one";
        assert_refused(&scene, run(&scene, other, &retry), fifth);
        let first = "number 1 of its tasks was another one";
        assert_refused(&scene, run(&scene, &numbers(2..=6), &retry), first);
        assert_refused(&scene, run(&scene, "", &retry), "it has 0 tasks");
        scene.file("well", "");
        run(&scene, &numbers(1..=6), &retry).run().expect(0);
        assert!(records(&scene.read("s.jsonl"), 6).iter().all(|record| record.status == "ok"));
        assert_eq!(runs(&scene), 7);
    }
}

#[test]
fn what_was_taken_out_to_run_again_is_not_forgotten() {
    // Killed after the failed record was taken out, and before there was another.
    let scene = Scene::new();
    run(&scene, &numbers(1..=5), "--output s.jsonl").run().expect(1);
    let mut again = scene
        .run()
        .words("-j 1 --output s.jsonl --resume --retry-failed")
        .input(numbers(1..=5))
        .args(["--", "sh", "-c", "echo $1 >> again; sleep 60", "sh"])
        .start();
    tradewind_e2e::wait_until("it runs again", || !scene.read("again").is_empty());
    again.kill();
    scene.assert_nothing_left();
    for flags in ["--output s.jsonl --resume", "--output s.jsonl --resume --retry-failed"] {
        let less = "it has 4 tasks, and the output has records up to task 5";
        assert_refused(&scene, run(&scene, &numbers(1..=4), flags), less);
        let fifth = "number 5 of its tasks was another one";
        assert_refused(&scene, run(&scene, "1\n2\n3\n4\nX\n", flags), fifth);
    }
    scene.file("well", "");
    run(&scene, &numbers(1..=5), "--output s.jsonl --resume").run().expect(0);
    let _ = records(&scene.read("s.jsonl"), 5);
}

#[test]
fn other_kinds_of_input_are_compared_as_well() {
    let check = |flags: &str, input: &str, less: &str, other: &str, more: &str, last: &str| {
        let scene = Scene::new();
        let run = |input: &str, more: &str| {
            let run = scene.run().words(flags).words("--output o.jsonl").words(more).input(input);
            run.args(["--", "sh", "-c", "test -e well || case \"$*\" in *bad*) exit 1; esac", "sh"])
                .arg("{}")
        };
        run(input, "").run().expect(1);
        let retry = "--resume --retry-failed";
        assert_refused(&scene, run(less, retry), &format!("records up to task {last}"));
        assert_refused(&scene, run(other, retry), &format!("number {last} of its tasks"));
        scene.file("well", "");
        run(more, retry).run().expect(0);
        let ended: Ended = run(more, retry).run().expect(0);
        assert!(ended.stderr.contains("all had their records already"), "{}", ended.stderr);
    };
    let header = "a,b\n";
    let rows = |rows: &str| format!("{header}{rows}");
    check(
        "--input-format csv",
        &rows("1,x\nbad,y\n"),
        &rows("1,x\n"),
        &rows("1,x\nbad,z\n"),
        &rows("1,x\nbad,y\n3,z\n"),
        "2",
    );
    check(
        "--input-format jsonl",
        "[1]\n[\"bad\"]\n",
        "[1]\n",
        "[1]\n[2]\n",
        "[1]\n[\"bad\"]\n[3]\n",
        "2",
    );
    check("-n 2", "1\n2\n3\nbad\n", "1\n2\n", "1\n2\n3\n", "1\n2\n3\nbad\n5\n", "2");
    check("-0", "1\0bad\0", "1\0", "1\0Bad\0", "1\0bad\x002\0", "2");
}

#[test]
fn lines_cannot_take_back_what_failed_and_say_so() {
    let scene = Scene::new();
    let ended = run(&scene, &numbers(1..=6), "--output r").run().expect(1);
    assert!(ended.stderr.contains("--format jsonl"), "{}", ended.stderr);
    let retry = || run(&scene, &numbers(1..=6), "--output r --resume --retry-failed");
    assert_not_written(&scene, retry(), "--retry-failed needs --format jsonl");
    run(&scene, &numbers(1..=7), "--output r --resume").run().expect(1);
    assert_eq!(scene.read("r"), b"fine 1\nfine 2\nfine 3\nfine 4\nfine 6\nfine 7\n");
}

#[test]
fn three_roles_refuse_and_resume_alike() {
    let scene = Scene::new();
    let job = |input: &str, flags: &str, code: i32| {
        let sink = scene.sink().words("--output s.jsonl").start();
        let worker = scene.worker("w").words("--exit-when-done");
        let command = "test -e well || test $1 != 5";
        let mut worker = worker.args(["--", "sh", "-c", command, "sh"]).start();
        let ended = scene.ventilator().words(flags).input(input).start().wait().expect(code);
        let mut sink = sink;
        if code == 7 {
            sink.kill();
        } else {
            sink.wait().expect(code);
        }
        // Where there is nothing to do, the job may be over before a worker has come to it.
        worker.kill();
        ended
    };
    let _ = job(&numbers(1..=5), "", 1);
    let before = scene.read("s.jsonl");
    let ended = job(&numbers(1..=4), "--resume --retry-failed", 7);
    assert!(ended.stderr.contains("up to task 5"), "{}", ended.stderr);
    assert_eq!(scene.read("s.jsonl"), before);
    scene.file("well", "");
    let _ = job(&numbers(1..=5), "--resume --retry-failed", 0);
    let _ = job(&numbers(1..=5), "--resume", 0);
    let _ = job(&numbers(1..=6), "--resume", 0);
    let _ = records(&scene.read("s.jsonl"), 6);
}

#[test]
fn a_pipeline_is_resumed_as_well() {
    let scene = Scene::new();
    scene.file(
        "p.toml",
        "[[stage]]\nname = 'a'\ncommand = [\"sh\", \"-c\", \"test -e well || test $1 != 5; echo $1\", \"sh\"]\n\
         [[stage]]\nname = 'b'\ncommand = [\"sh\", \"-ec\", \"test -e well || test $1 != 2; echo $1\", \"sh\"]\n",
    );
    let run = |input: &str, flags: &str| {
        scene.run().words("--pipeline p.toml --output p.jsonl").words(flags).input(input)
    };
    run(&numbers(1..=5), "").run().expect(1);
    let retry = "--resume --retry-failed";
    assert_refused(&scene, run(&numbers(1..=4), retry), "up to task 5");
    assert_refused(&scene, run("1\nX\n3\n4\n5\n", retry), "number 2 of its tasks");
    scene.file("well", "");
    run(&numbers(1..=5), retry).run().expect(0);
    run(&numbers(1..=5), "--resume").run().expect(0);
    run(&numbers(1..=7), "--resume").run().expect(0);
    let _ = records(&scene.read("p.jsonl"), 7);
}
