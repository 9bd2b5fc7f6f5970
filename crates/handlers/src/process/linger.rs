//! Time that the output of a command which has exited is waited for.
//!
//! Programs that it has started may still hold its pipes: the `tee` of `exec > >(tee log)`, whose output is
//! the command's, or a daemon, whose output is not. While members of its group are there, what
//! they write is waited for until nothing has come for a while. How long that is depends on whether
//! they are at work: on a loaded machine even `cat` may take a second. Knows no process and no clock.

use std::time::{Duration, Instant};

use super::group::Others;

/// Time without a byte after which nothing more is waited for, while all members sleep.
const QUIET_MAX: Duration = Duration::from_millis(300);

/// The same while some of them are at work.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// Time after the command's end from which output does not belong to it any more.
const TOTAL_MAX: Duration = Duration::from_secs(10);

/// The first wait before the group is looked at; it doubles with each look.
const LOOK_AFTER_MIN: Duration = Duration::from_millis(5);

const LOOK_AFTER_MAX: Duration = Duration::from_millis(100);

/// A command that has exited, and whose pipes others hold.
///
/// Time counts only as far as the group was looked at in it: where this thread waits for a processor
/// for long, so may they.
#[derive(Debug)]
pub(crate) struct Linger {
    /// Time that counts, since the command's exit.
    elapsed: Duration,
    /// When a byte was seen last, of that time.
    heard: Duration,
    /// When a member was last seen at work, of that time.
    busy: Duration,
    has_output: bool,
    ticks: u64,
    looked_at: Instant,
    look_after: Duration,
}

impl Linger {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            elapsed: Duration::ZERO,
            heard: Duration::ZERO,
            busy: Duration::ZERO,
            has_output: false,
            ticks: 0,
            looked_at: now,
            look_after: LOOK_AFTER_MIN,
        }
    }

    /// Records that bytes have arrived since the last look.
    pub(crate) fn handle_output(&mut self) {
        self.has_output = true;
    }

    /// Returns the time of the next look at the group.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.looked_at + self.look_after
    }

    /// Records the state of the group. Returns whether nothing more is to be waited for.
    pub(crate) fn handle_others(&mut self, now: Instant, others: Others) -> bool {
        self.elapsed += now.duration_since(self.looked_at).min(self.look_after);
        self.looked_at = now;
        self.look_after = (2 * self.look_after).min(LOOK_AFTER_MAX);
        if std::mem::take(&mut self.has_output) {
            self.heard = self.elapsed;
        }
        match others {
            // The process that holds the pipes has left the group, as a daemon does.
            Others::None => return true,
            Others::Busy => self.busy = self.elapsed,
            Others::Asleep { ticks } => {
                if ticks > self.ticks && self.ticks > 0 {
                    self.busy = self.elapsed;
                }
                self.ticks = ticks;
            }
        }
        self.elapsed - self.heard.max(self.busy) >= QUIET_MAX
            || self.elapsed - self.heard >= BUSY_MAX
            || self.elapsed >= TOTAL_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From which millisecond on nothing more is waited for, if this is seen of the group and these
    /// are the times at which something comes.
    #[track_caller]
    fn check(expected_ms: std::ops::Range<u64>, others: impl Fn(u64) -> Others, heard: &[u64]) {
        let start = Instant::now();
        let mut linger = Linger::new(start);
        for ms in 0..20_000 {
            let now = start + Duration::from_millis(ms);
            if heard.contains(&ms) {
                linger.handle_output();
            }
            if now >= linger.poll_timeout() && linger.handle_others(now, others(ms)) {
                assert!(expected_ms.contains(&ms), "after {ms} ms");
                return;
            }
        }
        panic!("it is waited for ever");
    }

    #[test]
    fn output_is_waited_for_as_long_as_it_may_come() {
        let asleep = |_| Others::Asleep { ticks: 1 };
        // A silent daemon, and one that has left the group.
        check(300..420, asleep, &[]);
        check(5..6, |_| Others::None, &[]);
        check(50..160, |ms| if ms < 50 { asleep(ms) } else { Others::None }, &[]);
        // One that writes now and then, and one that writes all the time.
        check(600..720, asleep, &[100, 300]);
        let always: Vec<u64> = (0..20_000).collect();
        check(10_000..10_120, asleep, &always);
        // One that has not had a processor yet, or computes.
        check(5_000..5_120, |_| Others::Busy, &[]);
        check(1_200..1_520, |ms| if ms < 1_050 { Others::Busy } else { asleep(ms) }, &[]);
        check(1_200..1_520, |ms| Others::Asleep { ticks: 1 + ms.min(1_050) / 50 }, &[]);
    }

    /// A thread that had no processor for a second has not seen that nothing came for a second.
    #[test]
    fn time_in_which_the_group_was_not_looked_at_does_not_count() {
        let start = Instant::now();
        let mut linger = Linger::new(start);
        let looks = (1..).map(|second| start + Duration::from_secs(second));
        let mut over = looks.map(|now| linger.handle_others(now, Others::Asleep { ticks: 1 }));
        assert_eq!(
            over.position(|is_over| is_over),
            Some(6),
            "after 5, 10, 20, 40, 80, 100 and 100 ms"
        );
    }
}
