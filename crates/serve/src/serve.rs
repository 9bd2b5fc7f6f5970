//! The program: the gates, the HTTP port and the queues behind them, until it is told to stop.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tradewind_http::{Acceptor, Access, Limits, Queues, Server};
use tradewind_keys::{Role as KeyRole, Roles, UnixTime};
use tradewind_lanes::{Keyring, LaneOptions};
use tradewind_node::doors::{Port, queues_door};
use tradewind_node::exit::{Fatal, LISTEN, OK, OUTPUT, OrExit, Outcome, SYSTEM, USAGE};
use tradewind_node::keys::{MaybeKeys, Wanted, keep_fresh, session};
use tradewind_node::{Listen, Room, Shutdown};
use tradewind_proto::message::{Card, Role};

use crate::config::Config;
use crate::dir::{LOCK_WAIT, lock_dir, queues_dir};
use crate::engine::Common;
use crate::gates::{judge, pass_callers, pass_sinks, pass_workers};
use crate::service::Service;
use crate::trust::Trusted;

/// Settings of the program.
pub struct Settings {
    /// Directory of all that it keeps.
    pub dir: PathBuf,
    /// Settings of queues.
    pub config: Config,
    /// Port that workers fetch tasks from.
    pub tasks: Listen,
    /// Port that workers and relays send results to.
    pub results: Listen,
    /// Port that relays send receipts to, if queues have stages behind them.
    pub receipts: Option<Listen>,
    /// Port for HTTP.
    pub http: SocketAddr,
    /// Who may ask there without a key, besides this machine. If there is somebody, the port has no TLS.
    pub http_trust: Vec<Trusted>,
    /// What was said about keys.
    pub keys: Wanted,
    /// Limits of connections.
    pub lanes: LaneOptions,
}

/// Interval at which what is not needed any more is removed.
const TRIM_INTERVAL: Duration = Duration::from_secs(5);

/// Protocol inside TLS at the HTTP port.
const HTTP_PROTOCOL: &str = "tradewind-http/1";

/// Time for a handshake of TLS at the HTTP port.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Serves queues until a request to stop.
///
/// # Errors
/// When a port cannot be listened on, keys cannot be used, or what is in the directory is damaged or in use.
pub async fn serve(settings: Settings, mut shutdown: Shutdown) -> Outcome {
    let Settings { dir, config, tasks, results, receipts, http, http_trust, keys, lanes } =
        settings;
    let wanted = keys;
    let keys =
        wanted.clone().open(KeyRole::Ventilator, [&tasks].into_iter().chain(&receipts), [])?;
    let sink_keys = wanted.clone().open(KeyRole::Sink, [&results], [])?;
    let http_keys = http_keys(&wanted, http.ip(), &keys, &http_trust)?;
    // What only dials here is locked by the same keys.
    keep_fresh(&keys)?;
    keep_fresh(&sink_keys)?;
    let locked = {
        let dir = dir.clone();
        tokio::task::spawn_blocking(move || lock_dir(&dir, LOCK_WAIT))
    };
    let _locked = locked.await.or_exit(SYSTEM)?.or_exit(OUTPUT)?;

    let (ended, mut ends) = mpsc::unbounded_channel();
    let common = Common {
        ventilator: session(&keys),
        sink: session(&sink_keys),
        ventilator_keys: keys.clone(),
        sink_keys: sink_keys.clone(),
        lanes: lanes.clone(),
        ended,
    };
    let card = |role, session| Card {
        role,
        session,
        slots: 0,
        message_bytes_max: lanes.message_bytes_max,
        name: "queues".to_owned(),
        queue: String::new(),
    };
    let ours = card(Role::Ventilator, common.ventilator);
    let mut limits = Limits::default();
    let (room, http_max) = Room::beside_http(2, 1, limits.connections_max);
    limits.connections_max = http_max;
    // As for workers: one address does not have all of them.
    limits.connections_per_address_max =
        limits.connections_per_address_max.min((http_max / 4 * 3).max(1));
    let door = queues_door(&ours, Port::Tasks, room.clone(), &keys, judge);
    let tasks = tasks.open(room.options(&lanes), door).await.or_exit(LISTEN)?;
    let receipts = match receipts {
        Some(receipts) => {
            let door = queues_door(&ours, Port::Receipts, room.clone(), &keys, judge);
            Some(receipts.open(room.receipts_options(&lanes), door).await.or_exit(LISTEN)?)
        }
        None => None,
    };
    let ours = card(Role::Sink, common.sink);
    let door = queues_door(&ours, Port::Results, room.clone(), &sink_keys, judge);
    let results = results.open(room.options(&lanes), door).await.or_exit(LISTEN)?;
    let listener = TcpListener::bind(http).await.map_err(|error| cannot_listen(http, &error))?;
    let at = listener.local_addr().or_exit(SYSTEM)?;

    let task_bytes_max = tradewind_text::payload_bytes_max(lanes.message_bytes_max);
    let opened =
        tokio::task::spawn_blocking(move || Service::open(queues_dir(&dir), config, common));
    let service = opened.await.or_exit(SYSTEM)??;
    limits.task_bytes_max =
        limits.task_bytes_max.min(usize::try_from(task_bytes_max).unwrap_or(usize::MAX));
    let access = match &http_keys {
        // Who has come through TLS has a key of the right role.
        HttpKeys::Tls(_) | HttpKeys::Insecure => Access::default().with_all(),
        HttpKeys::Trusted(addresses) => {
            Access::default().with_loopback().with_addresses(addresses.iter().copied())
        }
    };
    let server = Server::new(service.clone(), access, limits);
    tracing::info!(
        tasks = %tasks.endpoint(),
        results = %results.endpoint(),
        http = %at,
        queues = service.all().len(),
        "queues are served"
    );
    let passing = [
        tokio::spawn(pass_workers(tasks, service.clone())),
        tokio::spawn(pass_callers(results, service.clone())),
        match receipts {
            Some(receipts) => tokio::spawn(pass_sinks(receipts, service.clone())),
            None => tokio::spawn(std::future::pending()),
        },
    ];
    let answering = tokio::spawn(match http_keys {
        HttpKeys::Tls(keyring) => Answering::Tls(listener, keyring).run(server.clone()),
        HttpKeys::Trusted(_) | HttpKeys::Insecure => Answering::Plain(listener).run(server.clone()),
    });
    let trimming = tokio::spawn(trim(service.clone()));

    let ended = tokio::select! {
        _ = shutdown.asked() => None,
        ended = ends.recv() => ended,
    };
    tracing::info!(
        "stopping: what was promised is on the disk; workers keep the tasks that they have"
    );
    server.drain();
    passing.iter().chain([&trimming]).for_each(|task| task.abort());
    let closed = {
        let service = service.clone();
        tokio::task::spawn_blocking(move || service.close())
    };
    let is_hurried = tokio::select! {
        _ = async { closed.await.ok(); answering.await.ok() } => false,
        _ = shutdown.asked() => true,
    };
    if is_hurried {
        tracing::warn!("stopped at once");
    }
    match ended {
        Some(fatal) => Err(fatal),
        None => Ok(OK),
    }
}

/// Keys of the HTTP port.
enum HttpKeys {
    /// Who connects needs a key.
    Tls(Arc<Keyring>),
    /// Only this machine may ask, and these addresses.
    Trusted(Vec<IpAddr>),
    /// Whoever connects may ask.
    Insecure,
}

fn http_keys(
    wanted: &Wanted,
    at: IpAddr,
    keys: &MaybeKeys,
    trusted: &[Trusted],
) -> Result<HttpKeys, Fatal> {
    match keys {
        _ if at.is_loopback() || !trusted.is_empty() => {
            let addresses: Result<Vec<_>, _> = trusted.iter().map(Trusted::address).collect();
            let addresses = addresses.or_exit(USAGE)?;
            if !addresses.is_empty() {
                tracing::info!(?addresses, "trusted at the HTTP port, besides this machine");
            }
            Ok(HttpKeys::Trusted(addresses))
        }
        Some(keyring) => Ok(HttpKeys::Tls(keyring.clone())),
        None if wanted.is_insecure => Ok(HttpKeys::Insecure),
        None => Err(Fatal::new(
            USAGE,
            format!(
                "there are no keys, and --http {at} would be open to whoever reaches it: make keys with \
                 `tradewind keys new`, or name with --http-trust who may ask; --insecure does without"
            ),
        )),
    }
}

fn cannot_listen(at: SocketAddr, error: &std::io::Error) -> Fatal {
    let why = match error.kind() {
        ErrorKind::AddrInUse => "is taken by another process".to_owned(),
        ErrorKind::AddrNotAvailable => "is not an address of this machine".to_owned(),
        ErrorKind::PermissionDenied => {
            "may not be listened on by this user (ports below 1024 need a privilege)".to_owned()
        }
        _ => format!("cannot be listened on: {error}"),
    };
    Fatal::new(LISTEN, format!("--http {at} {why}"))
}

/// The HTTP port.
enum Answering {
    Plain(TcpListener),
    Tls(TcpListener, Arc<Keyring>),
}

impl Answering {
    async fn run<Q: Queues>(self, server: Server<Q>) {
        let (listener, keyring) = match self {
            Self::Plain(listener) => return server.listen(listener).await,
            Self::Tls(listener, keyring) => (listener, keyring),
        };
        let mut acceptor = Acceptor::new(listener);
        loop {
            let (stream, peer) = tokio::select! {
                () = server.drained() => break,
                accepted = acceptor.accept() => accepted,
            };
            let Ok(admission) = server.admit(peer.ip()) else { continue };
            let (server, keyring) = (server.clone(), keyring.clone());
            tokio::spawn(async move {
                match timeout(HANDSHAKE_TIME, secure(stream, &keyring)).await {
                    Ok(Some(stream)) => server.connection(stream, admission).await,
                    Ok(None) | Err(_) => tracing::debug!(%peer, "no handshake"),
                }
            });
        }
        drop(acceptor);
        server.closed().await;
    }
}

async fn secure(
    stream: TcpStream,
    keyring: &Keyring,
) -> Option<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + use<>> {
    let _ = stream.set_nodelay(true);
    let accepted = Roles::of(&[KeyRole::Client]);
    let accepted = keyring.keys().accept(stream, HTTP_PROTOCOL, accepted, UnixTime::now()).await;
    match accepted {
        Ok((stream, _)) => Some(stream),
        Err(fault) => {
            tracing::debug!(%fault, "no handshake");
            None
        }
    }
}

/// Removes what is not needed any more, now and then.
async fn trim(service: Service) {
    loop {
        sleep(TRIM_INTERVAL).await;
        for queue in service.all() {
            let _ = tokio::task::spawn_blocking(move || queue.trim()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tradewind_http::memory::Memory;
    use tradewind_keys::Folder;

    use super::*;

    #[tokio::test]
    async fn a_port_with_keys_ends_when_it_is_drained_though_nobody_connects_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        Folder::create(&folder, UnixTime::now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wanted = Wanted { keys: Some(folder), is_insecure: false };
        let on_tcp = Listen::Endpoint("tcp://127.0.0.1:0".parse().unwrap());
        let keyring = wanted.open(KeyRole::Ventilator, [&on_tcp], []).unwrap().unwrap();
        let server =
            Server::new(Memory::default(), Access::default().with_all(), Limits::default());
        let answering = tokio::spawn(Answering::Tls(listener, keyring).run(server.clone()));
        server.drain();
        timeout(Duration::from_secs(30), answering).await.expect("it ends").unwrap();
    }

    #[test]
    fn without_keys_http_elsewhere_than_on_loopback_is_for_those_who_are_named() {
        let trusted = |at: &str, trusted: &[Trusted]| {
            let keys = http_keys(&Wanted::default(), at.parse().unwrap(), &None, trusted);
            keys.ok().map(|keys| match keys {
                HttpKeys::Trusted(addresses) => addresses,
                HttpKeys::Tls(_) | HttpKeys::Insecure => panic!("open to all at {at}"),
            })
        };
        let host = "172.18.0.1".parse().unwrap();
        assert_eq!(trusted("0.0.0.0", &[]), None);
        assert_eq!(trusted("0.0.0.0", &[Trusted::Address(host)]), Some(vec![host]));
        assert_eq!(trusted("127.0.0.1", &[]), Some(vec![]));
    }
}
