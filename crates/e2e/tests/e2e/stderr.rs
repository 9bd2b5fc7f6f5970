//! Stderr of tasks, reasons of failures, and the tags of each task's output.

use std::fs::OpenOptions;

use tradewind_e2e::{Scene, records, wait_until};

const FAILING: &str = "echo err$1 >&2; exit $1";

fn numbers(range: impl IntoIterator<Item = u64>) -> String {
    range.into_iter().map(|n| format!("{n}\n")).collect()
}

#[test]
fn what_tasks_write_to_stderr_is_passed_on_task_by_task() {
    let scene = Scene::new();
    let slow = "echo a$1 >&2; sleep 0.1; echo b$1 >&2; echo out$1";
    let run = |flags: &str| {
        let run = scene.run().words("-j 8").words(flags).input(numbers(1..=8));
        run.args(["--", "sh", "-c", slow, "sh"]).run().expect(0)
    };
    let ended = run("");
    assert_eq!(ended.text(), (1..=8).map(|n| format!("out{n}\n")).collect::<String>());
    for n in 1..=8 {
        let together = format!("a{n}\nb{n}\n");
        assert!(ended.stderr.contains(&together), "{n}: {}", ended.stderr);
    }
    let ended = run("--no-stderr");
    assert!(!ended.stderr.contains("a1"), "{}", ended.stderr);
    // It is theirs, and no summary of ours.
    assert!(run("-q").stderr.contains("a8\nb8\n"));
    // Records in jsonl have it.
    let ended = run("--output r.jsonl");
    assert!(!ended.stderr.contains("a1"), "{}", ended.stderr);
    for record in records(&scene.read("r.jsonl"), 8) {
        let stderr = record.json["stderr"].as_str().expect("there is some");
        assert_eq!(stderr.lines().count(), 2);
        assert!(record.json.get("error").is_none());
    }
}

#[test]
fn the_first_failures_have_a_line_and_the_rest_can_be_found() {
    let scene = Scene::new();
    let run = |count: u64, flags: &str| {
        let run = scene.run().words("-j 1").words(flags).input(numbers(1..=count));
        run.args(["--", "sh", "-c", FAILING, "sh"]).run().expect(1).stderr
    };
    let said = run(3, "");
    for n in 1..=3 {
        assert!(said.contains(&format!("err{n}\n")), "{said}");
        assert!(said.contains(&format!("task {n} failed: exit code {n}: err{n}\n")), "{said}");
    }
    assert!(said.contains("3 failed") && said.contains("--format jsonl"), "{said}");
    let said = run(3, "--format jsonl");
    assert!(said.contains("task 3 failed: exit code 3: err3\n"), "{said}");
    let said = run(50, "--no-stderr");
    assert_eq!(said.matches("failed: exit code").count(), 10, "{said}");
    assert_eq!(said.matches("more failures are not shown").count(), 1, "{said}");
    let said = run(3, "-q --no-stderr");
    assert_eq!(said, "");
}

#[test]
fn every_kind_of_failure_has_its_line() {
    let check = |flags: &str, command: &[&str], input: &[u8], wanted: &str| {
        let scene = Scene::new();
        let run = scene.run().words(flags).input(input).arg("--").args(command);
        let ended = run.run().expect(1);
        assert!(ended.stderr.contains("task 1 "), "{command:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(wanted), "{command:?}: {}", ended.stderr);
    };
    let sh = |script: &'static str| ["sh", "-c", script];
    check("--timeout 300ms", &sh("echo why >&2; sleep 9"), b"a\n", "timed out after 300ms: why");
    check("", &sh("kill -9 $$"), b"a\n", "9");
    check("", &["echo"], b"a\0b\n", "NUL");
    check("", &["echo"], &[b'x'; 200_000], "task 1 failed: ");
    check("--max-output 10", &["echo"], b"0123456789abc\n", "more than 10");
    check("--input-format jsonl", &["echo", "{no}"], b"{\"a\":1}\n", "no field \"no\"");
}

#[test]
fn the_task_stands_with_its_output_when_asked_for() {
    let scene = Scene::new();
    let script = "printf 'x\\ny\\n'; echo warn >&2";
    let run = scene.run().words("--tag -j 1").input("a b\nc\n").args(["--", "sh", "-c", script]);
    let ended = run.run().expect(0);
    assert_eq!(ended.text(), "a b\tx\na b\ty\nc\tx\nc\ty\n");
    assert!(ended.stderr.contains("a b\twarn\nc\twarn\n"), "{}", ended.stderr);

    let run = scene.run().words("--with-task --output t.jsonl").input(*b"a b\n\xff\n");
    run.args(["--", "echo"]).run().expect(0);
    let records = records(&scene.read("t.jsonl"), 2);
    let of = |seq: u64| {
        let record = records.iter().find(|record| record.json["seq"] == seq).expect("it is there");
        record.json.clone()
    };
    assert_eq!(of(0)["task"], "a b");
    assert_eq!(of(1)["task_base64"], "/w==");
    for flags in ["--tag --format jsonl", "--with-task --format lines"] {
        let _ = scene.run().words(flags).words("--echo").input("a\n").run().expect(2);
    }
}

#[test]
fn each_task_has_a_directory_when_asked_for() {
    let scene = Scene::new();
    let script = "echo out$1; echo err$1 >&2; test -e well || test $1 != 2";
    let run = |flags: &str| {
        let run = scene.run().words("--results res --output r.jsonl").words(flags);
        run.input(numbers(1..=3)).args(["--", "sh", "-c", script, "sh"])
    };
    run("").run().expect(1);
    let read = |name: &str| String::from_utf8(scene.read(&format!("res/{name}"))).expect("text");
    assert_eq!((read("2/stdout").as_str(), read("2/stderr").as_str()), ("out2\n", "err2\n"));
    assert!(read("2/record.json").contains("\"exit_code\":1"), "{}", read("2/record.json"));
    assert!(read("2/record.json").contains("\"task\":\"2\""), "{}", read("2/record.json"));
    scene.file("well", "");
    run("--resume --retry-failed").run().expect(0);
    assert!(read("2/record.json").contains("\"exit_code\":0"), "{}", read("2/record.json"));
    let names = std::fs::read_dir(scene.path("res")).expect("it is there");
    assert_eq!(names.count(), 3);
    // Others' are not mixed with ours.
    let other = || scene.run().words("--results res --echo").input("a\n");
    let ended = other().run().expect(4);
    assert!(ended.stderr.contains("results \"res\" exists already"), "{}", ended.stderr);
    other().arg("--overwrite").run().expect(0);
    assert_eq!(read("1/stdout"), "a");
}

#[test]
fn a_full_output_ends_a_run_at_once_and_is_waited_for_when_told_to() {
    let scene = Scene::new();
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("it is there");
    let run = |flags: &str| scene.run().words("--echo").words(flags).input(numbers(1..=10));
    for ended in [run("").stdout(full()).run(), run("--output /dev/full").run()] {
        let ended = ended.expect(4);
        assert_eq!(ended.stderr.matches("No space left on device").count(), 1, "{}", ended.stderr);
    }
    scene.assert_nothing_left();
    // Once asked to stop, it does not wait for room for ever.
    let mut waiting = run("--when-full wait").stdout(full()).start();
    waiting.wait_for_stderr("No space left on device");
    waiting.signal(tradewind_e2e::Signal::TERM);
    waiting.wait().expect(130);
    scene.assert_nothing_left();
}

#[test]
fn a_named_pipe_is_waited_for_and_signals_end_that() {
    let scene = Scene::new();
    let made = scene.other("mkfifo").args(["in", "out"]).run();
    let _ = made.expect(0);
    let mut sink = scene.sink().words("--output out").start();
    sink.wait_for_stderr("no process has opened");
    sink.signal(tradewind_e2e::Signal::TERM);
    let _ = sink.wait().expect(130);
    let mut ventilator = scene.ventilator().words("--input in").start();
    ventilator.wait_for_stderr("the ventilator is up");
    ventilator.signal(tradewind_e2e::Signal::HUP);
    let _ = ventilator.wait().expect(130);

    // With readers at the other ends it is a job like any other.
    let sink = scene.sink().words("--output out").start();
    let worker = scene.worker("w").words("--exit-when-done --echo").start();
    let ventilator = scene.ventilator().words("--input in").start();
    let reader = scene.other("cat").arg("out").start();
    let _ =
        scene.other("sh").args(["-c", "for n in 1 2 3; do echo $n; sleep 0.1; done > in"]).run();
    ventilator.wait().expect(0);
    sink.wait().expect(0);
    worker.wait().expect(0);
    assert_eq!(reader.wait().expect(0).text(), "1\n2\n3\n");
}

#[test]
fn a_sink_whose_job_was_cut_short_says_so() {
    let scene = Scene::new();
    let sink = scene.sink().words("--output s.jsonl").start();
    let worker = scene.worker("w").words("--slots 2 --sleep --exit-when-done").start();
    let mut ventilator = scene.ventilator().input("0.05\n".repeat(200)).start();
    wait_until("records are stored", || scene.read("s.jsonl").len() > 1000);
    ventilator.signal(tradewind_e2e::Signal::TERM);
    ventilator.wait().expect(130);
    let ended = sink.wait().expect(130);
    assert!(ended.stderr.contains("stopped before the end of its input"), "{}", ended.stderr);
    worker.wait().expect(0);

    // A job that was halted has ended as it should.
    for (halt, code) in [("now,success=3", 0), ("soon,done=3", 0), ("now,fail=1", 1)] {
        let scene = Scene::new();
        let sink = scene.sink().words("--output s.jsonl").start();
        let worker = scene.worker("w").words("--slots 1 --exit-when-done");
        let worker = worker.args(["--", "sh", "-c", "sleep 0.05; test $1 != 5", "sh"]).start();
        let ventilator = scene.ventilator().words("--halt").arg(halt).input(numbers(1..=100));
        let ended = ventilator.start().wait();
        assert_eq!((ended.code(), sink.wait().code()), (code, code), "{halt}: {}", ended.stderr);
        worker.wait().expect(0);
    }

    // One whose input was bad has not.
    let scene = Scene::new();
    let sink = scene.sink().words("--output s.jsonl").start();
    let worker = scene.worker("w").words("--echo --exit-when-done").start();
    let ventilator = scene.ventilator().words("--input-format jsonl").input("[1]\nno\n").start();
    ventilator.wait().expect(3);
    sink.wait().expect(130);
    worker.wait().expect(0);
}

#[test]
fn a_closed_stream_is_an_error_and_a_null_device_is_none() {
    let scene = Scene::new();
    let sh = |command: &str, code: i32, wanted: &str| {
        let tradewind = tradewind_e2e::program("tradewind");
        let command = command.replace('T', tradewind.to_str().expect("it is text"));
        let ended = scene.other("sh").args(["-c", &command]).run().expect(code);
        assert!(ended.stderr.contains(wanted), "{command}: {}", ended.stderr);
    };
    sh("echo 1 | T run --echo >&-", 4, "standard output is closed");
    sh("echo 1 | T run --echo --output o --joblog - >&-", 4, "standard output is closed");
    sh("T sink --listen tcp://127.0.0.1:0 >&-", 4, "standard output is closed");
    sh("echo 1 | T run --dry-run -- echo >&-", 4, "standard output is closed");
    sh("T run --echo <&-", 3, "standard input is closed");
    sh("T ventilator <&-", 3, "standard input is closed");
    sh("echo 1 | T run --echo --output p.jsonl >&-", 0, "1 ok");
    sh("T run -- echo ::: 1 <&-", 0, "1 ok");
    // As many programs open it for those that they start.
    sh("echo 1 | T run --echo 1<>/dev/null", 0, "1 ok");
    sh("T run --echo 0<>/dev/null", 0, "0 tasks");
}
