//! Which partitions this process has: takes what is free, renews what it has, gives up what is more than its part, and
//! removes what is not needed any more. On a thread of its own.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tradewind_engine::{EngineError, Epoch, Leases};
use tradewind_http::{Settings, Unique};
use tradewind_partitions::{MEMBERS_FIRST, Step, member_lease, next_step};
use tradewind_proto::{Seq, SeqRange};
use tradewind_ventilator::Command;

use super::engines::{Engines, lock};
use super::held::{Held, Part};
use super::source::{Reads, spawn_reader};

/// Time after which a partition of a process that is gone may be taken by another.
const LEASE: Duration = Duration::from_secs(5);

/// Interval at which leases are renewed, and looked at.
const TICK: Duration = Duration::from_secs(1);

/// Interval at which what is not needed any more is removed.
const TRIM_INTERVAL: Duration = Duration::from_secs(5);

/// What it needs.
pub(crate) struct Owning {
    /// Name of the queue.
    pub(crate) queue: String,
    /// Name of this process, unlike all others'.
    pub(crate) own: String,
    pub(crate) engines: Arc<Engines>,
    pub(crate) held: Arc<Held>,
    pub(crate) reads: Reads,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) settings: Arc<Mutex<Settings>>,
}

/// The thread.
pub(crate) struct Owner {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Owner {
    pub(crate) fn spawn(owning: Owning) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = thread::Builder::new().name(format!("{}:leases", owning.queue));
        let thread = thread.spawn(move || State::new(owning).run(&stopped))?;
        Ok(Self { stop, thread })
    }

    /// Gives all partitions up, and ends. What the sink has is stored before. Blocks.
    pub(crate) fn stop(self) {
        let _ = self.stop.send(());
        // A panic was printed.
        let _ = self.thread.join();
    }
}

/// What is known of a partition that this process has.
struct Mine {
    epoch: Epoch,
    phase: Phase,
    /// Position below which it was trimmed.
    trimmed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its logs are to be opened.
    Begins,
    /// It is read.
    Goes,
    /// What was read of it is finished; then it is given up.
    Leaves,
}

struct State {
    owning: Owning,
    leases: Option<Box<dyn Leases>>,
    /// The lease that says that this process is there.
    member: Option<(u32, Epoch)>,
    mine: BTreeMap<u32, Mine>,
    lost: mpsc::UnboundedReceiver<u32>,
    /// What says that a partition is lost.
    lose: mpsc::UnboundedSender<u32>,
    is_away: bool,
    trimmed: Instant,
}

impl State {
    fn new(owning: Owning) -> Self {
        let (lose, lost) = mpsc::unbounded_channel();
        Self {
            owning,
            leases: None,
            member: None,
            mine: BTreeMap::new(),
            lost,
            lose,
            is_away: false,
            trimmed: Instant::now(),
        }
    }

    fn run(mut self, stopped: &Receiver<()>) {
        loop {
            let tended = self.tend();
            self.say(tended);
            match stopped.recv_timeout(TICK) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // What was not given up is taken when its time is over.
        let _ = self.trim();
        let _ = self.give_all_up();
    }

    fn say(&mut self, tended: Result<(), EngineError>) {
        let queue = &self.owning.queue;
        let was_away = std::mem::replace(&mut self.is_away, tended.is_err());
        match tended {
            Ok(()) if was_away => tracing::info!("queue {queue}: the engine answers again"),
            Err(error) if !was_away => tracing::warn!("queue {queue}: {error}; it is tried again"),
            _ => {}
        }
    }

    fn tend(&mut self) -> Result<(), EngineError> {
        while let Ok(partition) = self.lost.try_recv() {
            self.drop_lost(partition);
        }
        self.renew()?;
        let mut holders = self.leases()?.holders()?;
        // Others count ours as well, from what is written.
        self.join(&mut holders)?;
        self.begin_all()?;
        self.leave(&mut holders)?;
        self.share(&mut holders)?;
        self.begin_all()?;
        if self.trimmed.elapsed() >= TRIM_INTERVAL {
            self.trimmed = Instant::now();
            self.owning.held.forget_waiters();
            self.trim()?;
        }
        Ok(())
    }

    fn leases(&mut self) -> Result<&mut Box<dyn Leases>, EngineError> {
        match &mut self.leases {
            Some(leases) => Ok(leases),
            empty => Ok(empty.insert(self.owning.engines.open_leases()?)),
        }
    }

    fn renew(&mut self) -> Result<(), EngineError> {
        let mut all: Vec<(u32, Epoch)> =
            self.mine.iter().map(|(it, mine)| (*it, mine.epoch)).collect();
        all.extend(self.member);
        for (number, epoch) in all {
            match self.leases()?.renew(number, epoch, LEASE) {
                Ok(()) => {}
                Err(EngineError::Fenced { .. }) if number >= MEMBERS_FIRST => self.member = None,
                Err(EngineError::Fenced { .. }) => self.drop_lost(number),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says that this process is there.
    fn join(&mut self, holders: &mut BTreeMap<u32, String>) -> Result<(), EngineError> {
        if self.member.is_none()
            && let Some(number) = member_lease(holders)
        {
            let own = self.owning.own.clone();
            if let Some(epoch) = self.leases()?.take(number, &own, LEASE)? {
                self.member = Some((number, epoch));
                holders.insert(number, own);
            }
        }
        Ok(())
    }

    /// Takes and gives up partitions.
    fn share(&mut self, holders: &mut BTreeMap<u32, String>) -> Result<(), EngineError> {
        let partitions = self.owning.engines.partitions();
        loop {
            match next_step(&self.owning.own, partitions, holders) {
                Some(Step::Take(number)) => {
                    let own = self.owning.own.clone();
                    let Some(epoch) = self.leases()?.take(number, &own, LEASE)? else {
                        // Somebody else was faster, or it has yet to be waited for.
                        return Ok(());
                    };
                    holders.insert(number, own);
                    if self.mine.contains_key(&number) {
                        // Its lease was not renewed for long: what was read under it is nobody's.
                        self.drop_lost(number);
                    }
                    let mine = Mine { epoch, phase: Phase::Begins, trimmed: 0 };
                    self.mine.insert(number, mine);
                }
                Some(Step::GiveUp) => {
                    self.begin_leaving();
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }

    /// Begins to give up the partition with the fewest tasks out. Its workers finish what they have.
    fn begin_leaving(&mut self) {
        if self.mine.values().any(|mine| mine.phase == Phase::Leaves) {
            return;
        }
        let placed = self.owning.held.placed();
        let least = self.mine.keys().copied().min_by_key(|number| placed.out(*number).unwrap_or(0));
        drop(placed);
        if let Some(number) = least
            && let Some(mine) = self.mine.get_mut(&number)
        {
            mine.phase = Phase::Leaves;
            if let Some(part) = self.owning.held.part(number) {
                part.reading.end();
            }
            let queue = &self.owning.queue;
            tracing::info!(
                "queue {queue}: partition {number} goes to another process when its tasks are done"
            );
        }
    }

    /// Gives up what has no tasks out any more.
    fn leave(&mut self, holders: &mut BTreeMap<u32, String>) -> Result<(), EngineError> {
        let leaves = self.mine.iter().filter(|(_, mine)| mine.phase == Phase::Leaves);
        let leaves: Vec<u32> = leaves.map(|(number, _)| *number).collect();
        for number in leaves {
            let out = self.owning.held.placed().out(number);
            if out.unwrap_or(0) == 0 {
                self.trim_one(number)?;
                self.give_up(number)?;
                holders.remove(&number);
            }
        }
        Ok(())
    }

    fn give_up(&mut self, number: u32) -> Result<(), EngineError> {
        let Some(mine) = self.mine.get(&number) else { return Ok(()) };
        let epoch = mine.epoch;
        self.owning.held.remove(number);
        self.leases()?.release(number, epoch)?;
        self.mine.remove(&number);
        Ok(())
    }

    fn give_all_up(&mut self) -> Result<(), EngineError> {
        let numbers: Vec<u32> = self.mine.keys().copied().collect();
        for number in numbers {
            self.give_up(number)?;
        }
        if let Some((number, epoch)) = self.member.take() {
            self.leases()?.release(number, epoch)?;
        }
        Ok(())
    }

    /// Opens the logs of partitions that were taken.
    fn begin_all(&mut self) -> Result<(), EngineError> {
        let begins = self.mine.iter().filter(|(_, mine)| mine.phase == Phase::Begins);
        let begins: Vec<(u32, Epoch)> =
            begins.map(|(number, mine)| (*number, mine.epoch)).collect();
        for (number, epoch) in begins {
            match self.begin(number, epoch) {
                Ok(()) => {}
                Err(EngineError::Fenced { .. }) => self.drop_lost(number),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn begin(&mut self, number: u32, epoch: Epoch) -> Result<(), EngineError> {
        let Owning { queue, engines, held, reads, .. } = &self.owning;
        let mut records = engines.open_records(number)?;
        // From now on the one before writes nothing: what is stored is known after that.
        records.commit(epoch, &[])?;
        let stored = records.stored()?;
        let mut tasks = engines.open_tasks(number)?;
        let first = tasks.first()?;
        let part = Part::new(epoch, records, self.lose.clone());
        let from = held.placed().begin(number, first, stored);
        let reading = part.reading.clone();
        held.add(number, part);
        let spawned = spawn_reader(queue, (number, epoch), from, tasks, reading, reads.clone());
        if let Err(error) = spawned {
            held.remove(number);
            return Err(EngineError::Away(format!("no thread can be started: {error}")));
        }
        if let Some(mine) = self.mine.get_mut(&number) {
            (mine.phase, mine.trimmed) = (Phase::Goes, from);
        }
        tracing::info!("queue {queue}: partition {number} is taken, from task {from} on");
        Ok(())
    }

    /// Ends with a partition that another has.
    fn drop_lost(&mut self, number: u32) {
        // It may have been taken back since.
        let is_ours =
            |part: &Part| self.mine.get(&number).is_some_and(|mine| mine.epoch > part.epoch);
        if self.owning.held.part(number).is_some_and(|part| is_ours(&part)) {
            return;
        }
        self.mine.remove(&number);
        let nobodys = self.owning.held.remove(number);
        let queue = &self.owning.queue;
        tracing::warn!("queue {queue}: partition {number} has gone to another process");
        self.cancel(nobodys);
    }

    /// Stops tasks that another process runs by now.
    fn cancel(&self, seqs: Vec<SeqRange>) {
        for seq in seqs.into_iter().flat_map(|range| (range.start.0..range.end.0).map(Seq)) {
            let (answer, _) = oneshot::channel();
            if self.owning.commands.blocking_send(Command::Cancel { seq, answer }).is_err() {
                return;
            }
        }
    }

    fn trim(&mut self) -> Result<(), EngineError> {
        let goes: Vec<u32> = self.mine.keys().copied().collect();
        goes.into_iter().try_for_each(|number| self.trim_one(number))
    }

    /// Removes tasks that have their records.
    fn trim_one(&mut self, number: u32) -> Result<(), EngineError> {
        let Owning { engines, held, settings, .. } = &self.owning;
        let (Some(mine), Some(part)) = (self.mine.get(&number), held.part(number)) else {
            return Ok(());
        };
        let low = held.placed().low(number).unwrap_or(0);
        if low <= mine.trimmed {
            return Ok(());
        }
        let keys_low = match lock(settings).unique {
            Unique::Stored => low,
            // An engine knows no time of its tasks: their keys stay.
            Unique::Kept | Unique::Time(_) => 0,
        };
        let epoch = mine.epoch;
        let done = lock(&part.log).checkpoint(epoch);
        let done = done.and_then(|()| engines.tasks(number, |log| log.trim(epoch, low, keys_low)));
        match done {
            Ok(()) => {
                if let Some(mine) = self.mine.get_mut(&number) {
                    mine.trimmed = low;
                }
                Ok(())
            }
            Err(EngineError::Fenced { .. }) => {
                self.drop_lost(number);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
