//! The tasks by seq. A settled task costs only its part of a range.

use std::collections::{BTreeMap, VecDeque};

use super::entry::{Entry, TaskState};
use super::{LedgerBug, is_planted};
use crate::{Seq, SeqRange, SeqSet};

/// Table of all tasks below an end that moves up.
///
/// Most tasks are settled a little after their neighbours: these lie in a window. A few may take as
/// long as thousands of others. Once more than half of the window is settled, its front is left
/// behind: the tasks there that are not settled go to a map, and the window moves up.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Settled tasks below the window.
    settled: SeqSet,
    /// Tasks below the window that are not settled. A relay's tasks may be missing here as well:
    /// then there is no fact about them.
    behind: BTreeMap<Seq, Entry>,
    window: VecDeque<Entry>,
    /// Seq of the first task in the window.
    start: Seq,
    /// The lowest seq that is not settled.
    base: Seq,
    /// Number of tasks that are neither settled nor absent.
    live: u64,
    /// Number of settled tasks in the window.
    window_settled: u64,
    bug: Option<LedgerBug>,
}

/// Number of vacant places in a window that are no reason to move it up.
const VACANT_MIN: u64 = 1024;

impl Table {
    /// Creates a table in which every task below a seq is settled, and that has no other.
    pub(super) fn starting_at(first: Seq) -> Self {
        let mut table = Self { start: first, base: first, ..Self::default() };
        table.settled.insert_range(SeqRange { start: Seq(0), end: first });
        table
    }

    pub(super) fn end(&self) -> Seq {
        Seq(self.start.0 + self.window.len() as u64)
    }

    pub(super) fn base(&self) -> Seq {
        self.base
    }

    pub(super) fn live(&self) -> u64 {
        self.live
    }

    pub(super) fn settled(&self) -> u64 {
        self.settled.count() + self.window_settled
    }

    pub(super) fn get(&self, seq: Seq) -> Option<&Entry> {
        match seq.0.checked_sub(self.start.0) {
            Some(index) => self.window.get(usize::try_from(index).ok()?),
            None => self.behind.get(&seq),
        }
    }

    /// Returns an entry to change. Changes of whether it is [live](TaskState::is_live) have to be
    /// [counted](Self::add_live).
    pub(super) fn get_mut(&mut self, seq: Seq) -> Option<&mut Entry> {
        match seq.0.checked_sub(self.start.0) {
            Some(index) => self.window.get_mut(usize::try_from(index).ok()?),
            None => self.behind.get_mut(&seq),
        }
    }

    /// Counts tasks that were absent, and are not any more.
    pub(super) fn add_live(&mut self, count: u64) {
        self.live += count;
    }

    /// Counts a task that is absent again.
    pub(super) fn remove_live(&mut self) {
        self.live -= 1;
    }

    pub(super) fn state(&self, seq: Seq) -> Option<TaskState> {
        match self.get(seq) {
            Some(entry) => Some(entry.state),
            None if seq >= self.end() => None,
            None if self.settled.contains(seq) => Some(TaskState::Settled),
            None => Some(TaskState::Absent),
        }
    }

    pub(super) fn push(&mut self, entry: Entry) -> Seq {
        let seq = self.end();
        match entry.state {
            TaskState::Settled => self.window_settled += 1,
            state => self.live += u64::from(state.is_live()),
        }
        self.window.push_back(entry);
        seq
    }

    /// Adds tasks that are settled. Where they are many, the window moves up past them.
    pub(super) fn push_settled(&mut self, count: u64) {
        if count > VACANT_MIN {
            self.leave_behind(usize::MAX);
            let end = Seq(self.start.0 + count);
            self.note_settled(SeqRange { start: self.start, end });
            self.start = end;
            return;
        }
        for _ in 0..count {
            self.push(Entry::settled());
        }
        self.advance();
    }

    /// Makes room for tasks up to an end, absent as yet.
    pub(super) fn reach(&mut self, end: Seq) {
        if end.0 > self.end().0 + self.live.max(VACANT_MIN) {
            self.leave_behind(usize::MAX);
            self.start = end;
        }
        while self.end() < end {
            self.window.push_back(Entry::absent());
        }
        self.advance();
    }

    /// Makes an entry for each task of a range that has none. The next [`reach`](Self::reach) may
    /// remove it again, unless it holds a fact then.
    pub(super) fn fill(&mut self, range: SeqRange) {
        if range.start >= self.start {
            return;
        }
        let range = range.clamped(Seq(0), self.start);
        for seq in self.settled.gaps(range).into_iter().flat_map(SeqRange::seqs) {
            self.behind.entry(seq).or_insert_with(Entry::absent);
        }
    }

    /// Returns the entries of a range that lie in the window, to change as by
    /// [`get_mut`](Self::get_mut). `None` if the range begins below.
    pub(super) fn window_mut(
        &mut self,
        range: SeqRange,
    ) -> impl Iterator<Item = (Seq, &mut Entry)> {
        let is_inside = range.start >= self.start;
        let inside = range.clamped(self.start, if is_inside { self.end() } else { self.start });
        let indices = self.index(inside.start)..self.index(inside.end);
        inside.seqs().zip(self.window.range_mut(indices))
    }

    /// Calls a function with each entry in a range, ascending.
    pub(super) fn for_each(&mut self, range: SeqRange, mut then: impl FnMut(Seq, &mut Entry)) {
        if range.start < self.start && !self.behind.is_empty() {
            for (seq, entry) in self.behind.range_mut(range.start..range.end) {
                then(*seq, entry);
            }
        }
        let inside = range.clamped(self.start, self.end());
        for (seq, entry) in self.window_mut(inside) {
            then(seq, entry);
        }
    }

    fn index(&self, seq: Seq) -> usize {
        (seq.0 - self.start.0) as usize
    }

    /// Settles all tasks of a range, after a function was called for each that was not settled.
    pub(super) fn settle(&mut self, range: SeqRange, mut then: impl FnMut(Seq, &mut Entry)) {
        if range.start < self.start {
            let below = range.clamped(Seq(0), self.start);
            let seqs = self.behind.range(below.start..below.end).map(|(seq, _)| *seq);
            for seq in seqs.collect::<Vec<_>>() {
                if let Some(mut entry) = self.behind.remove(&seq) {
                    self.live -= u64::from(entry.state.is_live());
                    then(seq, &mut entry);
                }
            }
            self.settled.insert_range(below);
            self.base = self.settled.first_missing();
        }
        let inside = range.clamped(self.start, self.end());
        let (mut count, mut live) = (0, 0);
        for (seq, entry) in self.window_mut(inside) {
            if entry.state != TaskState::Settled {
                count += 1;
                live += u64::from(entry.state.is_live());
                then(seq, entry);
                entry.state = TaskState::Settled;
            }
        }
        self.window_settled += count;
        self.live -= live;
    }

    /// Moves the window up to the first task that is not settled, or past it if most are.
    pub(super) fn advance(&mut self) {
        let front = self.window.iter().take_while(|entry| entry.state == TaskState::Settled);
        let count = front.count();
        if count > 0 {
            // As nearly always: every task in front is settled.
            self.window.drain(..count);
            let end = Seq(self.start.0 + count as u64);
            self.window_settled -= count as u64;
            self.note_settled(SeqRange { start: self.start, end });
            self.start = end;
        }
        while self.is_sparse() {
            let is_settled = |entry: &Entry| entry.state == TaskState::Settled;
            let unsettled = self.window.iter().take_while(|entry| !is_settled(entry)).count();
            let settled = self.window.iter().skip(unsettled).take_while(|entry| is_settled(entry));
            let count = unsettled + settled.count();
            self.leave_behind(count);
        }
    }

    /// Returns whether more than half of the window is settled or absent.
    fn is_sparse(&self) -> bool {
        let live = self.live.saturating_sub(self.behind.len() as u64);
        let vacant = (self.window.len() as u64).saturating_sub(live);
        vacant > VACANT_MIN && vacant > live
    }

    /// Moves the first tasks out of the window.
    fn leave_behind(&mut self, count: usize) {
        let count = count.min(self.window.len());
        if count == 0 {
            return;
        }
        let mut run = SeqRange { start: self.start, end: self.start };
        for entry in self.window.drain(..count) {
            let seq = self.start;
            self.start = seq.next();
            if entry.state == TaskState::Settled {
                self.window_settled -= 1;
                if run.end != seq {
                    self.settled.insert_range(run);
                    run.start = seq;
                }
                run.end = self.start;
            } else if is_planted(self.bug, LedgerBug::ForgetStraggler) {
                self.live -= u64::from(entry.state.is_live());
            } else if !entry.is_blank() {
                self.behind.insert(seq, entry);
            }
        }
        self.note_settled(run);
    }

    /// Notes that a range is settled of which no entry is kept.
    fn note_settled(&mut self, range: SeqRange) {
        if !is_planted(self.bug, LedgerBug::ForgetSettled) || self.behind.is_empty() {
            self.settled.insert_range(range);
            self.base = self.settled.first_missing();
        }
    }

    /// Drops all entries from a seq on; calls a function with each.
    pub(super) fn cut_off(&mut self, end: Seq, mut then: impl FnMut(&Entry)) {
        let keep = end.0.saturating_sub(self.start.0) as usize;
        for entry in self.window.drain(keep.min(self.window.len())..) {
            match entry.state {
                TaskState::Settled => self.window_settled -= 1,
                state => self.live -= u64::from(state.is_live()),
            }
            then(&entry);
        }
        for entry in self.behind.split_off(&end).values() {
            self.live -= u64::from(entry.state.is_live());
            then(entry);
        }
        self.settled.remove_range(SeqRange { start: end, end: Seq(u64::MAX) });
        self.start = self.start.min(end);
        self.base = self.base.min(end);
    }

    /// Returns the first task from a seq on that has an entry; it may be settled, or beyond the
    /// end.
    pub(super) fn next_known(&self, seq: Seq) -> Seq {
        if seq >= self.start {
            return seq;
        }
        self.behind.range(seq..).next().map_or(self.start, |(seq, _)| *seq)
    }

    /// Returns the seq from which on no task below a limit was dispatched or has a record.
    pub(super) fn begun(&self, limit: Seq) -> Seq {
        let known = self.iter_rev().skip_while(|(seq, _)| *seq >= limit);
        let mut begun = known.filter(|(_, entry)| entry.is_begun()).map(|(seq, _)| seq.next());
        begun.next().unwrap_or(Seq(0)).max(self.settled.end())
    }

    fn iter_rev(&self) -> impl Iterator<Item = (Seq, &Entry)> {
        let seqs = (self.start.0..self.end().0).rev().map(Seq);
        let behind = self.behind.iter().map(|(seq, entry)| (*seq, entry));
        seqs.zip(self.window.iter().rev()).chain(behind.rev())
    }

    /// Returns entries with their seqs, ascending. Some may be settled.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Seq, &Entry)> {
        let behind = self.behind.iter().map(|(seq, entry)| (*seq, entry));
        behind.chain((self.start.0..).map(Seq).zip(&self.window))
    }

    /// Returns the settled tasks of a range that lie below the window.
    pub(super) fn settled_behind(&self, range: SeqRange) -> Vec<SeqRange> {
        let range = range.clamped(self.base, self.start);
        if range.count() > 0 { self.settled.parts(range) } else { Vec::new() }
    }

    /// Returns the first settled task that is not in a set.
    pub(super) fn first_settled_beyond(&self, has: &SeqSet) -> Option<Seq> {
        if let Some(seq) = self.settled.first_beyond(has) {
            return Some(seq);
        }
        let window = (self.start.0..).map(Seq).zip(&self.window);
        let mut settled = window.filter(|(_, entry)| entry.state == TaskState::Settled);
        settled.find(|(seq, _)| !has.contains(*seq)).map(|(seq, _)| seq)
    }

    /// Returns the number of tasks that have an entry.
    pub(super) fn entries(&self) -> usize {
        self.behind.len() + self.window.len()
    }

    pub(super) fn plant(&mut self, bug: LedgerBug) {
        self.bug = Some(bug);
    }

    pub(super) fn check_invariants(&self) {
        let live = self.iter().filter(|(_, entry)| entry.state.is_live()).count() as u64;
        assert_eq!(self.live, live, "tasks that are kept");
        let is_settled = |entry: &&Entry| entry.state == TaskState::Settled;
        let settled = self.window.iter().filter(is_settled).count() as u64;
        assert_eq!(self.window_settled, settled, "settled tasks in the window");
        assert!(self.settled.end() <= self.start, "settled tasks below the window");
        for (seq, entry) in &self.behind {
            assert!(*seq < self.start, "{seq} lies behind, and in the window");
            assert!(entry.state != TaskState::Settled, "{seq} is settled and kept");
            assert!(!self.settled.contains(*seq), "{seq} is kept, and settled");
        }
        assert_eq!(self.base, self.settled.first_missing(), "the lowest that is not settled");
    }
}
