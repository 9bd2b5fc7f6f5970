//! What is to be done, until the shell asks for it.

use std::collections::VecDeque;

use super::health::Notice;
use crate::LaneId;
use crate::message::{ToSink, ToWorker};

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// Down a worker's lane.
    Worker(LaneId, ToWorker),
    /// To the sink.
    Sink(ToSink),
}

/// Messages that are not sent yet, lanes that are not closed yet, and what people should know.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) closes: VecDeque<LaneId>,
    pub(super) notices: VecDeque<Notice>,
}

impl Outbox {
    /// Drops what a sink that is not connected any more was to be told.
    pub(super) fn forget_sink(&mut self) {
        self.transmits.retain(|transmit| !matches!(transmit, Transmit::Sink(_)));
    }
}
