use std::collections::BTreeMap as Map;

use fastrand::Rng;

use super::*;
use crate::disk::Disk;

const SMALL: TasksOptions = TasksOptions {
    log: LogOptions { segment_bytes: 400, zeroed_bytes: 100 },
    keys: LogOptions { segment_bytes: 300, zeroed_bytes: 0 },
    keys_max: 50,
};

fn open(disk: &Disk) -> Tasks<Disk> {
    Tasks::open(disk.clone(), Disk::default(), 7, SMALL, 0).unwrap().0
}

fn task(key: &str, payload: &str) -> StoredTask {
    let key = (!key.is_empty()).then(|| Bytes::copy_from_slice(key.as_bytes()));
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    StoredTask { key, payload, ..StoredTask::default() }
}

#[test]
fn the_same_key_is_the_same_task_before_and_after_a_commit_and_a_restart() {
    let disk = Disk::default();
    let mut tasks = open(&disk);
    assert_eq!(tasks.submit(task("", "x")).unwrap(), Submitted::New(0));
    assert_eq!(tasks.submit(task("", "x")).unwrap(), Submitted::New(1));
    assert_eq!(tasks.submit(task("a", "x")).unwrap(), Submitted::New(2));
    let check = |tasks: &mut Tasks<Disk>| {
        assert_eq!(tasks.submit(task("a", "x")).unwrap(), Submitted::Known(2));
        let other = tasks.submit(task("a", "y")).unwrap_err();
        assert_eq!(other.to_string(), "task 2 has the same key, and is another one");
    };
    check(&mut tasks);
    tasks.commit().unwrap();
    check(&mut tasks);
    let mut tasks = open(&disk);
    check(&mut tasks);
    assert_eq!(tasks.committed(), 3);
    assert_eq!(tasks.task(2).unwrap(), Some(task("a", "x")));
    assert_eq!(tasks.task(3).unwrap(), None);
}

#[test]
fn what_was_not_committed_leaves_no_key() {
    let disk = Disk::default();
    let mut tasks = open(&disk);
    assert_eq!(tasks.submit(task("a", "x")).unwrap(), Submitted::New(0));
    tasks.discard();
    assert_eq!(tasks.submit(task("a", "y")).unwrap(), Submitted::New(0));
    tasks.commit().unwrap();
    assert_eq!(tasks.submit(task("b", "z")).unwrap(), Submitted::New(1));
    drop(tasks);
    assert_eq!(open(&disk).submit(task("b", "other")).unwrap(), Submitted::New(1));
}

#[test]
fn keys_go_with_their_segment_and_make_room() {
    let disk = Disk::default();
    let mut tasks = open(&disk);
    for at in 0..50 {
        tasks.submit(task(&format!("key-{at}"), "payload")).unwrap();
        tasks.commit().unwrap();
    }
    let full = tasks.submit(task("more", "")).unwrap_err();
    assert_eq!(full.to_string(), "50 keys are remembered, no more fit");
    let straggler = 20;
    let before = tasks.log.segments();
    let removed = tasks.remove_unneeded(|range| range.contains(&straggler), |_| Ok(None)).unwrap();
    assert_eq!(removed, before - 2);
    for tasks in [&mut tasks, &mut open(&disk)] {
        assert_eq!(tasks.submit(task("key-20", "payload")).unwrap(), Submitted::Known(20));
        assert_eq!(tasks.submit(task("key-49", "payload")).unwrap(), Submitted::Known(49));
        assert_eq!(tasks.task(0).unwrap(), None);
        assert_eq!(tasks.submit(task("key-0", "payload")).unwrap(), Submitted::New(50));
    }
}

#[test]
fn a_key_that_is_none_is_refused() {
    let mut tasks = open(&Disk::default());
    for key in [Vec::new(), vec![b'x'; KEY_BYTES_MAX + 1]] {
        let task = StoredTask { key: Some(key.into()), ..StoredTask::default() };
        assert!(matches!(tasks.submit(task), Err(SubmitError::Key)));
    }
    let task = StoredTask { key: Some(vec![b'x'; KEY_BYTES_MAX].into()), ..task("", "") };
    assert_eq!(tasks.submit(task).unwrap(), Submitted::New(0));
}

/// Task log and key log.
#[derive(Clone, Debug, Default)]
struct Disks {
    tasks: Disk,
    keys: Disk,
}

impl Disks {
    fn open(&self, kept_from: u64) -> Result<Tasks<Disk>, SubmitError> {
        let (tasks, keys) = (self.tasks.clone(), self.keys.clone());
        Tasks::open(tasks, keys, 7, SMALL, kept_from).map(|(tasks, _)| tasks)
    }
}

/// A record's position: of this log ten more for each task.
fn record_of(task: u64) -> Result<Option<u64>, RecordError> {
    Ok(Some(task * 10))
}

/// Forty tasks with keys, of which the segments are gone but for the last.
fn gone() -> (Disks, u64) {
    let disks = Disks::default();
    let mut tasks = disks.open(0).unwrap();
    for at in 0..40 {
        tasks.submit(task(&format!("key-{at}"), "payload")).unwrap();
        tasks.commit().unwrap();
    }
    assert!(tasks.remove_unneeded(|_| false, record_of).unwrap() > 3);
    let first = tasks.log.first();
    (disks, first)
}

#[test]
fn a_key_is_known_as_long_as_its_record_is() {
    let (disks, first) = gone();
    let mut tasks = disks.open(0).unwrap();
    assert_eq!(tasks.keys.len(), 40);
    for tasks in [&mut tasks, &mut disks.open(0).unwrap()] {
        for at in 0..40 {
            assert_eq!(tasks.task(at).unwrap().is_some(), at >= first);
            let key = format!("key-{at}");
            assert_eq!(tasks.find(key.as_bytes()).unwrap(), Some(at));
            assert_eq!(tasks.submit(task(&key, "payload")).unwrap(), Submitted::Known(at));
            let other = tasks.submit(task(&key, "another")).unwrap_err();
            assert!(matches!(other, SubmitError::OtherTask { position } if position == at));
        }
        assert_eq!(tasks.find(b"key-40").unwrap(), None);
    }
    // Records below 105 go: those of tasks up to 10.
    tasks.forget_below(105).unwrap();
    assert!(tasks.kept.first() > 0 && tasks.keys.len() < 40, "a segment has gone");
    for tasks in [&mut tasks, &mut disks.open(105).unwrap()] {
        for at in 0..40 {
            let known = tasks.find(format!("key-{at}").as_bytes()).unwrap();
            assert_eq!(known, (at > 10).then_some(at), "key {at}");
        }
    }
    assert_eq!(tasks.submit(task("key-10", "another")).unwrap(), Submitted::New(40));
    tasks.commit().unwrap();
    for tasks in [&mut tasks, &mut disks.open(105).unwrap()] {
        assert_eq!(tasks.submit(task("key-10", "another")).unwrap(), Submitted::Known(40));
    }
    tasks.forget_below(u64::MAX).unwrap();
    assert_eq!(tasks.find(b"key-11").unwrap(), None);
    assert_eq!(tasks.find(b"key-39").unwrap(), Some(39), "its task is there");
}

#[test]
fn a_forgotten_key_that_is_known_again_is_that_of_its_last_task() {
    let (disks, _) = gone();
    let mut tasks = disks.open(105).unwrap();
    assert_eq!(tasks.submit(task("key-10", "payload")).unwrap(), Submitted::New(40));
    tasks.commit().unwrap();
    // A process that starts again knows all keys at first, and so does one whose records have come back.
    assert_eq!(disks.open(0).unwrap().find(b"key-10").unwrap(), Some(40));
    for _ in 0..20 {
        tasks.submit(task("", "payload")).unwrap();
        tasks.commit().unwrap();
    }
    tasks.remove_unneeded(|_| false, record_of).unwrap();
    assert_eq!(tasks.task(40).unwrap(), None);
    assert_eq!(disks.open(0).unwrap().find(b"key-10").unwrap(), Some(40));
}

#[test]
fn a_key_whose_record_is_not_kept_goes_with_its_task() {
    let disks = Disks::default();
    let mut tasks = disks.open(0).unwrap();
    for at in 0..40 {
        tasks.submit(task(&format!("key-{at}"), "payload")).unwrap();
        tasks.commit().unwrap();
    }
    tasks.forget_below(55).unwrap();
    let odd = |task| if task % 2 == 1 { record_of(task) } else { Ok(None) };
    tasks.remove_unneeded(|_| false, odd).unwrap();
    let first = tasks.log.first();
    for tasks in [&mut tasks, &mut disks.open(55).unwrap()] {
        for at in 0..40 {
            let is_known = at >= first || (at > 5 && at % 2 == 1);
            let known = tasks.find(format!("key-{at}").as_bytes()).unwrap();
            assert_eq!(known, is_known.then_some(at), "key {at}");
        }
    }
}

#[test]
fn no_segment_goes_before_its_keys_are_written_and_none_is_written_twice() {
    for room in (0..).step_by(7) {
        let disks = Disks::default();
        let mut tasks = disks.open(0).unwrap();
        for at in 0..40 {
            tasks.submit(task(&format!("key-{at}"), "payload")).unwrap();
            tasks.commit().unwrap();
        }
        disks.keys.limit(Some(room));
        let failed = tasks.remove_unneeded(|_| false, record_of).is_err();
        for tasks in [&mut tasks, &mut disks.open(0).unwrap()] {
            for at in 0..40 {
                assert_eq!(tasks.find(format!("key-{at}").as_bytes()).unwrap(), Some(at));
            }
        }
        disks.keys.limit(None);
        tasks.remove_unneeded(|_| false, record_of).unwrap();
        let written = tasks.kept.committed();
        assert_eq!((written, tasks.keys.len()), (tasks.log.first(), 40), "{room} bytes");
        assert_eq!(disks.open(0).unwrap().keys.len(), 40);
        if !failed {
            break;
        }
    }
}

#[test]
fn cut_or_flipped_anywhere_a_key_log_knows_the_key_or_names_the_place() {
    let (disks, first) = gone();
    let whole = disks.keys.bytes();
    let last = *whole.keys().next_back().unwrap();
    for (&segment, bytes) in &whole {
        let cuts = (0..bytes.len()).map(|len| (len, None));
        let flips = (0..bytes.len()).map(|at| (at, Some(1 << (at % 8))));
        for (at, bit) in cuts.chain(flips) {
            let mut hurt = whole.clone();
            let file = hurt.get_mut(&segment).unwrap();
            match bit {
                Some(bit) => file[at] ^= bit,
                None => file.truncate(at),
            }
            let what = format!("segment {segment} at {at}, {bit:?}");
            let hurt = Disks { keys: Disk::of(&hurt), ..disks.clone() };
            match hurt.open(0) {
                Ok(mut tasks) => {
                    let mut missing = 0;
                    for at in 0..first {
                        let known = tasks.find(format!("key-{at}").as_bytes()).unwrap();
                        assert!(known.is_none_or(|known| known == at), "{what}");
                        missing += u64::from(known.is_none());
                    }
                    // Keys that were written last may look torn.
                    assert!(missing == 0 || segment == last, "{what}: {missing} are missing");
                }
                Err(SubmitError::KeyLog(
                    LogError::Damaged { segment: named, .. }
                    | LogError::Version { segment: named, .. }
                    | LogError::Foreign { segment: named },
                )) => assert_eq!(named, segment, "{what}"),
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
}

#[test]
fn whatever_happens_a_key_stands_for_one_task_while_that_or_its_record_is_there() {
    for seed in 0..500 {
        let mut rng = Rng::with_seed(seed);
        let what = format!("seed {seed}");
        let disks = Disks::default();
        let mut kept_from = 0;
        let mut tasks = disks.open(kept_from).unwrap();
        // Task of each key, of those that were committed.
        let mut known: Map<u64, u64> = Map::new();
        // Tasks that may be there all the same, if the disk did not obey to the last.
        let mut refused = Vec::new();
        for _ in 0..60 {
            match rng.u8(0..10) {
                0..5 => {
                    let key = rng.u64(0..30);
                    let before = known.get(&key).copied();
                    let mut is_there = |at: &u64| tasks.task(*at).unwrap().is_some();
                    let must = before.filter(|at| at * 10 >= kept_from || is_there(at));
                    match tasks.submit(task(&format!("key-{key}"), "payload")) {
                        Ok(Submitted::Known(at)) if Some(at) == before => {}
                        Ok(Submitted::Known(at)) => {
                            assert!(refused.contains(&(key, at)), "{what}: {at} and {before:?}");
                            known.insert(key, at);
                        }
                        Ok(Submitted::New(_)) if must.is_some() => panic!("{what}: {must:?} again"),
                        Ok(Submitted::New(at)) => {
                            disks.tasks.break_sync(rng.u8(0..8) == 0);
                            match tasks.commit() {
                                Ok(()) => drop(known.insert(key, at)),
                                Err(_) => {
                                    refused.push((key, at));
                                    tasks.discard();
                                }
                            }
                            disks.tasks.break_sync(false);
                        }
                        Err(SubmitError::KeysFull { .. }) => {}
                        Err(error) => panic!("{what}: {error}"),
                    }
                }
                5..7 => {
                    disks.keys.break_sync(rng.u8(0..4) == 0);
                    let straggler = rng.u64(0..60);
                    let _ = tasks.remove_unneeded(|range| range.contains(&straggler), record_of);
                    disks.keys.break_sync(false);
                }
                7 => {
                    kept_from += rng.u64(0..60);
                    tasks.forget_below(kept_from).unwrap();
                }
                _ => {
                    drop(tasks);
                    if rng.bool() {
                        disks.tasks.crash(&mut rng);
                        disks.keys.crash(&mut rng);
                    }
                    tasks = disks.open(kept_from).unwrap_or_else(|error| panic!("{what}: {error}"));
                }
            }
        }
    }
}

#[test]
fn all_tasks_of_a_request_are_taken_or_none_whatever_else_is_in_the_batch() {
    let disk = Disk::default();
    let mut tasks = open(&disk);
    tasks.submit_all(vec![task("a", "x")]).unwrap();
    let known = tasks.submit_all(vec![task("b", "y"), task("a", "x"), task("b", "y")]).unwrap();
    assert_eq!(known, [Submitted::New(1), Submitted::Known(0), Submitted::Known(1)]);
    for others in [("a", "z"), ("b", "z"), ("c", "z")] {
        let request = vec![task("", "new"), task("c", "y"), task(others.0, others.1)];
        let refused = tasks.submit_all(request).unwrap_err();
        assert_eq!(refused.place, 2);
        let is_wanted = match others.0 {
            "a" => matches!(refused.error, SubmitError::OtherTask { position: 0 }),
            "b" => matches!(refused.error, SubmitError::OtherTask { position: 1 }),
            _ => matches!(refused.error, SubmitError::TwoTasks),
        };
        assert!(is_wanted, "{refused}");
    }
    // Of two under one key the first is known.
    let refused = tasks.submit_all(vec![task("a", "x"), task("a", "z")]).unwrap_err();
    assert!(matches!(refused.error, SubmitError::OtherTask { position: 0 }), "{refused}");
    let request = (0..49).map(|at| task(&format!("many-{at}"), "")).collect();
    let full = tasks.submit_all(request).unwrap_err();
    assert!(matches!(full.error, SubmitError::KeysFull { .. }), "{full}");
    assert_eq!(tasks.next(), 2);
    tasks.commit().unwrap();
    assert_eq!(open(&disk).find(b"c").unwrap(), None);
}

#[test]
fn a_key_is_known_for_a_time_although_its_record_has_gone() {
    use std::cell::RefCell;
    use std::time::Duration;

    use tradewind_proto::Seq;
    use tradewind_proto::message::Status;

    use crate::records::{Keep, RecordOptions};

    let small = LogOptions { segment_bytes: 300, zeroed_bytes: 0 };
    let options = RecordOptions { log: small, index_seqs: 16 };
    let log = RecordLog::open(Disk::default(), Disk::default(), 9, options).unwrap().0;
    let (records, failed) = (RefCell::new(log), RefCell::new(SeqSet::new()));
    let (disk, keys) = (Disk::default(), Disk::default());
    let mut tasks = Tasks::open(disk, keys, 7, SMALL, 0).unwrap().0;
    let name = |seq: u64| format!("key-{seq}");
    for seq in 0..40 {
        assert_eq!(tasks.submit(task(&name(seq), "x")).unwrap(), Submitted::New(seq));
        tasks.commit().unwrap();
        let mut records = records.borrow_mut();
        // One a second, with twice as much as a segment for each ten of them.
        let stored = records.append(Duration::from_secs(seq), Seq(seq), Status::Ok, &[b'x'; 60]);
        assert!(stored.unwrap());
        records.commit().unwrap();
    }
    // Only the last few records are kept; keys for twenty seconds.
    records.borrow_mut().remove_old(Keep::Bytes(400), Duration::from_secs(40)).unwrap();
    assert!(records.borrow().first() > 30);
    let since = records.borrow_mut().first_since(Duration::from_secs(20)).unwrap();
    tasks.trim_from(|| records.borrow_mut(), || failed.borrow_mut(), since).unwrap();
    assert!(tasks.first() > 20, "its segments went");
    for seq in 20..40 {
        assert_eq!(tasks.find(name(seq).as_bytes()).unwrap(), Some(seq), "key {seq}");
    }
    let later = records.borrow().committed() + 1;
    tasks.trim_from(|| records.borrow_mut(), || failed.borrow_mut(), later).unwrap();
    assert_eq!(tasks.find(name(25).as_bytes()).unwrap(), None);
}

// Fails if each look at a key reads the whole batch that its task is in.
#[test]
fn a_batch_that_is_submitted_again_is_read_a_few_times_and_not_once_for_each_task() {
    let options = TasksOptions { keys_max: 10_000, ..TasksOptions::default() };
    let disk = Disk::default();
    let mut tasks = Tasks::open(disk.clone(), Disk::default(), 7, options, 0).unwrap().0;
    let again = |tasks: &mut Tasks<Disk>| {
        for n in 0..3000 {
            let submitted = tasks.submit(task(&format!("key-{n}"), &"x".repeat(100))).unwrap();
            assert_eq!(submitted.position(), n);
        }
        tasks.commit().unwrap();
    };
    again(&mut tasks);
    let bytes = disk.bytes().values().map(Vec::len).sum::<usize>().min(3000 * 130);
    let _ = disk.take_reads();
    again(&mut tasks);
    let (_, read) = disk.take_reads();
    assert!(read < 10 * bytes, "{read} bytes were read of {bytes}");
}

#[test]
fn a_reader_passes_over_recorded_tasks_whether_they_are_there_or_not() {
    let disk = Disk::default();
    let mut tasks = open(&disk);
    for number in 0..40 {
        tasks.submit(task("", &format!("{number}"))).unwrap();
        tasks.commit().unwrap();
    }
    let recorded = |ranges: &[Range<u64>]| {
        let mut set = SeqSet::new();
        for range in ranges {
            set.insert_range(SeqRange { start: Seq(range.start), end: Seq(range.end) });
        }
        set
    };
    // Those up to 1 and from 3 to 30 have their records; of 32 it is stored after the reader began.
    let stored = recorded(&[0..2, 3..31, 32..33]);
    let is_stored = |range: &Range<u64>| {
        stored.gaps(SeqRange { start: Seq(range.start), end: Seq(range.end) }).is_empty()
    };
    assert!(tasks.remove_unneeded(|range| !is_stored(&range), |_| Ok(None)).unwrap() > 0);
    for bytes_max in [1, 10, 1000] {
        let mut reader = TaskReader::new(recorded(&[0..2, 3..31]));
        assert_eq!(reader.position(), 2);
        let mut seen = Vec::new();
        while reader.position() < tasks.committed() {
            match reader.poll_next() {
                Some(next) => seen.push((reader.position(), next)),
                None => reader.read(&mut tasks, 40, bytes_max).unwrap(),
            }
        }
        let there =
            |position: u64| (position + 1, NextTask::There(task("", &format!("{position}"))));
        let wanted =
            [there(2), (31, NextTask::Recorded(28))].into_iter().chain((31..40).map(there));
        assert!(seen.iter().eq(&wanted.collect::<Vec<_>>()), "{bytes_max}: {seen:?}");
        reader.read(&mut tasks, 40, bytes_max).unwrap();
        assert_eq!(reader.poll_next(), None, "it goes on when there is more");
        // The last tasks were lost.
        reader.read(&mut tasks, 42, bytes_max).unwrap();
        let rest = std::iter::from_fn(|| reader.poll_next());
        assert!(rest.eq([NextTask::Missing, NextTask::Missing]));
        assert_eq!(reader.position(), 42);
    }
}

#[test]
fn ten_million_recorded_tasks_are_passed_over_at_once_and_removed_ones_one_by_one() {
    let disk = Disk::default();
    let mut tasks = open(&disk);
    for _ in 0..40 {
        tasks.submit(task("", "0123456789")).unwrap();
        tasks.commit().unwrap();
    }
    let first = tasks.log.segment_ranges()[1].start;
    tasks.remove_unneeded(|range| range.start > 0, |_| Ok(None)).unwrap();
    let mut all = SeqSet::new();
    all.insert_range(SeqRange { start: Seq(0), end: Seq(10_000_000) });
    let mut reader = TaskReader::new(all.clone());
    assert_eq!((reader.position(), reader.poll_next()), (10_000_000, None));
    all.remove(Seq(0));
    let mut reader = TaskReader::new(all);
    reader.read(&mut tasks, 40, 1).unwrap();
    assert_eq!(reader.poll_next(), Some(NextTask::Missing));
    assert_eq!(reader.poll_next(), Some(NextTask::Recorded(9_999_999)));
    assert_eq!((reader.position(), reader.poll_next()), (10_000_000, None));
    let mut reader = TaskReader::new(SeqSet::new());
    reader.read(&mut tasks, 40, 1).unwrap();
    let missing =
        std::iter::from_fn(|| reader.poll_next()).take_while(|it| *it == NextTask::Missing);
    assert_eq!(missing.count() as u64, first);
}

#[test]
fn a_segment_goes_when_its_records_were_told_of_and_none_of_its_tasks_is_needed() {
    let (disk, keys) = (Disk::default(), Disk::default());
    let mut tasks = Tasks::open(disk, keys, 7, SMALL, 0).unwrap().0;
    for n in 0..40 {
        tasks.submit(task(&format!("k{n}"), "some payload of a task")).unwrap();
        tasks.commit().unwrap();
    }
    let segments = tasks.closed_segments();
    let [first, second, ..] = &segments[..] else { panic!("{segments:?}") };
    let of = |range: &Range<u64>| Told {
        is_needed: false,
        positions: range.clone().map(|seq| (seq % 2 == 0).then_some(seq + 1)).collect(),
        end: 100,
    };
    let told = of(first);
    let needed = Told { is_needed: true, ..told.clone() };
    let mut short = told.clone();
    short.positions.pop();
    for told in [&needed, &short, &Told::default()] {
        assert!(!tasks.remove_told(first, told, Remember::Kept).unwrap(), "{told:?}");
    }
    assert_eq!(tasks.closed_segments(), segments);
    assert!(tasks.remove_told(first, &told, Remember::Kept).unwrap());
    assert!(!tasks.remove_told(first, &told, Remember::Kept).unwrap(), "it is gone");
    assert_eq!(tasks.closed_segments(), segments[1..]);
    assert_eq!(tasks.find(b"k0").unwrap(), Some(0), "its record is kept");
    assert_eq!(tasks.find(b"k1").unwrap(), None, "its record is not");
    assert!(tasks.remove_told(second, &of(second), Remember::Not).unwrap());
    assert_eq!(tasks.find(format!("k{}", second.start).as_bytes()).unwrap(), None);
}
