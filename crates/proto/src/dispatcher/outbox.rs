//! Messages and actions that wait until the shell polls them.

use std::collections::VecDeque;

use super::health::Notice;
use crate::LaneId;
use crate::message::{ToSink, ToWorker};

/// Destination of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// To a worker, on its lane.
    Worker(LaneId, ToWorker),
    /// To the sink.
    Sink(ToSink),
}

/// Messages that are not sent yet, lanes that are not closed yet, and notices that are not logged
/// yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) closes: VecDeque<LaneId>,
    pub(super) notices: VecDeque<Notice>,
}

impl Outbox {
    /// Drops the messages for a sink that is not connected any more.
    pub(super) fn forget_sink(&mut self) {
        self.transmits.retain(|transmit| !matches!(transmit, Transmit::Sink(_)));
    }
}
