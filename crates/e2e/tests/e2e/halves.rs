//! The two halves of queues as programs of their own: tasks at one, records at the other.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use serde_json::Value;
use tradewind_e2e::{Answer, Process, Scene, Signal, Start, ask, wait_for, wait_until};

/// A scene with both halves.
struct Halves {
    scene: Scene,
    tasks: Process,
    records: Process,
}

const NDJSON: &str = "Content-Type: application/x-ndjson";

impl Halves {
    fn new() -> Self {
        let scene = Scene::new();
        let (records, tasks) = (up(scene.records_half()), up(scene.tasks_half()));
        Self { scene, tasks, records }
    }

    fn restart_tasks(&mut self) {
        self.tasks.kill();
        self.tasks = up(self.scene.tasks_half());
    }

    fn restart_records(&mut self) {
        self.records.kill();
        self.records = up(self.scene.records_half());
    }

    fn worker(&self, queue: &str, words: &str) -> Process {
        self.scene.worker("w").args(["--queue", queue]).words(words).start()
    }

    fn client(&self, words: &str) -> Start {
        let url = format!("http://{}", self.scene.http());
        self.scene.ours("tradewind").words(words).env("TRADEWIND_URL", url)
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        ask(self.scene.http(), method, path, headers, body).unwrap()
    }

    /// Asks until the sink has answered the ventilator.
    #[track_caller]
    fn ask_sink(&self, method: &str, path: &str) -> Answer {
        wait_for("an answer of the sink", || {
            let answer = ask(self.scene.http(), method, path, &[], b"").ok()?;
            (answer.status != 503).then_some(answer)
        })
    }

    #[track_caller]
    fn submit(&self, queue: &str, task: &str) -> String {
        let path = format!("/v1/queues/{queue}/tasks");
        id(&self.ask("POST", &path, &[], task.as_bytes()).expect(201).json())
    }

    /// Waits for the record of a task.
    #[track_caller]
    fn record(&self, id: &str) -> Value {
        wait_for("a record", || {
            let answer = self.ask_sink("GET", &format!("/v1/tasks/{id}?wait=10s"));
            let record = answer.expect(200).json();
            record.get("position").is_some().then_some(record)
        })
    }

    /// Returns the ids of all records of a queue.
    fn recorded(&self, queue: &str) -> Vec<String> {
        let body = self.ask_sink("GET", &format!("/v1/queues/{queue}/records")).expect(200).body;
        body.lines().map(|line| id(&serde_json::from_str(line).unwrap())).collect()
    }
}

fn up(start: Start) -> Process {
    let mut half = start.start();
    half.wait_for_stderr("of queues are served");
    half
}

#[track_caller]
fn id(answer: &Value) -> String {
    answer["id"].as_str().unwrap_or_else(|| panic!("an id: {answer}")).to_owned()
}

#[test]
fn all_that_is_asked_of_queues_is_asked_at_the_half_with_the_tasks() {
    let halves = Halves::new();
    let _worker = halves.worker("thumbs", "-- sh -c");
    let waited =
        halves.client("submit thumbs --wait --key first").arg("echo small").run().expect(0);
    assert!(waited.text().contains("\"id\":\"thumbs-0\""), "{}", waited.text());
    let again = halves.client("submit thumbs --key first").arg("echo small").run().expect(0);
    assert_eq!(again.text(), "thumbs-0\n");
    assert_eq!(halves.client("result --output thumbs-0").run().expect(0).text(), "small\n");
    // Followed from the sink, by the ventilator.
    let mut follower = halves.client("records thumbs --follow --consumer billing").start();
    wait_until("the first is followed", || follower.stdout_lines() == 1);
    halves.client("submit thumbs --wait").arg("exit 3").run().expect(1);
    wait_until("the second is followed", || follower.stdout_lines() == 2);
    follower.signal(Signal::INT);
    follower.wait();
    let consumer = halves.ask("GET", "/v1/queues/thumbs/consumers/billing", &[], b"").expect(200);
    assert!(consumer.json()["position"].as_u64() > Some(1), "{}", consumer.body);
    let retried = halves.client("retry --failed thumbs").run().expect(0);
    assert!(retried.text().contains("thumbs-2"), "{}", retried.text());
    assert_eq!(halves.record("thumbs-2")["status"], "failed");
    let again = halves.client("retry --failed thumbs").run().expect(0);
    assert!(!again.text().contains("thumbs-3 "), "its key is known: {}", again.text());
    let paused = halves.client("pause thumbs").run().expect(0);
    drop(paused);
    let waiting = halves.submit("thumbs", "echo no");
    let cancelled = halves.client("cancel").arg(&waiting).run().expect(0);
    assert_eq!(cancelled.text(), format!("{waiting} cancelled\n"));
    halves.client("resume thumbs").run().expect(0);
    halves.client("queue set thumbs --keep 7d").run().expect(0);
    let there = ask(halves.scene.records_http(), "GET", "/v1/queues/thumbs", &[], b"").unwrap();
    assert_eq!(there.expect(200).json()["settings"]["keep"], "7days", "the sink is told");
    let statuses = halves.ask("GET", "/v1/queues/thumbs/records?status=ok", &[], b"").expect(200);
    assert_eq!(statuses.body.lines().count(), 1, "{}", statuses.body);
    let state = halves.ask("GET", "/v1/queues/thumbs", &[], b"").expect(200).json();
    let records = halves.recorded("thumbs").len() as u64;
    assert_eq!((state["queued"].as_u64(), state["records"].as_u64()), (Some(0), Some(records)));
}

#[test]
fn the_half_with_the_records_says_where_to_ask_for_the_rest() {
    let halves = Halves::new();
    let _worker = halves.worker("q", "--echo");
    halves.record(&halves.submit("q", "a"));
    let ask = |method: &str, path: &str| {
        ask(halves.scene.records_http(), method, path, &[], b"").unwrap()
    };
    assert_eq!(ask("GET", "/v1/tasks/q-0").expect(200).json()["output"], "a");
    assert_eq!(ask("GET", "/v1/queues/q/records").expect(200).body.lines().count(), 1);
    for (method, path) in [
        ("POST", "/v1/queues/q/tasks"),
        ("GET", "/v1/tasks/q-1"),
        ("DELETE", "/v1/tasks/q-0"),
        ("POST", "/v1/tasks/q-0/retry"),
        ("POST", "/v1/queues/q/pause"),
    ] {
        let refused = ask(method, path).expect(421).json();
        assert_eq!(refused["type"], "urn:tradewind:elsewhere", "{method} {path}");
        assert!(refused["detail"].as_str().unwrap().contains("ventilator --serve"), "{refused}");
    }
}

#[test]
fn what_was_promised_has_its_record_once_though_each_half_is_killed() {
    let mut halves = Halves::new();
    let path = "/v1/queues/many/tasks";
    let _workers = [halves.worker("many", "--echo"), halves.worker("many", "--echo")];
    let mut promised = BTreeSet::new();
    for round in 0..6 {
        let lines: String = (0..300)
            .map(|n| format!("{{\"task\": \"t{round}-{n}\", \"key\": \"{round}-{n}\"}}\n"))
            .collect();
        let answer = wait_for("an answer", || {
            let answer = ask(halves.scene.http(), "POST", path, &[NDJSON], lines.as_bytes());
            answer.ok().filter(|answer| answer.status == 200)
        });
        promised.extend(
            answer.body.lines().map(|line| id(&serde_json::from_str::<Value>(line).unwrap())),
        );
        match round % 3 {
            0 => halves.restart_tasks(),
            1 => halves.restart_records(),
            _ => {
                halves.tasks.kill();
                halves.restart_records();
                halves.tasks = up(halves.scene.tasks_half());
            }
        }
    }
    assert_eq!(promised.len(), 1800);
    wait_until("all have their records", || halves.recorded("many").len() >= 1800);
    let recorded = halves.recorded("many");
    assert_eq!(recorded.len(), 1800, "none twice");
    assert_eq!(recorded.into_iter().collect::<BTreeSet<_>>(), promised);
    for half in [halves.tasks, halves.records] {
        let mut half = half;
        half.signal(Signal::TERM);
        half.wait().expect(0);
    }
    for dir in ["tasks", "records"] {
        let checked = halves.scene.ours("tradewind").words("store check").arg(dir).run().expect(0);
        assert!(checked.text().contains("queue many: all is well"), "{}", checked.text());
    }
}

#[test]
fn tasks_are_taken_while_the_sink_is_away_and_cancels_hold() {
    let scene = Scene::new();
    let tasks = up(scene.tasks_half());
    let records = scene.ours("tradewind").words("--version").start();
    let mut halves = Halves { scene, tasks, records };
    let first = halves.submit("q", "a");
    let second = halves.submit("q", "b");
    let asked = halves.ask("GET", &format!("/v1/tasks/{first}"), &[], b"").expect(503).json();
    assert_eq!(asked["type"], "urn:tradewind:away");
    halves.ask("DELETE", &format!("/v1/tasks/{second}"), &[], b"").expect(503);
    let _worker = halves.worker("q", "--echo");
    halves.restart_tasks();
    let state = halves.ask("GET", "/v1/queues/q", &[], b"").expect(200).json();
    assert_eq!(state["queued"], 2);
    halves.records = up(halves.scene.records_half());
    assert_eq!(halves.record(&first)["output"], "a");
    assert_eq!(halves.record(&second)["status"], "cancelled");
    halves.records.kill();
    let third = halves.submit("q", "c");
    halves.records = up(halves.scene.records_half());
    assert_eq!(halves.record(&third)["output"], "c");
    assert_eq!(halves.recorded("q").len(), 3);
}

#[test]
fn a_queue_is_removed_at_both_halves() {
    let halves = Halves::new();
    let task = halves.submit("gone", "x");
    halves.ask_sink("DELETE", "/v1/queues/gone").expect(409);
    let _worker = halves.worker("gone", "--echo");
    halves.record(&task);
    halves.ask_sink("DELETE", "/v1/queues/gone").expect(204);
    for dir in ["tasks/queues", "records/queues"] {
        assert_eq!(fs::read_dir(halves.scene.path(dir)).unwrap().count(), 0, "{dir}");
    }
    assert_eq!(halves.submit("gone", "again"), "gone-0");
    assert_eq!(halves.record("gone-0")["output"], "again");
}

#[test]
fn halves_that_do_not_belong_together_are_refused_in_words() {
    let mut halves = Halves::new();
    let _worker = halves.worker("q", "--echo");
    halves.record(&halves.submit("q", "a"));
    let control = halves.scene.path("tasks/queues/q/control/00000000");
    wait_until("what is stored is noted", || {
        fs::read(&control).is_ok_and(|log| log.windows(6).any(|it| it == b".noted"))
    });
    halves.tasks.kill();
    halves.records.kill();
    let Halves { scene, .. } = &halves;
    let refused = |start: Start, code: i32, wanted: &str| {
        let ended = start.run().expect(code);
        assert!(ended.stderr.contains(wanted), "{wanted:?}: {}", ended.stderr);
    };
    // The wrong directory.
    let at = |word: &str, dir: &str| {
        let from = format!("{word}/queues");
        fs::rename(scene.path(word), scene.path("aside")).unwrap();
        fs::create_dir(scene.path(word)).unwrap();
        fs::rename(scene.path(&format!("aside/../{dir}/queues")), scene.path(&from)).unwrap();
    };
    let back = |word: &str, dir: &str| {
        let from = scene.path(&format!("{word}/queues"));
        fs::rename(from, scene.path(&format!("{dir}/queues"))).unwrap();
        fs::remove_dir_all(scene.path(word)).unwrap();
        fs::rename(scene.path("aside"), scene.path(word)).unwrap();
    };
    at("tasks", "records");
    refused(scene.tasks_half(), 4, "the records of a queue alone, of a `sink --store`");
    back("tasks", "records");
    at("records", "tasks");
    refused(scene.records_half(), 4, "the tasks of a queue alone, of a `ventilator --serve`");
    back("records", "tasks");
    let serve = scene.ours("tradewind").words("serve --dir tasks --insecure --http 127.0.0.1:0");
    let serve = serve.args(["--tasks", &format!("tcp://{}", scene.tasks())]);
    let serve = serve.args(["--results", &format!("tcp://{}", scene.results())]);
    refused(serve, 4, "the tasks of a queue alone");
    // A store that is lost.
    fs::rename(scene.path("records"), scene.path("lost")).unwrap();
    let mut records = up(scene.records_half());
    refused(
        scene.tasks_half(),
        7,
        "queue q: the sink has the records of 0 tasks, and had those of 1",
    );
    records.kill();
    fs::remove_dir_all(scene.path("records")).unwrap();
    fs::rename(scene.path("lost"), scene.path("records")).unwrap();
    // Tasks of another job under the same name.
    fs::rename(scene.path("tasks"), scene.path("lost")).unwrap();
    halves.records = up(halves.scene.records_half());
    halves.tasks = up(halves.scene.tasks_half());
    halves.submit("q", "new");
    let ended = halves.tasks.wait().expect(7);
    assert!(ended.stderr.contains("those of another job"), "{}", ended.stderr);
    assert!(halves.records.is_running(), "the sink goes on");
    fs::remove_dir_all(halves.scene.path("tasks")).unwrap();
    fs::rename(halves.scene.path("lost"), halves.scene.path("tasks")).unwrap();
    halves.tasks = up(halves.scene.tasks_half());
    assert_eq!(halves.record("q-0")["output"], "a", "and serves those that it belongs to");
}

#[test]
fn flags_that_do_not_go_together_are_refused() {
    let scene = Scene::new();
    for (program, words, wanted) in [
        ("ventilator", "--serve d", "--records <URL>"),
        ("ventilator", "--records http://127.0.0.1:1", "--serve <DIR>"),
        ("ventilator", "--serve d --records http://127.0.0.1:1 --input x", "cannot be used with"),
        ("ventilator", "--serve d --records http://127.0.0.1:1 --retries 1", "cannot be used with"),
        ("ventilator", "--insecure --serve d --records nowhere", "--records nowhere"),
        ("sink", "--store d --output x", "cannot be used with"),
        ("sink", "--http 127.0.0.1:0", "is for queues, with --store DIR"),
        ("ventilator", "--config x", "is for queues, with --serve DIR"),
    ] {
        let ended = scene.ours(program).words(words).run().expect(2);
        assert!(ended.stderr.contains(wanted), "{words}: {}", ended.stderr);
    }
}

#[test]
fn halves_with_keys_know_one_another() {
    let mut scene = Scene::new();
    scene.make_keys();
    // Not on loopback alone: TLS on which the ventilator shows its key.
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let records = scene.sink().args(["--store", "records", "--http", &format!("0.0.0.0:{port}")]);
    let records = up(records);
    let tasks = scene.ventilator().args(["--serve", "tasks", "--http", &scene.http().to_string()]);
    let tasks = up(tasks.args(["--records", &format!("https://127.0.0.1:{port}")]));
    let halves = Halves { scene, tasks, records };
    let _worker = halves.worker("q", "--echo");
    halves.record(&halves.submit("q", "a"));
    assert_eq!(halves.recorded("q"), ["q-0"]);
    let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let open = ask(at, "GET", "/v1/queues", &[], b"");
    assert!(open.is_err(), "nobody is answered without a key: {open:?}");
}
