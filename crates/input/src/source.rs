//! What every kind of input gives: chunks of tasks.

use tradewind_proto::Payload;

use super::InputError;

/// Where tasks come from.
pub trait Source {
    /// The next tasks, at least one, or `None` at the end of the input.
    ///
    /// Blocks until there is something to hand on, and then hands on what is there rather than
    /// waiting for more. After an error it may be called again: what was read before is not lost.
    /// After a bad row there is nothing more.
    fn read(&mut self) -> Result<Option<Chunk>, InputError>;
}

/// Tasks that were read together, in the order of the input.
///
/// The long ones are slices of one buffer, which lives until the last of them is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    items: Vec<Item>,
    bytes: u64,
}

/// One task of the input. Its place counts even if it cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The task's payload.
    Task(Payload),
    /// The task was longer than a task may be, and was skipped.
    TooLarge {
        /// Its length.
        bytes: u64,
    },
    /// The task could not be made; its record says why.
    Unfit {
        /// Why.
        reason: String,
    },
}

impl Chunk {
    /// An empty chunk with room for so many tasks.
    #[must_use]
    pub fn with_capacity(tasks: usize) -> Self {
        Self { items: Vec::with_capacity(tasks), bytes: 0 }
    }

    /// Adds a task after the others.
    pub fn push(&mut self, item: Item) {
        if let Item::Task(payload) = &item {
            self.bytes += payload.len() as u64;
        }
        self.items.push(item);
    }

    /// How many tasks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// No tasks?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The length of all payloads together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The tasks, in the order of the input.
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
