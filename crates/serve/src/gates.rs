//! The ports that all queues of a process share: who connects names its queue, and is passed on to it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tradewind_http::QueueName;
use tradewind_lanes::{Gate, Lane, PullLane, PushLane};
use tradewind_proto::message::{Card, Role};
use tradewind_wire::decode;

/// What a port yields.
pub(crate) trait Caller: Lane {
    fn identity(&self) -> &[u8];
    fn is_gone(&self) -> bool;
}

impl Caller for PushLane {
    fn identity(&self) -> &[u8] {
        self.peer_identity()
    }

    fn is_gone(&self) -> bool {
        self.watch().reason().is_some()
    }
}

impl Caller for PullLane {
    fn identity(&self) -> &[u8] {
        self.peer_identity()
    }

    fn is_gone(&self) -> bool {
        self.watch().reason().is_some()
    }
}

/// Who waits at a port for queues that are not there yet: a worker may be started before the first submit.
pub(crate) struct Waiting<L>(Mutex<BTreeMap<QueueName, Vec<L>>>);

impl<L> Default for Waiting<L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<L: Caller> Waiting<L> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<QueueName, Vec<L>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes those who wait for a queue on to it.
    pub(crate) fn pass_on(&self, name: &QueueName, add: impl FnMut(L)) {
        let waiting = self.lock().remove(name);
        waiting.into_iter().flatten().for_each(add);
    }

    /// Has somebody wait, and forgets those that have left.
    fn add(&self, name: QueueName, lane: L) {
        let mut waiting = self.lock();
        waiting.retain(|_, lanes| {
            lanes.retain(|lane| !lane.is_gone());
            !lanes.is_empty()
        });
        waiting.entry(name).or_default().push(lane);
    }
}

/// A port, and the queues behind it.
pub(crate) trait Port<L>: Send + 'static {
    /// A queue. All clones are one.
    type Queue: Send + Sync;

    /// Returns a queue, if it is there. One may be made for who comes.
    fn find(
        &self,
        name: &QueueName,
        role: Role,
    ) -> impl Future<Output = Option<Self::Queue>> + Send;

    /// Returns those who wait here.
    fn waiting(&self) -> &Waiting<L>;

    /// Passes somebody on to a queue.
    fn add(queue: &Self::Queue, lane: L);

    /// Says that somebody waits.
    fn say_waits(_: &QueueName) {}
}

/// Returns why nobody may take part in a queue with this name, if that is so.
pub(crate) fn judge(name: &str) -> Result<(), String> {
    name.parse::<QueueName>().map(drop).map_err(|error| format!("queue {name:?}: {error}"))
}

/// Passes those who connect to a port on to their queues.
pub(crate) async fn pass<L: Caller, P: Port<L>>(mut gate: Gate<L>, port: P) {
    loop {
        let lane = gate.accept().await;
        // The door has judged it.
        let Ok(card) = decode::<Card>(&Bytes::copy_from_slice(lane.identity())) else { continue };
        let Ok(name) = card.queue.parse::<QueueName>() else { continue };
        match port.find(&name, card.role).await {
            Some(queue) => P::add(&queue, lane),
            None => {
                P::say_waits(&name);
                port.waiting().add(name.clone(), lane);
                // A queue that was made after it was looked for has passed on those who were there then.
                if let Some(queue) = port.find(&name, card.role).await {
                    port.waiting().pass_on(&name, |lane| P::add(&queue, lane));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_without_a_right_name_is_refused_in_words() {
        assert_eq!(judge("thumbs"), Ok(()));
        let error = judge("../etc").unwrap_err();
        assert!(error.contains("1 to 63 characters"), "{error}");
        assert!(judge("thumbs-1").unwrap_err().contains("as an id does"));
    }
}
