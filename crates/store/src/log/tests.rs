use std::collections::BTreeMap as Map;
use std::io::ErrorKind;

use fastrand::Rng;

use super::*;
use crate::disk::Disk;
use crate::format::HEAD_MAGIC;

const SMALL: LogOptions = LogOptions { segment_bytes: 400, zeroed_bytes: 100 };
const ID: u64 = 0x1234_5678_9abc_def0;

fn open(disk: &Disk) -> Result<(Log<Disk>, Found), LogError> {
    Log::open(disk.clone(), Kind::Tasks, ID, SMALL)
}

/// Entries of different lengths, with what might be taken for the head of a batch in some.
fn entry(position: u64) -> Vec<u8> {
    let len = usize::try_from(position * 7 % 23).unwrap();
    let mut entry = vec![u8::try_from(position % 251).unwrap(); len];
    if position.is_multiple_of(3) {
        entry.extend_from_slice(HEAD_MAGIC);
        entry.extend_from_slice(
            &Head { body_bytes: 8, first: 9, count: 1, body_crc: 0, marks: 0 }.encode(0),
        );
    }
    entry
}

/// Of one entry in ten.
fn mark(position: u64) -> u32 {
    u32::from(position.is_multiple_of(10)) << 3
}

fn append(log: &mut Log<Disk>, count: u64) {
    for _ in 0..count {
        let position = log.next();
        assert_eq!(
            log.append(mark(position), |bytes| bytes.extend(entry(position))).unwrap(),
            position
        );
    }
}

fn all(log: &mut Log<Disk>) -> Result<Vec<u64>, LogError> {
    let (mut positions, mut from) = (Vec::new(), 0);
    loop {
        let read = log.read(from, 60)?;
        let Some((last, _)) = read.last() else { return Ok(positions) };
        from = last + 1;
        for (position, bytes) in read {
            assert_eq!(*bytes, *entry(position), "entry {position}");
            positions.push(position);
        }
    }
}

/// Batches of 1, 2, 3 and so on entries.
fn filled(batches: u64) -> (Disk, Vec<u64>) {
    let disk = Disk::default();
    let mut log = open(&disk).unwrap().0;
    let mut ends = vec![0];
    for count in 1..=batches {
        append(&mut log, count);
        log.commit().unwrap();
        ends.push(log.committed());
    }
    (disk, ends)
}

#[test]
fn what_was_committed_is_read_again_from_any_position() {
    let (disk, ends) = filled(12);
    let end = *ends.last().unwrap();
    let (mut log, found) = open(&disk).unwrap();
    assert!(log.segments() > 3);
    assert_eq!((found.torn_bytes, log.committed()), (0, end));
    assert!(matches!(&found.ranges[..], [range] if *range == (0..end)), "{:?}", found.ranges);
    assert_eq!(all(&mut log).unwrap(), (0..end).collect::<Vec<_>>());
    assert_eq!(log.check().unwrap(), end);
    for from in (0..end).rev() {
        let read = log.read(from, 1).unwrap();
        assert_eq!((read.len(), read[0].0, &*read[0].1), (1, from, &*entry(from)));
    }
    assert_eq!(log.read(end, 1).unwrap(), []);
    append(&mut log, 2);
    assert_eq!(log.read(end, 1).unwrap(), [], "it is not committed");
    log.discard();
    assert_eq!(log.next(), end);
    append(&mut log, 2);
    log.commit().unwrap();
    assert_eq!(all(&mut log).unwrap(), (0..end + 2).collect::<Vec<_>>());
}

#[test]
fn batches_with_a_mark_are_visited_and_no_others_are_read() {
    let (disk, ends) = filled(12);
    let mut bytes = disk.bytes();
    let mut marked = Vec::new();
    let (mut log, _) = open(&disk).unwrap();
    let visited = log.visit(25..60, 8, |Entry { position, bytes, .. }| {
        assert_eq!(*bytes, *entry(position));
        marked.push(position);
        Ok::<_, LogError>(())
    });
    visited.unwrap();
    let batches = ends.windows(2).filter(|ends| (ends[0]..ends[1]).any(|it| mark(it) > 0));
    let wanted: Vec<u64> = batches.flat_map(|ends| ends[0].max(25)..ends[1].min(60)).collect();
    assert_eq!(marked, wanted);
    // The first entry's batch has a mark. Damage to the second one's body is not seen by who passes it over.
    let second = usize::try_from(HEADER_BYTES).unwrap() + HEAD_BYTES + 4 + entry(0).len();
    let second = second.next_multiple_of(ALIGN) + HEAD_BYTES + 6;
    bytes.get_mut(&0).unwrap()[second] ^= 1;
    let (mut log, _) = open(&Disk::of(&bytes)).unwrap();
    log.visit(0..u64::MAX, 8, |_| Ok::<_, LogError>(())).unwrap();
    assert!(matches!(log.check(), Err(LogError::Damaged { segment: 0, .. })));
}

#[test]
fn a_batch_larger_than_a_segment_has_one_of_its_own() {
    let disk = Disk::default();
    let mut log = open(&disk).unwrap().0;
    append(&mut log, 100);
    log.commit().unwrap();
    append(&mut log, 1);
    log.commit().unwrap();
    assert_eq!(log.segments(), 2);
    assert_eq!(all(&mut open(&disk).unwrap().0).unwrap(), (0..101).collect::<Vec<_>>());
}

#[test]
fn a_segment_goes_when_none_of_its_entries_is_needed_and_leaves_the_others() {
    let (disk, ends) = filled(12);
    let end = *ends.last().unwrap();
    let mut log = open(&disk).unwrap().0;
    let straggler = 4;
    let before = log.segments();
    let closed = log.closed_segments();
    assert_eq!(closed.len(), before - 1);
    for range in closed.iter().filter(|range| !range.contains(&straggler)) {
        log.remove(range.start).unwrap();
    }
    log.remove(log.committed() - 1).unwrap();
    assert_eq!(log.segments(), 2, "that with the straggler, and the last");
    let (mut again, found) = open(&disk).unwrap();
    let [kept, last] = &found.ranges[..] else { panic!("{:?}", found.ranges) };
    assert!(kept.contains(&straggler) && kept.end < last.start && last.end == end);
    let wanted: Vec<u64> = kept.clone().chain(last.clone()).collect();
    for log in [&mut log, &mut again] {
        assert_eq!(all(log).unwrap(), wanted);
        assert_eq!(log.read(kept.end, 1).unwrap()[0].0, last.start, "the next one that is there");
    }
}

#[test]
fn of_segments_before_the_last_only_the_ends_are_read_at_first() {
    let (disk, ends) = filled(12);
    let end = *ends.last().unwrap();
    let log = open(&disk).unwrap().0;
    let known = log.segments.values().filter(|segment| segment.is_known).count();
    assert_eq!((known, log.committed()), (1, end));
    // Where the end of one is not at the end of its file, its batches are looked at.
    let mut bytes = disk.bytes();
    bytes.get_mut(&0).unwrap().extend([0; 50]);
    let (mut log, found) = open(&Disk::of(&bytes)).unwrap();
    assert!(log.segments[&0].is_known);
    assert_eq!((found.torn_bytes, all(&mut log).unwrap().len() as u64), (0, end));
}

#[test]
fn an_entry_is_found_by_the_place_of_its_batch() {
    let (disk, ends) = filled(12);
    let mut log = open(&disk).unwrap().0;
    let mut places = Vec::new();
    log.walk(0..u64::MAX, None, |Entry { position, batch, .. }| {
        places.push((position, batch));
        Ok::<_, LogError>(read::Then::GoOn)
    })
    .unwrap();
    assert_eq!(places.len() as u64, *ends.last().unwrap());
    for &(position, batch) in &places {
        let mut log = open(&disk).unwrap().0;
        assert_eq!(*log.entry_at(position, batch).unwrap().unwrap(), *entry(position));
        let known = log.segments.values().filter(|segment| segment.is_known).count();
        assert_eq!(known, 1, "the rest of its segment was not looked at");
        for other in [0, batch + 8, 1 << 40, u64::MAX] {
            assert!(matches!(log.entry_at(position, other), Err(LogError::Damaged { .. })));
        }
    }
    let (first, batch) = places[0];
    log.remove(0).unwrap();
    assert_eq!(log.entry_at(first, batch).unwrap(), None);
    assert_eq!(log.entry_at(log.committed(), batch).unwrap(), None);
    append(&mut log, 3);
    let (position, at) = (log.next() - 1, log.commit().unwrap().unwrap());
    assert_eq!(*log.entry_at(position, at).unwrap().unwrap(), *entry(position));
}

#[test]
fn a_segment_that_is_closed_is_followed_by_another() {
    let disk = Disk::default();
    let mut log = open(&disk).unwrap().0;
    log.close_segment().unwrap();
    assert_eq!((log.segments(), log.last_segment_bytes()), (0, 0));
    for count in 1..4 {
        append(&mut log, 1);
        log.commit().unwrap();
        assert!(log.last_segment_bytes() > 0);
        log.close_segment().unwrap();
        log.close_segment().unwrap();
        assert_eq!((log.segments(), log.last_segment_bytes()), (count, 0));
        log = open(&disk).unwrap().0;
        assert_eq!((log.segments(), log.last_segment_bytes()), (count, 0));
    }
    assert_eq!(all(&mut log).unwrap(), [0, 1, 2]);
}

#[test]
fn to_open_a_log_changes_nothing_and_what_was_torn_goes_with_the_next_commit() {
    let (disk, ends) = filled(9);
    let mut torn = disk.bytes();
    let (last, file) = torn.iter_mut().next_back().unwrap();
    let (last, len) = (*last, file.len());
    file[len - 60..].fill(0xee);
    for unfinished in [false, true] {
        if unfinished {
            torn.get_mut(&last).unwrap()[len - 60..].fill(0);
            torn.insert(*ends.last().unwrap(), vec![0xee; 10]);
        }
        let disk = Disk::of(&torn);
        let (mut log, found) = open(&disk).unwrap();
        assert!(found.torn_bytes > 0);
        assert_eq!(
            (all(&mut log).unwrap().len() as u64, disk.bytes()),
            (log.committed(), torn.clone())
        );
        let before = log.committed();
        append(&mut log, 3);
        log.commit().unwrap();
        let (mut log, found) = open(&disk).unwrap();
        assert_eq!((found.torn_bytes, log.committed()), (0, before + 3));
        assert_eq!(all(&mut log).unwrap().len() as u64, before + 3);
        assert!(!disk.bytes().values().any(|file| file.windows(5).any(|some| some == [0xee; 5])));
    }
}

#[test]
fn cut_at_any_byte_a_prefix_is_there_or_the_place_is_named() {
    let (disk, ends) = filled(9);
    let whole = disk.bytes();
    let last = *whole.keys().next_back().unwrap();
    for (&number, bytes) in &whole {
        for len in 0..bytes.len() {
            let mut cut = whole.clone();
            cut.get_mut(&number).unwrap().truncate(len);
            check_what_is_left(
                &cut,
                &ends,
                number,
                last,
                &format!("segment {number} cut at {len}"),
            );
        }
    }
}

#[test]
fn with_any_byte_flipped_a_prefix_is_there_or_the_place_is_named() {
    let (disk, ends) = filled(9);
    let whole = disk.bytes();
    let last = *whole.keys().next_back().unwrap();
    for (&number, bytes) in &whole {
        for at in 0..bytes.len() {
            for bit in [0x01, 0x80, 0xff] {
                let mut flipped = whole.clone();
                flipped.get_mut(&number).unwrap()[at] ^= bit;
                let what = format!("segment {number}, byte {at} ^ {bit:02x}");
                check_what_is_left(&flipped, &ends, number, last, &what);
            }
        }
    }
}

/// Checks that what is read is right and ends where a batch does, or that the error names the segment.
fn check_what_is_left(bytes: &Map<u64, Vec<u8>>, ends: &[u64], hurt: u64, last: u64, what: &str) {
    let read = open(&Disk::of(bytes)).and_then(|(mut log, _)| all(&mut log));
    match read {
        Ok(positions) => {
            let count = positions.len() as u64;
            assert_eq!(positions, (0..count).collect::<Vec<_>>(), "{what}");
            assert!(ends.contains(&count), "{what}: {count} entries");
            // At most the last batch is taken for one that was being written, and nothing goes from the middle.
            let least = if hurt == last { ends[ends.len() - 2] } else { ends[ends.len() - 1] };
            assert!(count >= least, "{what}: {count} entries");
        }
        Err(
            LogError::Damaged { segment, .. }
            | LogError::Version { segment, .. }
            | LogError::Foreign { segment },
        ) => assert_eq!(segment, hurt, "{what}"),
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn whatever_a_crash_leaves_what_was_committed_is_there() {
    for seed in 0..3000 {
        let mut rng = Rng::with_seed(seed);
        let disk = Disk::default();
        let mut committed = 0;
        for _ in 0..rng.u32(1..5) {
            let (mut log, _) = open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(log.committed(), committed, "seed {seed}");
            assert_eq!(all(&mut log).unwrap(), (0..committed).collect::<Vec<_>>(), "seed {seed}");
            for _ in 0..rng.u32(0..6) {
                append(&mut log, rng.u64(1..8));
                log.commit().unwrap();
                committed = log.committed();
            }
            // A batch whose sync never ended.
            append(&mut log, rng.u64(0..8));
            disk.break_sync(true);
            let _ = log.commit();
            disk.break_sync(false);
            if rng.bool() {
                // The process ends, and another finds what the machine would not have kept.
                committed = open(&disk).unwrap().0.committed();
            }
            disk.crash(&mut rng);
            let (log, _) = open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            // All of the unfinished batch, or nothing.
            let whole = log.committed();
            assert!(whole >= committed, "seed {seed}");
            committed = whole;
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_and_what_waits_can_be_committed_later() {
    for room in 0..900 {
        let disk = Disk::default();
        let mut log = open(&disk).unwrap().0;
        disk.limit(Some(room));
        let mut committed = 0;
        while committed < 40 {
            append(&mut log, 3);
            match log.commit() {
                Ok(_) => committed = log.committed(),
                Err(LogError::Io(error)) => {
                    assert_eq!(error.kind(), ErrorKind::StorageFull);
                    assert_eq!(log.committed(), committed);
                    let (mut again, _) = open(&Disk::of(&disk.bytes())).unwrap();
                    assert_eq!(all(&mut again).unwrap(), (0..committed).collect::<Vec<_>>());
                    disk.limit(None);
                    log.commit().unwrap();
                    committed = log.committed();
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(all(&mut open(&disk).unwrap().0).unwrap(), (0..committed).collect::<Vec<_>>());
    }
}

#[test]
fn a_segment_whose_header_is_gone_was_not_about_to_be_begun_if_it_is_alone() {
    let (disk, _) = filled(12);
    let mut log = open(&disk).unwrap().0;
    log.closed_segments().iter().for_each(|range| log.remove(range.start).unwrap());
    let mut bytes = disk.bytes();
    let (&number, file) = bytes.iter_mut().next().unwrap();
    file.truncate(20);
    let error = open(&Disk::of(&bytes)).unwrap_err();
    assert_eq!(error.to_string(), format!("segment {number} is damaged at byte 0: its header"));
}

#[test]
fn what_is_of_another_log_kind_or_version_is_refused() {
    let (disk, _) = filled(9);
    let kind = Log::open(disk.clone(), Kind::Records, ID, SMALL).unwrap_err();
    assert_eq!(kind.to_string(), "segment 0 is of another log");
    let mut bytes = disk.bytes();
    let (&last, file) = bytes.iter_mut().next_back().unwrap();
    let header = Header { id: 7, first: last }.encode(Kind::Tasks);
    file[..header.len()].copy_from_slice(&header);
    let other = open(&Disk::of(&bytes)).unwrap_err();
    assert_eq!(other.to_string(), format!("segment {last} is of another log"));
    let file = bytes.get_mut(&last).unwrap();
    file[8] = 9;
    let crc = crc32fast::hash(&file[..32]);
    file[32..36].copy_from_slice(&crc.to_le_bytes());
    let newer = open(&Disk::of(&bytes)).unwrap_err();
    let wanted = format!("segment {last} is of version 9, and this program reads version 1");
    assert_eq!(newer.to_string(), wanted);
}

#[test]
fn an_entry_that_looks_like_a_batch_is_none() {
    // Whoever knew the id could: it is random and told to nobody.
    let disk = Disk::default();
    let mut log = open(&disk).unwrap().0;
    let head = Head { body_bytes: 8, first: 1, count: 1, body_crc: 0, marks: 0 };
    log.append(0, |bytes| bytes.extend([head.encode(ID ^ 1), head.encode(0)].concat())).unwrap();
    log.commit().unwrap();
    let mut bytes = disk.bytes();
    // The head of the batch is torn, its body is there.
    bytes.get_mut(&0).unwrap()[usize::try_from(HEADER_BYTES).unwrap()] = 0;
    let (log, found) = open(&Disk::of(&bytes)).unwrap();
    assert_eq!((log.committed(), found.ranges), (0, vec![]));
    assert!(found.torn_bytes > 64);
}

#[test]
fn a_log_that_is_not_synced_ends_before_the_first_batch_that_is_not_whole() {
    let disk = Disk::default();
    let large = LogOptions { segment_bytes: 4000, zeroed_bytes: 100 };
    let open = |disk: &Disk| Log::open(disk.clone(), Kind::Tasks, ID, large);
    let mut log = open(&disk).unwrap().0;
    let mut places = Vec::new();
    for _ in 0..6 {
        append(&mut log, 1);
        places.push(log.commit().unwrap().unwrap());
    }
    let mut bytes = disk.bytes();
    let second = usize::try_from(places[2]).unwrap();
    bytes.get_mut(&0).unwrap()[second..second + 8].fill(0);
    let disk = Disk::of(&bytes);
    assert!(matches!(open(&disk), Err(LogError::Damaged { segment: 0, .. })));
    disk.leave_unsynced(true);
    let (mut log, found) = open(&disk).unwrap();
    assert!(found.torn_bytes > 0);
    assert_eq!(all(&mut log).unwrap(), [0, 1]);
    append(&mut log, 1);
    log.commit().unwrap();
    disk.leave_unsynced(false);
    // The rest does not come back.
    let (mut log, found) = open(&disk).unwrap();
    assert_eq!((found.torn_bytes, all(&mut log).unwrap()), (0, vec![0, 1, 2]));
}

#[test]
fn nothing_goes_from_a_log_that_is_not_synced_before_what_followed_is() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let disk = Disk::default();
        disk.leave_unsynced(true);
        let mut log = open(&disk).unwrap().0;
        for _ in 0..20 {
            append(&mut log, rng.u64(1..4));
            log.commit().unwrap();
        }
        let (first, end) = (log.first(), log.committed());
        log.remove(first).unwrap();
        disk.crash(&mut rng);
        let (log, _) = open(&disk).unwrap();
        assert_eq!(log.committed(), end, "seed {seed}");
    }
}

#[test]
fn positions_that_are_passed_over_are_as_if_they_were_removed() {
    let disk = Disk::default();
    let mut log = open(&disk).unwrap().0;
    append(&mut log, 2);
    log.commit().unwrap();
    log.skip_to(1);
    assert_eq!(log.next(), 2, "it has that already");
    log.skip_to(10);
    assert_eq!(log.read(2, 100).unwrap(), []);
    append(&mut log, 3);
    log.commit().unwrap();
    // A segment without a batch is not in the way.
    let mut bytes = disk.bytes();
    bytes.get_mut(&10).unwrap().truncate(usize::try_from(HEADER_BYTES).unwrap());
    let (mut log, found) = open(&disk).unwrap();
    assert_eq!((found.torn_bytes, all(&mut log).unwrap()), (0, vec![0, 1, 10, 11, 12]));
    let disk = Disk::of(&bytes);
    let mut log = open(&disk).unwrap().0;
    assert_eq!(log.next(), 10);
    log.skip_to(20);
    append(&mut log, 1);
    log.commit().unwrap();
    assert_eq!(all(&mut open(&disk).unwrap().0).unwrap(), [0, 1, 20]);
}

#[test]
fn of_large_batches_that_are_passed_over_little_is_read() {
    const LARGE: usize = 300_000;
    let options = LogOptions { segment_bytes: 8 << 20, zeroed_bytes: 0 };
    let disk = Disk::default();
    let mut log = Log::open(disk.clone(), Kind::Tasks, ID, options).unwrap().0;
    for batch in 0..100_u32 {
        log.append(1 << (batch % 25), |bytes| bytes.resize(bytes.len() + LARGE, 7)).unwrap();
        log.commit().unwrap();
    }
    let mut log = Log::open(disk.clone(), Kind::Tasks, ID, options).unwrap().0;
    disk.take_reads();
    let mut found = Vec::new();
    let visited = log.visit(0..u64::MAX, 1 << 20, |entry| {
        assert!(entry.bytes.len() == LARGE && entry.bytes.iter().all(|byte| *byte == 7));
        found.push(entry.position);
        Ok::<_, LogError>(())
    });
    visited.unwrap();
    assert_eq!(found, [20, 45, 70, 95]);
    let (_, read) = disk.take_reads();
    let segments = log.segments();
    // Of each segment the first megabyte, twice: to learn where its batches are, and to look at them.
    assert!(
        segments >= 4 && read < (2 * segments + 4) << 20,
        "{read} bytes of {segments} segments"
    );
}

#[test]
fn a_large_batch_that_is_read_in_parts_is_read_once_and_no_more_with_it() {
    let options = LogOptions { segment_bytes: 64 << 20, zeroed_bytes: 0 };
    let disk = Disk::default();
    let mut log = Log::open(disk.clone(), Kind::Tasks, ID, options).unwrap().0;
    let entry = |position: u64| vec![(position % 251) as u8; 1000];
    for position in 0..6000 {
        log.append(1, |bytes| bytes.extend(entry(position))).unwrap();
        if position % 600 == 599 {
            log.commit().unwrap();
        }
    }
    let written = log.file_bytes() as usize;
    let mut log = Log::open(disk.clone(), Kind::Tasks, ID, options).unwrap().0;
    disk.take_reads();
    for bytes_max in [1, 5_000, 1 << 20] {
        let mut from = 0;
        while from < 6000 {
            for (position, bytes) in log.read(from, bytes_max).unwrap() {
                assert_eq!((position, &*bytes), (from, &*entry(position)));
                from += 1;
            }
        }
        let (_, read) = disk.take_reads();
        let ahead = 2 << 20;
        assert!(read < written + ahead, "{read} bytes were read of {written}");
        // Another place, and back again.
        log.read(3001, 1).unwrap();
        assert_eq!(log.read(0, 1).unwrap()[0].0, 0);
        disk.take_reads();
    }
}
