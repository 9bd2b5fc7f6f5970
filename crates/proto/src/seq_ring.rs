//! A table of values by seq, for a window that moves up.

use std::collections::VecDeque;
use std::ops::Range;

use crate::{Seq, SeqRange};

/// Values by seq, from a base upwards.
///
/// The values lie in pages, and a page is there only while it has values: one of a thousand workers
/// holds a few batches, far apart. The first page that is there may lie far above the base, which
/// stays at a task that takes long.
#[derive(Debug)]
pub(crate) struct SeqRing<T> {
    base: Seq,
    pages: VecDeque<Option<Page<T>>>,
    /// Number of the first page.
    first_page: u64,
    /// Empty pages that are kept for later use.
    spare: Vec<Page<T>>,
    count: usize,
}

#[derive(Debug)]
struct Page<T> {
    slots: Box<[Option<T>]>,
    count: usize,
}

/// Number of empty pages that are kept: those of two batches.
const SPARE_PAGES_MAX: usize = 16;

/// Number of seqs on a page. Batches are mostly larger.
const PAGE_SEQS: u64 = 128;

impl<T> SeqRing<T> {
    pub(crate) fn new() -> Self {
        Self { base: Seq(0), pages: VecDeque::new(), first_page: 0, spare: Vec::new(), count: 0 }
    }

    /// Returns the number of values.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns the seq from which on there is no value.
    pub(crate) fn end(&self) -> Seq {
        Seq((self.first_page + self.pages.len() as u64) * PAGE_SEQS)
    }

    /// Returns the page of a seq, counted from the first, and the place on it; `None` below the
    /// base or the first page.
    fn place(&self, seq: Seq) -> Option<(usize, usize)> {
        let page = (seq.0 / PAGE_SEQS).checked_sub(self.first_page)?;
        (seq >= self.base).then_some((page as usize, (seq.0 % PAGE_SEQS) as usize))
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&T> {
        let (page, slot) = self.place(seq)?;
        self.pages.get(page)?.as_ref()?.slots[slot].as_ref()
    }

    /// Puts a value at `seq` and returns the one that was there. A seq below the base is ignored:
    /// the caller that moved the base does not need it any more.
    // One call of it is hot, the others are rare: the compiler would inline none.
    #[inline(always)]
    pub(crate) fn insert(&mut self, seq: Seq, value: T) -> Option<T> {
        if self.pages.is_empty() || seq.0 / PAGE_SEQS < self.first_page {
            self.make_first(seq);
        }
        let (page, slot) = self.place(seq)?;
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let page =
            self.pages[page].get_or_insert_with(|| self.spare.pop().unwrap_or_else(Page::new));
        let old = page.slots[slot].replace(value);
        if old.is_none() {
            page.count += 1;
            self.count += 1;
        }
        old
    }

    pub(crate) fn remove(&mut self, seq: Seq) -> Option<T> {
        let (place, slot) = self.place(seq)?;
        let page = self.pages.get_mut(place)?.as_mut()?;
        let old = page.slots[slot].take()?;
        page.count -= 1;
        self.count -= 1;
        if page.count == 0 {
            let empty = self.pages[place].take();
            self.keep(empty);
            self.trim();
        }
        Some(old)
    }

    /// Makes the page of this seq the first, if the seq may have a value and the existing pages
    /// come after.
    #[cold]
    #[inline(never)]
    fn make_first(&mut self, seq: Seq) {
        let page = seq.0 / PAGE_SEQS;
        if seq < self.base {
            return;
        }
        if self.pages.is_empty() {
            self.first_page = page;
        }
        while self.first_page > page {
            self.pages.push_front(None);
            self.first_page -= 1;
        }
    }

    /// Drops the places of absent pages in front of the first that is there.
    fn trim(&mut self) {
        while let Some(None) = self.pages.front() {
            self.pages.pop_front();
            self.first_page += 1;
        }
    }

    /// Forgets everything in a range.
    pub(crate) fn remove_range(&mut self, range: SeqRange) {
        let first = Seq(self.first_page * PAGE_SEQS).max(self.base);
        let range = range.clamped(first, self.end());
        let mut start = range.start;
        while start < range.end
            && let Some((place, from)) = self.place(start)
        {
            let end = range.end.min(Seq((start.0 / PAGE_SEQS + 1) * PAGE_SEQS));
            let to = from + (end.0 - start.0) as usize;
            if let Some(page) = &mut self.pages[place] {
                let held = page.count;
                page.clear(from..to);
                self.count -= held - page.count;
                if page.count == 0 {
                    let empty = self.pages[place].take();
                    self.keep(empty);
                }
            }
            start = end;
        }
        self.trim();
    }

    /// Forgets everything below `seq`.
    pub(crate) fn advance_to(&mut self, seq: Seq) {
        if seq <= self.base {
            return;
        }
        self.base = seq;
        let base_page = seq.0 / PAGE_SEQS;
        while self.first_page < base_page
            && let Some(gone) = self.pages.pop_front()
        {
            self.first_page += 1;
            if let Some(mut gone) = gone {
                self.count -= gone.count;
                gone.clear(0..PAGE_SEQS as usize);
                self.keep(Some(gone));
            }
        }
        if self.first_page == base_page
            && let Some(place) = self.pages.front_mut()
            && let Some(page) = place
        {
            let held = page.count;
            page.clear(0..(seq.0 % PAGE_SEQS) as usize);
            self.count -= held - page.count;
            if page.count == 0 {
                let empty = place.take();
                self.keep(empty);
            }
        }
        self.trim();
    }

    fn keep(&mut self, empty: Option<Page<T>>) {
        if self.spare.len() < SPARE_PAGES_MAX {
            self.spare.extend(empty);
        }
    }

    /// Returns all values with their seqs, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Seq, &T)> {
        let pages = (self.first_page..).zip(&self.pages);
        pages.filter_map(|(number, page)| Some((number, page.as_ref()?))).flat_map(
            |(number, page)| {
                let slots = (number * PAGE_SEQS..).zip(&page.slots);
                slots.filter_map(|(seq, slot)| Some((Seq(seq), slot.as_ref()?)))
            },
        )
    }

    /// Forgets everything and begins at 0.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

impl<T> Page<T> {
    fn new() -> Self {
        Self { slots: (0..PAGE_SEQS).map(|_| None).collect(), count: 0 }
    }

    fn clear(&mut self, slots: Range<usize>) {
        for slot in &mut self.slots[slots] {
            self.count -= usize::from(slot.is_some());
            *slot = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn behaves_like_a_map_that_forgets_what_is_low() {
        for seed in 0..100 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut ring, mut naive, mut base) = (SeqRing::new(), BTreeMap::new(), 0);
            for value in 0..500 {
                let seq = base + rng.u64(0..5 * PAGE_SEQS);
                match rng.u8(0..20) {
                    0 => {
                        base += rng.u64(0..3 * PAGE_SEQS);
                        ring.advance_to(Seq(base));
                        naive = naive.split_off(&base);
                    }
                    1 => {
                        let end = Seq(seq + rng.u64(0..3 * PAGE_SEQS));
                        ring.remove_range(SeqRange { start: Seq(seq), end });
                        naive.retain(|other, _| !(seq..end.0).contains(other));
                    }
                    2..10 => assert_eq!(ring.remove(Seq(seq)), naive.remove(&seq), "seed {seed}"),
                    _ => assert_eq!(ring.insert(Seq(seq), value), naive.insert(seq, value)),
                }
                assert_eq!(ring.count(), naive.len(), "seed {seed}");
                assert_eq!(ring.get(Seq(seq)), naive.get(&seq), "seed {seed}");
                assert!(!matches!(ring.pages.front(), Some(None)), "seed {seed}: nothing in front");
                assert!(naive.keys().all(|seq| Seq(*seq) < ring.end()), "seed {seed}");
                let all = ring.iter().map(|(seq, value)| (seq.0, *value));
                assert!(all.eq(naive.iter().map(|(s, v)| (*s, *v))), "seed {seed}");
                if let Some(below) = base.checked_sub(1) {
                    assert_eq!(ring.insert(Seq(below), value), None, "seed {seed}");
                    assert_eq!(ring.get(Seq(below)), None, "seed {seed}");
                }
            }
        }
    }

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
