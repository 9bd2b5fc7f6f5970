//! What a log underneath a queue has to do, of whatever engine it is.
//!
//! An [`Engine`] has for each partition of a queue a log of tasks and a log of records, both with positions, and
//! leases that say who reads and writes a partition. Nothing else of an engine is used: no queue of its own, no ack
//! timeout, no rebalance, no delivery limit. Calls block; a program has threads for them. Without sockets, a runtime
//! and a clock.

#[cfg(feature = "contract")]
pub mod contract;
mod error;
mod lease;
mod stored;
pub mod url;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tradewind_proto::message::Status;
use tradewind_proto::{Seq, SeqSet};
use tradewind_store::{StoredRecord, StoredTask, Submitted};

pub use self::error::EngineError;
pub use self::lease::{Lease, LeaseError, Watched};
pub use self::stored::{StoredError, format_stored, parse_stored};

/// Largest number of partitions of a queue.
pub const PARTITIONS_MAX: u32 = 1024;

/// Number of a lease on a partition: each lease that is taken has a higher one than those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Number of a call of [`TaskLog::submit`], random. The same when that call is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubmitId(pub u128);

/// Logs of a queue.
pub trait Engine: Send {
    /// Opens the task log of a partition, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be reached, or has settings that would lose tasks.
    fn tasks(&self, partition: u32) -> Result<Box<dyn TaskLog>, EngineError>;

    /// Opens the record log of a partition, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be reached, or has settings that would lose records.
    fn records(&self, partition: u32) -> Result<Box<dyn RecordLog>, EngineError>;

    /// Opens the leases on partitions.
    ///
    /// # Errors
    ///
    /// When they cannot be reached, or this engine has none.
    fn leases(&self) -> Result<Box<dyn Leases>, EngineError>;

    /// Says what weakens the promise that what was acknowledged is there, for people.
    fn notes(&self) -> Vec<String>;
}

/// Tasks of a partition, by position.
///
/// Positions ascend in the order in which tasks are read. One at which there is no task was trimmed or removed, and
/// never gets one.
pub trait TaskLog: Send {
    /// Adds tasks, and returns their positions in the same order: they survive a crash when this returns. Any number
    /// of programs may do this at a time, without a lease.
    ///
    /// A task with a key that is remembered is the known one, with its position. Tasks without a key are known by
    /// `id` and their place in the call. Where an engine has no transactions, part of the tasks may have been added
    /// when this fails, so the call is to be made again.
    ///
    /// # Errors
    ///
    /// When it is not known that all were added.
    fn submit(&mut self, id: SubmitId, tasks: &[StoredTask])
    -> Result<Vec<Submitted>, EngineError>;

    /// Returns tasks from a position on, ascending: at least one if there is one, and as many more as fit into these
    /// bytes. Waits for the first for this long, and returns nothing if none came.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<(u64, StoredTask)>, EngineError>;

    /// Returns a position below which there is no task.
    ///
    /// # Errors
    ///
    /// When the engine does not answer.
    fn first(&mut self) -> Result<u64, EngineError>;

    /// Returns a position above those of all tasks that were submitted.
    ///
    /// # Errors
    ///
    /// When the engine does not answer.
    fn end(&mut self) -> Result<u64, EngineError>;

    /// Removes tasks below `low`, all of which have records. The keys of those from `keys_low` on stay known, and with
    /// them their tasks where the engine has no other place for keys. An engine may keep more than it is asked for.
    ///
    /// # Errors
    ///
    /// When another has the partition, or the engine does not answer. It may be called again.
    fn trim(&mut self, epoch: Epoch, low: u64, keys_low: u64) -> Result<(), EngineError>;
}

/// Record that is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// Task that it is of: the task's position.
    pub seq: Seq,
    /// How the task ended.
    pub status: Status,
    /// The record itself: a JSON line.
    pub line: Bytes,
}

/// Answer to the commit of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is stored now.
    New,
    /// The task had a record before, which stays.
    Known,
}

/// Records of a partition: one for each task, the first one.
///
/// What writes says under which lease. From the first call with an epoch on those with lower ones are refused, whatever
/// they are about to write. Positions are the engine's, ascend, and are not dense.
pub trait RecordLog: Send {
    /// Returns the bytes that the line of a record has at most.
    fn line_bytes_max(&self) -> usize;

    /// Stores records: they survive a crash when this returns. A record of a task that has one is passed over, also
    /// when that one was removed since.
    ///
    /// # Errors
    ///
    /// When another has the partition, or it is not known that all were stored. Then part of them may have been, and
    /// the call is to be made again.
    fn commit(
        &mut self,
        epoch: Epoch,
        records: &[NewRecord],
    ) -> Result<Vec<Committed>, EngineError>;

    /// Returns the tasks whose records are stored, also of those that were removed.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    fn stored(&mut self) -> Result<SeqSet, EngineError>;

    /// Writes down which tasks have records, so that the next [`stored`](Self::stored) need not read all records, and
    /// old ones may be removed.
    ///
    /// # Errors
    ///
    /// When another has the partition, or the engine does not answer. It may be called again.
    fn checkpoint(&mut self, epoch: Epoch) -> Result<(), EngineError>;

    /// Returns the record of a task with its position; `None` if it has none, or it was removed.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn get(&mut self, seq: Seq) -> Result<Option<(u64, StoredRecord)>, EngineError>;

    /// Returns records from a position on, in the order in which they were stored: at least one if there is one, and as
    /// many more as fit into these bytes. Waits for the first for this long, and returns nothing if none came. Read on
    /// from the last position and one.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<(u64, StoredRecord)>, EngineError>;

    /// Removes records below a position, of which a checkpoint is written first. Their tasks stay known as stored. An
    /// engine may keep more than it is asked for.
    ///
    /// # Errors
    ///
    /// When another has the partition, or the engine does not answer. It may be called again.
    fn remove_below(&mut self, epoch: Epoch, position: u64) -> Result<(), EngineError>;
}

/// Leases on partitions, or on whatever else has a number.
///
/// A lease that is not renewed for its time may be taken by another. Clocks of hosts are not compared. That it was
/// taken stops its former holder nowhere but at the logs, which refuse its epoch.
pub trait Leases: Send {
    /// Takes the lease on a partition; `None` while another has it. To be called again and again: an engine that has no
    /// clock of its own knows only by that for how long a lease was not renewed.
    ///
    /// # Errors
    ///
    /// When the engine does not answer. The lease may have been taken then, for this owner.
    fn take(
        &mut self,
        partition: u32,
        owner: &str,
        time: Duration,
    ) -> Result<Option<Epoch>, EngineError>;

    /// Returns who has leases, by the numbers of their partitions. As with [`take`](Self::take), one that is not renewed
    /// any more counts as held until its time has been waited for.
    ///
    /// # Errors
    ///
    /// When the engine does not answer.
    fn holders(&mut self) -> Result<BTreeMap<u32, String>, EngineError>;

    /// Renews a lease.
    ///
    /// # Errors
    ///
    /// [`Fenced`](EngineError::Fenced) when another has taken it since or it was released, or when the engine does
    /// not answer.
    fn renew(&mut self, partition: u32, epoch: Epoch, time: Duration) -> Result<(), EngineError>;

    /// Gives a lease up, so that another may take it at once. Does nothing when another has taken it since.
    ///
    /// # Errors
    ///
    /// When the engine does not answer.
    fn release(&mut self, partition: u32, epoch: Epoch) -> Result<(), EngineError>;
}
