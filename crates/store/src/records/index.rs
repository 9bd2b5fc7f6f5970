//! Where records are in their log, by seq: flat files.
//!
//! | file | bytes |
//! | --- | --- |
//! | 0 | `TWINDIDX` |
//! | 8 | version, 2 bytes |
//! | 10 | 0, 6 bytes |
//! | 16 | id of the log, 8 bytes |
//! | 24 | first seq, 8 bytes |
//! | 32 | number of seqs, 8 bytes |
//! | 40 | CRC-32 of the bytes before, 4 bytes |
//! | 44 | 0, 20 bytes |
//! | 64 | for each seq: position, 8 bytes; byte at which its batch begins, divided by 8, 4 bytes; CRC-32 of the log's id, the seq and these, 4 bytes |
//!
//! A seq whose 16 bytes are 0 has no record. One with position 0, at which no record is, has one that was
//! removed before the file was made again.
//!
//! All of it can be made again from the log. So nothing of it is promised to survive a crash before a checkpoint
//! says so, and a file whose header is not right is none.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::format::ALIGN;
use tradewind_proto::{Seq, SeqRange, SeqSet};
use tradewind_records::Medium;

/// Version of the format.
const VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"TWINDIDX";
const HEADER_BYTES: u64 = 64;
const ENTRY_BYTES: u64 = 16;

/// Entries that are written at a time.
const WRITE_ENTRIES: usize = 64 << 10;

/// Index of one log.
#[derive(Debug)]
pub(super) struct Index<M> {
    medium: M,
    /// Id of the log.
    id: u64,
    /// Number of seqs in a file.
    file_seqs: u64,
    /// Files whose headers are right.
    files: BTreeSet<u64>,
    /// Files that were changed since they were synced.
    dirty: BTreeSet<u64>,
    /// Highest position in each file, also of those that are yet to be written.
    highest: BTreeMap<u64, u64>,
}

/// Place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: u64,
    pub(super) position: u64,
    /// Byte of its segment at which its batch begins.
    pub(super) batch: u64,
}

/// What the index says about a seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    Found(Place),
    /// There is nothing.
    Nothing,
    /// There is something that was not written so: at this byte of this file.
    Damaged {
        file: u64,
        at: u64,
    },
}

impl<M: Medium> Index<M> {
    pub(super) fn open(mut medium: M, id: u64, file_seqs: u64) -> io::Result<Self> {
        let mut files = BTreeSet::new();
        for file in medium.segments()? {
            let mut header = [0; HEADER_BYTES as usize];
            let read = medium.read_at(file, 0, &mut header)?;
            if header[..read] == header_of(id, file, file_seqs) {
                files.insert(file);
            }
        }
        let (dirty, highest) = (BTreeSet::new(), BTreeMap::new());
        Ok(Self { medium, id, file_seqs, files, dirty, highest })
    }

    /// Returns the files, with the highest position in each.
    pub(super) fn highest(&self) -> &BTreeMap<u64, u64> {
        &self.highest
    }

    /// Returns whether this file is there, and was made to its end.
    pub(super) fn has(&self, file: u64) -> bool {
        self.files.contains(&file)
    }

    /// Notes the files that a checkpoint speaks of.
    pub(super) fn expect(&mut self, highest: BTreeMap<u64, u64>) {
        self.highest = highest;
    }

    /// Returns the files that are to be there and are not.
    pub(super) fn missing(&self) -> BTreeSet<u64> {
        self.highest.keys().filter(|file| !self.files.contains(file)).copied().collect()
    }

    /// Notes that a record is going to be written.
    pub(super) fn note(&mut self, place: Place) {
        let highest = self.highest.entry(place.seq / self.file_seqs).or_default();
        *highest = place.position.max(*highest);
    }

    /// Returns the number of seqs in a file.
    pub(super) fn file_seqs(&self) -> u64 {
        self.file_seqs
    }

    /// Returns the file that a seq is in.
    pub(super) fn file_of(&self, seq: Seq) -> u64 {
        seq.0 / self.file_seqs
    }

    /// Returns the file that a seq is in, and at which byte.
    pub(super) fn place_in_file(&self, seq: Seq) -> (u64, u64) {
        (self.file_of(seq), HEADER_BYTES + seq.0 % self.file_seqs * ENTRY_BYTES)
    }

    /// Writes places, of seqs each of which is there once. May be done again.
    pub(super) fn put(&mut self, places: &mut [Place]) -> io::Result<()> {
        places.sort_unstable_by_key(|place| place.seq);
        let (file_seqs, mut bytes) = (self.file_seqs, Vec::new());
        let is_next =
            |a: &Place, b: &Place| a.seq + 1 == b.seq && a.seq / file_seqs == b.seq / file_seqs;
        for run in places.chunk_by(is_next) {
            let file = run[0].seq / file_seqs;
            self.make(file)?;
            let (_, mut at) = self.place_in_file(Seq(run[0].seq));
            for run in run.chunks(WRITE_ENTRIES) {
                bytes.clear();
                run.iter().for_each(|place| bytes.extend(place.encode(self.id)));
                self.medium.write_at(file, at, &bytes)?;
                at += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Returns the place of a record that was put.
    pub(super) fn get(&mut self, seq: Seq) -> io::Result<Looked> {
        let (file, at) = self.place_in_file(seq);
        if !self.files.contains(&file) {
            return Ok(Looked::Nothing);
        }
        let mut bytes = [0; ENTRY_BYTES as usize];
        let read = self.medium.read_at(file, at, &mut bytes)?;
        if bytes[..read].iter().all(|byte| *byte == 0) {
            return Ok(Looked::Nothing);
        }
        let place = Place::decode(self.id, seq, bytes);
        Ok(place.map_or(Looked::Damaged { file, at }, Looked::Found))
    }

    /// Makes all that was put survive a crash of the machine.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        while let Some(&file) = self.dirty.first() {
            self.medium.sync(file)?;
            self.dirty.remove(&file);
        }
        Ok(())
    }

    /// Begins to make files again, as if the records of all stored seqs were removed. They have no header until
    /// that is [finished](Self::finish).
    pub(super) fn begin_again(&mut self, files: &BTreeSet<u64>, stored: &SeqSet) -> io::Result<()> {
        for &file in files {
            if self.medium.segments()?.contains(&file) {
                self.medium.remove(file)?;
            }
            self.medium.create(file)?;
            self.files.insert(file);
            self.dirty.insert(file);
            for part in stored.parts(self.seqs_of(file)) {
                let mut seqs = part.seqs().map(|seq| seq.0);
                loop {
                    let some = seqs.by_ref().take(WRITE_ENTRIES);
                    let mut places: Vec<_> =
                        some.map(|seq| Place { seq, position: 0, batch: 0 }).collect();
                    if places.is_empty() {
                        break;
                    }
                    self.put(&mut places)?;
                }
            }
        }
        Ok(())
    }

    /// Gives files that were made again their headers.
    pub(super) fn finish(&mut self, files: &BTreeSet<u64>) -> io::Result<()> {
        self.sync()?;
        for &file in files {
            let header = header_of(self.id, file, self.file_seqs);
            self.medium.write_at(file, 0, &header)?;
            self.medium.sync(file)?;
        }
        Ok(())
    }

    /// Removes files of whose seqs all have records, and none of these is at this position or above.
    pub(super) fn remove_below(&mut self, first: u64, stored: &SeqSet) -> io::Result<()> {
        let is_over = |(file, highest): (&u64, &u64)| {
            let SeqRange { start, end } = self.seqs_of(*file);
            let is_full = stored.range_from(start).is_some_and(|range| range.end >= end);
            (*highest < first && is_full).then_some(*file)
        };
        for file in self.highest.iter().filter_map(is_over).collect::<Vec<_>>() {
            if self.medium.segments()?.contains(&file) {
                self.medium.remove(file)?;
            }
            self.files.remove(&file);
            self.dirty.remove(&file);
            self.highest.remove(&file);
        }
        Ok(())
    }

    fn seqs_of(&self, file: u64) -> SeqRange {
        let first = |file: u64| Seq(file.saturating_mul(self.file_seqs));
        SeqRange { start: first(file), end: first(file.saturating_add(1)) }
    }

    /// Creates a file, if it is not there.
    fn make(&mut self, file: u64) -> io::Result<()> {
        if !self.files.contains(&file) {
            if !self.medium.segments()?.contains(&file) {
                self.medium.create(file)?;
            }
            let header = header_of(self.id, file, self.file_seqs);
            self.medium.write_at(file, 0, &header)?;
            self.files.insert(file);
        }
        self.dirty.insert(file);
        Ok(())
    }
}

impl Place {
    fn encode(self, id: u64) -> [u8; ENTRY_BYTES as usize] {
        let batch = u32::try_from(self.batch / ALIGN as u64).expect("segments are smaller");
        let mut bytes = [0; ENTRY_BYTES as usize];
        bytes[..8].copy_from_slice(&self.position.to_le_bytes());
        bytes[8..12].copy_from_slice(&batch.to_le_bytes());
        let crc = crc_of(id, self.seq, &bytes);
        bytes[12..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(id: u64, seq: Seq, bytes: [u8; ENTRY_BYTES as usize]) -> Option<Self> {
        let crc = u32::from_le_bytes(bytes[12..].try_into().expect("four bytes"));
        let position = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        let batch = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
        let place = Self { seq: seq.0, position, batch: u64::from(batch) * ALIGN as u64 };
        (crc == crc_of(id, seq.0, &bytes)).then_some(place)
    }
}

fn crc_of(id: u64, seq: u64, bytes: &[u8; ENTRY_BYTES as usize]) -> u32 {
    // One call for so few bytes takes half as long as one for each part.
    let mut all = [0; 28];
    all[..8].copy_from_slice(&id.to_le_bytes());
    all[8..16].copy_from_slice(&seq.to_le_bytes());
    all[16..].copy_from_slice(&bytes[..12]);
    crc32fast::hash(&all)
}

fn header_of(id: u64, file: u64, file_seqs: u64) -> [u8; HEADER_BYTES as usize] {
    let mut bytes = [0; HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&id.to_le_bytes());
    bytes[24..32].copy_from_slice(&file.saturating_mul(file_seqs).to_le_bytes());
    bytes[32..40].copy_from_slice(&file_seqs.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..40]);
    bytes[40..44].copy_from_slice(&crc.to_le_bytes());
    bytes
}
