use std::cell::RefCell;
use std::fs;
use std::rc::Rc;

use tradewind_proto::message::{Exit, Outcome};

use super::super::examples::record;
use super::medium::Unnamed;
use super::*;

const JOB: JobId = JobId(7);

/// A disk with so much room.
#[derive(Clone, Debug, Default)]
struct Memory(Rc<RefCell<Disk>>);

#[derive(Clone, Debug, Default)]
struct Disk {
    segments: BTreeMap<u64, Vec<u8>>,
    room: Option<usize>,
    is_failing: bool,
}

impl Disk {
    fn len(&self) -> usize {
        self.segments.values().map(Vec::len).sum()
    }
}

impl Memory {
    fn of(segments: BTreeMap<u64, Vec<u8>>) -> Self {
        Self(Rc::new(RefCell::new(Disk { segments, ..Disk::default() })))
    }

    fn segments(&self) -> BTreeMap<u64, Vec<u8>> {
        self.0.borrow().segments.clone()
    }
}

impl Medium for Memory {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.0.borrow().segments.keys().copied().collect())
    }

    fn create(&mut self, segment: u64) -> io::Result<()> {
        let old = self.0.borrow_mut().segments.insert(segment, Vec::new());
        assert_eq!(old, None, "a segment is made once");
        Ok(())
    }

    fn len(&mut self, segment: u64) -> io::Result<u64> {
        Ok(self.0.borrow().segments[&segment].len() as u64)
    }

    fn read_at(&mut self, segment: u64, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let disk = self.0.borrow();
        if disk.is_failing {
            return Err(ErrorKind::TimedOut.into());
        }
        let from = &disk.segments[&segment][at as usize..];
        let count = from.len().min(bytes.len());
        bytes[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&mut self, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        let room = disk.room.map_or(usize::MAX, |room| room.saturating_sub(disk.len()));
        let file = disk.segments.get_mut(&segment).expect("it was made");
        assert_eq!(file.len() as u64, at, "it is only appended to");
        let count = bytes.len().min(room);
        file.extend_from_slice(&bytes[..count]);
        if count == bytes.len() { Ok(()) } else { Err(ErrorKind::StorageFull.into()) }
    }

    fn cut(&mut self, segment: u64, len: u64) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.segments.get_mut(&segment).expect("it was made").truncate(len as usize);
        Ok(())
    }

    fn sync(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.0.borrow_mut().segments.remove(&segment).expect("it is there");
        Ok(())
    }
}

fn list(seqs: impl IntoIterator<Item = u64>) -> Records {
    let results = seqs.into_iter().map(|seq| one(seq).results.remove(0)).collect();
    Records { results, ..record(0, "") }
}

fn one(seq: u64) -> Records {
    let mut one = record(seq, "x".repeat(seq as usize % 50));
    if seq % 7 == 3 {
        let status = if seq.is_multiple_of(2) { Status::Failed } else { Status::Cancelled };
        one.results[0].outcome = Outcome { exit: Exit::Code(1), ..Outcome::error(status, "no") };
    }
    one
}

fn spool(medium: &Memory) -> Spool<Memory> {
    Spool::begin(medium.clone(), JOB, false).unwrap().with_segment_bytes(2000)
}

fn all(end: u64) -> SeqSet {
    (0..end).map(Seq).collect()
}

fn range(start: u64, end: u64) -> SeqRange {
    SeqRange { start: Seq(start), end: Seq(end) }
}

/// Reads all of a range, and says what it is.
fn read<M: Medium>(spool: &mut Spool<M>, wanted: SeqRange, bytes_max: usize) {
    let mut next = wanted.start;
    while next < wanted.end {
        let lists = spool.read(SeqRange { start: next, ..wanted }, bytes_max).unwrap();
        assert!(!lists.is_empty());
        for list in lists {
            for result in list.results {
                assert_eq!(result, one(next.0).results[0]);
                next = next.next();
            }
        }
        spool.release(next);
    }
}

fn found(medium: &Memory) -> Found {
    find(&mut medium.clone(), JOB, |_| false, &all(1000)).unwrap()
}

#[test]
fn records_that_came_in_any_order_are_read_in_theirs() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let medium = Memory::default();
        let mut spool = spool(&medium);
        let mut seqs: Vec<u64> = (0..300).collect();
        let late = rng.u64(1..300);
        seqs.sort_by_cached_key(|seq| seq + rng.u64(0..late));
        while !seqs.is_empty() {
            let count = rng.usize(1..=seqs.len().min(8));
            let lists: Vec<Records> = seqs.drain(..count).map(one).collect();
            spool.append(&lists).unwrap();
        }
        assert_eq!(spool.bytes() as usize, medium.0.borrow().len());
        if rng.bool() {
            spool = Spool::go_on(medium.clone(), JOB, false, &found(&medium)).unwrap();
        }
        read(&mut spool, range(0, 300), rng.usize(1..5000));
        assert_eq!((spool.bytes(), medium.segments().len()), (0, 0), "nothing is left");
    }
}

#[test]
fn reading_and_appending_take_turns() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let medium = Memory::default();
        let mut spool = spool(&medium);
        let (mut written, mut done) = (0, 0);
        while done < 500 {
            if rng.bool() && written < 500 {
                let count = rng.u64(1..30).min(500 - written);
                let mut lists: Vec<Records> = (written..written + count).map(one).collect();
                rng.shuffle(&mut lists);
                spool.append(&lists).unwrap();
                written += count;
            } else {
                let count = rng.u64(0..=written - done);
                read(&mut spool, range(done, done + count), rng.usize(1..3000));
                done += count;
            }
        }
        assert_eq!((spool.bytes(), medium.segments().len()), (0, 0));
    }
}

#[test]
fn segments_that_overlap_all_are_read_with_little_memory() {
    let medium = Memory::default();
    let mut spool = spool(&medium);
    for start in 0..200 {
        spool.append(&[list((0..20).map(|place| place * 200 + start))]).unwrap();
    }
    assert!(medium.segments().len() > CHUNKS_MAX);
    read(&mut spool, range(0, 4000), 10_000);
    assert!(spool.segments.is_empty());
}

#[test]
fn a_spool_that_is_cut_at_any_byte_has_what_comes_before() {
    let medium = Memory::default();
    let mut spool = Spool::begin(medium.clone(), JOB, false).unwrap();
    let mut ends = vec![HEADER_BYTES];
    for seq in [3, 4, 1, 0, 2] {
        spool.append(&[one(seq)]).unwrap();
        ends.push(spool.bytes());
    }
    let whole = medium.segments();
    let bytes = &whole[&0];
    for end in 0..=bytes.len() {
        let medium = Memory::of([(0, bytes[..end].to_vec())].into());
        let found = found(&medium);
        let count = ends[1..].iter().filter(|at| **at <= end as u64).count();
        let wanted: SeqSet = [3, 4, 1, 0, 2][..count].iter().copied().map(Seq).collect();
        assert_eq!(found.seqs, wanted, "at {end}");
        assert_eq!(found.counts.total(), count as u64);
        let mut spool = Spool::go_on(medium.clone(), JOB, false, &found).unwrap();
        let missing = (0..6).filter(|seq| !wanted.contains(Seq(*seq)));
        spool.append(&missing.map(one).collect::<Vec<_>>()).unwrap();
        read(&mut spool, range(0, 6), 100);
        assert!(medium.segments().is_empty());
    }
}

#[test]
fn a_byte_that_is_not_as_it_was_written_makes_no_record() {
    let medium = Memory::default();
    let mut spool = Spool::begin(medium.clone(), JOB, false).unwrap();
    spool.append(&[list(0..4)]).unwrap();
    let whole = medium.segments();
    for place in 0..whole[&0].len() {
        let mut changed = whole.clone();
        changed.get_mut(&0).unwrap()[place] ^= 1;
        let medium = Memory::of(changed);
        let found = found(&medium);
        assert!(found.seqs.count() < 4 && found.seqs.iter().eq(all(found.seqs.count()).iter()));
        if (HEADER_BYTES as usize..).contains(&place) {
            let mut spool = Spool::go_on(medium, JOB, false, &found).unwrap();
            read(&mut spool, range(0, found.seqs.count()), 10_000);
        }
    }
    // And one that is changed after it was found is no record either.
    medium.0.borrow_mut().segments.get_mut(&0).unwrap()[60] ^= 1;
    let error = spool.read(range(0, 4), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[test]
fn a_full_disk_takes_all_or_nothing() {
    let whole = {
        let medium = Memory::default();
        let mut spool = spool(&medium);
        (0..10).for_each(|place| spool.append(&[list(place * 10..place * 10 + 10)]).unwrap());
        medium.0.borrow().len()
    };
    for room in (0..whole + 100).step_by(3) {
        let medium = Memory::default();
        let mut spool = spool(&medium);
        medium.0.borrow_mut().room = Some(room);
        for place in 0..10 {
            let records = [list(place * 10..place * 10 + 10)];
            let before = spool.bytes();
            if spool.append(&records).is_err() {
                assert_eq!(spool.bytes(), before);
                assert_eq!(found(&medium).seqs.count(), place * 10);
                medium.0.borrow_mut().room = None;
                spool.append(&records).unwrap();
            }
        }
        read(&mut spool, range(0, 100), 2000);
        assert!(medium.segments().is_empty());
    }
}

#[test]
fn unreadable_records_are_read_later() {
    let medium = Memory::default();
    let mut spool = spool(&medium);
    for place in 0..300 {
        spool.append(&[one(299 - place)]).unwrap();
    }
    let mut rng = fastrand::Rng::with_seed(1);
    let mut next = 0;
    while next < 300 {
        medium.0.borrow_mut().is_failing = rng.bool();
        let Ok(lists) = spool.read(range(next, 300), 1000) else { continue };
        for result in lists.into_iter().flat_map(|list| list.results) {
            assert_eq!(result, one(next).results[0]);
            next += 1;
        }
    }
}

#[test]
fn records_in_the_output_or_there_twice_are_skipped() {
    let medium = Memory::default();
    let mut spool = spool(&medium);
    spool.append(&[list(0..20)]).unwrap();
    let mut twice = medium.segments();
    let again = twice[&0].clone();
    twice.insert(1, again);
    let medium = Memory::of(twice);
    let found = find(&mut medium.clone(), JOB, |seq| seq < Seq(5), &all(1000)).unwrap();
    assert_eq!(found.seqs, (5..20).map(Seq).collect());
    assert_eq!(found.counts.total(), 15);
    let mut spool = Spool::go_on(medium.clone(), JOB, false, &found).unwrap();
    spool.append(&[list(20..30)]).unwrap();
    read(&mut spool, range(5, 30), 500);
    assert!(medium.segments().is_empty());
}

#[test]
fn records_of_tasks_that_run_again_are_left_out() {
    let medium = Memory::default();
    let mut spool = spool(&medium);
    (0..10).for_each(|place| spool.append(&[list(place * 10..place * 10 + 10)]).unwrap());
    let mut found = found(&medium);
    let not_ok: SeqSet = (0..100).filter(|seq| seq % 7 == 3).map(Seq).collect();
    assert_eq!(found.not_ok, not_ok);
    assert_eq!(found.cancelled, not_ok.iter().filter(|seq| seq.0 % 2 == 1).collect());
    found.leave_out(&not_ok, |counts| Counts { ok: counts.ok, ..Counts::default() });
    assert_eq!(found.counts.total(), found.seqs.count());
    let mut spool = Spool::go_on(medium.clone(), JOB, false, &found).unwrap();
    let found = self::found(&medium);
    assert!(found.not_ok.is_empty() && found.seqs.count() == 100 - not_ok.count());
    spool.append(&not_ok.iter().map(|seq| one(seq.0)).collect::<Vec<_>>()).unwrap();
    read(&mut spool, range(0, 100), 500);
}

#[test]
fn unnoted_records_and_those_of_another_job_do_not_count() {
    let medium = Memory::default();
    let mut spool = spool(&medium);
    spool.append(&[list(0..20)]).unwrap();
    let found = find(&mut medium.clone(), JOB, |_| false, &all(10)).unwrap();
    assert_eq!(found.seqs, all(10));
    let mut spool = Spool::go_on(medium.clone(), JOB, false, &found).unwrap();
    assert_eq!(self::found(&medium).seqs, all(10));
    spool.append(&[list(10..20)]).unwrap();

    let other = find(&mut medium.clone(), JobId(8), |_| false, &all(1000)).unwrap();
    assert!(other.seqs.is_empty());
    let foreign = b"precious, and longer than a header of ours is".to_vec();
    medium.0.borrow_mut().segments.insert(500, foreign.clone());
    let mut spool = Spool::begin(medium.clone(), JobId(8), false).unwrap();
    assert_eq!(medium.segments(), [(500, foreign)].into(), "what is not ours is left alone");
    spool.append(&[list(0..20)]).unwrap();
    read(&mut spool, range(0, 20), 500);
}

#[test]
fn files_in_a_directory_or_without_a_name_hold_segments() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.tradewind-spool");
    let mediums: [Box<dyn Medium>; 2] = [
        Box::new(Directory::new(path.clone())),
        Box::new(Unnamed::new(directory.path().to_owned())),
    ];
    for medium in mediums {
        let mut spool = Spool::begin(medium, JOB, true).unwrap().with_segment_bytes(2000);
        for place in (0..50).rev() {
            spool.append(&[list((0..10).map(|seq| seq * 50 + place))]).unwrap();
        }
        assert!(spool.bytes() > 20_000);
        read(&mut spool, range(0, 500), 3000);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
    }
    let mut spool = Spool::begin(Directory::new(path.clone()), JOB, true).unwrap();
    spool.append(&[list(0..10)]).unwrap();
    fs::write(path.join("mine"), "precious").unwrap();
    let found = find(&mut Directory::new(path.clone()), JOB, |_| false, &all(1000)).unwrap();
    assert_eq!(found.seqs, all(10));
    let mut spool = Spool::go_on(Directory::new(path.clone()), JOB, true, &found).unwrap();
    read(&mut spool, range(0, 10), 3000);
    assert_eq!(fs::read_to_string(path.join("mine")).unwrap(), "precious");
}

#[test]
fn a_link_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (elsewhere, link) = (directory.path().join("a"), directory.path().join("b"));
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    let mut spool = Spool::begin(Directory::new(link.clone()), JOB, false).unwrap();
    let error = spool.append(&[list(0..10)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert!(link.is_symlink());
}
