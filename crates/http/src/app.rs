//! What all requests share.

use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::limits::{Budget, Limits};
use crate::server::Draining;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct App<Q> {
    pub(crate) queues: Q,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    pub(crate) budget: Arc<Budget>,
    /// Whether the server is drained: nothing is waited for then.
    pub(crate) draining: Draining,
}

impl<Q> App<Q> {
    pub(crate) fn new(queues: Q, access: Access, limits: Limits, draining: Draining) -> Self {
        let budget = Budget::new(limits.bodies_bytes_max);
        Self { queues, access, limits, budget, draining }
    }

    /// Returns the time that a request waits which asks for this.
    pub(crate) fn wait(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or_default().min(self.limits.wait_max)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.has_begun()
    }

    /// Asks something that waits; once the server is drained, it is asked again without a wait.
    pub(crate) async fn waiting<T, F: Future<Output = T>>(
        &self,
        wait: Duration,
        ask: impl Fn(Duration) -> F,
    ) -> T {
        let drained = self.draining.begun();
        let wait = if self.is_draining() { Duration::ZERO } else { wait };
        tokio::select! {
            biased;
            answer = ask(wait) => answer,
            () = drained, if !wait.is_zero() => ask(Duration::ZERO).await,
        }
    }
}
