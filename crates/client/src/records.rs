//! Records as a stream that survives the server.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{self, BoxStream, Stream, StreamExt};
use hyper::header::{ACCEPT, HeaderValue};
use tokio::time::{Instant, sleep};
use tracing::warn;
use tradewind_proto::message::Status;
use tradewind_queue::{ConsumerName, NameError, QueueName};

use crate::answer::{self, Record};
use crate::client::Client;
use crate::error::Error;
use crate::exchange::{Ask, Backoff, Reply};
use crate::problem::{Problem, ProblemKind};

/// Time without a byte after which events are asked for again: a server says every 15 s that it is there.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Bytes of the longest line of an answer.
const LINE_BYTES_MAX: usize = 256 << 20;

/// Which records of a queue are asked for; by default all that are kept.
///
/// ```
/// use tradewind_client::{Status, Wanted};
///
/// let failures = Wanted::default().after(99).status(Status::Failed).follow();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    after: Option<u64>,
    partition: Option<u32>,
    consumer: Option<ConsumerName>,
    status: Option<Status>,
    follows: bool,
}

impl Wanted {
    /// Asks for those after a position.
    #[must_use]
    pub fn after(self, position: u64) -> Self {
        Self { after: Some(position), ..self }
    }

    /// Asks for those after the position of a consumer, which is made if it is not there: with
    /// [`Keep::Consumed`](crate::Keep::Consumed) its records are kept from then on. The position is set by
    /// [`Client::set_consumer`] alone, after the records were used.
    ///
    /// # Errors
    ///
    /// When the name is none.
    pub fn consumer(self, consumer: &str) -> Result<Self, NameError> {
        Ok(Self { consumer: Some(consumer.parse()?), ..self })
    }

    /// Asks for those of a partition, where the queue has several: each has positions of its own.
    #[must_use]
    pub fn partition(self, partition: u32) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// Asks for those with a status.
    #[must_use]
    pub fn status(self, status: Status) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Does not end with the last record that there is, but waits for more.
    #[must_use]
    pub fn follow(self) -> Self {
        Self { follows: true, ..self }
    }
}

/// Records of a queue, by their positions.
///
/// When the connection ends, or the server, the stream is asked for again from the position of its last record:
/// without an end if it follows, else for [`Options::patience`](crate::Options::patience). It ends after its
/// first error. One is of the kind [`RecordsGone`](ProblemKind::RecordsGone): records after its position are
/// no longer kept.
pub struct Records(BoxStream<'static, Result<Record, Error>>);

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Records")
    }
}

impl Stream for Records {
    type Item = Result<Record, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl Records {
    pub(crate) fn new(client: Client, queue: QueueName, wanted: Wanted) -> Self {
        let reader = Reader {
            client,
            queue,
            after: wanted.after,
            wanted,
            is_begun: false,
            reply: None,
            parser: Parser::default(),
            records: VecDeque::new(),
            had_records: false,
            backoff: Backoff::default(),
            is_lost: false,
            failing: Duration::ZERO,
        };
        let stream = stream::unfold(Some(reader), async |reader| {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(record)) => Some((Ok(record), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Self(stream.boxed())
    }
}

/// Returns records of a queue, as soon as there are any or this time is over, and the position of the last that was
/// looked at.
pub(crate) async fn page(
    client: &Client,
    queue: QueueName,
    wanted: Wanted,
    (records_max, bytes_max): (usize, usize),
    wait: Duration,
) -> Result<(Vec<Record>, Option<u64>), Error> {
    let link = client.link();
    let until = Instant::now() + wait;
    let wanted = wanted.follow();
    let (mut records, mut through, mut bytes) = (Vec::new(), wanted.after, 0);
    let mut parser = Parser { is_events: true, ..Parser::default() };
    let mut reply = link.open(&ask(&queue, &wanted, wanted.after)).await?;
    // The first event is there at once, though it may only say how far this is.
    let mut silence = link.options.answer_timeout;
    let mut has_begun = false;
    loop {
        let part = match link.part(&mut reply, silence).await {
            Err(Error::Timeout { .. }) if has_begun && parser.is_between() => None,
            part => part?,
        };
        let Some(part) = part else { break };
        has_begun = true;
        parser.push(&part);
        while let Some(event) = parser.next().map_err(|what| link.odd(what))? {
            match event {
                Event::Record(record) => {
                    bytes += record.json().len();
                    through = Some(record.position);
                    records.push(record);
                }
                Event::Through(position) => through = Some(position),
                Event::Problem(problem) if records.is_empty() => {
                    return Err(Error::Problem(problem));
                }
                Event::Problem(_) => return Ok((records, through)),
            }
            if records.len() >= records_max || bytes >= bytes_max {
                return Ok((records, through));
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        if !records.is_empty() || (left.is_zero() && parser.is_between()) {
            break;
        }
        silence = if parser.is_between() { left } else { link.options.answer_timeout };
    }
    Ok((records, through))
}

struct Reader {
    client: Client,
    queue: QueueName,
    wanted: Wanted,
    /// Position of the last record that was looked at.
    after: Option<u64>,
    /// Whether the consumer's position was asked for.
    is_begun: bool,
    reply: Option<Reply>,
    parser: Parser,
    /// Records that were read.
    records: VecDeque<Record>,
    /// Whether the present answer had a record.
    had_records: bool,
    backoff: Backoff,
    /// Whether it was said that the connection is lost.
    is_lost: bool,
    /// Time of the pauses since the last byte.
    failing: Duration,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Record>, Error> {
        if !self.is_begun {
            self.begin().await?;
            self.is_begun = true;
        }
        loop {
            if let Some(record) = self.records.pop_front() {
                self.after = Some(record.position);
                return Ok(Some(record));
            }
            match self.read().await {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => self.recover(error).await?,
            }
        }
    }

    /// Begins where the consumer is.
    async fn begin(&mut self) -> Result<(), Error> {
        let Some(consumer) = &self.wanted.consumer else { return Ok(()) };
        let (queue, consumer) = (self.queue.as_str(), consumer.as_str());
        self.after = match self.client.consumer(queue, consumer).await {
            Err(error) if error.is(ProblemKind::UnknownConsumer) => {
                self.client.set_consumer(queue, consumer, self.after).await?;
                self.after
            }
            position => position?,
        };
        Ok(())
    }

    /// Reads some of the answer, or asks for one. Returns whether there is more.
    async fn read(&mut self) -> Result<bool, Error> {
        let link = self.client.link();
        let mut reply = match self.reply.take() {
            Some(reply) => reply,
            None => {
                self.parser = Parser { is_events: self.wanted.follows, ..Parser::default() };
                self.had_records = false;
                link.open(&ask(&self.queue, &self.wanted, self.after)).await?
            }
        };
        let silence = match self.wanted.follows {
            true => SILENCE_MAX.max(link.options.answer_timeout),
            false => link.options.answer_timeout,
        };
        let part = link.part(&mut reply, silence).await?;
        self.backoff = Backoff::default();
        self.failing = Duration::ZERO;
        self.is_lost = false;
        let Some(part) = part else {
            // A server that ends stops early, and its answer has its end all the same: only one without
            // a record is the last.
            if self.wanted.follows {
                sleep(self.backoff.next()).await;
            }
            return Ok(self.wanted.follows || self.had_records);
        };
        self.reply = Some(reply);
        self.parser.push(&part);
        while let Some(event) = self.parser.next().map_err(|what| link.odd(what))? {
            match event {
                Event::Record(record) => {
                    self.had_records = true;
                    self.records.push_back(record);
                }
                Event::Through(position) => {
                    // Where there are records before it, the last of them says so.
                    if self.records.is_empty() {
                        self.after = Some(position);
                    }
                }
                Event::Problem(problem) => {
                    self.reply = None;
                    // What was read before it is not lost.
                    if self.records.is_empty() || problem.is_transient() {
                        return Err(Error::Problem(problem));
                    }
                }
            }
        }
        Ok(true)
    }

    /// Waits until it may be asked again, or returns the error if that is of no use.
    async fn recover(&mut self, error: Error) -> Result<(), Error> {
        self.reply = None;
        // The connection ended amid a line, or after some that are whole: these are records.
        let link = self.client.link();
        if !error.is_transient() || !link.was_reached() {
            return if self.records.is_empty() { Err(error) } else { Ok(()) };
        }
        let pause = self.backoff.next().max(error.retry_after().unwrap_or_default());
        self.failing += pause;
        if !self.wanted.follows && self.failing > link.options.patience {
            return Err(error);
        }
        if self.records.is_empty() {
            if !self.is_lost {
                warn!(queue = %self.queue, %error, "records are asked for again");
                self.is_lost = true;
            }
            sleep(pause).await;
        }
        Ok(())
    }
}

/// Returns the request for records of a queue after a position.
fn ask(queue: &QueueName, wanted: &Wanted, after: Option<u64>) -> Ask {
    let mut path = format!("/v1/queues/{queue}/records");
    let after = after.map(|after| format!("after={after}"));
    let status = wanted.status.map(|status| format!("status={}", status.as_str()));
    let partition = wanted.partition.map(|partition| format!("partition={partition}"));
    for (at, param) in after.into_iter().chain(partition).chain(status).enumerate() {
        path.push(if at == 0 { '?' } else { '&' });
        path += &param;
    }
    let ask = Ask::get(path);
    match wanted.follows {
        true => ask.header(ACCEPT, HeaderValue::from_static("text/event-stream")),
        false => ask,
    }
}

/// What an answer has.
#[derive(Debug, PartialEq)]
enum Event {
    Record(Record),
    /// Position of the last record that was looked at.
    Through(u64),
    Problem(Box<Problem>),
}

/// Takes an answer apart: lines of JSON, or server-sent events, as a queue's server writes them.
#[derive(Debug, Default)]
struct Parser {
    is_events: bool,
    buffer: BytesMut,
    /// Bytes of the buffer that hold no end of a line.
    searched: usize,
    /// Of the present event.
    id: Option<u64>,
    name: Bytes,
    data: Option<Bytes>,
}

impl Parser {
    fn push(&mut self, part: &[u8]) {
        self.buffer.extend_from_slice(part);
    }

    /// Returns whether no part of an event is there.
    fn is_between(&self) -> bool {
        self.buffer.is_empty() && self.id.is_none() && self.data.is_none()
    }

    /// Returns the next event that is whole.
    fn next(&mut self) -> Result<Option<Event>, String> {
        while let Some(line) = self.line()? {
            if !self.is_events {
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(Event::Record(answer::record(&line)?)));
            }
            if !line.is_empty() {
                self.field(&line)?;
                continue;
            }
            let (id, data) = (self.id.take(), self.data.take());
            let name = std::mem::take(&mut self.name);
            match (id, data) {
                (_, Some(data)) if name == "problem" => {
                    return Ok(Some(Event::Problem(Box::new(Problem::parse(None, None, &data)))));
                }
                // An event of a newer server.
                (_, Some(_)) if !name.is_empty() => {}
                (_, Some(data)) => return Ok(Some(Event::Record(answer::record(&data)?))),
                (Some(id), None) => return Ok(Some(Event::Through(id))),
                (None, None) => {}
            }
        }
        Ok(None)
    }

    fn line(&mut self) -> Result<Option<Bytes>, String> {
        let rest = &self.buffer[self.searched..];
        let Some(at) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return match self.searched <= LINE_BYTES_MAX {
                true => Ok(None),
                false => Err(format!("a line is longer than {LINE_BYTES_MAX} bytes")),
            };
        };
        let mut line = self.buffer.split_to(self.searched + at);
        self.buffer.advance(1);
        self.searched = 0;
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Ok(Some(line.freeze()))
    }

    fn field(&mut self, line: &Bytes) -> Result<(), String> {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.slice((colon + 1).min(line.len())..);
        let value = if value.first() == Some(&b' ') { value.slice(1..) } else { value };
        match &line[..colon] {
            b"id" => {
                let text = std::str::from_utf8(&value).unwrap_or_default();
                let id = text.parse().map_err(|_| format!("an event has the id {text:?}"))?;
                self.id = Some(id);
            }
            b"event" => self.name = value,
            b"data" => self.data = Some(value),
            // A comment, or a field of a newer server.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what a parser finds in a text that comes in parts of this size.
    fn events(is_events: bool, text: &str, size: usize) -> Result<Vec<String>, String> {
        let mut parser = Parser { is_events, ..Parser::default() };
        let mut found = Vec::new();
        for part in text.as_bytes().chunks(size) {
            parser.push(part);
            while let Some(event) = parser.next()? {
                found.push(match event {
                    Event::Record(record) => record.id.to_string(),
                    Event::Through(position) => format!("through {position}"),
                    Event::Problem(problem) => problem.detail,
                });
            }
        }
        Ok(found)
    }

    #[test]
    fn an_answer_may_be_cut_anywhere() {
        let record = |at: u64| format!(r#"{{"position":{at},"id":"q-{at}","status":"ok"}}"#);
        let lines = format!("{}\n\n{}\r\n{}", record(0), record(1), record(2));
        let sse = format!(
            ": hello\nid: 0\ndata: {}\n\nid: 5\n\n:\n\nretry: 1\nevent: news\ndata: x\n\nid: 6\ndata:{}\r\n\r\n\
             event: problem\ndata: {{\"type\":\"urn:tradewind:closed\",\"detail\":\"why\"}}\n\nid: 7\ndata: {}\n",
            record(0),
            record(6),
            record(7)
        );
        for size in 1..100 {
            // A line without its end is not whole.
            assert_eq!(events(false, &lines, size).unwrap(), ["q-0", "q-1"], "{size}");
            assert_eq!(
                events(true, &sse, size).unwrap(),
                ["q-0", "through 5", "q-6", "why"],
                "{size}"
            );
        }
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        assert!(events(false, "<html>\n", 9).is_err());
        assert!(events(true, "id: x\n\n", 9).is_err());
        assert!(events(true, "data: x\n\n", 9).is_err());
    }
}
