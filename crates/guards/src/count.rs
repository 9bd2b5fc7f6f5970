//! Cost of a task: the difference between two runs of a loop.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;
use tradewind_guards::{BATCH_TASKS, Cost, Loop, TASKS};

use crate::callgrind::{Profile, profile};

/// Counts of a loop.
pub(crate) struct Counted {
    /// Instructions for a task.
    pub(crate) instructions: f64,
    /// Allocations for a batch.
    pub(crate) allocations: f64,
}

impl Counted {
    /// Returns whether the counts are above the bound.
    pub(crate) fn is_over(&self, bound: &Cost) -> bool {
        self.instructions > bound.instructions || self.allocations > bound.allocations
    }
}

/// Counts the loops, as many at once as there are processors: they cannot disturb the counts.
pub(crate) fn count_all(loops: &[Loop]) -> Result<Vec<Counted>> {
    let threads = thread::available_parallelism()?.get();
    let next = AtomicUsize::new(0);
    let count_some = || -> Result<Vec<(usize, Counted)>> {
        let places = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let mine = places.map_while(|place| Some((place, loops.get(place)?)));
        mine.map(|(place, each)| Ok((place, count(each)?))).collect()
    };
    let mut counted = thread::scope(|scope| -> Result<Vec<_>> {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(count_some)).collect();
        let mut all = Vec::new();
        for thread in running {
            all.extend(thread.join().expect("counting does not panic")?);
        }
        Ok(all)
    })?;
    counted.sort_by_key(|(place, _)| *place);
    Ok(counted.into_iter().map(|(_, counted)| counted).collect())
}

fn count(each: &Loop) -> Result<Counted> {
    let Profile { instructions, allocations } = profile(each.name, TASKS)?;
    let longer = profile(each.name, 2 * TASKS)?;
    let batches = (TASKS / BATCH_TASKS) as f64;
    Ok(Counted {
        instructions: (longer.instructions - instructions) as f64 / TASKS as f64,
        allocations: (longer.allocations - allocations) as f64 / batches,
    })
}
