//! A program's tasks on their way into its ventilator.

use std::error::Error as StdError;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use futures::{Stream, StreamExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tradewind_input::{Chunk, InputError, Item, Source};

/// Input from the program: a task, or why there are no more.
pub(crate) type Given = Result<Item, Box<dyn StdError + Send + Sync>>;

/// Limit in bytes of the tasks that wait between the two threads; a single task always may.
const AHEAD_BYTES: u32 = 256 << 10;

/// Bytes that a task counts for besides its payload: at most 1,024 tasks wait.
const TASK_BYTES: u32 = 256;

/// The ventilator's end: hands on what is there, and never waits for more than one task.
pub(crate) struct Feed {
    given: mpsc::UnboundedReceiver<(Given, u32)>,
    room: Arc<Semaphore>,
    /// Input that follows the tasks that were returned last.
    error: Option<InputError>,
}

/// The program's end.
struct Giver {
    given: mpsc::UnboundedSender<(Given, u32)>,
    room: Arc<Semaphore>,
}

/// No more tasks are wanted once it is dropped.
pub(crate) struct Wanted(
    #[expect(dead_code, reason = "it is there to be dropped")] oneshot::Sender<()>,
);

/// Takes tasks from the stream, on a thread with a runtime of its own: it may block, and wait for
/// whatever there is to be waited for.
pub(crate) fn feed(
    tasks: impl Stream<Item = Given> + Send + 'static,
) -> io::Result<(Feed, Wanted)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (given_in, given) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(AHEAD_BYTES as usize));
    let giver = Giver { given: given_in, room: Arc::clone(&room) };
    let (wanted, unwanted) = oneshot::channel();
    thread::Builder::new().name("tasks".to_owned()).spawn(move || {
        let give = AssertUnwindSafe(|| runtime.block_on(giver.give_all(tasks, unwanted)));
        if catch_unwind(give).is_err() {
            // Or it would pass for the end of the tasks. What it says is on stderr already.
            giver.give(Err("what gives the tasks panicked".into()), 0);
        }
    })?;
    Ok((Feed { given, room, error: None }, Wanted(wanted)))
}

impl Giver {
    async fn give_all(&self, tasks: impl Stream<Item = Given>, unwanted: oneshot::Receiver<()>) {
        let giving = async {
            let mut tasks = pin!(tasks);
            while let Some(given) = tasks.next().await {
                let bytes = match &given {
                    Ok(Item::Task(payload)) => u32::try_from(payload.len()).unwrap_or(u32::MAX),
                    Ok(_) | Err(_) => 0,
                };
                let bytes = bytes.saturating_add(TASK_BYTES).min(AHEAD_BYTES);
                let Ok(room) = self.room.acquire_many(bytes).await else { return };
                room.forget();
                self.give(given, bytes);
            }
        };
        tokio::select! {
            () = giving => {}
            _ = unwanted => {}
        }
    }

    fn give(&self, given: Given, bytes: u32) {
        // An error: no more tasks are wanted.
        let _ = self.given.send((given, bytes));
    }
}

impl Source for Feed {
    fn read(&mut self) -> Result<Option<Chunk>, InputError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let mut chunk = Chunk::default();
        let mut next = self.given.blocking_recv();
        while let Some((given, bytes)) = next.take() {
            self.room.add_permits(bytes as usize);
            match given {
                Ok(item) => chunk.push(item),
                Err(error) if chunk.is_empty() => return Err(InputError::Program(error)),
                Err(error) => {
                    self.error = Some(InputError::Program(error));
                    break;
                }
            }
            // While we take, more may be given: that is for the next chunk.
            if chunk.len() < (AHEAD_BYTES / TASK_BYTES) as usize
                && chunk.bytes() < AHEAD_BYTES.into()
            {
                next = self.given.try_recv().ok();
            }
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use tradewind_proto::Payload;

    use super::*;

    fn task(text: &'static str) -> Given {
        Ok(Item::Task(Payload::from(text)))
    }

    fn read_all(feed: &mut Feed) -> (usize, Option<String>) {
        let mut tasks = 0;
        loop {
            match feed.read() {
                Ok(Some(chunk)) => tasks += chunk.len(),
                Ok(None) => return (tasks, None),
                Err(error) => return (tasks, Some(error.to_string())),
            }
        }
    }

    #[test]
    fn all_tasks_come_and_then_the_end_or_the_error() {
        let check = |given: Vec<Given>, tasks: usize, error: Option<&str>| {
            let (mut feed, _wanted) = feed(stream::iter(given)).unwrap();
            assert_eq!(read_all(&mut feed), (tasks, error.map(str::to_owned)));
        };
        check(vec![], 0, None);
        check((0..5_000).map(|_| task("x")).collect(), 5_000, None);
        let unfit = Item::Unfit { reason: "no".to_owned() };
        check(vec![task("a"), Ok(unfit)], 2, None);
        check(vec![Err("no".into())], 0, Some("cannot get more tasks: no"));
        check(vec![task("a"), Err("no".into())], 1, Some("cannot get more tasks: no"));
        let large: Vec<Given> = (0..5).map(|_| Ok(Item::Task(vec![0; 1 << 20].into()))).collect();
        check(large, 5, None);
    }

    #[test]
    fn a_panic_is_an_error_and_no_end() {
        let (mut feed, _wanted) = feed(stream::iter((0..3).map(|n| {
            assert!(n < 2, "the third");
            task("x")
        })))
        .unwrap();
        let error = "cannot get more tasks: what gives the tasks panicked".to_owned();
        assert_eq!(read_all(&mut feed), (2, Some(error)));
    }

    #[test]
    fn a_task_is_handed_on_before_the_next_is_there() {
        let (tasks, given) = std::sync::mpsc::channel();
        let (mut feed, _wanted) = feed(stream::iter(given)).unwrap();
        for _ in 0..3 {
            tasks.send(task("x")).unwrap();
            assert_eq!(feed.read().unwrap().map(|chunk| chunk.len()), Some(1));
        }
        drop(tasks);
        assert_eq!(read_all(&mut feed), (0, None));
    }

    #[test]
    fn what_waits_for_ever_ends_when_nothing_is_wanted() {
        let (mut feed, wanted) = feed(stream::pending()).unwrap();
        drop(wanted);
        assert_eq!(read_all(&mut feed), (0, None));
    }
}
