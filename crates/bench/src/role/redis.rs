//! A program that puts tasks into a list of Redis, many with a command.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Number of tasks of a command.
const BATCH: usize = 1000;

/// Lists.
const TASKS: &str = "tasks";
const RESULTS: &str = "results";

/// Connection to Redis.
#[derive(Debug)]
pub(crate) struct Redis {
    from: BufReader<TcpStream>,
    to: BufWriter<TcpStream>,
}

pub(super) fn producer(address: &str, input: &Path) -> Result<()> {
    let mut redis = Redis::connect(address)?;
    let lines =
        BufReader::with_capacity(1 << 20, File::open(input).context("cannot read the input")?);
    let mut lines = lines.split(b'\n').peekable();
    while lines.peek().is_some() {
        let tasks: Vec<Vec<u8>> = lines.by_ref().take(BATCH).collect::<Result<_, _>>()?;
        let command = [b"RPUSH".as_slice(), TASKS.as_bytes()];
        let command: Vec<&[u8]> =
            command.into_iter().chain(tasks.iter().map(Vec::as_slice)).collect();
        redis.send(&command)?;
        if !redis.line()?.starts_with(':') {
            bail!("Redis did not take the tasks");
        }
    }
    Ok(())
}

/// Moves each task to the results.
pub(super) fn worker(address: &str) -> Result<()> {
    let mut redis = Redis::connect(address)?;
    loop {
        redis.ask_for_value(&["BLMOVE", TASKS, RESULTS, "LEFT", "RIGHT", "0"])?;
    }
}

pub(super) fn consumer(address: &str, count: usize, output: &Path) -> Result<()> {
    let mut redis = Redis::connect(address)?;
    let mut out = BufWriter::new(File::create(output)?);
    for _ in 0..count {
        // The name of the list comes with it.
        redis.ask(&["BLPOP", RESULTS, "0"])?;
        redis.value()?;
        out.write_all(&redis.value()?)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

impl Redis {
    pub(crate) fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).context("cannot reach Redis")?;
        stream.set_nodelay(true)?;
        let to = BufWriter::with_capacity(1 << 16, stream.try_clone()?);
        Ok(Self { from: BufReader::new(stream), to })
    }

    fn send(&mut self, command: &[&[u8]]) -> Result<()> {
        write!(self.to, "*{}\r\n", command.len())?;
        for word in command {
            write!(self.to, "${}\r\n", word.len())?;
            self.to.write_all(word)?;
            self.to.write_all(b"\r\n")?;
        }
        Ok(self.to.flush()?)
    }

    /// Sends a command and returns the first line of its answer.
    pub(crate) fn ask(&mut self, command: &[&str]) -> Result<String> {
        self.send(&command.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())?;
        self.line()
    }

    fn ask_for_value(&mut self, command: &[&str]) -> Result<Vec<u8>> {
        self.send(&command.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())?;
        self.value()
    }

    fn value(&mut self) -> Result<Vec<u8>> {
        let line = self.line()?;
        let length = line.strip_prefix('$').with_context(|| format!("Redis said {line}"))?;
        let mut value = vec![0; length.parse::<usize>()? + 2];
        self.from.read_exact(&mut value)?;
        value.truncate(value.len() - 2);
        Ok(value)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("Redis has gone");
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}
