//! Who has which partition: processes take what is free up to their share, and give up what is more.

use std::collections::{BTreeMap, BTreeSet};

/// Number of the first lease that says who is there, above those of all partitions.
pub const MEMBERS_FIRST: u32 = 1 << 31;

/// Number of processes that share a queue at the most.
pub const MEMBERS_MAX: u32 = 64;

/// What a process does next about the partitions of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Takes this partition, which nobody has.
    Take(u32),
    /// Gives one of its own up.
    GiveUp,
}

/// Returns what a process does next, by the leases that are held: of partitions, and of those who are there.
///
/// Its part is the number of partitions divided by that of processes. What is free is for those who have less than their
/// part rounded down, and then for those who have less than it rounded up. Who has more gives one up; and so does who has
/// the most where another has too little, of several the first by name.
#[must_use]
pub fn next_step(own: &str, partitions: u32, leases: &BTreeMap<u32, String>) -> Option<Step> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::from([(own, 0)]);
    for (number, owner) in leases {
        let count = counts.entry(owner).or_default();
        *count += u32::from(*number < partitions);
    }
    let members = u32::try_from(counts.len()).unwrap_or(u32::MAX);
    let (least, most) = (partitions / members, partitions.div_ceil(members));
    let mine = counts[own];
    let free = (0..partitions).filter(|number| !leases.contains_key(number));
    let is_short = counts.values().any(|count| *count < least);
    // What is free is for those who have less than the others may have.
    let is_entitled = mine < least || (mine < most && !is_short);
    if is_entitled && let Some(one) = spread(own, free) {
        return Some(Step::Take(one));
    }
    let highest = counts.iter().max_by_key(|(name, count)| (**count, std::cmp::Reverse(**name)));
    let is_next = highest.is_some_and(|(name, _)| *name == own);
    (mine > most || (is_short && mine > least && is_next)).then_some(Step::GiveUp)
}

/// Returns one of these partitions: another one for each process, so that they do not all ask for the same.
fn spread(own: &str, free: impl Iterator<Item = u32>) -> Option<u32> {
    let free: Vec<u32> = free.collect();
    let number = own.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
    free.get(number % free.len().max(1)).copied()
}

/// Returns the number of the lease by which a process says that it is there: the first that nobody has.
#[must_use]
pub fn member_lease(leases: &BTreeMap<u32, String>) -> Option<u32> {
    let taken: BTreeSet<u32> = leases.range(MEMBERS_FIRST..).map(|(number, _)| *number).collect();
    (MEMBERS_FIRST..MEMBERS_FIRST + MEMBERS_MAX).find(|number| !taken.contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes that share partitions, one step at a time.
    struct Play {
        partitions: u32,
        leases: BTreeMap<u32, String>,
    }

    impl Play {
        fn join(&mut self, name: &str) {
            let number = member_lease(&self.leases).unwrap();
            self.leases.insert(number, name.to_owned());
        }

        fn leave(&mut self, name: &str) {
            self.leases.retain(|_, owner| owner != name);
        }

        fn members(&self) -> Vec<String> {
            self.leases.range(MEMBERS_FIRST..).map(|(_, owner)| owner.clone()).collect()
        }

        fn counts(&self) -> BTreeMap<String, u32> {
            let mut counts: BTreeMap<String, u32> =
                self.members().into_iter().map(|name| (name, 0)).collect();
            for (_, owner) in self.leases.range(..self.partitions) {
                *counts.get_mut(owner).expect("who has a partition is there") += 1;
            }
            counts
        }

        /// All look at the same time, and then do what they decided. Returns whether anybody did something.
        fn round(&mut self) -> bool {
            let seen = self.leases.clone();
            let mut is_changed = false;
            for name in self.members() {
                match next_step(&name, self.partitions, &seen) {
                    Some(Step::Take(number)) => {
                        // The first one has it.
                        self.leases.entry(number).or_insert_with(|| name.clone());
                        is_changed = true;
                    }
                    Some(Step::GiveUp) => {
                        let own = self.leases.range(..self.partitions);
                        let mut own = own.filter(|(_, owner)| **owner == name).map(|(it, _)| *it);
                        let number = own.next_back().expect("it has one");
                        self.leases.remove(&number);
                        is_changed = true;
                    }
                    None => {}
                }
            }
            is_changed
        }

        fn settle(&mut self) {
            let rounds = (0..200).take_while(|_| self.round()).count();
            assert!(rounds < 200, "they do not come to rest: {:?}", self.counts());
            let counts = self.counts();
            let members = u32::try_from(counts.len()).unwrap();
            let (least, most) = (self.partitions / members, self.partitions.div_ceil(members));
            assert!(counts.values().all(|count| (least..=most).contains(count)), "{counts:?}");
            assert_eq!(counts.values().sum::<u32>(), self.partitions, "none is left over");
        }
    }

    #[test]
    fn partitions_are_shared_alike_whoever_comes_and_goes() {
        for partitions in [1, 2, 3, 4, 7, 16, 64] {
            let mut play = Play { partitions, leases: BTreeMap::new() };
            let mut rng = fastrand::Rng::with_seed(u64::from(partitions));
            play.join("p0");
            play.settle();
            for number in 1..40 {
                let members = play.members();
                if members.len() > 1 && rng.bool() {
                    play.leave(&members[rng.usize(..members.len())]);
                } else {
                    play.join(&format!("p{number}"));
                }
                play.settle();
            }
        }
    }

    #[test]
    fn who_is_alone_takes_all_and_who_comes_gets_its_part() {
        let mut play = Play { partitions: 4, leases: BTreeMap::new() };
        play.join("a");
        play.settle();
        assert_eq!(play.counts(), BTreeMap::from([("a".into(), 4)]));
        play.join("b");
        play.settle();
        assert_eq!(play.counts(), BTreeMap::from([("a".into(), 2), ("b".into(), 2)]));
    }

    #[test]
    fn leases_of_those_who_are_there_are_no_partitions() {
        let taken = BTreeMap::from([(MEMBERS_FIRST, "a".to_owned())]);
        assert_eq!(member_lease(&taken), Some(MEMBERS_FIRST + 1));
        assert_eq!(next_step("b", 1, &taken), Some(Step::Take(0)));
    }
}
