//! Handlers that stay up: killed in each state of their life, stopped, wrong in every way.

use std::fmt::Write as _;

use tradewind_e2e::{Record, Scene, Signal, Start, records, wait_for, wait_until};

/// Answers each line in upper case. What it does besides is up to the line.
const HANDLER: &str = r#"
import os, sys, time
open("starts", "a").write("%d\n" % os.getpid())
for line in sys.stdin:
    word = line.strip()
    if word == "die": os._exit(3)
    if word == "raise": raise ValueError("this one is bad")
    if word == "leave": sys.exit(0)
    if word == "twice": print("TWICE", flush=True)
    if word == "large": print("x" * 1000, flush=True)
    if word == "half": sys.stdout.write("hal"); sys.stdout.flush(); os._exit(0)
    if word == "close": os.close(1); time.sleep(1000)
    if word == "stay":
        open("stays", "w").write(str(os.getpid()))
        time.sleep(1000)
    if word == "once" and not os.path.exists("was-here"):
        open("was-here", "w").close()
        open("stays", "w").write(str(os.getpid()))
        time.sleep(1000)
    print(word.upper(), flush=True)
"#;

fn pipe(scene: &Scene, flags: &str, handler: &str) -> Start {
    scene.file("handler.py", handler);
    scene
        .run()
        .words("-j 1 --format jsonl --max-output 100 --pipe")
        .words(flags)
        .words("-- python3 handler.py")
}

fn starts(scene: &Scene) -> usize {
    scene.read("starts").iter().filter(|byte| **byte == b'\n').count()
}

/// Each is one word and the beginning of its record: its status, then its output or error.
#[track_caller]
fn assert_records(records: &[Record], expected: &[&str]) {
    for (record, expected) in records.iter().zip(expected) {
        let text = record.output.as_deref().filter(|text| !text.is_empty());
        let found = format!("{} {}", record.status, text.unwrap_or(&record.error));
        assert!(found.starts_with(expected), "{expected:?}, but: {}", record.json);
        assert_eq!(record.attempt, 1, "{}", record.json);
    }
    assert_eq!(records.len(), expected.len());
}

#[test]
fn the_end_of_a_child_is_the_failure_of_the_task_it_was_at() {
    #[track_caller]
    fn check(input: &str, code: i32, expected: &[&str], starts_expected: usize) {
        let scene = Scene::new();
        let run = pipe(&scene, "lines", HANDLER);
        let ended = run.input(input.replace(' ', "\n") + "\n").run().expect(code);
        let records = records(&ended.stdout, expected.len() as u64);
        assert_records(&records, expected);
        assert_eq!(starts(&scene), starts_expected, "{input}");
        scene.assert_nothing_left();
    }
    check("a b c", 0, &["ok A", "ok B", "ok C"], 1);
    check("a die b c", 1, &["ok A", "failed the handler exited with code 3", "ok B", "ok C"], 2);
    check("die a", 1, &["failed the handler exited with code 3", "ok A"], 2);
    check("a raise b", 1, &["ok A", "failed the handler exited with code 1", "ok B"], 2);
    let left = "failed the handler exited with code 0 without an answer";
    check("a leave b", 1, &["ok A", left, "ok B"], 2);
    check("a large b", 1, &["ok A", "failed the handler's answer is larger than 100", "ok B"], 2);
    check(
        "a half b",
        1,
        &["ok A", "failed the handler exited with code 0 in the middle", "ok B"],
        2,
    );
    let closed = "failed the handler closed its standard output and did not exit";
    check("a close b", 1, &["ok A", closed, "ok B"], 2);
    check("a twice", 0, &["ok A", "ok TWICE"], 1);
}

#[test]
fn what_a_child_says_is_in_the_log_and_the_exit_code_is_told() {
    let scene = Scene::new();
    let ended = pipe(&scene, "lines --log info", HANDLER).input("a\nraise\n").run().expect(1);
    let records = records(&ended.stdout, 2);
    assert_eq!(records[1].error, "the handler exited with code 1");
    assert_eq!(records[1].json["exit_code"], 1);
    let line = ended.stderr.lines().find(|line| line.contains("handler: ValueError"));
    assert!(line.is_some_and(|line| line.contains("seq=1")), "{}", ended.stderr);
}

#[test]
fn a_task_with_a_newline_fails_as_a_line_and_no_other_way() {
    let handler = "import sys, json\nfor line in sys.stdin:\n    \
                   print(json.dumps({'output': json.loads(line)['task']}))\n";
    let scene = Scene::new();
    let run = pipe(&scene, "lines -0", HANDLER).input("a\nb\0c\0");
    let found = records(&run.run().expect(1).stdout, 2);
    assert_records(&found, &["failed the task has a newline", "ok C"]);
    assert!(found[0].error.contains("json") && found[0].error.contains("frames"));
    let run = pipe(&scene, "json -0", handler).input("a\nb\0c\0");
    assert_records(&records(&run.run().expect(0).stdout, 2), &["ok a\nb", "ok c"]);
}

#[test]
fn killed_in_any_state_a_child_is_replaced() {
    // While it loads: it has taken no task, so none has failed.
    let scene = Scene::new();
    let loading = format!(
        "import os, time\nif not os.path.exists('loaded'):\n    \
         open('loaded', 'w').write(str(os.getpid()))\n    time.sleep(1000)\n{HANDLER}"
    );
    let run = pipe(&scene, "lines", &loading).input("a\nb\n").start();
    kill(&scene, "loaded");
    let ended = run.wait().expect(0);
    assert_records(&records(&ended.stdout, 2), &["ok A", "ok B"]);
    assert!(ended.stderr.contains("before it took a task"), "{}", ended.stderr);

    // At a task.
    let scene = Scene::new();
    let run = pipe(&scene, "lines", HANDLER).input("a\nonce\nb\n").start();
    kill(&scene, "stays");
    let ended = run.wait().expect(1);
    let killed = "failed the handler was killed by signal 9 (SIGKILL)";
    assert_records(&records(&ended.stdout, 3), &["ok A", killed, "ok B"]);

    // At a task that may be tried again.
    let scene = Scene::new();
    let run = pipe(&scene, "lines --retries 1", HANDLER).input("a\nonce\nb\n").start();
    kill(&scene, "stays");
    let found = records(&run.wait().expect(0).stdout, 3);
    assert_eq!((found[1].output.as_deref(), found[1].attempt), (Some("ONCE"), 2));

    // Between tasks.
    let scene = Scene::new();
    let sink = scene.sink().words("--format jsonl").start();
    scene.file("handler.py", HANDLER);
    let words = "--slots 1 --exit-when-done --pipe lines -- python3 handler.py";
    let mut worker = scene.worker("w").words(words).start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    std::io::Write::write_all(ventilator.stdin().unwrap(), b"a\n").unwrap();
    wait_until("the first has its record", || sink.stdout_lines() == 1);
    kill(&scene, "starts");
    worker.wait_for_stderr("between tasks");
    std::io::Write::write_all(ventilator.stdin().unwrap(), b"b\n").unwrap();
    ventilator.close_stdin();
    assert_records(&records(&sink.wait().expect(0).stdout, 2), &["ok A", "ok B"]);
    let _ = ventilator.wait().expect(0);
    let _ = worker.wait().expect(0);
    scene.assert_nothing_left();
}

/// Kills the process that has written its id here.
fn kill(scene: &Scene, file: &str) {
    let pid: u32 = wait_for("a child says its id", || {
        String::from_utf8(scene.read(file)).ok()?.trim().parse().ok()
    });
    let _ = scene.other("kill").args(["-KILL", &pid.to_string()]).run();
}

#[test]
fn a_task_that_takes_too_long_is_stopped_and_those_behind_it_are_run() {
    let scene = Scene::new();
    let flags = "lines --timeout 500ms --pipe-startup 30s";
    let input = format!("a\n{}stay\nb\nc\n", "x\n".repeat(200));
    let ended = pipe(&scene, flags, HANDLER).input(input).run().expect(1);
    let records = records(&ended.stdout, 204);
    for record in &records {
        let wanted = if record.seq == 201 { "timed_out" } else { "ok" };
        assert_eq!((&*record.status, record.attempt), (wanted, 1), "{}", record.json);
    }
    assert_eq!(starts(&scene), 2);
    scene.assert_nothing_left();
}

#[test]
fn loading_takes_no_time_from_the_task() {
    let scene = Scene::new();
    let handler = format!("import time\ntime.sleep(2)\n{HANDLER}");
    let run = pipe(&scene, "lines --timeout 1s --pipe-startup 30s", &handler).input("a\n");
    assert_records(&records(&run.run().expect(0).stdout, 1), &["ok A"]);
    let run = pipe(&scene, "lines --timeout 1s --pipe-startup 0s", &handler).input("a\n");
    assert_records(&records(&run.run().expect(1).stdout, 1), &["timed_out timed out after 1s"]);
}

#[test]
fn a_json_handler_says_how_each_task_ends() {
    const HANDLER: &str = r#"
import sys, json, base64
for line in sys.stdin:
    task = json.loads(line)
    word = task.get("task")
    answer = {"seq": task["seq"], "output": "%s %d" % (word, task["attempt"])}
    if word is None: answer = {"output_base64": task["task_base64"]}
    if word == "skip": answer = {"skip": True}
    if word == "error": answer = {"error": "it is no good"}
    if word == "turn": answer = {"seq": 77, "output": ""}
    if word == "none": answer = {}
    print("garbage" if word == "garbage" else json.dumps(answer))
"#;
    let scene = Scene::new();
    let input = b"a\nskip\nerror\n\xff\nturn\nb\nnone\ngarbage\nc\n";
    let ended = pipe(&scene, "json", HANDLER).input(&input[..]).run().expect(1);
    let records = records(&ended.stdout, 9);
    assert_records(
        &records,
        &[
            "ok a 1",
            "skipped ",
            "failed it is no good",
            "ok ",
            "failed the handler answered out of order: seq 77 instead of 4",
            "ok b 1",
            "failed the handler's answer is invalid for --pipe json: none of output",
            "failed the handler's answer is invalid for --pipe json: expected value",
            "ok c 1",
        ],
    );
    assert_eq!(records[3].json["output_base64"], "/w==");
    scene.assert_nothing_left();
}

#[test]
fn frames_carry_any_bytes() {
    const HANDLER: &str = r#"
import sys
stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
while head := stdin.read(4):
    task = stdin.read(int.from_bytes(head, "big"))
    stdout.write(len(task).to_bytes(4, "big") + task[::-1])
    stdout.flush()
"#;
    let scene = Scene::new();
    let run = pipe(&scene, "frames -0", HANDLER).input("ab\nc\0\0x\0");
    assert_records(&records(&run.run().expect(0).stdout, 3), &["ok c\nba", "ok ", "ok x"]);
}

#[test]
fn an_exit_code_may_say_that_a_task_is_skipped() {
    let scene = Scene::new();
    let run = scene.run().words("--format jsonl --skip-exit-code 7").args(["--", "sh", "-c"]);
    let run = run.args(["echo $1; exit $1", "sh", "{}"]).input("0\n7\n3\n");
    let found = records(&run.run().expect(1).stdout, 3);
    let statuses: Vec<&str> = found.iter().map(|record| &*record.status).collect();
    assert_eq!(statuses, ["ok", "skipped", "failed"]);
}

#[test]
fn a_handler_that_cannot_be_kept_up_ends_the_worker() {
    let scene = Scene::new();
    let flags = "lines --pipe-restarts 2";
    let ended = pipe(&scene, flags, "import no_such_module\n").input("a\nb\n").run().expect(9);
    assert_eq!(ended.text(), "", "no task was at fault");
    let line = ended.stderr.lines().find(|line| line.starts_with("worker: "));
    let line = line.or_else(|| ended.stderr.lines().find(|line| line.contains("--pipe-restarts")));
    let line = line.unwrap_or_else(|| panic!("{}", ended.stderr));
    assert!(line.contains("no_such_module") && line.contains("3 in a row"), "{line}");
    scene.assert_nothing_left();
}

#[test]
fn an_answer_that_nobody_asked_for_is_an_error() {
    let scene = Scene::new();
    let handler = "print('ready', flush=True)\nimport time\ntime.sleep(1000)\n";
    scene.file("handler.py", handler);
    let words = "--slots 1 --pipe lines -- python3 handler.py";
    let mut worker = scene.worker("w").words(words).start();
    worker.wait_for_stderr("wrote an answer without a task");
    worker.signal(Signal::TERM);
    let _ = worker.wait().expect(0);
    scene.assert_nothing_left();
}

#[test]
fn at_the_end_a_child_sees_the_end_of_its_input_and_may_finish() {
    let scene = Scene::new();
    let handler = format!("{HANDLER}\ntime.sleep(0.5)\nopen('finished', 'w').close()\n");
    let _ = pipe(&scene, "lines", &handler).input("a\n").run().expect(0);
    assert!(scene.path("finished").exists());
    scene.assert_nothing_left();
}

#[test]
fn cancelled_a_job_leaves_no_child_behind() {
    let scene = Scene::new();
    let mut run = pipe(&scene, "lines", HANDLER).input("a\nstay\nb\nc\n").start();
    wait_until("it is at the long one", || scene.path("stays").exists());
    run.signal(Signal::INT);
    run.wait_for_stderr("again to cancel");
    tradewind_e2e::pause_between_signals();
    run.signal(Signal::INT);
    let ended = run.wait().expect(130);
    let count = ended.stdout.iter().filter(|byte| **byte == b'\n').count();
    let records = records(&ended.stdout, count as u64);
    assert!(records[1..].iter().all(|record| record.status == "cancelled"), "{records:?}");
    scene.assert_nothing_left();
}

#[test]
fn a_child_sees_its_place() {
    let scene = Scene::new();
    let handler = "import os, sys\nfor line in sys.stdin:\n    \
                   print(os.environ['TRADEWIND_WORKER'], os.environ['TRADEWIND_SLOT'])\n";
    let run = pipe(&scene, "lines", handler).input("a\n");
    let found = records(&run.run().expect(0).stdout, 1);
    assert_eq!(found[0].output.as_deref(), Some(&*format!("{} 0", found[0].worker)));
}

#[test]
fn children_that_are_killed_at_random_cost_no_record() {
    const TASKS: usize = 10_000;
    let mut random = tradewind_e2e::random();
    let scene = Scene::new();
    scene.file("handler.py", HANDLER);
    let mut input = String::new();
    for task in 0..TASKS {
        let _ = writeln!(input, "task {task}");
    }
    let words = "-j 2 --ordered --retries 30 --format jsonl --pipe lines --pipe-restarts 1000";
    let run = scene.run().words(words).words("-- python3 handler.py");
    let mut run = run.keep_stdin().start();
    let mut kills = 0;
    // A part at a time, so that there is something to be killed at for as long as it takes.
    for part in input.as_bytes().chunks(input.len() / 40 + 1) {
        std::io::Write::write_all(run.stdin().unwrap(), part).unwrap();
        let children = wait_for("there are children", || {
            let pids = scene.pids("handler.py").into_iter();
            let children: Vec<_> = pids.filter(|pid| is_child(&scene, pid.as_raw_pid())).collect();
            (!children.is_empty()).then_some(children)
        });
        let killed = children[random.usize(..children.len())];
        let pid = killed.as_raw_pid().to_string();
        scene.other("kill").args(["-KILL", &pid]).run().expect(0);
        wait_until("it is gone", || !scene.pids("handler.py").contains(&killed));
        kills += 1;
    }
    run.close_stdin();
    let ended = run.wait().expect(0);
    eprintln!("{kills} kills, {} starts", starts(&scene));
    assert!(starts(&scene) >= kills, "whoever was killed was replaced");
    let text = std::str::from_utf8(&ended.stdout).unwrap();
    assert_eq!(text.lines().count(), TASKS);
    for (task, line) in text.lines().enumerate() {
        assert!(line.starts_with(&format!("{{\"seq\":{task},\"status\":\"ok\"")), "{line}");
        assert!(line.contains(&format!("\"TASK {task}\"")), "{line}");
    }
    scene.assert_nothing_left();
}

/// Has a child with this id begun?
fn is_child(scene: &Scene, pid: i32) -> bool {
    let starts = String::from_utf8(scene.read("starts")).unwrap();
    starts.lines().any(|line| line == pid.to_string())
}
