//! Files of tasks.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::lab::Place;

/// Digits of the number that a task ends in.
const NUMBER_BYTES: usize = 16;

/// File with a task a line, all of the same size.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) tasks: u64,
    /// Bytes of a task, without the newline.
    pub(super) task_bytes: usize,
}

impl Input {
    /// Writes tasks that are numbers, with zeros in front: no shorter than 16 bytes.
    pub(super) fn write(place: &Place, name: &str, tasks: u64, task_bytes: usize) -> Result<Self> {
        let path = place.path(name);
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        let zeros = vec![b'0'; task_bytes.saturating_sub(NUMBER_BYTES)];
        for number in 0..tasks {
            out.write_all(&zeros)?;
            writeln!(out, "{number:0NUMBER_BYTES$}").context("cannot write the tasks")?;
        }
        out.flush().context("cannot write the tasks")?;
        Ok(Self { path, tasks, task_bytes })
    }

    pub(super) fn megabytes(&self) -> f64 {
        self.tasks as f64 * self.task_bytes as f64 / 1e6
    }

    /// Checks that an output is the input, byte for byte.
    pub(super) fn expect_same(&self, output: &Path) -> Result<()> {
        self.expect_as_long(output)?;
        let same = same_bytes(&self.path, output)?;
        if !same {
            bail!("the output is not the input");
        }
        Ok(())
    }

    /// Checks that an output is as long as the input: its order may differ.
    pub(super) fn expect_as_long(&self, output: &Path) -> Result<()> {
        let (expected, found) = (self.path.metadata()?.len(), output.metadata()?.len());
        if expected != found {
            bail!("the output has {found} bytes instead of {expected}");
        }
        Ok(())
    }
}

fn same_bytes(left: &Path, right: &Path) -> Result<bool> {
    use std::io::{BufRead, BufReader};
    let mut left = BufReader::with_capacity(1 << 20, File::open(left)?);
    let mut right = BufReader::with_capacity(1 << 20, File::open(right)?);
    loop {
        let (a, b) = (left.fill_buf()?, right.fill_buf()?);
        let common = a.len().min(b.len());
        if common == 0 {
            return Ok(a.len() == b.len());
        }
        if a[..common] != b[..common] {
            return Ok(false);
        }
        left.consume(common);
        right.consume(common);
    }
}
