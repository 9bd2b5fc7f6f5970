//! The logs of a queue, and what its ventilator and its sink do with them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tradewind_proto::collector::{Opened, Opening, Record, Records};
use tradewind_proto::dispatcher::{Dispatcher, TaskLimits};
use tradewind_proto::message::{Status, TaskResult, ToSink};
use tradewind_proto::{JobId, JobKey, Seq, SeqSet};
use tradewind_records::encode_jsonl;
use tradewind_store::{
    Change, Control, NextTask, RecordBatches, RecordLog, StoredTask, TaskOptions, Tasks, skip_lost,
};

use super::disk::Part;
use super::{JOB, Logs, POLICY, Serve, TAGS, Turn, setting};
use crate::event::{Event, Instant, Process};
use crate::mutation::Mutation;
use crate::world::World;

/// Id of logs.
const ID: u64 = 7;

/// Bytes of tasks that are read at a time.
const READ_BYTES_MAX: usize = 600;

/// Time after which an output that failed is tried again, in microseconds.
const RETRY_US: u64 = 1_000_000;

impl Serve {
    /// Opens the logs, and compares them with what was promised.
    pub(super) fn open(&mut self) -> Result<(), String> {
        let media = self.disk.media();
        let sizes = self.plan.sizes;
        let records = RecordLog::open(media.records, media.index, ID, sizes.records);
        let (records, _) = records.map_err(|error| format!("the records: {error}"))?;
        let first = records.first();
        let tasks = Tasks::open(media.tasks, media.keys, ID, sizes.tasks, first);
        let (tasks, _) = tasks.map_err(|error| format!("the tasks: {error}"))?;
        let (recorded, end) = (records.stored().end().0, tasks.committed());
        if recorded > end {
            return Err(format!(
                "a record of task {}, and the tasks end before {end}",
                recorded - 1
            ));
        }
        let control = Control::open(media.control, ID, sizes.control);
        let (mut control, _) = control.map_err(|error| format!("the control log: {error}"))?;
        control.settle(records.stored());
        let mut records = records;
        let failed = records.not_ok().map_err(|error| format!("the records: {error}"))?;
        let mut logs = Logs {
            tasks: RefCell::new(tasks),
            records: RefCell::new(records),
            control,
            failed: RefCell::new(failed),
        };
        self.compare_control(&logs)?;
        self.compare_tasks(&mut logs)?;
        self.compare_records(&logs)?;
        self.compare_needed(&logs)?;
        self.submitted = logs.tasks.get_mut().committed();
        self.logs = Some(logs);
        Ok(())
    }

    /// Makes the job of a queue that is not synced another one now and then, as is done when its machine may have
    /// stopped. Returns whether that was tried, and is promised.
    pub(super) fn begin_job_again(&mut self) -> Option<bool> {
        let state = self.logs.as_ref()?.control.state();
        if self.plan.is_synced || !state.settings.contains_key(JOB) || self.rng.bool() {
            return None;
        }
        let job = Bytes::copy_from_slice(&self.rng.u64(..).to_le_bytes());
        let tags = Bytes::copy_from_slice(&self.rng.u128(..).to_le_bytes());
        Some(self.change(vec![setting(JOB, job), setting(TAGS, tags)]))
    }

    /// Opens the logs of a queue that is not synced after its machine has died, and looks at what is left: of tasks and
    /// of records what came first.
    pub(super) fn open_what_is_left(&mut self, mutation: Option<Mutation>) -> Result<(), String> {
        let media = self.disk.media();
        let sizes = self.plan.sizes;
        let control = Control::open(media.control, ID, sizes.control);
        let (mut control, _) = control.map_err(|error| format!("the control log: {error}"))?;
        let records = RecordLog::open(media.records, media.index, ID, sizes.records);
        let (mut records, _) = records.map_err(|error| format!("the records: {error}"))?;
        let first = records.first();
        let tasks = Tasks::open(media.tasks, media.keys, ID, sizes.tasks, first);
        let (mut tasks, _) = tasks.map_err(|error| format!("the tasks: {error}"))?;
        let end = tasks.committed();
        if mutation != Some(Mutation::ForgetLost) {
            let skipped = skip_lost(&mut tasks, &records, &mut control);
            skipped.map_err(|error| format!("the control log: {error}"))?;
        }
        control.settle(records.stored());
        let failed = records.not_ok().map_err(|error| format!("the records: {error}"))?;
        let ends = [records.stored().end().0, control.state().cancelled.end().0];
        if ends.iter().any(|end| *end > tasks.next()) {
            return Err("a task that is submitted next has a record, or is cancelled".to_owned());
        }
        let mut consumers = control.state().consumers.values();
        if consumers.any(|next| *next > records.committed()) {
            return Err("a consumer has read what is not there".to_owned());
        }
        let mut logs = Logs {
            tasks: RefCell::new(tasks),
            records: RefCell::new(records),
            control,
            failed: RefCell::new(failed),
        };
        self.account.may_have_lost = true;
        // What was written, and was not promised yet.
        while self.account.count() < end {
            let read = logs.tasks.get_mut().read(self.account.count(), READ_BYTES_MAX);
            let read = read.map_err(|error| error.to_string())?;
            if read.first().map(|(position, _)| *position) != Some(self.account.count()) {
                return Err(format!("task {} is not there", self.account.count()));
            }
            for (position, task) in read {
                if position < end {
                    self.account.learn(task)?;
                }
            }
        }
        self.compare_control(&logs)?;
        self.compare_what_is_left(&mut logs, end)?;
        self.submitted = end;
        self.logs = Some(logs);
        Ok(())
    }

    /// Checks that of tasks and of records those are left that came first, as they were.
    fn compare_what_is_left(&mut self, logs: &mut Logs, end: u64) -> Result<(), String> {
        let Logs { tasks, records, .. } = logs;
        let (tasks, records) = (tasks.get_mut(), records.get_mut());
        let stored = records.stored().clone();
        let under_way: BTreeSet<u64> =
            self.under_way.iter().flat_map(Records::iter).map(|it| it.result.seq.0).collect();
        let mut lost = None;
        for seq in &self.account.order {
            match (stored.contains(Seq(*seq)), lost) {
                (true, Some(lost)) => {
                    return Err(format!("the record of {lost} is lost, and that of {seq} is not"));
                }
                (true, None) => {}
                (false, _) => lost = Some(*seq),
            }
        }
        for seq in stored.iter() {
            let found = records.get(seq).map_err(|error| format!("record of {seq}: {error}"))?;
            match (self.account.records.get(&seq.0), found) {
                (Some(line), Some(found)) if found.bytes != *line => {
                    return Err(format!("the record of {seq} has changed"));
                }
                (None, _) if !under_way.contains(&seq.0) => {
                    return Err(format!("{seq} has a record that nobody wrote"));
                }
                _ => {}
            }
        }
        for (seq, task) in (0..end).zip(&self.account.tasks) {
            let is_there = self.compare_task(tasks, &stored, seq, task)?;
            let is_known = is_there || !self.plan.forgets_keys && !self.account.gone.contains(&seq);
            let key = task.key.as_ref().filter(|_| is_known);
            if let Some(key) = key {
                let found = tasks.find(key).map_err(|error| format!("a key: {error}"))?;
                if found.is_none_or(|found| found < seq) {
                    return Err(format!("the key of task {seq} is that of {found:?}"));
                }
            }
        }
        Ok(())
    }

    fn compare_control(&mut self, logs: &Logs) -> Result<(), String> {
        let state = logs.control.state();
        let account = &mut self.account;
        if state.paused != account.is_paused && Some(state.paused) != account.maybe_paused {
            return Err(format!("the queue was said to be paused: {}", account.is_paused));
        }
        (account.is_paused, account.maybe_paused) = (state.paused, None);
        let policy = state.settings.get(POLICY);
        if policy != account.policy.as_ref() && policy != account.maybe_policy.as_ref() {
            return Err("a setting is not what it was said to be".to_owned());
        }
        (account.policy, account.maybe_policy) = (policy.cloned(), None);
        let stored = logs.records.borrow();
        let is_there = |seq: &&u64| {
            state.cancelled.contains(Seq(**seq)) || stored.stored().contains(Seq(**seq))
        };
        // It was settled with a record that is lost.
        let may_be_lost = |seq: &&u64| account.may_have_lost && account.records.contains_key(*seq);
        let lost = account.cancelled.iter().find(|seq| !is_there(seq) && !may_be_lost(seq));
        if let Some(lost) = lost {
            return Err(format!("the cancel of task {lost} was promised, and is lost"));
        }
        if let Some(seq) = state.cancelled.iter().find(|seq| !account.is_cancelled(seq.0)) {
            return Err(format!("task {} is cancelled, for which nobody asked", seq.0));
        }
        account.cancelled.extend(state.cancelled.iter().map(|seq| seq.0));
        Ok(())
    }

    fn compare_tasks(&mut self, logs: &mut Logs) -> Result<(), String> {
        let count = self.account.count();
        let committed = logs.tasks.get_mut().committed();
        if committed < count {
            return Err(format!("task {committed} was promised, and is lost"));
        }
        self.learn(logs)
    }

    /// Checks that each task is there as it was submitted that has no record, or one for which it may be run again.
    pub(super) fn compare_needed(&self, logs: &Logs) -> Result<(), String> {
        let mut tasks = logs.tasks.borrow_mut();
        let stored = logs.records.borrow().stored().clone();
        for (seq, task) in (0..).zip(&self.account.tasks) {
            self.compare_task(&mut tasks, &stored, seq, task)?;
        }
        Ok(())
    }

    /// Checks one of them. Returns whether the task is there.
    fn compare_task(
        &self,
        tasks: &mut Tasks<Part>,
        stored: &SeqSet,
        seq: u64,
        task: &StoredTask,
    ) -> Result<bool, String> {
        let there = tasks.task(seq).map_err(|error| format!("task {seq}: {error}"))?;
        match &there {
            Some(found) if found != task => Err(format!("task {seq} is not what was submitted")),
            None if !stored.contains(Seq(seq)) => {
                Err(format!("task {seq} was removed, and has no record"))
            }
            None if self.account.may_be_retried(seq) => {
                Err(format!("task {seq} was removed, and may be run again"))
            }
            _ => Ok(there.is_some()),
        }
    }

    /// Notes the tasks that are there and were not before.
    pub(super) fn learn(&mut self, logs: &mut Logs) -> Result<(), String> {
        let tasks = logs.tasks.get_mut();
        while self.account.count() < tasks.committed() {
            let next = self.account.count();
            let read = tasks.read(next, READ_BYTES_MAX).map_err(|error| error.to_string())?;
            if read.is_empty() {
                return Err(format!("task {next} cannot be read"));
            }
            for (position, task) in read {
                if position != self.account.count() {
                    return Err(format!("task {} is not there", self.account.count()));
                }
                self.account.learn(task)?;
            }
        }
        Ok(())
    }

    /// Checks that each record is there as it was written, unless it was removed.
    pub(super) fn compare_records(&mut self, logs: &Logs) -> Result<(), String> {
        let mut records = logs.records.borrow_mut();
        for (seq, line) in &self.account.records {
            if !records.stored().contains(Seq(*seq)) {
                return Err(format!("task {seq} had a record, and has none"));
            }
            match records.get(Seq(*seq)).map_err(|error| format!("record of {seq}: {error}"))? {
                Some(found) if found.bytes != *line => {
                    return Err(format!("the record of task {seq} has changed"));
                }
                Some(_) => {}
                None if self.plan.keep.is_none() => {
                    return Err(format!("the record of task {seq} is kept, and is gone"));
                }
                None => drop(self.account.gone.insert(*seq)),
            }
        }
        Ok(())
    }

    /// Returns the positions of all records that are kept.
    pub(super) fn places(&self) -> Result<Vec<(u64, u64)>, String> {
        let Some(logs) = &self.logs else { return Ok(Vec::new()) };
        let mut records = logs.records.borrow_mut();
        let kept = self.account.records.keys().filter(|seq| !self.account.gone.contains(seq));
        let mut places = Vec::new();
        for seq in kept {
            let place = records.position_of(Seq(*seq));
            let place = place.map_err(|error| format!("record of {seq}: {error}"))?;
            places.extend(place.map(|place| (*seq, place)));
        }
        Ok(places)
    }

    /// Notes which records are gone of those that had these positions.
    pub(super) fn note_gone(&mut self, places: Vec<(u64, u64)>) {
        let Some(logs) = &self.logs else { return };
        let first = logs.records.borrow().first();
        let gone = places.into_iter().filter(|(_, place)| *place < first);
        self.account.gone.extend(gone.map(|(seq, _)| seq));
    }

    /// Makes changes of the control log, all or none. Returns whether they are promised.
    pub(super) fn change(&mut self, changes: Vec<Change>) -> bool {
        let Some(logs) = &mut self.logs else { return false };
        let control = &mut logs.control;
        let made = changes.into_iter().try_for_each(|change| control.apply(change));
        let made = made.and_then(|()| control.commit());
        if made.is_err() {
            control.discard();
        }
        made.is_ok()
    }
}

impl World {
    /// Tells the account of all tasks that are there and it does not know.
    pub(super) fn note_learned(&mut self) {
        let Self { serve, plan, check, .. } = self;
        let Some(serve) = serve else { return };
        for seq in plan.tasks.len()..serve.account.tasks.len() {
            let StoredTask { payload, options, .. } = &serve.account.tasks[seq];
            let text = String::from_utf8_lossy(payload);
            let wish = text.split(' ').nth(1).and_then(|number| number.parse::<usize>().ok());
            let Some(wish) = wish.and_then(|wish| serve.plan.wishes.get(wish)) else {
                return check.fail(|| format!("task {seq} is none that was submitted"));
            };
            let limits = TaskLimits { retries: options.retries, timeout: options.timeout };
            plan.tasks.push(wish.task);
            check.learn(wish.task, payload.clone().into(), limits);
        }
    }

    /// Notes what was found when the logs were opened: more may be there than was promised.
    pub(super) fn note_found(&mut self) {
        self.note_learned();
        let serve = self.serve();
        let Some(logs) = &serve.logs else { return };
        let mut made_it = Vec::new();
        let stored = logs.records.borrow().stored().clone();
        for list in std::mem::take(&mut serve.under_way) {
            let Records { worker, stage, results } = list;
            let is_new =
                |seq: Seq| stored.contains(seq) && !serve.account.records.contains_key(&seq.0);
            let results = results.into_iter().filter(|result| is_new(result.seq)).collect();
            made_it.push(Records { worker, stage, results });
        }
        (serve.batches, serve.lists) = (RecordBatches::default(), 0);
        for record in made_it.iter().flat_map(Records::iter) {
            self.note_stored(record);
        }
        let serve = self.serve();
        if let Some(seq) = stored.iter().find(|seq| !serve.account.records.contains_key(&seq.0)) {
            self.check.fail(|| format!("{seq} has a record that nobody wrote"));
        }
    }

    fn note_stored(&mut self, record: Record<'_>) {
        let (seq, status) = (record.result.seq, record.result.outcome.status);
        let mut line = Vec::new();
        encode_jsonl(record, true, &mut line);
        let serve = self.serve();
        if let Err(problem) = serve.account.stored(seq.0, status, line) {
            self.check.fail(|| problem);
        }
        self.check.recorded(record, self.now);
    }

    /// For [`Mutation::RecordBoth`].
    pub(crate) fn write_both(&mut self, message: &ToSink) {
        let (Some(serve), true, ToSink::Results { results, .. }) =
            (&self.serve, self.mutation == Some(Mutation::RecordBoth), message)
        else {
            return;
        };
        let is_cancelled = |result: &&TaskResult| {
            result.is_final() && serve.account.cancelled_records.contains(&result.seq.0)
        };
        let both = results.0.iter().filter(is_cancelled).cloned().collect();
        let both = Records { worker: "both".into(), stage: "".into(), results: both };
        both.iter().for_each(|record| self.note_stored(record));
    }

    /// The sink makes its output ready.
    pub(crate) fn open_logs(&mut self, opening: &Opening) {
        let serve = self.serve();
        let Some(logs) = &serve.logs else { return };
        let settings = logs.control.state().settings.clone();
        let number = |bytes: &Bytes| u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
        let tags: [u8; 16] = std::array::from_fn(|at| at as u8);
        let (job, tags) = match (settings.get(JOB), settings.get(TAGS)) {
            (Some(job), Some(tags)) => (JobId(number(job)), tags[..].try_into().expect("16 bytes")),
            _ => {
                let job = Bytes::copy_from_slice(&opening.job.0.to_le_bytes());
                let begin = vec![setting(JOB, job), setting(TAGS, Bytes::copy_from_slice(&tags))];
                let is_begun = serve.change(begin);
                if self.has_died() {
                    return;
                }
                if !is_begun {
                    // A program whose output is refused ends.
                    return self.kill_serve(false);
                }
                (opening.job, tags)
            }
        };
        let serve = self.serve();
        let Some(logs) = &serve.logs else { return };
        let opened = {
            let opened = logs.records.borrow().opened();
            Opened { job, key: Some(JobKey::new(tags)), ..opened }
        };
        self.sink.collector.handle_opened(opened);
        self.drive(Process::Sink);
    }

    /// The sink stores records.
    pub(crate) fn store_records(&mut self, lists: Vec<Records>) {
        let serve = self.serve();
        serve.lists += lists.len();
        for record in lists.iter().flat_map(Records::iter) {
            let (seq, status) = (record.result.seq, record.result.outcome.status);
            serve.batches.add(seq, status, |line| encode_jsonl(record, true, line));
        }
        serve.under_way.extend(lists);
        self.commit_records();
    }

    pub(super) fn commit_records(&mut self) {
        let now = since_1970(self.now);
        let serve = self.serve();
        let Serve { logs: Some(logs), batches, .. } = serve else { return };
        let Logs { records, failed, .. } = logs;
        let stored = batches.commit(
            &mut records.borrow_mut(),
            || now,
            |_, stored| {
                let is_failed = |status| !matches!(status, Status::Ok | Status::Skipped);
                let mut failed = failed.borrow_mut();
                stored.iter().filter(|(_, status)| is_failed(*status)).for_each(|(seq, _)| {
                    failed.insert(*seq);
                });
            },
        );
        if self.has_died() {
            return;
        }
        let serve = self.serve();
        if stored.is_err() {
            // Nothing more is written until that is.
            let (life, lists) = (serve.life, serve.lists);
            self.sink.hold_writing(lists);
            self.sink.collector.handle_stuck(true);
            self.queue.push(self.now + RETRY_US, Event::Queue(Turn::Rewrite(life)));
            return self.drive(Process::Sink);
        }
        let lists = std::mem::take(&mut serve.lists);
        let under_way = std::mem::take(&mut serve.under_way);
        self.sink.hold_writing(0);
        self.sink.collector.handle_stuck(false);
        for record in under_way.iter().flat_map(Records::iter) {
            self.note_stored(record);
        }
        self.sink.collector.handle_written(lists);
        self.drive(Process::Sink);
    }

    /// Schedules reading on, unless it is.
    pub(super) fn want_input(&mut self) {
        if !std::mem::replace(&mut self.serve().is_input_due, true) {
            self.queue.push(self.now, Event::Input);
        }
    }

    /// The ventilator reads on in the log.
    pub(crate) fn read_tasks(&mut self) {
        let Self { serve, ventilator, plan, trace, now, .. } = self;
        let Some(serve) = serve else { return };
        let Serve { logs: Some(logs), reader, before, submitted, is_input_due, .. } = &mut **serve
        else {
            return;
        };
        *is_input_due = false;
        let mut is_more = false;
        if ventilator.dispatcher.input_room() == 0 {
            ventilator.wait_for_room();
        } else if reader.position() < *submitted {
            let (mut has_read, mut left) = (false, plan.input_chunk);
            while left > 0 {
                let position = reader.position();
                match reader.poll_next() {
                    Some(NextTask::There(task)) => {
                        trace.say(*now, || format!("task {position} is read"));
                        take_in(&mut ventilator.dispatcher, task);
                        left -= 1;
                    }
                    Some(NextTask::Recorded(count)) => {
                        trace.say(*now, || format!("{count} from {position} on are passed over"));
                        ventilator.dispatcher.handle_recorded(count);
                    }
                    Some(NextTask::Missing) => {
                        let reason = "the task was removed from the log, and has no record";
                        ventilator.dispatcher.handle_unfit_task(reason.to_owned());
                        left -= 1;
                    }
                    None if has_read => break,
                    None => {
                        has_read = true;
                        let read =
                            reader.read(&mut logs.tasks.borrow_mut(), *submitted, READ_BYTES_MAX);
                        if let Err(error) = read {
                            return self.check.fail(|| format!("the tasks: {error}"));
                        }
                    }
                }
            }
            is_more = reader.position() < *submitted;
        }
        if reader.position() >= *before {
            ventilator.dispatcher.handle_caught_up();
        }
        if is_more {
            *is_input_due = true;
            let at = self.now + self.plan.input_gap_us;
            self.queue.push(at, Event::Input);
        }
        self.drive(Process::Ventilator);
    }

    /// The workers that may hold tasks are others.
    pub(crate) fn note_workers(&mut self) {
        let Some(serve) = &mut self.serve else { return };
        if let Some(workers) = self.sink.collector.poll_workers() {
            let (life, takes) = (serve.life, serve.rng.u64(100..20_000));
            self.queue.push(self.now + takes, Event::Queue(Turn::Noted(life, workers)));
        }
    }
}

fn take_in(dispatcher: &mut Dispatcher, task: StoredTask) {
    let TaskOptions { retries, timeout, .. } = task.options;
    let payload = task.payload.into();
    match (retries, timeout) {
        (None, None) => dispatcher.handle_task(payload),
        _ => dispatcher.handle_task_with(payload, TaskLimits { retries, timeout }),
    }
}

/// Returns a time since 1970, of a world whose clock is right.
pub(super) fn since_1970(now: Instant) -> Duration {
    Duration::from_secs(1_700_000_000) + Duration::from_micros(now)
}
