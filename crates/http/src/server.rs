//! Connections: each within its limits, until the server is drained.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tower::Service;
use tracing::{debug, warn};

use crate::access::Access;
use crate::admission::{Admission, NoRoom, Places};
use crate::app::App;
use crate::limits::Limits;
use crate::problem::{Kind, Problem};
use crate::queues::Queues;
use crate::routes::{Peer, router};
use crate::stream::{Stream, whole};

/// Bytes that the parser's buffer has at least.
const BUFFER_BYTES_MIN: usize = 8 << 10;

/// Time for which a connection is read after its last answer. Closed at once, with bytes that were not read,
/// it would take the answer with it.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Bytes that are read, and not looked at, in that time.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// Time until the next attempt to accept a connection when there are no open files left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time in which one line says that there are none.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Accepts connections, also after the system has given none for want of files.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    warned: Option<Instant>,
}

impl Acceptor {
    /// Makes one of a listener.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, warned: None }
    }

    /// Returns the next connection.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                // The client left before it was accepted, or there are no files left.
                Err(error) => {
                    if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
                        self.warned = Some(Instant::now());
                        warn!(%error, "failed to accept a connection");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Whether what answers is to come to its end. All clones are one.
#[derive(Clone, Debug)]
pub struct Draining(Arc<watch::Sender<bool>>);

impl Default for Draining {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Draining {
    /// Begins to drain.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Returns whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it has begun.
    pub async fn begun(&self) {
        // It cannot fail: the sender is ours.
        let _ = self.0.subscribe().wait_for(|is_draining| *is_draining).await;
    }
}

/// Takes connections within their limits, and answers their requests. All clones are one server.
#[derive(Clone, Debug)]
pub struct Server {
    router: Router,
    limits: Limits,
    draining: Draining,
    places: Arc<Places>,
}

impl Server {
    /// Makes one that answers requests to queues.
    #[must_use]
    pub fn new<Q: Queues>(queues: Q, access: Access, limits: Limits) -> Self {
        let draining = Draining::default();
        let app = Arc::new(App::new(queues, access, limits.clone(), draining.clone()));
        Self::with_router(router(&app), limits, draining)
    }

    /// Makes one whose requests a router answers. They have a [`Peer`], and whoever may ask is the router's to decide.
    #[must_use]
    pub fn with_router(router: Router, limits: Limits, draining: Draining) -> Self {
        let places = Places::new(&limits);
        Self { router, limits, draining, places }
    }

    /// Returns what answers one request, without the limits of connections. A request needs a token unless
    /// its [`Peer`] is an extension of it.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Takes connections of a listener, without TLS, until the server is drained and all of them have ended.
    pub async fn listen(self, listener: TcpListener) {
        let mut acceptor = Acceptor::new(listener);
        loop {
            let (stream, peer) = tokio::select! {
                () = self.draining.begun() => break,
                accepted = acceptor.accept() => accepted,
            };
            match self.admit(peer.ip()) {
                Ok(admission) => {
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(self.clone().connection(stream, admission));
                }
                Err(reason) => {
                    debug!(%peer, %reason, "connection refused");
                    // As much as fits into an empty buffer, which is all of it.
                    let _ = stream.try_write(&refused(reason));
                }
            }
        }
        drop(acceptor);
        self.closed().await;
    }

    /// Takes a place for a connection from an address.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn admit(&self, peer: IpAddr) -> Result<Admission, NoRoom> {
        if self.is_draining() { Err(NoRoom::Closed) } else { self.places.admit(peer) }
    }

    /// Answers the requests of one connection, whatever it is that carries them, until it ends.
    pub async fn connection<S>(self, stream: S, admission: Admission)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let peer = admission.peer();
        let limits = &self.limits;
        let requests = AtomicUsize::new(0);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let is_last = requests.fetch_add(1, Ordering::Relaxed) + 1 >= limits.requests_max;
            self.answer(request, peer, is_last)
        });
        let stream = TokioIo::new(Stream::new(stream, limits.stall_time));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_time)
            .max_headers(limits.headers_max)
            .max_header_size(limits.head_bytes_max)
            .max_buf_size(limits.head_bytes_max.max(BUFFER_BYTES_MIN))
            .serve_connection(stream, service);
        let drained = self.draining.begun();
        let ended = tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(ended),
            () = drained => {
                Pin::new(&mut connection).graceful_shutdown();
                let rest = poll_fn(|cx| connection.poll_without_shutdown(cx));
                timeout(limits.drain_time, rest).await.ok()
            }
        };
        let mut stream = connection.into_parts().io.into_inner();
        match ended {
            Some(Ok(())) => {}
            Some(Err(error)) if error.is_timeout() => {
                debug!(%peer, "connection closed: no request within its time");
                if stream.has_asked() {
                    let detail = "the head of the request has to be there sooner";
                    let _ = stream.write_all(&whole(&Problem::new(Kind::Timeout, detail))).await;
                }
            }
            Some(Err(error)) => debug!(%peer, %error, "connection closed"),
            None => return debug!(%peer, "connection closed: the program ends"),
        }
        // What cannot be written any more is lost with its client.
        let _ = timeout(LINGER_TIME, linger(stream)).await;
    }

    fn answer(
        &self,
        request: hyper::Request<Incoming>,
        peer: IpAddr,
        is_last: bool,
    ) -> Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        let answer = self.router.clone().call(request);
        let draining = self.draining.clone();
        Box::pin(async move {
            let mut response = answer.await?;
            if is_last || draining.has_begun() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }

    /// Ends what waits: streams of records end, requests that wait for a record are answered without it, and
    /// each connection ends with its present answer, or after [`Limits::drain_time`].
    pub fn drain(&self) {
        self.draining.begin();
    }

    /// Returns whether it was [drained](Self::drain).
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.has_begun()
    }

    /// Returns once it is [drained](Self::drain).
    pub async fn drained(&self) {
        self.draining.begun().await;
    }

    /// Returns once there is no connection.
    pub async fn closed(&self) {
        self.places.empty().await;
    }
}

/// Tells the client that there is no more, and reads what it still sends.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: Stream<S>) -> io::Result<()> {
    stream.shutdown().await?;
    let mut left = LINGER_BYTES_MAX;
    let mut bytes = vec![0; 4 << 10];
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            count if count > left => return Ok(()),
            count => left -= count,
        }
    }
}

/// Returns the answer to a connection that may not stay.
fn refused(reason: NoRoom) -> Vec<u8> {
    whole(&match reason {
        NoRoom::Connections { .. } => Problem::busy("there are too many connections"),
        NoRoom::Address { .. } => Problem::busy("there are too many connections from one address"),
        NoRoom::Closed => crate::refusal::Refusal::Closed.into(),
    })
}
