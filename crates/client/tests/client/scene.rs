//! A server of queues in memory, and a proxy that loses answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tradewind_client::{Client, Options};
use tradewind_http::memory::Memory;
use tradewind_http::{Access, Limits, Server};

/// Time within which everything has happened, or never will.
pub(crate) const NEVER: Duration = Duration::from_secs(30);

/// A server that can be started again at its address.
pub(crate) struct Scene {
    pub(crate) memory: Memory,
    pub(crate) address: SocketAddr,
    limits: Limits,
    running: Option<(Server, JoinHandle<()>)>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let memory = Memory::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut scene = Self { memory, address, limits, running: None };
        scene.start().await;
        scene
    }

    /// Starts the server at its address.
    pub(crate) async fn start(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let access = Access::default().with_loopback();
        let server = Server::new(self.memory.clone(), access, self.limits.clone());
        let listening = tokio::spawn(server.clone().listen(listener));
        self.running = Some((server, listening));
    }

    /// Ends the server in order.
    pub(crate) async fn stop(&mut self) {
        let (server, listening) = self.running.take().unwrap();
        server.drain();
        tokio::time::timeout(NEVER, listening).await.unwrap().unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self) -> Client {
        Client::with(&self.url(), Options::default()).unwrap()
    }

    /// Returns a client that does not ask twice.
    pub(crate) fn impatient(&self) -> Client {
        let mut options = Options::default();
        options.patience = Duration::ZERO;
        Client::with(&self.url(), options).unwrap()
    }
}

/// Passes on connections to a server, and ends some instead of passing on an answer.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) url: String,
    /// Number of connections.
    pub(crate) accepted: Arc<AtomicUsize>,
    /// Number of answers that are lost from now on.
    pub(crate) lose: Arc<AtomicUsize>,
    /// Number of answers that were lost.
    pub(crate) lost: Arc<AtomicUsize>,
    /// Bytes of an answer that are passed on all the same.
    pub(crate) after: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn new(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (accepted, lose, lost, after) = <(Arc<_>, Arc<_>, Arc<_>, Arc<_>)>::default();
        let proxy = Self { url, accepted, lose, lost, after };
        let this = proxy.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                this.accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(this.clone().connection(client, server));
            }
        });
        proxy
    }

    async fn connection(self, mut client: TcpStream, server: SocketAddr) {
        let Ok(mut server) = TcpStream::connect(server).await else { return };
        let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            tokio::select! {
                read = client.read(&mut from_client) => {
                    let Ok(1..) = read else { return };
                    if server.write_all(&from_client[..read.unwrap()]).await.is_err() {
                        return;
                    }
                }
                read = server.read(&mut from_server) => {
                    let Ok(count @ 1..) = read else { return };
                    let order = Ordering::SeqCst;
                    if self.lose.fetch_update(order, order, |left| left.checked_sub(1)).is_ok() {
                        self.lost.fetch_add(1, order);
                        let part = count.min(self.after.load(order));
                        let _ = client.write_all(&from_server[..part]).await;
                        return;
                    }
                    if client.write_all(&from_server[..count]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Listens, and gives these bytes to one connection after another when it has asked. Returns the URL, and where
/// the first lines of the requests come.
pub(crate) async fn scripted(answers: Vec<String>) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (requests, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1 << 16];
            let read = stream.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..read]).into_owned();
            let _ = requests.send(text.lines().next().unwrap_or_default().to_owned());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, received)
}
