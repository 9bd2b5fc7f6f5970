//! What a machine that stopped has taken from a queue that is not synced.

use tradewind_records::Medium;

use crate::control::{Change, Control, ControlError};
use crate::records::RecordLog;
use crate::tasks::Tasks;

/// Makes good what logs have lost that were opened on a medium that is not [synced](Medium::is_synced), of which each
/// may have lost its end for itself. Tasks go on behind all positions that are known to have been given, so that no new
/// one has the record or the cancel of one that is lost; and a consumer of lost records reads on where the next ones
/// will be. Returns the number of tasks that are passed over: they are as if they were removed from the log.
///
/// # Errors
///
/// When the control log cannot be written.
pub fn skip_lost<M: Medium>(
    tasks: &mut Tasks<M>,
    records: &RecordLog<M>,
    control: &mut Control<M>,
) -> Result<u64, ControlError> {
    let (end, records_end) = (tasks.committed(), records.committed());
    let state = control.state();
    tasks.skip_to(records.stored().end().0.max(state.cancelled.end().0));
    let ahead = state.consumers.iter().filter(|(_, next)| **next > records_end);
    let ahead: Vec<Box<str>> = ahead.map(|(name, _)| name.clone()).collect();
    for name in ahead {
        control.apply(Change::Consumer(name, Some(records_end)))?;
    }
    control.commit()?;
    Ok(tasks.committed() - end)
}
