//! A worker that dialled the wrong host: a fake ventilator, and a fake sink.

use tradewind_e2e::{MIB, Process, cpu_time, memory_bytes_max};
use tradewind_keys::Role as KeyRole;
use tradewind_proto::message::{Layout, Limits, Role, Task, ToWorker};
use tradewind_proto::{Attempt, CallId, JobId, Payload, Seq, SeqRange, Tag, TaskHash};

use crate::peer::{Kind, Peer, Trap};
use crate::stage::{Stage, Way};
use crate::suite::{Group, Scenario, Seen};

/// Ways of one that poses as a ventilator to a worker.
const WAYS: &[Way] = &[
    Way::Plain,
    Way::Token(KeyRole::Ventilator),
    Way::Token(KeyRole::Worker),
    Way::Token(KeyRole::Sink),
    Way::NoKey,
    Way::OthersKey,
];

pub(crate) const GROUP: Group = Group {
    name: "fakes",
    scenarios: &[
        Scenario {
            name: "wrong-seqs",
            required: "a task with any seq neither ends a worker nor takes its memory (R2)",
            ways: WAYS,
            play: wrong_seqs,
        },
        Scenario {
            name: "too-many-tasks",
            required: "200,000 tasks that were not asked for: the worker has at most 128 MiB (R5)",
            ways: WAYS,
            play: too_many_tasks,
        },
        Scenario {
            name: "too-large-tasks",
            required: "512 MiB of tasks that were not asked for: the worker has at most 256 MiB (R5)",
            ways: WAYS,
            play: too_large_tasks,
        },
        Scenario {
            name: "sparse-settled",
            required: "20 messages about 65,536 tasks each: at most 20 ms each (R2)",
            ways: WAYS,
            play: sparse_settled,
        },
        Scenario {
            name: "told-to-run",
            required: "with keys a worker runs nothing for one that is no ventilator (R14)",
            ways: &[
                Way::Token(KeyRole::Worker),
                Way::Token(KeyRole::Sink),
                Way::Token(KeyRole::Client),
                Way::NoKey,
                Way::OthersKey,
            ],
            play: told_to_run,
        },
    ],
    undefended: &[("told-to-run", "a worker runs what is told by whoever listens where it dials")],
};

const JOB: JobId = JobId(7);

/// A worker whose ventilator and sink are fakes. `None`: it has refused them, as it has to.
#[track_caller]
fn caught(stage: &Stage, handler: &[&str], play: impl FnOnce(&mut Peer, &Process)) -> bool {
    let scene = stage.scene();
    let liar = stage.liar(&scene);
    let keys = liar.route.keys.clone();
    let card = |role| liar.card(role, 0, "fake");
    let tasks = Trap::listen(scene.tasks(), Kind::Push, card(Role::Ventilator), keys.clone());
    let results = Trap::listen(scene.results(), Kind::Pull, card(Role::Sink), keys);
    let mut worker = scene.worker("honest").args(handler).start();
    let is_taken = matches!(stage.way, Way::Plain | Way::Token(KeyRole::Ventilator));
    let called = tasks.accept();
    match (called, is_taken) {
        (Ok(mut ventilator), true) => {
            let sink = results.accept();
            // A ventilator's token makes no sink.
            assert_eq!(sink.is_ok(), stage.way == Way::Plain, "{:?}", sink.err());
            let call = ToWorker::RollCall { job: JOB, call: CallId(1), layout: Layout::Unsaid };
            ventilator.send(&call).expect("it listens");
            play(&mut ventilator, &worker);
            assert!(worker.is_running(), "the worker died: {:?}", worker.status());
            assert!(!worker.stderr().contains("panicked"), "{}", worker.stderr());
            worker.kill();
            true
        }
        (Err(_), false) => {
            assert!(worker.is_running());
            worker.kill();
            false
        }
        (Ok(peer), false) => {
            let _ = peer.wait_for_end("a fake ventilator");
            worker.kill();
            false
        }
        (Err(why), true) => panic!("the worker did not come: {why:?}"),
    }
}

fn task(seq: u64, payload: Payload) -> Task {
    let seq = Seq(seq);
    Task {
        seq,
        attempt: Attempt::FIRST,
        last: true,
        tag: Tag(1),
        hash: TaskHash::of(&payload),
        payload,
    }
}

fn tasks(tasks: Vec<Task>) -> ToWorker {
    ToWorker::Tasks { job: JOB, limits: Limits::default(), tasks: tasks.into() }
}

/// Waits until a worker has dealt with all that it was sent; its memory has to be within bounds then.
#[track_caller]
fn assert_memory(worker: &Process, most: u64) {
    let _ = crate::ring::Ring::settle(worker, std::time::Duration::ZERO);
    let memory = memory_bytes_max(worker.pid()).expect("the worker runs") / MIB;
    assert!(memory <= most, "{memory} MiB, more than {most}");
}

fn seen(is_caught: bool, what: &str) -> Seen {
    if is_caught { what.into() } else { "the worker refuses it".into() }
}

fn wrong_seqs(stage: &Stage) -> Seen {
    for seq in [u64::MAX, 1 << 62, (1 << 62) - 1, 1 << 35] {
        let is_caught = caught(stage, &["--echo"], |ventilator, worker| {
            let _ = ventilator.send(&tasks(vec![task(seq, Payload::from("x"))]));
            let _ = ventilator
                .send(&tasks(vec![task(0, Payload::from("x")), task(seq, Payload::from("x"))]));
            assert_memory(worker, 64);
        });
        if !is_caught {
            return seen(false, "");
        }
    }
    "4 seqs, the worker goes on with at most 64 MiB".into()
}

fn too_many_tasks(stage: &Stage) -> Seen {
    let is_caught = caught(stage, &["--sleep"], |ventilator, worker| {
        for batch in 0..200 {
            let many =
                (0..1000).map(|at| task(batch * 1000 + at, Payload::from("0123456789abcdef")));
            if ventilator.send(&tasks(many.collect())).is_err() {
                break;
            }
        }
        assert_memory(worker, 128);
    });
    seen(is_caught, "the worker goes on with at most 128 MiB")
}

fn too_large_tasks(stage: &Stage) -> Seen {
    let is_caught = caught(stage, &["--sleep"], |ventilator, worker| {
        for seq in 0..512 {
            let large = task(seq, Payload::from(vec![b'x'; 1 << 20]));
            if ventilator.send(&tasks(vec![large])).is_err() {
                break;
            }
        }
        assert_memory(worker, 256);
    });
    seen(is_caught, "the worker goes on with at most 256 MiB")
}

fn sparse_settled(stage: &Stage) -> Seen {
    let is_caught = caught(stage, &["--sleep", "--slots", "1"], |ventilator, worker| {
        for batch in 0..16 {
            let many = (0..1000).map(|at| task(batch * 1000 + at, Payload::from("9")));
            let _ = ventilator.send(&tasks(many.collect()));
        }
        let _ = crate::ring::Ring::settle(worker, std::time::Duration::ZERO);
        let before = cpu_time(worker.pid()).expect("the worker runs");
        for _ in 0..20 {
            let ranges = (0..65_536).map(|at| SeqRange::one(Seq(20_000 + 2 * at))).collect();
            let _ = ventilator.send(&ToWorker::Settled { job: JOB, below: Seq(1), ranges });
        }
        let used = crate::ring::Ring::settle(worker, before);
        // Debug builds take longer to decode that much.
        assert!(
            used.as_millis() <= 20 * 20 * if cfg!(debug_assertions) { 4 } else { 1 },
            "{used:?}"
        );
    });
    seen(is_caught, "20 messages, within the time")
}

fn told_to_run(stage: &Stage) -> Seen {
    let is_caught = caught(stage, &["--unsafe-template", "--", "sh", "-c", "{}"], |_, _| {});
    assert!(!is_caught);
    "the worker refuses it".into()
}
