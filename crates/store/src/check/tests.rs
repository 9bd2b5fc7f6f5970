use std::collections::BTreeMap as Map;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use tradewind_proto::message::Status;
use tradewind_proto::{Seq, SeqRange};

use super::*;
use crate::disk::Disk;
use crate::{
    Change, Control, ControlOptions, Keep, Log, LogOptions, RecordLog, RecordOptions, Tasks,
    TasksOptions,
};

const LOG: LogOptions = LogOptions { segment_bytes: 400, zeroed_bytes: 100 };

type Files = Map<u64, Vec<u8>>;

fn media(files: &[Files; 5]) -> QueueMedia<Disk> {
    let [tasks, keys, records, index, control] = files.each_ref().map(Disk::of);
    QueueMedia { tasks, keys, records, index, control }
}

fn files(media: &QueueMedia<Disk>) -> [Files; 5] {
    let QueueMedia { tasks, keys, records, index, control } = media;
    [tasks, keys, records, index, control].map(Disk::bytes)
}

const PARTS: [Part; 5] = [Part::Tasks, Part::Keys, Part::Records, Part::Index, Part::Control];

/// A queue with thirty tasks, of which the first twenty have records.
fn queue() -> QueueMedia<Disk> {
    let media = media(&Default::default());
    let options = TasksOptions { log: LOG, keys: LOG, keys_max: 100 };
    let (tasks, keys) = (media.tasks.clone(), media.keys.clone());
    let (mut tasks, _) = Tasks::open(tasks, keys, 7, options, 0).unwrap();
    let options = RecordOptions { log: LOG, index_seqs: 16 };
    let (records, index) = (media.records.clone(), media.index.clone());
    let (mut records, _) = RecordLog::open(records, index, 8, options).unwrap();
    for at in 0..30_u64 {
        let key = Some(Bytes::from(format!("key-{at}")));
        let payload = Bytes::from(format!("payload {at}"));
        tasks.submit(crate::StoredTask { key, payload, ..Default::default() }).unwrap();
        tasks.commit().unwrap();
        if at < 20 {
            records.append(Duration::ZERO, Seq(at), Status::Ok, b"a record").unwrap();
            records.commit().unwrap();
        }
    }
    let record_of = |task| records.position_of(Seq(task));
    assert!(tasks.remove_unneeded(|range| range.end > 20, record_of).unwrap() > 0);
    let options = ControlOptions { log: LOG, changes_bytes_min: 300 };
    let (mut control, _) = Control::open(media.control.clone(), 9, options).unwrap();
    for at in 0..30 {
        let tasks = SeqRange { start: Seq(at), end: Seq(at + 1) };
        for change in [Change::Consumer("mail".into(), Some(at)), Change::Cancel(tasks)] {
            control.apply(change).unwrap();
            control.commit().unwrap();
        }
    }
    media
}

#[test]
fn a_queue_that_is_well_has_no_faults() {
    let media = queue();
    let before = files(&media);
    let Report { tasks, keys, records, control, faults, unmade } = check(media.clone());
    assert_eq!((faults, unmade), (Vec::new(), BTreeSet::new()));
    assert!(tasks.ranges.len() == 1 && tasks.ranges[0].end == 30 && tasks.segments > 1);
    assert_eq!((keys.entries, tasks.entries), (tasks.ranges[0].start, 30 - tasks.ranges[0].start));
    assert_eq!(records.entries, 20 + records.segments as u64);
    assert!(control.entries > 0 && tasks.torn_bytes == 0 && tasks.bytes > 400);
    assert_eq!(files(&media), before, "nothing is changed");
    let nothing = check(self::media(&Default::default()));
    assert_eq!(nothing, Report::default());
}

#[test]
fn any_byte_that_is_flipped_or_cut_off_is_named_unless_it_looks_torn() {
    let whole = files(&queue());
    for (part, name) in PARTS.into_iter().enumerate() {
        let last = *whole[part].keys().next_back().unwrap();
        for (&file, bytes) in &whole[part] {
            let cuts = (0..bytes.len()).step_by(3).map(|len| (len, None));
            let flips = (0..bytes.len()).map(|at| (at, Some(1 << (at % 8))));
            for (at, bit) in cuts.chain(flips) {
                let mut hurt = whole.clone();
                let hurt_file = hurt[part].get_mut(&file).unwrap();
                match bit {
                    Some(bit) => hurt_file[at] ^= bit,
                    None => hurt_file.truncate(at),
                }
                let what = format!("{}/{file} at {at}, {bit:?}", name.as_str());
                let media = media(&hurt);
                let report = check(media.clone());
                assert_eq!(files(&media), hurt, "{what}: nothing is changed");
                for fault in &report.faults {
                    let is_there = fault.part == name && fault.file.is_none_or(|it| it == file);
                    // A record whose task looks torn, and the like, is named in its own place.
                    assert!(is_there, "{what}: {fault}");
                }
                let torn = [&report.tasks, &report.keys, &report.records, &report.control];
                let torn = torn.iter().any(|survey| survey.torn_bytes > 0);
                let is_named = !report.faults.is_empty() || (torn && file == last);
                // Padding, zeros that were written ahead, and what of the index is not in use.
                let is_spare = bit.is_none() || name == Part::Index || is_zero_at(bytes, at);
                assert!(is_named || is_spare, "{what}");
            }
        }
    }
}

/// Returns whether a byte is a zero behind the end of a batch: no one reads it.
fn is_zero_at(bytes: &[u8], at: usize) -> bool {
    bytes[at] == 0
}

#[test]
fn what_is_amiss_is_said_in_words_and_what_follows_is_looked_at() {
    let mut hurt = files(&queue());
    let first = *hurt[0].keys().next().unwrap();
    let second_batch =
        hurt[0][&first][64..].windows(4).skip(1).position(|it| it == b"TWB1").unwrap();
    hurt[0].get_mut(&first).unwrap()[64 + 40] ^= 1;
    let entries = check(queue()).tasks.entries;
    let Report { tasks, faults, .. } = check(media(&hurt));
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].to_string(), format!("tasks/{first:08}, byte 64: the body of a batch"));
    assert_eq!((tasks.entries, second_batch > 0), (entries - 1, true));
    // Without the tasks, there is nothing that the records are of.
    let mut hurt = files(&queue());
    hurt[0].clear();
    assert_eq!(check(media(&hurt)).faults, []);
    let mut hurt = files(&queue());
    hurt[3].get_mut(&0).unwrap()[64..80].fill(0);
    let faults = check(media(&hurt)).faults;
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].to_string(), "index/00000000, byte 64: no place for the record of task 0");
}

#[test]
fn an_index_that_the_next_start_makes_again_is_no_fault() {
    let unmade = |media: &QueueMedia<Disk>| {
        let Report { faults, unmade, .. } = check(media.clone());
        assert_eq!(faults, []);
        unmade
    };
    let mut files = files(&queue());
    files[3].remove(&0);
    let media = media(&files);
    assert_eq!(unmade(&media), BTreeSet::from([0]));
    let options = RecordOptions { log: LOG, index_seqs: 16 };
    let open = || RecordLog::open(media.records.clone(), media.index.clone(), 8, options);
    // A start that dies while it is made.
    media.index.limit(Some(40));
    assert!(open().is_err());
    assert_eq!(unmade(&media), BTreeSet::from([0]));
    media.index.limit(None);
    assert!(open().is_ok());
    assert_eq!(unmade(&media), BTreeSet::new());
}

/// Makes logs of entries of which some bytes were changed, in batches that are right.
fn garbled(whole: &QueueMedia<Disk>, rng: &mut Rng) -> QueueMedia<Disk> {
    let QueueMedia { tasks, keys, records, index, control } = whole;
    let mut garble = |disk: &Disk, kind| {
        let (mut log, _) = Log::open(disk.clone(), kind, 7, LOG).unwrap();
        let entries = log.read(0, usize::MAX).unwrap();
        let garbled = Disk::default();
        let one = LogOptions { segment_bytes: u64::MAX, ..LOG };
        let (mut log, _) = Log::open(garbled.clone(), kind, log.id(), one).unwrap();
        for (_, entry) in entries {
            let mut entry = entry.to_vec();
            let changes = if rng.u8(0..40) == 0 { rng.u8(1..4) } else { 0 };
            for _ in 0..changes {
                let (at, byte) = (rng.usize(0..entry.len()), rng.u8(..));
                entry[at] = if rng.bool() { byte } else { 0xff };
            }
            if rng.u8(0..80) == 0 {
                entry.truncate(rng.usize(0..entry.len()));
            }
            log.append(7, |bytes| bytes.extend_from_slice(&entry)).unwrap();
            if rng.u8(0..3) > 0 {
                log.commit().unwrap();
            }
        }
        log.commit().unwrap();
        // What a broken checkpoint makes of the index takes no more room than this.
        garbled.limit(Some(4096));
        garbled
    };
    let tasks = garble(tasks, Kind::Tasks);
    let keys = garble(keys, Kind::Keys);
    let records = garble(records, Kind::Records);
    let control = garble(control, Kind::Control);
    let index = Disk::of(&index.bytes());
    index.limit(Some(4096));
    QueueMedia { tasks, keys, records, index, control }
}

#[test]
fn whatever_an_entry_says_nothing_panics() {
    let whole = queue();
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..400 {
        let mut rng = Rng::with_seed(seed);
        let media = garbled(&whole, &mut rng);
        check(media.clone());
        let QueueMedia { tasks, keys, records, index, control } = media;
        let mut count = |is_open| if is_open { opened += 1 } else { refused += 1 };
        let options = TasksOptions { log: LOG, keys: LOG, keys_max: 100 };
        let tasks = Tasks::open(tasks, keys, 7, options, 0);
        count(tasks.is_ok());
        if let Ok((mut tasks, _)) = tasks {
            for at in 0..30 {
                let key = format!("key-{at}");
                let _ = tasks.find(key.as_bytes());
                let key = Some(Bytes::from(key));
                let _ = tasks.submit(crate::StoredTask { key, ..Default::default() });
            }
            let _ = tasks.commit();
            let _ = tasks.remove_unneeded(|_| false, |task| Ok(Some(task)));
            let _ = tasks.forget_below(rng.u64(0..100));
        }
        let records =
            RecordLog::open(records, index, 8, RecordOptions { log: LOG, index_seqs: 16 });
        count(records.is_ok());
        if let Ok((mut records, _)) = records {
            for at in 0..30 {
                let _ = records.get(Seq(at));
                let _ = records.append(Duration::ZERO, Seq(at), Status::Ok, b"more");
            }
            let _ = records.read(0, 1000);
            let _ = records.commit();
            let _ = records.remove_old(Keep::Bytes(rng.u64(0..2000)), Duration::MAX);
        }
        let options = ControlOptions { log: LOG, changes_bytes_min: 300 };
        let control = Control::open(control, 9, options);
        count(control.is_ok());
        if let Ok((mut control, _)) = control {
            let _ = control.apply(Change::Pause(true));
            let _ = control.commit();
        }
    }
    assert!(opened > 100 && refused > 100, "{opened} opened, {refused} refused");
}
