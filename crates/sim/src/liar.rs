//! Workers that lie: what they say in place of what their machine says.

use tradewind_proto::message::{News, Outcome, TaskResult, ToSink};
use tradewind_proto::{Attempt, JobId, Payload, Seq, SessionId, Tag, TaskHash};

use crate::plan::{Lie, Sickness};
use crate::world::World;

/// Results that a liar keeps to say them again.
const KEPT_MAX: usize = 8;

/// Output of a result that was made up.
const FORGED: &[u8] = b"made up";

impl World {
    /// Returns what the worker says in place of a message.
    pub(crate) fn lied(&mut self, worker: usize, message: ToSink) -> Vec<ToSink> {
        match self.plan.seats[self.workers[worker].seat].sickness {
            Sickness::Lies(Lie::Withholds) => withheld(message),
            Sickness::Lies(Lie::Repeats) => self.repeated(worker, message),
            Sickness::Lies(Lie::Forges) => self.forged(worker, message),
            _ => vec![message],
        }
    }

    fn repeated(&mut self, worker: usize, message: ToSink) -> Vec<ToSink> {
        let said = &mut self.workers[worker].said;
        if let ToSink::Results { job, session, results } = &message {
            let mut results = results.clone();
            results.0.iter_mut().for_each(|result| result.ran_us = 1);
            said.truncate(KEPT_MAX - 1);
            said.insert(0, ToSink::Results { job: *job, session: *session, results });
        }
        let mut all = vec![message];
        if self.plan.has_percent_timeout {
            // Often enough to be what most results say.
            all.extend(said.iter().cloned());
        } else if !said.is_empty() {
            all.push(said[self.rng.usize(0..said.len())].clone());
        }
        all
    }

    fn forged(&mut self, worker: usize, mut message: ToSink) -> Vec<ToSink> {
        let me = &mut self.workers[worker];
        let session = me.session;
        if let ToSink::Results { results, .. } = &message {
            me.tags.extend(results.0.iter().map(|result| (result.seq, result.tag)));
        }
        if let ToSink::News { news, .. } = &mut message {
            claim_all(news, self.plan.tasks.len() as u64);
        }
        let Some(job) = me.executor.job() else { return vec![message] };
        let count = self.plan.tasks.len() as u64;
        if count == 0 {
            return vec![message];
        }
        let seq = Seq(self.rng.u64(0..count));
        // Its own task's tag, or a guess; not for the task that it has the tag of.
        let others = me.tags.iter().filter(|(other, _)| **other != seq);
        let tag = others.map(|(_, tag)| *tag).next().unwrap_or(Tag(self.rng.u64(..)));
        let payload = self.check.payload(seq.0 as usize, me.stage.index);
        vec![message, made_up(job, session, seq, tag, &payload)]
    }
}

fn withheld(message: ToSink) -> Vec<ToSink> {
    match message {
        ToSink::Results { .. }
        | ToSink::News { news: News::Recalled { .. } | News::Returned { .. }, .. } => Vec::new(),
        message => vec![message],
    }
}

/// Makes an answer to a roll call claim every task there is.
fn claim_all(news: &mut News, count: u64) {
    let News::Holding { unfinished, finished, hashes, tags, .. } = news else { return };
    let (unfinished_set, finished_set) = (unfinished.to_set(), finished.to_set());
    let mut known = hashes.0.iter().copied().zip(tags.0.iter().copied());
    let (mut all_hashes, mut all_tags) = (Vec::new(), Vec::new());
    let is_held = |seq| unfinished_set.contains(seq) || finished_set.contains(seq);
    for seq in (0..count).map(Seq) {
        let (hash, tag) = match is_held(seq) {
            true => known.next().unwrap_or_default(),
            false => (TaskHash(seq.0 as u32), Tag(seq.0)),
        };
        all_hashes.push(hash);
        all_tags.push(tag);
    }
    *unfinished = (0..count).map(Seq).filter(|seq| !finished_set.contains(*seq)).collect();
    (hashes.0, tags.0) = (all_hashes, all_tags);
}

fn made_up(job: JobId, session: SessionId, seq: Seq, tag: Tag, payload: &Payload) -> ToSink {
    let result = TaskResult {
        seq,
        attempt: Attempt::FIRST,
        last: true,
        tag,
        started_us: 0,
        ran_us: 1,
        task_bytes: payload.len() as u64,
        task_hash: TaskHash::of(payload),
        outcome: Outcome::ok(Payload::from(FORGED)),
        reported: None,
    };
    ToSink::Results { job, session, results: vec![result].into() }
}
