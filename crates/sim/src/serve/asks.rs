//! What is asked of a queue while it runs, and done to it.

use tradewind_proto::dispatcher::CancelAnswer;
use tradewind_proto::{Seq, SeqRange, SeqSet};
use tradewind_store::Change;

use super::plan::Ask;
use super::store::since_1970;
use super::{POLICY, Said, Serve, Turn, encode_policy, set_policy, setting};
use crate::event::{Event, Process};
use crate::mutation::Mutation;
use crate::world::World;

/// Name of the consumer.
const CONSUMER: &str = "reader";

/// Time after which something is asked for again that has to be, in microseconds.
const AGAIN_US: u64 = 100_000;

/// Longest time until a ventilator hears what is said, in microseconds.
const SAID_US_MAX: u64 = 3_000;

impl World {
    pub(super) fn ask(&mut self, place: usize) {
        let now = self.now;
        let (_, ask) = self.serve().plan.asks[place];
        self.trace.say(now, || format!("{ask:?}"));
        self.check.progressed(now);
        match ask {
            Ask::Cancel(dice) => self.cancel(dice),
            Ask::Pause(is_paused) => drop(self.pause(is_paused)),
            Ask::Policy { retries, max_running } => drop(self.set_policy(retries, max_running)),
            Ask::Consume(dice) => self.consume(dice),
            Ask::Trim => self.trim(),
            Ask::Retry(dice) => self.ask_retry(dice),
            Ask::RetryFailed => self.ask_retry_failed(),
            Ask::Full { room, lasts_us } => {
                self.serve().disk.limit(Some(room));
                self.queue.push(now + lasts_us, Event::Queue(Turn::Room));
            }
            Ask::Die { after: None, is_machine } => self.kill_serve(is_machine),
            Ask::Die { after, is_machine } => {
                let serve = self.serve();
                serve.is_machine = is_machine;
                serve.disk.set_fuse(after);
            }
            Ask::Calm => {
                let retries = self.plan.retries;
                let serve = self.serve();
                serve.is_calm = true;
                serve.disk.limit(None);
                serve.disk.set_fuse(None);
                if !self.pause(false) || !self.set_policy(retries, None) {
                    self.queue.push(now + AGAIN_US, Event::Queue(Turn::Ask(place)));
                }
            }
        }
    }

    /// Makes changes of the control log. Returns whether they are promised.
    fn change(&mut self, change: Change) -> bool {
        let is_made = self.serve().change(vec![change]);
        !self.has_died() && is_made
    }

    /// Says something to the ventilator, after what was said before.
    fn say(&mut self, said: Said) {
        let now = self.now;
        let serve = self.serve();
        let at = (now + serve.rng.u64(0..SAID_US_MAX)).max(serve.said_at + 1);
        serve.said_at = at;
        let turn = Turn::Said(serve.life, said);
        self.queue.push(at, Event::Queue(turn));
    }

    fn cancel(&mut self, dice: u64) {
        let serve = self.serve();
        let count = serve.account.count();
        let Some(logs) = serve.logs.as_ref().filter(|_| count > 0) else { return };
        let (is_recent, dice) = (dice.is_multiple_of(2), dice >> 8);
        let seq = if is_recent { count - 1 - dice % count.min(8) } else { dice % count };
        if logs.records.borrow().stored().contains(Seq(seq)) {
            return;
        }
        serve.account.maybe_cancelled.insert(seq);
        self.check.cancelled_task(seq);
        self.trace.say(self.now, || format!("task {seq} is cancelled"));
        if self.change(Change::Cancel(SeqRange::one(Seq(seq)))) {
            self.serve().account.cancelled.insert(seq);
            self.say(Said::Cancel(Seq(seq)));
        }
    }

    fn pause(&mut self, is_paused: bool) -> bool {
        if self.serve().logs.is_none() {
            return false;
        }
        self.serve().account.maybe_paused = Some(is_paused);
        let is_made = self.change(Change::Pause(is_paused));
        if is_made {
            let account = &mut self.serve().account;
            (account.is_paused, account.maybe_paused) = (is_paused, None);
            account.is_held &= is_paused;
            self.say(Said::Pause(is_paused));
        }
        is_made
    }

    fn set_policy(&mut self, retries: u32, max_running: Option<u64>) -> bool {
        if self.serve().logs.is_none() {
            return false;
        }
        let policy = encode_policy(retries, max_running);
        self.serve().account.maybe_policy = Some(policy.clone());
        let is_made = self.change(setting(POLICY, policy.clone()));
        if is_made {
            let account = &mut self.serve().account;
            (account.policy, account.maybe_policy) = (Some(policy), None);
            self.say(Said::SetPolicy { retries, max_running });
        }
        is_made
    }

    fn consume(&mut self, dice: u64) {
        let serve = self.serve();
        let Some(logs) = &serve.logs else { return };
        let end = logs.records.borrow().committed();
        let before = logs.control.state().consumers.get(CONSUMER).copied().unwrap_or(0);
        let next = before + dice % (end.saturating_sub(before) + 1);
        self.change(Change::Consumer(CONSUMER.into(), Some(next)));
    }

    fn trim(&mut self) {
        let (now, mutation) = (since_1970(self.now), self.mutation);
        let Some(serve) = self.serve.as_mut() else { return };
        let places = match serve.places() {
            Ok(places) => places,
            Err(problem) => return self.check.fail(|| problem),
        };
        serve.trim(now, mutation);
        // Also where it died there: with the machine, names that were removed may come back.
        serve.note_gone(places);
        if self.has_died() {
            return;
        }
        let serve = self.serve();
        let Some(logs) = serve.logs.take() else { return };
        let compared = serve.compare_records(&logs).and_then(|()| serve.compare_needed(&logs));
        serve.logs = Some(logs);
        if let Err(problem) = compared {
            self.check.fail(|| problem);
        }
    }

    pub(super) fn hear_said(&mut self, said: Said) {
        match said {
            Said::Cancel(seq) => {
                let answer = self.ventilator.dispatcher.handle_cancel_task(seq);
                self.trace.say(self.now, || format!("the cancel of {seq} does this: {answer:?}"));
                if answer == CancelAnswer::Unknown {
                    self.check.fail(|| format!("{seq} is not known, and there is such a task"));
                }
                if answer != CancelAnswer::Ended {
                    self.serve().account.cancel_heard(seq.0);
                }
            }
            Said::Pause(true) => {
                self.ventilator.dispatcher.handle_pause();
                self.serve().account.is_held = true;
            }
            Said::Pause(false) => {
                self.ventilator.dispatcher.handle_unpause();
                self.serve().account.is_held = false;
            }
            Said::SetPolicy { retries, max_running } => {
                let policy = crate::ventilator::policy(&self.plan);
                let policy = set_policy(policy, retries, max_running);
                self.ventilator.dispatcher.set_policy(policy);
            }
        }
        self.drive(Process::Ventilator);
    }
}

impl Serve {
    /// Removes what is not needed any more. What cannot be removed stays for now.
    fn trim(&mut self, now: std::time::Duration, mutation: Option<Mutation>) {
        let forgets_keys = self.plan.forgets_keys;
        let Some(logs) = &mut self.logs else { return };
        let consumed = logs.control.state().consumed();
        if let Some(keep) = self.plan.keep(consumed) {
            let removed = logs.records.borrow_mut().remove_old(keep, now);
            if removed.is_err() {
                return;
            }
        }
        let (records, failed) = (&logs.records, &logs.failed);
        let mut tasks = logs.tasks.borrow_mut();
        let record_of = |seq| match mutation {
            Some(Mutation::ForgetKey) => Ok(None),
            _ => records.borrow_mut().position_of(Seq(seq)),
        };
        let is_needed = |range: std::ops::Range<u64>| {
            let range = SeqRange { start: Seq(range.start), end: Seq(range.end) };
            let failed = &mut match mutation {
                Some(Mutation::ForgetFailed) => SeqSet::new(),
                _ => failed.borrow().clone(),
            };
            mutation != Some(Mutation::TrimEarly) && records.borrow_mut().is_needed(range, failed)
        };
        let _ = match mutation {
            Some(Mutation::ForgetKey | Mutation::TrimEarly | Mutation::ForgetFailed) => {
                tasks.remove_unneeded(is_needed, record_of).map(drop)
            }
            _ => tasks.trim(|| records.borrow_mut(), || failed.borrow_mut(), forgets_keys),
        };
    }
}
