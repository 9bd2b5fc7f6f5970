//! A producer, a worker and a consumer for NATS JetStream, as its clients do it: publishes with
//! acknowledgements that are not waited for one by one, and a pull consumer that asks for more when
//! half of what it asked for has come.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::process::PATIENCE;

/// Streams, each with one subject of the same name.
const TASKS: &str = "tasks";
const RESULTS: &str = "results";

/// Durable consumer of the tasks.
const WORKERS: &str = "workers";

/// Number of publishes that are not acknowledged yet: the default of NATS' Go client.
const PENDING_MAX: usize = 4000;

/// Number of messages that a worker asks for at a time.
const PULL: usize = 1000;

/// Begin of the subjects by which messages are acknowledged.
const ACK_PREFIX: &str = "$JS.ACK.";

/// Makes the streams of tasks and results, in files, and the consumer of the tasks.
pub(super) fn set_up(address: &str) -> Result<()> {
    let mut nats = Nats::connect(address)?;
    for stream in [TASKS, RESULTS] {
        nats.request(
            &format!("$JS.API.STREAM.CREATE.{stream}"),
            &format!(
                r#"{{"name":"{stream}","subjects":["{stream}"],"storage":"file","retention":"limits"}}"#
            ),
        )?;
    }
    nats.request(
        &format!("$JS.API.CONSUMER.DURABLE.CREATE.{TASKS}.{WORKERS}"),
        &format!(
            r#"{{"stream_name":"{TASKS}","config":{{"durable_name":"{WORKERS}","ack_policy":"explicit","deliver_policy":"all","replay_policy":"instant","max_ack_pending":-1,"ack_wait":600000000000}}}}"#
        ),
    )
}

pub(super) fn producer(address: &str, input: &Path) -> Result<()> {
    let mut nats = Nats::connect(address)?;
    let lines =
        BufReader::with_capacity(1 << 20, File::open(input).context("cannot read the input")?);
    let mut pending = 0;
    for line in lines.split(b'\n') {
        nats.publish(TASKS, &line?)?;
        pending += 1;
        while pending == PENDING_MAX || (pending > 0 && nats.has_read_more()) {
            nats.acknowledged()?;
            pending -= 1;
        }
    }
    for _ in 0..pending {
        nats.acknowledged()?;
    }
    Ok(())
}

/// Publishes each task as its result, and acknowledges it when that is acknowledged.
pub(super) fn worker(address: &str) -> Result<()> {
    let mut nats = Nats::connect(address)?;
    let mut asked = 0;
    let mut running = VecDeque::new();
    loop {
        if asked <= PULL / 2 {
            nats.pull()?;
            asked += PULL;
        }
        let message = nats.next()?;
        if message.subject == nats.ack_inbox {
            message.expect_acknowledged()?;
            let task: String = running.pop_front().context("a result that nobody sent")?;
            nats.send(&task, None, b"+ACK")?;
        } else if let Some(task) = message.reply {
            asked -= 1;
            nats.publish(RESULTS, &message.payload)?;
            running.push_back(task);
        }
    }
}

pub(super) fn consumer(address: &str, count: usize, output: &Path) -> Result<()> {
    let mut nats = Nats::connect(address)?;
    let mut out = BufWriter::with_capacity(1 << 20, File::create(output)?);
    // Not below the inbox: the server looks for a subscription to exactly this subject.
    let deliver = format!("_INBOX.{:x}", fastrand::u64(..));
    write!(nats.to, "SUB {deliver} 2\r\n")?;
    nats.request(
        &format!("$JS.API.CONSUMER.CREATE.{RESULTS}"),
        &format!(
            r#"{{"stream_name":"{RESULTS}","config":{{"deliver_subject":"{deliver}","ack_policy":"none","deliver_policy":"all","replay_policy":"instant","flow_control":true,"idle_heartbeat":5000000000}}}}"#
        ),
    )?;
    let mut seen = 0;
    while seen < count {
        let message = nats.next()?;
        if message.reply.is_some_and(|reply| reply.starts_with(ACK_PREFIX)) {
            out.write_all(&message.payload)?;
            out.write_all(b"\n")?;
            seen += 1;
        }
    }
    Ok(out.flush()?)
}

/// Connection to a server of NATS.
#[derive(Debug)]
pub(crate) struct Nats {
    from: BufReader<TcpStream>,
    to: BufWriter<TcpStream>,
    /// Begin of the subjects of answers to this connection.
    inbox: String,
    ack_inbox: String,
}

#[derive(Debug)]
struct Message {
    subject: String,
    reply: Option<String>,
    payload: Vec<u8>,
}

impl Nats {
    pub(crate) fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).context("cannot reach NATS")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let from = BufReader::with_capacity(1 << 16, stream.try_clone()?);
        let to = BufWriter::with_capacity(1 << 16, stream);
        let inbox = format!("_INBOX.{:x}", fastrand::u64(..));
        let ack_inbox = format!("{inbox}.ack");
        let mut nats = Self { from, to, inbox, ack_inbox };
        nats.to.write_all(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"lang\":\"rust\",\"version\":\"1\"}\r\n",
        )?;
        write!(nats.to, "SUB {}.> 1\r\nPING\r\n", nats.inbox)?;
        while nats.line()? != "PONG" {}
        Ok(nats)
    }

    /// Asks the API of JetStream.
    fn request(&mut self, subject: &str, json: &str) -> Result<()> {
        let reply = format!("{}.answer", self.inbox);
        self.send(subject, Some(&reply), json.as_bytes())?;
        loop {
            let message = self.next()?;
            if message.subject == reply {
                let answer = String::from_utf8_lossy(&message.payload);
                if answer.contains("\"error\"") {
                    bail!("NATS said {answer}");
                }
                return Ok(());
            }
        }
    }

    fn publish(&mut self, stream: &str, payload: &[u8]) -> Result<()> {
        write!(self.to, "PUB {stream} {} {}\r\n", self.ack_inbox, payload.len())?;
        self.to.write_all(payload)?;
        Ok(self.to.write_all(b"\r\n")?)
    }

    fn acknowledged(&mut self) -> Result<()> {
        self.next()?.expect_acknowledged()
    }

    fn pull(&mut self) -> Result<()> {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{TASKS}.{WORKERS}");
        let reply = format!("{}.tasks", self.inbox);
        let json = format!(r#"{{"batch":{PULL},"expires":{}}}"#, PATIENCE.as_nanos());
        self.send(&subject, Some(&reply), json.as_bytes())
    }

    fn send(&mut self, subject: &str, reply: Option<&str>, payload: &[u8]) -> Result<()> {
        let reply = reply.unwrap_or_default();
        write!(self.to, "PUB {subject} {reply} {}\r\n", payload.len())?;
        self.to.write_all(payload)?;
        Ok(self.to.write_all(b"\r\n")?)
    }

    fn has_read_more(&self) -> bool {
        !self.from.buffer().is_empty()
    }

    /// Returns the next message, and answers what the server wants to know meanwhile.
    fn next(&mut self) -> Result<Message> {
        loop {
            let line = self.line()?;
            let mut words = line.split(' ');
            match words.next() {
                Some("MSG") => {
                    let (subject, reply, payload) = self.message(&words.collect::<Vec<_>>())?;
                    return Ok(Message { subject, reply, payload });
                }
                Some("HMSG") => {
                    let words: Vec<_> = words.collect();
                    let (_, reply, headers) = self.message(&words)?;
                    self.controlled(reply.as_deref(), &headers)?;
                }
                Some("PING") => self.to.write_all(b"PONG\r\n")?,
                _ if line.starts_with("-ERR") => bail!("NATS said {line}"),
                _ => {}
            }
        }
    }

    /// Answers a word of the flow control.
    fn controlled(&mut self, reply: Option<&str>, headers: &[u8]) -> Result<()> {
        let headers = String::from_utf8_lossy(headers);
        if !headers.starts_with("NATS/1.0 100") {
            bail!("NATS said {headers:?}");
        }
        let mut stalled =
            headers.lines().filter_map(|line| line.strip_prefix("Nats-Consumer-Stalled: "));
        match reply.or_else(|| stalled.next()) {
            Some(subject) => self.send(subject, None, b""),
            None => Ok(()),
        }
    }

    /// Reads the rest of a message with these words: subject, id of the subscription, subject of
    /// the answer if there is one, and lengths, of which the last is that of all.
    fn message(&mut self, words: &[&str]) -> Result<(String, Option<String>, Vec<u8>)> {
        let subject = (*words.first().context("a subject")?).to_owned();
        let length: usize = words.last().context("a length")?.parse()?;
        let reply = words.get(2).filter(|word| word.parse::<usize>().is_err());
        let mut payload = vec![0; length + 2];
        self.from.read_exact(&mut payload)?;
        payload.truncate(length);
        Ok((subject, reply.map(|reply| (*reply).to_owned()), payload))
    }

    /// Reads a line; before it waits for one, it sends all that there is to send.
    fn line(&mut self) -> Result<String> {
        if self.from.buffer().is_empty() {
            self.to.flush()?;
        }
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("NATS has gone");
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

impl Message {
    fn expect_acknowledged(&self) -> Result<()> {
        let said = String::from_utf8_lossy(&self.payload);
        if !said.contains("\"seq\"") {
            bail!("NATS did not keep a message: {said}");
        }
        Ok(())
    }
}
