//! Limits of this host: the number of slots that can run at once, and what a task lacks there.
//!
//! A host that lacks something is no failure of the task. Limits that are known at the start lower the slots;
//! the rest shows when a command is started.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Resource, geteuid, getppid, getrlimit};

use super::files;

/// Resource that the host lacks for a task that could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lack {
    /// Open files.
    Files,
    /// Processes or threads.
    Processes,
    /// Memory.
    Memory,
    /// The command's file is being written.
    Closed,
    /// The command, though it was there at the start: no task can be run here any more.
    Command,
    /// A worker that stays: what asked it to leave has ended the command as well.
    Worker,
}

/// A task was not run, for a reason that is none of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unstarted {
    /// Resource that was lacking.
    pub lack: Lack,
    /// The same for people.
    pub reason: String,
}

/// Share of a host's limits that a slot takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerSlot {
    /// Open files, where there are enough.
    pub files: u64,
    /// Open files at least.
    pub files_min: u64,
    /// Processes and threads, those of a small shell script among them.
    pub processes: u64,
}

/// The programs that were started together on this host, and share its limits of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Company {
    /// Workers among them, this one included.
    pub workers: u32,
    /// Threads that all of them have at most besides those of slots; 0 if a worker is alone.
    pub threads: u64,
}

/// Number of tasks that a host runs at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// Slots that it has room for.
    pub slots: u32,
    /// Why there are fewer than were asked for.
    pub reason: Option<String>,
}

/// There is not even room for one task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}, {used} are in use, and a worker needs {needed} more to run one task at a time")]
pub struct TooLittle {
    what: String,
    used: u64,
    needed: u64,
}

/// One of a host's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit {
    /// Resource and origin of the limit, as in "open files: ulimit -n is 1024".
    what: String,
    most: u64,
    used: u64,
    per_slot: u64,
    /// Number that the worker itself needs besides.
    reserve: u64,
}

/// Open files that a worker takes for its connections and for what comes and goes.
const FILES_RESERVE: u64 = 20;

/// Processes and threads that a worker which is alone takes besides its slots', and that are left to others.
const PROCESSES_RESERVE: u64 = 8;

/// Processes and threads that are left to others, where those of our own programs are known.
const OTHERS_RESERVE: u64 = 4;

/// Room for this many tasks, beyond which the use of a resource is not counted.
const PROCESSES_PLENTY: u64 = 20_000;

impl PerSlot {
    /// A command for each task: a signal's file, two ends of pipes, the process; where there are
    /// enough, the other ends too, and its own standard input.
    #[must_use]
    pub fn command(is_stdin: bool) -> Self {
        let stdin = u64::from(is_stdin);
        Self { files: 7 + stdin, files_min: 4 + stdin, processes: 3 }
    }

    /// A command that stays up.
    #[must_use]
    pub fn pipe() -> Self {
        Self { files: 5, files_min: 5, processes: 3 }
    }
}

/// Returns how many of these slots this host has room for, if this worker shares it with this company. Where
/// open files are scarce, this process is sparing with them from now on, and raises its limit.
///
/// # Errors
/// When there is no room for one task.
pub fn fit(slots: u32, per_slot: PerSlot, company: Company) -> Result<HostLimits, TooLittle> {
    let mut limits = vec![files_limit(slots, per_slot)];
    limits.extend(user_limit(slots, per_slot.processes, company));
    limits.extend(cgroup_limit(per_slot.processes, company));
    fit_into(slots, &limits)
}

impl Company {
    /// Returns a limit of processes, which all programs of a user share. Of those in use, `ours` belong to
    /// our programs.
    ///
    /// Workers count at about the same time, the first one before the others have all their threads or are
    /// there at all. So those that are still to come are set aside.
    fn limit(self, what: String, most: u64, used: u64, ours: u64, per_slot: u64) -> Limit {
        let per_slot = per_slot * u64::from(self.workers.max(1));
        let reserve = match self.threads {
            0 => PROCESSES_RESERVE,
            threads => OTHERS_RESERVE + threads.saturating_sub(ours),
        };
        Limit { what, most, used, per_slot, reserve }
    }
}

fn fit_into(slots: u32, limits: &[Limit]) -> Result<HostLimits, TooLittle> {
    let mut all = HostLimits { slots, reason: None };
    for limit in limits {
        let room = limit.most.saturating_sub(limit.used + limit.reserve) / limit.per_slot;
        if room == 0 {
            let needed = limit.reserve + limit.per_slot;
            return Err(TooLittle { what: limit.what.clone(), used: limit.used, needed });
        }
        if room < all.slots.into() {
            all.slots = room as u32;
            all.reason = Some(format!("{}: running {room} at once instead of {slots}", limit.what));
        }
    }
    Ok(all)
}

fn files_limit(slots: u32, per_slot: PerSlot) -> Limit {
    let rlimit = getrlimit(Resource::Nofile);
    let used = count_files().unwrap_or(FILES_RESERVE);
    let soft = rlimit.current.unwrap_or(u64::MAX);
    let reserve = FILES_RESERVE;
    let is_enough = u64::from(slots) * per_slot.files + used + reserve <= soft;
    if is_enough {
        let what = format!("open files: ulimit -n is {soft}");
        return Limit { what, most: soft, used, per_slot: per_slot.files, reserve };
    }
    files::be_sparing();
    let most = rlimit.maximum.unwrap_or(u64::MAX);
    let flag = if most == soft { "-n" } else { "-Hn" };
    let what = format!("open files: ulimit {flag} is {most}");
    Limit { what, most, used, per_slot: per_slot.files_min, reserve }
}

fn count_files() -> Option<u64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}

/// Limit of the user's processes; root has none.
fn user_limit(slots: u32, per_slot: u64, company: Company) -> Option<Limit> {
    let most = getrlimit(Resource::Nproc).current?;
    let processes = u64::from(slots) * per_slot * u64::from(company.workers.max(1));
    let is_plenty = most >= processes + company.threads + PROCESSES_PLENTY;
    if geteuid().is_root() || is_plenty {
        return None;
    }
    let Counted { all, ours } = count_threads()?;
    let what = format!("processes: ulimit -u is {most}");
    Some(company.limit(what, most, all, ours, per_slot))
}

/// The threads of this user's processes.
struct Counted {
    all: u64,
    /// Those of the programs that were started together with this one.
    ours: u64,
}

fn count_threads() -> Option<Counted> {
    let uid = geteuid().as_raw().to_string();
    let program = fs::read_link("/proc/self/exe").ok();
    let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    let mut counted = Counted { all: 0, ours: 0 };
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some((threads, its_parent)) = threads_of(&process.path(), &uid) else { continue };
        counted.all += threads;
        // The one that has started this one, and all that it has started; what it was itself before may have
        // started others.
        let is_related =
            parent.as_ref().is_some_and(|it| its_parent == *it || process.file_name() == **it);
        if is_related && fs::read_link(process.path().join("exe")).ok() == program {
            counted.ours += threads;
        }
    }
    Some(counted)
}

/// Returns the number of a process's threads, and its parent, if the process is this user's.
fn threads_of(process: &Path, uid: &str) -> Option<(u64, String)> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()
    };
    if field("Uid:")? != uid {
        return None;
    }
    Some((field("Threads:")?.parse().ok()?, field("PPid:")?.to_owned()))
}

/// The container's or the service's processes.
fn cgroup_limit(per_slot: u64, company: Company) -> Option<Limit> {
    let dir = cgroup("pids")?;
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
    let most = read("pids.max")?;
    // Ours first: what is started between the two is counted twice then, and not left out.
    let ours = if company.threads > 0 { count_threads().map_or(0, |it| it.ours) } else { 0 };
    let used = read("pids.current")?;
    let what = format!("processes: the cgroup's pids.max is {most}");
    Some(company.limit(what, most, used, ours, per_slot))
}

/// The directory of our own cgroup, for this controller.
pub(super) fn cgroup(controller: &str) -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let root = Path::new("/sys/fs/cgroup");
    // Lines of number:controllers:path; in version 2 one with neither number nor controllers.
    let entry = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_meant = controllers.split(',').any(|name| name == controller);
        (is_meant || (controllers.is_empty() && !root.join(controller).is_dir()))
            .then(|| (controllers.to_owned(), path.trim_start_matches('/').to_owned()))
    })?;
    let (controllers, path) = entry;
    let base = if controllers.is_empty() { root.to_owned() } else { root.join(controller) };
    // In a container the path may be the host's, while its own group is what is mounted.
    let dir = base.join(path);
    Some(if dir.is_dir() { dir } else { base })
}

impl Lack {
    /// Returns the resource that is lacking if a command, a thread or a pipe cannot be made for this reason.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::MFILE | Errno::NFILE => Some(Self::Files),
            Errno::AGAIN => Some(Self::Processes),
            Errno::NOMEM | Errno::NOBUFS => Some(Self::Memory),
            Errno::TXTBSY => Some(Self::Closed),
            _ => None,
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "open files",
            Self::Processes => "processes",
            Self::Memory => "memory",
            Self::Closed => "the command's file",
            Self::Command => "the command",
            Self::Worker => "the worker",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(what: &str, most: u64, used: u64, per_slot: u64, reserve: u64) -> Limit {
        Limit { what: what.to_owned(), most, used, per_slot, reserve }
    }

    #[test]
    fn slots_are_as_many_as_the_smallest_limit_has_room_for() {
        #[track_caller]
        fn check(slots: u32, limits: &[Limit], expected: u32, reason: Option<&str>) {
            let reason = reason.map(str::to_owned);
            assert_eq!(fit_into(slots, limits), Ok(HostLimits { slots: expected, reason }));
        }
        let files = limit("open files: ulimit -n is 1024", 1024, 14, 5, 20);
        let users = limit("processes: ulimit -u is 60", 60, 20, 3, 8);
        check(198, std::slice::from_ref(&files), 198, None);
        let reason = "open files: ulimit -n is 1024: running 198 at once instead of 200";
        check(200, std::slice::from_ref(&files), 198, Some(reason));
        let reason = "processes: ulimit -u is 60: running 10 at once instead of 200";
        check(200, &[files.clone(), users.clone()], 10, Some(reason));
        check(10, &[files, users], 10, None);
    }

    /// The workers of one run together never exceed a limit, whenever each of them counts.
    #[test]
    fn workers_that_count_before_all_threads_are_there_leave_room_for_them() {
        #[track_caller]
        fn check(company: Company, most: u64, expected: u32) {
            let processes = PerSlot::command(false).processes;
            let others = 2;
            // From the command and one thread of each of three programs on, to all.
            for ours in 4..=company.threads {
                let limit = company.limit(String::new(), most, others + ours, ours, processes);
                let HostLimits { slots, .. } = fit_into(100, &[limit]).unwrap();
                assert_eq!(slots, expected, "{ours} threads are there");
                let in_slots = u64::from(slots) * processes * u64::from(company.workers);
                assert!(others + company.threads + in_slots <= most);
            }
        }
        // The command, a ventilator and a sink have 13 threads at most, and each worker four.
        check(Company { workers: 1, threads: 17 }, 70, 15);
        check(Company { workers: 3, threads: 25 }, 70, 4);
        check(Company { workers: 3, threads: 25 }, 40, 1);
        // Commands of the other workers run already: there is room for fewer, and never for more.
        let limit = Company { workers: 3, threads: 25 }.limit(String::new(), 70, 2 + 33, 33, 3);
        assert_eq!(fit_into(100, &[limit]).unwrap().slots, 3);
    }

    #[test]
    fn a_worker_that_is_alone_knows_of_no_company() {
        let alone = Company { workers: 1, threads: 0 };
        let limit = alone.limit(String::new(), 60, 20, 1, 3);
        assert_eq!(fit_into(200, &[limit]).unwrap().slots, 10);
    }

    #[test]
    fn no_room_for_one_is_a_sentence() {
        let error = fit_into(1, &[limit("open files: ulimit -n is 10", 10, 7, 4, 20)]).unwrap_err();
        let expected = "open files: ulimit -n is 10, 7 are in use, and a worker needs 24 more to run \
                        one task at a time";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn our_own_process_is_counted() {
        let uid = geteuid().as_raw().to_string();
        assert!(threads_of(Path::new("/proc/self"), &uid).is_some_and(|(threads, _)| threads >= 1));
        let Counted { all, ours } = count_threads().unwrap();
        assert!(1 <= ours && ours <= all);
        assert_eq!(threads_of(Path::new("/proc/self"), "4294967294"), None);
        assert!(count_files() > Some(3));
    }
}
