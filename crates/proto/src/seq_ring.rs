//! A dense table of what is known about the seqs of a window that moves up.

use std::collections::VecDeque;

use crate::Seq;

/// Values by seq, from a base upwards.
///
/// Memory is the distance between the base and the highest seq: the reorder window bounds it.
#[derive(Debug)]
pub(crate) struct SeqRing<T> {
    base: Seq,
    slots: VecDeque<Option<T>>,
    count: usize,
}

impl<T> SeqRing<T> {
    pub(crate) fn new() -> Self {
        Self { base: Seq(0), slots: VecDeque::new(), count: 0 }
    }

    /// How many values there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The seq after the highest that has a place.
    pub(crate) fn end(&self) -> Seq {
        Seq(self.base.0 + self.slots.len() as u64)
    }

    fn index(&self, seq: Seq) -> Option<usize> {
        usize::try_from(seq.0.checked_sub(self.base.0)?).ok()
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&T> {
        self.slots.get(self.index(seq)?)?.as_ref()
    }

    /// Puts a value at `seq` and gives the one that was there. A seq below the base is ignored:
    /// whoever moved the base has done with it.
    pub(crate) fn insert(&mut self, seq: Seq, value: T) -> Option<T> {
        let index = self.index(seq)?;
        if index >= self.slots.len() {
            self.slots.resize_with(index, || None);
            self.slots.push_back(Some(value));
            self.count += 1;
            return None;
        }
        let old = self.slots[index].replace(value);
        self.count += usize::from(old.is_none());
        old
    }

    pub(crate) fn remove(&mut self, seq: Seq) -> Option<T> {
        let index = self.index(seq)?;
        let old = self.slots.get_mut(index)?.take();
        self.count -= usize::from(old.is_some());
        old
    }

    /// Forgets everything below `seq`.
    pub(crate) fn advance_to(&mut self, seq: Seq) {
        let Some(distance) = self.index(seq) else { return };
        let gone = self.slots.drain(..distance.min(self.slots.len()));
        self.count -= gone.filter(Option::is_some).count();
        self.base = seq;
    }

    /// All values with their seqs, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Seq, &T)> {
        let base = self.base.0;
        (base..).zip(&self.slots).filter_map(|(seq, slot)| Some((Seq(seq), slot.as_ref()?)))
    }

    /// Forgets everything and begins at 0 again.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_and_go_while_the_base_moves() {
        let mut ring = SeqRing::new();
        assert_eq!(ring.insert(Seq(3), 'c'), None);
        assert_eq!(ring.insert(Seq(1), 'a'), None);
        assert_eq!(ring.insert(Seq(1), 'b'), Some('a'));
        assert_eq!(
            ring.iter().map(|(seq, value)| (seq.0, *value)).collect::<Vec<_>>(),
            [(1, 'b'), (3, 'c')]
        );
        assert_eq!(ring.count(), 2);
        ring.advance_to(Seq(2));
        assert_eq!((ring.get(Seq(1)), ring.get(Seq(3)), ring.count()), (None, Some(&'c'), 1));
        assert_eq!(ring.insert(Seq(1), 'z'), None, "below the base");
        assert_eq!(ring.count(), 1);
        ring.advance_to(Seq(100));
        assert_eq!(ring.count(), 0);
        assert_eq!(ring.insert(Seq(100), 'd'), None);
        assert_eq!(ring.remove(Seq(100)), Some('d'));
        assert_eq!(ring.count(), 0);
    }
}
