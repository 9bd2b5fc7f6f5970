//! The loop of a ventilator, a relay and a sink: waits until something happens, and has it seen to.
//!
//! What happens is one of a few things. What to do about it, and when there is nothing more to do, is
//! the role's; what of that is a decision is its machine's.

use std::time::Instant;

use tokio::sync::mpsc;

use crate::exit::Fatal;
use crate::progress::{Progress, ProgressView};
use crate::shutdown::{Asked, Shutdown};

/// Events that wait for a loop. What fills it up waits in the sockets.
pub const EVENTS_MAX: usize = 256;

/// A role, as its loop knows it.
pub trait Role {
    /// What its connections and threads report.
    type Event;
    /// What it waits for besides.
    type Read;

    /// Waits for more to read; for ever if there is none, or no room for it. Cancel-safe.
    fn read(&mut self) -> impl Future<Output = Self::Read>;

    /// Takes in what was read.
    fn handle_read(&mut self, read: Self::Read);

    /// Takes in an event.
    ///
    /// # Errors
    /// When the role cannot go on.
    fn handle_event(&mut self, event: Self::Event) -> Result<(), Fatal>;

    /// Takes in that somebody asks it to stop. Returns whether the loop is to end at once.
    ///
    /// # Errors
    /// When it is to end the process at once.
    fn handle_asked(&mut self, asked: Asked) -> Result<bool, Fatal>;

    /// Does what the machines say, until they say nothing more.
    ///
    /// # Errors
    /// When the role cannot go on.
    fn drive(&mut self) -> Result<(), Fatal>;

    /// When to [drive](Self::drive) it, at the latest.
    fn poll_timeout(&self) -> Instant;

    /// Does the role leave?
    fn is_over(&self) -> bool;

    /// How far the job is.
    fn view(&mut self) -> ProgressView;
}

/// How a loop has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driven {
    /// The role leaves by its own rules.
    Over,
    /// It was asked to stop, and does so at once.
    Stopped,
}

/// What has happened.
enum Next<R> {
    Events,
    Read(R),
    Due,
    Asked(Asked),
    Show,
    Look,
}

/// Drives a role until it leaves.
///
/// # Errors
/// When it cannot go on.
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
        let next = tokio::select! {
            _ = events.recv_many(&mut batch, EVENTS_MAX) => Next::Events,
            read = role.read() => Next::Read(read),
            () = tokio::time::sleep_until(due.into()) => Next::Due,
            asked = shutdown.asked() => Next::Asked(asked),
            _ = show.tick(), if !progress.is_off() => Next::Show,
            () = looks.next() => Next::Look,
        };
        match next {
            Next::Events => batch.drain(..).try_for_each(|event| role.handle_event(event))?,
            Next::Read(read) => role.handle_read(read),
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
    }
    progress.clear();
    Ok(Driven::Over)
}
