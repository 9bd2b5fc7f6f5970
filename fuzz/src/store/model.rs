//! What the logs have promised, beside the logs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tradewind_proto::message::Status;
use tradewind_proto::{Seq, SeqSet};
use tradewind_store::{
    Change, Control, Keep, RecordLog, StoredTask, SubmitError, Submitted, Tasks, check,
};

use super::disk::{Disk, Part};
use super::{CONTROL, ID, RECORDS, TASKS, text};

/// What is open, until the process dies.
struct Logs {
    tasks: RefCell<Tasks<Part>>,
    records: RefCell<RecordLog<Part>>,
    control: Control<Part>,
    failed: RefCell<SeqSet>,
}

/// What was said about the queue.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Said {
    paused: bool,
    consumers: BTreeMap<Box<str>, u64>,
    settings: BTreeMap<Box<str>, Bytes>,
}

/// What was promised, and what may be there without a promise: all of a batch, or nothing.
#[derive(Default)]
pub(super) struct Model {
    tasks: Vec<StoredTask>,
    tasks_waiting: Vec<StoredTask>,
    records: BTreeMap<u64, Bytes>,
    records_waiting: BTreeMap<u64, Bytes>,
    said: Said,
    said_waiting: Said,
    /// Whether records, and keys with them, may have been removed.
    is_trimmed: bool,
    now: u64,
}

impl Model {
    /// Does what the data says, on an empty disk.
    pub(super) fn play(seed: u8, mut data: &[u8]) {
        let disk = Disk::new(u64::from(seed), false, true);
        let mut model = Self::default();
        let mut logs = model.open(&disk);
        while !data.is_empty() {
            let (kind, number) = (super::super::byte(&mut data), super::super::byte(&mut data));
            let done = model.step(&mut logs, kind % 12, number, &disk);
            if disk.is_dead() || kind % 12 == 7 {
                disk.crash(number & 1 != 0);
                logs = model.open(&disk);
            } else {
                done.unwrap_or_else(|error| panic!("on a whole disk: {error}"));
            }
        }
    }

    /// Does one thing.
    fn step(&mut self, logs: &mut Logs, kind: u8, number: u8, disk: &Disk) -> Result<(), String> {
        self.now += 1;
        match kind {
            0..=2 => self.submit(logs, kind, number),
            3 => {
                logs.tasks.get_mut().commit().map_err(words)?;
                self.tasks.append(&mut self.tasks_waiting);
                Ok(())
            }
            4 => {
                logs.tasks.get_mut().discard();
                self.tasks_waiting.clear();
                Ok(())
            }
            5 => self.append(logs, number),
            6 => {
                logs.records.get_mut().commit().map_err(words)?;
                self.records.append(&mut self.records_waiting);
                Ok(())
            }
            7 => Ok(()),
            8 => {
                disk.set_fuse(Some(u64::from(number % 64)));
                Ok(())
            }
            9 => self.trim(logs, number),
            10 => {
                logs.control.commit().map_err(words)?;
                self.said = self.said_waiting.clone();
                Ok(())
            }
            _ => self.say(logs, number),
        }
    }

    fn submit(&mut self, logs: &mut Logs, count: u8, number: u8) -> Result<(), String> {
        let task = |at: u8| {
            let number = number.wrapping_add(at * 3);
            let key = (number & 1 != 0).then(|| Bytes::from(vec![b'k', number % 16]));
            StoredTask { key, payload: text(number / 16), ..StoredTask::default() }
        };
        let tasks: Vec<StoredTask> = (0..=count).map(task).collect();
        let submitted = match logs.tasks.get_mut().submit_all(tasks.clone()) {
            Ok(submitted) => submitted,
            Err(error) => {
                return match error.error {
                    SubmitError::OtherTask { position } => {
                        let (task, other) = (&tasks[error.place], self.task(position));
                        // It may be one of the same request.
                        let is_other = |other: &StoredTask| other.key == task.key && other != task;
                        assert!(other.is_none_or(is_other), "{task:?} is {other:?}");
                        Ok(())
                    }
                    SubmitError::KeysFull { .. } => Ok(()),
                    error => Err(error.to_string()),
                };
            }
        };
        assert_eq!(submitted.len(), tasks.len());
        for (task, submitted) in tasks.into_iter().zip(submitted) {
            match submitted {
                Submitted::New(position) => {
                    let mut all = self.tasks.iter().chain(&self.tasks_waiting);
                    let is_known = task.key.is_some() && all.any(|other| other.key == task.key);
                    assert!(!is_known || self.is_trimmed, "a key was forgotten: {task:?}");
                    let next = self.tasks.len() + self.tasks_waiting.len();
                    assert_eq!(position, next as u64);
                    self.tasks_waiting.push(task);
                }
                Submitted::Known(position) => {
                    assert_eq!(self.task(position), Some(&task), "another task for a key");
                }
            }
        }
        Ok(())
    }

    /// Returns a task that was submitted, promised or not.
    fn task(&self, position: u64) -> Option<&StoredTask> {
        self.tasks.iter().chain(&self.tasks_waiting).nth(position as usize)
    }

    fn append(&mut self, logs: &mut Logs, number: u8) -> Result<(), String> {
        let Some(seq) = usize::from(number).checked_rem(self.tasks.len()) else { return Ok(()) };
        let (seq, record) = (seq as u64, text(number));
        let status = if number % 5 == 0 { Status::Failed } else { Status::Ok };
        let now = Duration::from_secs(self.now);
        let is_new = logs.records.get_mut().append(now, Seq(seq), status, &record);
        let was_there = self.records.contains_key(&seq) || self.records_waiting.contains_key(&seq);
        assert_eq!(is_new.map_err(words)?, !was_there, "each task has one record");
        if !was_there {
            self.records_waiting.insert(seq, record);
        }
        Ok(())
    }

    fn trim(&mut self, logs: &mut Logs, number: u8) -> Result<(), String> {
        self.is_trimmed = true;
        let keep = Keep::Bytes(u64::from(number) * 16);
        let now = Duration::from_secs(self.now);
        // It may begin a segment, which commits nothing that waits.
        logs.records.get_mut().remove_old(keep, now).map_err(words)?;
        let Logs { tasks, records, failed, .. } = logs;
        let trimmed = tasks.get_mut().trim(|| records.borrow_mut(), || failed.borrow_mut(), false);
        trimmed.map_err(words)
    }

    fn say(&mut self, logs: &mut Logs, number: u8) -> Result<(), String> {
        let name: Box<str> = format!("name-{}", number % 8).into();
        let value = (number & 8 != 0).then_some(u64::from(number));
        let said = &mut self.said_waiting;
        let change = match number % 3 {
            0 => {
                said.paused = number & 8 != 0;
                Change::Pause(said.paused)
            }
            1 => {
                match value {
                    Some(position) => said.consumers.insert(name.clone(), position),
                    None => said.consumers.remove(&name),
                };
                Change::Consumer(name, value)
            }
            _ => {
                let value = value.map(|_| text(number));
                match &value {
                    Some(value) => said.settings.insert(name.clone(), value.clone()),
                    None => said.settings.remove(&name),
                };
                Change::Setting(name, value)
            }
        };
        logs.control.apply(change).map_err(words)
    }

    /// Opens the logs, as a start does, and compares them with what was promised.
    fn open(&mut self, disk: &Disk) -> Logs {
        assert_eq!(check(disk.media()).faults, [], "a crash is no damage");
        let opened = || {
            let media = disk.media();
            let (records, _) = RecordLog::open(media.records, media.index, ID, RECORDS)
                .map_err(|error| format!("the records: {error}"))?;
            let first = records.first();
            let (tasks, _) = Tasks::open(media.tasks, media.keys, ID, TASKS, first)
                .map_err(|error| format!("the tasks: {error}"))?;
            let (control, _) = Control::open(media.control, ID, CONTROL)
                .map_err(|error| format!("the control log: {error}"))?;
            Ok::<_, String>((tasks, records, control))
        };
        let opened = opened().unwrap_or_else(|error| panic!("a crash is no damage: {error}"));
        let (mut tasks, mut records, control) = opened;
        assert_eq!(check(disk.media()).faults, [], "a start leaves no fault");
        self.compare_tasks(&mut tasks, &records);
        self.compare_records(&mut records);
        self.compare_said(&control);
        let failed = records.not_ok().expect("they were read just now");
        Logs {
            tasks: RefCell::new(tasks),
            records: RefCell::new(records),
            control,
            failed: RefCell::new(failed),
        }
    }

    fn compare_tasks(&mut self, tasks: &mut Tasks<Part>, records: &RecordLog<Part>) {
        let (promised, waiting) = (self.tasks.len(), self.tasks_waiting.len());
        let committed = tasks.committed() as usize;
        assert!(
            committed == promised || committed == promised + waiting,
            "{committed} tasks, where {promised} were promised and {waiting} being written"
        );
        self.tasks.append(&mut self.tasks_waiting);
        self.tasks.truncate(committed);
        for (position, task) in (0..).zip(&self.tasks) {
            match tasks.task(position).expect("a crash is no damage") {
                Some(found) => assert_eq!(found, *task, "task {position}"),
                None => assert!(
                    self.is_trimmed && records.stored().contains(Seq(position)),
                    "task {position} is gone, and has no record"
                ),
            }
        }
    }

    fn compare_records(&mut self, records: &mut RecordLog<Part>) {
        let (promised, waiting) = (self.records.len() as u64, self.records_waiting.len() as u64);
        let stored = records.stored().count();
        assert!(
            stored == promised || stored == promised + waiting,
            "{stored} records, where {promised} were promised and {waiting} being written"
        );
        if stored > promised {
            self.records.append(&mut self.records_waiting);
        }
        self.records_waiting.clear();
        for (seq, record) in &self.records {
            assert!(records.stored().contains(Seq(*seq)), "record {seq} is lost");
            match records.get(Seq(*seq)).expect("a crash is no damage") {
                Some(found) => assert_eq!(found.bytes, record, "record {seq}"),
                None => assert!(self.is_trimmed, "record {seq} is gone"),
            }
        }
    }

    fn compare_said(&mut self, control: &Control<Part>) {
        let state = control.state();
        let found = Said {
            paused: state.paused,
            consumers: state.consumers.clone(),
            settings: state.settings.clone(),
        };
        assert!(found == self.said || found == self.said_waiting, "what was said is another");
        (self.said, self.said_waiting) = (found.clone(), found);
    }
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
