//! A sink's records, read back.

use serde_json::Value;

/// A line of jsonl.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The task.
    pub seq: u64,
    /// Status with which it ended.
    pub status: String,
    /// Its last attempt.
    pub attempt: u64,
    /// Name of the worker that ran it.
    pub worker: String,
    /// Text that it wrote, if it is text.
    pub output: Option<String>,
    /// Reason of a failure.
    pub error: String,
    /// All of it.
    pub json: Value,
}

/// Reads jsonl, sorted by seq.
///
/// # Panics
/// When there is anything but one record for each of `total` tasks.
#[must_use]
#[track_caller]
pub fn records(jsonl: &[u8], total: u64) -> Vec<Record> {
    let text = std::str::from_utf8(jsonl).expect("jsonl is text");
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is torn");
    let mut records: Vec<Record> = text.lines().map(Record::parse).collect();
    records.sort_by_key(|record| record.seq);
    let seqs: Vec<u64> = records.iter().map(|record| record.seq).collect();
    if !seqs.iter().copied().eq(0..total) {
        let missing: Vec<u64> = (0..total).filter(|seq| !seqs.contains(seq)).collect();
        let doubled: Vec<u64> =
            seqs.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        panic!(
            "{} records of {total} tasks; missing {missing:?}, twice {doubled:?}",
            records.len()
        );
    }
    records
}

impl Record {
    #[track_caller]
    fn parse(line: &str) -> Self {
        let json: Value = serde_json::from_str(line).expect("a line is JSON");
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        Self {
            seq: json["seq"].as_u64().expect("seq is a number"),
            status: text("status").expect("status is a text"),
            attempt: json["attempt"].as_u64().expect("attempt is a number"),
            worker: text("worker").expect("worker is a text"),
            output: text("output"),
            error: text("error").unwrap_or_default(),
            json,
        }
    }
}

/// The sink's line about the job, such as `3 tasks: 2 ok, 1 failed`, without the time it took.
#[must_use]
pub fn summary_counts(stderr: &str) -> Option<&str> {
    let line = stderr.lines().find(|line| line.contains(" task") && line.contains(", in "))?;
    line.rsplit_once(", in ").map(|(counts, _)| counts)
}
