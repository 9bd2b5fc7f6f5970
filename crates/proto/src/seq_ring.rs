//! A table of values by seq, for a window that moves up.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::{Seq, SeqRange};

/// Values by seq, from a base upwards.
///
/// The values lie in pages, and a page is there only while it has values: one of a thousand workers
/// holds a few batches, far apart. Most pages lie in a window, which may begin far above the base: that
/// stays at a task that takes long. Pages that are too far from the others lie apart, so that memory is
/// bounded by the values, whatever their seqs are.
#[derive(Debug)]
pub(crate) struct SeqRing<T> {
    base: Seq,
    pages: VecDeque<Option<Page<T>>>,
    /// Number of the window's first page.
    first_page: u64,
    /// Pages outside the window when their first value came, by number.
    apart: BTreeMap<u64, Page<T>>,
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

/// Number of places for pages in the window: of half a million seqs.
const WINDOW_PAGES_MAX: u64 = 4096;

impl<T> SeqRing<T> {
    pub(crate) fn new() -> Self {
        Self {
            base: Seq(0),
            pages: VecDeque::new(),
            first_page: 0,
            apart: BTreeMap::new(),
            spare: Vec::new(),
            count: 0,
        }
    }

    /// Returns the number of values.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns the number of the page after the window.
    fn window_end(&self) -> u64 {
        self.first_page + self.pages.len() as u64
    }

    /// Returns the page of a seq, counted from the first of the window, and the place on it; `None`
    /// below the base or the window.
    fn place(&self, seq: Seq) -> Option<(usize, usize)> {
        let page = (seq.0 / PAGE_SEQS).checked_sub(self.first_page)?;
        (seq >= self.base).then_some((page as usize, (seq.0 % PAGE_SEQS) as usize))
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&T> {
        if let Some((page, slot)) = self.place(seq)
            && let Some(Some(page)) = self.pages.get(page)
        {
            return page.slots[slot].as_ref();
        }
        self.apart.get(&(seq.0 / PAGE_SEQS))?.slots[(seq.0 % PAGE_SEQS) as usize].as_ref()
    }

    pub(crate) fn get_mut(&mut self, seq: Seq) -> Option<&mut T> {
        let slot = (seq.0 % PAGE_SEQS) as usize;
        if let Some((page, slot)) = self.place(seq)
            && let Some(Some(page)) = self.pages.get_mut(page)
        {
            return page.slots[slot].as_mut();
        }
        self.apart.get_mut(&(seq.0 / PAGE_SEQS))?.slots[slot].as_mut()
    }

    /// Puts a value at `seq` and returns the one that was there. A seq below the base is ignored:
    /// the caller that moved the base does not need it any more.
    // One call of it is hot, the others are rare: the compiler would inline none.
    #[inline(always)]
    pub(crate) fn insert(&mut self, seq: Seq, value: T) -> Option<T> {
        let number = seq.0 / PAGE_SEQS;
        if number < self.first_page
            || number - self.first_page >= WINDOW_PAGES_MAX
            || self.pages.is_empty()
            || !self.apart.is_empty()
        {
            if seq < self.base {
                return None;
            }
            if !self.make_room(number) {
                return self.insert_apart(seq, value);
            }
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
        if !self.apart.is_empty()
            && let Some(old) = self.remove_apart(seq)
        {
            return Some(old);
        }
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

    /// Makes room in the window for a page, unless that is to lie apart. Pages far below it are put
    /// apart: seqs mostly ascend.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, page: u64) -> bool {
        if self.apart.contains_key(&page) {
            return false;
        }
        while let Some(first) = self.pages.front_mut()
            && page >= self.first_page + WINDOW_PAGES_MAX
        {
            if let Some(first) = first.take() {
                self.apart.insert(self.first_page, first);
            }
            self.trim();
        }
        if self.pages.is_empty() {
            self.first_page = page;
        }
        if page < self.first_page && self.window_end() - page > WINDOW_PAGES_MAX {
            return false;
        }
        while self.first_page > page {
            self.pages.push_front(None);
            self.first_page -= 1;
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn insert_apart(&mut self, seq: Seq, value: T) -> Option<T> {
        let page = self.apart.entry(seq.0 / PAGE_SEQS).or_insert_with(Page::new);
        let old = page.slots[(seq.0 % PAGE_SEQS) as usize].replace(value);
        if old.is_none() {
            page.count += 1;
            self.count += 1;
        }
        old
    }

    #[cold]
    #[inline(never)]
    fn remove_apart(&mut self, seq: Seq) -> Option<T> {
        let number = seq.0 / PAGE_SEQS;
        let page = self.apart.get_mut(&number)?;
        let old = page.slots[(seq.0 % PAGE_SEQS) as usize].take()?;
        page.count -= 1;
        self.count -= 1;
        if page.count == 0 {
            self.apart.remove(&number);
        }
        Some(old)
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
        if !self.apart.is_empty() {
            self.remove_range_apart(range);
        }
        let first = Seq(self.first_page * PAGE_SEQS).max(self.base);
        let range = range.clamped(first, Seq(self.window_end() * PAGE_SEQS));
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

    fn remove_range_apart(&mut self, range: SeqRange) {
        if range.start >= range.end {
            return;
        }
        let numbers = range.start.0 / PAGE_SEQS..=(range.end.0 - 1) / PAGE_SEQS;
        let mut empty = Vec::new();
        for (number, page) in self.apart.range_mut(numbers) {
            let first = Seq(number * PAGE_SEQS);
            let inside = range.clamped(first, Seq(first.0 + PAGE_SEQS));
            let held = page.count;
            page.clear((inside.start.0 - first.0) as usize..(inside.end.0 - first.0) as usize);
            self.count -= held - page.count;
            if page.count == 0 {
                empty.push(*number);
            }
        }
        for number in empty {
            self.apart.remove(&number);
        }
    }

    /// Forgets everything below `seq`.
    pub(crate) fn advance_to(&mut self, seq: Seq) {
        if seq <= self.base {
            return;
        }
        if !self.apart.is_empty() {
            self.remove_range_apart(SeqRange { start: self.base, end: seq });
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
        let mut pages: Vec<(u64, &Page<T>)> =
            pages.filter_map(|(number, page)| Some((number, page.as_ref()?))).collect();
        if !self.apart.is_empty() {
            pages.extend(self.apart.iter().map(|(number, page)| (*number, page)));
            pages.sort_unstable_by_key(|(number, _)| *number);
        }
        pages.into_iter().flat_map(|(number, page)| {
            let slots = (number * PAGE_SEQS..).zip(&page.slots);
            slots.filter_map(|(seq, slot)| Some((Seq(seq), slot.as_ref()?)))
        })
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
            // In some, seqs are so far apart that few of them fit into the window.
            let far = if seed % 2 == 0 { 1 } else { WINDOW_PAGES_MAX / 3 };
            for value in 0..500 {
                let seq = base + rng.u64(0..5 * PAGE_SEQS) * far;
                match rng.u8(0..20) {
                    0 => {
                        base += rng.u64(0..3 * PAGE_SEQS) * rng.u64(0..=far);
                        ring.advance_to(Seq(base));
                        naive = naive.split_off(&base);
                    }
                    1 => {
                        let end = Seq(seq + rng.u64(0..3 * PAGE_SEQS) * far);
                        ring.remove_range(SeqRange { start: Seq(seq), end });
                        naive.retain(|other, _| !(seq..end.0).contains(other));
                    }
                    2..10 => assert_eq!(ring.remove(Seq(seq)), naive.remove(&seq), "seed {seed}"),
                    _ => assert_eq!(ring.insert(Seq(seq), value), naive.insert(seq, value)),
                }
                assert_eq!(ring.count(), naive.len(), "seed {seed}");
                assert_eq!(ring.get(Seq(seq)), naive.get(&seq), "seed {seed}");
                assert!(!matches!(ring.pages.front(), Some(None)), "seed {seed}: nothing in front");
                assert!(ring.pages.len() as u64 <= WINDOW_PAGES_MAX, "seed {seed}: memory");
                assert!(ring.apart.values().all(|page| page.count > 0), "seed {seed}: apart");
                let all = ring.iter().map(|(seq, value)| (seq.0, *value));
                assert!(all.eq(naive.iter().map(|(s, v)| (*s, *v))), "seed {seed}");
                if let Some(below) = base.checked_sub(1) {
                    assert_eq!(ring.insert(Seq(below), value), None, "seed {seed}");
                    assert_eq!(ring.get(Seq(below)), None, "seed {seed}");
                }
            }
        }
    }

    // Fails if there is a place for every page between two values.
    #[test]
    fn values_far_apart_take_no_memory_for_what_is_between() {
        let mut ring = SeqRing::new();
        let taken = allocation_counter::measure(|| {
            for seq in [crate::limits::SEQS_MAX - 1, 0, 1 << 35, 1 << 50, 7] {
                assert_eq!(ring.insert(Seq(seq), seq), None);
            }
        });
        assert!(taken.bytes_max < 1 << 20, "{} bytes", taken.bytes_max);
        let values: Vec<u64> = ring.iter().map(|(_, value)| *value).collect();
        assert_eq!(values, [0, 7, 1 << 35, 1 << 50, crate::limits::SEQS_MAX - 1]);
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
