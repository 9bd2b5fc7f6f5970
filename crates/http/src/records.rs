//! Records after a position: as lines of JSON, or as server-sent events.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::try_unfold;
use tokio::time::Instant;
use tradewind_proto::message::Status;

use crate::answers::{record_json, response};
use crate::app::App;
use crate::limits::{PAGE_BYTES, PAGE_RECORDS_MAX};
use crate::ndjson::NDJSON;
use crate::params::{Params, accepts, header, number};
use crate::problem::{Kind, Problem};
use crate::queues::{Page, Queues, Wanted};
use crate::refusal::Refusal;
use tradewind_queue::QueueName;
use tradewind_queue::excerpt;

/// Media type of server-sent events.
pub(crate) const EVENTS: &str = "text/event-stream";

/// A client that reads records. Nothing is read ahead of it: the next page is asked for when it has taken
/// this one.
struct Reader<Q> {
    app: Arc<App<Q>>,
    queue: QueueName,
    after: Option<u64>,
    partition: Option<u32>,
    /// Number of records that it still wants.
    left: u64,
    status: Option<Status>,
    is_events: bool,
    is_over: bool,
}

/// Answers a request for records.
pub(crate) async fn answer<Q: Queues>(
    app: &Arc<App<Q>>,
    queue: QueueName,
    request: &Parts,
) -> Result<Response, Problem> {
    let params =
        Params::parse(request.uri.query(), &["after", "limit", "partition", "wait", "status"])?;
    let is_events = accepts(&request.headers, EVENTS);
    let mut after = params.number("after")?;
    // A browser that connects again asks as before, and says in this header where it was.
    let last = header(&request.headers, "last-event-id")?.filter(|id| !id.is_empty());
    let last = last.map(|id| number("Last-Event-ID", id)).transpose()?;
    if is_events {
        after = last.or(after);
    }
    let left = params.number("limit")?.unwrap_or(u64::MAX);
    if left == 0 {
        return Err(Problem::new(Kind::BadValue, "limit is at least 1"));
    }
    let partition = params.number("partition")?.map(u32::try_from).transpose();
    let partition =
        partition.map_err(|_| Problem::new(Kind::BadValue, "partition is the number of one"))?;
    let status = params.get("status").map(status).transpose()?;
    let wait = app.wait(params.time("wait")?);
    let app = Arc::clone(app);
    let mut reader =
        Reader { app, queue, after, partition, left, status, is_events, is_over: false };
    // The first page is there before the answer begins, so that what is wrong is said in its status.
    let first = match is_events {
        true => reader.events(Duration::ZERO).await,
        false => reader.lines(wait).await,
    };
    let first = first?;
    let heartbeat = reader.app.limits.heartbeat;
    let stream = try_unfold((Some(first), reader), move |(first, mut reader)| async move {
        if let Some(first) = first {
            return Ok::<_, io::Error>(Some((first, (None, reader))));
        }
        if reader.is_over {
            return Ok(None);
        }
        let bytes = match reader.is_events {
            true => reader.events_to_the_end(heartbeat).await,
            // Without its last chunk, the client sees that this is not all.
            false => reader.lines(Duration::ZERO).await.map_err(io::Error::other)?,
        };
        Ok(Some((bytes, (None, reader))))
    });
    let media_type = if is_events { EVENTS } else { NDJSON };
    let mut response = response(StatusCode::OK, media_type, Body::from_stream(stream));
    if is_events {
        // For proxies, of which some wait for more before they pass on a little.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    Ok(response)
}

impl<Q: Queues> Reader<Q> {
    async fn page(&mut self, wait: Duration) -> Result<Page, Refusal> {
        let records_max = usize::try_from(self.left).unwrap_or(usize::MAX).min(PAGE_RECORDS_MAX);
        let Self { after, partition, status, .. } = *self;
        let wanted = Wanted { after, partition, status, records_max, bytes_max: PAGE_BYTES };
        let ask = |wait| self.app.queues.records(&self.queue, wanted, wait);
        let page = self.app.waiting(wait, ask).await?;
        self.left = self.left.saturating_sub(page.records.len() as u64);
        self.after = page.through.max(after);
        self.is_over = self.left == 0 || self.app.is_draining();
        Ok(page)
    }

    /// Returns the next lines. Without any, and nothing more to look at, it is over.
    async fn lines(&mut self, wait: Duration) -> Result<Bytes, Refusal> {
        let until = Instant::now() + wait;
        loop {
            let before = self.after;
            let page = self.page(until - Instant::now()).await?;
            let lines = page.records.iter().flat_map(|record| {
                let mut line = record_json(record);
                line.push(b'\n');
                line
            });
            let lines: Bytes = lines.collect();
            // Records of other statuses may take many pages.
            if !lines.is_empty() || self.is_over || self.after == before {
                self.is_over |= lines.is_empty();
                return Ok(lines);
            }
        }
    }

    /// Returns the next events, or one without data that only says how far this is.
    async fn events(&mut self, wait: Duration) -> Result<Bytes, Refusal> {
        let page = self.page(wait).await?;
        let mut events = Vec::new();
        for record in &page.records {
            events.extend_from_slice(format!("id: {}\ndata: ", record.position).as_bytes());
            events.extend_from_slice(&record_json(record));
            events.extend_from_slice(b"\n\n");
        }
        if events.is_empty() {
            let at = self.after.map_or(":\n\n".to_owned(), |after| format!("id: {after}\n\n"));
            events.extend_from_slice(at.as_bytes());
        }
        Ok(events.into())
    }

    /// Returns the next events; when there can be none, one that says why, and it is over.
    async fn events_to_the_end(&mut self, wait: Duration) -> Bytes {
        match self.events(wait).await {
            Ok(events) => events,
            Err(refusal) => {
                self.is_over = true;
                format!("event: problem\ndata: {}\n\n", Problem::from(refusal).json()).into()
            }
        }
    }
}

fn status(text: &str) -> Result<Status, Problem> {
    let found = Status::ALL.into_iter().find(|status| status.as_str() == text);
    found.ok_or_else(|| {
        let known = Status::ALL.map(Status::as_str).join(", ");
        Problem::bad_request(format!("status is one of {known}, not \"{}\"", excerpt(text)))
    })
}
