//! Bugs that are planted in the shells and in the ledger, to prove that the simulator would find them.

use tradewind_proto::dispatcher::LedgerBug;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A receipt vanishes from a connection that lives.
    DropReceipt,
    /// A batch of tasks vanishes from a lane that lives.
    DropTasks,
    /// A batch of tasks that came on a lane comes again on the next one.
    RepeatTasks,
    /// A worker is not told that its connection to the sink stands again.
    ForgetSinkConnected,
    /// The ventilator is not told that its connection to the sink stands again.
    ForgetJobConnected,
    /// A group commit reports one record less than it wrote.
    ForgetWritten,
    /// A task runs with the payload of the one before.
    MixPayloads,
    /// The sink writes a record twice.
    RepeatRecord,
    /// A sink that starts again does not look at what is on its disk.
    ForgetDisk,
    /// A sink that starts again does not cut off what was being written.
    KeepTornTail,
    /// The sink says that records are stored before they are.
    EarlyReceipt,
    /// The ventilator is not told that a lane is gone: what the worker had is not queued again.
    ForgetLoss,
    /// A result that comes a second time is written a second time.
    ForgetDuplicates,
    /// A record of an earlier stage vanishes on its way from a relay.
    DropPassed,
    /// A relay says that what it has taken is stored.
    EarlyStored,
    /// Tasks that were prefetched by a child that has died are not given to the next one.
    ForgetFed,
    /// Bytes of a result that is under way are not taken for a sign of life.
    ForgetAlive,
    /// A task that a host cannot start is said to have failed.
    FailUnstartable,
    /// A task that kills its worker brings down another one as well.
    KillNeighbour,
    /// A second sink displaces the first.
    NewestSink,
    /// A sink takes any process that says that it is there for a ventilator that knows the job. Not among
    /// [`ALL`](Self::ALL): a relay must die in the moment between two messages.
    TrustStranger,
    /// A worker waits for its results to be settled, however long that takes.
    WaitUnsettled,
    /// A worker that missed the end of its job waits for another one.
    NeverForget,
    /// A process that was told to give up on peers does so when it only waits to tell of the end.
    ReportTimeout,
    /// A sink whose job is cancelled writes that of every task, whatever became of it.
    RecordCancelled,
    /// A recall vanishes from a lane that lives: a worker keeps what others could begin with. Not among
    /// [`ALL`](Self::ALL): in few worlds is a queue of long tasks beside workers that have nothing.
    ForgetRecall,
    /// The sink takes a result from any worker that knows the task.
    TrustResults,
    /// Each heartbeat of a worker excuses it for what it owes.
    ForgetOwed,
    /// One in what a dispatcher keeps. [`CountRepeated`](LedgerBug::CountRepeated) is not among
    /// [`ALL`](Self::ALL): it takes a job whose policy follows from what results say. [`ForgetOwn`](LedgerBug::ForgetOwn)
    /// takes [worlds](crate::Options::has_own_limits) in which tasks have limits of their own.
    Ledger(LedgerBug),
    /// A sink that starts again forgets a record that is in its spool.
    ForgetSpooled,
    /// A segment of the spool is removed before the output has what is in it.
    EarlyRelease,
    /// The sink says that records are in the spool before they are.
    EarlySpooled,
    /// The output of a resumed job is not made ready when its input is known to be unchanged.
    ForgetBegin,
    /// A queue answers before what was submitted is synced. This one and those that follow are found in
    /// [worlds](crate::Options::is_queue) that have a queue.
    AnswerEarly,
    /// A segment of tasks is removed whatever is in it.
    TrimEarly,
    /// The key of a task is forgotten with its segment, though its record is kept.
    ForgetKey,
    /// A queue that starts again does not say again which tasks are cancelled.
    ForgetCancels,
    /// A task that may be run again is removed with its segment, though its record is kept.
    ForgetFailed,
    /// A queue that is not synced gives positions of tasks again that are lost, though some have their records.
    ForgetLost,
    /// A queue that starts again leaves out its first task without a record.
    SkipTask,
    /// A cancelled task that a worker has done gets a second record.
    RecordBoth,
}

impl Mutation {
    /// Those that are found in worlds with a queue.
    pub const OF_QUEUES: [Self; 8] = [
        Self::AnswerEarly,
        Self::TrimEarly,
        Self::ForgetKey,
        Self::ForgetFailed,
        Self::ForgetLost,
        Self::ForgetCancels,
        Self::SkipTask,
        Self::RecordBoth,
    ];

    /// Those that some hundred seeds find.
    pub const ALL: [Self; 34] = [
        Self::TrustResults,
        Self::ForgetOwed,
        Self::DropReceipt,
        Self::DropTasks,
        Self::RepeatTasks,
        Self::ForgetSinkConnected,
        Self::ForgetJobConnected,
        Self::ForgetWritten,
        Self::MixPayloads,
        Self::RepeatRecord,
        Self::ForgetDisk,
        Self::KeepTornTail,
        Self::EarlyReceipt,
        Self::ForgetLoss,
        Self::ForgetDuplicates,
        Self::DropPassed,
        Self::EarlyStored,
        Self::ForgetFed,
        Self::ForgetAlive,
        Self::FailUnstartable,
        Self::KillNeighbour,
        Self::NewestSink,
        Self::Ledger(LedgerBug::KeepCharge),
        Self::Ledger(LedgerBug::ForgetSettled),
        Self::Ledger(LedgerBug::ForgetStraggler),
        Self::Ledger(LedgerBug::ForgetOwn),
        Self::ForgetSpooled,
        Self::EarlyRelease,
        Self::EarlySpooled,
        Self::ForgetBegin,
        Self::WaitUnsettled,
        Self::NeverForget,
        Self::ReportTimeout,
        Self::RecordCancelled,
    ];
}
