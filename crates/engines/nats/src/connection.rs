//! The connection, with what tasks and records have in common: publishing, and reading in batches.

use std::collections::VecDeque;
use std::future::{Future, IntoFuture};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    Context, CreateStreamErrorKind, GetStreamErrorKind, PublishAckFuture, PublishError,
    PublishErrorKind,
};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{Config, RawMessageErrorKind, Stream};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, HeaderMap, jetstream};
use bytes::Bytes;
use futures::StreamExt;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tradewind_engine::EngineError;

use crate::settings;
use crate::url::{Login, NatsUrl};

/// Messages that are asked for at a time.
const BATCH_MESSAGES: u32 = 1000;

/// Messages of a batch that are sent and not answered.
const SENT_MAX: usize = 1000;

/// Number of batches that are sent at a time. The library lets 5,000 messages wait for their answers: with more batches
/// than fit into that, each could hold a part and wait for the others for ever.
const BATCHES_MAX: usize = 4;

/// Time after which a log is looked at again by who waits for an entry: doubled each time up to the second.
const LOOK: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// Interval at which the server has to be heard. After the third in silence another one is connected to.
const PING_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Connection {
    /// There until this is dropped.
    runtime: Option<Runtime>,
    client: Client,
    pub(crate) context: Context,
    pub(crate) url: NatsUrl,
    batches: Semaphore,
}

/// Message of a stream.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

/// Why a message was not taken.
pub(crate) enum Refusal {
    /// There is a message with its subject.
    SubjectTaken,
    /// Another wrote to the stream.
    WrongSequence,
    Error(EngineError),
}

impl Connection {
    pub(crate) fn open(url: NatsUrl) -> Result<Self, EngineError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("nats")
            .enable_all()
            .build()
            .map_err(|error| EngineError::Away(format!("failed to start a runtime: {error}")))?;
        let client = runtime.block_on(connect(&url))?;
        // It starts a task.
        let entered = runtime.enter();
        let mut context = jetstream::new(client.clone());
        context.set_timeout(url.timeout);
        drop(entered);
        let runtime = Some(runtime);
        Ok(Self { runtime, client, context, url, batches: Semaphore::new(BATCHES_MAX) })
    }

    pub(crate) fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("it is there until the drop").block_on(what)
    }

    pub(crate) fn payload_max(&self) -> usize {
        self.client.max_payload()
    }

    /// Waits until the connection is there.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        self.wait(async {
            let began = Instant::now();
            while self.client.connection_state() != State::Connected {
                if began.elapsed() >= self.url.timeout {
                    return Err(EngineError::Away("there is no connection".into()));
                }
                tokio::time::sleep(LOOK[1]).await;
            }
            Ok(())
        })
    }

    /// Returns a stream, and makes it if it is not there.
    pub(crate) fn stream(&self, name: &str, subjects: Vec<String>) -> Result<Stream, EngineError> {
        self.check()?;
        let wanted = settings::wanted(name, subjects, self.url.replicas);
        let stream = match self.wait(self.context.get_stream(name)) {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    let made = self.wait(self.context.create_stream(wanted.clone()));
                    made.map_err(|error| match error.kind() {
                        CreateStreamErrorKind::JetStream(api) if api.code() < 500 => {
                            EngineError::Refused(format!("stream {name} cannot be made: {api}"))
                        }
                        _ => away(error),
                    })?
                }
                _ => return Err(away(error)),
            },
        };
        let have: &Config = &stream.cached_info().config;
        match settings::refusal(have, &wanted) {
            None => Ok(stream),
            Some(words) => Err(EngineError::Refused(words)),
        }
    }

    /// Sends messages without waiting for each, and tells of each answer in order, up to the first refusal for which
    /// `answered` returns an error.
    pub(crate) fn publish(
        &self,
        messages: Vec<(String, PublishMessage)>,
        mut answered: impl FnMut(usize, Result<u64, Refusal>) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        self.check()?;
        self.wait(async {
            let _batch = self.batches.acquire().await;
            let (mut sent, mut place) = (VecDeque::new(), 0);
            let mut messages = messages.into_iter();
            loop {
                let next = messages.next();
                let is_over = next.is_none();
                if let Some((subject, message)) = next {
                    let published = self.context.send_publish(subject, message).await;
                    sent.push_back(published.map_err(|error| of_publish(&error))?);
                }
                // The server is never without messages before the last: half of them are waited for, and then more are sent.
                let left = match is_over {
                    true => 0,
                    false if sent.len() < SENT_MAX => continue,
                    false => SENT_MAX / 2,
                };
                for ack in sent.drain(..sent.len() - left) {
                    let answer = PublishAckFuture::into_future(ack).await;
                    let answer = answer.map(|ack| ack.sequence).map_err(|error| refusal(&error));
                    answered(place, answer)?;
                    place += 1;
                }
                if is_over {
                    return Ok(());
                }
            }
        })
    }

    /// Returns messages of a stream from a sequence on whose subjects match: none if there is none.
    ///
    /// Batches come from any replica. One that is behind has the beginning of what the leader has, so the messages are
    /// right whoever sends them; but that there is none only the leader knows.
    pub(crate) fn read(
        &self,
        stream: &Stream,
        subject: &str,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Read>, EngineError> {
        let name = &stream.cached_info().config.name;
        let (prefix, mut from) = (subject.strip_suffix('>').unwrap_or(subject), from);
        loop {
            let mut read = self.read_batch(name, from, bytes_max)?;
            let Some(last) = read.last() else { break };
            from = last.sequence + 1;
            read.retain(|message| message.subject.starts_with(prefix));
            if !read.is_empty() {
                return Ok(read);
            }
        }
        Ok(self.next(stream, subject, from)?.into_iter().collect())
    }

    /// Returns messages of a stream from a sequence on, of all subjects: with each batch the server counts those that
    /// remain, and where it is asked for some subjects it looks at each one of the stream for that.
    fn read_batch(
        &self,
        stream: &str,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Read>, EngineError> {
        self.check()?;
        let request = serde_json::json!({
            "seq": from, "next_by_subj": ">", "batch": BATCH_MESSAGES, "max_bytes": bytes_max.max(1),
        });
        self.wait(async {
            let inbox = self.client.new_inbox();
            let mut answers = self.client.subscribe(inbox.clone()).await.map_err(away)?;
            let api = format!("$JS.API.DIRECT.GET.{stream}");
            let sent = self.client.publish_with_reply(api, inbox, request.to_string().into());
            sent.await.map_err(away)?;
            let (mut read, mut last) = (Vec::new(), 0);
            loop {
                let answer = tokio::time::timeout(self.url.timeout, answers.next()).await;
                let Ok(Some(message)) = answer else {
                    return match read.is_empty() {
                        true => Err(EngineError::Away(format!("no answer of stream {stream}"))),
                        false => Ok(read),
                    };
                };
                match message.status.map_or(200, |status| status.as_u16()) {
                    200 => {}
                    204 | 404 => return Ok(read),
                    503 => return Err(EngineError::Away(format!("stream {stream} is not served"))),
                    status => {
                        let words = message.description.unwrap_or_default();
                        let words = format!("stream {stream} cannot be read: {status} {words}");
                        return Err(EngineError::Refused(words));
                    }
                }
                let headers = message.headers.unwrap_or_default();
                let number = |name: &str| headers.get(name)?.as_str().parse::<u64>().ok();
                // One before it was lost on the way: it is read again.
                if number("Nats-Last-Sequence").is_some_and(|before| before != last) {
                    return Ok(read);
                }
                let (Some(sequence), Some(subject)) =
                    (number("Nats-Sequence"), headers.get("Nats-Subject"))
                else {
                    let words = "the server is older than 2.11, and cannot be read in batches";
                    return Err(EngineError::Refused(words.into()));
                };
                last = sequence;
                let subject = subject.as_str().to_owned();
                read.push(Read { sequence, subject, payload: message.payload, headers });
            }
        })
    }

    /// Does the same, and waits for the first.
    pub(crate) fn follow(
        &self,
        stream: &Stream,
        subject: &str,
        from: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Read>, EngineError> {
        let (began, mut pause) = (Instant::now(), LOOK[0]);
        loop {
            let read = self.read(stream, subject, from, bytes_max)?;
            let left = wait.saturating_sub(began.elapsed());
            if !read.is_empty() || left.is_zero() {
                return Ok(read);
            }
            self.wait(async { tokio::time::sleep(pause.min(left)).await });
            pause = (pause * 2).min(LOOK[1]);
        }
    }

    /// Returns the next message from a sequence on whose subject matches, as the leader has it.
    pub(crate) fn next(
        &self,
        stream: &Stream,
        subject: &str,
        from: u64,
    ) -> Result<Option<Read>, EngineError> {
        self.check()?;
        match self.wait(stream.get_first_raw_message_by_subject(subject, from)) {
            Ok(StreamMessage { sequence, subject, headers, payload, .. }) => {
                Ok(Some(Read { sequence, subject: subject.to_string(), headers, payload }))
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(away(error)),
        }
    }

    /// Returns the last message whose subject matches, as the leader has it.
    pub(crate) fn last(
        &self,
        stream: &Stream,
        subject: &str,
    ) -> Result<Option<StreamMessage>, EngineError> {
        self.check()?;
        match self.wait(stream.get_last_raw_message_by_subject(subject)) {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(away(error)),
        }
    }

    /// Returns the first and the last sequence of a stream, as the leader has them.
    pub(crate) fn ends(&self, stream: &Stream) -> Result<(u64, u64), EngineError> {
        self.check()?;
        let info = self.wait(stream.get_info()).map_err(away)?;
        Ok((info.state.first_sequence, info.state.last_sequence))
    }

    /// Removes all messages below a sequence. The server looks at none of them for that.
    pub(crate) fn purge_all(&self, stream: &Stream, sequence: u64) -> Result<(), EngineError> {
        self.check()?;
        let purged = self.wait(stream.purge().sequence(sequence).into_future());
        purged.map(drop).map_err(|error| EngineError::Unsure(error.to_string()))
    }

    /// Removes the messages below a sequence whose subjects match.
    pub(crate) fn purge(
        &self,
        stream: &Stream,
        subject: &str,
        sequence: u64,
    ) -> Result<(), EngineError> {
        self.check()?;
        let purged = self.wait(stream.purge().filter(subject).sequence(sequence).into_future());
        purged.map(drop).map_err(|error| EngineError::Unsure(error.to_string()))
    }
}

impl Drop for Connection {
    /// A runtime that waits for its threads may not be dropped by a task of another one.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn connect(url: &NatsUrl) -> Result<Client, EngineError> {
    let refused = |error: std::io::Error, what: &str| {
        EngineError::Refused(format!("failed to read {what}: {error}"))
    };
    let mut options = ConnectOptions::new()
        .name("tradewind")
        .connection_timeout(url.timeout)
        .request_timeout(Some(url.timeout))
        .require_tls(url.is_tls)
        .ping_interval(PING_INTERVAL)
        .reconnect_delay_callback(|tries| Duration::from_millis(50 << tries.min(5)));
    options = match url.login.clone() {
        Login::None => options,
        Login::Token(token) => options.token(token),
        Login::User(user, password) => options.user_and_password(user, password),
    };
    if let Some(path) = &url.credentials {
        let read = options.credentials_file(path).await;
        options = read.map_err(|error| refused(error, "the credentials file"))?;
    }
    if let Some(path) = url.ca.clone() {
        options = options.add_root_certificates(path);
    }
    if let Some((cert, key)) = url.client_cert.clone() {
        options = options.add_client_certificate(cert, key);
    }
    let hosts: Vec<_> = url.hosts.iter().map(|host| format!("nats://{host}")).collect();
    options.connect(hosts).await.map_err(|error| match error.kind() {
        ConnectErrorKind::AuthorizationViolation
        | ConnectErrorKind::Authentication
        | ConnectErrorKind::ServerParse
        | ConnectErrorKind::Tls => {
            EngineError::Refused(format!("failed to connect to {}: {error}", url.hosts.join(",")))
        }
        _ => away(error),
    })
}

pub(crate) fn away(error: impl std::fmt::Display) -> EngineError {
    EngineError::Away(error.to_string())
}

fn of_publish(error: &PublishError) -> EngineError {
    match error.kind() {
        PublishErrorKind::StreamNotFound => EngineError::Away("the stream is not served".into()),
        PublishErrorKind::MaxPayloadExceeded => EngineError::Refused(error.to_string()),
        _ => EngineError::Unsure(error.to_string()),
    }
}

fn refusal(error: &PublishError) -> Refusal {
    use std::error::Error as _;
    // Its type has no public name.
    let words = error.source().map(ToString::to_string).unwrap_or_default();
    match error.kind() {
        PublishErrorKind::WrongLastSequence => Refusal::WrongSequence,
        PublishErrorKind::Other if words.contains("per subject") => Refusal::SubjectTaken,
        PublishErrorKind::Other if words.contains("maximum") => {
            Refusal::Error(EngineError::Full(words))
        }
        _ => Refusal::Error(of_publish(error)),
    }
}
