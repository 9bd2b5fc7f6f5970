//! A short round of chaos: every role is killed a few times, each time once the job goes on again.
//! `scripts/chaos` runs long ones.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tradewind_e2e::chaos::{Format, Options, Plan, Role, Round, Work, one_by_one};
use tradewind_e2e::{PATIENCE, random};

const KILLS: usize = 3;
const RECORDS_BETWEEN: u64 = 10;

const TASKS: u64 = 400;

/// No kill finds the job at its end: the last task is left until all have been.
const HELD: u64 = 1;

/// Of each worker: more than the held task fills, even if each ventilator has sent it anew. Else what a kill has sent
/// back to the queue could wait for a slot, and the next kill for its record.
const SLOTS: u32 = 8;

#[track_caller]
fn each_of_these_is_killed(roles: &[Role], format: Format) {
    let mut random = random();
    let plan = Plan {
        seed: random.u64(..),
        work: Work::Command { ms_max: 200, failing_percent: 5 },
        tasks: TASKS,
        held: HELD,
        retries: 1,
        format,
        has_fsync: random.bool(),
        // It waits for this time at each start; tasks that are run twice have one record all the same.
        resume_wait: Duration::from_millis(200),
        workers: 2,
        slots: SLOTS,
        faults: one_by_one(&mut random, roles, KILLS, RECORDS_BETWEEN),
        has_keys: random.bool(),
    };
    eprintln!("{plan}");
    let interrupted = AtomicBool::new(false);
    let options = Options { has_namespaces: false, patience: PATIENCE, interrupted: &interrupted };
    let round = Round::new(&plan, options).expect("there is room for it");
    let dir = round.dir();
    let (tally, result) = round.run();
    let report = result.unwrap_or_else(|failure| panic!("{failure}; see {}", dir.display()));
    assert_eq!(report.verdict.records, TASKS);
    for role in Role::ALL {
        let kills = if roles.contains(&role) { KILLS as u64 } else { 0 };
        assert_eq!(tally.kills[role.index()], kills, "{role}");
    }
    assert_eq!(report.notes, [""; 0]);
}

#[test]
fn every_role_is_killed_and_each_task_has_one_record() {
    each_of_these_is_killed(&Role::ALL, Format::Jsonl);
}

#[test]
fn every_role_is_killed_and_the_records_are_in_order() {
    each_of_these_is_killed(&Role::ALL, Format::JsonlOrdered);
}

#[test]
fn every_role_is_killed_and_the_lines_are_in_order() {
    each_of_these_is_killed(&Role::ALL, Format::Lines);
}

#[test]
fn workers_are_killed_and_nobody_else_notices() {
    each_of_these_is_killed(&[Role::Worker], Format::JsonlOrdered);
}
