//! Dialling a gate until it answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::attach::{HandshakeError, attach};
use crate::door::Door;
use crate::endpoint::{Endpoint, IpcEndpoint, TcpEndpoint};
use crate::keyring::End;
use crate::lane::{GoneReason, Lane, LaneState, LaneWatch};
use crate::meter::Violation;
use crate::options::LaneOptions;
use crate::pull::PullLane;
use crate::push::PushLane;
use crate::reasons::{Line, Reasons};
use crate::stream::{PeerAddr, Stream};
use crate::unix::{self, check_user};

/// Makes lanes to one endpoint, one after the other, and shows each the same door.
///
/// Both ways to dial retry until they succeed, with a growing and jittered pause between attempts,
/// and log why they have not: at once when the reason changes, and again every minute. They are
/// cancel-safe: to give up, a caller wraps them in a timeout, or waits for [`hopeless`] beside
/// them, and asks [`last_error`] why.
///
/// [`hopeless`]: Self::hopeless
/// [`last_error`]: Self::last_error
#[derive(Debug)]
pub struct Dialler {
    endpoint: Endpoint,
    options: LaneOptions,
    door: Door,
    backoff: Backoff,
    last_error: Option<DialError>,
    /// Failures that were logged since the last lane that lived.
    reasons: Reasons,
    /// The latest lane, and the time since which it stood.
    lane: Option<(LaneWatch, Instant)>,
    /// The latest lane was ended by its peer, with a reason, as soon as it stood.
    was_sent_away: bool,
    /// Number of successive peers that our door refused, and the time since the first.
    wrong: Option<(u32, Instant)>,
    hopeless: watch::Sender<bool>,
}

/// Resolves when a dialler keeps finding a peer that its own door refuses: of another version, of
/// another kind, with keys of another set, behind another port. Retrying will not change that.
#[derive(Debug, Clone)]
pub struct Hopeless(watch::Receiver<bool>);

impl Hopeless {
    /// Waits until dialling is hopeless; for ever if it is not. Cancel-safe.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|is_hopeless| *is_hopeless).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Reason why an attempt to dial failed.
#[derive(Debug, Error)]
pub enum DialError {
    /// The name has no address now.
    #[error("the host does not resolve: {0}")]
    Unresolved(#[source] io::Error),
    /// The connection was refused, or the network is unreachable.
    #[error("{}", in_words(.0))]
    Connect(#[source] io::Error),
    /// No answer came.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The address belongs to another host now.
    #[error("{0} was reached, but the name stands for another address now")]
    Moved(SocketAddr),
    /// The process that listens on the Unix socket is another user's.
    #[error("a process of user {0} listens there, and only one of the same user is spoken to")]
    OfAnotherUser(u32),
    /// The peer answered, but not with a handshake.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// Returns `connection refused`, without the system's number.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        // Of a Unix socket.
        io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        io::ErrorKind::WouldBlock => "too many connections wait there".to_owned(),
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::TimedOut => error.kind().to_string(),
        _ => error.to_string(),
    }
}

/// Number of successive wrong peers, and time, from which dialling is hopeless: where containers
/// are started again, one has the address of another for a moment.
const WRONG_ATTEMPTS_MIN: u32 = 3;
const WRONG_TIME_MIN: Duration = Duration::from_secs(10);

impl Dialler {
    /// Creates a dialler that has not tried yet. The seed decides the jitter.
    pub fn new(endpoint: Endpoint, options: LaneOptions, door: Door, seed: u64) -> Self {
        Self {
            endpoint,
            options,
            door,
            backoff: Backoff::new(seed),
            last_error: None,
            reasons: Reasons::default(),
            lane: None,
            was_sent_away: false,
            wrong: None,
            hopeless: watch::Sender::new(false),
        }
    }

    /// Returns the endpoint that it dials.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns why the latest attempt failed; `None` after one that did not.
    pub fn last_error(&self) -> Option<&DialError> {
        self.last_error.as_ref()
    }

    /// Returns a future to wait for beside dialling.
    pub fn hopeless(&self) -> Hopeless {
        Hopeless(self.hopeless.subscribe())
    }

    /// Dials a gate that pulls.
    pub async fn dial_push(&mut self) -> PushLane {
        self.dial().await
    }

    /// Dials a gate that pushes.
    pub async fn dial_pull(&mut self) -> PullLane {
        self.dial().await
    }

    async fn dial<L: Lane>(&mut self) -> L {
        let now = Instant::now();
        self.backoff.begin(now);
        self.judge_latest_lane(now);
        loop {
            if let Some(at) = self.backoff.next_attempt {
                sleep_until(at).await;
            }
            // Before the attempt, so that a caller who cancels it cannot hurry the next one.
            self.backoff.attempt(Instant::now());
            match self.attempt::<L>().await {
                Ok(lane) => {
                    let now = Instant::now();
                    if !self.was_sent_away && self.reasons.ended() {
                        info!("reached {}", self.endpoint);
                    }
                    self.last_error = None;
                    self.wrong = None;
                    self.backoff.succeeded(now);
                    self.lane = Some((lane.watch(), now));
                    return lane;
                }
                Err(error) => {
                    self.failed(Instant::now(), error);
                    self.backoff.failed(Instant::now());
                }
            }
        }
    }

    /// Treats a lane that its peer ended with a reason as soon as it stood as a failed attempt.
    fn judge_latest_lane(&mut self, now: Instant) {
        let Some((watch, since)) = self.lane.take() else { return };
        match watch.reason() {
            Some(reason @ GoneReason::Told(_)) if now - since < GOOD_LANE => {
                self.was_sent_away = true;
                self.failed(now, HandshakeError::Gone(reason).into());
            }
            _ => {
                if std::mem::take(&mut self.was_sent_away) {
                    self.reasons.ended();
                }
            }
        }
    }

    fn failed(&mut self, now: Instant, error: DialError) {
        let endpoint = &self.endpoint;
        let reason = error.to_string();
        match self.reasons.failed(now, &reason) {
            Some(Line { lasts, is_loud: true }) => {
                let lasts = humantime::format_duration(Duration::from_secs(lasts.as_secs()));
                warn!("cannot reach {endpoint} for {lasts}: {reason}; retrying");
            }
            Some(_) => info!("cannot reach {endpoint}: {reason}; retrying"),
            None => debug!(%endpoint, reason, "cannot reach"),
        }
        let is_wrong = match &error {
            DialError::OfAnotherUser(_)
            | DialError::Handshake(HandshakeError::Gone(
                GoneReason::Refused(_) | GoneReason::Protocol(Violation::Tls),
            )) => true,
            DialError::Handshake(HandshakeError::Key(fault)) => fault.is_final(),
            _ => false,
        };
        self.wrong = is_wrong.then(|| {
            let (times, since) = self.wrong.unwrap_or((0, now));
            (times + 1, since)
        });
        self.last_error = Some(error);
        if self.wrong.is_some_and(|(times, since)| {
            times >= WRONG_ATTEMPTS_MIN && now - since >= WRONG_TIME_MIN
        }) {
            self.hopeless.send_replace(true);
        }
    }

    async fn attempt<L: Lane>(&self) -> Result<L, DialError> {
        let (stream, peer) = match &self.endpoint {
            Endpoint::Tcp(tcp) => self.connect_tcp(tcp).await?,
            Endpoint::Ipc(ipc) => self.connect_unix(ipc)?,
        };
        let state = LaneState::uncounted(&self.options);
        Ok(attach::<L>(stream, peer, &self.door, state, End::Dialler, &self.options).await?)
    }

    fn connect_unix(&self, endpoint: &IpcEndpoint) -> Result<(Stream, PeerAddr), DialError> {
        let stream = unix::connect(endpoint).map_err(DialError::Connect)?;
        let stream = UnixStream::from_std(stream).map_err(HandshakeError::Local)?;
        // Any user that may write to the directory can listen in the place of the one that was meant.
        let peer = stream.peer_cred().map_err(DialError::Connect)?;
        check_user(peer.uid()).map_err(DialError::OfAnotherUser)?;
        // Not its process: the one that listened first, which may have passed the socket on.
        let peer = PeerAddr::Socket(Arc::new(endpoint.clone()));
        Ok((Stream::unix(stream, &self.options), peer))
    }

    async fn connect_tcp(&self, endpoint: &TcpEndpoint) -> Result<(Stream, PeerAddr), DialError> {
        let within = self.options.connect_timeout;
        let addresses = self.resolve(endpoint).await?;
        let nothing = io::Error::new(io::ErrorKind::NotFound, "a name without an address");
        let mut failure = DialError::Unresolved(nothing);
        for address in addresses {
            let began = Instant::now();
            match timeout(within, TcpStream::connect(address)).await {
                // A dialler that tries a free port of its own machine again and again connects to
                // itself one day, and would then keep the port from the process that is meant to
                // listen on it.
                Ok(Ok(stream)) if stream.local_addr().is_ok_and(|local| local == address) => {
                    failure = DialError::Connect(io::ErrorKind::ConnectionRefused.into());
                }
                Ok(Ok(_))
                    if began.elapsed() > CONNECT_USUAL
                        && !self.is_still(endpoint, address).await =>
                {
                    failure = DialError::Moved(address);
                }
                Ok(Ok(stream)) => {
                    let stream = Stream::tcp(stream, &self.options);
                    return Ok((stream.map_err(HandshakeError::Local)?, PeerAddr::Tcp(address)));
                }
                Ok(Err(error)) => failure = DialError::Connect(error),
                Err(_) => failure = DialError::Timeout(within),
            }
        }
        Err(failure)
    }

    async fn resolve(&self, endpoint: &TcpEndpoint) -> Result<Vec<SocketAddr>, DialError> {
        let host = (endpoint.host(), endpoint.port());
        let within = self.options.connect_timeout;
        let addresses = timeout(within, tokio::net::lookup_host(host))
            .await
            .map_err(|_| DialError::Timeout(within))?
            .map_err(DialError::Unresolved)?;
        Ok(addresses.collect())
    }

    /// Returns whether the name still stands for this address.
    async fn is_still(&self, endpoint: &TcpEndpoint, address: SocketAddr) -> bool {
        self.resolve(endpoint).await.is_ok_and(|addresses| addresses.contains(&address))
    }
}

/// A connection that takes longer may have been answered by another host: where containers are
/// started again, one gets the address of another while we dial it.
const CONNECT_USUAL: Duration = Duration::from_millis(200);

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Time after which a lane was a good one: the next outage is a new one.
const GOOD_LANE: Duration = Duration::from_secs(3);

/// Time of the next attempt. Grows with every attempt that fails, lanes that die young included.
#[derive(Debug)]
struct Backoff {
    rng: fastrand::Rng,
    /// Upper bound of the next pause to be drawn.
    pause_max: Duration,
    /// The pause that follows the latest attempt.
    pause: Duration,
    next_attempt: Option<Instant>,
    lane_since: Option<Instant>,
}

impl Backoff {
    fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            pause_max: PAUSE_MIN,
            pause: Duration::ZERO,
            next_attempt: None,
            lane_since: None,
        }
    }

    fn begin(&mut self, now: Instant) {
        if self.lane_since.take().is_some_and(|since| now - since >= GOOD_LANE) {
            self.pause_max = PAUSE_MIN;
            self.next_attempt = None;
        }
    }

    fn attempt(&mut self, now: Instant) {
        // Between half and all of it, so that a thousand workers do not return as one.
        self.pause = self.pause_max.mul_f64(0.5 + self.rng.f64() / 2.0);
        self.pause_max = (self.pause_max * 2).min(PAUSE_MAX);
        self.next_attempt = Some(now + self.pause);
    }

    fn succeeded(&mut self, now: Instant) {
        self.lane_since = Some(now);
    }

    fn failed(&mut self, now: Instant) {
        self.next_attempt = Some(now + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_never_reach_zero() {
        let mut backoff = Backoff::new(7);
        let now = Instant::now();
        let mut bound = PAUSE_MIN;
        for _ in 0..20 {
            backoff.attempt(now);
            backoff.failed(now);
            let pause = backoff.next_attempt.unwrap() - now;
            assert!(bound / 2 <= pause && pause <= bound, "{pause:?} of {bound:?}");
            bound = (bound * 2).min(PAUSE_MAX);
        }
    }

    #[test]
    fn a_lane_that_lives_ends_the_backoff_and_one_that_dies_young_does_not() {
        let mut backoff = Backoff::new(7);
        let start = Instant::now();
        backoff.attempt(start);
        backoff.succeeded(start);
        backoff.begin(start + GOOD_LANE / 2);
        assert!(backoff.next_attempt.is_some());
        backoff.attempt(start);
        let pause = backoff.pause;
        assert!(PAUSE_MIN < pause && pause <= 2 * PAUSE_MIN, "{pause:?}: it has grown, once");
        backoff.succeeded(start);
        backoff.begin(start + GOOD_LANE);
        assert_eq!((backoff.next_attempt, backoff.pause_max), (None, PAUSE_MIN));
    }

    #[test]
    fn one_seed_is_one_jitter() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(seed);
            let now = Instant::now();
            [(); 8].map(|()| {
                backoff.attempt(now);
                backoff.pause
            })
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
    }
}
