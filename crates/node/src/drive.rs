//! The loop of a ventilator, a relay and a sink: waits for the next event and handles it.
//!
//! There are a few kinds of events. The role handles them and decides when it is over; the
//! decisions about tasks are its machine's.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::exit::Fatal;
use crate::progress::{Progress, ProgressView};
use crate::shutdown::{Asked, Shutdown};

/// Number of events that wait for a loop. Further ones wait in the sockets.
pub const EVENTS_MAX: usize = 256;

/// Role, as its loop sees it.
pub trait Role {
    /// Event of the role's connections, threads and input.
    type Event;

    /// Waits for the next event of the input; for ever if there is none, or no room for it.
    /// Cancel-safe.
    fn read(&mut self) -> impl Future<Output = Self::Event> {
        std::future::pending()
    }

    /// Returns a future to wait for before the next event is handled, if a peer has too much to take already. What
    /// is asked for and what is due is done meanwhile.
    fn congestion(&mut self) -> Option<impl Future<Output = ()> + use<Self>> {
        None::<std::future::Ready<()>>
    }

    /// Handles an event.
    ///
    /// # Errors
    /// When the role cannot go on.
    fn handle_event(&mut self, event: Self::Event) -> Result<(), Fatal>;

    /// Handles a request to stop. Returns whether the loop is to end at once.
    ///
    /// # Errors
    /// When it is to end the process at once.
    fn handle_asked(&mut self, asked: Asked) -> Result<bool, Fatal>;

    /// Drives the machines until they have no more work.
    ///
    /// # Errors
    /// When the role cannot go on.
    fn drive(&mut self) -> Result<(), Fatal>;

    /// Returns the time at which to [drive](Self::drive) the role, at the latest.
    fn poll_timeout(&self) -> Instant;

    /// Returns whether the role leaves.
    fn is_over(&self) -> bool;

    /// Returns the progress of the job.
    fn view(&mut self) -> ProgressView;

    /// Returns the meter of the time in which the loop has something to do, if anybody wants to know it.
    fn busy(&mut self) -> Option<&mut Duration> {
        None
    }
}

/// End of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driven {
    /// The role left by its own rules.
    Over,
    /// It was asked to stop, and does so at once.
    Stopped,
}

/// Next event of a loop.
enum Next<E> {
    Events,
    Read(E),
    Due,
    Asked(Asked),
    Show,
    Look,
}

/// Drives a role until it leaves.
///
/// # Errors
/// Those of the role: an event or a request after which it cannot continue.
pub async fn drive<R: Role>(
    role: &mut R,
    events: &mut mpsc::Receiver<R::Event>,
    shutdown: &mut Shutdown,
    mut progress: Progress,
) -> Result<Driven, Fatal> {
    let mut show = tokio::time::interval(Progress::INTERVAL);
    let mut looks = shutdown.take_looks();
    let mut batch = Vec::with_capacity(EVENTS_MAX);
    while !role.is_over() {
        let due = role.poll_timeout();
        let congestion = role.congestion();
        let is_congested = congestion.is_some();
        let next = tokio::select! {
            _ = events.recv_many(&mut batch, EVENTS_MAX), if !is_congested => Next::Events,
            () = relieved(congestion), if is_congested => Next::Due,
            event = role.read() => Next::Read(event),
            () = tokio::time::sleep_until(due.into()) => Next::Due,
            asked = shutdown.asked() => Next::Asked(asked),
            _ = show.tick(), if !progress.is_off() => Next::Show,
            () = looks.next() => Next::Look,
        };
        let began = role.busy().is_some().then(Instant::now);
        match next {
            Next::Events => batch.drain(..).try_for_each(|event| role.handle_event(event))?,
            Next::Read(event) => role.handle_event(event)?,
            Next::Due => {}
            Next::Asked(asked) => {
                progress.clear();
                if role.handle_asked(asked)? {
                    return Ok(Driven::Stopped);
                }
            }
            Next::Show => progress.show(&role.view()),
            Next::Look => progress.tell(&role.view()),
        }
        role.drive()?;
        if let (Some(busy), Some(began)) = (role.busy(), began) {
            *busy += began.elapsed();
        }
    }
    progress.clear();
    Ok(Driven::Over)
}

async fn relieved(congestion: Option<impl Future<Output = ()>>) {
    if let Some(congestion) = congestion {
        congestion.await;
    }
}
