//! One request and its answer, and whether it is sent again.

use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;
use tradewind_keys::{Keys, Role};

use crate::address::Address;
use crate::dial::{dial, refusal};
use crate::error::{Error, Unreachable};
use crate::options::Options;
use crate::pool::{Connection, Pool};
use crate::problem::Problem;
use crate::tls;

/// Bytes of an answer that is read as a whole.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Pauses before a request is sent again: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Time for which a request is sent again that a server has lost which has not answered yet.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(2);

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    /// Time that the server may wait before it answers.
    pub(crate) wait: Duration,
    /// Whether doing it twice is as doing it once.
    pub(crate) is_repeatable: bool,
}

impl Ask {
    pub(crate) fn new(method: Method, path: String) -> Self {
        let (headers, body, wait) = (Vec::new(), Bytes::new(), Duration::ZERO);
        Self { method, path, headers, body, wait, is_repeatable: true }
    }

    pub(crate) fn get(path: String) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn body(self, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { body, ..self.header(CONTENT_TYPE, HeaderValue::from_static(media_type)) }
    }
}

/// An answer of success, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// An answer whose body is read as it comes.
#[derive(Debug)]
pub(crate) struct Reply {
    response: Response<Incoming>,
    connection: Connection,
}

/// Why a request has no answer of success.
struct Failure {
    error: Error,
    /// Whether the server may have done what was asked for.
    may_be_done: bool,
}

impl Failure {
    fn before(error: Error) -> Self {
        Self { error, may_be_done: false }
    }

    fn after(error: Error) -> Self {
        Self { error, may_be_done: true }
    }
}

/// Growing pauses, no two clients in step.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl Backoff {
    /// Returns the next pause: half of it at least.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSE_MAX);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// A server, and connections to it.
pub(crate) struct Link {
    pub(crate) address: Address,
    pub(crate) options: Options,
    keys: Option<Keys>,
    bearer: Option<HeaderValue>,
    pool: Pool,
    /// Whether it has answered before: then it is worth while to try again.
    was_reached: AtomicBool,
}

impl Link {
    pub(crate) fn new(address: Address, options: Options, role: Role) -> Result<Self, Error> {
        let keys = match address.is_tls {
            true => Some(tls::keys(&options, role, &address.to_string())?),
            false => None,
        };
        let bearer = |token: &String| {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Error::Bearer)?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        let bearer = options.bearer.as_ref().map(bearer).transpose()?;
        let (pool, was_reached) = (Pool::default(), AtomicBool::new(false));
        Ok(Self { address, options, keys, bearer, pool, was_reached })
    }

    pub(crate) fn was_reached(&self) -> bool {
        self.was_reached.load(Ordering::Relaxed)
    }

    /// Asks, and reads the answer to its end. What failed for now is asked again for a while, unless it may
    /// have been done and must not be done twice.
    pub(crate) async fn ask(&self, ask: &Ask) -> Result<Answer, Error> {
        let begin = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let Failure { error, may_be_done } = match self.attempt(ask).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if may_be_done && !ask.is_repeatable {
                return Err(Error::Uncertain(Box::new(error)));
            }
            let pause = backoff.next().max(error.retry_after().unwrap_or_default());
            let patience = match (&error, self.was_reached()) {
                (_, true) => self.options.patience,
                // Perhaps it is not there at all, or another program is.
                (Error::Unreachable { .. }, false) => Duration::ZERO,
                (_, false) => self.options.patience.min(UNKNOWN_PATIENCE),
            };
            if !error.is_transient() || begin.elapsed() + pause > patience {
                return Err(error);
            }
            debug!(%error, ?pause, "request is sent again");
            sleep(pause).await;
        }
    }

    /// Asks once, and returns the answer when its head is there.
    pub(crate) async fn open(&self, ask: &Ask) -> Result<Reply, Error> {
        self.send(ask).await.map_err(|failure| failure.error)
    }

    async fn attempt(&self, ask: &Ask) -> Result<Answer, Failure> {
        let mut reply = self.send(ask).await?;
        let status = reply.response.status();
        let body = self.rest(&mut reply).await.map_err(Failure::after)?;
        self.pool.give(reply.connection);
        Ok(Answer { status, body })
    }

    /// Sends a request, and returns its answer unless that is a problem.
    async fn send(&self, ask: &Ask) -> Result<Reply, Failure> {
        let mut reply = self.reply(ask).await?;
        self.was_reached.store(true, Ordering::Relaxed);
        let status = reply.response.status();
        if status.is_success() {
            return Ok(reply);
        }
        let seconds = reply.response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok());
        let retry_after = seconds.and_then(|it| it.parse().ok()).map(Duration::from_secs);
        // It was not done, even if the rest of the reason is lost.
        let body = self.rest(&mut reply).await.unwrap_or_default();
        self.pool.give(reply.connection);
        let problem = Problem::parse(Some(status), retry_after, &body);
        Err(Failure::before(Error::Problem(Box::new(problem))))
    }

    async fn reply(&self, ask: &Ask) -> Result<Reply, Failure> {
        let mut request = self.request(ask);
        loop {
            let kept = self.pool.take().await;
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await.map_err(Failure::before)?,
            };
            let after = self.options.answer_timeout + ask.wait;
            let Ok(sent) = timeout(after, connection.try_send_request(request)).await else {
                let url = self.address.to_string();
                return Err(Failure::after(Error::Timeout { url, after }));
            };
            match sent {
                Ok(response) => return Ok(Reply { response, connection }),
                Err(mut error) => match error.take_message() {
                    // It was closed before the request was written.
                    Some(unsent) if is_kept => request = unsent,
                    Some(_) => return Err(Failure::before(self.lost(&error.into_error()))),
                    None => return Err(self.broken(&error.into_error())),
                },
            }
        }
    }

    fn request(&self, ask: &Ask) -> Request<Full<Bytes>> {
        let body = Full::new(ask.body.clone());
        let mut request = Request::new(body);
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.path.parse().expect("names and numbers fit into a path");
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&self.address.authority);
        headers.insert(HOST, host.expect("a URL's authority is plain text"));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("tradewind/", env!("CARGO_PKG_VERSION"))),
        );
        headers.extend(self.bearer.clone().map(|bearer| (AUTHORIZATION, bearer)));
        headers.extend(ask.headers.iter().cloned());
        request
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let carrier = dial(&self.address, self.keys.as_ref(), &self.options).await?;
        let shaken = http1::handshake(TokioIo::new(carrier)).await;
        let (connection, driver) = shaken.map_err(|error| self.lost(&error))?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                debug!(%error, "connection closed");
            }
        });
        Ok(connection)
    }

    /// Reads what is left of an answer.
    async fn rest(&self, reply: &mut Reply) -> Result<Bytes, Error> {
        let mut bytes = BytesMut::new();
        while let Some(part) = self.part(reply, self.options.answer_timeout).await? {
            if bytes.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(self.odd(format!("it is longer than {ANSWER_BYTES_MAX} bytes")));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.freeze())
    }

    /// Returns the next bytes of an answer, `None` at its end.
    pub(crate) async fn part(
        &self,
        reply: &mut Reply,
        after: Duration,
    ) -> Result<Option<Bytes>, Error> {
        loop {
            let Ok(frame) = timeout(after, reply.response.body_mut().frame()).await else {
                return Err(Error::Timeout { url: self.address.to_string(), after });
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.lost(&error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                    // Trailers, of which there are none.
                    _ => {}
                },
            }
        }
    }

    /// Returns the error of a request that was sent, wholly or in part.
    fn broken(&self, error: &hyper::Error) -> Failure {
        if error.is_parse() {
            let hint = if self.address.is_tls { "" } else { " (is it an https URL?)" };
            return Failure::after(self.odd(format!("{}{hint}", causes(error))));
        }
        Failure::after(self.lost(error))
    }

    fn lost(&self, error: &hyper::Error) -> Error {
        let url = self.address.to_string();
        match refusal(error) {
            Some(fault) => Error::Unreachable { url, why: Unreachable::Keys(fault) },
            None => Error::Lost { url, why: causes(error) },
        }
    }

    /// Returns the error of an answer that is not one of a server of queues.
    pub(crate) fn odd(&self, what: impl Into<String>) -> Error {
        Error::Answer { url: self.address.to_string(), what: what.into() }
    }
}

/// Returns an error with its causes.
fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_are_not_in_step() {
        fastrand::seed(7);
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= PAUSE_MIN && pauses[0] >= PAUSE_MIN / 2, "{pauses:?}");
        assert!(pauses[19] <= PAUSE_MAX && pauses[19] >= PAUSE_MAX / 2, "{pauses:?}");
        assert!(pauses[18] != pauses[19]);
    }
}
