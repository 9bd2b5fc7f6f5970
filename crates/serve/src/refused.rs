//! What requests have logs do, and why it is not done.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
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

/// Does something that waits for the disk, on another thread.
pub(crate) async fn blocking<Q, T>(
    queue: &Arc<Q>,
    run: impl FnOnce(&Q) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal>
where
    Q: Send + Sync + 'static,
    T: Send + 'static,
{
    let queue = queue.clone();
    let done = tokio::task::spawn_blocking(move || run(&queue)).await;
    done.unwrap_or(Err(Refusal::Failed("the request was not carried out")))
}

/// Logs that a log in this directory cannot be read, and refuses what asked for it.
pub(crate) fn unreadable(dir: &Path, error: &dyn Error) -> Refusal {
    tracing::error!("{}: cannot be read: {error}", dir.display());
    Refusal::Failed("the log cannot be read")
}
