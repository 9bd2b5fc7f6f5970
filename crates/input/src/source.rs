//! Chunks of tasks, which every kind of input gives.

use tradewind_proto::dispatcher::TaskLimits;
use tradewind_proto::{Payload, TaskHash};

use super::InputError;

/// Source of tasks.
pub trait Source {
    /// Returns the next tasks, at least one, or `None` at the end of the input.
    ///
    /// Blocks until there is a task, and then returns those that are there rather than wait for
    /// more. After an error it may be called again: tasks that were read before are not lost. After
    /// a bad row there is nothing more.
    ///
    /// # Errors
    ///
    /// When the input cannot be read, or has a row that is not what its format says.
    fn read(&mut self) -> Result<Option<Chunk>, InputError>;
}

/// Tasks that were read together, in the order of the input.
///
/// Long ones are slices of one buffer, which lives until the last of them is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    items: Vec<Item>,
    bytes: u64,
    /// Limits that tasks have of their own, with their places, ascending.
    limits: Vec<(usize, TaskLimits)>,
    /// Hashes of tasks that are not those of their payloads alone, with their places, ascending.
    hashes: Vec<(usize, TaskHash)>,
    /// Numbers of recorded tasks, each with the place of the task that they come before, ascending.
    recorded: Vec<(usize, u64)>,
    is_caught_up: bool,
}

/// One task of the input. Its place counts even if it cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Payload of the task.
    Task(Payload),
    /// The task was too long, and was skipped.
    TooLarge {
        /// Bytes of the task.
        bytes: u64,
    },
    /// The task could not be made; its record has the reason.
    Unfit {
        /// Reason.
        reason: String,
    },
}

impl Chunk {
    /// Creates an empty chunk with room for this number of tasks.
    #[must_use]
    pub fn with_capacity(tasks: usize) -> Self {
        Self { items: Vec::with_capacity(tasks), ..Self::default() }
    }

    /// Adds a task after the others.
    pub fn push(&mut self, item: Item) {
        if let Item::Task(payload) = &item {
            self.bytes += payload.len() as u64;
        }
        self.items.push(item);
    }

    /// Adds a task that has limits of its own after the others.
    pub fn push_limited(&mut self, payload: Payload, limits: TaskLimits) {
        self.limits.push((self.items.len(), limits));
        self.push(Item::Task(payload));
    }

    /// Adds a task after the others that has limits of its own, and a hash that is of its place in the input too.
    pub fn push_at(&mut self, payload: Payload, hash: TaskHash, limits: TaskLimits) {
        self.hashes.push((self.items.len(), hash));
        self.push_limited(payload, limits);
    }

    /// Takes the hashes that are not those of tasks' payloads alone, with their places among all, ascending. Each of
    /// these tasks has limits too.
    pub fn take_hashes(&mut self) -> Vec<(usize, TaskHash)> {
        std::mem::take(&mut self.hashes)
    }

    /// Takes the limits that tasks have of their own, with their places among all, ascending.
    pub fn take_limits(&mut self) -> Vec<(usize, TaskLimits)> {
        std::mem::take(&mut self.limits)
    }

    /// Adds this number of tasks after the others that have their records, of which the sink knows, and that are
    /// not given. They are none of the chunk's [items](Self::iter).
    pub fn push_recorded(&mut self, count: u64) {
        self.recorded.push((self.items.len(), count));
    }

    /// Takes the numbers of recorded tasks, each with the place of the task that they come before, ascending.
    pub fn take_recorded(&mut self) -> Vec<(usize, u64)> {
        std::mem::take(&mut self.recorded)
    }

    /// Says that with this chunk every task is given that was there when the source was opened.
    pub fn set_caught_up(&mut self) {
        self.is_caught_up = true;
    }

    /// Returns whether that was said.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    /// Returns the number of tasks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns whether there are no tasks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns the bytes of all payloads.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the tasks, in the order of the input.
    pub fn iter(&self) -> std::slice::Iter<'_, Item> {
        self.items.iter()
    }
}

impl IntoIterator for Chunk {
    type Item = Item;
    type IntoIter = std::vec::IntoIter<Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a> IntoIterator for &'a Chunk {
    type Item = &'a Item;
    type IntoIter = std::slice::Iter<'a, Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn read(&mut self) -> Result<Option<Chunk>, InputError> {
        (**self).read()
    }
}
