//! Machines among which one lies: a ventilator, two honest workers and a sink, and a worker that says any
//! valid message. The machines agree with themselves after each step, each task has one record, which is of
//! a worker that was given it, what the sink holds is bounded, and the job ends once the liar is gone.
//!
//! The data is a byte for the kind of job and one for the number of tasks, and then steps of four bytes.

use std::collections::{BTreeMap, BTreeSet};

use tradewind_proto::batch::Bounded;
use tradewind_proto::collector::Order;
use tradewind_proto::message::{
    Exit, InputEnd, News, Outcome, Status, Task, TaskResult, ToSink, ToVentilator, ToWorker,
};
use tradewind_proto::{
    Attempt, CallId, JobId, Payload, Rare, Seq, SeqRanges, SeqSet, SessionId, Tag, TaskHash,
};
use tradewind_testkit::{JOB, Ring};

/// The worker that lies.
const LIAR: u64 = 9;
/// Steps of one input.
const STEPS_MAX: usize = 150;
/// Beginning of an output that is a lie.
const LIE: u8 = b'!';
/// Bytes for which the sink has room.
const ROOM: u64 = 4000;
/// Bytes of the largest output, and what is kept of a result beside it.
const RESULT_BYTES_MAX: u64 = 255 * 8 + 400;
const SECOND: u64 = 1_000_000;

pub fn liars(mut data: &[u8]) {
    let kind = super::byte(&mut data);
    let count = u64::from(super::byte(&mut data) % 48) + 1;
    let order = if kind & 1 == 0 { Order::Seq } else { Order::Completion };
    let mut scene = Scene {
        ring: Ring::new(u32::from(kind >> 1 & 3), order),
        given: BTreeMap::new(),
        calls: vec![CallId(0)],
        said: Vec::new(),
        ever: BTreeSet::new(),
    };
    scene.ring.sink.collector.set_taken_bytes_max(ROOM);
    scene.ring.swallows = Some(LIAR);
    (1..=2).for_each(|id| scene.ring.join(id, 2));
    scene.ring.join(LIAR, 1 + u32::from(kind >> 3 & 7));
    scene.ring.read(&Payload::from(b"task"), count);
    if kind & 0x40 == 0 {
        scene.ring.end_input();
    }
    for step in data.chunks_exact(4).take(STEPS_MAX) {
        scene.step([step[0], step[1], step[2], step[3]]);
        let held = scene.ring.sink.collector.snapshot().held_bytes;
        assert!(held <= ROOM + RESULT_BYTES_MAX, "{held} bytes are held");
    }
    scene.end(count);
}

struct Scene {
    ring: Ring,
    /// What the liar was given and knows the tags of.
    given: BTreeMap<Seq, Task>,
    /// Roll calls and recalls that it has heard.
    calls: Vec<CallId>,
    said: Vec<ToSink>,
    /// Tasks that it was given at any time.
    ever: BTreeSet<Seq>,
}

impl Scene {
    fn step(&mut self, [what, a, b, c]: [u8; 4]) {
        self.listen();
        match what % 8 {
            0 => {
                let result = self.result(a, b, c);
                self.say(self.results(what, vec![result]));
            }
            1 => {
                let all = (0..b % 8).map(|n| self.result(a.wrapping_add(n), n & c, c)).collect();
                self.say(self.results(what, all));
            }
            2 => self.say(self.news(what, self.holding(a, b, c))),
            3 => self.say(self.news(what, self.other_news(a, b, c))),
            4 => {
                let id = 1 + u64::from(a & 1);
                let slot = u32::from(b & 1);
                if self.ring.workers.get(&id).is_some_and(|it| it.running.contains_key(&slot)) {
                    self.ring.finish(id, slot, Outcome::ok(Payload::from(b"done")));
                }
            }
            5 => self.ring.pass(if a & 1 == 0 { SECOND } else { 50_000 }),
            6 => {
                if let Some(message) = self.said.get(usize::from(a) % self.said.len().max(1)) {
                    self.say(message.clone());
                }
            }
            _ => {
                let lies = [
                    ToVentilator::Relay { session: SessionId(77), news: News::Gone },
                    ToVentilator::Relay { session: SessionId(LIAR), news: News::Alive },
                ];
                self.ring.say(lies[usize::from(a & 1)].clone());
            }
        }
        self.listen();
    }

    /// Hears what the ventilator has said.
    fn listen(&mut self) {
        for message in std::mem::take(&mut self.ring.swallowed) {
            match message {
                ToWorker::Tasks { tasks, .. } => {
                    self.ever.extend(tasks.0.iter().map(|task| task.seq));
                    self.given.extend(tasks.0.into_iter().map(|task| (task.seq, task)));
                }
                ToWorker::RollCall { call, .. } | ToWorker::Recall { call, .. } => {
                    self.calls.push(call);
                }
                _ => {}
            }
        }
    }

    fn say(&mut self, message: ToSink) {
        self.said.push(message.clone());
        self.ring.sink.collector.handle_message(message);
        self.ring.settle();
    }

    fn results(&self, what: u8, results: Vec<TaskResult>) -> ToSink {
        let job = if what & 0x80 == 0 { JOB } else { JobId(JOB.0 + 1) };
        // Doors refuse messages for others; the tags do as well.
        let session = if what & 0x40 == 0 { SessionId(LIAR) } else { SessionId(1) };
        ToSink::Results { job, session, results: results.into() }
    }

    fn result(&self, a: u8, b: u8, c: u8) -> TaskResult {
        let seq =
            if b & 1 == 0 { self.own(a) } else { Seq(u64::from(a) * (1 + u64::from(b >> 6))) };
        let given = self.given.get(&seq);
        let other = self.given.values().next();
        let tag = match b >> 1 & 3 {
            0 | 1 => given.map_or(Tag(0), |task| task.tag),
            2 => other.map_or(Tag(7), |task| task.tag),
            _ => Tag(u64::from(c) << 40),
        };
        let task_hash = if b & 8 == 0 { TaskHash::of(b"task") } else { TaskHash(u32::from(c)) };
        let mut output = vec![b'.'; usize::from(c) * 8];
        output.insert(0, LIE);
        let status = [Status::Ok, Status::Failed, Status::TimedOut, Status::Skipped];
        let outcome = Outcome {
            status: status[usize::from(b >> 4 & 3)],
            exit: Exit::None,
            output: output.into(),
            stderr: Rare::default(),
            error: String::new(),
        };
        TaskResult {
            seq,
            attempt: Attempt(u32::from(c & 3)),
            last: c & 4 == 0,
            tag,
            started_us: 0,
            ran_us: u64::from(c) << (b % 60),
            task_bytes: 0,
            task_hash,
            outcome,
            reported: None,
        }
    }

    /// One of the tasks that it was given.
    fn own(&self, a: u8) -> Seq {
        let place = usize::from(a) % self.given.len().max(1);
        self.given.keys().nth(place).copied().unwrap_or(Seq(u64::from(a)))
    }

    fn news(&self, what: u8, news: News) -> ToSink {
        ToSink::News { session: SessionId(if what & 0x40 == 0 { LIAR } else { 1 }), news }
    }

    fn job(a: u8) -> JobId {
        if a & 0x80 == 0 { JOB } else { JobId(JOB.0 + 1) }
    }

    fn call(&self, c: u8) -> CallId {
        self.calls[self.calls.len() - 1 - usize::from(c) % self.calls.len().min(3)]
    }

    fn holding(&self, a: u8, b: u8, c: u8) -> News {
        // Some of its own, and some of others.
        let own = self.given.keys().filter(|seq| b >> (seq.0 % 8) & 1 != 0).copied();
        let all: SeqSet = own.chain((0..u64::from(a & 7)).map(|n| Seq(n * u64::from(c)))).collect();
        let seqs: Vec<Seq> = all.to_ranges().as_slice().iter().flat_map(|it| it.seqs()).collect();
        let hash = |seq: &Seq| self.given.get(seq).map_or(TaskHash(1), |task| task.hash);
        let tag = |seq: &Seq| self.given.get(seq).map_or(Tag(1), |task| task.tag);
        let cut = seqs.len().min(usize::from(a >> 3 & 15) + 8);
        let (unfinished, finished) = seqs.split_at(usize::from(c) % (seqs.len() + 1));
        News::Holding {
            job: Self::job(a),
            call: self.call(b),
            unfinished: unfinished.iter().copied().collect(),
            finished: finished.iter().copied().collect(),
            hashes: Bounded(seqs.iter().map(hash).take(cut).collect()),
            tags: Bounded(seqs.iter().map(tag).take(cut).collect()),
        }
    }

    fn other_news(&self, a: u8, b: u8, c: u8) -> News {
        let ranges: SeqRanges =
            (0..u64::from(b & 15)).map(|n| Seq(n * u64::from(c % 5 + 1))).collect();
        match a % 6 {
            0 => News::Returned { job: Self::job(a), ranges },
            1 => News::Recalled { job: Self::job(a), call: self.call(c), ranges },
            2 => News::Heartbeat { running: b.into(), queued: c.into(), slots: (b % 9).into() },
            3 => News::Reconnected,
            4 => News::Draining { reason: String::new() },
            _ => News::Goodbye,
        }
    }

    /// The liar is gone, and the others do what there is.
    fn end(mut self, count: u64) {
        self.ring.end_input();
        self.listen();
        if self.ring.workers.contains_key(&LIAR) {
            self.ring.kill(LIAR);
        }
        for _ in 0..200 {
            if self.ring.sink.written.len() as u64 >= count {
                break;
            }
            for id in 1..=2 {
                for slot in 0..2 {
                    if self.ring.workers.get(&id).is_some_and(|it| it.running.contains_key(&slot)) {
                        self.ring.finish(id, slot, Outcome::ok(Payload::from(b"done")));
                    }
                }
            }
            self.ring.pass(SECOND / 4);
        }
        let mut seqs = BTreeSet::new();
        for record in &self.ring.sink.written {
            assert!(seqs.insert(record.seq), "{} has two records", record.seq);
            let is_lie = record.outcome.output.first() == Some(&LIE);
            let is_ours = !is_lie && record.outcome.status == Status::Ok;
            assert!(
                is_ours || self.ever.contains(&record.seq),
                "the liar never had {}",
                record.seq
            );
        }
        assert_eq!(seqs.len() as u64, count, "each task has its record");
        assert_eq!(self.ring.sink.collector.input_end(), Some(InputEnd::Whole));
    }
}
