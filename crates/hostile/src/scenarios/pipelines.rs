//! Two stages with a relay between them: a peer of one lies to the other.

use std::io::Write;
use std::net::SocketAddrV4;

use tradewind_e2e::{Process, Scene, records, wait_until};
use tradewind_keys::Role as KeyRole;
use tradewind_proto::message::{InputEnd, Report, ToSink, ToVentilator};
use tradewind_proto::{JobKey, Seq, SeqRange, SeqRanges, SessionId, TaskHash};

use super::INSIDE;
use crate::peer::Peer;
use crate::ring::{SLOW, task};
use crate::stage::{Known, Ports, Stage, Way, Worker, forged};
use crate::suite::{Group, Scenario, Seen};

/// Ways of one that poses as another program of the pipeline.
const WAYS: &[Way] = &[
    Way::Plain,
    Way::Token(KeyRole::Worker),
    Way::Token(KeyRole::Relay),
    Way::Token(KeyRole::Sink),
    Way::Token(KeyRole::Ventilator),
    Way::NoKey,
];

pub(crate) const GROUP: Group = Group {
    name: "pipelines",
    scenarios: &[
        Scenario {
            name: "other-stage",
            required: "a worker of one stage writes no result of the other (R8)",
            ways: INSIDE,
            play: other_stage,
        },
        Scenario {
            name: "second-relay",
            required: "a second relay, sink or ventilator ends no stage and writes no record (R15)",
            ways: WAYS,
            play: second_relay,
        },
    ],
    undefended: &[],
};

/// Number of tasks that come when the liars have gone.
const LAST: u64 = 20;

/// A job of two stages.
struct Pipeline {
    ventilator: Process,
    sink: Process,
    others: Vec<Process>,
    first: Ports,
    second: Ports,
    fed: u64,
    scene: Scene,
}

impl Pipeline {
    #[track_caller]
    fn begin(stage: &Stage) -> Self {
        let scene = stage.scene();
        let moved = |at: SocketAddrV4| SocketAddrV4::new(*at.ip(), at.port() + 1000);
        let (results, receipts) = (moved(scene.results()), moved(scene.receipts()));
        let first = Ports { tasks: scene.tasks(), results, receipts: scene.receipts() };
        let second = Ports { tasks: moved(scene.tasks()), results: scene.results(), receipts };
        let at = |address| format!("tcp://{address}");
        let sink = scene.ours("sink").args(["--listen", &at(second.results)]);
        let sink =
            sink.args(["--ventilator", &at(second.receipts), "--output", "out.jsonl"]).start();
        let relay = scene.ours("relay").args(["--listen", &at(first.results)]);
        let relay = relay.args(["--tasks", &at(second.tasks), "--receipts", &at(second.receipts)]);
        let relay =
            relay.args(["--ventilator", &at(first.receipts), "--sink", &at(second.results)]);
        let worker = |ports: Ports, name: &str| {
            let worker = scene.ours("worker").args(["--ventilator", &at(ports.tasks)]);
            worker.args(["--sink", &at(ports.results), "--name", name, "--exit-when-done"])
        };
        let slow = |name, ports| {
            worker(ports, name).args(["--slots", "2", "--", "sh", "-c", SLOW, "sh", "{}"])
        };
        let others =
            vec![relay.start(), slow("honest0", first).start(), slow("honest1", second).start()];
        let ventilator = scene.ours("ventilator").args(["--tasks", &at(first.tasks)]);
        let ventilator =
            ventilator.args(["--receipts", &at(first.receipts), "--sink", &at(first.results)]);
        let ventilator = ventilator.keep_stdin().start();
        let mut pipeline = Self { ventilator, sink, others, first, second, fed: 0, scene };
        pipeline.feed(60);
        wait_until("6 records are stored", || pipeline.stored() >= 6);
        pipeline
    }

    fn feed(&mut self, tasks: u64) {
        let lines: String = (self.fed..self.fed + tasks).map(|seq| task(seq) + "\n").collect();
        let stdin = self.ventilator.stdin().expect("it was kept");
        stdin.write_all(lines.as_bytes()).expect("the ventilator reads on");
        self.fed += tasks;
    }

    fn stored(&self) -> usize {
        self.scene.read("out.jsonl").iter().filter(|byte| **byte == b'\n').count()
    }

    /// The honest workers may be done with everything before a late one comes.
    #[track_caller]
    fn feed_until_given(&mut self, worker: &mut Worker) {
        wait_until("it is given a task", || {
            if self.stored() as u64 == self.fed {
                self.feed(LAST);
            }
            worker.given() > 0
        });
    }

    /// Returns the number of records, all right.
    #[track_caller]
    fn end_untouched(mut self) -> u64 {
        self.feed(LAST);
        self.ventilator.close_stdin();
        let Self { ventilator, sink, others, fed, scene, .. } = self;
        for program in [ventilator, sink].into_iter().chain(others) {
            let ended = program.wait().expect(0);
            assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        }
        for record in records(&scene.read("out.jsonl"), fed) {
            assert_eq!(record.status, "ok", "{record:?}");
            assert_eq!(record.worker, "honest1", "{record:?}");
            assert_eq!(record.output.as_deref(), Some(&*task(record.seq)), "{record:?}");
        }
        scene.assert_nothing_left();
        fed
    }
}

fn hash(seq: u64) -> TaskHash {
    TaskHash::of(task(seq).as_bytes())
}

fn other_stage(stage: &Stage) -> Seen {
    let mut pipeline = Pipeline::begin(stage);
    // It belongs to one stage and shows itself at the ports of both.
    for (own, other) in [(pipeline.first, pipeline.second), (pipeline.second, pipeline.first)] {
        let liar = stage.liar(&pipeline.scene);
        let mut inside = liar.worker_at(&own, 1, "liar").expect("workers get in");
        inside.answer();
        pipeline.feed_until_given(&mut inside);
        let given = inside.take();
        let fed = pipeline.fed;
        let mut outside = liar.worker_at(&other, 1, "liar").expect("workers get in");
        outside.answer();
        // With its own tags, for its own seqs and for all others.
        for given in &given {
            let lies = (0..fed + LAST).map(|seq| {
                let mut lie = forged(seq, hash(seq));
                lie.tag = given.tag;
                lie
            });
            let _ = outside.send(lies.collect());
        }
    }
    let records = pipeline.end_untouched();
    format!("{records} right records of the second stage").into()
}

/// Says messages to a port that may have opened, and waits until it closes.
fn tell(peer: Option<Peer>, mut say: impl FnMut(&mut Peer)) -> u32 {
    let Some(mut peer) = peer else { return 0 };
    say(&mut peer);
    let _ = peer.wait_for_end("one that is second");
    1
}

fn second_relay(stage: &Stage) -> Seen {
    let pipeline = Pipeline::begin(stage);
    let Known { job, .. } = stage.spy_at(&pipeline.scene, &pipeline.second);
    let mut sent_away = 0;
    let stored = || SeqRanges::of(SeqRange { start: Seq(0), end: Seq(80) });
    for ports in [pipeline.first, pipeline.second] {
        let liar = stage.liar(&pipeline.scene);
        sent_away += tell(liar.ventilator_at(&ports), |peer| {
            let forward = ToSink::Forwarded {
                job,
                stage: String::new(),
                worker: "honest1".to_owned(),
                results: (20..40).map(|seq| forged(seq, hash(seq))).collect::<Vec<_>>().into(),
            };
            let close = ToSink::JobClose { job, total: 10, end: InputEnd::Whole };
            for message in [forward, close, ToSink::JobDone { job }, ToSink::Cancel { job }] {
                let _ = peer.send(&message);
            }
        });
        sent_away += tell(liar.sink_at(&ports), |peer| {
            let hello = ToVentilator::SinkHello {
                asked: job,
                job,
                sink: SessionId(liar.session.0),
                stored: stored(),
                again: SeqRanges::new(),
                workers: Some(Vec::new().into()),
                report: Report::default(),
                key: JobKey::new([0; 16]),
            };
            let refused = ToVentilator::Refused { job, reason: "no".to_owned() };
            for message in [hello, ToVentilator::Complete { job }, refused] {
                let _ = peer.send(&message);
            }
        });
    }
    let records = pipeline.end_untouched();
    format!(
        "{records} right records; of 4 impostors {sent_away} were sent away, the others kept out"
    )
    .into()
}
