//! Loop of the sink's output: records in, text and journal out.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use tradewind_proto::Seq;
use tradewind_proto::collector::Records;
use tradewind_records::{
    Destination, Device, Format, Fsync, Output, OutputTarget, Place, Role, Writer,
};

use super::made::{BATCH, PAYLOAD_BYTES, range, results, session};

/// Writes the output of each task.
pub(crate) fn output_lines(tasks: u64) {
    run(tasks, Format::Lines);
}

/// Writes an object for each task.
pub(crate) fn output_jsonl(tasks: u64) {
    run(tasks, Format::Jsonl);
}

fn run(tasks: u64, format: Format) {
    let written = Rc::default();
    let place = |role| Place {
        destination: Destination { role, target: OutputTarget::Stdout },
        device: Void { written: Rc::clone(&written) },
        end: Some(0),
    };
    let (output, journal) = (place(Role::Output), place(Role::Journal));
    let mut writer = Writer::new(format, Fsync::None, output, None, Some(journal));
    let mut records = [Records {
        worker: "worker".into(),
        stage: "".into(),
        results: results(session(1), range(0, BATCH)),
    }];
    for start in (0..tasks).step_by(BATCH as usize) {
        let [Records { results, .. }] = &mut records;
        results.truncate((tasks - start) as usize);
        for (seq, result) in (start..).map(Seq).zip(results) {
            result.seq = seq;
        }
        writer.write(&records).expect("nothing is ever full");
        writer.commit().expect("nothing is ever full");
    }
    assert!(written.get() > tasks * PAYLOAD_BYTES as u64, "every record was written");
}

/// Device that counts bytes.
struct Void {
    written: Rc<Cell<u64>>,
}

impl io::Write for Void {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.update(|written| written + bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Device for Void {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
