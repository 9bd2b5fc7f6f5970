//! Commands about queues, against a server with queues in memory.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tradewind_http::memory::Memory;
use tradewind_http::{Access, Limits, Server};
use tradewind_proto::message::Status;

/// Time within which everything has happened, or never will.
const NEVER: Duration = Duration::from_secs(60);

/// A server in this process, and commands that ask it.
struct Scene {
    memory: Memory,
    url: String,
    dir: tempfile::TempDir,
}

/// What a command did.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

impl Scene {
    fn new() -> Self {
        let memory = Memory::default();
        let server =
            Server::new(memory.clone(), Access::default().with_loopback(), Limits::default());
        let (urls, url) = mpsc::channel();
        thread::spawn(move || {
            runtime().block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                urls.send(format!("http://{}", listener.local_addr().unwrap())).unwrap();
                server.listen(listener).await;
            });
        });
        Self { memory, url: url.recv().unwrap(), dir: tempfile::tempdir().unwrap() }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind"));
        command.args(line.split_whitespace()).env_clear().env("HOME", self.dir.path());
        command.env("TRADEWIND_URL", &self.url).current_dir(self.dir.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run_with(&self, line: &str, input: &[u8]) -> Ran {
        let mut child = self.command(line).spawn().unwrap();
        // It may not read it.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        Ran { code, out: text(output.stdout), err: text(output.stderr) }
    }

    fn run(&self, line: &str) -> Ran {
        self.run_with(line, b"")
    }

    /// Runs a command that does what it is told, and returns what it prints.
    fn out(&self, line: &str) -> String {
        let Ran { code, out, err } = self.run(line);
        assert_eq!((code, &*err), (0, ""), "{line}");
        out
    }

    fn payloads(&self, queue: &str) -> Vec<String> {
        let tasks = self.memory.tasks(queue);
        tasks.iter().map(|task| String::from_utf8_lossy(&task.payload).into_owned()).collect()
    }

    /// Returns once this many requests wait.
    fn waiting(&self, count: usize) {
        runtime().block_on(async { timeout(NEVER, self.memory.waiting(count)).await.unwrap() });
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }
}

#[test]
fn tasks_are_arguments_or_lines_of_standard_input() {
    let scene = Scene::new();
    assert_eq!(scene.out("submit q one two --retries 3 --timeout 10m"), "q-0\nq-1\n");
    let first = &scene.memory.tasks("q")[0];
    assert_eq!((first.retries, first.timeout), (Some(3), Some(Duration::from_secs(600))));
    assert_eq!(first.key, None);
    for line in ["submit q", "submit q -", "submit q --input -"] {
        let ran = scene.run_with(line, b"a b\n\nc");
        assert_eq!((ran.code, ran.out.lines().count()), (0, 3), "{line}: {}", ran.err);
    }
    assert_eq!(scene.run_with("submit zero -0", b"x\ny\0z").out, "zero-0\nzero-1\n");
    assert_eq!(scene.payloads("zero"), ["x\ny", "z"]);
    let rows = b"name,mail\nAda,a@b\n";
    assert_eq!(scene.run_with("submit csv --input-format csv", rows).out, "csv-0\n");
    assert_eq!(scene.payloads("csv"), [r#"{"name":"Ada","mail":"a@b"}"#]);
    assert_eq!(scene.run_with("submit none", b"").out, "");
    let wanted = "{\"id\":\"k-0\",\"key\":\"report\"}\n";
    for _ in 0..2 {
        assert_eq!(scene.out("submit k task --key report --json"), wanted);
    }
    assert_eq!(scene.payloads("k"), ["task"]);
    assert_eq!(scene.payloads("q")[2..5], ["a b", "", "c"]);
}

#[test]
fn a_command_line_that_says_two_things_is_refused() {
    let scene = Scene::new();
    for (line, wanted) in [
        ("submit q a b --key k", "--key is for one TASK"),
        ("submit q a --input-format csv", "not for tasks as arguments"),
        ("submit q --input x --input-format csv -0", "-0 (--null) is for lines"),
        ("submit Q a", "a name has 1 to 63 characters"),
        ("status --short q", "--short is for the id of a task"),
        ("queue set q", "no setting to change"),
        ("queue add q --keep 10", "keep is a time or a size with a unit"),
        ("queue add q --max-running 0", "this must be at least 1"),
        ("result q", "the id of a task is its queue"),
        ("records q --status odd", "possible values: ok, failed"),
        ("--version --url ftp://x", ""),
        ("queue list --url ftp://x", "is no URL of a server"),
        ("retry", "required"),
    ] {
        let ran = scene.run(line);
        let code = if wanted.is_empty() { 0 } else { 2 };
        assert!(ran.err.contains(wanted) && ran.err.lines().count() <= 1, "{line}: {}", ran.err);
        assert_eq!(ran.code, code, "{line}: {}", ran.err);
    }
    let ran = scene.run("submit q --input absent.txt");
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(scene.payloads("q").is_empty());
}

#[test]
fn a_file_is_submitted_once_however_often_the_command_is_run() {
    let scene = Scene::new();
    scene.write("urls.txt", "a\nb\nc\n");
    for _ in 0..2 {
        assert_eq!(scene.out("submit q --input urls.txt"), "q-0\nq-1\nq-2\n");
    }
    scene.write("urls.txt", "a\nb\nc\nd\n");
    assert_eq!(scene.out("submit q --input ./urls.txt"), "q-0\nq-1\nq-2\nq-3\n");
    assert_eq!(scene.payloads("q"), ["a", "b", "c", "d"]);
    // Another place, another file.
    std::fs::create_dir(scene.dir.path().join("sub")).unwrap();
    scene.write("sub/urls.txt", "a\n");
    assert_eq!(scene.out("submit q --input sub/urls.txt"), "q-4\n");
    // A task that was changed is named, and nothing of its request is submitted.
    scene.write("urls.txt", "a\nB\nc\nd\ne\n");
    let ran = scene.run("submit q --input urls.txt");
    assert_eq!((ran.code, &*ran.out), (3, ""));
    assert!(
        ran.err.contains("urls.txt\", task 2: ") && ran.err.contains("--key-prefix"),
        "{}",
        ran.err
    );
    assert_eq!(scene.payloads("q").len(), 5);
    assert_eq!(scene.out("submit q --input urls.txt --key-prefix today").lines().count(), 5);
    assert_eq!(scene.memory.tasks("q")[6].key.as_ref().unwrap().as_str(), "today:2");
    assert_eq!(scene.out("submit q --input urls.txt --no-keys").lines().count(), 5);
    assert_eq!(scene.out("submit q --input urls.txt --no-keys").lines().count(), 5);
    assert_eq!(scene.payloads("q").len(), 20);
}

#[test]
fn an_input_that_is_wrong_in_its_midst_says_what_was_submitted() {
    let scene = Scene::new();
    let ran = scene.run_with("submit q --input-format jsonl", b"{\"a\":1}\n[2]\nx\n");
    assert_eq!((ran.code, &*ran.out), (3, "q-0\nq-1\n"), "{}", ran.err);
    assert!(ran.err.contains("line 3") && ran.err.contains("(2 tasks were submitted before)"));
    assert_eq!(scene.payloads("q").len(), 2);
}

#[test]
fn a_submit_may_wait_for_the_records_in_the_order_of_the_tasks() {
    let scene = Scene::new();
    for (failed, code) in [(Status::Failed, 1), (Status::Ok, 0)] {
        let base = scene.payloads("q").len();
        let ran = thread::scope(|scope| {
            let ran = scope.spawn(|| scene.run_with("submit q --wait", b"a\nb\nc\n"));
            scene.waiting(3);
            for (at, status) in [(2, Status::Ok), (0, Status::Skipped), (1, failed)] {
                scene.memory.record(&format!("q-{}", base + at), status);
            }
            ran.join().unwrap()
        });
        assert_eq!(ran.code, code, "{}", ran.err);
        let ids: Vec<_> = ran.out.lines().map(|line| line.contains(r#""position":"#)).collect();
        assert_eq!(ids, [true; 3]);
        for (at, line) in ran.out.lines().enumerate() {
            assert!(line.contains(&format!(r#""id":"q-{}""#, base + at)), "{line}");
        }
    }
}

#[test]
fn results_and_states_of_tasks_are_shown() {
    let scene = Scene::new();
    scene.out("submit q zero one two three");
    scene.memory.record("q-0", Status::Ok);
    scene.memory.start("q-1");
    scene.memory.record("q-3", Status::TimedOut);
    let record = "{\"position\":0,\"id\":\"q-0\",\"seq\":0,\"status\":\"ok\"}\n";
    assert_eq!(scene.out("result q-0"), record);
    let ran = scene.run("result q-3 q-0");
    assert_eq!((ran.code, ran.out.lines().count(), ran.out.ends_with(record)), (1, 2, true));
    let ran = scene.run("result q-0 q-2 --wait 20ms");
    assert_eq!((ran.code, &*ran.out), (124, record));
    assert!(ran.err.contains("task q-2 has no record yet"), "{}", ran.err);
    let ran = scene.run("result q-0 --output");
    assert_eq!((ran.code, &*ran.out), (7, ""));
    assert!(ran.err.contains("the record of task q-0 has no output"), "{}", ran.err);
    let ran = scene.run("result q-99");
    assert_eq!((ran.code, &*ran.err), (7, "tradewind result: there is no task q-99\n"));

    for (id, word, short) in [
        ("q-0", "ok", "success"),
        ("q-1", "running", "running"),
        ("q-2", "queued", "running"),
        ("q-3", "timed_out", "failed"),
    ] {
        assert_eq!(scene.out(&format!("status {id}")), format!("{word}\n"));
        assert_eq!(scene.out(&format!("status {id} --short")), format!("{short}\n"));
        let json = scene.out(&format!("status {id} --json"));
        assert!(json.contains(&format!(r#""status":"{word}""#)) && json.ends_with("}\n"), "{json}");
    }
    let queue = scene.out("status q");
    assert!(queue.contains("queued    1\nrunning   1\nrecords   2\nposition  1\n"), "{queue}");
    let json = scene.out("status q --json");
    assert!(json.starts_with(r#"{"name":"q","paused":false,"queued":1"#), "{json}");
    assert_eq!(scene.out("status --json"), json);
    assert_eq!(scene.out("status"), scene.out("queue list"));
}

#[test]
fn records_are_printed_and_a_consumer_goes_on_after_them() {
    let scene = Scene::new();
    scene.out("submit q zero one two three");
    scene.memory.record("q-2", Status::Ok);
    scene.memory.record("q-0", Status::Failed);
    let line = |position: u64, id: u64, status: &str| {
        format!(
            "{{\"position\":{position},\"id\":\"q-{id}\",\"seq\":{id},\"status\":\"{status}\"}}\n"
        )
    };
    let both = line(0, 2, "ok") + &line(1, 0, "failed");
    assert_eq!(scene.out("records q"), both);
    assert_eq!(scene.out("records q --after 0"), line(1, 0, "failed"));
    assert_eq!(scene.out("records q --status failed"), line(1, 0, "failed"));
    assert_eq!(scene.out("records q --consumer billing"), both);
    assert_eq!(scene.out("records q --consumer billing"), "");
    scene.memory.record("q-1", Status::Ok);
    // Each as it comes: the consumer is after it before the next is waited for.
    let mut child = scene.command("records q --follow --consumer billing").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap() + "\n";
    assert_eq!(next(), line(2, 1, "ok"));
    scene.waiting(1);
    scene.memory.record("q-3", Status::Lost);
    assert_eq!(next(), line(3, 3, "lost"));
    child.kill().unwrap();
    child.wait().unwrap();
    let again = scene.run("records q --consumer billing");
    // It was ended between the line and the consumer's position, or after that.
    assert!(again.out.is_empty() || again.out == line(3, 3, "lost"), "{}", again.out);
    let ran = scene.run("records none");
    assert_eq!((ran.code, &*ran.err), (7, "tradewind records: there is no queue none\n"));
}

#[test]
fn tasks_are_cancelled_and_retried() {
    let scene = Scene::new();
    scene.out("submit q zero one two three four");
    scene.memory.start("q-1");
    let ran = scene.run("cancel q-0 q-9 q-1");
    assert_eq!((ran.code, &*ran.out), (7, "q-0 cancelled\nq-1 running\n"));
    assert_eq!(ran.err, "tradewind cancel: q-9: there is no task q-9\n");
    let ran = scene.run("retry q-2 q-0 --json");
    assert_eq!(ran.code, 7);
    assert_eq!(ran.out, "{\"id\":\"q-5\",\"key\":null,\"of\":\"q-0\"}\n");
    assert!(ran.err.contains("q-2: task q-2 has no record yet"), "{}", ran.err);
    for (id, status) in [(2, Status::Failed), (3, Status::Ok), (4, Status::Lost)] {
        scene.memory.record(&format!("q-{id}"), status);
    }
    // Not what was cancelled, and once.
    for _ in 0..2 {
        assert_eq!(scene.out("retry --failed q"), "q-6\nq-7\n");
    }
    assert_eq!(scene.payloads("q")[6..], ["two", "four"]);
    assert_eq!(scene.memory.tasks("q")[7].key.as_ref().unwrap().as_str(), "retry-of-q-4");
}

#[test]
fn what_cannot_be_retried_is_counted_and_the_others_are_retried() {
    let scene = Scene::new();
    scene.out("submit q zero one two");
    for id in ["q-0", "q-1", "q-2"] {
        scene.memory.record(id, Status::Failed);
    }
    scene.memory.forget("q-0");
    let ran = scene.run("retry --failed q");
    assert_eq!((ran.code, &*ran.out), (7, "q-3\nq-4\n"));
    let wanted = "tradewind retry: 1 failed task cannot be retried, it is no longer kept; the first is q-0\n";
    assert_eq!(ran.err, wanted);
    scene.memory.forget("q-2");
    let ran = scene.run("retry --failed q --json");
    assert_eq!(ran.code, 7);
    assert_eq!(ran.out, "{\"id\":\"q-3\",\"key\":\"retry-of-q-1\",\"of\":\"q-1\"}\n");
    assert!(ran.err.contains("2 failed tasks cannot be retried, they are no longer kept"));
}

#[test]
fn queues_are_made_changed_paused_and_removed() {
    let scene = Scene::new();
    let flags = "--retries 3 --timeout 10m --max-running 200 --keep 7d --unique 1h --fsync record";
    let json = scene.out(&format!("queue add thumbs {flags} --json"));
    let settings = r#""settings":{"retries":3,"timeout":"10m","max_running":200,"keep":"7days","unique":"1h","fsync":"record"}"#;
    assert!(json.contains(settings), "{json}");
    let json = scene.out("queue set thumbs --timeout default --retries 1 --json");
    let settings = r#""retries":1,"timeout":null,"max_running":200"#;
    assert!(json.contains(settings), "{json}");
    assert_eq!(
        scene.run("queue add thumbs").err,
        "queue thumbs was there, and has these settings now\n"
    );
    assert!(scene.out("status thumbs").contains("settings  fsync=batch, retries=0, unique=kept\n"));
    assert!(scene.run("pause thumbs").err.starts_with("queue thumbs paused"));
    let list = scene.out("queue list");
    assert_eq!(list.lines().count(), 2);
    let row: Vec<_> = list.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row, ["thumbs", "paused", "0", "0", "0"]);
    assert!(scene.out("resume thumbs --json").contains(r#""paused":false"#));
    scene.out("submit thumbs x");
    let ran = scene.run("queue rm thumbs");
    assert_eq!(
        (ran.code, &*ran.err),
        (7, "tradewind queue: queue thumbs has tasks without a record\n")
    );
    scene.memory.record("thumbs-0", Status::Ok);
    assert_eq!(scene.run("queue rm thumbs").err, "queue thumbs removed\n");
    assert_eq!(scene.out("queue list --json"), "");
}

#[test]
fn a_server_that_is_not_there_is_one_line_that_says_what_to_do() {
    let scene = Scene::new();
    for line in ["submit q a", "status", "records q --follow", "result q-0 --wait 30s"] {
        // Nothing listens there: only root may.
        let ran = scene.run(&format!("{line} --url http://127.0.0.1:1"));
        let name = line.split(' ').next().unwrap();
        let wanted = format!(
            "tradewind {name}: failed to connect to http://127.0.0.1:1: connection refused: is `tradewind \
             serve` running there? --url (TRADEWIND_URL) says where it is\n"
        );
        assert_eq!((ran.code, ran.err), (6, wanted));
    }
}

#[test]
fn a_reader_that_leaves_ends_the_command() {
    let scene = Scene::new();
    let input = "x\n".repeat(50_000);
    let mut child = scene.command("submit q").spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    let fed = thread::spawn(move || stdin.write_all(input.as_bytes()));
    assert_eq!(child.wait().unwrap().code(), Some(141));
    let _ = fed.join().unwrap();
}

#[test]
fn the_python_example_submits_and_waits() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/queue/client.py");
    let scene = Scene::new();
    let run = || {
        let mut command = Command::new("python3");
        command.arg(&script).args(["q", "a \"b\"", "task"]).env("TRADEWIND_URL", &scene.url);
        command.output().unwrap()
    };
    let output = thread::scope(|scope| {
        let output = scope.spawn(run);
        scene.waiting(1);
        scene.memory.record("q-0", Status::Ok);
        output.join().unwrap()
    });
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(run().status.code(), Some(0));
    let tasks = scene.memory.tasks("q");
    assert_eq!((tasks.len(), tasks[0].key.as_ref().unwrap().as_str()), (1, "a \"b\""));
}
