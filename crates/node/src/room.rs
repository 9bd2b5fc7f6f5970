//! Room for workers where open files are few: some files are kept back for the connections without
//! which there is no job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tradewind_lanes::LaneOptions;
use tradewind_proto::SessionId;
use tradewind_proto::limits::TO_VENTILATOR_BYTES_MAX;

/// Room for workers at one port.
#[derive(Clone, Debug)]
pub struct Room(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    permits: Arc<Semaphore>,
    workers_max: usize,
    /// Number of connections of each port that no worker gets.
    reserved: usize,
    /// Number of connections of each port that have not said who they are.
    half_open_max: usize,
    files_max: u64,
    turned_away: Mutex<TurnedAway>,
}

/// Number of open files of a connection that has been let in: one for TCP, and both ends of the private socket.
const CONNECTION_FILES: u64 = 3;

/// Number of open files that no port gets: for the connections that this program dials, for the output, its journal
/// and spool, and the input.
const KEPT_FILES: u64 = 20;

/// Part of the files that one port has for connections that have not said who they are, at most, and the part that
/// is kept for the ventilator, the sink and relays.
const SHARE: u64 = 16;

/// Number of workers from which on one address has three quarters of the room at most: with few files it would
/// have all of it otherwise. Where there is room for fewer, that one address may be the whole job.
const DIVIDED_MIN: usize = 32;

/// Number of either that a port has where files are very few.
const OTHERS_MIN: u64 = 2;

impl Room {
    /// Returns the room of this process, shared by the ports that take workers. `others` is the number of ports that
    /// take none.
    #[must_use]
    pub fn for_workers(ports: u64, others: u64) -> Self {
        let (files_max, open) = files();
        Self::with_files(files_max, open, ports, others, &LaneOptions::default())
    }

    /// Returns the room of a server of queues, and the number of connections that are left for HTTP: a quarter of the
    /// files, and not more than so many.
    #[must_use]
    pub fn beside_http(ports: u64, others: u64, http_max: usize) -> (Self, usize) {
        let (files_max, open) = files();
        let http = http_files(files_max, open).min(http_max as u64);
        let room = Self::with_files(files_max, open + http, ports, others, &LaneOptions::default());
        (room, usize::try_from(http).unwrap_or(http_max))
    }

    fn with_files(files_max: u64, open: u64, ports: u64, others: u64, usual: &LaneOptions) -> Self {
        let left = files_max.saturating_sub(open + KEPT_FILES);
        let share =
            |files: u64, usual: usize| (left / SHARE / files).max(OTHERS_MIN).min(usual as u64);
        let half_open_max = share(1, usual.half_open_max);
        let reserved = share(CONNECTION_FILES, usual.connections_reserved);
        let kept = (half_open_max + CONNECTION_FILES * reserved) * (ports + others);
        let workers_max = (left.saturating_sub(kept) / CONNECTION_FILES / ports).max(1);
        let workers_max = usize::try_from(workers_max).unwrap_or(usize::MAX);
        let workers_max = workers_max.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            permits: Arc::new(Semaphore::new(workers_max)),
            workers_max,
            reserved: reserved as usize,
            half_open_max: half_open_max as usize,
            files_max,
            turned_away: Mutex::default(),
        }))
    }

    /// Returns the options of a port that takes workers: no more connections than there are files for.
    #[must_use]
    pub fn options(&self, lanes: &LaneOptions) -> LaneOptions {
        let Inner { workers_max, reserved, .. } = *self.0;
        let connections_max = lanes.connections_max.min(workers_max.saturating_add(reserved));
        let connections_per_address = match lanes.connections_per_address {
            usual if workers_max >= DIVIDED_MIN => usual.min(workers_max / 4 * 3),
            usual => usual,
        };
        LaneOptions { connections_max, connections_per_address, ..self.port_options(lanes) }
    }

    /// Returns the options of a port for receipts: it takes no workers, and messages to a ventilator.
    #[must_use]
    pub fn receipts_options(&self, lanes: &LaneOptions) -> LaneOptions {
        LaneOptions {
            connections_max: lanes.connections_max.min(self.0.reserved),
            message_bytes_max: TO_VENTILATOR_BYTES_MAX,
            ..self.port_options(lanes)
        }
    }

    fn port_options(&self, lanes: &LaneOptions) -> LaneOptions {
        let Inner { reserved, half_open_max, .. } = *self.0;
        LaneOptions {
            connections_reserved: lanes.connections_reserved.min(reserved),
            half_open_max: lanes.half_open_max.min(half_open_max),
            ..lanes.clone()
        }
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
        let Inner { permits, workers_max, files_max, turned_away, .. } = &*self.0;
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

/// Returns the number of files that this process may have open, and of those that it has.
fn files() -> (u64, u64) {
    let files_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Where the system gives no number, assume little more than a runtime needs.
    let open = std::fs::read_dir("/proc/self/fd").map_or(16, |fds| fds.count() as u64);
    (files_max, open)
}

/// Returns the part of these files that is for HTTP.
fn http_files(files_max: u64, open: u64) -> u64 {
    (files_max.saturating_sub(open + KEPT_FILES) / 4).max(OTHERS_MIN)
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

    fn room(files: u64, open: u64, ports: u64, others: u64) -> Room {
        Room::with_files(files, open, ports, others, &LaneOptions::default())
    }

    #[test]
    fn some_files_are_kept_back() {
        let check = |files, ports, others, wanted: [usize; 3]| {
            let Room(room) = room(files, 10, ports, others);
            let limits = [room.workers_max, room.reserved, room.half_open_max];
            assert_eq!(limits, wanted, "{files} files");
            let used = |share: usize, files: u64| share as u64 * files;
            let of_ports = used(room.reserved, 3) + used(room.half_open_max, 1);
            let all = used(room.workers_max, 3) * ports + of_ports * (ports + others);
            assert!(files < 32 || 10 + all <= files, "{all} of {files} files");
        };
        // A sink, a ventilator, a relay.
        check(64, 1, 0, [8, 2, 2]);
        check(64, 1, 1, [6, 2, 2]);
        check(64, 2, 1, [1, 2, 2]);
        check(1024, 1, 0, [294, 16, 62]);
        check(3000, 1, 1, [834, 16, 185]);
        check(20_000, 1, 1, [6454, 16, 256]);
        check(20, 1, 1, [1, 2, 2]);
    }

    #[test]
    fn http_has_a_quarter_of_the_files() {
        for (files, wanted) in [(20, 2), (64, 8), (256, 56), (1024, 248), (20_000, 4992)] {
            assert_eq!(http_files(files, 10), wanted, "{files} files");
        }
    }

    #[test]
    fn no_more_connections_are_taken_than_there_are_files_for() {
        let usual = LaneOptions::default();
        let options = room(3000, 10, 1, 1).options(&usual);
        assert_eq!((options.connections_max, options.connections_reserved), (850, 16));
        assert_eq!(options.half_open_max, 185);
        let options = room(3000, 10, 1, 1).receipts_options(&usual);
        assert_eq!((options.connections_max, options.half_open_max), (16, 185));
        assert_eq!(options.message_bytes_max, TO_VENTILATOR_BYTES_MAX);
        let options = room(1 << 30, 10, 1, 1).options(&usual);
        assert_eq!(options.connections_max, usual.connections_max);
        assert_eq!(options.half_open_max, usual.half_open_max);
    }

    #[test]
    fn one_address_leaves_room_for_another_where_files_are_few() {
        let per_address = |files, usual: LaneOptions| {
            let room = Room::with_files(files, 9, 1, 1, &usual);
            (room.0.workers_max, room.options(&usual).connections_per_address)
        };
        let usual = LaneOptions::default();
        let (workers, one) = per_address(300, usual.clone());
        assert!(workers > one && one > workers / 2, "{one} of {workers}");
        assert_eq!(per_address(64, usual.clone()).1, usual.connections_per_address);
        assert_eq!(per_address(1 << 30, usual.clone()).1, usual.connections_per_address);
        let any = LaneOptions { connections_per_address: 0, ..usual };
        assert_eq!(per_address(300, any).1, 0);
    }

    #[test]
    fn who_does_not_fit_is_told_and_fits_when_another_has_gone() {
        let room = room(20, 10, 1, 0);
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
