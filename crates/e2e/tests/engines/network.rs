//! Queues whose servers, and the nodes of whose engine, are hosts of a network: network namespaces, joined by a bridge.
//!
//! `E2E_TASKS` is the number of tasks of those that have many. What they measure they print.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tradewind_e2e::chaos::{
    EngineKind, EngineServer, NatsCluster, QueuePlan, Underneath, queue_chaos,
};
use tradewind_e2e::{
    Namespaces, PATIENCE, Process, Scene, Signal, ask, wait_for, wait_for_as_long_as, wait_until,
};

use super::{has_nats, skip};

const PARTITIONS: u64 = 4;

/// Time within which another server takes the partitions of one that is gone.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// Node with the engine. The hosts with servers come after it.
const ENGINE: usize = 0;
const HOSTS: usize = 2;

/// Returns a network, if there can be one.
fn network(test: &str, nodes: usize) -> Option<Arc<Namespaces>> {
    if !has_nats() {
        skip(test, "there is no nats-server, which scripts/engines installs");
        return None;
    }
    match Namespaces::new(nodes) {
        Ok(network) => Some(Arc::new(network)),
        Err(error) => {
            skip(test, &format!("network namespaces take root and iproute2: {error}"));
            None
        }
    }
}

fn tasks_count() -> u64 {
    std::env::var("E2E_TASKS").map_or(20_000, |count| count.parse().expect("it is a number"))
}

/// Record of a task, as far as it matters here.
#[derive(Debug)]
struct Stored {
    /// Position of the record in its partition.
    at: u64,
    id: String,
    worker: String,
    output: String,
}

impl Stored {
    fn parse(line: &str) -> Self {
        let record: Value = serde_json::from_str(line).expect("records are JSON");
        assert_eq!(record["status"], "ok", "{record}");
        let text = |name: &str| record[name].as_str().expect("it is text").to_owned();
        Self {
            at: record["position"].as_u64().expect("it is a number"),
            id: text("id"),
            worker: text("worker"),
            output: text("output"),
        }
    }
}

/// Two hosts with a server and a worker each.
struct Pair {
    _engine: EngineServer,
    scenes: Vec<Scene>,
    serves: Vec<Process>,
    workers: Vec<Process>,
}

impl Pair {
    /// Starts them, and waits until each has its half of the partitions.
    fn start(network: &Arc<Namespaces>) -> Self {
        let engine = EngineServer::start_on(EngineKind::Nats, network, ENGINE);
        let config = engine.config("orders", u32::try_from(PARTITIONS).expect("it is small"));
        let (mut scenes, mut serves, mut workers) = (Vec::new(), Vec::new(), Vec::new());
        for host in 0..HOSTS {
            let scene = Scene::on_host(network, ENGINE + 1 + host);
            let config = scene.file("serve.toml", &config);
            let mut serve = scene.serve().arg("--config").arg(config).start();
            serve.wait_for_stderr("queues are served");
            let words = "--queue orders --echo --slots 4";
            workers.push(scene.worker(&format!("w{host}")).words(words).start());
            scenes.push(scene);
            serves.push(serve);
        }
        let pair = Self { _engine: engine, scenes, serves, workers };
        wait_until("each has its half", || pair.takes(1).len() == 2);
        pair
    }

    /// Returns the partitions that a server has taken so far, each with the task from which on, in that order.
    fn takes(&self, host: usize) -> Vec<(u64, u64)> {
        let said = self.serves[host].stderr();
        let taken = |line: &str| {
            let (_, rest) = line.split_once(": partition ")?;
            let (partition, rest) = rest.split_once(" is taken, from task ")?;
            let (from, _) = rest.split_once(' ')?;
            Some((partition.parse().ok()?, from.parse().ok()?))
        };
        said.lines().filter_map(taken).collect()
    }

    /// Returns the partitions that the first host has and the second has not.
    fn first_half(&self) -> BTreeSet<u64> {
        let others: BTreeSet<u64> = self.takes(1).into_iter().map(|(it, _)| it).collect();
        (0..PARTITIONS).filter(|it| !others.contains(it)).collect()
    }

    /// Submits tasks by the second host.
    fn submit(&self, tasks: Range<u64>) -> Process {
        let scene = &self.scenes[1];
        let name = format!("from-{}", tasks.start);
        let lines: String = tasks.map(|number| format!("{number}\n")).collect();
        let input = scene.file(&name, lines);
        let url = format!("http://{}", scene.http());
        let submit = scene.ours("tradewind").args(["submit", "orders", "--url", &url, "--input"]);
        submit.arg(input).start()
    }

    /// Waits until the second host has taken all partitions, and until each has a record of its worker, which does first
    /// what it had before. Returns how long both took.
    fn wait_for_second(&self, followed: &mut BTreeMap<u64, Follow>) -> [Duration; 2] {
        let began = Instant::now();
        let mut waiting: BTreeSet<u64> = followed.keys().copied().collect();
        let mut taken = None;
        wait_until("the partitions go on", || {
            if taken.is_none() && self.takes(1).len() as u64 == PARTITIONS {
                taken = Some(began.elapsed());
            }
            waiting.retain(|partition| {
                let follow = followed.get_mut(partition).expect("it is followed");
                let records = follow.next(self.scenes[1].http());
                !records.iter().any(|it| it.worker == "w1")
            });
            taken.is_some() && waiting.is_empty()
        });
        [taken.expect("it was waited for"), began.elapsed()]
    }

    /// Follows the partitions of the first host, once each has a record.
    fn follow_first(&self) -> BTreeMap<u64, Follow> {
        let half = self.first_half();
        assert_eq!(half.len(), 2, "{half:?}");
        let at = self.scenes[1].http();
        let follow = |partition| {
            let mut follow = Follow { partition, after: None };
            wait_until("the first host works", || !follow.next(at).is_empty());
            (partition, follow)
        };
        half.into_iter().map(follow).collect()
    }

    /// Waits until each task that was submitted has its record, and sees to it that it is the only one and its own.
    fn finish(&self, submits: [Process; 2], count: u64) -> BTreeMap<u64, Vec<Stored>> {
        let patience = PATIENCE + Duration::from_millis(count);
        let mut ids = Vec::new();
        for mut submit in submits {
            wait_for_as_long_as(patience, "all is submitted", || {
                (!submit.is_running()).then_some(())
            });
            ids.extend(submit.wait().expect(0).text().lines().map(str::to_owned));
        }
        assert_eq!(ids.len() as u64, count);
        let at = self.scenes[1].http();
        let mut partitions: BTreeMap<u64, (Follow, Vec<Stored>)> = (0..PARTITIONS)
            .map(|partition| (partition, (Follow { partition, after: None }, Vec::new())))
            .collect();
        wait_for_as_long_as(patience, "each task has its record", || {
            let mut stored = 0;
            for (follow, records) in partitions.values_mut() {
                records.extend(follow.next(at));
                stored += records.len();
            }
            (stored as u64 >= count).then_some(())
        });
        // No further one comes: the queue has none left.
        wait_for("the queue is empty", || {
            let state = ask(at, "GET", "/v1/queues/orders", &[], b"").ok()?.json();
            (state["queued"] == 0 && state["running"] == 0).then_some(())
        });
        let mut outputs = BTreeMap::new();
        for (follow, records) in partitions.values_mut() {
            records.extend(follow.next(at));
            for record in records {
                let before = outputs.insert(record.id.clone(), record.output.clone());
                assert_eq!(before, None, "a second record: {record:?}");
            }
        }
        assert_eq!(outputs.len() as u64, count);
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(outputs.get(id), Some(&number.to_string()), "{id}");
        }
        partitions.into_iter().map(|(partition, (_, records))| (partition, records)).collect()
    }
}

/// Records of a partition, read one after the other.
struct Follow {
    partition: u64,
    after: Option<u64>,
}

impl Follow {
    /// Returns some of those that have come since, as far as the server answers.
    fn next(&mut self, at: SocketAddrV4) -> Vec<Stored> {
        let after = self.after.map(|after| format!("&after={after}")).unwrap_or_default();
        let partition = self.partition;
        let path = format!("/v1/queues/orders/records?partition={partition}&limit=1000{after}");
        let Ok(page) = ask(at, "GET", &path, &[], b"") else { return Vec::new() };
        let page = page.expect(200);
        let records: Vec<Stored> = page.body.lines().map(Stored::parse).collect();
        self.after = records.last().map(|record| record.at).or(self.after);
        records
    }
}

#[test]
fn the_partitions_of_a_host_that_dies_go_on_at_the_other() {
    let test = "the_partitions_of_a_host_that_dies_go_on_at_the_other";
    let Some(network) = network(test, 1 + HOSTS) else { return };
    network.within(|| {
        let count = tasks_count();
        let mut pair = Pair::start(&network);
        let began = Instant::now();
        let half = pair.submit(0..count / 2);
        let mut followed = pair.follow_first();
        pair.serves[0].kill();
        pair.workers[0].kill();
        let rest = pair.submit(count / 2..count);
        let [taken, next] = pair.wait_for_second(&mut followed);
        let records = pair.finish([half, rest], count);
        let by_first = records.values().flatten().filter(|it| it.worker == "w0").count();
        eprintln!(
            "{count} tasks, {by_first} records of the host that was killed; its partitions were \
             taken {taken:?} later and had their next record after {next:?}; whole after {:?}",
            began.elapsed()
        );
        assert!(taken < TAKEN_WITHIN, "its partitions were taken after {taken:?}");
    });
}

#[test]
fn a_server_that_wakes_without_its_lease_adds_nothing_to_what_another_has() {
    let test = "a_server_that_wakes_without_its_lease_adds_nothing_to_what_another_has";
    let Some(network) = network(test, 1 + HOSTS) else { return };
    network.within(|| {
        let count = tasks_count();
        let mut pair = Pair::start(&network);
        let began = Instant::now();
        let half = pair.submit(0..count / 2);
        let mut followed = pair.follow_first();
        let before = pair.takes(0).len();
        // Its worker goes on with what it has, and has the results when it wakes.
        pair.serves[0].signal(Signal::STOP);
        let rest = pair.submit(count / 2..count);
        let [taken, next] = pair.wait_for_second(&mut followed);
        pair.serves[0].signal(Signal::CONT);
        pair.serves[0].wait_for_stderr("has gone to another process");
        let records = pair.finish([half, rest], count);
        // It may have its part again by now: a record of it behind those of the other is of a task that it was given then.
        let again: BTreeMap<u64, u64> = pair.takes(0).into_iter().skip(before).collect();
        let mut late = 0;
        for partition in followed.keys() {
            let of_other = records[partition].iter().skip_while(|it| it.worker == "w0");
            for record in of_other.filter(|it| it.worker == "w0") {
                let number: u64 = record.id["orders-".len()..].parse().expect("it is a number");
                let is_given = again.get(partition).is_some_and(|from| number / PARTITIONS >= *from);
                assert!(is_given, "it was written late: {record:?}, {again:?}");
                late += 1;
            }
        }
        eprintln!(
            "{count} tasks; the partitions of the server that stood still were taken {taken:?} later and had their next \
             record after {next:?}; after it woke it had {again:?} again and {late} records in them; whole after {:?}",
            began.elapsed()
        );
        assert!(taken < TAKEN_WITHIN, "its partitions were taken after {taken:?}");
    });
}

#[test]
fn a_node_that_is_lost_for_good_is_left_for_another() {
    let test = "a_node_that_is_lost_for_good_is_left_for_another";
    let Some(network) = network(test, 4) else { return };
    network.within(|| {
        let cluster = NatsCluster::start(&network, 3);
        let scene = Scene::on_host(&network, 3);
        let config = scene.file("serve.toml", cluster.config("orders", 1));
        let mut serve = scene.serve().arg("--config").arg(config).start();
        serve.wait_for_stderr("is taken, from task 0 on");
        let _worker = scene.worker("w").words("--queue orders --echo").start();
        let lost = cluster.connected(*scene.http().ip()).expect("it is connected");
        cluster.cut(lost, true);
        // Nothing says that it is gone.
        let (path, headers) = ("/v1/queues/orders/tasks", ["Idempotency-Key: one"]);
        let id = wait_for("the task is taken", || {
            let answer = ask(scene.http(), "POST", path, &headers, b"1").ok()?;
            Some(answer.json()["id"].as_str()?.to_owned())
        });
        wait_for("it has its record", || {
            let answer = ask(scene.http(), "GET", &format!("/v1/tasks/{id}"), &[], b"").ok()?;
            (answer.status == 200 && answer.json()["output"] == "1").then_some(())
        });
        assert_ne!(cluster.connected(*scene.http().ip()), Some(lost));
    });
}

#[test]
fn the_promise_is_kept_while_nodes_of_a_cluster_are_cut_off_and_killed() {
    let test = "the_promise_is_kept_while_nodes_of_a_cluster_are_cut_off_and_killed";
    if network(test, 1).is_none() {
        return;
    }
    let plan = QueuePlan {
        seed: tradewind_e2e::random().u64(..),
        length: Duration::from_secs(30),
        submitters: 2,
        programs: 1,
        workers: 1,
        underneath: Some(Underneath { kind: EngineKind::Nats, servers: 2, nodes: 3 }),
        tasks_max: 2_000,
        pause: Duration::from_millis(800),
        patience: PATIENCE,
    };
    eprintln!("{plan:?}");
    let report = queue_chaos(&plan);
    eprintln!("{report}");
    assert!(report.is_good(), "{report}");
    let faults =
        [report.leader_cuts, report.node_cuts - 1, report.engine_kills, report.server_cuts];
    assert!(faults.iter().all(|count| *count > 0), "{report}");
}
