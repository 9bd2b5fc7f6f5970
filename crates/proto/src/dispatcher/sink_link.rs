//! The sink as the dispatcher knows it.

use crate::limits::SINK_SILENCE_MAX;
use crate::message::Report;
use crate::{JobKey, SessionId, Time};

#[derive(Debug)]
pub(super) struct SinkLink {
    /// The connection to the sink stands.
    pub(super) is_connected: bool,
    is_receipts_connected: bool,
    /// The sink has opened the job, and its receipts arrive.
    open: bool,
    session: Option<SessionId>,
    pub(super) report: Report,
    /// Key of the tags of the job's tasks; of no use before the sink has opened the job.
    pub(super) key: JobKey,
    pub(super) heard: Time,
    pub(super) held_bytes: u64,
    /// The sink reports that it cannot write.
    pub(super) is_stuck: bool,
    pub(super) failed: u64,
}

impl Default for SinkLink {
    fn default() -> Self {
        Self {
            is_connected: false,
            is_receipts_connected: false,
            open: false,
            session: None,
            report: Report::default(),
            key: JobKey::new([0; 16]),
            heard: Time(0),
            held_bytes: 0,
            is_stuck: false,
            failed: 0,
        }
    }
}

impl SinkLink {
    /// Returns whether the sink has opened the job and its receipts can arrive.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn is_silent(&self, now: Time) -> bool {
        now.since(self.heard) > SINK_SILENCE_MAX
    }

    pub(super) fn reset_outgoing(&mut self, is_connected: bool) {
        self.is_connected = is_connected;
    }

    pub(super) fn reset_incoming(&mut self, now: Time, is_connected: bool) {
        self.is_receipts_connected = is_connected;
        self.heard = now;
        // Receipts may have been lost: the sink's hello has to come first again.
        self.open = false;
    }

    /// Returns whether this is another sink than the one before.
    pub(super) fn handle_hello(
        &mut self,
        now: Time,
        session: SessionId,
        report: Report,
        key: JobKey,
    ) -> bool {
        self.open = true;
        self.heard = now;
        (self.held_bytes, self.is_stuck) = (0, false);
        (self.report, self.key) = (report, key);
        self.session.replace(session).is_some_and(|old| old != session)
    }
}
