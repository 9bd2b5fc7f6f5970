use std::collections::BTreeMap as Map;

use fastrand::Rng;

use super::*;
use crate::disk::Disk;

const SMALL: RecordOptions =
    RecordOptions { log: LogOptions { segment_bytes: 500, zeroed_bytes: 100 }, index_seqs: 16 };

/// Log and index.
#[derive(Clone, Debug, Default)]
struct Disks {
    log: Disk,
    index: Disk,
}

impl Disks {
    fn open(&self) -> Result<RecordLog<Disk>, RecordError> {
        RecordLog::open(self.log.clone(), self.index.clone(), 7, SMALL).map(|(records, _)| records)
    }

    fn of(log: &Map<u64, Vec<u8>>, index: &Map<u64, Vec<u8>>) -> Self {
        Self { log: Disk::of(log), index: Disk::of(index) }
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn record(seq: u64) -> Vec<u8> {
    format!("record {seq} {}", "x".repeat(usize::try_from(seq % 13).unwrap())).into_bytes()
}

fn status(seq: u64) -> Status {
    if seq.is_multiple_of(5) { Status::Failed } else { Status::Ok }
}

fn append(records: &mut RecordLog<Disk>, seconds: u64, seqs: &[u64]) {
    for &seq in seqs {
        assert!(records.append(at(seconds), Seq(seq), status(seq), &record(seq)).unwrap());
    }
}

fn store(records: &mut RecordLog<Disk>, seconds: u64, seqs: &[u64]) {
    append(records, seconds, seqs);
    records.commit().unwrap();
}

/// Seqs as they may come: three of four at once, the others four batches later.
fn batches() -> Vec<Vec<u64>> {
    let late = |seq: &u64| seq.is_multiple_of(4);
    let batches = (0..14_u64).map(|batch| {
        let now = (batch * 4..batch * 4 + 4).filter(|seq| !late(seq));
        now.chain((batch >= 4).then(|| (batch - 4) * 4)).collect()
    });
    batches.collect()
}

fn filled() -> (Disks, Vec<u64>) {
    let disks = Disks::default();
    let mut records = disks.open().unwrap();
    let batches = batches();
    for (batch, seqs) in (0..).zip(&batches) {
        store(&mut records, batch, seqs);
    }
    (disks, batches.concat())
}

/// Reads all in the order of storing.
fn all(records: &mut RecordLog<Disk>) -> Result<Vec<u64>, RecordError> {
    let (mut seqs, mut from) = (Vec::new(), 0);
    loop {
        let (read, next) = records.read(from, 30)?;
        if read.is_empty() {
            return Ok(seqs);
        }
        from = next;
        for (position, it) in read {
            assert!(position < next);
            assert_eq!((it.status, &*it.bytes), (status(it.seq.0), &*record(it.seq.0)));
            seqs.push(it.seq.0);
        }
    }
}

/// Checks that each of these is found, and that nothing else is.
fn check_all(records: &mut RecordLog<Disk>, seqs: &[u64], what: &str) {
    assert_eq!(all(records).unwrap(), seqs, "{what}");
    for &seq in seqs {
        let found = records.get(Seq(seq)).unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = found.unwrap_or_else(|| panic!("{what}: no record {seq}"));
        assert_eq!((found.seq, &*found.bytes), (Seq(seq), &*record(seq)), "{what}");
    }
    let set: SeqSet = seqs.iter().copied().map(Seq).collect();
    assert_eq!(records.stored(), &set, "{what}");
    let failed = seqs.iter().filter(|seq| status(**seq) == Status::Failed).count();
    let counts = records.counts();
    assert_eq!((counts.total(), counts.failed), (set.count(), failed as u64), "{what}");
    for seq in (0..70).filter(|seq| !set.contains(Seq(*seq))) {
        assert_eq!(records.get(Seq(seq)).unwrap(), None, "{what}: record {seq}");
    }
}

#[test]
fn each_record_is_found_by_its_seq_and_in_the_order_of_storing() {
    let (disks, seqs) = filled();
    let mut records = disks.open().unwrap();
    assert!(records.log.segments() > 3 && disks.index.bytes().len() == 4);
    check_all(&mut records, &seqs, "at first");
    store(&mut records, 20, &[64, 40]);
    let seqs = [&seqs[..], &[64, 40]].concat();
    check_all(&mut records, &seqs, "with more");
    check_all(&mut disks.open().unwrap(), &seqs, "after a restart");
}

#[test]
fn the_second_record_of_a_task_is_ignored() {
    let disks = Disks::default();
    let mut records = disks.open().unwrap();
    store(&mut records, 0, &[1]);
    append(&mut records, 0, &[2]);
    for seq in [1, 2] {
        assert!(!records.append(at(0), Seq(seq), Status::Lost, b"other").unwrap());
    }
    assert_eq!(records.get(Seq(2)).unwrap(), None, "it is not committed");
    records.discard();
    check_all(&mut records, &[1], "after a discard");
    store(&mut records, 0, &[2, 3]);
    check_all(&mut records, &[1, 2, 3], "after a commit");
}

#[test]
fn a_log_is_opened_by_its_last_segment_and_a_record_takes_a_few_reads() {
    let disks = Disks::default();
    let mut records = disks.open().unwrap();
    let many = 20_000;
    for batch in 0..many / 20 {
        store(&mut records, 0, &(batch * 20..batch * 20 + 20).collect::<Vec<_>>());
    }
    let segments = records.log.segments();
    let bytes: usize = disks.log.bytes().values().map(Vec::len).sum();
    assert!(segments > 500 && bytes > 500_000);
    disks.log.take_reads();
    let mut records = disks.open().unwrap();
    let (reads, read_bytes) = disks.log.take_reads();
    assert!(reads <= 2 * segments + 8, "{reads} reads of {segments} segments");
    assert!(read_bytes < 96 * segments + 40_000, "{read_bytes} of {bytes} bytes");
    disks.index.take_reads();
    for seq in (0..many).step_by(777) {
        assert_eq!(*records.get(Seq(seq)).unwrap().unwrap().bytes, *record(seq));
        let (reads, in_index) = (disks.log.take_reads().0, disks.index.take_reads().0);
        assert!(reads <= 2 && in_index == 1, "{reads} reads, and {in_index} in the index");
    }
}

#[test]
fn cut_or_flipped_anywhere_a_log_has_what_was_committed_or_names_the_place() {
    let (disks, seqs) = filled();
    let (log, index) = (disks.log.bytes(), disks.index.bytes());
    let least = seqs.len() - batches().last().unwrap().len();
    let last = *log.keys().next_back().unwrap();
    for (&segment, bytes) in &log {
        let cuts = (0..bytes.len()).map(|len| (len, None));
        let flips = (0..bytes.len()).map(|at| (at, Some(1 << (at % 8))));
        for (at, bit) in cuts.chain(flips) {
            let mut hurt = log.clone();
            let file = hurt.get_mut(&segment).unwrap();
            match bit {
                Some(bit) => file[at] ^= bit,
                None => file.truncate(at),
            }
            let what = format!("segment {segment} at {at}, {bit:?}");
            let read = Disks::of(&hurt, &index)
                .open()
                .and_then(|mut records| Ok((all(&mut records)?, records)));
            match read {
                Ok((read, mut records)) => {
                    assert!(seqs.starts_with(&read), "{what}: {read:?}");
                    let least = if segment == last { least } else { seqs.len() };
                    assert!(read.len() >= least, "{what}: {} records", read.len());
                    check_all(&mut records, &read, &what);
                }
                Err(RecordError::Log(
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
fn cut_or_flipped_anywhere_the_index_finds_the_record_or_names_the_place() {
    let (disks, seqs) = filled();
    let (log, index) = (disks.log.bytes(), disks.index.bytes());
    for (&number, bytes) in &index {
        let cuts = (0..bytes.len()).map(|len| (len, None));
        let flips = (0..bytes.len()).map(|at| (at, Some(1 << (at % 8))));
        for (at, bit) in cuts.chain(flips) {
            let mut hurt = index.clone();
            let file = hurt.get_mut(&number).unwrap();
            match bit {
                Some(bit) => file[at] ^= bit,
                None => file.truncate(at),
            }
            let what = format!("index {number} at {at}, {bit:?}");
            let mut records = Disks::of(&log, &hurt).open().unwrap();
            for &seq in &seqs {
                match records.get(Seq(seq)) {
                    Ok(Some(found)) => assert_eq!(*found.bytes, *record(seq), "{what}"),
                    Ok(None) => panic!("{what}: record {seq} is missing"),
                    Err(RecordError::Index { file, at: named }) => {
                        assert_eq!((file, number), (seq / 16, number), "{what}");
                        assert!(bit.is_none() || named / 16 == at as u64 / 16, "{what}: {named}");
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        }
    }
}

#[test]
fn an_index_that_is_gone_is_made_again() {
    let (disks, seqs) = filled();
    let index = disks.index.bytes();
    for gone in [vec![0], vec![1, 3], vec![0, 1, 2, 3]] {
        let mut left = index.clone();
        left.retain(|number, _| !gone.contains(number));
        let disks = Disks::of(&disks.log.bytes(), &left);
        check_all(&mut disks.open().unwrap(), &seqs, &format!("without {gone:?}"));
        assert_eq!(disks.index.bytes(), index);
    }
    // What was removed before is not taken for lost.
    let mut records = disks.open().unwrap();
    let keep = records.committed() / 2;
    assert!(records.remove_old(Keep::Consumed(keep), at(0)).unwrap() > 0);
    let kept = all(&mut records).unwrap();
    let disks = Disks::of(&disks.log.bytes(), &Map::new());
    let mut records = disks.open().unwrap();
    for &seq in &seqs {
        let found = records.get(Seq(seq)).unwrap();
        assert_eq!(found.is_some(), kept.contains(&seq), "record {seq}");
    }
}

#[test]
fn a_crash_while_the_index_is_made_again_is_no_harm() {
    let (disks, seqs) = filled();
    for room in (0..1500).step_by(7) {
        let half = Disks::of(&disks.log.bytes(), &Map::new());
        half.index.limit(Some(room));
        if half.open().is_ok() {
            break;
        }
        half.index.limit(None);
        check_all(&mut half.open().unwrap(), &seqs, &format!("{room} bytes"));
    }
    for seed in 0..100 {
        let half = Disks::of(&disks.log.bytes(), &Map::new());
        half.index.break_sync(true);
        half.open().unwrap_err();
        half.index.break_sync(false);
        half.index.crash(&mut Rng::with_seed(seed));
        check_all(&mut half.open().unwrap(), &seqs, &format!("seed {seed}"));
    }
}

#[test]
fn whatever_a_crash_leaves_what_was_committed_is_there() {
    for seed in 0..1500 {
        let mut rng = Rng::with_seed(seed);
        let what = format!("seed {seed}");
        let disks = Disks::default();
        let mut stored: Vec<u64> = Vec::new();
        for _ in 0..rng.u32(1..5) {
            let mut records = disks.open().unwrap_or_else(|error| panic!("{what}: {error}"));
            check_all(&mut records, &stored, &what);
            let mut fresh: Vec<u64> = (0..60).filter(|seq| !stored.contains(seq)).collect();
            rng.shuffle(&mut fresh);
            let mut batch = Vec::new();
            for _ in 0..rng.u32(0..6) {
                batch = fresh.drain(..rng.usize(0..=fresh.len().min(5))).collect();
                append(&mut records, 0, &batch);
                if rng.u8(0..4) == 0 {
                    disks.index.break_sync(true);
                }
                if records.commit().is_err() {
                    break;
                }
                stored.append(&mut batch);
            }
            disks.index.break_sync(false);
            // A batch whose sync never ended.
            disks.log.break_sync(true);
            if batch.is_empty() {
                batch = fresh.drain(..rng.usize(0..=fresh.len().min(5))).collect();
                append(&mut records, 0, &batch);
            }
            let _ = records.commit();
            disks.log.break_sync(false);
            drop(records);
            disks.log.crash(&mut rng);
            disks.index.crash(&mut rng);
            let mut records = disks.open().unwrap_or_else(|error| panic!("{what}: {error}"));
            // All of the unfinished batch, or nothing.
            if !batch.is_empty() && records.stored().contains(Seq(batch[0])) {
                stored.append(&mut batch);
            }
            check_all(&mut records, &stored, &what);
        }
    }
}

#[test]
fn full_disks_lose_nothing_and_what_waits_can_be_committed_later() {
    for (room, is_log) in (0..1800).step_by(7).flat_map(|room| [(room, true), (room, false)]) {
        let disks = Disks::default();
        let what = format!("{room} bytes, log: {is_log}");
        let mut records = disks.open().unwrap();
        let full = if is_log { &disks.log } else { &disks.index };
        full.limit(Some(room));
        let mut stored = Vec::new();
        for seqs in batches() {
            append(&mut records, 0, &seqs);
            if records.commit().is_err() {
                check_all(&mut records, &stored, &what);
                let again = Disks::of(&disks.log.bytes(), &disks.index.bytes());
                check_all(&mut again.open().unwrap(), &stored, &what);
                full.limit(None);
                records.commit().unwrap();
            }
            stored.extend(seqs);
        }
        check_all(&mut records, &stored, &what);
        check_all(&mut disks.open().unwrap(), &stored, &what);
    }
}

/// Checks that what was removed stays known, and that the rest is found.
fn check_kept(records: &mut RecordLog<Disk>, seqs: &[u64]) -> usize {
    let kept = all(records).unwrap();
    assert!(seqs.ends_with(&kept));
    assert_eq!(records.stored(), &seqs.iter().copied().map(Seq).collect());
    assert_eq!(records.counts().total(), seqs.len() as u64);
    for &seq in seqs {
        assert_eq!(records.get(Seq(seq)).unwrap().is_some(), kept.contains(&seq), "record {seq}");
        assert!(!records.append(at(0), Seq(seq), Status::Ok, b"again").unwrap());
    }
    kept.len()
}

#[test]
fn records_are_kept_for_their_time() {
    let (disks, seqs) = filled();
    let mut records = disks.open().unwrap();
    let keep = Keep::Time(at(100));
    assert_eq!(records.remove_old(keep, at(13)).unwrap(), 0);
    let mut before = seqs.len();
    for now in 100..113 {
        records.remove_old(keep, at(now)).unwrap();
        let kept = check_kept(&mut records, &seqs);
        // Batch number n came at n seconds: those of the last hundred are there.
        let least = batches().iter().skip(usize::try_from(now - 100).unwrap()).flatten().count();
        assert!((least..=before).contains(&kept), "{kept} at {now}");
        before = kept;
        assert_eq!(check_kept(&mut disks.open().unwrap(), &seqs), kept);
    }
    assert!(before < 25, "{before} are left");
    // The last segment was closed when it was old, and has gone 100 s after.
    assert!(records.remove_old(keep, at(205)).unwrap() >= 1);
    assert_eq!((check_kept(&mut records, &seqs), records.log.segments()), (0, 1));
    assert_eq!(records.remove_old(keep, at(10_000)).unwrap(), 0, "only a checkpoint is left");
    assert_eq!(check_kept(&mut disks.open().unwrap(), &seqs), 0);
    // Files of the index have gone whose seqs are all stored.
    let full: Vec<u64> =
        (0..4).filter(|file| (file * 16..file * 16 + 16).any(|s| !seqs.contains(&s))).collect();
    assert_eq!(disks.index.bytes().keys().copied().collect::<Vec<_>>(), full);
    store(&mut records, 10_001, &[40, 70]);
    assert_eq!(all(&mut disks.open().unwrap()).unwrap(), [40, 70]);
}

#[test]
fn records_are_kept_within_their_bytes() {
    let (disks, seqs) = filled();
    let mut records = disks.open().unwrap();
    let bytes = records.file_bytes();
    assert_eq!(records.remove_old(Keep::Bytes(2 * bytes), at(20)).unwrap(), 0);
    for keep in [bytes / 2, bytes / 4, 0] {
        records.remove_old(Keep::Bytes(keep), at(20)).unwrap();
        let kept = check_kept(&mut records, &seqs);
        assert!(kept == 0 || records.file_bytes() <= keep);
        assert_eq!(check_kept(&mut disks.open().unwrap(), &seqs), kept);
    }
    assert_eq!(check_kept(&mut records, &seqs), 0);
}

#[test]
fn records_are_kept_until_they_are_consumed() {
    let (disks, seqs) = filled();
    let mut records = disks.open().unwrap();
    let mut next = 0;
    loop {
        let read;
        (read, next) = records.read(next, 100).unwrap();
        let Some((_, last)) = read.last() else { break };
        records.remove_old(Keep::Consumed(next), at(0)).unwrap();
        let kept = check_kept(&mut records, &seqs);
        let consumed = seqs.iter().position(|seq| *seq == last.seq.0).unwrap() + 1;
        assert!(kept >= seqs.len() - consumed, "{kept} of {consumed}");
    }
    assert_eq!(records.log.segments(), 1);
    assert!(records.first() <= next && records.committed() == next);
}

#[test]
fn nothing_goes_before_the_next_checkpoint_is_there() {
    let disks = Disks::default();
    let mut records = disks.open().unwrap();
    store(&mut records, 0, &[0, 1, 2]);
    disks.log.break_sync(true);
    let keep = Keep::Bytes(0);
    records.remove_old(keep, at(0)).unwrap_err();
    disks.log.break_sync(false);
    check_all(&mut records, &[0, 1, 2], "after an error");
    append(&mut records, 0, &[3]);
    assert_eq!(records.remove_old(keep, at(0)).unwrap(), 0, "a batch waits");
    records.commit().unwrap();
    // A segment was begun, and that was all.
    records.log.close_segment().unwrap();
    let mut bytes = disks.log.bytes();
    let number = records.committed();
    let header = crate::format::Header { id: 7, first: number }.encode(Kind::Records);
    bytes.insert(number, header.to_vec());
    let disks = Disks::of(&bytes, &disks.index.bytes());
    let mut records = disks.open().unwrap();
    append(&mut records, 0, &[4]);
    assert_eq!(records.remove_old(keep, at(0)).unwrap(), 0, "the segment has no checkpoint yet");
    records.discard();
    assert!(records.remove_old(keep, at(0)).unwrap() > 0);
    assert_eq!(check_kept(&mut disks.open().unwrap(), &[0, 1, 2, 3]), 0);
}

#[test]
fn a_log_whose_checkpoint_is_gone_is_refused() {
    let (disks, _) = filled();
    let mut records = disks.open().unwrap();
    records.remove_old(Keep::Bytes(0), at(0)).unwrap();
    let mut bytes = disks.log.bytes();
    let (&segment, file) = bytes.iter_mut().next().unwrap();
    file[usize::try_from(HEADER_BYTES).unwrap()] ^= 1;
    let error = Disks::of(&bytes, &disks.index.bytes()).open().unwrap_err();
    let wanted = format!("segment {segment} of the record log does not begin with a checkpoint");
    assert_eq!(error.to_string(), wanted);
}

#[test]
fn records_that_could_not_be_stored_wait_for_the_next_commit() {
    let disks = Disks::default();
    let mut records = disks.open().unwrap();
    let mut batches = RecordBatches::default();
    let mut noted = Vec::new();
    let add = |batches: &mut RecordBatches, seq: u64| {
        batches.add(Seq(seq), status(seq), |line| line.extend_from_slice(&record(seq)));
    };
    [3, 5].into_iter().for_each(|seq| add(&mut batches, seq));
    disks.log.limit(Some(0));
    let now = || at(0);
    batches.commit(&mut records, now, |_, stored| noted.extend_from_slice(stored)).unwrap_err();
    assert!(noted.is_empty() && !batches.is_empty());
    disks.log.limit(None);
    add(&mut batches, 4);
    batches.commit(&mut records, now, |_, stored| noted.extend_from_slice(stored)).unwrap();
    assert!(batches.is_empty());
    assert_eq!(noted, [3, 5, 4].map(|seq| (Seq(seq), status(seq))));
    for seq in 3..6 {
        assert_eq!(records.get(Seq(seq)).unwrap().unwrap().bytes, record(seq));
    }
}
