//! Checks that the places in which the dispatcher keeps the same fact agree.

use super::Dispatcher;
use super::ledger::{LedgerBug, TaskState};

impl Dispatcher {
    /// Plants a bug, to prove that tests find it.
    #[doc(hidden)]
    pub fn plant(&mut self, bug: LedgerBug) {
        self.ledger.plant(bug);
    }

    /// Panics if the machine contradicts itself. Does nothing in a build without debug assertions:
    /// it looks at every task that is kept.
    pub fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.ledger.check_invariants(&self.roster);
        self.roster.check_invariants();
        for (seq, entry) in self.ledger.live() {
            let is_due = self.is_due(seq);
            match entry.state() {
                TaskState::Idle => assert!(!is_due, "{seq} is to be dispatched and waits nowhere"),
                TaskState::Fresh | TaskState::Requeued => assert!(is_due, "{seq} is of no job"),
                _ => {}
            }
        }
        for worker in self.roster.values() {
            let end = worker.out.end();
            assert!(end <= self.ledger.end(), "{} holds what is unheard of", worker.name);
        }
        self.suspicions.check_invariants(&self.ledger);
    }
}
