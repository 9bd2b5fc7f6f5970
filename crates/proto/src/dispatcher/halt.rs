//! Halting a job before its input ends, because of how its tasks end.

use std::fmt;
use std::str::FromStr;

use super::ledger::TaskState;
use super::{Dispatcher, HaltOn};
use crate::message::Received;
use crate::{Seq, SeqRange, SeqRanges, SeqSet};

/// Ends the job once enough tasks have ended in some way; GNU parallel's `--halt`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Halt {
    /// Treatment of running tasks.
    pub when: HaltWhen,
    /// Ends that count.
    pub on: HaltOn,
    /// Number of such ends.
    pub limit: HaltLimit,
}

/// Treatment of running tasks when a job is halted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaltWhen {
    /// Running tasks are stopped.
    Now,
    /// Running tasks are finished.
    Soon,
}

/// Number of tasks after which the job is halted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HaltLimit {
    /// Number of tasks.
    Count(u64),
    /// Percentage of the ended tasks, and no fewer than [`PERCENT_TASKS_MIN`] tasks.
    Percent(f64),
}

/// Number of tasks below which a percentage means little.
pub const PERCENT_TASKS_MIN: u64 = 3;

/// The text is no halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a halt is now or soon, a comma, and fail, success or done with =N or =N%, as in now,fail=1"
)]
pub struct HaltError;

/// Tasks that may be dispatched before it is known whether the job is to be halted: no task should
/// start after the one that halts the job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Budget {
    /// All tasks.
    Free,
    /// Number of tasks, one fewer than the halt still needs if all of them counted.
    Tasks(u64),
    /// Tasks for which a slot is idle.
    Idle,
    /// Only tasks for which the output waits: a received result may be the one that halts the job.
    Wait,
}

/// Facts about a job that may be halted.
#[derive(Debug)]
pub(super) struct Halting {
    /// Tasks that were received and not stored, and may halt the job.
    pub(super) unstored: SeqSet,
    /// Tasks that may be dispatched before it is known whether the job is to be halted.
    pub(super) budget: Budget,
}

impl Default for Halting {
    fn default() -> Self {
        Self { unstored: SeqSet::new(), budget: Budget::Free }
    }
}

impl Budget {
    /// Returns whether only tasks that start at once may be dispatched.
    pub(super) fn is_idle_only(self) -> bool {
        matches!(self, Self::Idle | Self::Wait)
    }

    pub(super) fn tasks(self) -> Option<u64> {
        match self {
            Self::Tasks(count) => Some(count),
            Self::Free | Self::Idle | Self::Wait => None,
        }
    }
}

impl Halt {
    fn count(&self, failed: u64, done: u64) -> u64 {
        match self.on {
            HaltOn::Fail => failed,
            HaltOn::Success => done.saturating_sub(failed),
            HaltOn::Done => done,
        }
    }

    /// Returns whether the job is to be halted.
    pub(super) fn is_due(&self, failed: u64, done: u64) -> bool {
        let count = self.count(failed, done);
        match self.limit {
            HaltLimit::Count(limit) => count >= limit,
            HaltLimit::Percent(limit) => {
                count >= PERCENT_TASKS_MIN && count as f64 * 100.0 >= limit * done as f64
            }
        }
    }
}

impl Dispatcher {
    /// Returns the number of ends for which the job is to be halted, if it is a number and the job
    /// is not over.
    fn halt_limit(&self) -> Option<(Halt, u64)> {
        let halt = self.config.policy.halt.filter(|_| self.course.stopped.is_none())?;
        match halt.limit {
            HaltLimit::Count(limit) => Some((halt, limit)),
            HaltLimit::Percent(_) => None,
        }
    }

    pub(super) fn halt_budget(&self) -> Budget {
        let Some((halt, limit)) = self.halt_limit() else { return Budget::Free };
        let left = limit.saturating_sub(halt.count(self.sink.failed, self.ledger.settled()));
        let out: u64 = self.roster.values().map(|worker| worker.out.count()).sum();
        let given_up = self.ledger.given_up_in_turn(false).count() as u64;
        let under_way = out + self.halting.unstored.count() + given_up;
        if left > under_way + 1 {
            Budget::Tasks(left - under_way - 1)
        } else if self.halting.unstored.is_empty() && given_up == 0 {
            Budget::Idle
        } else {
            Budget::Wait
        }
    }

    /// Notes received results that may halt the job once they are stored.
    pub(super) fn note_unstored(&mut self, received: &Received, count: u64) {
        let Some((halt, _)) = self.halt_limit() else { return };
        let may_count = match halt.on {
            HaltOn::Fail => received.failed > 0,
            HaltOn::Success => received.failed < count,
            HaltOn::Done => true,
        };
        for range in received.ranges.as_slice() {
            let range = range.clamped(self.ledger.base(), self.dispatched_end());
            for seq in range.seqs().filter(|_| may_count) {
                if !matches!(self.ledger.state(seq), None | Some(TaskState::Settled)) {
                    self.halting.unstored.insert(seq);
                }
            }
        }
    }

    pub(super) fn forget_unstored(&mut self, stored: &SeqRanges) {
        if self.halting.unstored.is_empty() {
            return;
        }
        for range in stored.as_slice() {
            self.halting.unstored.remove_range(*range);
        }
        self.halting.unstored.remove_range(SeqRange { start: Seq(0), end: self.ledger.base() });
    }
}

impl FromStr for Halt {
    type Err = HaltError;

    fn from_str(text: &str) -> Result<Self, HaltError> {
        // The short forms of GNU parallel.
        let text = match text {
            "1" => "soon,fail=1",
            "2" => "now,fail=1",
            text => text,
        };
        let (when, why) = text.split_once(',').ok_or(HaltError)?;
        let (on, limit) = why.split_once('=').unwrap_or((why, "1"));
        let when = match when {
            "now" => HaltWhen::Now,
            "soon" => HaltWhen::Soon,
            _ => return Err(HaltError),
        };
        let on = match on {
            "fail" => HaltOn::Fail,
            "success" => HaltOn::Success,
            "done" => HaltOn::Done,
            _ => return Err(HaltError),
        };
        let limit = match limit.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent) if percent > 0.0 && percent <= 100.0 => HaltLimit::Percent(percent),
                _ => return Err(HaltError),
            },
            None => match limit.parse() {
                Ok(count) if count > 0 => HaltLimit::Count(count),
                _ => return Err(HaltError),
            },
        };
        Ok(Self { when, on, limit })
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.when {
            HaltWhen::Now => "now",
            HaltWhen::Soon => "soon",
        };
        let on = match self.on {
            HaltOn::Fail => "fail",
            HaltOn::Success => "success",
            HaltOn::Done => "done",
        };
        match self.limit {
            HaltLimit::Count(count) => write!(f, "{when},{on}={count}"),
            HaltLimit::Percent(percent) => write!(f, "{when},{on}={percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halt_reads_as_it_is_written() {
        for text in ["now,fail=1", "soon,success=3", "now,done=10%", "soon,fail=0.5%"] {
            assert_eq!(text.parse::<Halt>().map(|halt| halt.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("1".parse::<Halt>().map(|h| h.to_string()), Ok("soon,fail=1".into()));
        assert_eq!("2".parse::<Halt>().map(|h| h.to_string()), Ok("now,fail=1".into()));
        assert_eq!("now,fail".parse::<Halt>().map(|h| h.to_string()), Ok("now,fail=1".into()));
        for bad in ["", "now", "later,fail=1", "now,fail=0", "now,fail=101%", "now,fail=x", "3"] {
            assert_eq!(bad.parse::<Halt>(), Err(HaltError), "{bad:?}");
        }
    }

    #[test]
    fn a_halt_is_due_when_enough_have_ended() {
        let due = |text: &str, failed, done| text.parse::<Halt>().unwrap().is_due(failed, done);
        assert!(!due("now,fail=2", 1, 9) && due("now,fail=2", 2, 9));
        assert!(!due("soon,success=3", 2, 4) && due("soon,success=3", 2, 5));
        assert!(!due("now,done=5", 0, 4) && due("now,done=5", 0, 5));
        assert!(!due("now,fail=50%", 2, 2), "too few to tell");
        assert!(!due("now,fail=50%", 3, 7) && due("now,fail=50%", 3, 6));
    }
}
