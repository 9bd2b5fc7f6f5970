//! Times of the hot loops.

use tradewind_guards::{LOOPS, Loop, TASKS};

fn main() {
    divan::main();
}

#[divan::bench(args = LOOPS, items_count = TASKS)]
fn tasks(each: Loop) {
    (each.run)(TASKS);
}
