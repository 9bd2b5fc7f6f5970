//! Number of faults of each kind and role.

use std::fmt::Write as _;
use std::ops::AddAssign;

use super::{Kind, Role};

/// Faults by kind and by role, in the order of [`Role::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// `kill -9`.
    pub kills: [u64; 3],
    /// SIGSTOP and SIGCONT.
    pub stops: [u64; 3],
    /// Times that it was cut off.
    pub cuts: [u64; 3],
}

impl Tally {
    /// One more.
    pub fn count(&mut self, role: Role, kind: Kind) {
        let counts = match kind {
            Kind::Kill(_) => &mut self.kills,
            Kind::Stop(_) => &mut self.stops,
            Kind::Cut(_) => &mut self.cuts,
        };
        counts[role.index()] += 1;
    }

    /// A row for each role.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{:<12}{:>8}{:>8}{:>8}\n", "", "kills", "stops", "cuts");
        for role in Role::ALL {
            let of = |counts: [u64; 3]| counts[role.index()];
            let (kills, stops, cuts) = (of(self.kills), of(self.stops), of(self.cuts));
            let _ = writeln!(text, "{role:<12}{kills:>8}{stops:>8}{cuts:>8}");
        }
        text
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let pairs = [
            (&mut self.kills, other.kills),
            (&mut self.stops, other.stops),
            (&mut self.cuts, other.cuts),
        ];
        for (mine, theirs) in pairs {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine += theirs;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn faults_are_counted_by_kind_and_role() {
        let mut tally = Tally::default();
        tally.count(Role::Sink, Kind::Kill(Duration::ZERO));
        tally.count(Role::Worker, Kind::Cut(Duration::ZERO));
        let mut sum = tally;
        sum += tally;
        assert_eq!(sum, Tally { kills: [0, 0, 2], stops: [0; 3], cuts: [0, 2, 0] });
        assert_eq!(sum.table().lines().count(), 4);
        assert!(sum.table().contains("sink               2       0       0"), "{}", sum.table());
    }
}
