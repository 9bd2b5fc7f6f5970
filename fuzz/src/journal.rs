//! Reading a journal back: nothing panics, nothing counts that is not there, and what counts is
//! found again when the rest has been cut off.
//!
//! The data is a byte, the journal's lines without their checksums, a NUL, the output, a NUL, and the
//! joblog.

use tradewind_records::recover;

pub fn journal(mut data: &[u8]) {
    let flags = super::byte(&mut data);
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (lines, output, joblog) = (part(), part(), part());
    let mut journal = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let right = crc32fast::hash(line);
        let crc = if flags & 4 != 0 && line.len() % 16 == 7 { right ^ 1 } else { right };
        journal.extend_from_slice(format!("{crc:08x} ").as_bytes());
        journal.extend_from_slice(line);
        journal.push(b'\n');
    }
    // Torn at its end.
    journal.truncate(journal.len().saturating_sub(usize::from(flags >> 4)));
    let output = (flags & 1 == 0).then_some(output);
    let joblog = (flags & 2 == 0).then_some(joblog);
    let Ok(found) = recover(&journal[..], output, joblog) else { return };
    let journal_end = usize::try_from(found.journal_end).unwrap();
    let cut = |file: Option<&[u8]>, end: u64| {
        let end = usize::try_from(end).unwrap();
        assert!(end <= file.map_or(0, <[u8]>::len), "more counts than there is");
        file.map(|file| file[..end].to_vec())
    };
    let (output, joblog) = (cut(output, found.output_end), cut(joblog, found.joblog_end));
    let again = recover(&journal[..journal_end], output.as_deref(), joblog.as_deref());
    assert_eq!(again.expect("what counts can be read again"), found);
}
