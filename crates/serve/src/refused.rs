//! Changes of a control log that requests ask for, and why they are not made.

use std::time::Duration;

use tradewind_http::Refusal;
use tradewind_store::{Change, ChangeError, ControlError};

use crate::control::ControlLog;
use crate::submitter::is_full;

/// Time after which a request for which there was no room may come again.
pub(crate) const FULL_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Makes changes that survive a crash of the machine. Blocks.
pub(crate) fn changed(
    control: &ControlLog,
    changes: impl IntoIterator<Item = Change>,
) -> Result<(), Refusal> {
    let full = |what| Refusal::Full { what, retry_after: FULL_RETRY_AFTER };
    control.change(changes).map_err(|error| match error {
        ControlError::Change(ChangeError::ConsumersFull) => full("there are too many consumers"),
        ControlError::Change(ChangeError::CancelledFull) => {
            full("too many tasks are cancelled and have no record")
        }
        ControlError::Log(error) if is_full(&error) => full("the disk is full"),
        error => {
            tracing::error!("{}: cannot be written: {error}", control.dir().display());
            Refusal::Failed("the control log cannot be written")
        }
    })
}
