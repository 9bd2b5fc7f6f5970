//! The thread that asks the program's loop how it is, and shows it to whoever looks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tradewind_http::{Draining, Limits, Server};
use tradewind_proto::Seq;
use tradewind_proto::dispatcher::Explained;
use tradewind_seen::{About, Ask, Look, Watch};

use crate::port::HttpPort;
use crate::routes::router;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Number of looks at the beginning, when much changes, and the time between them.
const FIRST_LOOKS: u32 = 12;
const FIRST_INTERVAL: Duration = Duration::from_millis(250);

/// Time in which the loop is to answer. It does so between two events.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Number of connections: a page has one, a scraper one.
const CONNECTIONS_MAX: usize = 64;

/// Time that those who look have to hear of the end.
const END_TIME: Duration = Duration::from_secs(1);

/// What those who look are shown. All clones are one.
#[derive(Clone)]
pub struct Face {
    watch: Arc<Mutex<Watch>>,
    /// Number of looks so far; whether it has ended.
    ticks: Arc<watch::Sender<(u64, bool)>>,
    asks: mpsc::Sender<Ask>,
    draining: Draining,
}

/// A face that is shown, until it is dropped or [ended](Self::end).
pub struct Shown {
    face: Face,
    thread: Option<JoinHandle<()>>,
}

/// Shows a program at a port, on a thread of its own. It asks through `asks`.
///
/// # Errors
/// When the thread cannot be started.
pub fn show(
    port: HttpPort,
    about: About,
    asks: mpsc::Sender<Ask>,
) -> Result<Shown, std::io::Error> {
    let face = Face::new(about, asks);
    let of_thread = face.clone();
    let (started, has_started) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => {
                let _ = started.send(Ok(()));
                runtime
            }
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        runtime.block_on(of_thread.run(port));
    })?;
    has_started.recv().map_err(std::io::Error::other)??;
    Ok(Shown { face, thread: Some(thread) })
}

impl Face {
    /// Makes one for a program that begins now.
    #[must_use]
    pub fn new(about: About, asks: mpsc::Sender<Ask>) -> Self {
        Self {
            watch: Arc::new(Mutex::new(Watch::new(about, now()))),
            ticks: Arc::new(watch::Sender::new((0, false))),
            asks,
            draining: Draining::default(),
        }
    }

    async fn run(self, port: HttpPort) {
        let limits =
            Limits { connections_max: CONNECTIONS_MAX, drain_time: END_TIME, ..Limits::default() };
        let access = port.access();
        let server = Server::with_router(router(&self, access), limits, self.draining.clone());
        let looking = self.clone().look();
        tokio::select! {
            () = port.answer(server) => {}
            () = looking => {}
        }
    }

    /// Asks the loop once a second, until the end.
    async fn look(self) {
        let mut looks = 0;
        let mut soon = interval(FIRST_INTERVAL);
        let mut interval = interval(INTERVAL);
        for ticks in [&mut soon, &mut interval] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            looks += 1;
            let ticks = if looks <= FIRST_LOOKS { &mut soon } else { &mut interval };
            ticks.tick().await;
            let (answer, look) = oneshot::channel();
            let ask = Ask::Look(Box::new(move |look| drop(answer.send(look))));
            if self.asks.send(ask).await.is_err() {
                // The loop has ended: what it said last stands, and the server drains.
                std::future::pending::<()>().await;
            }
            if let Ok(Ok(look)) = timeout(ANSWER_TIME, look).await {
                self.note(look);
            }
        }
    }

    /// Notes a look, and tells those who wait.
    pub fn note(&self, look: Look) {
        let has_ended = look.end.is_some();
        self.watch().note(now(), look);
        self.ticks.send_modify(|(ticks, ended)| {
            *ticks += 1;
            *ended |= has_ended;
        });
    }

    pub(crate) fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ticks(&self) -> watch::Receiver<(u64, bool)> {
        self.ticks.subscribe()
    }

    pub(crate) const fn draining(&self) -> &Draining {
        &self.draining
    }

    /// Returns what the loop knows of a task; `None` if it does not answer.
    pub(crate) async fn explain(&self, seq: Seq) -> Option<Explained> {
        let (answer, explained) = oneshot::channel();
        let ask = Ask::Explain(seq, Box::new(move |explained| drop(answer.send(explained))));
        self.asks.send(ask).await.ok()?;
        timeout(ANSWER_TIME, explained).await.ok()?.ok()
    }
}

impl Shown {
    /// Shows the last look, and ends when those who look have it.
    pub fn end(mut self, look: Look) {
        self.face.note(look);
        self.stop();
    }

    fn stop(&mut self) {
        self.face.draining.begin();
        if let Some(thread) = self.thread.take() {
            // It ends: each connection has a time to drain.
            let _ = thread.join();
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns the seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
