//! Leases in a table, by the server's clock: one statement each. Locks of sessions are not used: who was stopped would
//! keep them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::Type;
use tradewind_engine::{EngineError, Epoch, Leases};

use crate::connection::{Connection, Value, signed, unsigned, value};

const TAKE: &str = "
    insert into orders_leases as lease (partition, epoch, owner, lasts, renewed)
    values ($1, 1, $2, $3 * interval '1 microsecond', clock_timestamp())
    on conflict (partition) do update
    set epoch = lease.epoch + 1, owner = excluded.owner, lasts = excluded.lasts, renewed = clock_timestamp()
    where lease.owner is null or lease.renewed + lease.lasts <= clock_timestamp()
    returning epoch";

const RENEW: &str = "
    update orders_leases set lasts = $3 * interval '1 microsecond', renewed = clock_timestamp()
    where partition = $1 and epoch = $2 and owner is not null
    returning epoch";

const RELEASE: &str = "
    update orders_leases set owner = null where partition = $1 and epoch = $2 and owner is not null";

const HOLDERS: &str = "
    select partition, owner from orders_leases
    where owner is not null and renewed + lasts > clock_timestamp()";

#[derive(Debug)]
pub(crate) struct PostgresLeases {
    connection: Arc<Connection>,
}

impl PostgresLeases {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    /// Sends a statement that returns an epoch, or none.
    fn epoch(&self, text: &str, values: &[Value<'_>]) -> Result<Option<Epoch>, EngineError> {
        let rows = self.connection.run(async |session| session.write(text, values).await)?;
        rows.first().map(|row| Ok(Epoch(unsigned(value(row, 0)?)))).transpose()
    }
}

impl Leases for PostgresLeases {
    fn take(
        &mut self,
        partition: u32,
        owner: &str,
        time: Duration,
    ) -> Result<Option<Epoch>, EngineError> {
        let (partition, micros) = (i64::from(partition), micros(time));
        let values =
            [(&partition as _, Type::INT8), (&owner as _, Type::TEXT), (&micros as _, Type::INT8)];
        self.epoch(TAKE, &values)
    }

    fn holders(&mut self) -> Result<BTreeMap<u32, String>, EngineError> {
        let rows = self.connection.run(async |session| session.query(HOLDERS, &[]).await)?;
        let mut holders = BTreeMap::new();
        for row in &rows {
            if let Ok(partition) = value::<i64>(row, 0)?.try_into() {
                holders.insert(partition, value(row, 1)?);
            }
        }
        Ok(holders)
    }

    fn renew(&mut self, partition: u32, epoch: Epoch, time: Duration) -> Result<(), EngineError> {
        let (partition, held, micros) = (i64::from(partition), signed(epoch.0), micros(time));
        let values =
            [(&partition as _, Type::INT8), (&held as _, Type::INT8), (&micros as _, Type::INT8)];
        if self.epoch(RENEW, &values)?.is_some() {
            return Ok(());
        }
        let text = "select epoch from orders_leases where partition = $1 and epoch > $2";
        let by = self.epoch(text, &values[..2])?;
        Err(EngineError::Fenced { epoch, by })
    }

    fn release(&mut self, partition: u32, epoch: Epoch) -> Result<(), EngineError> {
        let (partition, epoch) = (i64::from(partition), signed(epoch.0));
        self.epoch(RELEASE, &[(&partition, Type::INT8), (&epoch, Type::INT8)]).map(drop)
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
