//! The queues of a directory, and what their requests have in common.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tradewind_http::{QueueName, Refusal};

use crate::config::Config;

/// Beginning of the names of directories of queues that are being removed.
pub(crate) const REMOVED: &str = ".removed-";

/// Reason why a directory of queues cannot be read.
#[derive(Debug, Error)]
#[error("{}: {error}", .path.display())]
pub(crate) struct Unreadable {
    path: PathBuf,
    error: io::Error,
}

/// Returns the names of the queues that are in a directory, and of those that are configured. Removes what is left of
/// others.
pub(crate) fn names(dir: &Path, config: &Config) -> Result<Vec<QueueName>, Unreadable> {
    let amiss = |error| Unreadable { path: dir.to_owned(), error };
    fs::create_dir_all(dir).map_err(amiss)?;
    let mut names: Vec<QueueName> = config.queues.keys().cloned().collect();
    for entry in fs::read_dir(dir).map_err(amiss)? {
        let name = entry.map_err(amiss)?.file_name();
        let name = name.to_string_lossy();
        match name.parse() {
            Ok(name) => names.push(name),
            Err(_) if name.starts_with(REMOVED) => {
                let _ = fs::remove_dir_all(dir.join(&*name));
            }
            Err(_) => {
                tracing::warn!("{}: {name:?} is no queue, and is left alone", dir.display());
            }
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Does something to its end, although the client that has asked for it may leave meanwhile.
pub(crate) async fn whole<T: Send + 'static>(
    done: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(done).await.unwrap_or(Err(Refusal::Failed("the request was not carried out")))
}
