//! Bounds of frames that have begun and not ended: their bytes in sum over all lanes of a process, and the time that
//! each may take.
//!
//! ZeroMQ keeps such bytes until the frame is whole, and nobody can do anything with them before. One peer may have
//! as many of them as its largest message; a thousand peers together may not. A large frame counts until it was
//! taken from its lane, and what was taken before it is done with.
//!
//! No I/O, no clock in what decides ([`Ledger`], [`Pace`]): time is an argument.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes of unfinished frames in one process, at most, as long as no message is larger than a quarter of it; and one
/// read for each lane (4 KiB when there is little room).
pub const UNFINISHED_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a frame that have to come in each second, so that it is not behind.
pub const RATE_BYTES_MIN: u64 = 64 << 10;

/// Frames from which on one counts until it was taken. What is smaller fits into the sockets that it passes through.
pub(crate) const LARGE_BYTES_MIN: u64 = 64 << 10;

/// Decides which lanes may read.
///
/// Up to half of the bound all lanes may. Beyond that, a lane in the middle of a frame needs a *grant* for the rest
/// of it:
///
/// - One lane, the *first*, has a grant whatever the size of its frame. So there is always one that can go on, and a
///   frame that does not come ends with its lane (see [`Pace`]): nobody waits for ever, and there is no deadlock.
/// - Others share a quarter of the bound. A grant takes half of what is left of it at most: so there is always
///   something for small frames, however many large ones crawl along.
///
/// A lane between two frames may always read. Its next message is whole with that read, as a rule, and heartbeats
/// have to be heard.
#[derive(Debug)]
struct Ledger {
    bytes_max: u64,
    /// Bytes of unfinished frames.
    held: u64,
    has_first: bool,
    /// Bytes of the grants, without that of the first. They are given back when their frames have ended.
    granted: u64,
}

/// Part of one lane.
#[derive(Debug, Default)]
struct Share {
    held: u64,
    grant: Grant,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Grant {
    #[default]
    None,
    First,
    Shared {
        bytes: u64,
    },
}

impl Ledger {
    fn new(bytes_max: u64) -> Self {
        Self { bytes_max, held: 0, has_first: false, granted: 0 }
    }

    /// Returns whether there is little room.
    fn is_scarce(&self) -> bool {
        self.held >= self.bytes_max / 2
    }

    /// Returns whether a lane may read of whose frame so many bytes are left; 0 between two frames.
    fn may_read(&mut self, share: &mut Share, left: u64) -> bool {
        if left == 0 || share.grant != Grant::None || !self.is_scarce() {
            return true;
        }
        if !self.has_first {
            self.has_first = true;
            share.grant = Grant::First;
            return true;
        }
        let room = (self.bytes_max / 4).saturating_sub(self.granted);
        if left <= room / 2 {
            self.granted += left;
            share.grant = Grant::Shared { bytes: left };
            return true;
        }
        false
    }

    /// Notes what a lane has, and whether the frame for which it may have a grant is over. Returns whether others have
    /// more room now.
    fn note(&mut self, share: &mut Share, held: u64, is_over: bool) -> bool {
        let has_less = held < share.held;
        self.held = self.held - share.held + held;
        share.held = held;
        if !is_over {
            return has_less;
        }
        match std::mem::take(&mut share.grant) {
            Grant::None => return has_less,
            Grant::First => self.has_first = false,
            Grant::Shared { bytes } => self.granted -= bytes,
        }
        true
    }
}

/// Bytes of the unfinished frames of many lanes. Clones are the same.
#[derive(Clone)]
pub struct Unfinished(Arc<Shared>);

struct Shared {
    ledger: Mutex<Ledger>,
    /// There is more room than there was.
    freed: Notify,
}

impl Unfinished {
    /// Returns that of this process.
    #[must_use]
    pub fn of_process() -> Self {
        static PROCESS: OnceLock<Unfinished> = OnceLock::new();
        PROCESS.get_or_init(|| Self::new(UNFINISHED_BYTES_MAX)).clone()
    }

    /// Creates one for so many bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let ledger = Mutex::new(Ledger::new(bytes_max));
        Self(Arc::new(Shared { ledger, freed: Notify::new() }))
    }

    /// Returns the bytes that are there.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ledger().held
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unfinished").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// A lane's part of them, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct LaneFrames {
    all: Unfinished,
    part: Mutex<Part>,
}

#[derive(Debug, Default)]
struct Part {
    share: Share,
    /// Bytes of the frame that is under way, and what is left of it.
    held: u64,
    left: u64,
    /// Bytes of large frames that are whole and not done with. Negative when one was done with before its end was
    /// noted.
    whole: i64,
    /// The frame for which there may be a grant has ended.
    is_over: bool,
}

impl LaneFrames {
    pub(crate) fn new(all: Unfinished) -> Self {
        Self { all, part: Mutex::default() }
    }

    /// Notes the bytes of large frames that have ended since the last time, what has come of the one that is under
    /// way, and what is left of that.
    pub(crate) fn came(&self, ended: u64, held: u64, left: u64) {
        let mut part = self.part();
        if part.share.held == 0 && held == 0 && ended == 0 {
            return;
        }
        // Another one has begun if this has less, or if there is more to come.
        part.is_over |= left == 0 || held < part.held || left > part.left;
        part.whole += ended as i64;
        (part.held, part.left) = (held, left);
        self.note(&mut part);
    }

    /// Notes that a large frame is done with.
    pub(crate) fn done(&self, bytes: u64) {
        let mut part = self.part();
        part.whole -= bytes as i64;
        self.note(&mut part);
    }

    fn note(&self, part: &mut Part) {
        let held = part.held + part.whole.max(0) as u64;
        let is_over = part.is_over && part.whole <= 0;
        if self.all.ledger().note(&mut part.share, held, is_over) {
            self.all.0.freed.notify_waiters();
        }
    }

    /// Returns whether the lane may read.
    pub(crate) fn may_read(&self) -> bool {
        let mut part = self.part();
        let left = part.left;
        if left > 0 && part.share.grant == Grant::None {
            part.is_over = false;
            return self.all.ledger().may_read(&mut part.share, left);
        }
        true
    }

    /// Returns whether the lane is to read little at a time.
    pub(crate) fn is_scarce(&self) -> bool {
        self.all.ledger().is_scarce()
    }

    /// Waits until the lane may read. Cancel-safe.
    pub(crate) async fn wait(&self) {
        loop {
            let mut freed = pin!(self.all.0.freed.notified());
            // From now on, so that nothing is missed between the question and the wait.
            freed.as_mut().enable();
            if self.may_read() {
                return;
            }
            freed.await;
        }
    }

    fn part(&self) -> MutexGuard<'_, Part> {
        self.part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LaneFrames {
    fn drop(&mut self) {
        let mut part = std::mem::take(&mut *self.part());
        (part.held, part.whole, part.is_over) = (0, 0, true);
        self.note(&mut part);
    }
}

/// Follows whether a frame comes fast enough. Only the time counts in which we wait for its bytes: not that in which
/// nothing was read here because there was no room, or because nobody took what had come.
#[derive(Debug)]
pub(crate) struct Pace {
    lag_max: Duration,
    /// Time that the frame is behind.
    lag: Duration,
    /// Time since which its next bytes are waited for.
    waits_since: Option<Instant>,
}

impl Pace {
    /// Creates that of a lane without a frame. `lag_max`: time that one may be behind.
    pub(crate) fn new(lag_max: Duration) -> Self {
        Self { lag_max, lag: Duration::ZERO, waits_since: None }
    }

    /// Notes that bytes of a frame are waited for from now on.
    pub(crate) fn wait(&mut self, now: Instant) {
        self.waits_since.get_or_insert(now);
    }

    /// Notes that bytes have come.
    pub(crate) fn came(&mut self, now: Instant, bytes: usize) {
        let Some(since) = self.waits_since.take() else { return };
        // What came late has come all the same: it may be that this process was stopped.
        let lag = (self.lag + now.saturating_duration_since(since)).min(self.lag_max);
        let made_good = Duration::from_micros(bytes as u64 * 1_000_000 / RATE_BYTES_MIN);
        self.lag = lag.saturating_sub(made_good);
    }

    /// Notes that the frame is whole.
    pub(crate) fn end(&mut self) {
        *self = Self::new(self.lag_max);
    }

    /// Returns the time at which the frame has come too slowly, if it is waited for. It never becomes earlier.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waits_since.map(|since| since + (self.lag_max - self.lag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 800;
    const LAG_MAX: Duration = Duration::from_secs(30);

    /// A lane that has this of a frame, and waits for that.
    fn lane(ledger: &mut Ledger, held: u64, left: u64) -> Share {
        let mut share = Share::default();
        ledger.note(&mut share, held, left == 0);
        share
    }

    #[test]
    fn up_to_half_of_the_bound_all_lanes_read() {
        let mut ledger = Ledger::new(MAX);
        let mut lanes: Vec<_> = (0..4).map(|_| lane(&mut ledger, 99, 500)).collect();
        assert!(lanes.iter_mut().all(|share| ledger.may_read(share, 500)));
        assert!(lanes.iter().all(|share| share.grant == Grant::None));
    }

    #[test]
    fn beyond_it_one_lane_goes_on_and_small_frames_do() {
        let mut ledger = Ledger::new(MAX);
        let mut lanes: Vec<_> = (0..4).map(|_| lane(&mut ledger, 100, 500)).collect();
        let may: Vec<_> = lanes.iter_mut().map(|share| ledger.may_read(share, 500)).collect();
        assert_eq!(may, [true, false, false, false]);
        // A quarter of the bound is shared, and nobody gets more than half of what is left.
        let mut small: Vec<_> = [101, 100, 51, 50, 25].map(|left| (Share::default(), left)).into();
        let may: Vec<_> =
            small.iter_mut().map(|(share, left)| ledger.may_read(share, *left)).collect();
        assert_eq!(may, [false, true, false, true, true]);
        // Between frames always.
        assert!(ledger.may_read(&mut Share::default(), 0));
        // The first has its frame, and the next one is first.
        assert!(ledger.note(&mut lanes[0], 0, true));
        ledger.note(&mut Share::default(), 200, false);
        let others = lanes.iter_mut().skip(1);
        let may: Vec<_> = others.map(|share| ledger.may_read(share, 500)).collect();
        assert_eq!(may, [true, false, false]);
    }

    #[test]
    fn a_grant_is_for_one_frame_until_that_was_taken() {
        let all = Unfinished::new(MAX << 20);
        let crowd = LaneFrames::new(all.clone());
        crowd.came(0, 600 << 20, 150 << 20);
        let lane = LaneFrames::new(all.clone());
        let has_first = || all.ledger().has_first;
        lane.came(0, 1, 300);
        assert!(lane.may_read() && has_first() && !crowd.may_read());
        lane.came(0, 201, 100);
        assert!(has_first() && lane.may_read());
        // It is whole, but nobody has taken it; the next one goes on with what the sockets have room for.
        lane.came(301, 50, 200);
        assert!(has_first());
        lane.done(301);
        assert!(!has_first() && crowd.may_read() && has_first());
        // Another frame is another grant.
        crowd.came(0, 1 << 20, 200 << 20);
        assert!(!has_first());
        // A frame may be done with before its end is noted.
        lane.done(100_000);
        lane.came(100_000, 0, 0);
        assert_eq!(all.bytes(), 1 << 20);
        drop(crowd);
        assert_eq!(all.bytes(), 0);
    }

    /// Lanes that read as they may, with frames of all sizes, at random: the bound holds, and all frames end.
    #[test]
    fn whatever_comes_the_bound_holds_and_somebody_can_go_on() {
        const FRAME_MAX: u64 = MAX / 4;
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut ledger = Ledger::new(MAX);
            let mut lanes: Vec<_> = (0..30)
                .map(|_| (Share::default(), 0, 0, rng.usize(1..6)))
                .collect::<Vec<(Share, u64, u64, usize)>>();
            while lanes.iter().any(|lane| lane.3 > 0) {
                let mut moved = false;
                rng.shuffle(&mut lanes);
                for (share, held, left, frames) in lanes.iter_mut().filter(|lane| lane.3 > 0) {
                    if !ledger.may_read(share, *left) {
                        continue;
                    }
                    moved = true;
                    if *left == 0 {
                        *left = rng.u64(1..FRAME_MAX);
                    }
                    let read = rng.u64(1..8).min(*left);
                    (*held, *left) = (*held + read, *left - read);
                    if *left == 0 {
                        (*held, *frames) = (0, *frames - 1);
                    }
                    ledger.note(share, *held, *left == 0);
                    // One read of each lane comes on top.
                    assert!(ledger.held <= MAX + 8 * 30, "seed {seed}: {}", ledger.held);
                }
                assert!(moved, "seed {seed}: all wait for one another");
            }
            assert_eq!((ledger.held, ledger.has_first, ledger.granted), (0, false, 0));
        }
    }

    #[test]
    fn frames_that_never_end_are_bounded_whatever_their_sizes() {
        const MAX: u64 = 800_000;
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut ledger = Ledger::new(MAX);
            let mut lanes = Vec::new();
            for _ in 0..100 {
                let most = rng.choice([3_000, 30_000, MAX / 4]).unwrap();
                lanes.push((Share::default(), 0, 2 + rng.u64(0..most)));
            }
            let mut moved = true;
            while std::mem::take(&mut moved) {
                rng.shuffle(&mut lanes);
                for (share, held, left) in lanes.iter_mut().filter(|(_, _, left)| *left > 1) {
                    if ledger.may_read(share, if *held == 0 { 0 } else { *left }) {
                        let read = rng.u64(1..=1_000).min(*left - 1);
                        (moved, *held, *left) = (true, *held + read, *left - read);
                        ledger.note(share, *held, *left == 0);
                    }
                }
            }
            assert!(ledger.held <= MAX + 100_000, "seed {seed}: {}", ledger.held);
            // A small frame of another peer goes on all the same.
            assert!(ledger.may_read(&mut Share::default(), 100), "seed {seed}");
        }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_frame_that_stops_is_too_slow_after_30_s() {
        let (mut pace, start) = (Pace::new(LAG_MAX), Instant::now());
        assert_eq!(pace.deadline(), None);
        pace.wait(start);
        assert_eq!(pace.deadline(), Some(start + LAG_MAX));
        // A byte now and then does not help.
        for second in 1..30 {
            pace.came(start + secs(second), 1);
            pace.wait(start + secs(second));
        }
        let late = pace.deadline().unwrap() - start;
        assert!(late >= LAG_MAX && late < LAG_MAX + secs(1), "{late:?}");
    }

    #[test]
    fn a_slow_link_takes_its_time() {
        let (mut pace, start) = (Pace::new(LAG_MAX), Instant::now());
        for second in 0..1_000 {
            pace.wait(start + secs(second));
            assert!(pace.deadline().unwrap() > start + secs(second + 1), "second {second}");
            pace.came(start + secs(second + 1), RATE_BYTES_MIN as usize);
        }
        // What came quickly earlier is no excuse for stopping.
        pace.came(start + secs(1_000), 64 << 20);
        pace.wait(start + secs(1_000));
        assert_eq!(pace.deadline(), Some(start + secs(1_000) + LAG_MAX));
    }

    #[test]
    fn time_in_which_nobody_reads_does_not_count() {
        let (mut pace, start) = (Pace::new(LAG_MAX), Instant::now());
        pace.wait(start);
        pace.came(start + secs(20), 1);
        pace.wait(start + secs(500));
        let left = pace.deadline().unwrap() - start;
        assert!(left > secs(509) && left < secs(511), "{left:?}");
        // This process was stopped, and what has come meanwhile is there.
        pace.came(start + secs(900), 1 << 20);
        pace.wait(start + secs(900));
        assert!(pace.deadline().unwrap() > start + secs(915));
        pace.end();
        assert_eq!(pace.deadline(), None);
    }
}
