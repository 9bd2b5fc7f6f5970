//! `--dry-run`: what would be run.

use std::io::{self, BufWriter, ErrorKind, Read, Write};

use tradewind_handlers::Template;
use tradewind_input::{Format, Input, Item, Source};
use tradewind_node::exit::{self, CLOSED, Fatal, INPUT, OK, OUTPUT, OrExit, TASKS_FAILED, say};
use tradewind_proto::{Seq, Slot};
use tradewind_text::payload_bytes_max;

/// Writes each task's command as one line that a shell would read back the same way.
pub(super) fn show<R: Read + Send + 'static>(
    input: Input<R>,
    format: &Format,
    template: &Template,
    message_bytes_max: u64,
    out: impl Write,
) -> exit::Outcome {
    let task_bytes_max = payload_bytes_max(message_bytes_max);
    let mut source = input.tasks(format, usize::try_from(task_bytes_max).unwrap_or(usize::MAX));
    let mut out = BufWriter::new(out);
    let mut code = OK;
    let mut seq = Seq(0);
    while let Some(chunk) = source.read().or_exit(INPUT)? {
        for item in chunk {
            let command = match &item {
                Item::Task(task) => {
                    template.quote(task, seq, Slot(0)).map_err(|error| error.to_string())
                }
                Item::Unfit { reason } => Err(reason.clone()),
                Item::TooLarge { bytes } => Err(format!(
                    "the task has {bytes} bytes, more than the {task_bytes_max} that fit into a \
                     message"
                )),
            };
            match command {
                Ok(mut line) => {
                    line.push(b'\n');
                    out.write_all(&line).map_err(|error| cannot_write(&error))?;
                }
                Err(error) => {
                    say(&format!("tradewind: task {}: {error}", seq.0 + 1));
                    code = TASKS_FAILED;
                }
            }
            seq = seq.next();
        }
        // A user who types the tasks wants to see the command of each at once.
        out.flush().map_err(|error| cannot_write(&error))?;
    }
    Ok(code)
}

fn cannot_write(error: &io::Error) -> Fatal {
    match error.kind() {
        ErrorKind::BrokenPipe => Fatal::new(CLOSED, ""),
        _ => Fatal::new(OUTPUT, format!("cannot write to standard output: {error}")),
    }
}
