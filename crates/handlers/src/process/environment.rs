//! Environment of the commands of a worker.

use std::process::Command;

use tradewind_proto::Slot;
use tradewind_system::OwnVariables;

/// Variables that all commands of a worker have, and those that none has.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// Variables that are meant for the worker.
    own: OwnVariables,
    /// Name of the worker.
    worker: String,
    /// Number of the first slot, as commands see it.
    first_slot: u32,
}

impl Environment {
    pub(crate) fn new(worker: String, first_slot: u32) -> Self {
        Self { own: OwnVariables::find(), worker, first_slot }
    }

    /// Returns a slot as its commands see it.
    pub(crate) fn slot(&self, slot: Slot) -> Slot {
        Slot(self.first_slot.saturating_add(slot.0))
    }

    /// Sets the environment of a command in a slot.
    pub(crate) fn set(&self, command: &mut Command, slot: Slot) {
        self.own.hide_from(command);
        command
            .env("TRADEWIND_SLOT", self.slot(slot).0.to_string())
            .env("TRADEWIND_WORKER", &self.worker);
    }
}
