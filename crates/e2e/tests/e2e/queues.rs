//! Queues that stay open: what was promised has its record, whoever is killed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tradewind_e2e::chaos::{QueuePlan, queue_chaos};
use tradewind_e2e::{Answer, PATIENCE, Process, Scene, Signal, ask, wait_for, wait_until};

/// A scene with `tradewind serve`.
struct Queues {
    scene: Scene,
    serve: Process,
}

const NDJSON: &str = "Content-Type: application/x-ndjson";

impl Queues {
    fn new() -> Self {
        Self::with("")
    }

    fn with(words: &str) -> Self {
        let scene = Scene::new();
        let serve = up(&scene, words);
        Self { scene, serve }
    }

    fn kill(&mut self) {
        self.serve.kill();
    }

    fn start_again(&mut self) {
        self.serve = up(&self.scene, "");
    }

    fn worker(&self, queue: &str, words: &str) -> Process {
        self.scene.worker("w").args(["--queue", queue]).words(words).start()
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.ask_with(method, path, &[], body)
    }

    #[track_caller]
    fn ask_with(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        ask(self.scene.http(), method, path, headers, body).unwrap()
    }

    /// Submits a task; returns its id.
    #[track_caller]
    fn submit(&self, queue: &str, task: &str) -> String {
        let answer = self.ask("POST", &format!("/v1/queues/{queue}/tasks"), task.as_bytes());
        id(&answer.expect(201).json())
    }

    /// Waits for the record of a task.
    #[track_caller]
    fn record(&self, id: &str) -> Value {
        self.ask("GET", &format!("/v1/tasks/{id}?wait=60s"), b"").expect(200).json()
    }

    /// Returns all records of a queue.
    fn records(&self, queue: &str) -> Vec<Value> {
        let (mut records, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/queues/{queue}/records?limit=1000{after}");
            let page = self.ask("GET", &path, b"").expect(200).body;
            let page: Vec<Value> =
                page.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let Some(last) = page.last() else { return records };
            after = format!("&after={}", last["position"]);
            records.extend(page);
        }
    }

    fn state(&self, queue: &str) -> Value {
        self.ask("GET", &format!("/v1/queues/{queue}"), b"").expect(200).json()
    }
}

fn up(scene: &Scene, words: &str) -> Process {
    let mut serve = scene.serve().words(words).start();
    serve.wait_for_stderr("queues are served");
    serve
}

#[track_caller]
fn id(answer: &Value) -> String {
    answer["id"].as_str().unwrap_or_else(|| panic!("an id: {answer}")).to_owned()
}

fn ids(records: &[Value]) -> Vec<String> {
    records.iter().map(id).collect()
}

#[test]
fn a_worker_may_come_before_the_first_task_and_a_task_before_the_first_worker() {
    let mut queues = Queues::new();
    let _early = queues.worker("early", "-- echo did");
    queues.serve.wait_for_stderr("waits for queue early");
    let first = queues.submit("early", "one");
    let record = queues.record(&first);
    assert_eq!((&record["status"], &record["output"]), (&"ok".into(), &"did one\n".into()));
    let late = queues.submit("late", "two");
    let state = queues.ask("GET", &format!("/v1/tasks/{late}"), b"").expect(200).json();
    assert_eq!(state["status"], "queued");
    let _late = queues.worker("late", "-- echo at last");
    assert_eq!(queues.record(&late)["output"], "at last two\n");
    assert_eq!(ids(&queues.records("early")), ["early-0"], "each worker serves its own queue");
}

#[test]
fn what_was_promised_has_its_record_once_though_every_part_is_killed() {
    let mut queues = Queues::new();
    let path = "/v1/queues/many/tasks";
    let mut workers: Vec<Process> = (0..2).map(|_| queues.worker("many", "--echo")).collect();
    let mut promised = BTreeSet::new();
    for round in 0..6 {
        let lines: String = (0..500)
            .map(|n| format!("{{\"task\": \"t{round}-{n}\", \"key\": \"{round}-{n}\"}}\n"))
            .collect();
        // A submitter whose answer was lost sends all again.
        let answer = wait_for("an answer", || {
            let answer = ask(queues.scene.http(), "POST", path, &[NDJSON], lines.as_bytes());
            answer.ok().filter(|answer| answer.status == 200)
        });
        let answered: Vec<Value> =
            answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answered.len(), 500);
        promised.extend(ids(&answered));
        let again = queues.ask_with("POST", path, &[NDJSON], lines.as_bytes()).expect(200);
        assert_eq!(again.body, answer.body, "the same keys are the same tasks");
        if round % 2 == 0 {
            queues.kill();
            queues.start_again();
        } else {
            workers[round % 2].kill();
            workers[round % 2] = queues.worker("many", "--echo");
        }
    }
    assert_eq!(promised.len(), 3000);
    wait_until("all have their records", || {
        queues.state("many")["records"] == 3000 && queues.state("many")["queued"] == 0
    });
    queues.kill();
    queues.start_again();
    let records = queues.records("many");
    assert_eq!(records.len(), 3000, "none twice");
    assert_eq!(ids(&records).into_iter().collect::<BTreeSet<_>>(), promised);
    assert!(records.iter().all(|record| record["status"] == "ok"));
    for record in &records {
        let task = record["output"].as_str().unwrap();
        let again = queues.ask("GET", &format!("/v1/tasks/{}", id(record)), b"").expect(200).json();
        assert_eq!(again["output"], task);
        if record["seq"].as_u64() > Some(20) {
            break;
        }
    }
    queues.serve.signal(Signal::TERM);
    let Queues { scene, serve } = queues;
    serve.wait().expect(0);
    let checked = scene.ours("tradewind").words("store check queues").run().expect(0);
    assert!(checked.text().contains("queue many: all is well"), "{}", checked.text());
}

#[test]
fn a_key_is_one_task_for_as_long_as_it_is_remembered() {
    let mut queues = Queues::new();
    let path = "/v1/queues/keyed/tasks";
    let key = ["Idempotency-Key: order-17"];
    let first = queues.ask_with("POST", path, &key, b"pack").expect(201).json();
    for _ in 0..2 {
        let again = queues.ask_with("POST", path, &key, b"pack").expect(200).json();
        assert_eq!(id(&again), id(&first));
        let other = queues.ask_with("POST", path, &key, b"unpack").expect(422).json();
        assert_eq!(other["type"], "urn:tradewind:other-task");
        assert_eq!(other["id"], first["id"]);
        queues.kill();
        queues.start_again();
    }
    let _worker = queues.worker("keyed", "--echo");
    assert_eq!(queues.record("keyed-0")["output"], "pack");
    let again = queues.ask_with("POST", path, &key, b"pack").expect(200).json();
    assert_eq!(id(&again), "keyed-0", "its record is kept, and so is its key");
    // All or none: the second is refused, and the first is not taken.
    let both = b"{\"task\": \"new\"}\n{\"task\": \"unpack\", \"key\": \"order-17\"}\n";
    queues.ask_with("POST", path, &[NDJSON], both).expect(422);
    assert_eq!(queues.submit("keyed", "next"), "keyed-1");
}

#[test]
fn a_task_is_cancelled_before_it_runs_and_while_it_runs() {
    let mut queues = Queues::new();
    let running = queues.submit("c", "sleep 1000");
    let waiting = queues.submit("c", "echo no");
    let worker = queues.worker("c", "--slots 1 -- sh -c");
    wait_until("the first runs", || {
        let state = queues.ask("GET", &format!("/v1/tasks/{running}"), b"").json();
        state["status"] == "running" && queues.scene.count("sleep 1000") > 0
    });
    let cancelled = queues.ask("DELETE", &format!("/v1/tasks/{waiting}"), b"").expect(200).json();
    assert_eq!(cancelled["status"], "cancelled");
    // It is forgotten by nobody.
    queues.kill();
    queues.start_again();
    assert_eq!(queues.record(&waiting)["status"], "cancelled");
    let _ = queues.ask("DELETE", &format!("/v1/tasks/{running}"), b"");
    assert_eq!(queues.record(&running)["status"], "cancelled");
    wait_until("its command is stopped", || queues.scene.count("sleep 1000") == 0);
    let next = queues.submit("c", "echo yes");
    assert_eq!(queues.record(&next)["output"], "yes\n", "the slot is free");
    let retried = queues.ask("POST", &format!("/v1/tasks/{waiting}/retry"), b"").expect(201).json();
    assert_eq!(queues.record(&id(&retried))["output"], "no\n");
    assert_eq!(queues.record(&waiting)["status"], "cancelled", "its record stays");
    drop(worker);
}

#[test]
fn a_paused_queue_dispatches_nothing_until_it_goes_on() {
    let mut queues = Queues::new();
    let _worker = queues.worker("p", "--echo");
    queues.record(&queues.submit("p", "first"));
    let paused = queues.ask("POST", "/v1/queues/p/pause", b"").expect(200).json();
    assert_eq!(paused["paused"], true);
    let waiting = queues.submit("p", "second");
    queues.kill();
    queues.start_again();
    queues.serve.wait_for_stderr("worker joins");
    // Another queue's task goes there and back meanwhile.
    let _other = queues.worker("q", "--echo");
    queues.record(&queues.submit("q", "third"));
    let state = queues.ask("GET", &format!("/v1/tasks/{waiting}"), b"").expect(200).json();
    assert_eq!(state["status"], "queued");
    queues.ask("POST", "/v1/queues/p/resume", b"").expect(200);
    assert_eq!(queues.record(&waiting)["output"], "second");
}

#[test]
fn settings_hold_for_what_comes_and_are_kept() {
    let mut queues = Queues::new();
    let _worker = queues.worker("s", "-- sh -c");
    assert_eq!(queues.record(&queues.submit("s", "exit 3"))["attempt"], 1);
    let json = ["Content-Type: application/json"];
    queues.ask_with("PATCH", "/v1/queues/s", &json, b"{\"retries\": 1}").expect(200);
    assert_eq!(queues.record(&queues.submit("s", "exit 3"))["attempt"], 2);
    queues.kill();
    queues.start_again();
    assert_eq!(queues.state("s")["settings"]["retries"], 1);
    assert_eq!(queues.record(&queues.submit("s", "exit 3"))["attempt"], 2);
}

#[test]
fn a_task_has_limits_of_its_own() {
    let queues = Queues::new();
    let _worker = queues.worker("s", "-- sh -c");
    let json = ["Content-Type: application/json"];
    queues.ask_with("PUT", "/v1/queues/s", &json, b"{\"retries\": 1}").expect(201);
    let own = b"{\"task\": \"exit 3\", \"retries\": 0}\n";
    let answer = queues.ask_with("POST", "/v1/queues/s/tasks", &[NDJSON], own).expect(200).json();
    assert_eq!(queues.record(&id(&answer))["attempt"], 1, "its own number of retries");
    let own = b"{\"task\": \"sleep 1000\", \"retries\": 0, \"timeout\": \"100ms\"}\n";
    let answer = queues.ask_with("POST", "/v1/queues/s/tasks", &[NDJSON], own).expect(200).json();
    assert_eq!(queues.record(&id(&answer))["status"], "timed_out", "its own timeout");
}

#[test]
fn a_queue_is_removed_when_each_task_has_its_record() {
    let queues = Queues::new();
    let task = queues.submit("gone", "x");
    let refused = queues.ask("DELETE", "/v1/queues/gone", b"").expect(409).json();
    assert_eq!(refused["type"], "urn:tradewind:not-empty");
    let _worker = queues.worker("gone", "--echo");
    queues.record(&task);
    queues.ask("DELETE", "/v1/queues/gone", b"").expect(204);
    queues.ask("GET", &format!("/v1/tasks/{task}"), b"").expect(404);
    assert_eq!(queues.ask("GET", "/v1/queues", b"").json()["queues"], Value::Array(Vec::new()));
    assert_eq!(fs::read_dir(queues.scene.path("queues/queues")).unwrap().count(), 0);
    // Its worker is there still, and takes part in the next one with this name.
    assert_eq!(queues.submit("gone", "again"), "gone-0");
    assert_eq!(queues.record("gone-0")["output"], "again");
}

#[test]
fn consumers_have_their_positions_kept() {
    let mut queues = Queues::new();
    let _worker = queues.worker("r", "--slots 1 --echo");
    for task in ["a", "b", "c"] {
        queues.record(&queues.submit("r", task));
    }
    let first = &queues.records("r")[0]["position"].to_string();
    let json = ["Content-Type: application/json"];
    let body = format!("{{\"position\": {first}}}");
    let path = "/v1/queues/r/consumers/mailer";
    queues.ask_with("PUT", path, &json, body.as_bytes()).expect(201);
    queues.kill();
    queues.start_again();
    let kept = queues.ask("GET", path, b"").expect(200).json();
    assert_eq!(kept["position"].to_string(), *first);
    let rest = queues.ask("GET", &format!("/v1/queues/r/records?after={first}"), b"").expect(200);
    assert_eq!(rest.body.lines().count(), 2);
    queues.ask("DELETE", path, b"").expect(204);
    queues.ask("GET", path, b"").expect(404);
}

#[test]
fn who_follows_is_told_of_a_record_when_it_is_there() {
    let queues = Queues::new();
    let _worker = queues.worker("f", "--echo");
    queues.record(&queues.submit("f", "first"));
    let after = queues.records("f")[0]["position"].to_string();
    let http = queues.scene.http();
    let following = std::thread::spawn(move || {
        let path = format!("/v1/queues/f/records?after={after}&wait=60s");
        ask(http, "GET", &path, &[], b"").unwrap()
    });
    queues.submit("f", "second");
    let told = following.join().unwrap().expect(200);
    assert_eq!(told.json()["output"], "second");
}

#[test]
fn who_names_no_queue_or_a_wrong_one_is_told_so() {
    let mut queues = Queues::new();
    let mut without = queues.scene.worker("w").words("--echo").start();
    without.wait_for_stderr("queues are served here: say which one with --queue NAME");
    let misused = queues.scene.worker("w").words("--queue Thumbs --echo").run().expect(2);
    assert!(misused.stderr.contains("the name of a queue has 1 to 63"), "{}", misused.stderr);
    let _ = queues.serve.is_running();
    let scene = Scene::new();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    ventilator.wait_for_stderr("the ventilator is up");
    let mut lost = scene.worker("w").words("--queue thumbs --echo").start();
    lost.wait_for_stderr("a job runs here, and no queues");
}

#[test]
fn what_is_in_the_way_of_a_start_is_said_in_a_line() {
    let queues = Queues::new();
    let second = queues.scene.serve().args(["--dir", "elsewhere"]).run();
    assert_eq!(second.code(), 2, "given twice: {}", second.stderr);
    let taken = queues.scene.ours("tradewind").words("serve --dir elsewhere");
    let taken = taken.args(["--tasks", &format!("tcp://{}", queues.scene.tasks())]).run().expect(5);
    assert!(taken.stderr.contains("is taken by another process"), "{}", taken.stderr);
    let at = queues.scene.http().ip().to_string();
    let in_use = queues.scene.ours("tradewind").words("serve --dir queues");
    let in_use = in_use.args(["--tasks", &format!("tcp://{at}:0")]).run().expect(4);
    assert!(in_use.stderr.contains("queues is in use by another process"), "{}", in_use.stderr);
    let scene = Scene::new();
    scene.file("serve.toml", "[queue.thumbs]\nretires = 3\n");
    let config = scene.serve().words("--config serve.toml").run().expect(2);
    assert!(
        config.stderr.contains("serve.toml: [queue.thumbs]: unknown field"),
        "{}",
        config.stderr
    );
    let open = scene.ours("tradewind").words("serve --http 0.0.0.0:0").home(scene.dir()).run();
    let open = open.expect(2);
    assert!(open.stderr.contains("tradewind keys new"), "{}", open.stderr);
    let on_sockets = "serve --http 0.0.0.0:0 --tasks ipc:///tmp/none --results ipc:///tmp/none";
    let http = scene.ours("tradewind").words(on_sockets).home(scene.dir()).run().expect(2);
    assert!(http.stderr.contains("name with --http-trust who may ask"), "{}", http.stderr);
    let nobody = scene.serve().words("--http-trust 127.0.0.1,router").run().expect(2);
    assert!(nobody.stderr.contains("neither an address nor `gateway`"), "{}", nobody.stderr);
}

#[test]
fn a_health_check_asks_the_program_that_serves() {
    let mut queues = Queues::new();
    let at = queues.scene.http();
    let check = |scene: &Scene| {
        scene.ours("tradewind").words("serve --check").args(["--http", &at.to_string()]).run()
    };
    check(&queues.scene).expect(0);
    queues.kill();
    let silent = check(&queues.scene).expect(1);
    assert!(silent.stderr.contains(&format!("http://{at}/healthz was not answered")));
    let listener = TcpListener::bind(at).unwrap();
    let unwell = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
        assert_eq!(request.next().unwrap().unwrap(), "GET /healthz HTTP/1.1");
        // The rest, so that the answer is not lost with what was not read.
        request.find(|line| line.as_ref().unwrap().is_empty());
        stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap();
    });
    let answered = check(&queues.scene).expect(1);
    assert!(answered.stderr.contains("answered with: HTTP/1.1 503"), "{}", answered.stderr);
    unwell.join().unwrap();
}

#[test]
fn the_promise_is_kept_while_everything_is_killed() {
    let plan = QueuePlan {
        seed: tradewind_e2e::random().u64(..),
        length: Duration::from_secs(8),
        submitters: 3,
        programs: 2,
        workers: 2,
        underneath: None,
        tasks_max: 20_000,
        pause: Duration::from_millis(600),
        patience: PATIENCE,
    };
    eprintln!("{plan:?}");
    let report = queue_chaos(&plan);
    eprintln!("{report}");
    assert!(report.is_good(), "{report}");
    // The plan sees to it that each of these happens, on the fastest machine and on the slowest.
    assert!(report.server_kills > 0 && report.server_stops > 0, "{report}");
    assert!(report.worker_kills > 0 && report.submitter_kills > 0, "{report}");
    assert!(report.sent_again > 0, "{report}");
}

#[test]
fn a_full_disk_refuses_submits_and_loses_nothing() {
    let scene = Scene::new();
    let mut serve = scene.serve().file_bytes_max(6 << 20).start();
    serve.wait_for_stderr("queues are served");
    let mut queues = Queues { scene, serve };
    let task = "x".repeat(200_000);
    let path = "/v1/queues/full/tasks";
    let mut promised = 0;
    let refused = loop {
        let answer = queues.ask("POST", path, task.as_bytes());
        if answer.status != 201 {
            break answer.expect(503).json();
        }
        promised += 1;
        assert!(promised < 100, "there is no limit");
    };
    assert_eq!(refused["type"], "urn:tradewind:full");
    assert!(promised > 10);
    // What was promised goes on, until its records do not fit either; and waits then.
    let twice = ["--queue", "full", "--stdin", "--", "awk", "{ print $0 $0 }"];
    let _worker = queues.scene.worker("w").args(twice).start();
    queues.serve.wait_for_stderr("waiting until it can be written, nothing is lost");
    let before = queues.state("full");
    assert!(before["records"].as_u64().unwrap() > 0, "{before}");
    assert!(
        before["queued"].as_u64().unwrap() + before["running"].as_u64().unwrap() > 0,
        "{before}"
    );
    queues.serve.lift_file_bytes_max();
    for seq in 0..promised {
        assert_eq!(queues.record(&format!("full-{seq}"))["status"], "ok");
    }
    assert_eq!(queues.submit("full", "again"), format!("full-{promised}"));
    assert_eq!(queues.record(&format!("full-{promised}"))["output"], "againagain\n");
    queues.kill();
    queues.start_again();
    assert_eq!(queues.records("full").len(), promised + 1);
}

#[test]
fn records_that_are_newer_than_the_tasks_are_refused() {
    let mut queues = Queues::new();
    let _worker = queues.worker("c", "--echo");
    queues.record(&queues.submit("c", "first"));
    let copied = |part: &str, to: &str| {
        let dir = queues.scene.path("queues/queues/c");
        let copied =
            Command::new("cp").arg("-r").arg(dir.join(part)).arg(queues.scene.path(to)).status();
        assert!(copied.is_ok_and(|status| status.success()), "{part} can be copied");
    };
    // As a copy of a directory that is in use may be.
    copied("tasks", "tasks-before");
    queues.record(&queues.submit("c", "second"));
    queues.kill();
    fs::remove_dir_all(queues.scene.path("queues/queues/c/tasks")).unwrap();
    fs::rename(queues.scene.path("tasks-before"), queues.scene.path("queues/queues/c/tasks"))
        .unwrap();
    let refused = queues.scene.serve().run().expect(4);
    let why = "its records are of tasks up to 1, and its task log ends before task 1";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    let checked = queues.scene.ours("tradewind").words("store check queues").run().expect(1);
    assert!(checked.text().contains("damaged  records/00000000"), "{}", checked.text());
}

#[test]
fn a_damaged_store_is_refused_and_its_place_is_named() {
    let mut queues = Queues::new();
    for n in 0..50 {
        queues.submit("d", &format!("task {n}"));
    }
    queues.kill();
    let path = queues.scene.path("queues/queues/d/tasks/00000000");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(7).position(|it| it == b"task 10").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let checked = queues.scene.ours("tradewind").words("store check queues").run().expect(1);
    assert!(checked.text().contains("damaged  tasks/00000000, byte "), "{}", checked.text());
    let json = queues.scene.ours("tradewind").words("store check --json queues").run().expect(1);
    let json: Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(json["faults"][0]["part"], "tasks");
    let refused = queues.scene.serve().run().expect(4);
    assert!(refused.stderr.contains("segment 0 is damaged at byte"), "{}", refused.stderr);
    let none = queues.scene.ours("tradewind").words("store check queues/queues").run().expect(2);
    assert!(none.stderr.contains("there are no queues"), "{}", none.stderr);
}
