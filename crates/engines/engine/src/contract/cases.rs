//! The cases.

#![allow(missing_docs, reason = "the names say what each case is")]

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tradewind_proto::message::Status;
use tradewind_proto::{Seq, SeqSet};
use tradewind_store::{StoredTask, Submitted, TaskOptions};

use super::{Fault, LONG, Stage};
use crate::{
    Committed, Engine, EngineError, Epoch, Leases, NewRecord, RecordLog, SubmitId, TaskLog,
};

/// Time after which a case fails that waits for something.
const PATIENCE: Duration = Duration::from_secs(120);

/// Time between two calls that are to end well one day.
const PAUSE: Duration = Duration::from_millis(20);

const NO_WAIT: Duration = Duration::ZERO;

/// Bytes of a read that holds all of a case.
const ALL: usize = 64 << 20;

fn open(stage: &dyn Stage) -> Box<dyn Engine> {
    again(|| stage.open())
}

fn tasks(engine: &dyn Engine) -> Box<dyn TaskLog> {
    again(|| engine.tasks(0))
}

fn records(engine: &dyn Engine) -> Box<dyn RecordLog> {
    again(|| engine.records(0))
}

/// Makes a call again as long as its error says so.
fn again<T>(mut call: impl FnMut() -> Result<T, EngineError>) -> T {
    let began = Instant::now();
    loop {
        match call() {
            Ok(answer) => return answer,
            Err(error) if error.is_passing() && began.elapsed() < PATIENCE => thread::sleep(PAUSE),
            Err(error) => panic!("after {:?}: {error}", began.elapsed()),
        }
    }
}

fn refused<T>(answer: Result<T, EngineError>) -> EngineError {
    answer.map(drop).expect_err("it is refused")
}

fn plain(payload: impl Into<Vec<u8>>) -> StoredTask {
    StoredTask { payload: Bytes::from(payload.into()), ..StoredTask::default() }
}

fn keyed(key: &str, payload: &str) -> StoredTask {
    StoredTask { key: Some(key.to_owned().into()), ..plain(payload) }
}

fn numbered(range: std::ops::Range<u64>) -> Vec<StoredTask> {
    range.map(|number| plain(number.to_string())).collect()
}

/// Ids of calls, of which the number is the case's own.
fn id(number: u64) -> SubmitId {
    SubmitId(u128::from(number) << 64 | 0x7761_7665)
}

fn submit(log: &mut dyn TaskLog, number: u64, tasks: &[StoredTask]) -> Vec<u64> {
    again(|| log.submit(id(number), tasks)).into_iter().map(Submitted::position).collect()
}

/// Reads a log from a position to its end.
fn read_all(log: &mut dyn TaskLog, from: u64, bytes_max: usize) -> Vec<(u64, StoredTask)> {
    let (mut all, mut next) = (Vec::<(u64, StoredTask)>::new(), from);
    loop {
        let page = again(|| log.read(next, bytes_max, NO_WAIT));
        let Some((last, _)) = page.last() else { return all };
        assert!(page[0].0 >= next, "task {} is before {next}", page[0].0);
        assert!(page.windows(2).all(|pair| pair[0].0 < pair[1].0), "it ascends");
        next = last + 1;
        all.extend(page);
    }
}

fn payloads(tasks: &[(u64, StoredTask)]) -> Vec<Bytes> {
    tasks.iter().map(|(_, task)| task.payload.clone()).collect()
}

fn record(seq: u64, line: &str) -> NewRecord {
    NewRecord { seq: Seq(seq), status: Status::Ok, line: format!("{line}\n").into() }
}

fn commit(log: &mut dyn RecordLog, epoch: Epoch, records: &[NewRecord]) -> Vec<Committed> {
    again(|| log.commit(epoch, records))
}

fn seqs(range: impl IntoIterator<Item = u64>) -> SeqSet {
    range.into_iter().map(Seq).collect()
}

/// Reads all records: their tasks, in the order in which they were stored.
fn recorded(log: &mut dyn RecordLog) -> Vec<u64> {
    let (mut all, mut next) = (Vec::new(), 0);
    loop {
        let page = again(|| log.read(next, 4096, NO_WAIT));
        let Some((last, _)) = page.last() else { return all };
        next = last + 1;
        all.extend(page.iter().map(|(_, record)| record.seq.0));
    }
}

fn line_of(log: &mut dyn RecordLog, seq: u64) -> Option<Bytes> {
    again(|| log.get(Seq(seq))).map(|(_, record)| record.bytes)
}

pub fn tasks_are_read_in_order_across_reads(stage: &dyn Stage) {
    let engine = open(stage);
    let mut log = tasks(&*engine);
    let wanted = numbered(0..3000);
    for (number, chunk) in wanted.chunks(700).enumerate() {
        let positions = submit(&mut *log, number as u64, chunk);
        assert!(positions.windows(2).all(|pair| pair[0] < pair[1]), "they ascend");
    }
    let read = read_all(&mut *log, 0, 2000);
    let wanted: Vec<_> = wanted.into_iter().map(|task| task.payload).collect();
    assert_eq!(payloads(&read), wanted);
    let (first, end) = (again(|| log.first()), again(|| log.end()));
    assert!(first <= read[0].0 && end > read[2999].0, "{first} {end}");
    // From the middle, and by another process.
    let from = read[1500].0;
    let mut other = tasks(&*open(stage));
    assert_eq!(read_all(&mut *other, from, ALL), read[1500..]);
}

pub fn nothing_is_done_for_empty_calls(stage: &dyn Stage) {
    let engine = open(stage);
    let epoch = stage.next_epoch(&*engine, 0);
    let (mut log, mut out) = (tasks(&*engine), records(&*engine));
    assert_eq!(again(|| log.submit(id(1), &[])), []);
    assert_eq!(again(|| log.read(0, ALL, NO_WAIT)), []);
    assert_eq!(again(|| log.first()), again(|| log.end()));
    assert_eq!(commit(&mut *out, epoch, &[]), []);
    assert_eq!(again(|| out.stored()), SeqSet::new());
    assert_eq!(again(|| out.read(0, ALL, NO_WAIT)), []);
    assert_eq!(again(|| out.get(Seq(0))), None);
}

pub fn binary_payloads_keys_and_options_read_back(stage: &dyn Stage) {
    let engine = open(stage);
    let (mut log, mut out) = (tasks(&*engine), records(&*engine));
    let every: Vec<u8> = (0..=255).collect();
    let options = TaskOptions {
        retries: Some(300),
        timeout: Some(Duration::from_micros(1_500_001)),
        retry_of: Some(1 << 40),
    };
    let wanted = vec![
        plain(every.clone()),
        plain(""),
        StoredTask { options: options.clone(), ..plain("options") },
        StoredTask { key: Some(every.clone().into()), options, ..plain("a key") },
        StoredTask { key: Some(vec![b'.'; 512].into()), ..plain("a long key") },
        keyed("> * . \r\n", "a strange key"),
    ];
    let positions = submit(&mut *log, 1, &wanted);
    let wanted: Vec<_> = positions.into_iter().zip(wanted).collect();
    assert_eq!(read_all(&mut *log, 0, ALL), wanted);
    for key in [vec![], vec![b'k'; 513]] {
        let task = StoredTask { key: Some(key.into()), ..plain("no key") };
        let error = refused(log.submit(id(2), &[plain("x"), task]));
        assert_eq!(error, EngineError::Key { place: 1 });
    }
    assert_eq!(read_all(&mut *log, 0, ALL), wanted, "nothing of such a call is added");
    let epoch = stage.next_epoch(&*engine, 0);
    let of = |(seq, status)| NewRecord { seq: Seq(seq), status, line: every.clone().into() };
    let wanted: Vec<_> = (0..).zip(Status::ALL).map(of).collect();
    commit(&mut *out, epoch, &wanted);
    for record in wanted {
        let (position, stored) = again(|| out.get(record.seq)).expect("it is there");
        assert_eq!(again(|| out.read(position, ALL, NO_WAIT))[0], (position, stored.clone()));
        assert_eq!(
            (stored.seq, stored.status, stored.bytes),
            (record.seq, record.status, record.line)
        );
    }
}

pub fn a_read_waits_for_a_task_and_no_longer(stage: &dyn Stage) {
    let engine = open(stage);
    let mut log = tasks(&*engine);
    let wait = Duration::from_millis(300);
    let began = Instant::now();
    assert_eq!(again(|| log.read(0, ALL, wait)), []);
    assert!(began.elapsed() >= wait, "it waited for {:?}", began.elapsed());
    let mut other = tasks(&*open(stage));
    let waiting = thread::spawn(move || again(|| log.read(0, ALL, PATIENCE)));
    // Whether it reads before or after this, it has the task.
    submit(&mut *other, 1, &[plain("at last")]);
    assert_eq!(payloads(&waiting.join().expect("it reads")), ["at last"]);
}

pub fn two_readers_read_the_same(stage: &dyn Stage) {
    let engine = open(stage);
    let (mut one, mut other) = (tasks(&*engine), tasks(&*open(stage)));
    submit(&mut *one, 1, &numbered(0..200));
    let (mut read, mut next) = ([Vec::new(), Vec::new()], [0, 0]);
    while read.iter().any(|read| read.len() < 200) {
        for (place, log) in [&mut one, &mut other].into_iter().enumerate() {
            let page = again(|| log.read(next[place], 100 * (place + 1), NO_WAIT));
            if let Some((last, _)) = page.last() {
                next[place] = last + 1;
            }
            read[place].extend(page);
        }
    }
    assert_eq!(read[0], read[1]);
    assert_eq!(read[0].len(), 200);
}

pub fn tasks_of_many_submitters_have_positions_of_their_own(stage: &dyn Stage) {
    let engine = open(stage);
    let submitters = (0..4_u64).map(|submitter| {
        let mut log = tasks(&*open(stage));
        thread::spawn(move || {
            let mut positions = Vec::new();
            for call in 0..10 {
                let first = submitter * 1000 + call * 10;
                positions.extend(submit(&mut *log, first, &numbered(first..first + 10)));
            }
            (submitter, positions)
        })
    });
    let submitters: Vec<_> = submitters.collect();
    let mut wanted = BTreeSet::new();
    for submitter in submitters {
        let (submitter, positions) = submitter.join().expect("it submits");
        let payload = |number: usize| Bytes::from((submitter * 1000 + number as u64).to_string());
        wanted.extend(positions.into_iter().zip((0..100).map(payload)));
    }
    let read = read_all(&mut *tasks(&*engine), 0, ALL);
    let read: Vec<_> = read.into_iter().map(|(position, task)| (position, task.payload)).collect();
    assert_eq!(read, wanted.into_iter().collect::<Vec<_>>());
    assert_eq!(read.len(), 400);
}

pub fn a_reader_beside_submitters_passes_over_none(stage: &dyn Stage) {
    let submitters: Vec<_> = (0..3_u64)
        .map(|submitter| {
            let mut log = tasks(&*open(stage));
            thread::spawn(move || {
                for call in 0..40 {
                    let first = submitter * 1000 + call * 5;
                    submit(&mut *log, first, &numbered(first..first + 5));
                }
            })
        })
        .collect();
    let mut log = tasks(&*open(stage));
    let (mut seen, mut next) = (BTreeSet::new(), 0);
    while seen.len() < 600 {
        let page = again(|| log.read(next, 300, PATIENCE));
        assert!(!page.is_empty(), "{} of 600 tasks came", seen.len());
        for (position, task) in page {
            assert!(position >= next, "it ascends");
            next = position + 1;
            assert!(seen.insert(task.payload), "each comes once");
        }
    }
    submitters.into_iter().for_each(|it| it.join().expect("it submits"));
    assert_eq!(again(|| log.read(next, ALL, NO_WAIT)), []);
}

pub fn partitions_are_apart(stage: &dyn Stage) {
    let engine = open(stage);
    let mut logs = [0, 1].map(|partition| again(|| engine.tasks(partition)));
    let mut outs = [0, 1].map(|partition| again(|| engine.records(partition)));
    for (place, log) in logs.iter_mut().enumerate() {
        submit(&mut **log, place as u64, &[keyed("same", &place.to_string())]);
    }
    let epochs = [0, 1].map(|partition| stage.next_epoch(&*engine, partition));
    for (place, out) in outs.iter_mut().enumerate() {
        let answers = commit(&mut **out, epochs[place], &[record(0, &place.to_string())]);
        assert_eq!(answers, [Committed::New]);
    }
    for place in [0, 1] {
        let name = place.to_string();
        assert_eq!(payloads(&read_all(&mut *logs[place], 0, ALL)), [&name[..]]);
        assert_eq!(line_of(&mut *outs[place], 0), Some(format!("{name}\n").into()));
    }
}

pub fn a_key_twice_is_one_task(stage: &dyn Stage) {
    let engine = open(stage);
    let mut log = tasks(&*engine);
    let (a, b) = (keyed("a", "1"), keyed("b", "2"));
    let call = [a.clone(), b.clone(), a];
    let first = again(|| log.submit(id(1), &call));
    let position = first[0].position();
    assert_eq!(first[0], Submitted::New(position));
    assert_eq!(first[2], Submitted::Known(position));
    let other = [plain("x"), b];
    let second = again(|| tasks(&*open(stage)).submit(id(2), &other));
    assert_eq!(second[1], Submitted::Known(first[1].position()));
    assert_eq!(payloads(&read_all(&mut *log, 0, ALL)), ["1", "2", "x"]);
}

pub fn a_key_of_another_task_is_refused(stage: &dyn Stage) {
    let engine = open(stage);
    let mut log = tasks(&*engine);
    let position = submit(&mut *log, 1, &[keyed("a", "1")])[0];
    let error = refused(log.submit(id(2), &[keyed("b", "2"), keyed("a", "other")]));
    assert_eq!(error, EngineError::OtherTask { place: 1, position });
    let options = TaskOptions { retries: Some(1), ..TaskOptions::default() };
    let error = refused(log.submit(id(3), &[StoredTask { options, ..keyed("a", "1") }]));
    assert_eq!(error, EngineError::OtherTask { place: 0, position });
    let read = read_all(&mut *log, 0, ALL);
    assert_eq!(read.iter().filter(|(_, task)| task.key.as_deref() == Some(b"a")).count(), 1);
}

pub fn a_call_with_the_same_id_is_the_same_tasks(stage: &dyn Stage) {
    let engine = open(stage);
    let mut log = tasks(&*engine);
    let call = [plain("same"), plain("same"), keyed("k", "same")];
    let first = submit(&mut *log, 1, &call);
    let twice = submit(&mut *tasks(&*open(stage)), 1, &call);
    assert_eq!(first, twice);
    let other = submit(&mut *log, 2, &call);
    assert_eq!(other[2], first[2], "the key is known");
    assert!(other[0] != first[0] && other[1] != first[1], "they are others");
    assert_eq!(read_all(&mut *log, 0, ALL).len(), 5);
}

pub fn a_trim_twice_is_one(stage: &dyn Stage) {
    let engine = open(stage);
    let epoch = stage.next_epoch(&*engine, 0);
    let (mut log, mut out) = (tasks(&*engine), records(&*engine));
    let positions = submit(&mut *log, 1, &numbered(0..100));
    let settled: Vec<_> = positions[..60].iter().map(|seq| record(*seq, "r")).collect();
    commit(&mut *out, epoch, &settled);
    let low = positions[60];
    for _ in 0..2 {
        again(|| log.trim(epoch, low, low));
        let read = read_all(&mut *log, 0, 500);
        let kept: Vec<_> = read.iter().filter(|(at, _)| *at >= low).collect();
        assert_eq!(kept.len(), 40, "nothing from the mark on is removed");
        assert!(again(|| log.first()) <= low);
        assert!(again(|| log.end()) > positions[99]);
    }
    // A lower one takes nothing back, and what is submitted next is above all.
    again(|| log.trim(epoch, positions[10], positions[10]));
    let next = submit(&mut *log, 2, &[plain("next")])[0];
    assert!(next > positions[99], "{next}");
    again(|| log.trim(epoch, next + 1, next + 1));
    assert!(again(|| log.end()) > next, "also where all is trimmed");
    let last = submit(&mut *tasks(&*open(stage)), 3, &[plain("last")])[0];
    assert!(last > next, "{last}");
}

pub fn a_trimmed_task_is_known_by_its_key(stage: &dyn Stage) {
    let engine = open(stage);
    let epoch = stage.next_epoch(&*engine, 0);
    let mut log = tasks(&*engine);
    let call = [keyed("old", "1"), plain("2"), keyed("kept", "3"), plain("4"), plain("5")];
    let positions = submit(&mut *log, 1, &call);
    again(|| log.trim(epoch, positions[4], positions[2]));
    let again_kept = again(|| tasks(&*open(stage)).submit(id(2), &[keyed("kept", "3")]));
    assert_eq!(again_kept, [Submitted::Known(positions[2])]);
    let error = refused(log.submit(id(3), &[keyed("kept", "other")]));
    assert_eq!(error, EngineError::OtherTask { place: 0, position: positions[2] });
    // Of this one the engine may know, or it is a new one.
    let old = again(|| log.submit(id(4), &[keyed("old", "1")]))[0];
    assert!(
        old == Submitted::Known(positions[0])
            || matches!(old, Submitted::New(position) if position > positions[4]),
        "{old:?}"
    );
    let read = read_all(&mut *log, positions[4], ALL);
    assert_eq!(read[0].1, plain("5"));
}

pub fn a_gap_is_passed_over(stage: &dyn Stage) {
    let engine = open(stage);
    let mut log = tasks(&*engine);
    let positions = submit(&mut *log, 1, &numbered(0..10));
    for place in [0, 4, 5, 9] {
        stage.remove_task(positions[place]);
    }
    let wanted = ["1", "2", "3", "6", "7", "8"];
    assert_eq!(payloads(&read_all(&mut *log, 0, ALL)), wanted);
    let page = again(|| log.read(positions[4], 1, NO_WAIT));
    assert_eq!(page[0].0, positions[6], "the position says what is missing");
    assert_eq!(again(|| log.read(positions[9], ALL, NO_WAIT)), []);
    let next = submit(&mut *log, 2, &[plain("next")])[0];
    assert!(next > positions[9], "a position is not given twice");
    assert_eq!(payloads(&read_all(&mut *log, positions[8], ALL)), ["8", "next"]);
}

pub fn a_record_is_stored_once(stage: &dyn Stage) {
    let engine = open(stage);
    let epoch = stage.next_epoch(&*engine, 0);
    let mut out = records(&*engine);
    let first = [record(3, "a"), record(0, "b"), record(3, "c")];
    assert_eq!(
        commit(&mut *out, epoch, &first),
        [Committed::New, Committed::New, Committed::Known]
    );
    let second = [record(0, "other"), record(1, "d")];
    assert_eq!(commit(&mut *out, epoch, &second), [Committed::Known, Committed::New]);
    // Also by the next owner, and by a log that was opened before its first record.
    let next = stage.next_epoch(&*engine, 0);
    let mut other = records(&*open(stage));
    let all: Vec<_> = (0..4).map(|seq| record(seq, "e")).collect();
    let answers = commit(&mut *other, next, &all);
    assert_eq!(answers, [Committed::Known, Committed::Known, Committed::New, Committed::Known]);
    assert_eq!(recorded(&mut *out), [3, 0, 1, 2]);
    for (seq, line) in [(0, "b\n"), (1, "d\n"), (2, "e\n"), (3, "a\n")] {
        assert_eq!(line_of(&mut *out, seq).as_deref(), Some(line.as_bytes()));
    }
    assert_eq!(again(|| records(&*engine).stored()), seqs(0..4));
}

pub fn records_are_read_by_position_and_followed(stage: &dyn Stage) {
    let engine = open(stage);
    let epoch = stage.next_epoch(&*engine, 0);
    let (mut out, mut reader) = (records(&*engine), records(&*open(stage)));
    let all: Vec<_> = (0..500).rev().map(|seq| record(seq, "line")).collect();
    commit(&mut *out, epoch, &all);
    assert_eq!(recorded(&mut *reader), (0..500).rev().collect::<Vec<_>>());
    let page = again(|| reader.read(0, ALL, NO_WAIT));
    let (position, last) = page.last().expect("there are some");
    assert_eq!(last.seq, Seq(0));
    let from = position + 1;
    let wait = Duration::from_millis(200);
    assert_eq!(again(|| reader.read(from, ALL, wait)), []);
    let waiting = thread::spawn(move || again(|| reader.read(from, ALL, PATIENCE)));
    commit(&mut *out, epoch, &[record(500, "new")]);
    let followed = waiting.join().expect("it reads");
    assert_eq!(followed[0].1.seq, Seq(500));
    assert!(followed[0].0 >= from);
}

pub fn a_removed_record_stays_stored(stage: &dyn Stage) {
    let engine = open(stage);
    let epoch = stage.next_epoch(&*engine, 0);
    let mut out = records(&*engine);
    let all: Vec<_> = (0..50).map(|seq| record(seq, "first")).collect();
    commit(&mut *out, epoch, &all);
    let page = again(|| out.read(0, ALL, NO_WAIT));
    again(|| out.remove_below(epoch, page[40].0));
    again(|| out.remove_below(epoch, page[40].0));
    for mut out in [out, records(&*open(stage))] {
        assert_eq!(again(|| out.stored()), seqs(0..50));
        let doubles: Vec<_> = (0..50).map(|seq| record(seq, "double")).collect();
        assert_eq!(commit(&mut *out, epoch, &doubles), [Committed::Known; 50]);
        for seq in 0..50 {
            let line = line_of(&mut *out, seq);
            let is_right = line.as_deref() == Some(b"first\n") || line.is_none() && seq < 40;
            assert!(is_right, "{seq}: {line:?}");
        }
    }
    let mut out = records(&*open(stage));
    assert!(recorded(&mut *out).ends_with(&(40..50).collect::<Vec<_>>()));
    assert_eq!(commit(&mut *out, epoch, &[record(50, "next")]), [Committed::New]);
}

pub fn a_checkpoint_is_gone_on_from(stage: &dyn Stage) {
    let engine = open(stage);
    let epoch = stage.next_epoch(&*engine, 0);
    let mut out = records(&*engine);
    let even: Vec<_> = (0..100).map(|seq| record(seq * 2, "even")).collect();
    commit(&mut *out, epoch, &even);
    again(|| out.checkpoint(epoch));
    commit(&mut *out, epoch, &[record(1, "odd")]);
    let wanted: SeqSet = (0..100).map(|seq| Seq(seq * 2)).chain([Seq(1)]).collect();
    assert_eq!(again(|| records(&*open(stage)).stored()), wanted);
    again(|| out.checkpoint(epoch));
    again(|| out.checkpoint(epoch));
    let next = stage.next_epoch(&*engine, 0);
    let mut other = records(&*open(stage));
    assert_eq!(again(|| other.stored()), wanted);
    assert_eq!(
        commit(&mut *other, next, &[record(1, "x"), record(3, "x")]),
        [Committed::Known, Committed::New]
    );
    assert_eq!(again(|| other.stored()).count(), 102);
    assert_eq!(recorded(&mut *other).len(), 102, "what is no record is not read as one");
}

/// Asserts that an epoch may write nothing.
fn assert_fenced(log: &mut dyn TaskLog, out: &mut dyn RecordLog, epoch: Epoch, by: Epoch) {
    let fenced = EngineError::Fenced { epoch, by: Some(by) };
    let call = [record(0, "late"), record(77, "late")];
    let answers = [
        refused(out.commit(epoch, &call)),
        refused(out.checkpoint(epoch)),
        refused(out.remove_below(epoch, 1)),
        refused(log.trim(epoch, 1, 1)),
        refused(out.commit(epoch, &call)),
    ];
    for error in answers {
        assert_eq!(error, fenced);
    }
}

pub fn an_old_epoch_is_refused(stage: &dyn Stage) {
    let engine = open(stage);
    let old = stage.next_epoch(&*engine, 0);
    let (mut log, mut out) = (tasks(&*engine), records(&*engine));
    submit(&mut *log, 1, &numbered(0..5));
    commit(&mut *out, old, &[record(0, "first")]);
    let new = stage.next_epoch(&*engine, 0);
    assert!(new > old, "epochs ascend");
    let other = open(stage);
    let mut owner = records(&*other);
    assert_eq!(commit(&mut *owner, new, &[record(1, "second")]), [Committed::New]);
    assert_fenced(&mut *log, &mut *out, old, new);
    // Also one that was opened since.
    assert_fenced(&mut *tasks(&*other), &mut *records(&*other), old, new);
    assert_eq!(commit(&mut *owner, new, &[record(2, "third")]), [Committed::New]);
    assert_eq!(again(|| records(&*other).stored()), seqs(0..3));
    assert_eq!(recorded(&mut *owner), [0, 1, 2]);
    assert_eq!(read_all(&mut *log, 0, ALL).len(), 5);
}

pub fn a_new_epoch_counts_before_its_first_record(stage: &dyn Stage) {
    let engine = open(stage);
    let old = stage.next_epoch(&*engine, 0);
    let (mut log, mut out) = (tasks(&*engine), records(&*engine));
    submit(&mut *log, 1, &numbered(0..5));
    commit(&mut *out, old, &[record(0, "first")]);
    let new = stage.next_epoch(&*engine, 0);
    // The new owner has said who it is, and reads what is stored: from here on that may not change under it.
    let mut owner = records(&*open(stage));
    commit(&mut *owner, new, &[]);
    let stored = again(|| owner.stored());
    assert_fenced(&mut *log, &mut *out, old, new);
    assert_eq!(again(|| owner.stored()), stored);
}

pub fn a_lease_is_taken_over_when_it_is_not_renewed(stage: &dyn Stage) {
    let engine = open(stage);
    let (mut one, mut other) = (leases(&*engine), leases(&*open(stage)));
    let time = Duration::from_millis(1500);
    let began = Instant::now();
    let first = again(|| one.take(0, "one", time)).expect("nobody has it");
    assert_eq!(again(|| other.take(0, "other", time)), None);
    let elsewhere = again(|| other.take(1, "other", time));
    assert!(elsewhere.is_some(), "another partition's is another");
    // Renewed for longer than its time, it is not taken.
    let mut renewed = Instant::now();
    while began.elapsed() < time * 2 {
        let renewing = Instant::now();
        again(|| one.renew(0, first, time));
        let before = renewed;
        renewed = renewing;
        let taken = again(|| other.take(0, "other", time));
        // On a machine that stood still meanwhile, it is right to take it.
        assert!(taken.is_none() || before.elapsed() >= time, "it was renewed");
        if taken.is_some() {
            return;
        }
        thread::sleep(PAUSE);
    }
    let second = loop {
        if let Some(epoch) = again(|| other.take(0, "other", time)) {
            break epoch;
        }
        assert!(renewed.elapsed() < PATIENCE, "it is taken in the end");
        thread::sleep(PAUSE);
    };
    assert!(renewed.elapsed() >= time, "after {:?}", renewed.elapsed());
    assert!(second > first, "{second:?} {first:?}");
}

fn leases(engine: &dyn Engine) -> Box<dyn Leases> {
    again(|| engine.leases())
}

pub fn a_lease_that_was_taken_is_not_renewed(stage: &dyn Stage) {
    let engine = open(stage);
    let (mut one, mut other) = (leases(&*engine), leases(&*open(stage)));
    let first = again(|| one.take(0, "one", LONG)).expect("nobody has it");
    again(|| one.renew(0, first, LONG));
    again(|| one.release(0, first));
    let error = refused(one.renew(0, first, LONG));
    assert_eq!(error, EngineError::Fenced { epoch: first, by: None });
    let second = again(|| other.take(0, "other", LONG)).expect("it was released");
    assert!(second > first);
    let error = refused(one.renew(0, first, LONG));
    assert_eq!(error, EngineError::Fenced { epoch: first, by: Some(second) });
    again(|| one.release(0, first));
    assert_eq!(again(|| one.take(0, "one", LONG)), None, "an old epoch releases nothing");
    again(|| other.renew(0, second, LONG));
}

pub fn who_has_leases_is_told(stage: &dyn Stage) {
    let engine = open(stage);
    let (mut one, mut other) = (leases(&*engine), leases(&*open(stage)));
    assert!(again(|| one.holders()).is_empty());
    let first = again(|| one.take(3, "one", LONG)).expect("nobody has it");
    // A lease that stands for something else than a partition.
    again(|| other.take(u32::MAX, "an other", LONG)).expect("nobody has it");
    let wanted = [(3, "one".to_owned()), (u32::MAX, "an other".to_owned())];
    for leases in [&mut one, &mut other] {
        assert_eq!(again(|| leases.holders()), wanted.clone().into());
    }
    again(|| one.release(3, first));
    assert_eq!(again(|| other.holders()), wanted[1..].iter().cloned().collect());
}

pub fn a_lost_answer_to_a_submit_doubles_nothing(stage: &dyn Stage) {
    let engine = open(stage);
    let mut log = tasks(&*engine);
    let call = [plain("one"), keyed("k", "two"), plain("three")];
    submit(&mut *log, 1, &[plain("before")]);
    stage.fault(Fault::DropAnswers);
    let error = refused(log.submit(id(2), &call));
    assert!(error.is_passing(), "{error}");
    stage.fault(Fault::Mend);
    let positions = submit(&mut *log, 2, &call);
    let read = read_all(&mut *log, 0, ALL);
    assert_eq!(payloads(&read), ["before", "one", "two", "three"]);
    assert_eq!(read[1..].iter().map(|(position, _)| *position).collect::<Vec<_>>(), positions);
}

pub fn a_lost_answer_to_a_commit_doubles_nothing(stage: &dyn Stage) {
    let engine = open(stage);
    let epoch = stage.next_epoch(&*engine, 0);
    let mut out = records(&*engine);
    commit(&mut *out, epoch, &[record(0, "before")]);
    let call: Vec<_> = (0..20).map(|seq| record(seq, "line")).collect();
    stage.fault(Fault::DropAnswers);
    let error = refused(out.commit(epoch, &call));
    assert!(error.is_passing(), "{error}");
    stage.fault(Fault::Mend);
    commit(&mut *out, epoch, &call);
    assert_eq!(commit(&mut *out, epoch, &call), [Committed::Known; 20]);
    assert_eq!(recorded(&mut *out), (0..20).collect::<Vec<_>>());
    assert_eq!(line_of(&mut *out, 0).as_deref(), Some(&b"before\n"[..]));
}

pub fn slow_answers_are_waited_for(stage: &dyn Stage) {
    let engine = open(stage);
    let epoch = stage.next_epoch(&*engine, 0);
    let (mut log, mut out) = (tasks(&*engine), records(&*engine));
    stage.fault(Fault::Slow(Duration::from_millis(100)));
    let positions = submit(&mut *log, 1, &numbered(0..50));
    let read = read_all(&mut *log, 0, ALL);
    assert_eq!(read.iter().map(|(position, _)| *position).collect::<Vec<_>>(), positions);
    let all: Vec<_> = positions.iter().map(|seq| record(*seq, "slow")).collect();
    commit(&mut *out, epoch, &all);
    again(|| out.checkpoint(epoch));
    again(|| log.trim(epoch, positions[49], positions[49]));
    stage.fault(Fault::Mend);
    assert_eq!(recorded(&mut *out), positions);
}

pub fn an_engine_that_is_away_is_waited_for(stage: &dyn Stage) {
    let engine = open(stage);
    let epoch = stage.next_epoch(&*engine, 0);
    let (mut log, mut out) = (tasks(&*engine), records(&*engine));
    submit(&mut *log, 1, &numbered(0..10));
    commit(&mut *out, epoch, &[record(0, "before")]);
    stage.fault(Fault::Kill);
    let errors = [
        refused(log.submit(id(2), &[plain("x")])),
        refused(log.read(0, ALL, NO_WAIT)),
        refused(out.commit(epoch, &[record(1, "x")])),
        refused(out.stored()),
        refused(stage.open().and_then(|engine| engine.tasks(0).map(drop))),
    ];
    for error in errors {
        assert!(error.is_passing(), "{error}");
    }
    let waiting = thread::spawn(move || {
        submit(&mut *log, 2, &[plain("x")]);
        log
    });
    stage.fault(Fault::Start);
    let mut log = waiting.join().expect("it goes on");
    commit(&mut *out, epoch, &[record(1, "after")]);
    let mut wanted: Vec<_> = (0..10).map(|number: u64| Bytes::from(number.to_string())).collect();
    wanted.push("x".into());
    assert_eq!(payloads(&read_all(&mut *log, 0, ALL)), wanted);
    assert_eq!(recorded(&mut *out), [0, 1]);
}

pub fn a_killed_engine_has_all_that_it_said_yes_to(stage: &dyn Stage) {
    let engine = open(stage);
    let epoch = stage.next_epoch(&*engine, 0);
    let (mut log, mut out) = (tasks(&*engine), records(&*engine));
    let mut positions = Vec::new();
    for round in 0..3_u64 {
        positions.extend(submit(&mut *log, round, &numbered(round * 100..round * 100 + 100)));
        let settled = &positions[positions.len() - 100..positions.len() - 50];
        let settled: Vec<_> = settled.iter().map(|seq| record(*seq, "line")).collect();
        commit(&mut *out, epoch, &settled);
        stage.fault(Fault::Kill);
        stage.fault(Fault::Start);
        // As new processes would, and with the handles of the first.
        let reopened = open(stage);
        let read = read_all(&mut *tasks(&*reopened), 0, ALL);
        assert_eq!(read.iter().map(|(position, _)| *position).collect::<Vec<_>>(), positions);
        let stored = again(|| records(&*reopened).stored());
        assert_eq!(stored.count(), (round + 1) * 50);
        (log, out) = (tasks(&*reopened), records(&*reopened));
    }
    let call: Vec<_> = positions.iter().map(|seq| record(*seq, "line")).collect();
    let answers = commit(&mut *out, epoch, &call);
    assert_eq!(answers.iter().filter(|it| **it == Committed::New).count(), 150);
    assert_eq!(recorded(&mut *out).len(), 300);
}

pub fn wrong_credentials_are_refused(stage: &dyn Stage) {
    let error = stage.open_wrongly();
    assert!(matches!(error, EngineError::Refused(_)), "{error:?}");
}

pub fn settings_that_lose_tasks_are_refused(stage: &dyn Stage) {
    let cases = stage.open_lossy();
    assert!(!cases.is_empty(), "an engine has such settings, or the case does not apply");
    for (setting, error) in cases {
        match error {
            Some(EngineError::Refused(why)) => {
                assert!(why.contains(&setting), "{setting} is named: {why}");
            }
            other => panic!("{setting}: {other:?}"),
        }
    }
}

pub fn a_task_too_large_is_refused_and_the_next_is_not(stage: &dyn Stage) {
    let engine = open(stage);
    let epoch = stage.next_epoch(&*engine, 0);
    let (mut log, mut out) = (tasks(&*engine), records(&*engine));
    let large = vec![b'x'; stage.too_large()];
    let error = refused(log.submit(id(1), &[plain("small"), plain(large.clone())]));
    assert!(matches!(error, EngineError::TooLarge { place: 1, .. }), "{error:?}");
    let line = NewRecord { seq: Seq(1), status: Status::Ok, line: large.into() };
    let error = refused(out.commit(epoch, &[record(0, "small"), line]));
    assert!(matches!(error, EngineError::TooLarge { place: 1, .. }), "{error:?}");
    assert_eq!(again(|| out.read(0, ALL, NO_WAIT)), [], "nothing of such a call is stored");
    // Half of what is too large is not, and a read for fewer bytes has it.
    let half = vec![b'y'; stage.too_large() / 4];
    submit(&mut *log, 2, &[plain(half.clone())]);
    let read = read_all(&mut *log, 0, 1);
    assert_eq!(payloads(&read), [half]);
    assert_eq!(commit(&mut *out, epoch, &[record(0, "small")]), [Committed::New]);
}
