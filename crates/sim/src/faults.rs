//! Faults, as values; and how they fall.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use tradewind_proto::Payload;
use tradewind_proto::batch::Bounded;
use tradewind_proto::limits::{SEQS_MAX, WORKER_TIMEOUT};
use tradewind_proto::message::{
    InputEnd, News, Outcome, Received, Report, Status, Task, TaskResult, ToSink, ToVentilator,
    ToWorker,
};
use tradewind_proto::{
    Attempt, CallId, JobId, JobKey, Seq, SeqRange, SeqRanges, SessionId, Tag, TaskHash,
};
use tradewind_wire::{decode, encode};

use crate::event::{Event, Instant, Process, Route};
use crate::ventilator::Ventilator;
use crate::worker::Worker;
use crate::world::World;

/// Something that goes wrong, or that a person asks for.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A connection is lost, with all that is in it.
    Cut(Link),
    /// Two cannot reach each other for a while.
    Partition {
        /// The two processes.
        link: Link,
        /// Length in microseconds.
        lasts_us: u64,
    },
    /// A worker dies.
    Kill {
        /// Seat of the worker.
        seat: usize,
        /// Time until another one starts in its place, in microseconds.
        back_us: Option<u64>,
        /// Whether no peer is told: its machine died with it.
        is_silent: bool,
    },
    /// A worker is asked to leave.
    Leave {
        /// Seat of the worker.
        seat: usize,
        /// Time until another one starts in its place, in microseconds.
        back_us: Option<u64>,
    },
    /// A process stands still.
    Hang {
        /// The process.
        who: Who,
        /// Length in microseconds.
        lasts_us: u64,
    },
    /// A process finds that its clock is ahead of what it was.
    ClockJump {
        /// The process.
        who: Who,
        /// Microseconds.
        jump_us: u64,
    },
    /// A frame arrives that is not of this job, or no message at all.
    Inject {
        /// The process that it reaches.
        who: Who,
        /// Kind of the frame.
        choice: u8,
    },
    /// The network is slow for a while.
    SlowNetwork {
        /// Length in microseconds.
        lasts_us: u64,
        /// Longest way of a message, in microseconds.
        delay_us_max: u64,
    },
    /// The sink's disk is slow for a while.
    SlowDisk {
        /// Length in microseconds.
        lasts_us: u64,
    },
    /// The ventilator or the sink dies and is started again.
    Restart {
        /// The process.
        who: Trunk,
        /// Time until it is back, in microseconds.
        back_us: u64,
        /// Whether no peer is told: its machine died with it.
        is_silent: bool,
    },
    /// A worker's lane ends whenever it is sent tasks, a number of times: they never arrive.
    CutWhenSent {
        /// Seat of the worker.
        seat: usize,
        /// Number of times.
        count: u32,
    },
    /// A worker's lane swallows what is large, and everything after that.
    Hole {
        /// Seat of the worker.
        seat: usize,
        /// The largest frame that gets through.
        bytes: usize,
        /// Length in microseconds.
        lasts_us: u64,
    },
    /// Another sink connects to the dispatcher of a stage.
    SecondSink {
        /// Number of the stage.
        stage: usize,
    },
    /// The ventilator is asked to take no more.
    Drain,
    /// The ventilator is asked to stop.
    Cancel,
}

/// One of the arrows of the ring.
#[derive(Clone, Copy, Debug)]
pub enum Link {
    /// From the ventilator to the worker in this seat.
    Tasks(usize),
    /// From the worker in this seat to the sink.
    Results(usize),
    /// From the ventilator of this stage to its sink.
    Job(usize),
    /// From the sink of this stage to its ventilator.
    Receipts(usize),
}

/// The processes that are not workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trunk {
    /// The ventilator.
    Ventilator,
    /// The relay after this stage.
    Relay(usize),
    /// The sink.
    Sink,
}

/// One of the processes.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    /// The ventilator.
    Ventilator,
    /// The sink.
    Sink,
    /// The worker in this seat.
    Seat(usize),
    /// The relay after this stage.
    Relay(usize),
}

const SECOND: u64 = 1_000_000;

impl Fault {
    pub(crate) const KINDS: u8 = 9;

    /// Returns whether workers have the time all the while.
    pub(crate) fn is_timely(&self) -> bool {
        !matches!(
            self,
            Self::Hang { who: Who::Seat(_), .. } | Self::ClockJump { who: Who::Seat(_), .. }
        )
    }

    pub(crate) fn draw(kind: u8, rng: &mut Rng, seats: usize, span: u64) -> Self {
        let seat = rng.usize(0..seats);
        let link = match rng.u8(0..6) {
            0 => Link::Job(0),
            1 => Link::Receipts(0),
            2 | 3 => Link::Tasks(seat),
            _ => Link::Results(seat),
        };
        let who = match rng.u8(0..4) {
            0 => Who::Ventilator,
            1 => Who::Sink,
            _ => Who::Seat(seat),
        };
        let soon = rng.u64(0..span / 2 + 1);
        let back_us = (rng.u8(0..10) < 8 || seat == 0).then_some(soon);
        let hang_max = [span / 4, 2 * SECOND, 2 * WORKER_TIMEOUT.as_micros() as u64];
        let hang_max = hang_max[rng.usize(0..3)];
        let lasts_us = rng.u64(0..=hang_max);
        match kind {
            0 => Self::Cut(link),
            1 => Self::Partition { link, lasts_us },
            2 => Self::Kill { seat, back_us, is_silent: rng.bool() },
            3 => Self::Leave { seat, back_us },
            4 => Self::Hang { who, lasts_us },
            5 => Self::ClockJump { who, jump_us: rng.u64(0..60 * SECOND) },
            6 => Self::Inject { who, choice: rng.u8(0..8) },
            7 => Self::SlowNetwork { lasts_us, delay_us_max: rng.u64(1_000..500_000) },
            _ => Self::SlowDisk { lasts_us },
        }
    }

    /// In a job of several stages, what was meant for the only one may happen in any.
    pub(crate) fn move_to_stages(&mut self, rng: &mut Rng, stages: usize) {
        match self {
            Self::Cut(Link::Job(stage) | Link::Receipts(stage))
            | Self::Partition { link: Link::Job(stage) | Link::Receipts(stage), .. } => {
                *stage = rng.usize(0..stages);
            }
            Self::Hang { who, .. } | Self::ClockJump { who, .. } | Self::Inject { who, .. }
                if rng.u8(0..4) == 0 =>
            {
                *who = Who::Relay(rng.usize(0..stages - 1));
            }
            // One in each stage always comes back.
            Self::Kill { seat, back_us, .. } | Self::Leave { seat, back_us } if *seat < stages => {
                back_us.get_or_insert(SECOND);
            }
            _ => {}
        }
    }

    /// Returns the time that it lasts, in microseconds.
    pub(crate) fn lasts_us(&self) -> u64 {
        match self {
            Self::Partition { lasts_us, .. }
            | Self::Hang { lasts_us, .. }
            | Self::SlowNetwork { lasts_us, .. }
            | Self::SlowDisk { lasts_us } => *lasts_us,
            Self::Hole { lasts_us, .. } => lasts_us + 30 * SECOND,
            Self::Restart { back_us, .. } => *back_us,
            Self::Kill { back_us, .. } | Self::Leave { back_us, .. } => back_us.unwrap_or(0),
            _ => 0,
        }
    }

    /// Gives no reason to declare any worker lost.
    pub(crate) fn is_harmless(&self) -> bool {
        match self {
            Self::Cut(link) => matches!(link, Link::Job(_) | Link::Receipts(_)),
            // Workers that do not learn of it send to a process that is gone.
            Self::Restart { is_silent, back_us, .. } => !is_silent && *back_us < SECOND,
            Self::ClockJump { .. }
            | Self::Inject { .. }
            | Self::SlowNetwork { .. }
            | Self::SlowDisk { .. }
            | Self::SecondSink { .. }
            | Self::Drain
            | Self::Cancel => true,
            Self::CutWhenSent { .. } | Self::Hole { .. } => false,
            Self::Partition { .. } | Self::Kill { .. } | Self::Leave { .. } | Self::Hang { .. } => {
                false
            }
        }
    }
}

/// Time that a worker that leaves has to finish its tasks. Shorter than many of them.
const LEAVE_GRACE: Duration = Duration::from_secs(2);

impl World {
    pub(crate) fn apply(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(link) => self.cut_route(link),
            Fault::Partition { link, lasts_us } => {
                self.block(link, self.now + lasts_us);
                self.cut_route(link);
            }
            Fault::Kill { seat, back_us, is_silent } => {
                let Some(worker) = self.seated(seat) else { return };
                self.kill(worker, is_silent);
                if let Some(back) = back_us {
                    self.queue.push(self.now + back, Event::Spawn(seat));
                }
            }
            Fault::Restart { who: Trunk::Sink, back_us, is_silent } => {
                self.kill_sink(is_silent);
                self.queue.push(self.now + back_us, Event::Revive(Process::Sink));
            }
            Fault::Restart { who: Trunk::Ventilator, back_us, is_silent } => {
                if self.ventilator.dispatcher.ended().is_none() {
                    self.kill_ventilator(is_silent);
                    self.queue.push(self.now + back_us, Event::Revive(Process::Ventilator));
                }
            }
            Fault::Restart { who: Trunk::Relay(relay), back_us, is_silent } => {
                self.kill_relay(relay, is_silent);
                self.queue.push(self.now + back_us, Event::Revive(Process::Relay(relay)));
            }
            Fault::Leave { seat, back_us } => {
                let Some(worker) = self.seated(seat) else { return };
                let now = self.time_of(Process::Worker(worker));
                let Worker { leaving_since, farewell, executor, .. } = &mut self.workers[worker];
                *leaving_since = Some(self.now);
                farewell.handle_drain(now, LEAVE_GRACE, executor);
                self.drive(Process::Worker(worker));
                if let Some(back) = back_us {
                    self.queue.push(self.now + back, Event::Spawn(seat));
                }
            }
            Fault::Hang { who, lasts_us } => {
                if let Some(process) = self.process(who) {
                    self.hang(process, self.now + lasts_us);
                }
            }
            Fault::ClockJump { who, jump_us } => {
                if let Some(process) = self.process(who) {
                    self.clock_of(process).ahead += jump_us;
                    // Else the next message is read before the timer is.
                    if self.rng.bool() {
                        self.drive(process);
                    }
                }
            }
            Fault::Inject { who, choice } => {
                if let Some(process) = self.process(who) {
                    let frame = stranger(process, choice);
                    if self.would_believe(process, &frame) {
                        return;
                    }
                    self.queue.push(self.now, Event::Injected(process, frame));
                }
            }
            Fault::SlowNetwork { lasts_us, delay_us_max } => {
                self.slow_network = (self.now + lasts_us, delay_us_max);
            }
            Fault::CutWhenSent { seat, count } => self.cuts_due[seat] += count,
            Fault::Hole { seat, bytes, lasts_us } => {
                self.holes[seat] = (self.now + lasts_us, bytes);
            }
            Fault::SecondSink { stage } => self.connect_second_sink(stage),
            Fault::SlowDisk { lasts_us } => self.slow_disk_until = self.now + lasts_us,
            Fault::Drain => {
                if !self.ventilator.is_alive || self.ventilator.dispatcher.is_resuming() {
                    return;
                }
                let Ventilator { farewell, dispatcher, .. } = &mut self.ventilator;
                farewell.handle_drain(dispatcher);
                self.check.stopped();
                self.drive(Process::Ventilator);
            }
            Fault::Cancel => {
                if !self.ventilator.is_alive || self.ventilator.dispatcher.is_resuming() {
                    return;
                }
                let now = self.time_of(Process::Ventilator);
                let Ventilator { farewell, dispatcher, .. } = &mut self.ventilator;
                farewell.handle_cancel(now, dispatcher);
                self.check.stopped();
                self.check.cancelled();
                self.drive(Process::Ventilator);
            }
        }
    }

    /// A worker that knows no job yet takes anybody's word that it is over: it has dialled him.
    fn would_believe(&self, process: Process, frame: &Bytes) -> bool {
        let Process::Worker(worker) = process else { return false };
        let is_end = matches!(decode(frame), Ok(ToWorker::Done { .. }));
        is_end && self.workers[worker].executor.job().is_none()
    }

    fn process(&self, who: Who) -> Option<Process> {
        match who {
            Who::Ventilator => Some(Process::Ventilator),
            Who::Sink => Some(Process::Sink),
            Who::Seat(seat) => self.seated(seat).map(Process::Worker),
            Who::Relay(relay) => Some(Process::Relay(relay)),
        }
        .filter(|process| self.is_alive(*process))
    }

    /// The worker that lives in a seat and means to stay.
    pub(crate) fn seated(&self, seat: usize) -> Option<usize> {
        let is_it = |worker: &Worker| {
            worker.seat == seat && worker.is_alive && worker.leaving_since.is_none()
        };
        self.workers.iter().position(is_it)
    }

    fn cut_route(&mut self, link: Link) {
        let route = match link {
            Link::Tasks(seat) => {
                self.seated(seat).map(|worker| Route::Tasks(worker, self.workers[worker].stage))
            }
            Link::Results(seat) => {
                self.seated(seat).map(|worker| Route::Results(worker, self.workers[worker].stage))
            }
            Link::Job(stage) => Some(Route::Job(self.plan.stage(stage))),
            Link::Receipts(stage) => Some(Route::Receipts(self.plan.stage(stage))),
        };
        let connection = route.and_then(|route| self.dialled(route));
        if let Some(connection) = connection {
            self.cut(connection);
        }
    }

    fn block(&mut self, link: Link, until: Instant) {
        let blocked = match link {
            Link::Tasks(seat) => &mut self.blocked_tasks[seat],
            Link::Results(seat) => &mut self.blocked_results[seat],
            Link::Job(stage) | Link::Receipts(stage) => &mut self.blocked_trunk[stage],
        };
        *blocked = (*blocked).max(until);
    }
}

/// Returns a frame that a process of another job, another version or another mind might send.
fn stranger(process: Process, choice: u8) -> Bytes {
    let job = JobId(0x0bad);
    let session = SessionId(0x0bad);
    let ranges = SeqRanges::of(SeqRange { start: Seq(0), end: Seq(SEQS_MAX) });
    match choice {
        0 => return Bytes::from_static(b""),
        1 => return Bytes::from_static(&[tradewind_wire::VERSION, b's', 255, 255, 255]),
        2 => {
            let mut frame = encode(&ToWorker::Ping).to_vec();
            frame[0] += 1;
            return frame.into();
        }
        _ => {}
    }
    let result = TaskResult {
        seq: Seq(0),
        attempt: Attempt(1),
        last: true,
        tag: Tag::default(),
        started_us: 0,
        ran_us: 1,
        task_bytes: 1,
        task_hash: TaskHash(0),
        outcome: Outcome::ok(Payload::from(b"not ours")),
        reported: None,
    };
    let task = Task {
        seq: Seq(0),
        attempt: Attempt(9),
        last: true,
        payload: Payload::from(b"not ours"),
        hash: TaskHash::of(b"not ours"),
        tag: Tag::default(),
    };
    let is_receipt = choice.is_multiple_of(2);
    match process {
        Process::Worker(_) => encode(&match choice {
            3 => ToWorker::Tasks {
                job,
                limits: Default::default(),
                tasks: Bounded::from(vec![task]),
            },
            4 => ToWorker::Settled { job, below: Seq(SEQS_MAX - 1), ranges },
            5 => ToWorker::Cancel { job },
            6 => ToWorker::Recall { job, call: CallId(0), keep: 0 },
            _ => ToWorker::Done { job: JobId(0x0bad) },
        }),
        Process::Relay(_) if is_receipt => stranger(Process::Ventilator, choice),
        Process::Sink | Process::Relay(_) => encode(&match choice {
            3 => ToSink::Results { job, session, results: Bounded::from(vec![result]) },
            4 => ToSink::JobClose { job, total: 0, end: InputEnd::Whole },
            5 => ToSink::JobDone { job },
            6 => ToSink::GiveUp {
                job,
                seq: Seq(0),
                attempt: Attempt(1),
                task_hash: TaskHash(0),
                status: Status::Lost,
                error: String::new(),
            },
            _ => ToSink::News { session, news: News::Goodbye },
        }),
        Process::Ventilator => encode(&match choice {
            3 => ToVentilator::Receipt {
                job,
                received: Bounded::from(vec![Received {
                    session,
                    ranges: SeqRanges::of(SeqRange { start: Seq(0), end: Seq(1000) }),
                    ran_us_max: 1,
                    ran_us_median: 1,
                    ran_us_mean: u64::MAX,
                    bytes: 0,
                    failed: 0,
                }]),
                stored: ranges,
                retry: Bounded::default(),
                held_bytes: u64::MAX,
                failed: 0,
            },
            4 => ToVentilator::Complete { job },
            5 => ToVentilator::Refused { job, reason: String::new() },
            6 => {
                let workers = None;
                let sink = session;
                ToVentilator::SinkHello {
                    asked: job,
                    job,
                    sink,
                    stored: ranges.clone(),
                    again: ranges,
                    workers,
                    report: Report { command: true, task: false },
                    key: JobKey::new([0; 16]),
                }
            }
            _ => ToVentilator::Relay { session, news: News::Returned { job, ranges } },
        }),
    }
}
