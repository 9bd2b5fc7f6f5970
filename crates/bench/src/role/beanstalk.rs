//! A producer, a worker and a consumer for beanstalkd. Each sends many requests before it reads the
//! answers, as a good client does: one at a time would measure the network.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const TASKS: &str = "tasks";
const RESULTS: &str = "results";

/// Number of requests under way at once.
pub(super) const BATCH: usize = 256;

/// Time after which the broker gives a worker's task to another.
const TIME_TO_RUN_SECONDS: u64 = 600;

pub(super) fn producer(address: &str, input: &Path) -> Result<()> {
    let mut broker = Broker::connect(address, TASKS, None)?;
    let lines = BufReader::new(File::open(input).context("cannot read the input")?);
    let mut sent = 0;
    for line in lines.split(b'\n') {
        broker.put(&line?)?;
        sent += 1;
        if sent == BATCH {
            broker.expect(sent, "INSERTED")?;
            sent = 0;
        }
    }
    broker.expect(sent, "INSERTED")
}

/// Holds at most this number of tasks at a time. Sleeps the seconds in a task times a factor, if there is
/// one.
pub(super) fn worker(address: &str, batch: usize, slower: Option<f64>) -> Result<()> {
    let mut broker = Broker::connect(address, RESULTS, Some(TASKS))?;
    loop {
        let jobs = broker.reserve(batch)?;
        for job in &jobs {
            if let Some(slower) = slower {
                let seconds: f64 = std::str::from_utf8(&job.body)?.parse()?;
                thread::sleep(Duration::from_secs_f64(slower * seconds));
            }
            broker.put(&job.body)?;
        }
        broker.expect(jobs.len(), "INSERTED")?;
        broker.delete(&jobs)?;
    }
}

pub(super) fn consumer(address: &str, count: usize, output: &Path) -> Result<()> {
    let mut broker = Broker::connect(address, TASKS, Some(RESULTS))?;
    let mut out = BufWriter::new(File::create(output)?);
    let mut seen = 0;
    while seen < count {
        let jobs = broker.reserve(BATCH)?;
        for job in &jobs {
            out.write_all(&job.body)?;
            out.write_all(b"\n")?;
        }
        broker.delete(&jobs)?;
        seen += jobs.len();
    }
    Ok(out.flush()?)
}

/// Connection to the broker.
pub(crate) struct Broker {
    from: BufReader<TcpStream>,
    to: BufWriter<TcpStream>,
}

pub(crate) struct Job {
    id: u64,
    pub(crate) body: Vec<u8>,
}

impl Broker {
    /// Connects as one who puts tasks and waits for their results.
    pub(crate) fn of_client(address: &str) -> Result<Self> {
        Self::connect(address, TASKS, Some(RESULTS))
    }

    /// Puts a task and waits for the first result that there is.
    pub(crate) fn put_and_reserve(&mut self, task: &[u8]) -> Result<Vec<Job>> {
        self.put(task)?;
        self.expect(1, "INSERTED")?;
        self.reserve(1)
    }

    /// Asks a question that the broker answers as soon as it can.
    pub(crate) fn ping(&mut self) -> Result<()> {
        self.to.write_all(b"list-tube-used\r\n")?;
        self.expect(1, "USING")
    }

    /// Connects: puts go to one tube, reserves come from the other.
    fn connect(address: &str, puts: &str, reserves: Option<&str>) -> Result<Self> {
        let stream = TcpStream::connect(address).context("cannot reach beanstalkd")?;
        stream.set_nodelay(true)?;
        let from = BufReader::with_capacity(1 << 16, stream.try_clone()?);
        let to = BufWriter::with_capacity(1 << 16, stream);
        let mut broker = Self { from, to };
        write!(broker.to, "use {puts}\r\n")?;
        broker.expect(1, "USING")?;
        if let Some(tube) = reserves {
            write!(broker.to, "watch {tube}\r\nignore default\r\n")?;
            broker.expect(2, "WATCHING")?;
        }
        Ok(broker)
    }

    fn put(&mut self, body: &[u8]) -> Result<()> {
        write!(self.to, "put 0 0 {TIME_TO_RUN_SECONDS} {}\r\n", body.len())?;
        self.to.write_all(body)?;
        Ok(self.to.write_all(b"\r\n")?)
    }

    /// Reserves at least one job, and at most this number. Only the first is waited for.
    pub(crate) fn reserve(&mut self, most: usize) -> Result<Vec<Job>> {
        self.to.write_all(b"reserve\r\n")?;
        for _ in 1..most {
            self.to.write_all(b"reserve-with-timeout 0\r\n")?;
        }
        self.to.flush()?;
        let mut jobs = Vec::with_capacity(most);
        for _ in 0..most {
            let line = self.line()?;
            let Some(reserved) = line.strip_prefix("RESERVED ") else {
                if line == "TIMED_OUT" {
                    continue;
                }
                bail!("beanstalkd said {line:?}");
            };
            let (id, length) = reserved.split_once(' ').context("an id and a length")?;
            let mut body = vec![0; length.parse::<usize>()? + 2];
            self.from.read_exact(&mut body)?;
            body.truncate(body.len() - 2);
            jobs.push(Job { id: id.parse()?, body });
        }
        Ok(jobs)
    }

    pub(crate) fn delete(&mut self, jobs: &[Job]) -> Result<()> {
        for job in jobs {
            write!(self.to, "delete {}\r\n", job.id)?;
        }
        self.expect(jobs.len(), "DELETED")
    }

    /// Reads this number of answers that begin with this word.
    fn expect(&mut self, count: usize, word: &str) -> Result<()> {
        self.to.flush()?;
        for _ in 0..count {
            let line = self.line()?;
            if !line.starts_with(word) {
                bail!("beanstalkd said {line:?} instead of {word}");
            }
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("beanstalkd has gone");
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}
