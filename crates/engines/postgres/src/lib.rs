//! PostgreSQL underneath a queue: a table of tasks, into which programs insert in transactions of their own, and tables
//! of positions, records and leases beside it. [`Postgres`] is the engine.
//!
//! `schema.sql` has the tables, and says what a program may do with them. Needs a server of version 13 or later.

mod connection;
mod error;
mod leases;
mod records;
mod schema;
mod tasks;
mod tls;
mod url;

use std::sync::Arc;

use tradewind_engine::{Engine, EngineError, Leases, RecordLog, TaskLog};

use self::connection::Connection;
use self::leases::PostgresLeases;
use self::records::PostgresRecords;
use self::schema::Found;
pub use self::schema::SCHEMA;
use self::tasks::PostgresTasks;
pub use self::url::{Password, PostgresUrl, TlsMode, UrlError};

/// A queue's tables in a database.
#[derive(Debug)]
pub struct Postgres {
    connection: Arc<Connection>,
    found: Found,
}

impl Postgres {
    /// Connects to a server, makes the tables where there are none, and looks at the settings.
    ///
    /// # Errors
    ///
    /// When it cannot be reached, refuses the credentials, or has settings or tables that would lose tasks.
    pub fn connect(url: PostgresUrl) -> Result<Self, EngineError> {
        let connection = Connection::open(url)?;
        let found = schema::check(&connection)?;
        Ok(Self { connection: Arc::new(connection), found })
    }

    /// Returns the number of partitions that the tables have.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.found.partitions
    }

    fn check_partition(&self, partition: u32) -> Result<i32, EngineError> {
        let partitions = self.found.partitions;
        match i32::try_from(partition) {
            Ok(number) if partition < partitions => Ok(number),
            _ => Err(EngineError::Refused(format!(
                "table {} has {partitions} partitions, from 0 on, and none with the number {partition}",
                self.connection.url.table
            ))),
        }
    }
}

impl Engine for Postgres {
    fn tasks(&self, partition: u32) -> Result<Box<dyn TaskLog>, EngineError> {
        let partition = self.check_partition(partition)?;
        Ok(Box::new(PostgresTasks::new(Arc::clone(&self.connection), partition)))
    }

    fn records(&self, partition: u32) -> Result<Box<dyn RecordLog>, EngineError> {
        let partition = self.check_partition(partition)?;
        Ok(Box::new(PostgresRecords::new(Arc::clone(&self.connection), partition)))
    }

    fn leases(&self) -> Result<Box<dyn Leases>, EngineError> {
        Ok(Box::new(PostgresLeases::new(Arc::clone(&self.connection))))
    }

    /// Also says what holds up tasks of programs.
    fn notes(&self) -> Vec<String> {
        self.found.notes.clone()
    }
}
