//! Room for workers where open files are few: some files are kept back for the connections without
//! which there is no job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tradewind_lanes::LaneOptions;
use tradewind_proto::SessionId;

/// Room for workers at one port.
#[derive(Clone, Debug)]
pub struct Room(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    permits: Arc<Semaphore>,
    workers_max: usize,
    files_max: u64,
    turned_away: Mutex<TurnedAway>,
}

/// Number of open files of a connection: one for TCP, and both ends of the private socket.
const CONNECTION_FILES: u64 = 3;

/// Number of open files that workers do not get: for the connections to and from the sink or the
/// ventilator, for the output, its journal and the input, and for connections whose handshake is
/// under way.
const KEPT_FILES: u64 = 32;

/// Number of a port's connections whose handshake is under way, or that are no worker's, where
/// files are few.
const OTHERS_MAX: usize = 3;

impl Room {
    /// Returns the room of this process, shared by the ports that take workers.
    #[must_use]
    pub fn for_workers(ports: u64) -> Self {
        let files_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        // Where the system gives no number, assume little more than a runtime needs.
        let open = std::fs::read_dir("/proc/self/fd").map_or(16, |fds| fds.count() as u64);
        Self::with_files(files_max, open, ports)
    }

    fn with_files(files_max: u64, open: u64, ports: u64) -> Self {
        let left = files_max.saturating_sub(open + KEPT_FILES);
        let workers_max = (left / CONNECTION_FILES / ports).max(1);
        let workers_max = usize::try_from(workers_max).unwrap_or(usize::MAX);
        let workers_max = workers_max.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(workers_max));
        Self(Arc::new(Inner { permits, workers_max, files_max, turned_away: Mutex::default() }))
    }

    /// Returns the options of the port: no more connections than there are files for.
    #[must_use]
    pub fn options(&self, lanes: &LaneOptions) -> LaneOptions {
        let connections_max = lanes.connections_max.min(self.0.workers_max + OTHERS_MAX);
        LaneOptions { connections_max, ..lanes.clone() }
    }

    /// Lets a worker in.
    ///
    /// # Errors
    /// When there is no room, with what to tell it.
    pub(crate) fn admit(
        &self,
        now: Instant,
        session: SessionId,
    ) -> Result<Option<OwnedSemaphorePermit>, String> {
        let Inner { permits, workers_max, files_max, turned_away } = &*self.0;
        let mut turned_away = turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(permit) = permits.clone().try_acquire_owned() {
            turned_away.workers.remove(&session);
            return Ok(Some(permit));
        }
        if let Some(count) = turned_away.add(now, session) {
            let workers = if count == 1 { "1 worker does" } else { &format!("{count} workers do") };
            tracing::warn!(
                "{workers} not fit beside the {workers_max} that are connected: ulimit -n is {files_max}"
            );
        }
        Err(format!(
            "{workers_max} workers are connected, no more fit: ulimit -n is {files_max} there"
        ))
    }
}

/// Workers for which there was no room lately.
#[derive(Debug, Default)]
struct TurnedAway {
    workers: HashMap<SessionId, Instant>,
    since: Option<Instant>,
    said: Option<Instant>,
}

/// Time within which all workers that were sent away have come again.
const ROUND: Duration = Duration::from_secs(4);

/// Time after which the number of workers without room is logged again.
const INTERVAL: Duration = Duration::from_secs(60);

impl TurnedAway {
    /// Counts a worker without room; returns the number of such workers, if it is to be logged now.
    fn add(&mut self, now: Instant, session: SessionId) -> Option<usize> {
        self.workers.retain(|_, at| now.duration_since(*at) < ROUND);
        if self.workers.is_empty() {
            self.since = Some(now);
        }
        self.workers.insert(session, now);
        let is_counted = self.since.is_some_and(|since| now.duration_since(since) >= ROUND / 2);
        let is_due = self.said.is_none_or(|said| now.duration_since(said) >= INTERVAL);
        if !is_counted || !is_due {
            return None;
        }
        self.said = Some(now);
        Some(self.workers.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_kept_back() {
        let workers = |files, open, ports| Room::with_files(files, open, ports).0.workers_max;
        assert_eq!(workers(64, 9, 1), 7);
        assert_eq!(workers(64, 9, 2), 3);
        assert_eq!(workers(1024, 10, 1), 327);
        assert_eq!(workers(20, 10, 1), 1, "a job has at least one");
        let room = Room::with_files(64, 9, 1);
        assert_eq!(room.options(&LaneOptions::default()).connections_max, 10);
        let room = Room::with_files(1 << 30, 9, 1);
        let usual = LaneOptions::default().connections_max;
        assert_eq!(room.options(&LaneOptions::default()).connections_max, usual);
    }

    #[test]
    fn who_does_not_fit_is_told_and_fits_when_another_has_gone() {
        let room = Room::with_files(20, 10, 1);
        let now = Instant::now();
        let permit = room.admit(now, SessionId(1)).unwrap();
        let reason = room.admit(now, SessionId(2)).unwrap_err();
        assert_eq!(reason, "1 workers are connected, no more fit: ulimit -n is 20 there");
        drop(permit);
        assert!(room.admit(now, SessionId(2)).is_ok());
    }

    #[test]
    fn how_many_do_not_fit_is_counted_before_it_is_said_and_then_once_a_minute() {
        let mut turned_away = TurnedAway::default();
        let start = Instant::now();
        let mut said = Vec::new();
        for second in 0..100 {
            for session in 0..30 {
                let now = start + Duration::from_secs(second);
                said.extend(turned_away.add(now, SessionId(session)).map(|n| (second, n)));
            }
        }
        assert_eq!(said, [(2, 30), (62, 30)]);
    }
}
