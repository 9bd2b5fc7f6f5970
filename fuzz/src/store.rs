//! The logs of a queue. Whatever bytes are in their files, to open them gives what is whole or a refusal. Whatever is
//! done with them and wherever the process or the machine dies, what was promised is there, and of what was being
//! written all or nothing.
//!
//! The data is a byte that says which of both, and then files or operations.

mod disk;
mod model;

use bytes::Bytes;
use tradewind_store::{
    Control, ControlOptions, LogOptions, Medium, QueueMedia, RecordLog, RecordOptions, Tasks,
    TasksOptions, check,
};

use self::disk::Disk;
use self::model::Model;

/// Id of logs.
const ID: u64 = 7;

const LOG: LogOptions = LogOptions { segment_bytes: 400, zeroed_bytes: 100 };
const TASKS: TasksOptions = TasksOptions { log: LOG, keys: LOG, keys_max: 50 };
const RECORDS: RecordOptions = RecordOptions { log: LOG, index_seqs: 16 };
const CONTROL: ControlOptions = ControlOptions { log: LOG, changes_bytes_min: 300 };

pub fn store(mut data: &[u8]) {
    match super::byte(&mut data) {
        flags if flags & 1 == 0 => files(data),
        flags => Model::play(flags >> 1, data),
    }
}

/// Opens what is made of any bytes, twice.
fn files(mut data: &[u8]) {
    let disk = Disk::new(ID, false, true);
    let mut media = disk.media();
    while !data.is_empty() {
        write(&mut media, &mut data);
    }
    // It tells of what is amiss, and changes nothing.
    assert_eq!(check(disk.media()), check(disk.media()));
    let first = read_all(&disk);
    if first.iter().all(Result::is_ok) {
        assert_eq!(read_all(&disk), first, "what is there is there the next time");
    }
}

/// Reads all of the task log, the record log and the control log; says of each what is there, or why not.
fn read_all(disk: &Disk) -> [Result<String, String>; 3] {
    let media = disk.media();
    let tasks = || {
        let opened = Tasks::open(media.tasks, media.keys, ID, TASKS, 0);
        let (mut tasks, found) = opened.map_err(|error| error.to_string())?;
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let read = tasks.read(from, 300).map_err(|error| error.to_string())?;
            let Some((last, _)) = read.last() else { break };
            assert!(*last >= from && *last < tasks.committed());
            from = last + 1;
            all.extend(read);
        }
        Ok(format!("{:?} {:?} {all:?}", found.ranges, tasks.committed()))
    };
    let records = || {
        let opened = RecordLog::open(media.records, media.index, ID, RECORDS);
        let (mut records, found) = opened.map_err(|error| error.to_string())?;
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let (read, next) = records.read(from, 300).map_err(|error| error.to_string())?;
            if read.is_empty() {
                break;
            }
            assert!(next > from);
            from = next;
            all.extend(read);
        }
        // A log that was made up may have what its last checkpoint does not know of.
        for (_, record) in &all {
            records.get(record.seq).map_err(|error| error.to_string())?;
        }
        records.not_ok().map_err(|error| error.to_string())?;
        Ok(format!("{:?} {:?} {all:?}", found.ranges, records.committed()))
    };
    let control = || {
        let opened = Control::open(media.control, ID, CONTROL);
        let (control, found) = opened.map_err(|error| error.to_string())?;
        Ok(format!("{:?} {:?}", found.ranges, control.state()))
    };
    [tasks(), records(), control()]
}

/// Writes a file of one of the directories, or appends to it.
fn write(media: &mut QueueMedia<disk::Part>, data: &mut &[u8]) {
    let kind = super::byte(data);
    let (medium, number) = match kind % 5 {
        0 => (&mut media.tasks, 1_u16),
        1 => (&mut media.records, 2),
        2 => (&mut media.control, 3),
        3 => (&mut media.keys, 4),
        _ => (&mut media.index, 0),
    };
    let last = medium.segments().expect("memory does not fail").last().copied();
    let is_new = kind & 0x80 != 0 || last.is_none();
    let segment = match is_new {
        true => last.map_or(0, |last| last + 1) + u64::from(super::byte(data) % 16),
        false => last.unwrap_or(0),
    };
    if is_new {
        medium.create(segment).expect("it is a new one");
    }
    let length = usize::from(super::byte(data)).min(data.len());
    let (body, rest) = data.split_at(length);
    *data = rest;
    let bytes = match (kind >> 5) & 3 {
        _ if number == 0 => body.to_vec(),
        0 if is_new => header(number, segment),
        0 | 1 => batch(body, segment),
        2 => [if is_new { header(number, segment) } else { Vec::new() }, batch(body, segment)]
            .concat(),
        _ => body.to_vec(),
    };
    let at = medium.len(segment).expect("it is there");
    medium.write_at(segment, at, &bytes).expect("there is room");
    medium.sync(segment).expect("memory does not fail");
}

/// Header of a segment.
fn header(kind: u16, first: u64) -> Vec<u8> {
    let mut bytes = b"TWINDLOG".to_vec();
    bytes.extend_from_slice(&1_u16.to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&ID.to_le_bytes());
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.resize(64, 0);
    bytes
}

/// A batch with checksums that are right: its first byte says at which position and with which marks, the rest is
/// entries, each after its length.
fn batch(mut data: &[u8], segment: u64) -> Vec<u8> {
    let flags = super::byte(&mut data);
    let mut body = Vec::new();
    let mut count = 0_u32;
    while !data.is_empty() {
        let length = usize::from(super::byte(&mut data)).min(data.len());
        body.extend_from_slice(&(length as u32).to_le_bytes());
        body.extend_from_slice(&data[..length]);
        data = &data[length..];
        count += 1;
    }
    let bytes = body.len() as u32;
    body.resize(body.len().next_multiple_of(8), 0);
    let mut head = b"TWB1".to_vec();
    // Some say other numbers than those of what they have.
    let off = u32::from(flags == 0xff);
    head.extend_from_slice(&bytes.wrapping_sub(off).to_le_bytes());
    head.extend_from_slice(&(segment + u64::from(flags >> 3)).to_le_bytes());
    head.extend_from_slice(&count.wrapping_add(off).to_le_bytes());
    head.extend_from_slice(
        &crc32fast::hash(&body[..(bytes - off.min(bytes)) as usize]).to_le_bytes(),
    );
    head.extend_from_slice(&u32::from(flags & 7).to_le_bytes());
    let mut sum = crc32fast::Hasher::new();
    sum.update(&ID.to_le_bytes());
    sum.update(&head);
    head.extend_from_slice(&sum.finalize().to_le_bytes());
    head.extend_from_slice(&body);
    head
}

/// Bytes that differ by a number.
fn text(number: u8) -> Bytes {
    vec![b'a' + number % 26; usize::from(number % 40)].into()
}
