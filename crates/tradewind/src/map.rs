//! All three in one process.

use std::fmt::Display;
use std::marker::PhantomData;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use tradewind_lanes::PrivateDir;

use crate::{Error, Handle, Json, Records, Sink, Ventilator, Worker};

/// The results of [`map`], in the order of the tasks.
///
/// If it is dropped before its end, the tasks that run are told to stop, and are not waited for.
#[derive(Debug)]
pub struct Mapped<O> {
    records: Records,
    /// Handle that stops the others.
    handles: [Handle; 3],
    roles: Vec<JoinHandle<Result<(), Error>>>,
    /// Directory of the sockets.
    _sockets: PrivateDir,
    output: PhantomData<fn() -> O>,
}

/// Runs a closure for each task, several at once, each on a thread: a ventilator, a worker and a
/// sink in this process, over Unix sockets that only this user can reach. They are in a directory that is
/// removed when what is returned is dropped.
///
/// Tasks are taken from the iterator as there is room, and results come in its order. Tasks and
/// outputs travel as JSON. A task that failed or panicked is an [`Error::Task`] in its place; any
/// other error is the last.
///
/// ```
/// # fn main() -> Result<(), tradewind::Error> {
/// let squares = tradewind::map(1..=5_u64, 2, |n: u64| Ok::<_, String>(n * n))?;
/// let squares: Vec<u64> = squares.collect::<Result<_, _>>()?;
/// assert_eq!(squares, [1, 4, 9, 16, 25]);
///
/// let paths = vec![std::path::PathBuf::from("Cargo.toml"), "no such file".into()];
/// let mut sizes = tradewind::map(paths, 8, |path: std::path::PathBuf| {
///     std::fs::metadata(path).map(|metadata| metadata.len())
/// })?;
/// assert!(sizes.next().is_some_and(|size| size.is_ok_and(|bytes| bytes > 0)));
/// assert!(sizes.next().is_some_and(|size| size.is_err()));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When there is no socket or thread to be had, or the slots are none or too many.
pub fn map<I, T, O, E, F>(tasks: I, slots: u32, handler: F) -> Result<Mapped<O>, Error>
where
    I: IntoIterator<Item = T>,
    I::IntoIter: Send + 'static,
    T: Serialize + DeserializeOwned + 'static,
    O: Serialize + DeserializeOwned + 'static,
    E: Display,
    F: Fn(T) -> Result<O, E> + Send + Sync + 'static,
{
    let sockets = PrivateDir::new().map_err(Error::system)?;
    let at = |name: &str| sockets.endpoint(name).to_string();
    let sink = Sink::listen(&at("results"))?;
    let ventilator =
        Ventilator::listen(&at("tasks"), &at("receipts"))?.sink(&sink.results_endpoint())?;
    let worker = Worker::connect(&ventilator.tasks_endpoint(), &sink.results_endpoint())?
        .slots(slots)
        .exit_when_done(true)
        .grace(Duration::ZERO)
        .signals(false);
    worker.check()?;
    let sink = sink.ventilator(&ventilator.receipts_endpoint())?;
    let handles = [ventilator.handle(), worker.handle(), sink.handle()];
    let records = sink.records()?;
    let mut mapped =
        Mapped { records, handles, roles: Vec::new(), _sockets: sockets, output: PhantomData };
    let tasks = tasks.into_iter();
    mapped.start("ventilator", move || ventilator.run_json(tasks).map(drop))?;
    mapped.start("worker", move || {
        worker.typed(Json::<T, O>::new()).run(move |task, _| handler(task))
    })?;
    Ok(mapped)
}

impl<O> Mapped<O> {
    /// Runs a role on a thread. If it fails, the others need not wait for it.
    fn start(
        &mut self,
        name: &str,
        role: impl FnOnce() -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let others = self.handles.clone();
        let run = move || {
            let ended = role();
            if ended.is_err() {
                others.iter().for_each(Handle::quit);
            }
            ended
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        self.roles.push(thread.map_err(Error::system)?);
        Ok(())
    }

    /// Why the first of the roles that failed did.
    fn failure(&mut self) -> Option<Error> {
        let ended = self.roles.drain(..).map(|role| {
            role.join().unwrap_or_else(|_| Err(Error::system(anyhow::anyhow!("a thread panicked"))))
        });
        // One that was told to quit is not the reason.
        ended.filter_map(Result::err).find(|error| !matches!(error, Error::Stopped))
    }
}

impl<O: DeserializeOwned> Iterator for Mapped<O> {
    type Item = Result<O, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.records.next() {
            Some(Ok(record)) => Some(record.json()),
            Some(Err(error)) => {
                self.handles.iter().for_each(Handle::quit);
                Some(Err(self.failure().unwrap_or(error)))
            }
            None => self.failure().map(Err),
        }
    }
}

impl<O> Drop for Mapped<O> {
    fn drop(&mut self) {
        self.handles.iter().for_each(Handle::quit);
    }
}
