//! What the dispatcher knows of a worker.

use super::health::Health;
use super::ledger::Charge;
use super::snapshot::WorkerSnapshot;
use super::tail::Pace;
use crate::limits::CREDIT_BYTES_MAX;
use crate::message::Card;
use crate::window::Window;
use crate::{CallId, LaneId, Seq, SeqRanges, SeqSet, SessionId, Time};

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) lane: LaneId,
    pub(super) name: String,
    pub(super) phase: Phase,
    /// The call that it has not answered. Answers to earlier ones are out of date.
    pub(super) call: Option<CallId>,
    pub(super) window: Window,
    /// Tasks that can have been running at once, whatever slots it has now.
    pub(super) slots_max: u64,
    /// How long a task takes here.
    pub(super) pace: Pace,
    /// How its tasks end.
    pub(super) health: Health,
    /// Bytes of the largest message that it takes, and of the largest task therefore.
    pub(super) message_bytes_max: u64,
    pub(super) payload_bytes_max: u64,
    /// The suspect that it was given last.
    pub(super) suspect: Option<Seq>,
    /// It is kept for a suspect that is to be alone, or has it.
    pub(super) is_reserved: bool,
    /// Since when it says that it has less than it was given, or does not answer, and how often it
    /// has said so.
    pub(super) deaf_since: Option<(Time, u32)>,
    /// When its last heartbeat came.
    pub(super) beat: Time,
    /// When its connection to the sink ended, if it was not heard since.
    pub(super) cut: Option<Time>,
    /// The recall that it has not answered.
    pub(super) recall: Option<CallId>,
    /// Nothing more is recalled before.
    pub(super) recall_min: Time,
    /// When it last had a result, or a task after having had none.
    pub(super) last_progress: Time,
    /// What it was given and the sink has not received from it.
    pub(super) out: SeqSet,
    /// What it alone answers for.
    pub(super) charge: Charge,
    /// Settled seqs that it has not been told of.
    pub(super) settled: SeqRanges,
    pub(super) announced_below: Seq,
    pub(super) heard: Time,
    pub(super) running: u32,
    pub(super) queued: u32,
    pub(super) done: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Has not answered the roll call: nobody knows whether its results would arrive.
    Called,
    /// May have tasks.
    Ready,
    /// Takes no more.
    Draining,
}

impl Worker {
    pub(super) fn new(now: Time, lane: LaneId, card: &Card) -> Self {
        Self {
            lane,
            name: card.name.clone(),
            phase: Phase::Called,
            call: None,
            window: Window::new(card.slots),
            slots_max: u64::from(card.slots.max(1)),
            pace: Pace::default(),
            health: Health::new(now),
            message_bytes_max: card.message_bytes_max,
            payload_bytes_max: card.largest_payload(),
            suspect: None,
            is_reserved: false,
            deaf_since: None,
            beat: Time(0),
            cut: None,
            recall: None,
            recall_min: now,
            last_progress: now,
            out: SeqSet::new(),
            charge: Charge::default(),
            settled: SeqRanges::new(),
            announced_below: Seq(0),
            heard: now,
            running: 0,
            queued: 0,
            done: 0,
        }
    }

    /// Tasks that it may hold: what its window says, and no less than what is worth a message.
    /// `least` is that for whoever has not shown yet what a task takes there.
    pub(super) fn window(&self, least: u64) -> u64 {
        self.window.size_or(self.pace.least_worth().unwrap_or(least))
    }

    /// Tasks it may still be given, if it may hold so many.
    pub(super) fn free(&self, room: u64) -> u64 {
        room.saturating_sub(self.out.count())
    }

    /// Payload bytes it may still be given.
    pub(super) fn free_bytes(&self) -> u64 {
        CREDIT_BYTES_MAX.saturating_sub(self.charge.bytes())
    }

    pub(super) fn idle_slots(&self) -> u64 {
        self.window.slots().saturating_sub(self.out.count())
    }

    /// Should it be given tasks now, if it may hold so many?
    ///
    /// With all slots busy there is no hurry: it waits until an eighth of its window is free, or
    /// batches would become as small as the receipts that freed them.
    pub(super) fn is_hungry(&self, room: u64) -> bool {
        let free = self.free(room);
        let is_worthwhile = self.idle_slots() > 0 || free * 8 >= room;
        self.can_start() && free > 0 && self.free_bytes() > 0 && is_worthwhile
    }

    /// May it have tasks, and does it use a slot to run them in?
    pub(super) fn is_usable(&self) -> bool {
        self.phase == Phase::Ready && self.window.slots() > 0 && !self.health.is_aside
    }

    /// The same, and is it not kept for a suspect?
    pub(super) fn can_start(&self) -> bool {
        self.is_usable() && !self.is_reserved
    }

    /// Does a task of so many bytes fit into a message to it?
    pub(super) fn fits(&self, bytes: u64) -> bool {
        bytes <= self.payload_bytes_max
    }

    /// Tasks per slot.
    pub(super) fn load(&self) -> f64 {
        self.out.count() as f64 / self.window.slots() as f64
    }

    pub(super) fn snapshot(&self, session: SessionId) -> WorkerSnapshot {
        WorkerSnapshot {
            session,
            name: self.name.clone(),
            slots: self.window.slots(),
            window: self.window.size(),
            out: self.out.count(),
            out_bytes: self.charge.bytes(),
            running: self.running,
            queued: self.queued,
            done: self.done,
            rate: self.window.rate(),
            is_ready: self.phase == Phase::Ready,
        }
    }
}
