//! The client without `async`.

use std::time::Duration;

use futures::StreamExt;
use tokio::runtime::{Builder, Runtime};

use crate::answer::{QueueState, Record, Submitted, TaskState};
use crate::error::Error;
use crate::options::Options;
use crate::records::Wanted;
use crate::task::{Batch, NewTask};
use crate::{Settings, SettingsPatch, TaskId};

/// A client whose methods return when the answer is there. It is not to be used within an async runtime, where
/// it would panic: that is what [`Client`](crate::Client) is for, whose methods these are.
///
/// ```no_run
/// use std::time::Duration;
/// use tradewind_client::{NewTask, Wanted, blocking};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = blocking::Client::from_env()?;
/// client.submit("thumbs", NewTask::new("1.jpg").key("1.jpg")?)?;
/// for record in client.records("thumbs", Wanted::default())? {
///     println!("{}", record?.json());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    client: crate::Client,
    runtime: Runtime,
}

/// Records of a queue, by their positions: see [`crate::Records`].
#[derive(Debug)]
pub struct Records<'a> {
    records: crate::Records,
    runtime: &'a Runtime,
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.records.next())
    }
}

macro_rules! methods {
    ($($name:ident($($arg:ident: $of:ty),*) -> $returns:ty;)*) => {$(
        #[doc = concat!("As [`crate::Client::", stringify!($name), "`].")]
        ///
        /// # Errors
        ///
        /// As there.
        pub fn $name(&self, $($arg: $of),*) -> Result<$returns, Error> {
            self.runtime.block_on(self.client.$name($($arg),*))
        }
    )*};
}

impl Client {
    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    ///
    /// As there, and when the system has no room for a runtime.
    pub fn connect(url: &str) -> Result<Self, Error> {
        Self::new(crate::Client::connect(url)?)
    }

    /// As [`crate::Client::from_env`].
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn from_env() -> Result<Self, Error> {
        Self::new(crate::Client::from_env()?)
    }

    /// As [`crate::Client::with`].
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn with(url: &str, options: Options) -> Result<Self, Error> {
        Self::new(crate::Client::with(url, options)?)
    }

    fn new(client: crate::Client) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(Self { client, runtime })
    }

    /// As [`crate::Client::submit`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn submit(&self, queue: &str, task: impl Into<NewTask>) -> Result<Submitted, Error> {
        self.runtime.block_on(self.client.submit(queue, task))
    }

    /// As [`crate::Client::submit_all`], to its end: returns all ids, or those before the first error with it.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn submit_all<I>(
        &self,
        queue: &str,
        tasks: I,
    ) -> Result<Vec<Submitted>, (Vec<Submitted>, Error)>
    where
        I: IntoIterator<Item = NewTask>,
        I::IntoIter: Send,
    {
        let mut all = Vec::new();
        let mut answers = std::pin::pin!(self.client.submit_all(queue, tasks));
        while let Some(submitted) = self.runtime.block_on(answers.next()) {
            match submitted {
                Ok(submitted) => all.extend(submitted),
                Err(error) => return Err((all, error)),
            }
        }
        Ok(all)
    }

    /// As [`crate::Client::records`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn records(&self, queue: &str, wanted: Wanted) -> Result<Records<'_>, Error> {
        Ok(Records { records: self.client.records(queue, wanted)?, runtime: &self.runtime })
    }

    methods! {
        submit_batch(queue: &str, batch: Batch) -> Vec<Submitted>;
        task(id: &TaskId) -> TaskState;
        result(id: &TaskId, wait: Duration) -> Option<Record>;
        cancel(id: &TaskId) -> TaskState;
        retry(id: &TaskId, key: Option<&str>) -> Submitted;
        pause(queue: &str) -> QueueState;
        resume(queue: &str) -> QueueState;
        queues() -> Vec<QueueState>;
        queue(queue: &str) -> QueueState;
        put_queue(queue: &str, settings: &Settings) -> (QueueState, bool);
        patch_queue(queue: &str, patch: &SettingsPatch) -> QueueState;
        remove_queue(queue: &str) -> ();
        consumer(queue: &str, consumer: &str) -> Option<u64>;
        set_consumer(queue: &str, consumer: &str, position: Option<u64>) -> bool;
        remove_consumer(queue: &str, consumer: &str) -> ();
    }
}
