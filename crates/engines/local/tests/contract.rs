//! The local log passes the contract of engines.

use std::path::PathBuf;
use std::sync::Mutex;

use tempfile::TempDir;
use tradewind_engine::contract::{Fault, Stage};
use tradewind_engine::{Engine, EngineError, Epoch};
use tradewind_engine_local::Local;
use tradewind_records::Directory;
use tradewind_store::{LogOptions, RecordLog, RecordOptions, Tasks, TasksOptions};

const NO_LEASES: &str = "there are no leases: one process has the log, by a lock on its directory";
const NO_SERVER: &str = "there is no server and no connection: a call is a call of this process";

tradewind_engine::contract!(
    Disk::begin,
    &[
        ("partitions_are_apart", "there is one partition"),
        (
            "a_call_with_the_same_id_is_the_same_tasks",
            "no call is unsure but by a broken disk, and a submitter that dies has to have named its tasks by keys"
        ),
        ("a_gap_is_passed_over", "nobody removes single tasks from a segment"),
        ("an_old_epoch_is_refused", NO_LEASES),
        ("a_new_epoch_counts_before_its_first_record", NO_LEASES),
        ("a_lease_is_taken_over_when_it_is_not_renewed", NO_LEASES),
        ("a_lease_that_was_taken_is_not_renewed", NO_LEASES),
        ("who_has_leases_is_told", NO_LEASES),
        ("a_lost_answer_to_a_submit_doubles_nothing", NO_SERVER),
        ("a_lost_answer_to_a_commit_doubles_nothing", NO_SERVER),
        ("slow_answers_are_waited_for", NO_SERVER),
        ("an_engine_that_is_away_is_waited_for", NO_SERVER),
        ("wrong_credentials_are_refused", NO_SERVER),
        ("settings_that_lose_tasks_are_refused", "nobody else makes its files"),
        (
            "a_task_too_large_is_refused_and_the_next_is_not",
            "its bound is a GiB, and a program that submits has a lower one"
        ),
    ]
);

/// A queue's logs in a directory, which one process has at a time.
struct Disk {
    dir: TempDir,
    open: Mutex<Option<Local<Directory>>>,
}

impl Disk {
    fn begin(_name: &str) -> Self {
        let dir = tempfile::tempdir().expect("there is room for a directory");
        Self { dir, open: Mutex::default() }
    }

    fn part(&self, name: &str) -> Directory {
        Directory::new(PathBuf::from(self.dir.path()).join(name))
    }
}

impl Stage for Disk {
    fn open(&self) -> Result<Box<dyn Engine>, EngineError> {
        let mut open = self.open.lock().expect("nobody panicked");
        let local = open.get_or_insert_with(|| {
            for part in ["tasks", "keys", "records", "index"] {
                std::fs::create_dir_all(self.dir.path().join(part)).expect("it is made");
            }
            // So small that there are segments to remove.
            let log = LogOptions { segment_bytes: 1024, zeroed_bytes: 1024 };
            let options = TasksOptions { log, keys: log, ..TasksOptions::default() };
            let tasks = Tasks::open(self.part("tasks"), self.part("keys"), 7, options, 0);
            let options = RecordOptions { log, ..RecordOptions::default() };
            let records = RecordLog::open(self.part("records"), self.part("index"), 7, options);
            Local::new(tasks.expect("it opens").0, records.expect("it opens").0)
        });
        Ok(Box::new(local.clone()))
    }

    fn fault(&self, fault: Fault) {
        match fault {
            // What is open stays in memory, and nothing of it is written any more.
            Fault::Kill => *self.open.lock().expect("nobody panicked") = None,
            Fault::Start => {}
            _ => unreachable!("the cases with {fault:?} do not apply"),
        }
    }

    fn remove_task(&self, _position: u64) {
        unreachable!("the case does not apply")
    }

    fn open_wrongly(&self) -> EngineError {
        unreachable!("the case does not apply")
    }

    fn open_lossy(&self) -> Vec<(String, Option<EngineError>)> {
        unreachable!("the case does not apply")
    }

    fn too_large(&self) -> usize {
        unreachable!("the case does not apply")
    }

    fn next_epoch(&self, _engine: &dyn Engine, _partition: u32) -> Epoch {
        Epoch(1)
    }
}
