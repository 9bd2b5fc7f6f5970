//! NATS JetStream underneath a queue: a stream for the tasks and one for the records of each partition, and a bucket for
//! the leases. [`Nats`] is the engine.
//!
//! A position is the sequence of a message in its stream, less one. Needs a server of version 2.11 or later, whose
//! messages are read in batches without a consumer.

mod connection;
mod leases;
mod records;
mod settings;
mod tasks;
mod url;

use std::sync::Arc;

use tradewind_engine::{Engine, EngineError, Leases, RecordLog, TaskLog};

use self::connection::Connection;
use self::leases::NatsLeases;
use self::records::NatsRecords;
use self::tasks::NatsTasks;
pub use self::url::{Login, NatsUrl, UrlError};

/// A queue's streams on a NATS server or a cluster of them.
#[derive(Debug)]
pub struct Nats(Arc<Connection>);

impl Nats {
    /// Connects to a server.
    ///
    /// # Errors
    ///
    /// When none can be reached, or it refuses the credentials.
    pub fn connect(url: NatsUrl) -> Result<Self, EngineError> {
        Ok(Self(Arc::new(Connection::open(url)?)))
    }
}

impl Engine for Nats {
    fn tasks(&self, partition: u32) -> Result<Box<dyn TaskLog>, EngineError> {
        Ok(Box::new(NatsTasks::open(Arc::clone(&self.0), partition)?))
    }

    fn records(&self, partition: u32) -> Result<Box<dyn RecordLog>, EngineError> {
        Ok(Box::new(NatsRecords::open(Arc::clone(&self.0), partition)?))
    }

    fn leases(&self) -> Result<Box<dyn Leases>, EngineError> {
        Ok(Box::new(NatsLeases::open(Arc::clone(&self.0))?))
    }

    fn notes(&self) -> Vec<String> {
        match self.0.url.replicas {
            1 => vec![
                "streams are made with one replica: after a power failure what was acknowledged is there only if the \
                 server's jetstream block says sync_interval: always, which cannot be asked for from here"
                    .into(),
            ],
            _ => Vec::new(),
        }
    }
}
