//! Every bound of the system in one place, with its unit, and how the bounds relate.

use std::time::Duration;

/// Bytes of one message on a lane, unless a flag says otherwise.
pub const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a message that are not payload. The largest task has the rest of the limit.
pub const MESSAGE_OVERHEAD_BYTES: u64 = 64 << 10;

/// Bytes of a message to a ventilator, whatever the largest message with tasks or results is: there is no payload in it.
pub const TO_VENTILATOR_BYTES_MAX: u64 = 16 << 20;

/// Number of tasks or results in one message. Beyond a thousand a larger batch gains nothing and
/// only delays the next station.
pub const BATCH_TASKS_MAX: usize = 1024;

/// Payload bytes after which a batch is full. A single larger payload travels alone.
pub const BATCH_BYTES_MAX: usize = 256 << 10;

/// Number of tasks of a job: every seq is below. A sum of two seqs does not overflow.
pub const SEQS_MAX: u64 = 1 << 62;

/// Number of ranges of seqs in one message: the stored tasks have a hole for each task that is not
/// stored.
pub const RANGES_MAX: usize = 2 * UNSETTLED_TASKS_MAX as usize;

/// Number of tasks that are dispatched and have no stored record. The distance between their seqs
/// does not matter: settled tasks in between cost nothing.
pub const UNSETTLED_TASKS_MAX: u64 = 1 << 17;

/// Number of tasks that one worker may hold, however fast it is.
pub const CREDIT_TASKS_MAX: u64 = 1 << 15;

/// Payload bytes that one worker may hold, unless they are a single task, and bytes of the results
/// expected from its queued tasks.
pub const CREDIT_BYTES_MAX: u64 = 8 << 20;

/// Bytes of records in the sink's memory beyond which the ventilator dispatches only the tasks that
/// the sink waits for.
pub const HELD_BYTES_MAX: u64 = 16 << 20;

/// Bytes of records in the memory of a sink or a relay beyond which it takes no further result but that of the
/// lowest task without a stored record. Workers keep the others, and are asked for them when there is room.
pub const TAKEN_BYTES_MAX: u64 = 64 << 20;

/// Bytes of records that wait in the sink's memory for an earlier record, beyond which they are
/// spooled.
pub const WAITING_BYTES_MAX: u64 = 4 << 20;

/// Bytes of the sink's spool, unless a flag says otherwise.
pub const SPOOL_BYTES_MAX: u64 = 4 << 30;

/// Payload bytes that the ventilator keeps, unless they are a single task: tasks that are read
/// ahead, or dispatched and not settled.
pub const RETAINED_BYTES_MAX: u64 = 24 << 20;

/// The same for a queue, whose input is always at hand: it is a log in files of the same machine.
pub const QUEUE_RETAINED_BYTES_MAX: u64 = 16 << 20;

/// Bytes of records in the memory of a queue's sink from which on it counts as holding [more than it should](HELD_BYTES_MAX).
/// They wait for nothing but the disk, which the rest is not to run ahead of by much.
pub const QUEUE_HELD_BYTES_MAX: u64 = 8 << 20;

/// Number of tasks that the ventilator reads ahead of dispatching.
pub const READ_AHEAD_TASKS_MAX: u64 = 1 << 15;

/// Number of tasks of a queue that are read at once, while there is [room](READ_AHEAD_TASKS_MAX) for one at least.
/// Any of them may be cancelled, and so have its record, before it is dispatched.
pub const READ_TASKS_MAX: u64 = 1 << 13;

/// Work queued at a worker beyond the tasks that run.
pub const QUEUED_WORK_TARGET: Duration = Duration::from_millis(50);

/// Interval between heartbeats from workers, the ventilator and the sink.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Silence after which a worker is declared lost, provided the sink was heard meanwhile.
pub const WORKER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a new sink's roll call may take. A worker that has not answered by then is lost, and
/// tasks that no worker is known to hold are dispatched again.
pub const ROLL_CALL_GRACE: Duration = WORKER_TIMEOUT;

/// Time in which a worker that is heard has to answer a roll call or a recall, at least; a longer
/// [`WORKER_TIMEOUT`] of a job holds here too. It is also the time that a task may take beyond its timeout.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Number of heartbeats in which bytes of a worker's message excuse it for not answering: it may be the
/// answer, on a slow link.
pub const ARRIVING_BEATS_MAX: u32 = 600;

/// Silence after which the sink counts as unreachable. Until it returns, silent workers are not
/// declared lost.
pub const SINK_SILENCE_MAX: Duration = Duration::from_secs(3);

/// First pause before a worker uses a slot again after its host lacked something to start a task
/// there. The pause doubles with each further failure.
pub const SHORTAGE_PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest of these pauses.
pub const SHORTAGE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// First wait before a failed task is retried. The wait doubles with each attempt.
pub const RETRY_BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Longest wait before a failed task is retried.
pub const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Time within which a living worker is back after a lost connection. A worker whose connections to
/// the ventilator and to the sink have both ended for longer is dead.
pub const RETURN_GRACE: Duration = Duration::from_secs(3);

/// Time for which a worker may report fewer tasks than it was given before the ventilator asks it
/// with a roll call.
pub const DEAF_MIN: Duration = Duration::from_secs(5);

/// Time that one heartbeat of such a worker counts for, however much the clock moved meanwhile.
pub const DEAF_BEAT_MAX: Duration = Duration::from_millis(1_500);

/// Time that a task which failed at a healthy worker waits for another worker.
pub const ELSEWHERE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Time that a task which is too large for every worker waits for another worker.
pub const LARGE_WAIT_MAX: Duration = Duration::from_secs(5);

/// First pause before a worker that was set aside gets a probe: a task that shows whether its host
/// has recovered. The pause doubles with each probe.
pub const PROBE_PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest of these pauses.
pub const PROBE_PAUSE_MAX: Duration = Duration::from_secs(300);

/// Number of lost workers after which a task is recorded as `lost`.
pub const LOSSES_MAX: u32 = 3;

/// Time for which a lane that is being closed may go on delivering what was queued.
pub const LINGER: Duration = Duration::from_secs(2);

/// Time for which a process that knows the job to be over waits for a peer that has to be told and is
/// not there. That peer may have been killed just then, and another one may take its place.
pub const FAREWELL_MAX: Duration = Duration::from_secs(10);

/// Heartbeats of a relay that knows no job after which, for a process that has everything, it is as good
/// as not there. They are counted, since time passes while all processes are stopped as well.
pub const STRANGE_BEATS_MAX: u32 = 30;

/// Time for which a process that was asked to stop waits for peers that it needs and that are all gone.
/// Where all programs are stopped together, none comes back.
pub const ALONE_MAX: Duration = Duration::from_secs(4);

/// Time in which the sink of a cancelled job has to store the next of its last records.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// Time that `docker stop` and `docker compose down` leave a container, by default.
pub const CONTAINER_STOP_MAX: Duration = Duration::from_secs(10);

/// Time that systemd leaves a service that it stops, by default.
pub const SERVICE_STOP_MAX: Duration = Duration::from_secs(90);

/// Time without progress after which a worker that was asked to leave no longer waits for its results
/// to be settled. Progress is a result that is settled, or [`SETTLE_BYTES_MIN`] bytes on their way.
pub const SETTLE_WAIT_MAX: Duration = Duration::from_secs(60);

/// The same for a worker that leaves by itself, because it can run nothing or had nothing to run.
pub const SETTLE_WAIT_LEAVING_MAX: Duration = Duration::from_secs(4);

/// Bytes to the sink that count as progress of results that are on their way. Heartbeats alone are
/// fewer in [`SETTLE_WAIT_MAX`].
pub const SETTLE_BYTES_MIN: u64 = 16 << 10;

/// Bytes of a heartbeat on its lane, at most.
pub const HEARTBEAT_BYTES_MAX: u64 = 64;

/// Time after which a worker that exits with the job, and has never reached the ventilator, takes the
/// job to be over.
pub const LATE_MAX: Duration = Duration::from_secs(60);

/// Time after which a worker that exits with the job, and has worked for one, takes that to be over
/// because no ventilator that it could reach has known it. Longer than a machine takes to start again.
pub const FORGOTTEN_MAX: Duration = Duration::from_secs(600);

/// Time for which a worker tries in vain to start any task at all, because its host lacks something,
/// before it leaves.
pub const STARVED_MAX: Duration = Duration::from_secs(60);

/// Bytes of a task's stdout, unless a flag says otherwise.
pub const OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// Bytes of the reason why a task has failed.
pub const ERROR_BYTES_MAX: usize = 4 << 10;

/// Bytes of the end of a task's stderr that its record keeps.
pub const STDERR_BYTES_MAX: usize = 64 << 10;

/// Bytes of the name of a worker or a job.
pub const NAME_BYTES_MAX: usize = 100;

/// Bytes of the name of a queue.
pub const QUEUE_BYTES_MAX: usize = 63;

/// Number of workers that a sink names to a new ventilator.
pub const WORKERS_MAX: usize = 1 << 14;

/// Number of slots of one worker.
pub const SLOTS_MAX: u32 = 4096;

// The largest is a worker's answer to a roll call, with two lists of ranges, and a hash and a tag for each task; a seq
// takes nine bytes, a hash five and a tag eight. A receipt has two such lists, and so has a hello.
const _: () = assert!(
    (RANGES_MAX * (4 * 9 + 5 + 8) + WORKERS_MAX * 9) as u64 + 2 * MESSAGE_OVERHEAD_BYTES
        <= TO_VENTILATOR_BYTES_MAX
);
const _: () = assert!(OUTPUT_BYTES_MAX + MESSAGE_OVERHEAD_BYTES <= MESSAGE_BYTES_MAX);
const _: () = assert!(WAITING_BYTES_MAX < HELD_BYTES_MAX);
// The ventilator stops long before results have to stay where they are.
const _: () = assert!(HELD_BYTES_MAX < TAKEN_BYTES_MAX);

const _: () = assert!(QUEUE_HELD_BYTES_MAX <= HELD_BYTES_MAX);

// Less than a worker may hold would starve it.
const _: () = assert!(CREDIT_BYTES_MAX < QUEUE_RETAINED_BYTES_MAX);
const _: () = assert!(CREDIT_TASKS_MAX <= UNSETTLED_TASKS_MAX);
const _: () = assert!(READ_AHEAD_TASKS_MAX <= UNSETTLED_TASKS_MAX);
const _: () = assert!(BATCH_TASKS_MAX as u64 <= CREDIT_TASKS_MAX);
const _: () = assert!((BATCH_BYTES_MAX as u64) < MESSAGE_BYTES_MAX);
const _: () = assert!((SLOTS_MAX as u64) < CREDIT_TASKS_MAX);
const _: () = assert!(DEAF_BEAT_MAX.as_millis() > HEARTBEAT_INTERVAL.as_millis());
const _: () = assert!(WORKER_TIMEOUT.as_millis() >= 3 * HEARTBEAT_INTERVAL.as_millis());
// A living peer is back before a process leaves because it is missing.
const _: () = assert!(ALONE_MAX.as_millis() > RETURN_GRACE.as_millis());
const _: () = assert!(FAREWELL_MAX.as_millis() > RETURN_GRACE.as_millis());
// A ventilator that is not heard because it is stopped, or cut off, is waited for longer than a worker.
const _: () = assert!(
    STRANGE_BEATS_MAX as u128 * HEARTBEAT_INTERVAL.as_millis() > 2 * WORKER_TIMEOUT.as_millis()
);
const _: () = assert!(LINGER.as_millis() < ALONE_MAX.as_millis());
// A drain that no worker can finish ends as cancelled before a container is killed.
const _: () =
    assert!(ALONE_MAX.as_millis() + CANCEL_GRACE.as_millis() < CONTAINER_STOP_MAX.as_millis());
// A worker has left, with its goodbye, before systemd kills it.
const _: () =
    assert!(SETTLE_WAIT_MAX.as_millis() + LINGER.as_millis() < SERVICE_STOP_MAX.as_millis());
const _: () = assert!(SETTLE_WAIT_LEAVING_MAX.as_millis() > HEARTBEAT_INTERVAL.as_millis());
const _: () = assert!(
    HEARTBEAT_BYTES_MAX * (SETTLE_WAIT_MAX.as_secs() / HEARTBEAT_INTERVAL.as_secs())
        < SETTLE_BYTES_MIN
);
const _: () = assert!(LATE_MAX.as_millis() > FAREWELL_MAX.as_millis());
const _: () = assert!(FORGOTTEN_MAX.as_millis() > LATE_MAX.as_millis());
