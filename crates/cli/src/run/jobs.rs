//! `-j`: how many tasks run at once, as GNU parallel lets one say it.

use std::str::FromStr;

use tradewind_proto::limits::SLOTS_MAX;

/// Number of tasks that run at once, as it was typed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Jobs {
    /// Number of slots: `8`.
    Count(u32),
    /// Number of slots beyond that of cores: `+2`.
    More(u32),
    /// Number of slots short of that of cores: `-1`.
    Fewer(u32),
    /// Number of slots for a hundred cores: `50%`.
    Percent(f64),
    /// As many as can be: `0`.
    Most,
}

/// The text is no number of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the number of jobs is like 8, +2 or -1 (relative to the cores), 50% (of the cores), or 0 (as \
     many as possible), and at most {SLOTS_MAX}"
)]
pub(super) struct JobsError;

impl Jobs {
    /// Returns the number of slots on a machine with this many cores: 1 to [`SLOTS_MAX`].
    pub(super) fn slots(self, cores: u32) -> u32 {
        let slots = match self {
            Self::Count(count) => count,
            Self::More(more) => cores.saturating_add(more),
            Self::Fewer(fewer) => cores.saturating_sub(fewer),
            // A float too large for u32 becomes the largest.
            Self::Percent(percent) => (f64::from(cores) * percent / 100.0) as u32,
            Self::Most => SLOTS_MAX,
        };
        slots.clamp(1, SLOTS_MAX)
    }
}

impl FromStr for Jobs {
    type Err = JobsError;

    fn from_str(text: &str) -> Result<Self, JobsError> {
        let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse().ok().filter(|count| *count <= SLOTS_MAX).ok_or(JobsError),
            false => Err(JobsError),
        };
        if let Some(more) = text.strip_prefix('+') {
            return number(more).map(Self::More);
        }
        if let Some(fewer) = text.strip_prefix('-') {
            return number(fewer).map(Self::Fewer);
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().ok().filter(|percent: &f64| *percent > 0.0);
            return percent.map(Self::Percent).ok_or(JobsError);
        }
        match number(text)? {
            0 => Ok(Self::Most),
            count => Ok(Self::Count(count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_counted_as_gnu_parallel_counts_them() {
        let check = |text: &str, on_one: u32, on_eight: u32| {
            let jobs: Jobs = text.parse().unwrap();
            assert_eq!((jobs.slots(1), jobs.slots(8)), (on_one, on_eight), "{text}");
        };
        check("1", 1, 1);
        check("4096", 4096, 4096);
        check("+0", 1, 8);
        check("+1", 2, 9);
        check("+4096", 4096, 4096);
        check("-1", 1, 7);
        check("-20", 1, 1);
        check("50%", 1, 4);
        check("100%", 1, 8);
        check("12.5%", 1, 1);
        check("250%", 2, 20);
        check("1e300%", 4096, 4096);
        check("0", 4096, 4096);
        for bad in ["", "+", "-", "%", "x", "1.5", "4097", "++1", "+-1", "-1%", "0%", "nan%", " 1"]
        {
            assert_eq!(bad.parse::<Jobs>(), Err(JobsError), "{bad:?}");
        }
    }
}
