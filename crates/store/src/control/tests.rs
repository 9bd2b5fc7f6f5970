use std::collections::BTreeMap as Map;

use fastrand::Rng;
use tradewind_proto::{Seq, SeqRange};

use super::*;
use crate::disk::Disk;

const SMALL: ControlOptions = ControlOptions {
    log: LogOptions { segment_bytes: 1000, zeroed_bytes: 100 },
    changes_bytes_min: 300,
};

fn open(disk: &Disk) -> Result<Control<Disk>, ControlError> {
    Control::open(disk.clone(), 7, SMALL).map(|(control, _)| control)
}

fn cancel(start: u64, end: u64) -> Change {
    Change::Cancel(SeqRange { start: Seq(start), end: Seq(end) })
}

fn consumer(name: &str, position: impl Into<Option<u64>>) -> Change {
    Change::Consumer(name.into(), position.into())
}

fn setting(name: &str, value: impl Into<Option<&'static str>>) -> Change {
    Change::Setting(name.into(), value.into().map(Into::into))
}

fn random(rng: &mut Rng) -> Change {
    let name = ["a", "b", "c"][rng.usize(0..3)];
    match rng.u8(0..5) {
        0 => Change::Pause(rng.bool()),
        1 => {
            let start = rng.u64(0..200);
            cancel(start, start + rng.u64(1..4))
        }
        2 => consumer(name, rng.bool().then(|| rng.u64(0..1000))),
        3 => setting(name, rng.bool().then(|| ["x", "", "longer"][rng.usize(0..3)])),
        _ => {
            let start = rng.u64(0..100);
            Change::Retries(start..start + rng.u64(0..100))
        }
    }
}

/// Returns what holds after each commit of one change.
fn filled(commits: u32) -> (Disk, Vec<ControlState>) {
    let disk = Disk::default();
    let mut rng = Rng::with_seed(1);
    let mut control = open(&disk).unwrap();
    let mut states = vec![control.state().clone()];
    for _ in 0..commits {
        control.apply(random(&mut rng)).unwrap();
        control.commit().unwrap();
        states.push(control.state().clone());
    }
    (disk, states)
}

/// Compares what can be seen.
fn assert_same(state: &ControlState, wanted: &ControlState, what: &str) {
    assert!(is_same(state, wanted), "{what}: {state:?} and not {wanted:?}");
}

fn is_same(one: &ControlState, other: &ControlState) -> bool {
    let seen = |state: &ControlState| {
        let ControlState { paused, cancelled, consumers, settings, retries, .. } = state.clone();
        (paused, cancelled, consumers, settings, retries)
    };
    seen(one) == seen(other)
}

#[test]
fn what_was_said_holds_after_a_restart() {
    let disk = Disk::default();
    let mut control = open(&disk).unwrap();
    assert_eq!(control.state(), &ControlState::default());
    let changes = [
        Change::Pause(true),
        cancel(3, 7),
        cancel(6, 9),
        consumer("mail", 12),
        consumer("gone", 1),
        consumer("gone", None),
        setting("retries", "3"),
        setting("empty", ""),
        Change::Retries(5..20),
    ];
    for change in changes {
        control.apply(change.clone()).unwrap();
        control.apply(change).unwrap();
    }
    let before = control.log.waiting_bytes();
    control.apply(consumer("none", None)).unwrap();
    assert_eq!(control.log.waiting_bytes(), before, "it is no news");
    control.commit().unwrap();
    for control in [&mut control, &mut open(&disk).unwrap()] {
        let state = control.state();
        assert!(state.paused && state.cancelled.iter().eq((3..9).map(Seq)));
        assert_eq!((state.consumers.len(), state.consumed()), (1, Some(12)));
        assert_eq!(state.settings[&Box::from("retries")], "3");
        assert_eq!((state.settings.len(), state.retries.clone()), (2, 5..20));
        control.settle(&[Seq(4), Seq(8), Seq(100)].into_iter().collect());
        assert!(control.state().cancelled.iter().eq([3, 5, 6, 7].map(Seq)));
    }
}

#[test]
fn changes_are_taken_back_that_were_not_committed() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let mut control = open(&Disk::default()).unwrap();
        for _ in 0..20 {
            control.apply(random(&mut rng)).unwrap();
        }
        control.commit().unwrap();
        let before = control.state().clone();
        for _ in 0..20 {
            control.apply(random(&mut rng)).unwrap();
        }
        control.discard();
        assert_same(control.state(), &before, &format!("seed {seed}"));
    }
}

#[test]
fn a_snapshot_takes_the_place_of_what_has_doubled() {
    let disk = Disk::default();
    let mut control = open(&disk).unwrap();
    let mut most = 0;
    for position in 0..2000 {
        control.apply(consumer("mail", position)).unwrap();
        control.commit().unwrap();
        most = most.max(control.log.file_bytes());
    }
    assert!(most < 2000, "{most} bytes");
    assert!(control.log.first() > 1500);
    assert_eq!(open(&disk).unwrap().state().consumed(), Some(1999));
}

#[test]
fn bounds_are_kept() {
    let mut control = open(&Disk::default()).unwrap();
    let refused = |control: &mut Control<Disk>, change| match control.apply(change) {
        Err(ControlError::Change(error)) => error,
        other => panic!("{other:?}"),
    };
    for name in [String::new(), "x".repeat(NAME_BYTES_MAX + 1)] {
        assert_eq!(refused(&mut control, consumer(&name, 1)), ChangeError::Name);
        assert_eq!(refused(&mut control, setting(&name, "x")), ChangeError::Name);
    }
    for number in 0..CONSUMERS_MAX {
        control.apply(consumer(&number.to_string(), 1)).unwrap();
    }
    assert_eq!(refused(&mut control, consumer("more", 1)), ChangeError::ConsumersFull);
    control.apply(consumer("7", 2)).unwrap();
    control.apply(consumer("8", None)).unwrap();
    control.apply(consumer("more", 1)).unwrap();
    let large = |bytes| Change::Setting("large".into(), Some(vec![0; bytes].into()));
    let most = SETTINGS_BYTES_MAX - "large".len();
    assert_eq!(refused(&mut control, large(most + 1)), ChangeError::SettingsFull);
    control.apply(large(most)).unwrap();
    assert_eq!(refused(&mut control, setting("a", "")), ChangeError::SettingsFull);
    control.apply(large(most - 1)).unwrap();
    control.apply(setting("a", "")).unwrap();
    assert_eq!(refused(&mut control, cancel(0, u64::MAX)), ChangeError::Number);
}

#[test]
fn cut_or_flipped_anywhere_it_holds_what_was_said_or_the_place_is_named() {
    for commits in 1..30 {
        let (disk, mut states) = filled(commits);
        states.dedup();
        let whole = disk.bytes();
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
                // Of a cut nothing but the end can be gone, of a flip only what was written last.
                let states = &states[if bit.is_some() { states.len() - 2 } else { 0 }..];
                check_what_is_left(
                    &hurt,
                    states,
                    (segment, last),
                    &format!("{segment} at {at}, {bit:?}"),
                );
            }
        }
    }
}

fn check_what_is_left(
    bytes: &Map<u64, Vec<u8>>,
    states: &[ControlState],
    (hurt, last): (u64, u64),
    what: &str,
) {
    let disk = Disk::of(bytes);
    match open(&disk) {
        Ok(control) => {
            let now = control.state();
            let is_known = states.iter().any(|state| is_same(state, now));
            assert!(is_known, "{what}: {now:?}");
            assert!(hurt == last || is_same(now, states.last().unwrap()), "{what}: {now:?}");
        }
        Err(
            ControlError::NoSnapshot { segment }
            | ControlError::Log(LogError::Damaged { segment, .. }),
        ) => {
            assert_eq!(segment, hurt, "{what}");
            assert_eq!(&disk.bytes(), bytes, "{what}: what is refused is left as it is");
        }
        Err(ControlError::Log(
            LogError::Version { segment, .. } | LogError::Foreign { segment },
        )) => assert_eq!(segment, hurt, "{what}"),
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn whatever_a_crash_or_a_full_disk_leaves_it_holds_what_was_committed() {
    for seed in 0..2000 {
        let mut rng = Rng::with_seed(seed);
        let what = format!("seed {seed}");
        let disk = Disk::default();
        let mut committed = ControlState::default();
        for _ in 0..rng.u32(1..5) {
            let mut control = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_same(control.state(), &committed, &what);
            let fails = rng.u8(0..3);
            let after = rng.u32(0..40);
            for number in 0..40 {
                if number == after {
                    disk.break_sync(fails == 1);
                    disk.limit((fails == 2).then(|| rng.usize(0..400)));
                }
                for _ in 0..rng.u8(0..3) {
                    control.apply(random(&mut rng)).unwrap();
                }
                if control.commit().is_err() {
                    break;
                }
                committed = control.state().clone();
            }
            let waiting = control.state().clone();
            disk.break_sync(false);
            disk.limit(None);
            disk.crash(&mut rng);
            let control = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
            // All of the unfinished batch, or nothing.
            if !is_same(control.state(), &committed) {
                assert_same(control.state(), &waiting, &what);
                committed = waiting;
            }
        }
    }
}

#[test]
fn the_format_is_as_documented() {
    let bytes = |change: &Change| {
        let mut out = Vec::new();
        change.encode(&mut out);
        out
    };
    let all: [(Change, &[u8]); 8] = [
        (Change::Pause(true), b"\x02\x01"),
        (cancel(300, 302), b"\x03\xac\x02\x02"),
        (consumer("mail", 300), b"\x04\x04mail\xac\x02"),
        (consumer("mail", None), b"\x05\x04mail"),
        (setting("keep", "7d"), b"\x06\x04keep7d"),
        (setting("keep", None), b"\x07\x04keep"),
        (Change::Retries(5..7), b"\x08\x05\x02"),
        (Change::Pause(false), b"\x02\x00"),
    ];
    let mut state = ControlState::default();
    for (change, wanted) in all {
        assert_eq!(bytes(&change), wanted);
        assert_eq!(Entry::decode(wanted.into()), Ok(Entry::Change(change.clone())));
        for end in 0..wanted.len() {
            // A shorter value is one too.
            let _ = Entry::decode(wanted[..end].into());
        }
        state.apply(change).unwrap();
    }
    state.apply(consumer("mail", 1)).unwrap();
    state.apply(setting("keep", "7d")).unwrap();
    let mut out = Vec::new();
    state.encode(&mut out);
    let wanted = b"\x01\x01\x01\x00\x02\x03\xac\x02\x02\x03\x06\x04mail\x01\x04\x07\x04keep7d\x05\x02\x05\x02";
    assert_eq!(out, wanted);
    let Ok(Entry::Snapshot(read)) = Entry::decode(out.into()) else { panic!("no snapshot") };
    assert_same(&read, &state, "read back");
    assert_eq!(Entry::decode(b"\x09"[..].into()), Err(ChangeError::Kind(9)));
    assert_eq!(Entry::decode(b"\x01\x80\x00"[..].into()), Err(ChangeError::Option(128)));
    assert_eq!(Entry::decode(b""[..].into()), Err(ChangeError::Short));
}

#[test]
fn segments_before_a_snapshot_may_be_there_without_those_before_them() {
    // Snapshots fail while the disk is full: changes fill several segments, and go all at once.
    let (disk, mut before) = (Disk::default(), Vec::new());
    let mut control = open(&disk).unwrap();
    for number in 0_u64.. {
        before.push(disk.bytes());
        let had = control.log.segments();
        control.changes_bytes = 0;
        if had > 3 {
            control.changes_bytes = control.changes_bytes_min;
        }
        control.apply(setting("a", if number % 2 == 0 { "x" } else { "longer" })).unwrap();
        control.commit().unwrap();
        if control.log.segments() < had {
            break;
        }
    }
    let mut removed = before.pop().unwrap();
    // That one was not closed yet.
    removed.pop_last();
    for count in 0..removed.len() {
        let mut left = disk.bytes();
        left.extend(removed.clone().into_iter().skip(count));
        let opened = open(&Disk::of(&left)).unwrap();
        assert_same(opened.state(), control.state(), "some segments are left");
        let control = Disk::of(&left);
        let other = Disk::default;
        let (tasks, keys, records, index) = (other(), other(), other(), other());
        let report = crate::check(crate::QueueMedia { tasks, keys, records, index, control });
        assert_eq!(report.faults, []);
    }
}
