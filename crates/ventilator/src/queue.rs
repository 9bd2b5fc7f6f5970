//! What makes a job a queue: its input is a log that goes on, and it is spoken to while it runs.

use tokio::sync::{mpsc, oneshot};
use tradewind_lanes::{PullLane, PushLane};
use tradewind_proto::dispatcher::{
    CancelAnswer, Dispatcher, DispatcherConfig, DispatcherSnapshot, Policy,
};
use tradewind_proto::limits::QUEUE_RETAINED_BYTES_MAX;
use tradewind_proto::message::Start;
use tradewind_proto::{JobId, Seq, SeqRanges, SessionId};

/// What makes a job a queue.
///
/// A queue is never closed: a request to stop ends its loop at once, and its next process goes on where this one was.
/// What workers have they keep until then.
pub struct Queue {
    /// Name of the queue.
    pub name: String,
    /// Session that its ventilator shows: of the gate that workers have met.
    pub session: SessionId,
    /// Id of the queue's job, if it is kept with the tasks; the sink's otherwise.
    pub job: Option<JobId>,
    /// Looks at the job whose records a sink has, and at the tasks that have them, and says why they are not those
    /// of the tasks, if that is so: the queue ends then. It does not wait.
    pub judge: Option<JudgeSink>,
    /// Seq of the first task of the log: every task below has its record.
    pub first: Seq,
    /// Whether no task is dispatched.
    pub is_paused: bool,
    /// Tasks that are cancelled and have no record yet.
    pub cancelled: Vec<Seq>,
    /// Workers that another gate has let in.
    pub workers: mpsc::UnboundedReceiver<PushLane>,
    /// Sinks that another gate has let in: relays to a next stage.
    pub sinks: mpsc::UnboundedReceiver<PullLane>,
    /// What is said about the queue.
    pub commands: mpsc::Receiver<Command>,
}

/// What says why a sink's records are not those of a queue's tasks.
pub type JudgeSink = Box<dyn FnMut(JobId, &SeqRanges) -> Result<(), String> + Send>;

/// What is said about a queue.
#[derive(Debug)]
pub enum Command {
    /// Cancels a task.
    Cancel {
        /// The task.
        seq: Seq,
        /// Receiver of what that does.
        answer: oneshot::Sender<CancelAnswer>,
    },
    /// Whether no task is to be dispatched.
    Pause(bool),
    /// Limits of tasks that are dispatched from now on.
    SetPolicy(Policy),
    /// Asks for the state of the queue.
    Look(oneshot::Sender<DispatcherSnapshot>),
    /// Asks whether a worker has a task.
    IsOut {
        /// The task.
        seq: Seq,
        /// Receiver of the answer.
        answer: oneshot::Sender<bool>,
    },
}

impl Queue {
    /// Returns the dispatcher of the queue.
    pub(crate) fn dispatcher(&self, config: DispatcherConfig) -> Dispatcher {
        let is_own = self.job.is_some() && config.start != Start::New;
        let mut dispatcher = Dispatcher::new(config);
        if is_own {
            dispatcher = dispatcher.with_own_job();
        }
        dispatcher = dispatcher.with_first(self.first);
        dispatcher = dispatcher.with_retained_bytes_max(QUEUE_RETAINED_BYTES_MAX);
        if self.is_paused {
            dispatcher.handle_pause();
        }
        for seq in &self.cancelled {
            dispatcher.handle_cancel_task(*seq);
        }
        dispatcher
    }
}

impl Command {
    /// Does what is said. Whoever does not wait for the answer any more does not get it.
    pub(crate) fn apply(self, dispatcher: &mut Dispatcher) {
        match self {
            Self::Cancel { seq, answer } => {
                let _ = answer.send(dispatcher.handle_cancel_task(seq));
            }
            Self::Pause(true) => dispatcher.handle_pause(),
            Self::Pause(false) => dispatcher.handle_unpause(),
            Self::SetPolicy(policy) => dispatcher.set_policy(policy),
            Self::Look(answer) => {
                let _ = answer.send(dispatcher.snapshot());
            }
            Self::IsOut { seq, answer } => {
                let _ = answer.send(dispatcher.is_out(seq));
            }
        }
    }
}
