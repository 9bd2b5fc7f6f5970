//! Several servers share the partitions of a queue.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tradewind_e2e::chaos::{EngineKind, EngineServer, QueuePlan, Underneath, queue_chaos};
use tradewind_e2e::{PATIENCE, Process, Scene, Signal, ask, wait_for};

const PARTITIONS: u32 = 4;

/// Hosts that serve one queue.
struct Hosts {
    engine: EngineServer,
    hosts: Vec<(Scene, Process)>,
}

impl Hosts {
    fn new(count: usize) -> Self {
        let mut hosts = Self { engine: EngineServer::start(EngineKind::Nats), hosts: Vec::new() };
        (0..count).for_each(|_| hosts.add());
        hosts
    }

    fn add(&mut self) {
        let scene = Scene::new();
        let config = scene.file("serve.toml", self.engine.config("orders", PARTITIONS));
        let mut serve = scene.serve().arg("--config").arg(config).start();
        serve.wait_for_stderr("queues are served");
        self.hosts.push((scene, serve));
    }

    fn worker(&self, host: usize, words: &str) -> Process {
        self.hosts[host].0.worker("w").words("--queue orders --slots 2").words(words).start()
    }

    /// Submits tasks by any host, each with itself as its key.
    fn submit(&self, host: usize, tasks: impl IntoIterator<Item = String>) -> Vec<String> {
        let lines: String = tasks
            .into_iter()
            .map(|task| format!("{{\"task\":\"{task}\",\"key\":\"{task}\"}}\n"))
            .collect();
        let headers = ["Content-Type: application/x-ndjson"];
        let path = "/v1/queues/orders/tasks";
        let answer = ask(self.hosts[host].0.http(), "POST", path, &headers, lines.as_bytes());
        let answer = answer.unwrap().expect(200);
        let id = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["id"].as_str().unwrap().to_owned()
        };
        answer.body.lines().map(id).collect()
    }

    /// Returns the outputs of records by the ids of their tasks, once there are so many.
    fn records(&self, host: usize, count: usize) -> BTreeMap<String, String> {
        wait_for("all have records", || {
            let mut records = BTreeMap::new();
            for partition in 0..PARTITIONS {
                let path = format!("/v1/queues/orders/records?partition={partition}");
                let page = ask(self.hosts[host].0.http(), "GET", &path, &[], b"").ok()?;
                for line in page.body.lines() {
                    let record: Value = serde_json::from_str(line).unwrap();
                    assert_eq!(record["status"], "ok", "{record}");
                    let id = record["id"].as_str().unwrap().to_owned();
                    let output = record["output"].as_str().unwrap().to_owned();
                    assert_eq!(records.insert(id, output), None, "two records: {record}");
                }
            }
            (records.len() >= count).then_some(records)
        })
    }

    /// Returns how often a host has taken a partition.
    fn takes(&self, host: usize) -> usize {
        self.hosts[host].1.stderr().matches(" is taken, from task").count()
    }

    fn wait_for_takes(&self, host: usize, takes: usize) {
        wait_for("partitions are taken", || (self.takes(host) >= takes).then_some(()));
    }
}

fn tasks(name: &str, count: u32) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{number}")).collect()
}

/// Returns the numbers of tasks by partition.
fn by_partition(ids: &[String]) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for id in ids {
        let number: u64 = id.strip_prefix("orders-").unwrap().parse().unwrap();
        *counts.entry(number % u64::from(PARTITIONS)).or_default() += 1;
    }
    counts
}

#[test]
fn who_comes_gets_its_part_and_who_dies_is_replaced() {
    let mut hosts = Hosts::new(1);
    hosts.wait_for_takes(0, 4);
    let ids = hosts.submit(0, tasks("a", 400));
    assert_eq!(by_partition(&ids).len(), 4, "keys are spread");
    let _worker = hosts.worker(0, "--echo");
    hosts.add();
    hosts.wait_for_takes(1, 2);
    let _other = hosts.worker(1, "--echo");
    let records = hosts.records(1, 400);
    let outputs: Vec<&String> = ids.iter().map(|id| &records[id]).collect();
    assert_eq!(outputs, tasks("a", 400).iter().collect::<Vec<_>>());
    // The same keys are the same tasks, whoever is asked.
    assert_eq!(hosts.submit(1, tasks("a", 400)), ids);
    let more = hosts.submit(0, tasks("b", 400));
    hosts.hosts[1].1.kill();
    hosts.wait_for_takes(0, 6);
    let records = hosts.records(0, 800);
    assert_eq!(records.len(), 800);
    assert!(more.iter().all(|id| records[id].starts_with("b-")));
}

#[test]
fn who_wakes_after_its_leases_have_gone_writes_nothing() {
    let mut hosts = Hosts::new(2);
    hosts.wait_for_takes(1, 2);
    let gate = hosts.hosts[0].0.path("gate");
    // Tasks that are out on the first host when it stops wait for a file.
    let script = format!("while [ ! -e {} ]; do sleep 0.1; done; printf first", gate.display());
    let slow = hosts.hosts[0].0.worker("w").words("--queue orders --slots 2 -- sh -c");
    let slow = slow.arg(script).start();
    let ids = hosts.submit(1, tasks("t", 40));
    let count = by_partition(&ids).len();
    assert_eq!(count, 4);
    wait_for("tasks run", || {
        let state = ask(hosts.hosts[0].0.http(), "GET", "/v1/queues/orders", &[], b"").ok()?;
        (state.json()["running"].as_u64()? > 0).then_some(())
    });
    let takes = hosts.takes(0);
    hosts.hosts[0].1.signal(Signal::STOP);
    hosts.wait_for_takes(1, 4);
    std::fs::write(&gate, "").unwrap();
    let _other = hosts.worker(1, "-- printf second");
    let records = hosts.records(1, 40);
    assert!(records.values().all(|output| output == "second"), "{records:?}");
    hosts.hosts[0].1.signal(Signal::CONT);
    let (_, woken) = &mut hosts.hosts[0];
    woken.wait_for_stderr("has gone to another process");
    // It has its part again, and goes on with what comes.
    hosts.wait_for_takes(0, takes + 1);
    let more = hosts.submit(0, tasks("u", 40));
    let records = hosts.records(1, 80);
    assert_eq!(records.len(), 80);
    assert!(ids.iter().all(|id| records[id] == "second"), "the first records stay");
    assert!(more.iter().any(|id| records[id] == "first"), "it works: {records:?}");
    drop(slow);
}

#[test]
fn an_engine_that_is_away_is_waited_for_and_said() {
    let mut hosts = Hosts::new(1);
    hosts.wait_for_takes(0, 4);
    hosts.submit(0, tasks("a", 10));
    hosts.engine.kill();
    let (scene, serve) = &mut hosts.hosts[0];
    serve.wait_for_stderr("it is tried again");
    let refused = ask(scene.http(), "POST", "/v1/queues/orders/tasks", &[], b"x").unwrap();
    let refused = refused.expect(503).json();
    assert_eq!(refused["type"], "urn:tradewind:away", "{refused}");
    assert!(
        refused["detail"].as_str().unwrap().starts_with("the engine does not answer at nats://")
    );
    hosts.engine.start_again();
    hosts.hosts[0].1.wait_for_stderr("the engine answers again");
    let _worker = hosts.worker(0, "--echo");
    hosts.submit(0, tasks("b", 10));
    assert_eq!(hosts.records(0, 20).len(), 20);
}

#[test]
fn the_promise_is_kept_while_engine_servers_and_workers_are_killed() {
    let plan = QueuePlan {
        seed: tradewind_e2e::random().u64(..),
        length: Duration::from_secs(12),
        submitters: 3,
        programs: 2,
        workers: 1,
        underneath: Some(Underneath { kind: EngineKind::Nats, servers: 2, nodes: 1 }),
        tasks_max: 2_000,
        pause: Duration::from_millis(800),
        patience: PATIENCE,
    };
    eprintln!("{plan:?}");
    let report = queue_chaos(&plan);
    assert!(report.is_good(), "{report}");
    assert!(report.engine_kills > 0 && report.server_pauses > 0, "{report}");
}
