//! A few connections that are kept for the next request.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

/// One connection, which carries a request at a time.
pub(crate) type Connection = SendRequest<Full<Bytes>>;

/// Number of connections that are kept.
const KEPT_MAX: usize = 4;

/// Time for which one is kept. A server ends one without a request after 10 s: a request that crosses with
/// that end would have no answer.
const KEPT_TIME: Duration = Duration::from_secs(5);

/// Connections without a request.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<(Connection, Instant)>>);

impl Pool {
    /// Returns a connection that is still there, the latest.
    pub(crate) async fn take(&self) -> Option<Connection> {
        loop {
            let (mut connection, since) = self.lock().pop()?;
            if since.elapsed() >= KEPT_TIME {
                self.lock().clear();
                return None;
            }
            // That the server has ended it is noticed by its task, which may not have run since: on a runtime
            // that runs only when it is asked something.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            if connection.ready().await.is_ok() && !connection.is_closed() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn give(&self, connection: Connection) {
        let mut kept = self.lock();
        if kept.len() < KEPT_MAX && !connection.is_closed() {
            kept.push((connection, Instant::now()));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
