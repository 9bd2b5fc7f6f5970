//! A program that submits to `tradewind serve` and one that reads records, with the Rust client.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use futures::stream::{self, StreamExt, TryStreamExt};
use tradewind_client::{Batch, Client, NewTask, Wanted};

use super::block_on;

/// Number of tasks of a request, as the client's `submit_all` has.
const BATCH: usize = 1000;

/// Number of requests under way at once.
const AT_ONCE: usize = 4;

/// Submits the lines of a file. It ends when all are promised.
pub(super) fn submit(url: &str, queue: &str, input: &Path) -> Result<()> {
    let lines =
        BufReader::with_capacity(1 << 20, File::open(input).context("cannot read the input")?);
    let mut lines = lines.split(b'\n');
    let batches = std::iter::from_fn(|| {
        let batch: Result<Batch, _> =
            lines.by_ref().take(BATCH).map(|line| line.map(NewTask::new)).collect::<Result<_, _>>();
        Some(batch).filter(|batch| batch.as_ref().map_or(true, |batch| !batch.is_empty()))
    });
    block_on(async {
        let client = Client::connect(url)?;
        let submits = stream::iter(batches).map(|batch| {
            let client = &client;
            async move { anyhow::Ok(client.submit_batch(queue, batch?).await?) }
        });
        submits.buffered(AT_ONCE).try_for_each(async |_| Ok(())).await
    })
}

/// Writes the outputs of this number of records, after a position if there is one.
pub(super) fn read(
    url: &str,
    queue: &str,
    after: Option<u64>,
    count: usize,
    output: &Path,
) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(output)?);
    block_on(async {
        let wanted = Wanted::default().follow();
        let wanted = after.into_iter().fold(wanted, Wanted::after);
        let mut records = Client::connect(url)?.records(queue, wanted)?.take(count);
        while let Some(record) = records.try_next().await? {
            out.write_all(&record.output().context("a record without an output")?)?;
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    })
}
