//! How long the hot loops take.

use tradewind_guards::{LOOPS, Loop, TASKS};

/// As in the programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

#[divan::bench(args = LOOPS, items_count = TASKS)]
fn tasks(each: Loop) {
    (each.run)(TASKS);
}
