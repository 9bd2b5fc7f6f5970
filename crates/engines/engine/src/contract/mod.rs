//! The cases that each engine passes, against a real server where it has one.
//!
//! An engine's tests implement [`Stage`] and call [`contract!`](crate::contract!), which makes a test of each case. A
//! case that cannot apply to an engine is named there, with the reason.

pub mod cases;
mod proxy;

use std::time::Duration;

pub use self::proxy::Proxy;
use crate::{Engine, EngineError, Epoch};

/// Lease time that no case outlives.
const LONG: Duration = Duration::from_secs(600);

/// What happens to a server, or to the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server is ended with SIGKILL.
    Kill,
    /// It is started again, over what it had.
    Start,
    /// Answers do not arrive, and requests do. Connections stay.
    DropAnswers,
    /// Each answer arrives that much later.
    Slow(Duration),
    /// Connections are closed, and what is on its way in them is lost; new ones are as they were at first.
    Mend,
}

/// What a case is played on: a queue of its own, empty at first, with two partitions.
pub trait Stage {
    /// Opens the queue as a new process would.
    ///
    /// # Errors
    ///
    /// Those of the engine.
    fn open(&self) -> Result<Box<dyn Engine>, EngineError>;

    /// Makes something happen, and returns when it has.
    fn fault(&self, fault: Fault);

    /// Removes a task of partition 0 as somebody else would, with the engine's own means.
    fn remove_task(&self, position: u64);

    /// Opens the queue with credentials that are not right.
    fn open_wrongly(&self) -> EngineError;

    /// Opens a queue again and again that was made by somebody else, with settings that lose tasks or records: for each
    /// the setting, and the error.
    fn open_lossy(&self) -> Vec<(String, Option<EngineError>)>;

    /// Returns the bytes that no task may have.
    fn too_large(&self) -> usize;

    /// Returns the epoch of the next owner of a partition.
    fn next_epoch(&self, engine: &dyn Engine, partition: u32) -> Epoch {
        let mut leases = engine.leases().expect("the leases open");
        // A lease that is held may be given up by anyone who knows its epoch.
        for epoch in 1.. {
            let taken = leases.take(partition, "a case", LONG).expect("the engine answers");
            if let Some(taken) = taken {
                return taken;
            }
            leases.release(partition, Epoch(epoch)).expect("the engine answers");
        }
        unreachable!("an epoch is found")
    }
}

/// Plays a case, unless it does not apply.
pub fn play<S: Stage>(
    name: &str,
    case: fn(&dyn Stage),
    not: &[(&str, &str)],
    begin: impl FnOnce(&str) -> S,
) {
    match not.iter().find(|(case, _)| *case == name) {
        Some((_, why)) => eprintln!("{name}: does not apply: {why}"),
        None => case(&begin(name)),
    }
}

/// Makes a test of each case. `$begin` is a function that makes a [`Stage`] from the case's name, `$not` are the cases
/// that do not apply, each with the reason.
#[macro_export]
macro_rules! contract {
    ($begin:path, $not:expr) => {
        $crate::contract!(@ $begin, $not;
            tasks_are_read_in_order_across_reads
            nothing_is_done_for_empty_calls
            binary_payloads_keys_and_options_read_back
            a_read_waits_for_a_task_and_no_longer
            two_readers_read_the_same
            tasks_of_many_submitters_have_positions_of_their_own
            a_reader_beside_submitters_passes_over_none
            partitions_are_apart
            a_key_twice_is_one_task
            a_key_of_another_task_is_refused
            a_call_with_the_same_id_is_the_same_tasks
            a_trim_twice_is_one
            a_trimmed_task_is_known_by_its_key
            a_gap_is_passed_over
            a_record_is_stored_once
            records_are_read_by_position_and_followed
            a_removed_record_stays_stored
            a_checkpoint_is_gone_on_from
            an_old_epoch_is_refused
            a_new_epoch_counts_before_its_first_record
            a_lease_is_taken_over_when_it_is_not_renewed
            a_lease_that_was_taken_is_not_renewed
            who_has_leases_is_told
            a_lost_answer_to_a_submit_doubles_nothing
            a_lost_answer_to_a_commit_doubles_nothing
            slow_answers_are_waited_for
            an_engine_that_is_away_is_waited_for
            a_killed_engine_has_all_that_it_said_yes_to
            wrong_credentials_are_refused
            settings_that_lose_tasks_are_refused
            a_task_too_large_is_refused_and_the_next_is_not
        );
    };
    (@ $begin:path, $not:expr; $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                let case = $crate::contract::cases::$case;
                $crate::contract::play(stringify!($case), case, $not, $begin);
            }
        )*

        #[test]
        fn each_case_that_does_not_apply_is_one() {
            let cases = [$(stringify!($case)),*];
            let not: &[(&str, &str)] = $not;
            for (name, why) in not {
                assert!(cases.contains(name), "there is no case {name}");
                assert!(!why.is_empty(), "{name} has no reason");
            }
            eprintln!("{} cases, {} of them do not apply", cases.len(), not.len());
        }
    };
}
