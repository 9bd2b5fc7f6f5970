//! The ports that all queues of a process share: who connects names its queue, and is passed on to it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tradewind_http::QueueName;
use tradewind_lanes::{PullGate, PullLane, PushGate, PushLane};
use tradewind_proto::message::Card;
use tradewind_wire::decode;

use crate::queue::Queue;
use crate::service::Service;

/// Who waits for queues that are not there yet: a worker may be started before the first submit.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<BTreeMap<QueueName, Lanes>>);

#[derive(Default)]
struct Lanes {
    workers: Vec<PushLane>,
    sinks: Vec<PullLane>,
    callers: Vec<PullLane>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<QueueName, Lanes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes those who wait for a queue on to it.
    pub(crate) fn pass_on(&self, name: &QueueName, queue: &Queue) {
        let Some(Lanes { workers, sinks, callers }) = self.lock().remove(name) else { return };
        workers.into_iter().for_each(|lane| queue.add_worker(lane));
        sinks.into_iter().for_each(|lane| queue.add_sink(lane));
        callers.into_iter().for_each(|lane| queue.add_caller(lane));
    }

    /// Has somebody wait, and forgets those that have left.
    fn add(&self, name: QueueName, add: impl FnOnce(&mut Lanes)) {
        let mut waiting = self.lock();
        waiting.retain(|_, Lanes { workers, sinks, callers }| {
            workers.retain(|lane| lane.watch().reason().is_none());
            for lanes in [&mut *sinks, &mut *callers] {
                lanes.retain(|lane| lane.watch().reason().is_none());
            }
            !(workers.is_empty() && sinks.is_empty() && callers.is_empty())
        });
        add(waiting.entry(name).or_default());
    }
}

/// Returns why nobody may take part in a queue with this name, if that is so.
pub(crate) fn judge(name: &str) -> Result<(), String> {
    name.parse::<QueueName>().map(drop).map_err(|error| format!("queue {name:?}: {error}"))
}

fn queue_of(identity: &[u8]) -> Option<QueueName> {
    // The door has judged it.
    decode::<Card>(&Bytes::copy_from_slice(identity)).ok()?.queue.parse().ok()
}

/// Passes workers that fetch tasks on to their queues.
pub(crate) async fn pass_workers(mut gate: PushGate, service: Service) {
    loop {
        let lane = gate.accept().await;
        let Some(name) = queue_of(lane.peer_identity()) else { continue };
        match service.find(&name) {
            Some(queue) => queue.add_worker(lane),
            None => {
                say_waits(&name);
                service.waiting().add(name.clone(), |lanes| lanes.workers.push(lane));
                made_meanwhile(&service, &name);
            }
        }
    }
}

/// Passes relays that send receipts on to their queues.
pub(crate) async fn pass_sinks(mut gate: PullGate, service: Service) {
    loop {
        let lane = gate.accept().await;
        let Some(name) = queue_of(lane.peer_identity()) else { continue };
        match service.find(&name) {
            Some(queue) => queue.add_sink(lane),
            None => {
                service.waiting().add(name.clone(), |lanes| lanes.sinks.push(lane));
                made_meanwhile(&service, &name);
            }
        }
    }
}

/// Passes workers and relays that send results on to their queues.
pub(crate) async fn pass_callers(mut gate: PullGate, service: Service) {
    loop {
        let lane = gate.accept().await;
        let Some(name) = queue_of(lane.peer_identity()) else { continue };
        match service.find(&name) {
            Some(queue) => queue.add_caller(lane),
            None => {
                service.waiting().add(name.clone(), |lanes| lanes.callers.push(lane));
                made_meanwhile(&service, &name);
            }
        }
    }
}

fn say_waits(name: &QueueName) {
    tracing::info!("a worker waits for queue {name}, which the first submit makes");
}

/// A queue that was made after it was looked for has passed on those who were there then.
fn made_meanwhile(service: &Service, name: &QueueName) {
    if let Some(queue) = service.find(name) {
        service.waiting().pass_on(name, &queue);
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
