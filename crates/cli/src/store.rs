//! `tradewind store`: looks at what `tradewind serve` keeps.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use tradewind_node::exit::{CLOSED, Fatal, OK, OUTPUT, OrExit, Outcome, TASKS_FAILED, USAGE};
use tradewind_serve::{CheckError, Checked, check};
use tradewind_shown::shown;
use tradewind_store::Survey;

/// Look at the files in which `tradewind serve` keeps its queues
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum StoreCommand {
    Check(CheckArgs),
}

const EXAMPLES: &str = "\
Exit codes:
  0  all is well
  1  something is damaged: each place is printed
  2  the directory is none of `tradewind serve`
  4  it cannot be read, or is in use: stop `tradewind serve` first";

/// Read all that is in a directory of queues, and say what is there and what is damaged
///
/// Nothing is changed. Bytes at the end of a log that were being written when the process or the machine died are
/// said to be torn: they were promised to nobody, and go with the next start. Files of the index that are missing, or
/// not made to their end, are made again by it.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
struct CheckArgs {
    /// Directory of the queues, as `tradewind serve --dir` has it
    #[arg(env = "TRADEWIND_DIR", default_value = "tradewind-queues")]
    dir: PathBuf,

    /// Print a JSON object for each queue
    #[arg(long)]
    json: bool,
}

impl StoreArgs {
    pub(crate) fn main(self) -> Outcome {
        let StoreCommand::Check(args) = self.command;
        args.main()
    }
}

impl CheckArgs {
    fn main(self) -> Outcome {
        let checked = check(&self.dir).map_err(|error| {
            let code = if matches!(error, CheckError::NoQueues { .. }) { USAGE } else { OUTPUT };
            Fatal { code, error: error.into() }
        })?;
        let mut out = Vec::new();
        for queue in &checked {
            if self.json { put_json(queue, &mut out) } else { put_text(queue, &mut out) }
        }
        match io::stdout().write_all(&out) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(CLOSED),
            written => written.or_exit(OUTPUT)?,
        }
        let is_well = checked.iter().all(|queue| queue.report.faults.is_empty());
        Ok(if is_well { OK } else { TASKS_FAILED })
    }
}

fn name(queue: &Checked) -> String {
    let name = queue.dir.file_name().unwrap_or_default().to_string_lossy();
    shown(&name).to_string()
}

fn surveys(queue: &Checked) -> [(&'static str, &Survey); 4] {
    let report = &queue.report;
    [
        ("tasks", &report.tasks),
        ("keys", &report.keys),
        ("records", &report.records),
        ("control", &report.control),
    ]
}

fn put_text(queue: &Checked, out: &mut Vec<u8>) {
    let mut line = |text: String| {
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    };
    let faults = &queue.report.faults;
    let verdict = match faults.len() {
        0 => "all is well".to_owned(),
        1 => "1 place is damaged".to_owned(),
        count => format!("{count} places are damaged"),
    };
    line(format!("queue {}: {verdict}", name(queue)));
    for (part, survey) in surveys(queue) {
        let Survey { segments, bytes, entries, torn_bytes, .. } = survey;
        let torn =
            if *torn_bytes > 0 { format!(", {torn_bytes} bytes torn") } else { String::new() };
        line(format!("  {part:8} {entries} entries, {segments} segments, {bytes} bytes{torn}"));
    }
    match queue.report.unmade.len() {
        0 => {}
        1 => line("  index    1 file is made again by the next start".to_owned()),
        count => line(format!("  index    {count} files are made again by the next start")),
    }
    for fault in faults {
        line(format!("  damaged  {}", shown(&fault.to_string())));
    }
}

fn put_json(queue: &Checked, out: &mut Vec<u8>) {
    let mut object = serde_json::Map::new();
    object.insert("queue".to_owned(), name(queue).into());
    for (part, survey) in surveys(queue) {
        let Survey { segments, bytes, entries, torn_bytes, ranges } = survey;
        let ranges: Vec<[u64; 2]> = ranges.iter().map(|range| [range.start, range.end]).collect();
        let survey = serde_json::json!({
            "entries": entries,
            "segments": segments,
            "bytes": bytes,
            "torn_bytes": torn_bytes,
            "positions": ranges,
        });
        object.insert(part.to_owned(), survey);
    }
    let faults = queue.report.faults.iter().map(|fault| {
        serde_json::json!({
            "part": fault.part.as_str(),
            "file": fault.file,
            "at": fault.at,
            "what": fault.what,
        })
    });
    object.insert("faults".to_owned(), faults.collect());
    let unmade = queue.report.unmade.iter().copied().map(serde_json::Value::from);
    object.insert("index_files_to_make".to_owned(), unmade.collect());
    out.extend_from_slice(serde_json::Value::Object(object).to_string().as_bytes());
    out.push(b'\n');
}
