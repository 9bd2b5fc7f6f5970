//! The router over queues.

use std::sync::Arc;

use axum::Router;

use crate::access::Access;
use crate::app::App;
use crate::limits::Limits;
use crate::queues::Queues;
use crate::routes::router;

/// Answers requests to queues.
#[derive(Debug)]
pub struct Server<Q> {
    app: Arc<App<Q>>,
    router: Router,
}

impl<Q: Queues> Server<Q> {
    /// Makes a server.
    #[must_use]
    pub fn new(queues: Q, access: Access, limits: Limits) -> Self {
        let app = Arc::new(App::new(queues, access, limits));
        let router = router(&app);
        Self { app, router }
    }

    /// Returns what answers one request, without the limits of connections. A request needs a token unless
    /// its [`Peer`](crate::Peer) is an extension of it.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Ends what waits: streams of records end, and requests that wait for a record are answered without it.
    pub fn drain(&self) {
        self.app.draining.send_replace(true);
    }
}
