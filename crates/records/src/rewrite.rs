//! Rewriting an output: without the records of tasks that run again, or in the order of the input
//! after these have run.
//!
//! Output and joblog are written to new files beside the old ones, with the number of their
//! generation in their names, and then a new journal, with the same number in its claim. All are
//! synced. Then the new journal replaces the old one by one rename, which is the commit. [`settle`]
//! gives the new files the names of the old ones, at the next start if the process is killed before.
//! New files of a generation that the journal does not claim are left over from an attempt that was
//! not committed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Take, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tradewind_proto::message::Status;
use tradewind_proto::{Seq, SeqSet, TaskHash};

use super::file::{OpenFile, sync_directory_of};
use super::journal::{self, Claim, Entry, Kept, Lines};
use super::writer::ENTRY_RECORDS_MAX;
use super::{Fsync, Output, Role, Writer, joblog};

/// Paths of the files. All of them are as the journal says, without a torn end.
#[derive(Debug)]
pub(super) struct Paths {
    pub(super) output: Option<PathBuf>,
    pub(super) joblog: Option<PathBuf>,
    pub(super) journal: PathBuf,
}

/// Records that follow one another in the order of the input, or all if they need not be in it. Each
/// number is a byte of the file at which they begin or end.
#[derive(Debug)]
struct Run {
    journal: u64,
    journal_end: u64,
    output: u64,
    joblog: u64,
}

/// Journal that is to replace the old one.
struct NewJournal<'a> {
    paths: &'a Paths,
    file: OpenFile,
    /// Lines that are not written yet.
    text: Vec<u8>,
    /// Records of tasks that are to run again.
    again: Vec<Kept>,
}

/// Reader of a run, record by record.
struct Cursor {
    entries: Lines<BufReader<Take<File>>>,
    output: BufReader<File>,
    joblog: Option<BufReader<File>>,
    /// Records of the entry that is being read, and number of those that are still to be read.
    records: Vec<Kept>,
    left: usize,
    record: Kept,
    line: Vec<u8>,
    joblog_line: Vec<u8>,
}

/// Seq of a record in the output.
#[derive(Deserialize)]
struct Line {
    seq: u64,
}

/// Rewrites the output and the joblog, in their order, without these records, which are JSON lines.
/// Returns the generation; [`settle`] is to follow. The hashes of the dropped tasks stay in the
/// journal until they have records again; if none are dropped, the output is complete.
pub(super) fn rewrite(paths: &Paths, dropped: &SeqSet) -> io::Result<u64> {
    let is_complete = dropped.is_empty();
    let Some(output) = &paths.output else { return Err(changed("there is no output")) };
    let mut claim = read_claim(&paths.journal)?;
    let mut cursors = Vec::new();
    let mut again = BTreeMap::new();
    if !dropped.is_empty() {
        keep_again(&mut Lines::new(BufReader::new(File::open(&paths.journal)?)), &mut again)?;
    }
    for run in runs(paths)? {
        let mut cursor = Cursor::open(paths, &run)?;
        if cursor.advance()? {
            cursors.push(cursor);
        }
    }

    claim.generation += 1;
    let new_file = |role, old: &Path| {
        let new = OpenFile::create(role, &of_generation(old, claim.generation))?;
        new.set_permissions_of(old)?;
        Ok::<_, io::Error>(new.into_place(Some(0)))
    };
    let new_output = new_file(Role::Output, output)?;
    let new_joblog = paths.joblog.as_ref().map(|path| new_file(Role::Joblog, path)).transpose()?;
    let mut new_journal = OpenFile::create(Role::Journal, &unfinished(&paths.journal))?;
    let mut text = Vec::new();
    claim.encode(&mut text);
    if !is_complete {
        text.extend(spooled_notes(&paths.journal)?);
    }
    new_journal.write_all(&text)?;
    let new_journal = Some(new_journal.into_place(None));
    let mut writer = Writer::new(claim.format, Fsync::None, new_output, new_joblog, new_journal);

    while let Some(first) = (0..cursors.len()).min_by_key(|place| cursors[*place].record.seq) {
        let cursor = &mut cursors[first];
        if dropped.contains(cursor.record.seq) {
            again.insert(cursor.record.seq, cursor.record);
        } else {
            writer
                .write_encoded(cursor.record, &cursor.line, &cursor.joblog_line)
                .map_err(io::Error::other)?;
        }
        if !cursor.advance()? {
            cursors.swap_remove(first);
        }
    }
    let again: Vec<Kept> = again.into_values().collect();
    writer.note_again(&again).map_err(io::Error::other)?;
    writer.finish(is_complete).map_err(io::Error::other)?;
    paths.sync_directories()?;
    fs::rename(unfinished(&paths.journal), &paths.journal)?;
    Ok(claim.generation)
}

/// Deletes these records from the journal, and leaves everything else as it is. The tasks are to run
/// again.
pub(super) fn delete_from_journal(paths: &Paths, deleted: &SeqSet) -> io::Result<()> {
    let (mut old, mut new) = NewJournal::create(paths)?;
    while let Some(mut entry) = next_entry(&mut old)? {
        let mut records = records_of(&entry)?;
        if !entry.is_note() {
            new.again.extend(records.iter().filter(|kept| deleted.contains(kept.seq)));
            records.retain(|kept| !deleted.contains(kept.seq));
            entry.set_records(&records);
        }
        entry.complete = false;
        new.write(&entry)?;
    }
    new.commit()
}

/// Cuts the journal off at this byte. The tasks of the records after it are to run again.
pub(super) fn cut_journal(paths: &Paths, end: u64) -> io::Result<()> {
    let (mut old, mut new) = NewJournal::create(paths)?;
    loop {
        let is_kept = old.at() < end;
        let Some(entry) = next_entry(&mut old)? else { break };
        if is_kept || entry.spooled {
            new.write(&entry)?;
        } else {
            new.again.extend(records_of(&entry)?);
        }
    }
    new.commit()
}

impl<'a> NewJournal<'a> {
    /// Creates a journal with the claim of the old one. Returns the entries of the old one too.
    fn create(paths: &'a Paths) -> io::Result<(Lines<BufReader<File>>, Self)> {
        let mut old = Lines::new(BufReader::new(File::open(&paths.journal)?));
        let claim = next_claim(&mut old)?;
        let file = OpenFile::create(Role::Journal, &unfinished(&paths.journal))?;
        let mut text = Vec::new();
        claim.encode(&mut text);
        Ok((old, Self { paths, file, text, again: Vec::new() }))
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        entry.encode(&mut self.text);
        self.file.write_all(&self.text)?;
        self.text.clear();
        Ok(())
    }

    /// Notes the tasks that are to run again, and replaces the old journal.
    fn commit(self) -> io::Result<()> {
        let Self { paths, mut file, mut text, mut again } = self;
        again.sort_unstable_by_key(|kept| kept.seq);
        again.dedup_by_key(|kept| kept.seq);
        for records in again.chunks(ENTRY_RECORDS_MAX) {
            Entry::again(records).encode(&mut text);
        }
        file.write_all(&text)?;
        super::Device::sync(&mut file)?;
        fs::rename(unfinished(&paths.journal), &paths.journal)?;
        paths.sync_directories()
    }
}

/// Adds the records that were deleted before.
fn keep_again(lines: &mut Lines<impl BufRead>, again: &mut BTreeMap<Seq, Kept>) -> io::Result<()> {
    next_claim(lines)?;
    while let Some(entry) = next_entry(lines)? {
        if entry.again {
            again.extend(records_of(&entry)?.into_iter().map(|kept| (kept.seq, kept)));
        }
    }
    Ok(())
}

/// Returns the notes in a journal about the spool.
fn spooled_notes(journal: &Path) -> io::Result<Vec<u8>> {
    let mut lines = Lines::new(BufReader::new(File::open(journal)?));
    next_claim(&mut lines)?;
    let mut notes = Vec::new();
    while let Some(entry) = next_entry(&mut lines)? {
        if entry.spooled {
            entry.encode(&mut notes);
        }
    }
    Ok(notes)
}

/// Gives the files of the generation that the journal claims their final names, unless they have
/// them, and removes files of other generations. Returns the renamed files, locked.
pub(super) fn settle(paths: &Paths) -> io::Result<Vec<OpenFile>> {
    let generation = read_claim(&paths.journal)?.generation;
    let mut files = Vec::new();
    let named = [(Role::Output, &paths.output), (Role::Joblog, &paths.joblog)];
    for (role, path) in named {
        let Some(path) = path else { continue };
        let new = of_generation(path, generation);
        if generation == 0 || !new.try_exists()? {
            continue;
        }
        let mut file = OpenFile::open(role, &super::OutputTarget::File(new))?;
        if !file.lock()? {
            return Err(ErrorKind::ResourceBusy.into());
        }
        file.rename(path)?;
        files.push(file);
    }
    if !files.is_empty() {
        paths.sync_directories()?;
    }
    paths.clean(generation + 1)?;
    Ok(files)
}

/// Returns whether all records are in the order of the input, if they are to be.
pub(super) fn is_in_order(paths: &Paths) -> io::Result<bool> {
    Ok(runs(paths)?.len() <= 1)
}

impl Paths {
    /// Removes files of this generation that are left over, and an unfinished journal.
    pub(super) fn clean(&self, generation: u64) -> io::Result<()> {
        let files = [&self.output, &self.joblog].into_iter().flatten();
        let mut leftovers: Vec<_> = files.map(|path| of_generation(path, generation)).collect();
        leftovers.push(unfinished(&self.journal));
        for path in leftovers {
            // What is no file is not ours.
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_file() => fs::remove_file(path)?,
                Ok(_) => {}
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn sync_directories(&self) -> io::Result<()> {
        sync_directory_of(&self.journal)?;
        self.joblog.as_deref().map_or(Ok(()), sync_directory_of)
    }
}

fn of_generation(path: &Path, generation: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("{}.{generation}", journal::SUFFIX));
    name.into()
}

fn unfinished(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Returns the runs: each start of a resumed job begins one.
fn runs(paths: &Paths) -> io::Result<Vec<Run>> {
    let mut lines = Lines::new(BufReader::new(File::open(&paths.journal)?));
    let claim = next_claim(&mut lines)?;
    let (mut at, mut output, mut joblog) = (lines.at(), 0, 0);
    let mut runs: Vec<Run> = Vec::new();
    let mut below = 0;
    while let Some(entry) = next_entry(&mut lines)? {
        if !entry.is_note()
            && let (Some((first, _)), Some((_, end))) =
                (entry.records.first(), entry.records.last())
        {
            if runs.is_empty() || (claim.ordered && *first < below) {
                runs.push(Run { journal: at, journal_end: at, output, joblog });
            }
            below = *end;
        }
        at = lines.at();
        if let Some(run) = runs.last_mut() {
            run.journal_end = at;
        }
        output = entry.output.map_or(output, |part| part.end);
        joblog = entry.joblog.map_or(joblog, |part| part.end);
    }
    Ok(runs)
}

impl Cursor {
    fn open(paths: &Paths, run: &Run) -> io::Result<Self> {
        let open = |path: &Path, at: u64| {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(at))?;
            Ok::<_, io::Error>(file)
        };
        let Some(output) = &paths.output else { return Err(changed("there is no output")) };
        let journal = open(&paths.journal, run.journal)?.take(run.journal_end - run.journal);
        let joblog_at = if run.joblog == 0 { joblog::HEADER.len() as u64 } else { run.joblog };
        let joblog = paths.joblog.as_ref().map(|path| open(path, joblog_at)).transpose()?;
        Ok(Self {
            entries: Lines::new(BufReader::new(journal)),
            output: BufReader::new(open(output, run.output)?),
            joblog: joblog.map(BufReader::new),
            records: Vec::new(),
            left: 0,
            record: Kept { seq: Seq(0), hash: TaskHash(0), status: Status::Ok },
            line: Vec::new(),
            joblog_line: Vec::new(),
        })
    }

    /// Reads the next record. Returns false if there is none.
    fn advance(&mut self) -> io::Result<bool> {
        while self.left == 0 {
            let Some(entry) = next_entry(&mut self.entries)? else { return Ok(false) };
            if entry.is_note() {
                continue;
            }
            self.records = records_of(&entry)?;
            self.left = self.records.len();
        }
        self.left -= 1;
        read_line(&mut self.output, &mut self.line)?;
        let Line { seq } = serde_json::from_slice(&self.line)?;
        let place = self.records.binary_search_by_key(&Seq(seq), |kept| kept.seq);
        let place = place.map_err(|_| changed("the journal has no such record"))?;
        self.record = self.records[place];
        if let Some(joblog) = &mut self.joblog {
            read_line(joblog, &mut self.joblog_line)?;
            // The joblog counts from 1.
            let column = self.joblog_line.split(|byte| *byte == b'\t').next().unwrap_or_default();
            if column != (seq + 1).to_string().as_bytes() {
                return Err(changed("the joblog has another order than the output"));
            }
        }
        Ok(true)
    }
}

fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    reader.read_until(b'\n', line)?;
    if line.ends_with(b"\n") { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

fn read_claim(journal: &Path) -> io::Result<Claim> {
    next_claim(&mut Lines::new(BufReader::new(File::open(journal)?)))
}

fn next_claim(lines: &mut Lines<impl BufRead>) -> io::Result<Claim> {
    let Some(Ok(claim)) = lines.next()? else { return Err(changed("the journal has changed")) };
    Ok(claim)
}

fn next_entry(lines: &mut Lines<impl BufRead>) -> io::Result<Option<Entry>> {
    lines.next()?.transpose().map_err(|_| changed("the journal has changed"))
}

fn records_of(entry: &Entry) -> io::Result<Vec<Kept>> {
    entry.records().ok_or_else(|| changed("the journal has changed"))
}

fn changed(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
